"""Groups and versions in SageMaker's shapes: every answer is one that botocore's own models know."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import botocore.session
import pytest
from botocore.validate import ParamValidator

from carelake.audit.nouns import Nouns
from carelake.core.arns import account_number
from carelake.core.clock import FixedClock
from carelake.core.errors import CarelakeError, Conflict, Invalid, NotFound, Refused
from carelake.models.packages import lifecycle
from carelake.models.packages.groups import ModelPackageGroups
from carelake.models.packages.packages import ModelPackages
from carelake.models.registry import APPROVED, PENDING, REJECTED, Registry

TRAINING_SET = "trainingset:" + "0" * 64
SAGEMAKER = botocore.session.get_session().get_service_model("sagemaker")


@pytest.fixture
def author(permit_for: Callable) -> object:
    return permit_for("models:read", "models:write", "rows:read", "rows:write", principal="pipeline")


@pytest.fixture
def reviewer(permit_for: Callable) -> object:
    return permit_for("models:read", "models:approve", "rows:read", "rows:write", principal="reviewer")


@pytest.fixture
def packages(vault, registry: Registry, clock: FixedClock) -> ModelPackages:
    return ModelPackages(vault, Nouns(clock), registry)


@pytest.fixture
def groups(vault, registry: Registry) -> ModelPackageGroups:
    return ModelPackageGroups(vault)


def fits(operation: str, said: Any, *, into: str = "output") -> Any:
    """Let pass what botocore would send, or take apart."""
    model = SAGEMAKER.operation_model(operation)
    shape = model.output_shape if into == "output" else model.input_shape
    report = ParamValidator().validate(said, shape)
    assert not report.has_errors(), report.generate_report()
    assert set(said) <= set(shape.members)
    return said


def entered(groups: ModelPackageGroups, packages: ModelPackages, author: Any, **more: Any) -> str:
    request = {"ModelPackageGroupName": "sepsis", "ModelPackageGroupDescription": "A group.", "Tags": []}
    fits("CreateModelPackageGroup", groups.create(author, fits("CreateModelPackageGroup", request, into="input")))
    asked = {
        "ModelPackageGroupName": "sepsis",
        "ModelPackageDescription": "of elsewhere",
        "InferenceSpecification": {"Containers": [{"Image": "x", "ModelDataUrl": "s3://bucket/model.tar.gz"}]},
        "CustomerMetadataProperties": {"site": "north"},
        **more,
    }
    return fits("CreateModelPackage", packages.create(author, fits("CreateModelPackage", asked, into="input")))[
        "ModelPackageArn"
    ]


def test_a_trained_version_tells_of_itself_as_sagemaker_would(
    registry: Registry, groups: ModelPackageGroups, packages: ModelPackages, author, reviewer, files: dict
) -> None:
    noun = registry.register(author, "readmission", TRAINING_SET, files)
    said = fits("DescribeModelPackage", packages.describe(author, {"ModelPackageName": noun.ref}))
    number = account_number("production")
    assert said["ModelPackageArn"] == f"arn:aws:sagemaker:us-east-1:{number}:model-package/readmission/1"
    assert (said["ModelApprovalStatus"], said["ModelPackageVersion"]) == (PENDING, 1)
    assert said["ModelCard"]["ModelCardStatus"] == "PendingReview"
    assert "metrics" not in said["ModelCard"]["ModelCardContent"][:100_000].split('"model_overview"')[0]
    assert said["ModelMetrics"]["ModelQuality"]["Statistics"]["ContentDigest"].startswith("sha256:")
    assert said["ModelLifeCycle"] == {"Stage": "Development", "StageStatus": "InProgress"}
    assert isinstance(said["CreationTime"], datetime)
    for name in (said["ModelPackageArn"], "readmission/1"):
        assert packages.describe(author, {"ModelPackageName": name})["ModelPackageArn"] == said["ModelPackageArn"]
    group = fits("DescribeModelPackageGroup", groups.describe(author, {"ModelPackageGroupName": "readmission"}))
    assert group["CreatedBy"] == {"UserProfileName": "pipeline"}

    asked = {
        "ModelPackageArn": said["ModelPackageArn"],
        "ModelApprovalStatus": APPROVED,
        "ApprovalDescription": "Looked at the subgroups.",
    }
    fits("UpdateModelPackage", packages.update(reviewer, fits("UpdateModelPackage", asked, into="input")))
    after = fits("DescribeModelPackage", packages.describe(author, {"ModelPackageName": noun.ref}))
    assert (after["ModelApprovalStatus"], after["ApprovalDescription"]) == (APPROVED, "Looked at the subgroups.")
    assert after["ModelCard"]["ModelCardStatus"] == "Approved"
    assert after["LastModifiedBy"] == {"UserProfileName": "reviewer"}
    packages.update(reviewer, {"ModelPackageArn": said["ModelPackageArn"], "ModelApprovalStatus": REJECTED})
    with pytest.raises(Conflict):
        packages.update(reviewer, {"ModelPackageArn": said["ModelPackageArn"], "ModelApprovalStatus": PENDING})


def test_what_is_only_described_cannot_be_approved(
    groups: ModelPackageGroups, packages: ModelPackages, author, reviewer
) -> None:
    arn = entered(groups, packages, author)
    assert packages.describe(author, {"ModelPackageName": arn})["ModelPackageDescription"] == "of elsewhere"
    with pytest.raises(Refused) as caught:
        packages.update(reviewer, {"ModelPackageArn": arn, "ModelApprovalStatus": APPROVED})
    assert caught.value.facts["lacking"] == ["files"]
    with pytest.raises(Invalid, match="PendingManualApproval"):
        packages.create(author, {"ModelPackageGroupName": "sepsis", "ModelApprovalStatus": APPROVED})


def test_a_client_token_makes_one_version(groups: ModelPackageGroups, packages: ModelPackages, author) -> None:
    arn = entered(groups, packages, author, ClientToken="abc")
    again = packages.create(author, {"ModelPackageGroupName": "sepsis", "ClientToken": "abc"})
    assert again["ModelPackageArn"] == arn
    other = packages.create(author, {"ModelPackageGroupName": "sepsis", "ClientToken": "abd"})
    assert other["ModelPackageArn"].endswith("/2")


def test_lists_are_filtered_sorted_and_paged(
    groups: ModelPackageGroups, packages: ModelPackages, registry: Registry, author, reviewer, files, clock
) -> None:
    entered(groups, packages, author)
    for _ in range(4):
        packages.create(author, {"ModelPackageGroupName": "sepsis"})
    noun = registry.register(author, "readmission", TRAINING_SET, files)
    registry.approve(reviewer, noun.ref)
    asked: dict[str, Any] = {"ModelPackageGroupName": "sepsis", "MaxResults": 2, "SortOrder": "Ascending"}
    numbers = []
    while True:
        one = fits("ListModelPackages", packages.list(author, fits("ListModelPackages", asked, into="input")))
        numbers += [summary["ModelPackageVersion"] for summary in one["ModelPackageSummaryList"]]
        if "NextToken" not in one:
            break
        asked["NextToken"] = one["NextToken"]
    assert numbers == [1, 2, 3, 4, 5]
    approved = packages.list(author, {"ModelApprovalStatus": "Approved"})["ModelPackageSummaryList"]
    assert [one["ModelPackageName"] for one in approved] == ["readmission"]
    assert packages.list(author, {"NameContains": "SEPS", "MaxResults": 100})["ModelPackageSummaryList"]
    assert not packages.list(author, {"CreationTimeAfter": clock.now()})["ModelPackageSummaryList"]
    listed = fits("ListModelPackageGroups", groups.list(author, {"SortBy": "Name"}))["ModelPackageGroupSummaryList"]
    assert [one["ModelPackageGroupName"] for one in listed] == ["readmission", "sepsis"]
    for bad in ({"NextToken": "zz"}, {"MaxResults": 101}, {"CreationTimeAfter": "yesterday"}):
        with pytest.raises(Invalid):
            packages.list(author, bad)
    arns = [one["ModelPackageArn"] for one in approved]
    told = packages.batch_describe(author, {"ModelPackageArnList": [*arns, "no/7"]})
    fits("BatchDescribeModelPackage", told)
    assert (list(told["ModelPackageSummaries"]), list(told["BatchDescribeModelPackageErrorMap"])) == (arns, ["no/7"])


def test_properties_come_and_go(groups: ModelPackageGroups, packages: ModelPackages, author) -> None:
    arn = entered(groups, packages, author)
    said = {"CustomerMetadataProperties": {"unit": "icu"}, "CustomerMetadataPropertiesToRemove": ["site"]}
    packages.update(author, fits("UpdateModelPackage", {"ModelPackageArn": arn, **said}, into="input"))
    assert packages.describe(author, {"ModelPackageName": arn})["CustomerMetadataProperties"] == {"unit": "icu"}


def test_a_card_that_is_signed_is_not_rewritten(
    registry: Registry, packages: ModelPackages, author, reviewer, files: dict
) -> None:
    ref = registry.register(author, "readmission", TRAINING_SET, files).ref
    with pytest.raises(Refused) as caught:
        packages.update(author, {"ModelPackageArn": ref, "ModelCard": {"ModelCardContent": "{}"}})
    assert caught.value.code == "models.card_bound"
    with pytest.raises(Conflict):
        packages.update(author, {"ModelPackageArn": ref, "ModelCard": {"ModelCardStatus": "Archived"}})
    with pytest.raises(Refused):  # the author's permit does not decide
        packages.update(author, {"ModelPackageArn": ref, "ModelCard": {"ModelCardStatus": "Approved"}})
    packages.update(reviewer, {"ModelPackageArn": ref, "ModelCard": {"ModelCardStatus": "Approved"}})
    packages.update(author, {"ModelPackageArn": ref, "CustomerMetadataPropertiesToRemove": ["model"]})
    with pytest.raises(Refused) as caught:  # it stays one of the signed files, whatever its properties say
        packages.update(author, {"ModelPackageArn": ref, "ModelCard": {"ModelCardContent": "{}"}})
    assert caught.value.code == "models.card_bound"


def test_no_card_begins_as_approved(groups: ModelPackageGroups, packages: ModelPackages, author) -> None:
    entered(groups, packages, author)
    for status in ("Approved", "Archived"):
        card = {"ModelCardContent": "{}", "ModelCardStatus": status}
        with pytest.raises(Invalid) as caught:
            packages.create(author, {"ModelPackageGroupName": "sepsis", "ModelCard": card})
        assert caught.value.code == "models.package"


def test_stages_follow_their_rules_and_decisions_are_a_reviewers(
    registry: Registry, packages: ModelPackages, author, reviewer, files: dict
) -> None:
    ref = registry.register(author, "readmission", TRAINING_SET, files).ref

    def go(permit: Any, stage: str, status: str) -> None:
        asked = {"ModelPackageArn": ref, "ModelLifeCycle": {"Stage": stage, "StageStatus": status}}
        packages.update(permit, asked)

    go(author, "Development", "PendingApproval")
    for permit, stage, status, code in (
        (author, "Development", "Approved", "permit.grant"),
        (author, "QA", "InProgress", "models.lifecycle_move"),
        (author, "Nowhere", "InProgress", "models.lifecycle"),
        (author, "Development", "Retired", "models.lifecycle_move"),
    ):
        with pytest.raises(CarelakeError) as caught:
            go(permit, stage, status)
        assert caught.value.code == code
    go(reviewer, "Development", "Approved")
    for stage in ("QA", "PreProduction"):
        go(author, stage, "PendingApproval")
        go(reviewer, stage, "Approved")
    with pytest.raises(Conflict, match="only an Approved one"):
        go(author, "Production", "InProgress")
    registry.approve(reviewer, ref)
    go(author, "Production", "InProgress")
    go(author, "Archived", "Retired")
    with pytest.raises(Conflict):
        go(author, "QA", "InProgress")


def test_the_rules_of_stages_are_whole() -> None:
    rules = lifecycle.rules()
    assert {status for follows in rules.follows.values() for status in follows} <= set(rules.follows)
    assert set(rules.first) <= set(rules.follows)
    assert {rules.last, *rules.released} <= set(rules.stages)
    assert set(rules.decided) <= set(rules.follows)


def test_what_is_deleted_is_gone_and_its_number_is_not_given_again(
    registry: Registry, groups: ModelPackageGroups, packages: ModelPackages, vault, author, files: dict
) -> None:
    noun = registry.register(author, "readmission", TRAINING_SET, files)
    with pytest.raises(Conflict):
        groups.delete(author, {"ModelPackageGroupName": "readmission"})
    assert packages.delete(author, {"ModelPackageName": noun.ref}) == {}
    for act in (packages.describe, packages.delete):
        with pytest.raises(NotFound):
            act(author, {"ModelPackageName": noun.ref})
    with pytest.raises(NotFound):
        registry.get(author, noun.ref)
    assert registry.versions(author) == []
    assert not list(vault.objects.list(author, "models", "readmission/"))
    other = registry.register(author, "readmission", TRAINING_SET, {**files, "baseline.json": b'{"rows":9}'})
    assert other.body["version"] == 2
    # The same files again are the same version, which waits for approval again.
    back = registry.register(author, "readmission", TRAINING_SET, files)
    assert (back.ref, back.body["version"], back.state) == (noun.ref, 1, PENDING)
    assert registry.files(author, noun.ref).baseline == {"rows": 1}


def test_whoever_registers_a_deleted_version_anew_made_it_too(
    registry: Registry, packages: ModelPackages, author: Any, permit_for: Any, files: dict
) -> None:
    noun = registry.register(author, "readmission", TRAINING_SET, files)
    packages.delete(author, {"ModelPackageName": noun.ref})
    grants = ("models:read", "models:write", "models:approve", "rows:read", "rows:write")
    second, third = (permit_for(*grants, principal=name) for name in ("second", "third"))
    registry.register(second, "readmission", TRAINING_SET, files)
    stage = {"Stage": "Development", "StageStatus": "PendingApproval"}
    packages.update(author, {"ModelPackageArn": noun.ref, "ModelLifeCycle": stage})
    for maker in (permit_for(*grants, principal="pipeline"), second):
        with pytest.raises(Refused) as caught:
            registry.approve(maker, noun.ref)
        assert caught.value.code == "models.self_approval"
        with pytest.raises(Refused) as caught:
            packages.update(
                maker, {"ModelPackageArn": noun.ref, "ModelLifeCycle": {**stage, "StageStatus": "Approved"}}
            )
        assert caught.value.code == "models.self_approval"
    told = packages.describe(author, {"ModelPackageName": noun.ref})
    assert told["CreatedBy"] == {"UserProfileName": "pipeline"}
    assert not [name for name in told if "again" in name]
    assert registry.approve(third, noun.ref).state == APPROVED


def test_groups_are_named_once_and_another_account_has_its_own(
    groups: ModelPackageGroups, packages: ModelPackages, author, permit_for
) -> None:
    arn = entered(groups, packages, author)
    with pytest.raises(Conflict):
        groups.create(author, {"ModelPackageGroupName": "sepsis"})
    with pytest.raises(Invalid):
        groups.create(author, {"ModelPackageGroupName": "-x"})
    stranger = permit_for("models:read", "models:write", "rows:read", "rows:write", account="research")
    assert groups.list(stranger, {})["ModelPackageGroupSummaryList"] == []
    for name in ("sepsis", arn.replace("model-package/", "model-package-group/").removesuffix("/1")):
        with pytest.raises((NotFound, Invalid)):
            groups.describe(stranger, {"ModelPackageGroupName": name})
    with pytest.raises(Invalid):
        packages.describe(stranger, {"ModelPackageName": arn})


def test_a_decision_with_what_may_not_go_beside_it_is_not_made(
    groups: ModelPackageGroups, packages: ModelPackages, author: Any, reviewer: Any
) -> None:
    arn = entered(groups, packages, author)
    with pytest.raises(Refused):
        packages.update(
            reviewer,
            {"ModelPackageArn": arn, "ModelApprovalStatus": REJECTED, "CustomerMetadataProperties": {"ticket": "1"}},
        )
    skips = {"Stage": "Production", "StageStatus": "Approved"}
    with pytest.raises(Conflict):
        packages.update(reviewer, {"ModelPackageArn": arn, "ModelApprovalStatus": REJECTED, "ModelLifeCycle": skips})
    assert packages.describe(author, {"ModelPackageName": arn})["ModelApprovalStatus"] == PENDING


def test_a_version_is_a_number_of_plain_digits(packages: ModelPackages, author: Any) -> None:
    with pytest.raises(NotFound):
        packages.find(author, "sepsis/\u00b2")
    with pytest.raises(Invalid):
        packages.list(author, {"NextToken": "at-\u00b2"})
