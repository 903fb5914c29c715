"""Model package groups: CreateModelPackageGroup and its kin, in botocore's shapes.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateModelPackageGroup.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from carelake.core.arns import arn, resource_of
from carelake.core.clock import instant, iso
from carelake.core.errors import Conflict, Invalid, NotFound
from carelake.core.permit import Permit
from carelake.models.packages import rows
from carelake.models.packages.paging import page
from carelake.models.tables import model_group, model_package
from carelake.vault.workspace import Vault

__all__ = ["ModelPackageGroups", "group_arn", "group_name", "user"]

_NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")


class ModelPackageGroups:
    """The groups of a workspace's model versions."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    def create(self, permit: Permit, request: Mapping[str, Any]) -> dict[str, Any]:
        """CreateModelPackageGroup. Needs ``rows:read``, ``rows:write``.

        Raises:
            Invalid: ``models.group_name``. Conflict: ``models.group_exists``.
        """
        name = str(request["ModelPackageGroupName"])
        if not _NAME.fullmatch(name):
            raise Invalid("models.group_name", "A group's name is letters, digits and single dashes, 63 at most.")
        at = iso(self._vault.clock.now())
        with self._vault.database.transaction(permit) as tx:
            if rows.find_group(tx, permit.account, name) is not None:
                raise Conflict("models.group_exists", "A model package group of this name is there already.")
            tags = tuple(dict(tag) for tag in request.get("Tags") or ())
            text = str(request.get("ModelPackageGroupDescription") or "")
            rows.add_group(tx, rows.Group(permit.account, name, text, tags, at, permit.principal))
            permit.log.note(change="create-model-group", group=name)
        return {"ModelPackageGroupArn": group_arn(permit.account, name)}

    def describe(self, permit: Permit, request: Mapping[str, Any]) -> dict[str, Any]:
        """DescribeModelPackageGroup. Needs ``rows:read``.

        Raises:
            NotFound: ``models.no_such_group``.
        """
        with self._vault.database.reading(permit) as tx:
            name = group_name(permit.account, str(request["ModelPackageGroupName"]))
            group = rows.find_group(tx, permit.account, name)
        if group is None:
            raise no_group()
        return {**_summary(group), "CreatedBy": user(group.created_by)}

    def list(self, permit: Permit, request: Mapping[str, Any]) -> dict[str, Any]:
        """ListModelPackageGroups, sorted by Name or CreationTime, in pages. Needs ``rows:read``."""
        with self._vault.database.reading(permit) as tx:
            found = rows.groups(tx, permit.account)
        return page(permit, self._vault.keyring, [_summary(one) for one in found], request, "ModelPackageGroup")

    def delete(self, permit: Permit, request: Mapping[str, Any]) -> dict[str, Any]:
        """DeleteModelPackageGroup: one that holds no version any more. Needs ``rows:read``, ``rows:write``.

        Raises:
            NotFound: ``models.no_such_group``. Conflict: ``models.group_not_empty``.
        """
        with self._vault.database.transaction(permit) as tx:
            name = group_name(permit.account, str(request["ModelPackageGroupName"]))
            if rows.find_group(tx, permit.account, name) is None:
                raise no_group()
            held = rows.packages(tx, permit.account, model_package.c.name == name, model_package.c.deleted == "")
            if any(one.name == name for one in held):
                raise Conflict("models.group_not_empty", "The group has versions; delete these first.")
            here = (model_group.c.account == permit.account) & (model_group.c.name == name)
            tx.execute(model_group.delete().where(here))
            permit.log.note(change="delete-model-group", group=name)
        return {}


def group_arn(account: str, name: str) -> str:
    """The ARN of a group."""
    return arn("sagemaker", account, f"model-package-group/{name}")


def group_name(account: str, text: str) -> str:
    """A group's name, of its name or its ARN."""
    return resource_of(text, "sagemaker", account).removeprefix("model-package-group/")


def no_group() -> NotFound:
    """There is none of that name in this account."""
    return NotFound("models.no_such_group", "No model package group of this name is in this account.")


def user(name: str) -> dict[str, str]:
    """UserContext: who made or changed something."""
    return {"UserProfileName": name}


def _summary(group: rows.Group) -> dict[str, Any]:
    return {
        "ModelPackageGroupName": group.name,
        "ModelPackageGroupArn": group_arn(group.account, group.name),
        **({"ModelPackageGroupDescription": group.description} if group.description else {}),
        "CreationTime": instant(group.created),
        "ModelPackageGroupStatus": "Completed",
    }
