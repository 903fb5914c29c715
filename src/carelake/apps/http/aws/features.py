"""Feature groups of ``sagemaker``, and their records of ``sagemaker-featurestore-runtime``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from carelake.apps.http.aws.models import RECORDS, SAGEMAKER
from carelake.apps.http.aws.served import Asked, Run, Served, snake
from carelake.features.groups.groups import FeatureGroups
from carelake.features.groups.records import Records

__all__ = ["operations"]

_READS, _WRITES = "features:read", "features:write"
_LISTS, _DEFINES = "features:list", "features:define"
_TARGET = "features"
_RECORDS = {
    "GetRecord": _READS,
    "BatchGetRecord": _READS,
    "ListRecords": _READS,
    "PutRecord": _WRITES,
    "BatchWriteRecord": _WRITES,
    "UpdateRecord": _WRITES,
    "DeleteRecord": _WRITES,
}
_QUICK = frozenset({"GetRecord", "BatchGetRecord"})
_GROUPS = {
    "CreateFeatureGroup": ("create", _DEFINES),
    "UpdateFeatureGroup": ("update", _DEFINES),
    "DeleteFeatureGroup": ("delete", _DEFINES),
    "UpdateFeatureMetadata": ("update_feature", _DEFINES),
    "DescribeFeatureGroup": ("describe", _LISTS),
    "DescribeFeatureMetadata": ("describe_feature", _LISTS),
    "ListFeatureGroups": ("list", _LISTS),
}


def operations() -> list[Served]:
    """What is served of feature groups and of their records."""
    found = [
        Served(RECORDS, name, action, _TARGET, _record(name), changes=action == _WRITES, quick=name in _QUICK)
        for name, action in _RECORDS.items()
    ]
    found += [
        Served(SAGEMAKER, name, action, _TARGET, _group(method), changes=action == _DEFINES)
        for name, (method, action) in _GROUPS.items()
    ]
    return found


def _record(name: str) -> Run:
    (method,) = snake({name: None})

    def run(asked: Asked) -> Mapping[str, Any]:
        done: Mapping[str, Any] = getattr(Records(asked.door.vault), method)(asked.permit, **snake(asked.said))
        return done

    return run


def _group(method: str) -> Run:
    def run(asked: Asked) -> Mapping[str, Any]:
        told = asked.door.platform
        groups = FeatureGroups(told.vault, told.nouns, told.outbox)
        done: Mapping[str, Any] = getattr(groups, method)(asked.permit, asked.said)
        return done

    return run
