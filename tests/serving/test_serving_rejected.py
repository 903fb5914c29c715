"""A version that is turned down stops: as what answers, as a shadow, as what is come back to, whoever was killed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from sqlalchemy import update

from carelake.audit.tables import noun as noun_table
from carelake.core.errors import Conflict
from carelake.models.registry import APPROVED
from carelake.serving import capture
from carelake.serving.endpoint import Endpoints

from .test_serving_rollout import _CANARY, ask, deployment, events, guarded, steps, version

__all__ = ["guarded", "version"]

_BODY = b'{"instances": [[60, 1, 12.5, 0.1]]}'


def forged(place, ref: str, state: str = APPROVED) -> None:
    """Whoever writes in the table makes a version Approved: no record says so."""
    with place.vault.database.transaction(place.author) as tx:
        tx.execute(update(noun_table).where(noun_table.c.ref == ref).values(state=state))


def shadows_of(guarded: Endpoints, permit: Any) -> list[str]:
    told = guarded.status(permit, "readmission", alarms=False)
    return [one["ModelName"] for one in told["ShadowProductionVariants"]]


def test_a_rejected_shadow_scores_no_more_and_answers_go_on(place, guarded, permit, version: Callable) -> None:
    shadow = version(1.0)
    first = guarded.deploy(place.author, "readmission", place.approved(), shadows=[{"ModelName": shadow}])
    guarded.invoke(permit, "readmission", _BODY)
    place.registry.reject(place.reviewer, shadow)
    # Already before anything follows from the rejection.
    guarded.invoke(permit, "readmission", _BODY)
    with place.vault.database.reading(permit) as tx:
        (told,) = guarded.shadow_report(permit, "readmission")
        kept = place.nouns.descendants(tx, told["EndpointRef"], account="production")
    assert sum(one.kind == "prediction" for one in kept) == 1
    assert guarded.redeploy_previous(place.author, "readmission") == ["readmission"]
    assert guarded.redeploy_previous(place.author, "readmission") == []
    assert shadows_of(guarded, permit) == []
    assert guarded.find(permit, "readmission").ref == first.ref
    assert guarded.status(permit, "readmission")["revision"] == 1
    assert events(place).count("out") == 1
    # Approved again it is no shadow by itself.
    place.registry.approve(place.reviewer, shadow)
    guarded.invoke(permit, "readmission", _BODY)
    assert shadows_of(guarded, permit) == []


def test_a_shadow_that_is_rejected_while_a_rollout_goes_on_is_gone_in_it_and_after(
    place, guarded, permit, version: Callable
) -> None:
    shadow = version(1.0)
    guarded.deploy(place.author, "readmission", place.approved())
    guarded.deploy(place.author, "readmission", version(0.01), deployment(_CANARY), shadows=[{"ModelName": shadow}])
    assert shadows_of(guarded, permit) == [shadow]
    place.registry.reject(place.reviewer, shadow)
    guarded.redeploy_previous(place.author, "readmission")
    assert guarded.status(permit, "readmission")["EndpointStatus"] == "Updating"
    place.clock.move(seconds=500)
    guarded.tick()
    assert guarded.status(permit, "readmission")["EndpointStatus"] == "InService"
    assert shadows_of(guarded, permit) == []


def test_a_rollback_goes_to_what_is_approved_on_record_alone(place, guarded, permit, version: Callable) -> None:
    refs = [place.approved(), version(0.5), version(1.0)]
    made = [guarded.deploy(place.author, "readmission", ref).ref for ref in refs]
    place.registry.reject(place.reviewer, refs[1])
    forged(place, refs[1])
    assert guarded.rollback(place.author, "readmission")["traffic"] == {made[0]: 1.0}
    guarded.deploy(place.author, "readmission", refs[2])
    place.registry.reject(place.reviewer, refs[0])
    forged(place, refs[0])
    with pytest.raises(Conflict) as caught:
        guarded.rollback(place.author, "readmission")
    assert caught.value.code == "serving.no_previous"
    assert guarded.find(permit, "readmission").ref == made[2]


def test_a_file_that_was_changed_is_not_come_back_to(place, guarded, version: Callable) -> None:
    first = place.approved()
    guarded.deploy(place.author, "readmission", first)
    guarded.deploy(place.author, "readmission", version(0.5))
    path = f"readmission/{first.partition(':')[2]}/card.html"
    place.vault.objects.put(place.author, "models", path, b"<!doctype html>another")
    with pytest.raises(Conflict):
        guarded.rollback(place.author, "readmission")


def test_a_bake_that_fails_goes_past_what_was_turned_down_meanwhile(place, guarded, permit, version) -> None:
    refs = [place.approved(), version(0.5)]
    made = [guarded.deploy(place.author, "readmission", ref).ref for ref in refs]
    guarded.deploy(place.author, "readmission", version(1.0), deployment(_CANARY))
    place.clock.move(seconds=61)  # all traffic has moved: what served before answers nobody, and waits
    place.registry.reject(place.reviewer, refs[1])
    for _ in range(30):
        guarded.failed(permit, "readmission", 500)
    place.clock.move(seconds=2)
    guarded.tick()
    assert guarded.status(permit, "readmission")["traffic"] == {made[0]: 1.0}
    guarded.invoke(permit, "readmission", _BODY)


def test_what_a_killed_rejection_left_is_done_by_whoever_looks_next(place, guarded, permit, version) -> None:
    first = guarded.deploy(place.author, "readmission", place.approved())
    second = version(1.0)
    guarded.deploy(place.author, "readmission", second)
    place.registry.reject(place.reviewer, second)  # and nothing after it
    # A request meets it, and is answered by the one before.
    told, _, _ = guarded.invoke(permit, "readmission", _BODY)
    assert msgspec.json.decode(told)["predictions"][0]["endpoint"] == first.ref
    assert ("vault", "rollback") in steps(place)
    # Where nobody asks, a server's first look does it; and nothing is done twice.
    guarded.deploy(place.author, "readmission", version(2.0))
    place.registry.reject(place.reviewer, guarded.find(permit, "readmission").body["model"])
    other = Endpoints(place.vault, place.nouns, place.outbox, place.registry, place.record, place.gate)
    other.tick()
    assert other.find(permit, "readmission").ref == first.ref
    many = events(place).count("rollback")
    place.clock.move(minutes=2)
    other.tick()
    assert events(place).count("rollback") == many


def test_with_nothing_to_go_back_to_it_goes_out_of_service_once(place, guarded, permit, rows_of) -> None:
    guarded.deploy(place.author, "readmission", place.approved())
    ask(place, guarded, permit, rows_of(2, 31), 0, 2)
    place.registry.reject(place.reviewer, place.model.ref)
    with pytest.raises(Conflict) as caught:
        guarded.invoke(permit, "readmission", _BODY)
    assert caught.value.code == "serving.not_approved"
    for _ in range(3):
        place.clock.move(minutes=2)
        guarded.tick()
    assert steps(place).count(("vault", "out")) == 1
    assert guarded.status(permit, "readmission", alarms=False)["EndpointStatus"] == "OutOfService"
    with place.vault.database.reading(permit) as tx:
        endpoint = place.nouns.find(tx, "endpoint", "production")[0]
        seen = capture.known(tx, [one.ref for one in place.nouns.descendants(tx, endpoint.ref, account="production")])
    assert len(seen) == 2
