"""A rollout moves by the clock, comes back by itself, and every process agrees on who answers whom."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from carelake.access.gate import Gate
from carelake.access.policy import Policies
from carelake.audit.tables import act
from carelake.core.errors import Conflict, Corrupt, Invalid, NotFound, Unsupported
from carelake.events.tables import event
from carelake.models.packages.packages import ModelPackages
from carelake.serving import capture, config
from carelake.serving.config import Policy, Revised, Variant, place_of, policy_of
from carelake.serving.endpoint import Endpoints
from carelake.serving.rollout import Revision, Routing

_CANARY = {"Type": "CANARY", "WaitIntervalInSeconds": 60, "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 10}}
_LINEAR = {"Type": "LINEAR", "WaitIntervalInSeconds": 10, "LinearStepSize": {"Type": "CAPACITY_PERCENT", "Value": 30}}


def deployment(routing: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing, **more}}


def shifted(files: dict[str, bytes], by: float) -> dict[str, bytes]:
    """The same model, whose scores lie ``by`` further on the logit scale."""
    told = json.loads(files["model.json"])
    told["platt"][0] += by
    return {**files, "model.json": msgspec.json.encode(told)}


# -- what follows from the clock ----------------------------------------------------------------------------------


def test_a_canary_bakes_twice_and_a_line_climbs() -> None:
    canary = policy_of(deployment(_CANARY, TerminationWaitInSeconds=30))
    assert [canary.share(at) for at in (0, 59, 60, 200)] == [0.1, 0.1, 1.0, 1.0]
    assert canary.ends == 150
    line = policy_of(deployment(_LINEAR))
    assert [line.share(at) for at in (0, 10, 25, 30)] == [0.3, 0.6, 0.9, 1.0]
    assert (line.ends, line.alarms) == (40, config.ALARMS)
    assert policy_of(None) == config.ALL_AT_ONCE


@pytest.mark.parametrize(
    "said",
    [
        {"BlueGreenUpdatePolicy": {}},
        deployment({**_CANARY, "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 60}}),
        deployment({**_CANARY, "CanarySize": {"Type": "INSTANCE_COUNT", "Value": 1}}),
        deployment({**_CANARY, "WaitIntervalInSeconds": 3601}),
        deployment(_CANARY, MaximumExecutionTimeoutInSeconds=100),
        deployment(_CANARY, Unknown=1),
        {**deployment(_CANARY), "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "moon"}]}},
    ],
)
def test_a_configuration_that_cannot_be_followed_is_refused(said: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as caught:
        policy_of(said)
    assert caught.value.code == "serving.deployment_config"
    assert "moon" not in caught.value.message
    with pytest.raises(Unsupported):
        policy_of({"RollingUpdatePolicy": {}})


@pytest.mark.parametrize(
    "said",
    [
        ["model:1"],
        [{"ModelName": 1}],
        [{"ModelName": "m", "InitialVariantWeight": float("inf")}],
        [{"ModelName": "m", "InitialVariantWeight": float("nan")}],
        [{"ModelName": "m", "VariantName": "a" * 64}],
    ],
)
def test_variants_that_cannot_be_weighed_are_refused(said: Any) -> None:
    with pytest.raises(Invalid) as caught:
        config.variants_of(said, "variant")
    assert caught.value.code == "serving.variants"


_WEIGHTS = st.lists(st.floats(0.01, 10), min_size=1, max_size=4)


@settings(max_examples=60, deadline=None)
@given(_WEIGHTS, _WEIGHTS, st.floats(0, 1), st.floats(0, 1), st.lists(st.text(max_size=8), max_size=20))
def test_nobody_goes_back_while_a_share_grows(
    old: list[float], new: list[float], one: float, two: float, keys: list[str]
) -> None:
    def routed(share: float) -> Routing:
        return Routing(_revision(2, new), _revision(1, old), share)

    low, high = routed(min(one, two)), routed(max(one, two))
    for key in keys:
        before, after = low.variant(key), high.variant(key)
        assert before == after or (before.endpoint[0], after.endpoint[0]) == ("1", "2")
        assert low.variant(key) == before
    assert sum(share for _, share in low.shares()) == pytest.approx(1)


def _revision(number: int, weights: list[float]) -> Revision:
    variants = tuple(Variant(f"v{at}", f"{number}.{at}", "m", weight) for at, weight in enumerate(weights))
    begun = datetime(2026, 1, 1, tzinfo=UTC)
    return Revision("production", "r", number, number - 1, Revised(variants, (), Policy()), begun, 0, "", "", "", "a")


def test_shares_are_those_that_were_asked_for() -> None:
    here = sum(place_of("readmission", f"pat-{number}") < 0.1 for number in range(20_000)) / 20_000
    assert here == pytest.approx(0.1, abs=0.01)


# -- over rows ----------------------------------------------------------------------------------------------------


@pytest.fixture
def guarded(place) -> Endpoints:
    """Endpoints that look after themselves, by the real gate."""
    place.gate = Gate(place.vault, Policies.load(Path("/nonexistent")))
    return Endpoints(place.vault, place.nouns, place.outbox, place.registry, place.record, place.gate)


@pytest.fixture
def version(place, files: dict[str, bytes]) -> Callable[[float], str]:
    def make(by: float) -> str:
        made = place.registry.register(place.author, "readmission", "trainingset:" + "1" * 64, shifted(files, by))
        return place.registry.approve(place.reviewer, made.ref).ref

    return make


def ask(place, endpoints: Endpoints, permit, rows: Any, first: int, count: int) -> list[str]:
    """Requests of a row each; answers the variants' refs."""
    names = ["age", "n_admissions_12m", "hemoglobin", "noise"]
    told = []
    for row in rows.slice(first, count).to_pylist():
        row["prediction_time"] = row["prediction_time"].isoformat()
        instance = {name: row[name] for name in (*names, "subject_id", "encounter_id", "prediction_time")}
        body, _, _ = endpoints.invoke(permit, "readmission", msgspec.json.encode({"instances": [instance]}))
        told.append(json.loads(body)["predictions"][0]["endpoint"])
    return told


def steps(place) -> list[tuple[str, str]]:
    """The acts of rollouts: who, and the step."""
    with place.vault.database.ledger_reading() as tx:
        rows = tx.execute(select(act.c.principal, act.c.facts).order_by(act.c.seq))
        told = [(row.principal, json.loads(row.facts).get("changed", {})) for row in rows]
    return [(who, changed["step"]) for who, changed in told if "step" in changed]


def events(place) -> list[str]:
    with place.vault.database.ledger_reading() as tx:
        kinds = tx.execute(select(event.c.type).order_by(event.c.seq)).scalars()
        return [kind.removeprefix("carelake.endpoint.") for kind in kinds if kind.startswith("carelake.endpoint.")]


def test_a_version_whose_scores_shift_is_taken_back_by_itself(place, guarded, permit, version, rows_of) -> None:
    first = guarded.deploy(place.author, "readmission", place.approved())
    second = guarded.deploy(
        place.author,
        "readmission",
        version(1.5),
        deployment({**_CANARY, "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 50}}),
    )
    rows = rows_of(260, 21)
    assert guarded.status(permit, "readmission")["EndpointStatus"] == "Updating"
    before = ask(place, guarded, permit, rows, 0, 130)
    assert {first.ref, second.ref} == set(before)
    place.clock.move(seconds=2)
    after = ask(place, guarded, permit, rows, 130, 130)
    assert second.ref in after
    place.clock.move(seconds=2)
    ask(place, guarded, permit, rows, 0, 1)  # which looks, once it is answered
    assert ask(place, guarded, permit, rows, 0, 20) == [first.ref] * 20
    told = guarded.status(permit, "readmission")
    assert told["EndpointStatus"] == "InService"
    assert told["traffic"] == {first.ref: 1.0}
    assert told["FailureReason"] == "Revision 2 was rolled back: score-distribution."
    assert [step for who, step in steps(place) if who == "vault"] == ["alarm", "rollback"]
    assert events(place)[-4:] == ["alarm", "state", "rollback", "state"]
    found = guarded.verify_captures(permit, "readmission")
    assert (found.requests, found.newest, found.gaps, found.lost) == (281, 281, 0, 0)


def test_one_that_answers_alike_is_completed_when_the_bake_is_over(place, guarded, permit, version, rows_of) -> None:
    guarded.deploy(place.author, "readmission", place.approved())
    second = guarded.deploy(place.author, "readmission", version(0.01), deployment(_CANARY))
    rows = rows_of(40, 22)
    ask(place, guarded, permit, rows, 0, 20)
    place.clock.move(seconds=61)
    assert set(ask(place, guarded, permit, rows, 0, 5)) == {second.ref}
    assert guarded.status(permit, "readmission")["stage"]["step"] == 2
    place.clock.move(seconds=60)
    ask(place, guarded, permit, rows, 0, 1)
    told = guarded.status(permit, "readmission")
    assert (told["EndpointStatus"], told["stage"]["name"]) == ("InService", "completed")
    assert [step for who, step in steps(place) if who == "vault"] == ["shift", "complete"]


def test_another_process_goes_on_where_one_was_killed(place, guarded, permit, version, rows_of) -> None:
    first = guarded.deploy(place.author, "readmission", place.approved())
    guarded.deploy(place.author, "readmission", version(2.0), deployment(_LINEAR))
    rows = rows_of(150, 23)
    place.clock.move(seconds=15)
    mine = ask(place, guarded, permit, rows, 0, 40)
    other = Endpoints(place.vault, place.nouns, place.outbox, place.registry, place.record, place.gate)
    assert ask(place, other, permit, rows, 0, 40) == mine
    ask(place, other, permit, rows, 40, 110)
    place.clock.move(seconds=2)
    assert other.tick() >= 1
    assert guarded.status(permit, "readmission")["traffic"] == {first.ref: 1.0}


def test_while_one_is_under_way_no_other_begins_and_it_can_be_taken_back(place, guarded, permit, version) -> None:
    first = guarded.deploy(place.author, "readmission", place.approved())
    guarded.deploy(place.author, "readmission", version(1.0), deployment(_CANARY))
    with pytest.raises(Conflict) as caught:
        guarded.deploy(place.author, "readmission", version(2.0))
    assert caught.value.code == "serving.updating"
    assert guarded.rollback(place.author, "readmission")["traffic"] == {first.ref: 1.0}
    with pytest.raises(Conflict) as caught:
        guarded.rollback(place.author, "readmission")
    assert caught.value.code == "serving.no_previous"


def test_one_that_takes_too_long_is_taken_back(place, guarded, permit, version) -> None:
    guarded.deploy(place.author, "readmission", place.approved())
    guarded.deploy(
        place.author, "readmission", version(1.0), deployment(_CANARY, MaximumExecutionTimeoutInSeconds=200)
    )
    place.clock.move(seconds=201)
    guarded.tick()
    assert guarded.status(permit, "readmission")["stage"] == {"name": "rolled_back", "reason": "timeout"}


_HALF = {**_CANARY, "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 50}}


def test_one_that_refuses_what_the_old_one_takes_is_taken_back(place, guarded, permit, files, version) -> None:
    first = guarded.deploy(place.author, "readmission", place.approved())
    other = {**files, "model.json": files["model.json"].replace(b'"noise"', b'"sound"')}
    made = place.registry.register(place.author, "readmission", "trainingset:" + "1" * 64, other)
    place.registry.approve(place.reviewer, made.ref)
    guarded.deploy(place.author, "readmission", made.ref, deployment(_HALF))
    refused = 0
    for at in range(80):
        row = {"age": 60, "n_admissions_12m": 1, "hemoglobin": 12.5, "noise": 0.1, "subject_id": f"p{at}"}
        try:
            guarded.invoke(permit, "readmission", msgspec.json.encode({"instances": [row]}))
        except Invalid:
            refused += 1
    assert refused > 20
    place.clock.move(seconds=2)
    guarded.tick()
    assert guarded.status(permit, "readmission")["stage"] == {"name": "rolled_back", "reason": "errors"}
    assert guarded.status(permit, "readmission")["traffic"] == {first.ref: 1.0}


def test_what_all_refuse_is_the_callers_failure(place, guarded, permit, version) -> None:
    guarded.deploy(place.author, "readmission", place.approved())
    guarded.deploy(place.author, "readmission", version(0.01), deployment(_HALF))
    for at in range(60):
        body = msgspec.json.encode({"instances": [{"secret": 1, "subject_id": f"p{at}"}]})
        with pytest.raises(Invalid):
            guarded.invoke(permit, "readmission", body)
    place.clock.move(seconds=2)
    guarded.tick()
    assert guarded.status(permit, "readmission")["stage"]["name"] == "baking"


def test_one_whose_files_do_not_load_any_more_is_taken_back(place, guarded, permit, version) -> None:
    first = guarded.deploy(place.author, "readmission", place.approved())
    second = version(1.0)
    guarded.deploy(place.author, "readmission", second, deployment(_HALF))
    folder = f"readmission/{second.partition(':')[2]}/"
    place.vault.objects.put(place.author, "models", folder + "metrics.json", b"{}")
    other = Endpoints(place.vault, place.nouns, place.outbox, place.registry, place.record, place.gate)
    with pytest.raises(Corrupt):
        other.status(permit, "readmission")
    for _ in range(30):
        other.failed(permit, "readmission", 500)
    place.clock.move(seconds=2)
    other.tick()
    assert other.status(permit, "readmission")["traffic"] == {first.ref: 1.0}


@pytest.mark.parametrize("name", ["", "endpoint:0", "-a", "a b", "a\n", "ä", "a" * 64])
def test_a_name_is_one_that_every_door_takes(place, guarded, name: str) -> None:
    with pytest.raises(Invalid) as caught:
        guarded.deploy(place.author, name, place.approved())
    assert caught.value.code == "serving.name"


def test_what_is_being_rolled_out_is_not_deleted(place, guarded, version) -> None:
    guarded.deploy(place.author, "readmission", place.approved())
    second = version(1.0)
    guarded.deploy(place.author, "readmission", second, deployment(_CANARY))
    with pytest.raises(Conflict) as caught:
        ModelPackages(place.vault, place.nouns, place.registry).delete(place.author, {"ModelPackageName": second})
    assert caught.value.code == "models.in_service"


def test_a_page_of_rows_is_of_patients_whom_the_caller_sees(place, guarded, permit_for, clock) -> None:
    guarded.deploy(place.author, "readmission", place.approved())
    grants = ("clinical:read", "clinical:write", "models:read", "rows:read", "rows:write")
    narrow = permit_for(*grants, principal="endpoint", scope=("patient:p1",))
    with pytest.raises(Invalid) as caught:
        guarded.batch(narrow, "readmission", [{"age": 60, "subject_id": "p2"}], clock.now())
    assert caught.value.code == "serving.outside_scope"


def test_a_rejected_version_gives_way_to_the_one_before(place, guarded, permit, version) -> None:
    first = guarded.deploy(place.author, "readmission", place.approved())
    second = version(1.0)
    guarded.deploy(place.author, "readmission", second)
    place.registry.reject(place.reviewer, second)
    assert guarded.redeploy_previous(place.author, "readmission") == ["readmission"]
    assert guarded.find(permit, "readmission").ref == first.ref
    place.registry.reject(place.reviewer, place.model.ref)
    guarded.redeploy_previous(place.author, "readmission")
    assert guarded.status(permit, "readmission", alarms=False)["EndpointStatus"] == "OutOfService"


def test_a_shadow_is_captured_compared_and_never_answered(place, guarded, permit, version, rows_of) -> None:
    other = version(1.0)
    shadows = [{"VariantName": "next", "ModelName": other}]
    first = guarded.deploy(place.author, "readmission", place.approved(), shadows=shadows)
    assert set(ask(place, guarded, permit, rows_of(30, 24), 0, 30)) == {first.ref}
    (report,) = guarded.shadow_report(permit, "readmission")
    assert (report["VariantName"], report["rows"], report["failed"]) == ("next", 30, 0)
    assert report["mean"] > report["answered_mean"]
    place.clock.move(seconds=1)
    with place.vault.database.reading(permit) as tx:
        said = {"since": place.clock.at - timedelta(days=1), "until": place.clock.now()}
        seen = capture.replay(permit, tx, place.vault, report["EndpointRef"], **said, role="shadow")
        assert len(capture.replay(permit, tx, place.vault, report["EndpointRef"], **said).p) == 0
    assert len(seen.p) == 30


def test_a_variant_can_be_named_and_is_weighed(place, guarded, permit, version, rows_of) -> None:
    models = [place.approved(), version(0.5)]
    variants = [
        {"VariantName": f"v{at}", "ModelName": one, "InitialVariantWeight": 3 - 2 * at}
        for at, one in enumerate(models)
    ]
    guarded.deploy(place.author, "readmission", variants=variants)
    shares = guarded.status(permit, "readmission")["traffic"]
    assert sorted(shares.values()) == [0.25, 0.75]
    body = b'{"instances": [[60, 1, 12.5, 0.1]]}'
    assert guarded.invoke(permit, "readmission", body, target_variant="v1")[2] == "v1"
    with pytest.raises(NotFound):
        guarded.invoke(permit, "readmission", body, target_variant="v2")


def test_deleted_it_answers_no_more_and_its_captures_stay(place, guarded, permit, rows_of) -> None:
    guarded.deploy(place.author, "readmission", place.approved())
    ask(place, guarded, permit, rows_of(3, 25), 0, 3)
    guarded.delete(place.author, "readmission")
    with pytest.raises(NotFound):
        guarded.invoke(permit, "readmission", b'{"instances": [[60, 1, 12.5, 0.1]]}')
    assert guarded.verify_captures(permit, "readmission").as_json()["requests"] == 3


def test_of_two_who_look_at_once_one_takes_it_back(place, guarded, permit, version, rows_of) -> None:
    import concurrent.futures

    first = guarded.deploy(place.author, "readmission", place.approved())
    guarded.deploy(place.author, "readmission", version(2.0), deployment(_HALF))
    rows = [[60 + at % 30, at % 4, 12.5, 0.1] for at in range(300)]
    guarded.invoke(permit, "readmission", msgspec.json.encode({"instances": rows}))
    others = [
        Endpoints(place.vault, place.nouns, place.outbox, place.registry, place.record, place.gate) for _ in range(3)
    ]
    place.clock.move(seconds=2)
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda one: one.tick(), others))
    assert [step for who, step in steps(place) if who == "vault"].count("rollback") <= 1
    assert guarded.status(permit, "readmission")["traffic"] == {first.ref: 1.0}
    assert events(place).count("rollback") == 1


def test_after_the_bake_an_alarm_is_told_and_taken_back_where_that_is_set(place, files, permit, version) -> None:
    for after, serving in (("tell", 2), ("rollback", 1)):
        told = msgspec.structs.replace(place.vault.settings.serving, after_bake=after)
        place.vault.settings = msgspec.structs.replace(place.vault.settings, serving=told)
        gate = Gate(place.vault, Policies.load(Path("/nonexistent")))
        endpoints = Endpoints(place.vault, place.nouns, place.outbox, place.registry, place.record, gate)
        if after == "tell":
            models = [place.approved(), version(1.0)]
            refs = [endpoints.deploy(place.author, "readmission", one).ref for one in models]
        rows = [[30.0, 0, 16.0, 0.1] for _ in range(300)]
        endpoints.invoke(permit, "readmission", msgspec.json.encode({"instances": rows}))
        endpoints.tick()
        assert endpoints.find(permit, "readmission").ref == refs[serving - 1]
        place.clock.move(minutes=2)
        endpoints.tick()
        assert endpoints.find(permit, "readmission").ref == refs[serving - 1]
    assert events(place).count("alarm") >= 1
