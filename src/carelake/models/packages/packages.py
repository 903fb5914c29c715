"""Model packages: CreateModelPackage and its kin, in botocore's shapes.

A version that was trained here has its files, and only such a one can be approved; what is entered through
CreateModelPackage alone is a description of a model elsewhere, and stays one.
https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateModelPackage.html
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from carelake.access.proofs import Proof
from carelake.audit.nouns import Nouns
from carelake.core import canonical, nouns
from carelake.core.arns import arn, resource_of
from carelake.core.clock import instant, iso
from carelake.core.errors import Conflict, Invalid, NotFound, Refused
from carelake.core.permit import Permit, check
from carelake.models.packages import lifecycle, rows
from carelake.models.packages.groups import group_name, no_group, user
from carelake.models.packages.paging import page
from carelake.models.registry import APPROVED, DELETED, REJECTED, Registry
from carelake.models.tables import model_package
from carelake.vault.workspace import Vault

__all__ = ["ModelPackages", "package_arn"]

_SAID = (
    "ModelPackageDescription",
    "ModelPackageRegistrationType",
    "InferenceSpecification",
    "ValidationSpecification",
    "SourceAlgorithmSpecification",
    "CertifyForMarketplace",
    "MetadataProperties",
    "ModelMetrics",
    "ApprovalDescription",
    "Domain",
    "Task",
    "SamplePayloadUrl",
    "CustomerMetadataProperties",
    "DriftCheckBaselines",
    "AdditionalInferenceSpecifications",
    "SkipModelValidation",
    "SourceUri",
    "SecurityConfig",
    "ModelCard",
    "ModelLifeCycle",
    "ManagedStorageType",
)
_CARD = {
    "Draft": ("PendingReview",),
    "PendingReview": ("Draft", "Approved"),
    "Approved": ("Archived", "PendingReview"),
    "Archived": (),
}
_MOST_PROPERTIES = 50


class ModelPackages:
    """The versions of a workspace's models, as SageMaker's clients see them."""

    def __init__(self, vault: Vault, nouns: Nouns, registry: Registry) -> None:
        self._vault = vault
        self._nouns = nouns
        self._registry = registry

    def create(self, permit: Permit, request: Mapping[str, Any]) -> dict[str, Any]:
        """CreateModelPackage in a group. The same ClientToken is the same version. Needs ``rows:read|write``.

        Raises:
            NotFound: ``models.no_such_group``.
            Invalid: ``models.package``: without a group, or approved from the start.
        """
        if not request.get("ModelPackageGroupName"):
            raise Invalid("models.package", "A model package here is a version in a group: name its group.")
        card = (request.get("ModelCard") or {}).get("ModelCardStatus", "Draft")
        asked = request.get("ModelApprovalStatus", "PendingManualApproval")
        if asked != "PendingManualApproval" or card not in ("Draft", "PendingReview"):
            raise Invalid("models.package", "A version begins as PendingManualApproval; another principal decides.")
        name = group_name(permit.account, str(request["ModelPackageGroupName"]))
        said = {key: request[key] for key in _SAID if key in request}
        said["ModelLifeCycle"] = lifecycle.checked(
            None, said.get("ModelLifeCycle") or {"Stage": "Development", "StageStatus": "InProgress"}, ""
        )
        token = str(request.get("ClientToken") or "")
        with self._vault.database.transaction(permit) as tx:
            if rows.find_group(tx, permit.account, name) is None:
                raise no_group()
            if (known := _of_token(tx, permit.account, name, token)) is not None:
                return {"ModelPackageArn": package_arn(known)}
            version = self._after(tx, permit.account, name)
            ref = nouns.ref(
                "model", canonical.dump({"account": permit.account, "name": name, "version": version, **said})
            )
            self._registry.enter(tx, permit, name, ref, said, token=token)
            found = [one for one in rows.packages(tx, permit.account, model_package.c.ref == ref) if one.ref == ref]
        return {"ModelPackageArn": package_arn(found[0])}

    def entered(self, permit: Permit, request: Mapping[str, Any]) -> bool:
        """Whether a CreateModelPackage of this ClientToken was answered before. Needs ``rows:read``."""
        name = group_name(permit.account, str(request.get("ModelPackageGroupName") or ""))
        with self._vault.database.reading(permit) as tx:
            return _of_token(tx, permit.account, name, str(request.get("ClientToken") or "")) is not None

    def describe(self, permit: Permit, request: Mapping[str, Any]) -> dict[str, Any]:
        """DescribeModelPackage by ARN, by ``GROUP/VERSION`` or by ref. Needs ``rows:read``.

        Raises:
            NotFound: ``models.no_such_version``.
        """
        package = self.find(permit, str(request["ModelPackageName"]))
        said = {**package.said}
        if request.get("IncludedData") == "MetadataOnly":
            said.pop("ModelCard", None)
        return {
            **_named(package),
            **said,
            "ModelPackageStatusDetails": {"ValidationStatuses": [], "ImageScanStatuses": []},
            "CreatedBy": user(package.created_by),
            "LastModifiedTime": instant(package.modified),
            "LastModifiedBy": user(package.modified_by),
        }

    def update(self, permit: Permit, request: Mapping[str, Any], *, proof: Proof | None = None) -> dict[str, Any]:
        """UpdateModelPackage. A decision needs the grant ``models:approve`` (action ``model:approve``), and so do a
        stage's, and a card's approval; anything else ``models:write`` (action ``model:manage``).

        Raises:
            as `Registry.approve`, `lifecycle.checked`; Refused ``models.card_bound``; Conflict ``models.card_state``.
        """
        package = self.find(permit, str(request["ModelPackageArn"]))
        status, text = request.get("ModelApprovalStatus"), str(request.get("ApprovalDescription") or "")
        rest = {key for key in request if key not in ("ModelPackageArn", "ModelApprovalStatus", "ClientToken")}
        rest -= {"ApprovalDescription"} if status else set()
        if rest and status in (APPROVED, REJECTED):
            self._beside(permit, package, request, str(status))
        if status == APPROVED:
            self._registry.approve(permit, package.ref, description=text, proof=proof)
        elif status == REJECTED:
            self._registry.reject(permit, package.ref, description=text, proof=proof)
        elif status is not None and status != package.state:
            raise Conflict("models.state", f"A version that is {package.state} cannot become {status}.")
        if rest:
            self._change(permit, package.ref, request)
        return {"ModelPackageArn": package_arn(package)}

    def list(self, permit: Permit, request: Mapping[str, Any]) -> dict[str, Any]:
        """ListModelPackages, oldest first or as asked, in pages. Needs ``rows:read``."""
        wanted = [model_package.c.deleted == ""]
        group = request.get("ModelPackageGroupName")
        name = group_name(permit.account, str(group)) if group else None
        if name:
            wanted.append(model_package.c.name == name)
        status = request.get("ModelApprovalStatus")
        with self._vault.database.reading(permit) as tx:
            found = rows.packages(tx, permit.account, *wanted)
        kept = [
            _summary(one)
            for one in found
            if (not status or one.state == status) and (not name or one.name == name) and one.state != DELETED
        ]
        versioned = kept if request.get("ModelPackageType") != "Unversioned" else []
        return page(permit, self._vault.keyring, versioned, request, "ModelPackage")

    def batch_describe(self, permit: Permit, request: Mapping[str, Any]) -> dict[str, Any]:
        """BatchDescribeModelPackage. Needs ``rows:read``."""
        found: dict[str, Any] = {}
        lacking: dict[str, Any] = {}
        for name in list(request["ModelPackageArnList"])[:100]:
            try:
                package = self.find(permit, str(name))
            except (NotFound, Invalid):
                lacking[name] = {"ErrorCode": "ResourceNotFound", "ErrorResponse": "There is no such model package."}
                continue
            told = {k: v for k, v in _summary(package).items() if k not in ("ModelPackageName", "ModelLifeCycle")}
            spec = package.said.get("InferenceSpecification") or {"Containers": []}
            found[name] = {**told, "InferenceSpecification": spec}
        return {"ModelPackageSummaries": found, "BatchDescribeModelPackageErrorMap": lacking}

    def delete(self, permit: Permit, request: Mapping[str, Any]) -> dict[str, Any]:
        """DeleteModelPackage: its files go, its noun and the record of it stay. Needs ``models:write``, ``rows:*``.

        Raises:
            Conflict: ``models.in_service``: an endpoint answers with it.
        """
        package = self.find(permit, str(request["ModelPackageName"]))
        check(permit, "models:write", now=self._vault.clock.now())
        with self._vault.database.transaction(permit) as tx:
            made = self._nouns.descendants(tx, package.ref, account=permit.account, depth=1)
            if any(one.kind == "endpoint" and one.state in ("InService", "Updating") for one in made):
                raise Conflict(
                    "models.in_service", "An endpoint answers with this version; deploy another one first."
                )
            at = iso(self._vault.clock.now())
            rows.change(tx, package, at=at, by=permit.principal, deleted=at)
            self._nouns.set_state(tx, package.ref, DELETED)
            folder = f"{package.name}/{package.ref.partition(':')[2]}/"
            for stored in list(self._vault.objects.list(permit, "models", folder)):
                self._vault.objects.remove(permit, "models", stored.name)
            permit.log.wrote(package.ref)
            permit.log.note(change="delete-model", state=DELETED)
        return {}

    def find(self, permit: Permit, text: str) -> rows.Package:
        """A version by ARN, ``GROUP/VERSION`` or ref. Needs ``rows:read``.

        Raises:
            NotFound: ``models.no_such_version``; in another account, too, and when it was deleted.
        """
        name = text if text.startswith("model:") else resource_of(text, "sagemaker", permit.account)
        name = name.removeprefix("model-package/")
        with self._vault.database.reading(permit) as tx:
            if name.startswith("model:"):
                found = rows.find(tx, permit.account, name)
            else:
                group, _, version = name.rpartition("/")
                number = int(version) if version.isascii() and version.isdigit() and len(version) < 10 else -1
                here = (model_package.c.name == group, model_package.c.version == number)
                every = rows.packages(tx, permit.account, *here)
                found = next((one for one in every if (one.name, one.version) == (group, number)), None)
        if found is None or found.deleted or found.state == DELETED:
            raise NotFound(
                "models.no_such_version", "No such model version is in this account; `carelake model list`."
            )
        return found

    # -- inside ---------------------------------------------------------------------------------------------------

    @staticmethod
    def _after(tx: Connection, account: str, name: str) -> int:
        group = rows.find_group(tx, account, name)
        return group.versions + 1 if group is not None else 1

    def _beside(self, permit: Permit, package: rows.Package, request: Mapping[str, Any], status: str) -> None:
        """Refuse what cannot go with a decision, before it: or that would stand, and its answer be an error."""
        stage, card = request.get("ModelLifeCycle"), request.get("ModelCard") or {}
        told = lifecycle.checked(package.said.get("ModelLifeCycle"), stage, status) if stage else {}
        decides = told.get("StageStatus") in lifecycle.rules().decided or card.get("ModelCardStatus") == "Approved"
        check(permit, "models:approve" if decides else "models:write", now=self._vault.clock.now())
        _properties(package, request)

    def _change(self, permit: Permit, ref: str, request: Mapping[str, Any]) -> None:
        now = self._vault.clock.now()
        with self._vault.database.transaction(permit) as tx:
            package = rows.find(tx, permit.account, ref)
            assert package is not None
            changes: dict[str, Any] = {
                key: request[key]
                for key in (
                    "ModelPackageRegistrationType",
                    "ApprovalDescription",
                    "InferenceSpecification",
                    "SourceUri",
                )
                if key in request
            }
            if added := request.get("AdditionalInferenceSpecificationsToAdd"):
                before = list(package.said.get("AdditionalInferenceSpecifications") or ())
                changes["AdditionalInferenceSpecifications"] = [*before, *added]
            changes |= _properties(package, request)
            decides = False
            if asked := request.get("ModelLifeCycle"):
                told = lifecycle.checked(package.said.get("ModelLifeCycle"), asked, package.state)
                decides |= told["StageStatus"] in lifecycle.rules().decided
                changes["ModelLifeCycle"] = told
                permit.log.note(stage=told["Stage"], stage_status=told["StageStatus"])
            if asked := request.get("ModelCard"):
                # What was trained here has a source, and its card is one of its signed files.
                changes["ModelCard"] = _card(package, asked, bound=bool(self._nouns.get(tx, ref).made_from))
                decides |= changes["ModelCard"].get("ModelCardStatus") == "Approved"
            # A decision is a reviewer's, and never the author's; the rest belongs to those who make models.
            check(permit, "models:approve" if decides else "models:write", now=now)
            if decides and permit.principal in package.makers:
                raise Refused("models.self_approval", "Whoever made a model does not approve its stage or its card.")
            rows.change(tx, package, at=iso(now), by=permit.principal, **changes)
            permit.log.wrote(ref)
            permit.log.note(change="update-model", fields=sorted(changes))


def _of_token(tx: Connection, account: str, name: str, token: str) -> rows.Package | None:
    """The version of a group that was made under a token and is there still; None of no token."""
    if not token:
        return None
    same = (model_package.c.name == name, model_package.c.token == token, model_package.c.deleted == "")
    return next((one for one in rows.packages(tx, account, *same) if one.token == token), None)


def package_arn(package: rows.Package) -> str:
    """The ARN of a version."""
    return arn("sagemaker", package.account, f"model-package/{package.name}/{package.version}")


def _named(package: rows.Package) -> dict[str, Any]:
    return {
        "ModelPackageName": package.name,
        "ModelPackageGroupName": package.name,
        "ModelPackageVersion": package.version,
        "ModelPackageArn": package_arn(package),
        "CreationTime": instant(package.created),
        "ModelPackageStatus": "Completed",
        "ModelApprovalStatus": package.state,
    }


def _summary(package: rows.Package) -> dict[str, Any]:
    said = package.said
    more = ("ModelPackageDescription", "ModelLifeCycle", "ModelPackageRegistrationType")
    return {**_named(package), **{name: said[name] for name in more if said.get(name)}}


def _properties(package: rows.Package, request: Mapping[str, Any]) -> dict[str, Any]:
    given, gone = request.get("CustomerMetadataProperties"), request.get("CustomerMetadataPropertiesToRemove")
    if not given and not gone:
        return {}
    before = dict(package.said.get("CustomerMetadataProperties") or {})
    after = {key: value for key, value in {**before, **(given or {})}.items() if key not in (gone or ())}
    if len(after) > _MOST_PROPERTIES:
        raise Invalid("models.properties", f"A version has at most {_MOST_PROPERTIES} customer metadata properties.")
    return {"CustomerMetadataProperties": after}


def _card(package: rows.Package, asked: Mapping[str, Any], *, bound: bool) -> dict[str, Any]:
    before = dict(package.said.get("ModelCard") or {"ModelCardStatus": "Draft"})
    content, status = asked.get("ModelCardContent"), asked.get("ModelCardStatus")
    if content is not None and content != before.get("ModelCardContent") and bound:
        raise Refused(
            "models.card_bound", "The card is one of the signed files of this version; register a new version."
        )
    now = str(before.get("ModelCardStatus"))
    if status is not None and status != now and status not in _CARD.get(now, ()):
        raise Conflict("models.card_state", f"A card that is {now} does not become {status}.")
    return {
        **before,
        **({"ModelCardContent": content} if content is not None else {}),
        "ModelCardStatus": status or now,
    }
