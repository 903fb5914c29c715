"""Change plans: read without trust, in force by a second person, and held against each retrained version."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import update

from carelake.audit.tables import noun as noun_table
from carelake.core import canonical
from carelake.core.errors import Corrupt, Invalid, NotFound, Refused
from carelake.models import artifact
from carelake.models.plan import check
from carelake.models.plan.reading import MAX_BYTES, read
from carelake.models.plan.shape import Plan
from carelake.models.registry import APPROVED, PENDING, Registry

from .plan_text import PLAN

TRAINING_SET = "trainingset:" + "0" * 64
NOW = datetime(2026, 1, 2, tzinfo=UTC)
GRANTS = ("models:read", "models:write", "models:approve", "rows:read", "rows:write")


@pytest.fixture
def author(permit_for: Callable) -> object:
    return permit_for(*GRANTS, principal="pipeline")


@pytest.fixture
def reviewer(permit_for: Callable) -> object:
    return permit_for("models:read", "models:approve", "rows:read", "rows:write", principal="reviewer")


def base(**other: Any) -> check.Facts:
    groups = [
        {"group": group, "value": value, "n": 500, "events": 80, "auroc": 0.7}
        for group, value in (("sex", "female"), ("sex", "male"), ("age_group", "80+"))
    ]
    metrics = {"n": 4000, "events": 600, "auroc": 0.72, "calibration_slope": 1.0, "brier": 0.1, "subgroups": groups}
    told = check.Facts(
        "model:1", TRAINING_SET, metrics, {"purpose": "order"}, ("feature_0", "feature_19"), {"rounds": 200}, 0.2,
        {"platt": [0.0, 1.0]}, {"lightgbm": "4.7"}, {"rows": 5000, "data_end": "2026-01-01T00:00:00Z"},
    )  # fmt: skip
    return replace(told, **other)


def verdict(new: check.Facts, old: check.Facts | None = None, plan: str = PLAN) -> check.Verdict:
    return check.verdict(read(plan.encode()), new, old, NOW)


def outside(found: check.Verdict) -> set[str]:
    return {line.check for line in found.lines if line.verdict == "outside"}


def test_a_retrained_version_inside_every_bound_may_go_out_by_itself() -> None:
    new = base(ref="model:2", training_set="trainingset:" + "1" * 64, threshold=0.21, hyperparameters={"rounds": 250})
    found = verdict(new, base())
    assert (found.inside, found.automatic) == (True, True)
    assert set(found.differences) == {"training data", "hyperparameters", "threshold"}
    parts = {line.part for line in found.lines}
    assert parts == {"description_of_modifications", "data_management", "retraining", "performance_evaluation"}
    assert all(line.modifications and line.bound and line.found and line.evidence for line in found.lines)
    assert not verdict(new).automatic, "a first version modifies nothing, and a person decides on it"


def changed(**metrics: Any) -> dict[str, Any]:
    return {**base().metrics, **metrics}


@pytest.mark.parametrize(
    ("new", "what"),
    [
        ({"metrics": changed(auroc=0.69)}, "drop of auroc"),
        ({"metrics": changed(auroc=0.59)}, "auroc"),
        ({"metrics": changed(auroc=None)}, "auroc"),
        ({"metrics": changed(auroc=float("nan"))}, "auroc"),
        ({"metrics": changed(brier=0.12)}, "rise of brier"),
        ({"metrics": changed(calibration_slope=1.3)}, "calibration_slope"),
        ({"metrics": changed(events=99)}, "test events"),
        ({"metrics": changed(subgroups=[])}, "subgroups by sex"),
        ({"data": {"rows": 5000, "data_end": "2025-11-01T00:00:00Z"}}, "age of the newest data"),
        ({"data": {"rows": 5000}}, "age of the newest data"),
        ({"data": {}}, "training rows"),
        ({"data": {"rows": 5000, "data_end": "2026-01-01T00:00:00Z", "leaks": ["x"]}}, "leak report"),
        ({"features": ("feature_0", "feature_19", "feature_20")}, "features added"),
        ({"features": ("feature_19",)}, "features that must be"),
        ({"hyperparameters": {"rounds": 2000}}, "hyperparameter rounds"),
        ({"hyperparameters": {"rounds": 200, "num_leaves": 31}}, "other hyperparameters"),
        ({"intended_uses": {"purpose": "decide"}}, "intended use"),
    ],
)
def test_whatever_leaves_a_bound_is_out_of_plan(new: dict[str, Any], what: str) -> None:
    found = verdict(base(ref="model:2", **new), base())
    assert not found.inside
    assert not found.automatic
    assert what in outside(found)


def test_a_difference_that_no_modification_names_is_out_of_plan() -> None:
    narrow = PLAN.replace(
        "changes: [training data, hyperparameters, threshold, calibration, libraries]", "changes: [training data]"
    )
    assert "threshold differ" in outside(verdict(base(threshold=0.3), base(), narrow))
    dropped = verdict(base(features=("feature_0",)), base())
    assert dropped.inside
    assert not dropped.automatic, "M2 is not automatic"


def test_a_group_too_small_to_judge_is_told_of_and_not_judged() -> None:
    groups = [*base().metrics["subgroups"], {"group": "sex", "value": "other", "n": 20, "events": 2, "auroc": None}]
    found = verdict(base(metrics=changed(subgroups=groups)), base())
    assert found.inside
    assert [line.verdict for line in found.lines if line.check == "sex=other"] == ["not judged"]


@settings(max_examples=60, deadline=None)
@given(drop=st.floats(-0.05, 0.1), slope=st.floats(0.5, 1.6), events=st.integers(50, 200), group=st.floats(0.4, 0.8))
def test_a_verdict_is_the_bounds_and_nothing_else(drop: float, slope: float, events: int, group: float) -> None:
    groups = [{**one, "auroc": group} for one in base().metrics["subgroups"]]
    auroc = 0.72 - drop
    new = base(metrics=changed(auroc=auroc, calibration_slope=slope, events=events, subgroups=groups))
    wanted = (
        auroc >= 0.6 - 1e-12 and 0.72 - auroc <= 0.02 + 1e-12 and slope + 1e-12 >= 0.8 and slope <= 1.25 + 1e-12
        and events >= 100 and group >= 0.55 - 1e-12 and auroc - group <= 0.2 + 1e-12
    )  # fmt: skip
    assert verdict(new, base()).inside == wanted


BOMB = "a: &a [x]\nb: [*a, *a]\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        (BOMB, "aliases"),
        ("a: !!python/object/apply:os.system [id]\n", "tags"),
        ("title: x\ntitle: y\n", "twice"),
        ("a: " + "[" * 40 + "]" * 40, "deeply"),
        ("[" * 3000, "deep"),
        ("- x\n" * 6000, "too long"),
        ("a: b\n---\nc: d\n", "not the YAML"),
        ("\x00", "not the YAML"),
        (PLAN.replace("minimum_rows: 1000", "minimum_rows: many"), "minimum_rows"),
        (PLAN.replace("minimum_rows: 1000", "minimum_row: 1000"), "minimum_row"),
        (PLAN.replace("auroc: {at_least: 0.6, drop_at_most: 0.02}", "auroc: {at_least: nan}"), "at_least"),
        (PLAN.replace("      calibration_slope: {at_least: 0.8, at_most: 1.25}\n", ""), "bounds calibration"),
        (PLAN.replace("    M2: One feature less, within the bounds.\n", ""), "each"),
        (PLAN.replace("id: M2", "id: M1"), "id"),
        (PLAN.replace("approval: automatic", "approval: maybe"), "maybe"),
        (
            PLAN.replace("practices: The recipe, unchanged.", "practices: x\n    intended_use_unchanged: false"),
            "new use",
        ),
        (PLAN + "#" * MAX_BYTES, "KiB"),
    ],
)
def test_what_is_no_plan_is_said_where(text: str, says: str) -> None:
    with pytest.raises(Invalid) as caught:
        read(text.encode())
    assert caught.value.code == "models.plan"
    assert says in caught.value.message


def test_the_plan_that_is_shown_is_one() -> None:
    path = Path(__file__).resolve().parents[2] / "docs" / "examples" / "change-plan.yaml"
    plan = read(path.read_bytes())
    assert plan.group == "readmission"
    assert plan.modification_protocol.update_procedures.approval == "automatic"


def test_words_of_yaml_stay_words() -> None:
    plan = read(PLAN.replace("rationale: Sources end.", "rationale: no").encode())
    assert plan.description_of_modifications[1].rationale == "no"
    assert msgspec.convert(msgspec.to_builtins(plan), Plan) == plan


def test_a_plan_is_put_in_force_by_another_and_lets_versions_out(registry: Registry, author, reviewer, files) -> None:
    first = registry.register(author, "readmission", TRAINING_SET, files)
    registry.approve(reviewer, first.ref)
    plan = registry.plans.write(author, "readmission", PLAN.encode())
    assert registry.plans.write(author, "readmission", PLAN.encode()).ref == plan.ref
    with pytest.raises(Refused) as caught:
        registry.plans.decide(author, plan.ref, approve=True)
    assert caught.value.code == "models.self_approval"
    assert registry.plans.decide(reviewer, plan.ref, approve=True).state == "Approved"

    second = registry.register(author, "readmission", TRAINING_SET, {**files, "baseline.json": b'{"rows":2}'})
    [told] = registry.plans.verdicts(author, second.ref)
    assert (told.state, told.body["automatic"], told.body["deployed"]) == ("InPlan", True, first.ref)
    assert told.made_from == (second.ref, plan.ref, first.ref)
    released = registry.approve_in_plan(author, second.ref)
    assert released is not None
    assert released.state == APPROVED
    decided = registry.decided(author, second.ref)
    assert decided is not None
    assert (decided["by"], decided["plan"], decided["verdict"]) == ("plan", plan.ref, told.ref)
    assert registry.released(reviewer, second.ref).ref == second.ref

    worse = canonical.dump({**msgspec.json.decode(files["metrics.json"]), "calibration_slope": 2.0})
    third = registry.register(author, "readmission", TRAINING_SET, {**files, "metrics.json": worse})
    assert registry.plans.verdicts(author, third.ref)[0].state == "OutOfPlan"
    assert registry.approve_in_plan(author, third.ref) is None
    with pytest.raises(Refused) as caught:
        registry.approve(reviewer, third.ref)
    assert caught.value.code == "models.out_of_plan"
    assert registry.get(author, third.ref).state == PENDING

    wider = registry.plans.write(author, "readmission", PLAN.replace("at_most: 1.25", "at_most: 2.5").encode())
    registry.plans.decide(reviewer, wider.ref, approve=True)
    assert [one.state for one in registry.plans.versions(author, "readmission")] == ["Approved", "Superseded"]
    put, gone = registry.plans.decisions(author, plan.ref)
    assert (put["decision"], gone["decision"]) == ("Approved", "Superseded")
    assert (gone["approver"], gone["successor"], gone["at"] >= put["at"]) == ("reviewer", wider.ref, True)
    assert told.body["plan"] == plan.ref, "the verdict names the plan that it was made under"
    assert registry.plans.check(author, third, registry.files(author, third.ref)).state == "InPlan"
    assert registry.approve_in_plan(author, third.ref) is None, "it was out of plan once: a person decides"
    assert registry.approve(reviewer, third.ref).state == APPROVED


def test_a_plan_that_was_changed_in_its_table_counts_no_more(registry: Registry, vault, author, reviewer) -> None:
    plan = registry.plans.write(author, "readmission", PLAN.encode())
    registry.plans.decide(reviewer, plan.ref, approve=True)
    body = {**plan.body, "plan": {**plan.body["plan"], "title": "another"}}
    with vault.database.transaction(author) as tx:
        tx.execute(update(noun_table).where(noun_table.c.ref == plan.ref).values(body=canonical.dump(body)))
    with pytest.raises(Corrupt) as caught, vault.database.reading(author) as tx:
        registry.plans.in_force(tx, "production", "readmission")
    assert caught.value.code == "models.approval_altered"


def test_a_superseded_plan_is_not_put_back_in_its_table(registry: Registry, vault, author, reviewer) -> None:
    plan = registry.plans.write(author, "readmission", PLAN.encode())
    registry.plans.decide(reviewer, plan.ref, approve=True)
    other = registry.plans.write(author, "readmission", PLAN.replace("at_most: 1.25", "at_most: 1.2").encode())
    registry.plans.decide(reviewer, other.ref, approve=True)
    with vault.database.transaction(author) as tx:
        tx.execute(update(noun_table).where(noun_table.c.ref == plan.ref).values(state="Approved"))
        tx.execute(update(noun_table).where(noun_table.c.ref == other.ref).values(state="Superseded"))
    with pytest.raises(Corrupt), vault.database.reading(author) as tx:
        registry.plans.in_force(tx, "production", "readmission")


def test_a_plan_of_another_group_or_account_is_none_here(registry: Registry, author, permit_for, files) -> None:
    with pytest.raises(Invalid, match="names another"):
        registry.plans.write(author, "other", PLAN.encode())
    plan = registry.plans.write(author, "readmission", PLAN.encode())
    stranger = permit_for(*GRANTS, principal="reviewer", account="research")
    with pytest.raises(NotFound):
        registry.plans.decide(stranger, plan.ref, approve=True)
    version = registry.register(author, "readmission", TRAINING_SET, files)
    with pytest.raises(NotFound):
        registry.plans.check(author, version, artifact.load(author, registry._vault, "readmission", version.ref))
