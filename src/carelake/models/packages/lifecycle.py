"""ModelLifeCycle: where a version stands between proposal and archive, and which move may follow."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

import msgspec

from carelake.core.errors import Conflict, Invalid
from carelake.core.shapes import decodable

__all__ = ["Rules", "checked", "rules"]


class Rules(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"follows": "from"}):
    """``lifecycle.toml``; its legend says what each means."""

    stages: tuple[str, ...]
    first: tuple[str, ...]
    decided: tuple[str, ...]
    released: tuple[str, ...]
    last: str
    follows: dict[str, tuple[str, ...]]


@cache
def rules() -> Rules:
    """The rules that are shipped."""
    text = resources.files(__package__).joinpath("lifecycle.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), decodable(Rules))


def checked(now: Mapping[str, Any] | None, asked: Mapping[str, Any], state: str) -> dict[str, str]:
    """The stage and status asked for, when they may follow.

    Args:
        now: ModelLifeCycle as it is; None for a version that has none yet.
        asked: ``Stage``, ``StageStatus``, ``StageDescription``.
        state: ModelApprovalStatus.

    Raises:
        Invalid: ``models.lifecycle``: no such stage or status.
        Conflict: ``models.lifecycle_move``: it may not follow, or the version is not approved for that stage.
    """
    known = rules()
    stage, status = str(asked.get("Stage", "")), str(asked.get("StageStatus", ""))
    if stage not in known.stages or status not in known.follows:
        raise Invalid(
            "models.lifecycle",
            f"A stage is one of {', '.join(known.stages)}, and its status one of {', '.join(known.follows)}.",
        )
    if not _may(known, now, stage, status):
        at = f"{now['Stage']} {now['StageStatus']}" if now else "no stage"
        raise Conflict("models.lifecycle_move", f"From {at} a version does not go to {stage} {status}.")
    if stage in known.released and state != "Approved":
        raise Conflict("models.lifecycle_move", f"The version is {state}; only an Approved one goes to {stage}.")
    text = str(asked.get("StageDescription", ""))
    return {"Stage": stage, "StageStatus": status, **({"StageDescription": text} if text else {})}


def _may(known: Rules, now: Mapping[str, Any] | None, stage: str, status: str) -> bool:
    if stage == known.last:
        return status == "Retired" and (now is None or now["Stage"] != known.last)
    if now is None:
        return status in known.first
    if now["Stage"] == stage:
        return status in known.follows[str(now["StageStatus"])]
    if now["Stage"] == known.last or now["Stage"] not in known.stages:
        return False
    ahead = known.stages.index(stage) - known.stages.index(str(now["Stage"]))
    return status in known.first and (ahead < 0 or (ahead == 1 and now["StageStatus"] == "Approved"))
