"""``dataset``: training sets with their proof."""

from __future__ import annotations

import io
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from carelake.apps.cli.prove import noun_json
from carelake.apps.cli.session import Options, Session, answer, note
from carelake.apps.cli.tables import progress, show
from carelake.core.clock import instant
from carelake.core.errors import Invalid
from carelake.core.nouns import Noun
from carelake.features import trainingset
from carelake.features.datasets import build as building
from carelake.features.datasets import design
from carelake.features.datasets import meds as meds_sets
from carelake.features.datasets.build import Lake
from carelake.features.datasets.verify import verify as verified
from carelake.features.trainingset import TrainingSet
from carelake.lake import asof
from carelake.vault.disk import write_atomic

__all__ = ["build", "labels", "list_recipes", "list_sets", "show_set", "verify"]

_NOT_VERIFIED = 6
_MOST = 1 << 20
_ACTION = "features:build"


def build(
    session: Session,
    *,
    json_out: bool,
    recipe: str,
    out: Path | None,
    as_of: str | None,
    data_end: str | None,
    meds: Path | None,
    labels: Path | None,
    engine: str | None = None,
) -> None:
    """Build a training set, or find it, and write it where that is asked for."""
    wanted = _recipe(recipe)
    end, outside = _instant(data_end), meds_sets.given(meds, labels)
    with progress() as bars, session.workspace.enter(session.caller(), _ACTION, wanted.name, job=True) as permit:
        task = bars.add_task(wanted.title, total=None)

        def tell(done: int, of: int) -> None:
            bars.update(task, completed=done, total=of)

        lake = Lake(permit, session.workspace.vault, session.workspace.nouns)
        if outside is not None:
            made = meds_sets.build(lake, wanted, outside)
        else:
            snapshot = asof.as_of(permit, lake.vault, lake.nouns, as_of)
            made = building.build(lake, wanted, snapshot, data_end=end, engine=engine, tell=tell)
            bars.update(task, total=1, completed=1)
    if out is not None:
        _write(session, made.noun.ref, made.table, out)
    said = {**_told(made.noun), "recipe": wanted.name, "out": str(out) if out else None}
    if json_out:
        answer(said)
    else:
        _explain(made, said)


def _recipe(said: str) -> design.Recipe:
    path = Path(said)
    if path.suffix != ".toml" or not path.is_file():
        return design.read(said)
    with path.open("rb") as file:
        return design.of_toml(file.read(_MOST + 1))


def _instant(said: str | None) -> datetime | None:
    try:
        return instant(said) if said else None
    except ValueError:
        raise Invalid("datasets.data_end", "Expected an instant with its zone, like 2026-01-01T00:00:00Z.") from None


def _write(session: Session, ref: str, table: pa.Table, out: Path) -> None:
    """In the clear, which is an export."""
    with session.workspace.enter(session.caller(), "lake:export", ref) as permit:
        _put(table, out)
        permit.log.count(rows=len(table))


def _put(table: pa.Table, out: Path) -> None:
    data = io.BytesIO()
    pq.write_table(table, data, compression="zstd")
    write_atomic(out, data.getvalue())


def labels(session: Session, *, json_out: bool, ref: str, out: Path) -> None:
    """Write a training set's labels as MEDS labels."""
    with session.workspace.enter(session.caller(), _ACTION, ref) as permit:
        lake = Lake(permit, session.workspace.vault, session.workspace.nouns)
        noun = building.noun_of(lake, ref, "trainingset")
        table = meds_sets.labels_of(lake, trainingset.load(permit, lake.vault, noun))
    _write(session, ref, table, out)
    told = {"ref": ref, "labels": len(table), "out": str(out)}
    if json_out:
        answer(told)
    else:
        note(f"{told['labels']} labels: {out}")


def _told(noun: Noun) -> dict[str, Any]:
    body = noun.body
    proof = body.get("proof")
    return {
        "ref": noun.ref,
        "training_set": noun.ref,
        "state": noun.state,
        "feature_set": noun.made_from[0] if noun.made_from else None,
        "snapshot": body.get("snapshot"),
        **{name: body.get(name) for name in ("rows", "features", "attrition", "data_end", "split", "leaks")},
        "proof": None if proof is None else {name: proof[name] for name in ("digest", "sources")},
    }


def _explain(made: TrainingSet, said: dict[str, Any]) -> None:
    show(["step", "rows"], [{"step": name, "rows": count} for name, count in said["attrition"].items()])
    show(["set", "rows"], [{"set": name, "rows": count} for name, count in said["split"]["counts"].items()])
    if said["leaks"]:
        show(["check", "severity", "where", "rows", "figure"], said["leaks"])
    note(f"{said['rows']} rows, {len(made.features)} features: {said['ref']}")


def verify(session: Session, *, json_out: bool, ref: str, meds: Path | None, labels: Path | None) -> int:
    """Verify a training set; exit code 6 when it does not verify."""
    with session.workspace.enter(session.caller(), _ACTION, ref, job=True) as permit:
        lake = Lake(permit, session.workspace.vault, session.workspace.nouns)
        told = verified(lake, ref, meds_sets.given(meds, labels))
        permit.log.count(problems=len(told["problems"]))
    if json_out:
        answer(told)
    else:
        _verdict(told)
    return _NOT_VERIFIED if told["verified"] is False else 0


def _verdict(told: dict[str, Any]) -> None:
    words = {True: "Verified", False: "NOT VERIFIED", None: "Cannot be verified"}
    note(f"{words[told['verified']]}: {told['rows']} rows.")
    for one in told["problems"]:
        note(", ".join(f"{name} {value}" for name, value in one.items()))
    if told.get("note"):
        note(told["note"])
    if told.get("successor"):
        note(f"Made of the rest: {told['successor']}")


def list_sets(session: Session, *, json_out: bool) -> None:
    """List training sets."""
    workspace = session.workspace
    with (
        workspace.enter(session.caller(), "model:read", "datasets") as permit,
        workspace.vault.database.reading(permit) as tx,
    ):
        found = workspace.nouns.find(tx, "trainingset", permit.account)
    rows = [
        {"ref": one.ref, "recipe": _name_of(one), "rows": one.body["rows"], "state": one.state,
         "data_end": one.body.get("data_end"), "proof": "proof" in one.body}
        for one in found
    ]  # fmt: skip
    if json_out:
        answer(rows)
    else:
        show(["recipe", "rows", "data_end", "state", "ref"], rows)


def _name_of(noun: Noun) -> str:
    return str(noun.body.get("recipe", {}).get("name", "readmission"))


def show_set(session: Session, *, json_out: bool, ref: str) -> None:
    """Show a training set."""
    workspace = session.workspace
    with workspace.enter(session.caller(), "model:read", ref) as permit:
        noun = building.noun_of(Lake(permit, workspace.vault, workspace.nouns), ref, "trainingset")
    said = {**_told(noun), "recipe": noun.body.get("recipe", {"name": "readmission"}), "noun": noun_json(noun)}
    if json_out:
        answer(said)
        return
    show(["step", "rows"], [{"step": name, "rows": count} for name, count in said["attrition"].items()])
    show(["check", "severity", "where", "rows", "figure"], said["leaks"] or [])
    note(f"{said['rows']} rows, {len(said['features'])} features, {noun.state}: {ref}")


def list_recipes(options: Options, *, json_out: bool) -> None:
    """List the recipes that come with the package."""
    rows = [{"name": one, "title": design.read(one).title} for one in design.shipped()]
    if json_out:
        answer(rows)
    else:
        show(["name", "title"], rows)
