"""What a result rests on beside a step's arguments: the registry's state, which changes under the same names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import Connection

from carelake.core import canonical
from carelake.core.arns import resource_of
from carelake.models.packages import rows
from carelake.models.tables import model_package

__all__ = ["standing"]

_APPROVED = "Approved"
_CONFIG = "analysis_config"


def standing(tx: Connection, account: str, request: Mapping[str, Any]) -> dict[str, str]:
    """Facts for the key of the cache: a group's newest approved version, and the state of a version that is asked.

    Args:
        request: a step's arguments, resolved.
    """
    found = {}
    if group := (request.get("Check") or {}).get("ModelPackageGroupName"):
        name = resource_of(str(group), "sagemaker", account).removeprefix("model-package-group/")
        every = rows.packages(tx, account, model_package.c.name == name)
        approved = [one for one in every if one.name == name and one.state == _APPROVED and not one.deleted]
        found["approved"] = max(approved, key=lambda one: one.version).ref if approved else ""
    for name in _models(request):
        package = _package(tx, account, name)
        found[name] = package.state if package is not None and not package.deleted else ""
    if _configured(request):
        # It may name a version in a file that is not read here: any that changes its state makes it anew.
        every = rows.packages(tx, account, model_package.c.account == account)
        found["versions"] = canonical.digest(sorted([one.ref, one.state, one.deleted] for one in every))
    return found


def _configured(request: Mapping[str, Any]) -> bool:
    """Whether a check has an analysis configuration, which names its model as ``predictor.model_name``."""
    inputs = [str(one.get("InputName")) for one in request.get("ProcessingInputs") or ()]
    return _CONFIG in inputs or _CONFIG in (request.get("Environment") or {})


def _models(request: Mapping[str, Any]) -> Iterator[str]:
    """Registered versions that a step names as its model, by ref, ARN or ``GROUP/VERSION``."""
    told = (request.get("ModelName"), (request.get("Environment") or {}).get("model_name"))
    yield from (str(one) for one in told if one and not str(one).startswith("artifact:"))


def _package(tx: Connection, account: str, name: str) -> rows.Package | None:
    if name.startswith("model:"):
        return rows.find(tx, account, name)
    group, _, version = resource_of(name, "sagemaker", account).removeprefix("model-package/").rpartition("/")
    every = rows.packages(tx, account, model_package.c.name == group)
    return next((one for one in every if (one.name, str(one.version)) == (group, version)), None)
