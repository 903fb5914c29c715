"""Search over feature groups, features, model packages, their groups, and pipelines.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_Search.html. A property is a path of members; of a list
of keys and values it is ``Tags.KEY``, of another list any entry counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from carelake.apps.http.aws.models import SAGEMAKER, shape_of
from carelake.apps.http.aws.pages import page
from carelake.apps.http.aws.served import Asked, Served
from carelake.apps.http.aws.tagging import tags_of
from carelake.core.clock import instant
from carelake.core.errors import Unsupported
from carelake.features.groups.groups import FeatureGroups

__all__ = ["matches", "operations"]

Entry = Mapping[str, Any]
_MOST = 2000
"""Things of a kind that are looked through."""


class _Kind(NamedTuple):
    action: str
    find: Callable[[Asked], Iterator[Entry]]


def operations() -> list[Served]:
    """What is served of it."""
    return [Served(SAGEMAKER, "Search", lambda said: _kind(said).action, _target, search)]


def _kind(said: Mapping[str, Any]) -> _Kind:
    kind = said["Resource"]
    if kind not in _KINDS:
        raise Unsupported("http.aws_search", f"{kind} is not searched here: {', '.join(_KINDS)} are.")
    return _KINDS[kind]


def _target(said: Mapping[str, Any]) -> str:
    return {"features:list": "features", "model:read": "models"}.get(_kind(said).action, "pipelines")


def search(asked: Asked) -> Mapping[str, Any]:
    """Search, the newest first where nothing else is said."""
    said, word = asked.said, asked.said["Resource"]
    members = shape_of(SAGEMAKER, word).members
    found = []
    for number, entry in enumerate(_kind(said).find(asked)):
        if number == _MOST:
            raise Unsupported("http.aws_search", f"There are more than {_MOST}; ask for lists, in pages.")
        one = {name: value for name, value in entry.items() if name in members}
        if "Tags" in members:
            one["Tags"] = tags_of(asked, next(str(one[name]) for name in (f"{word}Arn",)))
        if matches(one, said.get("SearchExpression", {})):
            found.append(one)
    by = said.get("SortBy", "LastModifiedTime" if "LastModifiedTime" in members else "CreationTime")
    found.sort(key=lambda one: _ordered(next(_values(one, by), None)), reverse=said.get("SortOrder") != "Ascending")
    shown, more = page(asked, "Search", found)
    total = {"Value": len(found), "Relation": "EqualTo"}
    return {"Results": [{word: one} for one in shown], "TotalHits": total, **more}


def _ordered(value: Any) -> tuple[bool, str]:
    return value is not None, value.isoformat() if isinstance(value, datetime) else str(value)


# -- what is looked through


def _groups(asked: Asked) -> Iterator[Entry]:
    told = asked.door.platform
    groups, token = FeatureGroups(told.vault, told.nouns, told.outbox), None
    while True:
        listed = groups.list(asked.permit, {"MaxResults": 100, **({"NextToken": token} if token else {})})
        for one in listed["FeatureGroupSummaries"]:
            yield groups.describe(asked.permit, {"FeatureGroupName": one["FeatureGroupName"]})
        token = listed.get("NextToken")
        if not token:
            return


def _features(asked: Asked) -> Iterator[Entry]:
    told = asked.door.platform
    groups = FeatureGroups(told.vault, told.nouns, told.outbox)
    for group in _groups(asked):
        for one in group["FeatureDefinitions"]:
            named = {"FeatureGroupName": group["FeatureGroupName"], "FeatureName": one["FeatureName"]}
            yield groups.describe_feature(asked.permit, named)


def _listed(asked: Asked, lists: Any, key: str, name: str, describe: Any, member: str) -> Iterator[Entry]:
    token = None
    while True:
        told = lists(asked.permit, {"MaxResults": 100, **({"NextToken": token} if token else {})})
        for one in told[key]:
            yield describe(asked.permit, {member: one[name]})
        token = told.get("NextToken")
        if not token:
            return


def _packages(asked: Asked) -> Iterator[Entry]:
    of, key = asked.door.platform.model_packages, "ModelPackageSummaryList"
    return _listed(asked, of.list, key, "ModelPackageArn", of.describe, "ModelPackageName")


def _package_groups(asked: Asked) -> Iterator[Entry]:
    of, name = asked.door.platform.model_groups, "ModelPackageGroupName"
    return _listed(asked, of.list, "ModelPackageGroupSummaryList", name, of.describe, name)


def _pipelines(asked: Asked) -> Iterator[Entry]:
    of, name = asked.door.platform.pipelines, "PipelineName"
    return _listed(asked, of.list_pipelines, "PipelineSummaries", name, of.describe_pipeline, name)


_KINDS: Mapping[str, _Kind] = {
    "FeatureGroup": _Kind("features:list", _groups),
    "FeatureMetadata": _Kind("features:list", _features),
    "ModelPackage": _Kind("model:read", _packages),
    "ModelPackageGroup": _Kind("model:read", _package_groups),
    "Pipeline": _Kind("pipeline:read", _pipelines),
}


# -- expressions


def matches(one: Entry, said: Mapping[str, Any]) -> bool:
    """Whether a SearchExpression lets an entry through; an empty one lets all."""
    found = [_filtered(one, each) for each in said.get("Filters", ())]
    found += [_nested(one, each) for each in said.get("NestedFilters", ())]
    found += [matches(one, each) for each in said.get("SubExpressions", ())]
    return not found or (any(found) if said.get("Operator") == "Or" else all(found))


def _nested(one: Entry, said: Mapping[str, Any]) -> bool:
    """Whether one entry of a list passes all of some filters."""
    inside = f"{said['NestedPropertyName']}."
    filters = [{**each, "Name": each["Name"].removeprefix(inside)} for each in said["Filters"]]
    entries = (each for each in _values(one, said["NestedPropertyName"]) if isinstance(each, Mapping))
    return any(all(_filtered(each, wanted) for wanted in filters) for each in entries)


def _filtered(one: Entry, said: Mapping[str, Any]) -> bool:
    found, value = list(_values(one, said["Name"])), said.get("Value")
    operator = said.get("Operator", "Exists" if value is None else "Equals")
    if operator in ("Exists", "NotExists"):
        return bool(found) is (operator == "Exists")
    if value is None:
        return False
    if operator == "NotEquals":
        return not any(_compared(each, value, "Equals") for each in found)
    if operator == "In":
        return any(_compared(each, part.strip(), "Equals") for each in found for part in value.split(","))
    return any(_compared(each, value, operator) for each in found)


def _compared(found: Any, value: str, operator: str) -> bool:
    if operator == "Contains":
        return value.lower() in _text(found).lower()
    left, right = _comparable(found, value)
    if operator == "Equals":
        return bool(left == right)
    signs = {"GreaterThan": left > right, "GreaterThanOrEqualTo": left >= right, "LessThan": left < right}
    return bool(signs.get(operator, left <= right))


def _comparable(found: Any, value: str) -> tuple[Any, Any]:
    """Both as times or numbers, where the one that was found is one; as texts otherwise."""
    try:
        if isinstance(found, datetime):
            return (found if found.tzinfo else found.replace(tzinfo=UTC)), instant(value)
        if isinstance(found, int | float) and not isinstance(found, bool):
            return float(found), float(value)
    except ValueError:
        pass
    return _text(found), value


def _text(found: Any) -> str:
    return str(found).lower() if isinstance(found, bool) else str(found)


def _values(one: Any, path: str) -> Iterator[Any]:
    """What stands at a path of members."""
    if isinstance(one, Sequence) and not isinstance(one, str):
        if path and one and isinstance(one[0], Mapping) and one[0].keys() <= {"Key", "Value"}:
            yield from (each.get("Value", "") for each in one if each["Key"] == path)
            return
        for each in one:
            yield from _values(each, path)
    elif not path:
        yield one
    elif isinstance(one, Mapping):
        name, _, rest = path.partition(".")
        if one.get(name) is not None:
            yield from _values(one[name], rest)
