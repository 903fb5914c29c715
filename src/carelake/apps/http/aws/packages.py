"""Model package groups and model packages: the registry's versions, their approval and their stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from carelake.apps.http.aws.models import SAGEMAKER
from carelake.apps.http.aws.served import Asked, Run, Served
from carelake.pipelines import releases

__all__ = ["operations"]

_READS, _MANAGES, _APPROVES = "model:read", "model:manage", "model:approve"
_TARGET = "models"
_GROUPS = {
    "CreateModelPackageGroup": ("create", _MANAGES),
    "DeleteModelPackageGroup": ("delete", _MANAGES),
    "DescribeModelPackageGroup": ("describe", _READS),
    "ListModelPackageGroups": ("list", _READS),
}
_PACKAGES = {
    "CreateModelPackage": ("create", _MANAGES),
    "DeleteModelPackage": ("delete", _MANAGES),
    "DescribeModelPackage": ("describe", _READS),
    "BatchDescribeModelPackage": ("batch_describe", _READS),
    "ListModelPackages": ("list", _READS),
}
_DECIDED = ("Approved", "Rejected")


def operations() -> list[Served]:
    """What is served of them."""
    found = [_served(name, action, _of_groups(method)) for name, (method, action) in _GROUPS.items()]
    found += [_served(name, action, _of_packages(method)) for name, (method, action) in _PACKAGES.items()]
    return [*found, Served(SAGEMAKER, "UpdateModelPackage", _deciding, _TARGET, _update, changes=True)]


def _update(asked: Asked) -> Mapping[str, Any]:
    """With what follows from a rejection."""
    return releases.update(asked.door.platform, asked.permit, asked.said)


def _served(name: str, action: str, run: Run) -> Served:
    again = _entered if name == "CreateModelPackage" else None
    return Served(SAGEMAKER, name, action, _TARGET, run, changes=action == _MANAGES, again=again)


def _entered(asked: Asked) -> bool:
    """Whether a version was entered under this ClientToken before."""
    return asked.door.platform.model_packages.entered(asked.permit, asked.said)


def _deciding(said: Mapping[str, Any]) -> str:
    """A decision is another's right than a description."""
    stage, card = said.get("ModelLifeCycle", {}), said.get("ModelCard", {})
    told = (said.get("ModelApprovalStatus"), stage.get("StageStatus"), card.get("ModelCardStatus"))
    return _APPROVES if any(one in _DECIDED for one in told) else _MANAGES


def _of_groups(method: str) -> Run:
    def run(asked: Asked) -> Mapping[str, Any]:
        done: Mapping[str, Any] = getattr(asked.door.platform.model_groups, method)(asked.permit, asked.said)
        return done

    return run


def _of_packages(method: str) -> Run:
    def run(asked: Asked) -> Mapping[str, Any]:
        done: Mapping[str, Any] = getattr(asked.door.platform.model_packages, method)(asked.permit, asked.said)
        return done

    return run
