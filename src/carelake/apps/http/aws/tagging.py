"""Tags of whatever has an ARN here. Who may change a thing may tag it, who may see it sees its tags.

A tag is words for people and bills: nothing is decided by it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, func, insert, select, update

from carelake.apps.http.aws.models import SAGEMAKER
from carelake.apps.http.aws.named import Named
from carelake.apps.http.aws.pages import page
from carelake.apps.http.aws.served import Asked, Served
from carelake.apps.http.aws.tables import tag as table
from carelake.core.errors import Invalid, NotFound
from carelake.features.groups.groups import FeatureGroups

__all__ = ["operations", "tag_new", "tags_of"]

_MOST = 50


class _Kind(NamedTuple):
    """How things of one kind are looked for, and what their tags are read and changed under."""

    reads: str
    changes: str
    find: Callable[[Asked, str], object]


def operations() -> list[Served]:
    """What is served of tags."""
    return [
        Served(SAGEMAKER, "AddTags", lambda said: _kind(said).changes, "tags", add, changes=True),
        Served(SAGEMAKER, "DeleteTags", lambda said: _kind(said).changes, "tags", remove, changes=True),
        Served(SAGEMAKER, "ListTags", lambda said: _kind(said).reads, "tags", lists),
    ]


def add(asked: Asked) -> Mapping[str, Any]:
    """AddTags; a tag of the same key is replaced."""
    resource = _resource(asked)
    with asked.door.vault.database.transaction(asked.permit) as tx:
        _put(tx, asked.permit.account, resource, asked.said["Tags"])
        found = _all(tx, asked.permit.account, resource)
    return {"Tags": found}


def remove(asked: Asked) -> Mapping[str, Any]:
    """DeleteTags."""
    here = _here(asked.permit.account, _resource(asked))
    with asked.door.vault.database.transaction(asked.permit) as tx:
        tx.execute(delete(table).where(here & table.c.name.in_(asked.said["TagKeys"])))
    return {}


def lists(asked: Asked) -> Mapping[str, Any]:
    """ListTags."""
    resource = _resource(asked)
    with asked.door.vault.database.reading(asked.permit) as tx:
        shown, more = page(asked, "ListTags", _all(tx, asked.permit.account, resource))
    return {"Tags": shown, **more}


def tag_new(asked: Asked, answered: Mapping[str, Any]) -> None:
    """The tags of what was made just now, and none of a thing that had its name before."""
    arn = next((value for name, value in answered.items() if name.endswith("Arn")), "")
    resource, account = asked.named(str(arn), ""), asked.permit.account
    with asked.door.vault.database.transaction(asked.permit) as tx:
        tx.execute(delete(table).where(_here(account, resource)))
        _put(tx, account, resource, asked.said.get("Tags", ()))


def tags_of(asked: Asked, arn: str) -> list[dict[str, str]]:
    """The tags of a thing that is there."""
    with asked.door.vault.database.reading(asked.permit) as tx:
        return _all(tx, asked.permit.account, asked.named(arn, ""))


def _put(tx: Connection, account: str, resource: str, tags: Sequence[Mapping[str, str]]) -> None:
    here = _here(account, resource)
    for one in tags:
        told = update(table).where(here & (table.c.name == one["Key"])).values(value=one["Value"])
        if tx.execute(told).rowcount == 0:
            row = {"account": account, "resource": resource, "name": one["Key"], "value": one["Value"]}
            tx.execute(insert(table).values(**row))
    if tx.execute(select(func.count()).select_from(table).where(here)).scalar_one() > _MOST:
        raise Invalid("http.aws_limit", f"A thing has at most {_MOST} tags.")


def _all(tx: Connection, account: str, resource: str) -> list[dict[str, str]]:
    query = select(table.c.name, table.c.value).where(_here(account, resource)).order_by(table.c.name)
    return [{"Key": name, "Value": value} for name, value in tx.execute(query)]


def _here(account: str, resource: str) -> Any:
    return (table.c.account == account) & (table.c.resource == resource)


def _resource(asked: Asked) -> str:
    """What an ARN names, when it is there."""
    resource = asked.named(asked.said["ResourceArn"], "")
    _kind(asked.said).find(asked, resource.partition("/")[2])
    return resource


def _kind(said: Mapping[str, Any]) -> _Kind:
    kind = said["ResourceArn"].split(":", 5)[-1].partition("/")[0]
    if kind not in _KINDS:
        raise NotFound("http.aws_no_such", f"Nothing that has tags here has such an ARN: {', '.join(_KINDS)} have.")
    return _KINDS[kind]


def _feature_group(asked: Asked, name: str) -> object:
    told = asked.door.platform
    return FeatureGroups(told.vault, told.nouns, told.outbox).get(asked.permit, name)


def _package(asked: Asked, name: str) -> object:
    return asked.door.platform.model_packages.find(asked.permit, name)


def _package_group(asked: Asked, name: str) -> object:
    return asked.door.platform.model_groups.describe(asked.permit, {"ModelPackageGroupName": name})


def _pipeline(asked: Asked, name: str) -> object:
    return asked.door.platform.pipelines.describe_pipeline(asked.permit, {"PipelineName": name})


def _endpoint(asked: Asked, name: str) -> object:
    return asked.door.platform.endpoints.status(asked.permit, name, alarms=False)


def _schedule(asked: Asked, name: str) -> object:
    return asked.door.platform.schedules.describe(asked.permit, {"MonitoringScheduleName": name})


def _of_named(kind: str) -> Callable[[Asked, str], object]:
    return lambda asked, name: Named(asked.door.vault, kind, kind).get(asked.permit, name)


_DEPLOYED = ("model:read", "endpoint:deploy")
_WATCHED = ("monitor:read", "monitor:schedule")
_KINDS: Mapping[str, _Kind] = {
    "feature-group": _Kind("features:list", "features:define", _feature_group),
    "model-package": _Kind("model:read", "model:manage", _package),
    "model-package-group": _Kind("model:read", "model:manage", _package_group),
    "pipeline": _Kind("pipeline:read", "pipeline:define", _pipeline),
    "endpoint": _Kind(*_DEPLOYED, _endpoint),
    "endpoint-config": _Kind(*_DEPLOYED, _of_named("endpoint-config")),
    "model": _Kind(*_DEPLOYED, _of_named("model")),
    "monitoring-schedule": _Kind(*_WATCHED, _schedule),
    **{
        kind: _Kind(*_WATCHED, _of_named(kind))
        for kind in (
            "data-quality-job-definition",
            "model-quality-job-definition",
            "model-bias-job-definition",
            "model-explainability-job-definition",
        )
    },
}
