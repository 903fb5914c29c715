"""An endpoint answers with reasons, for approved models only, and nothing leaves it that was not kept."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from decimal import Decimal

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from carelake.core.errors import CarelakeError, Conflict, Invalid, NotFound, Unavailable
from carelake.fhir.validate import validate
from carelake.serving import capture, worklist, writeback


@pytest.fixture
def endpoint(place, permit):
    place.endpoints.deploy(place.author, "readmission", place.approved())
    return place.endpoints.load(permit, "readmission")


def test_only_an_approved_model_is_deployed(place, permit) -> None:
    with pytest.raises(Conflict) as caught:
        place.endpoints.deploy(place.author, "readmission", place.model.ref)
    assert caught.value.code == "serving.not_approved"
    noun = place.endpoints.deploy(place.author, "readmission", place.approved())
    assert (noun.state, noun.made_from) == ("InService", (place.model.ref,))
    assert place.endpoints.find(permit, noun.ref).ref == place.endpoints.find(permit, "readmission").ref


def test_one_patient_is_answered_with_reasons_beside_the_scores(place, permit, endpoint, rows_of: Callable) -> None:
    rows = rows_of(400, 7)
    one = worklist.of_patient(rows, "pat-7-3")
    (answer,) = place.endpoints.predict(permit, endpoint, one)
    said = answer.as_json()
    assert 0 < said["probability"] < 1
    assert said["flagged"] == (answer.probability >= answer.threshold)
    assert 1 <= len(said["reasons"]) <= 5
    first = answer.reasons[0]
    assert abs(first.effect) == max(abs(reason.effect) for reason in answer.reasons)
    assert {reason.words for reason in answer.reasons} >= {"number of admissions in the last 12 months"}
    assert said["scores"]["lace"]["score"] == one.column("lace")[0].as_py()
    assert said["scores"]["hospital"]["score"] is None
    assert 0 < said["scores"]["lace"]["risk"] < 1


def test_the_probability_is_that_of_the_model(place, permit, endpoint, rows_of: Callable) -> None:
    rows = rows_of(50, 8)
    answers = place.endpoints.predict(permit, endpoint, rows)
    x = np.column_stack([rows.column(name).to_numpy() for name in endpoint.files.scorer.names])
    expected = endpoint.files.scorer.risk(x.astype(np.float32).astype(float))
    assert [a.probability for a in answers] == expected.tolist()
    assert [a.encounter for a in answers] == rows.column("encounter_id").to_pylist()


def test_a_stay_that_is_not_over_is_answered_as_preliminary(place, permit, endpoint, rows_of: Callable) -> None:
    rows = rows_of(1, 9).append_column("reason", pa.array(["no_discharge"]))
    (answer,) = place.endpoints.predict(permit, endpoint, rows)
    assert answer.as_json()["outside"] == "no_discharge"
    assert place.record.resources.read(permit, *answer.resource.split("/"))["status"] == "preliminary"


def test_it_is_written_back_as_a_valid_risk_assessment(place, permit, endpoint, rows_of: Callable) -> None:
    basis = {"enc-9-0": ["Observation/hb-1"]}
    (answer,) = place.endpoints.predict(permit, endpoint, rows_of(1, 9), basis=basis)
    resource = place.record.resources.read(permit, *answer.resource.split("/"))
    assert validate(resource) == []
    assert resource["subject"] == {"reference": "Patient/pat-9-0"}
    assert resource["basis"] == [{"reference": "Encounter/enc-9-0"}, {"reference": "Observation/hb-1"}]
    (prediction,) = resource["prediction"]
    assert prediction["probabilityDecimal"] == Decimal(f"{answer.probability:.4f}")
    assert resource["identifier"][0]["value"] == answer.ref


def test_asked_twice_it_is_kept_once(place, permit, endpoint, rows_of: Callable) -> None:
    rows = rows_of(20, 10)
    one, two = (place.endpoints.predict(permit, endpoint, rows) for _ in range(2))
    assert one == two
    assert place.record.writes == 20
    changed = rows.set_column(rows.schema.get_field_index("age"), "age", rows.column("noise"))
    three = place.endpoints.predict(permit, endpoint, changed)
    assert [a.resource for a in three] == [a.resource for a in one]
    assert place.record.resources.read(permit, *three[0].resource.split("/"))["meta"]["versionId"] == "2"
    assert not {a.ref for a in three} & {a.ref for a in one}


def test_when_it_cannot_be_kept_it_is_not_answered(place, permit, endpoint, rows_of: Callable) -> None:
    rows = rows_of(5, 11)
    place.record.full = True
    with pytest.raises(OSError, match="no space"):
        place.endpoints.predict(permit, endpoint, rows)
    place.record.full = False
    with place.vault.database.reading(permit) as tx:
        assert place.nouns.find(tx, "prediction", "production") == []
        seen = capture.replay(
            permit, tx, place.vault, endpoint.ref, place.clock.at, place.clock.at.replace(year=2027)
        )
    assert len(seen.p) == 0
    assert place.record.resources.last_seq(permit) == 0
    assert len(place.endpoints.predict(permit, endpoint, rows)) == 5


def test_what_was_answered_is_read_back_exactly(place, permit, endpoint, rows_of: Callable) -> None:
    rows = rows_of(30, 12)
    since = place.clock.at
    answers = place.endpoints.predict(permit, endpoint, rows)
    place.clock.move(seconds=1)
    with place.vault.database.reading(permit) as tx:
        seen = capture.replay(permit, tx, place.vault, endpoint.ref, since, place.clock.now())
        noun = place.nouns.get(tx, answers[0].ref)
        told = capture.resolver(tx, answers[0].ref)
    assert sorted(seen.p) == sorted(a.probability for a in answers)
    assert np.isnan(seen.x).sum() == rows.column("hemoglobin").null_count
    assert noun.made_from == (endpoint.ref,)
    assert told is not None
    assert told["resource"] == answers[0].resource


def test_no_row_noun_or_act_holds_a_value_or_a_name(place, permit, endpoint, rows_of: Callable) -> None:
    (answer,) = place.endpoints.predict(permit, endpoint, rows_of(1, 13))
    with place.vault.database.reading(permit) as tx:
        noun = place.nouns.get(tx, answer.ref)
        (sealed,) = tx.exec_driver_sql("SELECT sealed FROM prediction").scalars()
    told = repr(noun) + repr(permit.log.__dict__)
    assert "pat-13" not in told
    assert f"{answer.probability:.4f}" not in told
    assert b"enc-13" not in sealed


def test_an_erased_patient_is_skipped_and_counted(place, permit, endpoint, permit_for, rows_of: Callable) -> None:
    place.endpoints.predict(permit, endpoint, rows_of(3, 14))
    eraser = permit_for("rows:read", "rows:write", "rows:erase")
    until = place.clock.at.replace(year=2027)
    with place.vault.database.transaction(eraser) as tx:
        place.vault.sealer.forget(eraser, tx, "pat-14-1")
    with place.vault.database.reading(permit) as tx:
        seen = capture.replay(permit, tx, place.vault, endpoint.ref, place.clock.at, until)
    assert (len(seen.p), seen.erased) == (2, 1)
    with place.vault.database.transaction(eraser) as tx:
        assert capture.forget(tx, "production", "pat-14-1") == 1


def test_what_is_due_is_asked_first_and_written_as_it_was_answered(
    place, permit, endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"features": [60, 1, 12.5, 0.1], "subject_id": f"p{n}", "encounter_id": f"s{n}"} for n in (1, 2)]
    told, _, _ = place.endpoints.invoke(permit, "readmission", msgspec.json.encode({"instances": rows}))
    _, answered = msgspec.json.decode(told)["predictions"]
    asked, risk, kept = writeback._asked, endpoint.files.scorer.risk, []

    def meanwhile(*given):
        """In no transaction; and while it is asked, a patient is erased."""
        assert place.vault.database._mine(writing=True) is None
        found = asked(*given)
        with place.vault.database.transaction(permit) as tx:
            capture.forget(tx, "production", "p1")
        return found

    def keep(permit, tx, resources):
        assert place.vault.database._mine(writing=True) is not None
        kept.extend(resources)

    monkeypatch.setattr(writeback, "_asked", meanwhile)
    monkeypatch.setattr(place.endpoints, "_keep", keep)
    monkeypatch.setattr(type(endpoint.files.scorer), "risk", lambda _, x: 1 - risk(x))
    assert place.endpoints.write_back(permit) == 1
    [said] = kept
    assert said["subject"] == {"reference": "Patient/p2"}
    assert said["identifier"][0]["value"] == answered["prediction"]
    assert said["prediction"][0]["probabilityDecimal"] == Decimal(f"{answered['score']:.4f}")
    assert place.endpoints.write_back(permit) == 0


def test_what_waits_for_a_model_that_cannot_be_asked_keeps_no_other_waiting(
    place, permit, endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.endpoints.deploy(place.author, "other", place.model.ref)
    row = {"features": [60, 1, 12.5, 0.1], "subject_id": "p1", "encounter_id": "s1"}
    for name in ("readmission", "other"):
        place.endpoints.invoke(permit, name, msgspec.json.encode({"instances": [row]}))
    rebuilt, refused = writeback._rebuilt, []

    def never(permit, vault, one, row, captured):
        refused[:] = refused or [one.ref]  # the one that is asked first, each time
        if one.ref in refused:
            raise Unavailable("serving.sandbox_died", "It ended.")
        return rebuilt(permit, vault, one, row, captured)

    monkeypatch.setattr(writeback, "_rebuilt", never)
    assert place.endpoints.write_back(permit, 1) == 1
    with pytest.raises(Unavailable):
        place.endpoints.write_back(permit, 1)
    monkeypatch.setattr(writeback, "_rebuilt", rebuilt)
    assert place.endpoints.write_back(permit, 1) == 1

    # Nor does an account keep another waiting.
    class Watching:
        guarding = staticmethod(nullcontext)

    def write(account: str, most: int) -> int:
        if account == "production":
            raise Unavailable("serving.sandbox_died", "It ended.")
        return len(written.append(account) or written)

    written: list[str] = []
    monkeypatch.setattr(writeback, "waiting", lambda *_: {"production": 1, "research": 1})
    with pytest.raises(Unavailable):
        writeback.catch_up(place.vault, Watching(), write, quiet=True)
    assert written == ["research"]


def test_a_model_that_is_rejected_answers_no_more(place, permit, endpoint, rows_of: Callable) -> None:
    place.registry.reject(place.reviewer, place.model.ref)
    with pytest.raises(Conflict) as caught:
        place.endpoints.predict(permit, endpoint, rows_of(1, 15))
    assert caught.value.code == "serving.not_approved"


def test_a_new_model_under_the_name_takes_the_old_out_of_service(place, permit, endpoint, files, rows_of) -> None:
    later = place.registry.register(place.author, "readmission", "trainingset:" + "1" * 64, files)
    place.registry.approve(place.reviewer, later.ref)
    place.endpoints.deploy(place.author, "readmission", later.ref)
    assert place.endpoints.load(permit, "readmission").files.ref == later.ref
    with pytest.raises(Conflict) as caught:
        place.endpoints.predict(permit, endpoint, rows_of(1, 16))
    assert caught.value.code == "serving.out_of_service"
    place.endpoints.deploy(place.author, "readmission", place.model.ref)
    assert place.endpoints.load(permit, "readmission").ref == endpoint.ref


def test_another_account_sees_and_deploys_nothing(place, permit_for, endpoint, rows_of: Callable) -> None:
    stranger = permit_for("clinical:write", "models:read", "rows:read", "rows:write", account="research")
    for call in (
        lambda: place.endpoints.find(stranger, endpoint.ref),
        lambda: place.endpoints.deploy(stranger, "x", place.model.ref),
    ):
        with pytest.raises(NotFound):
            call()
    with pytest.raises(Conflict):
        place.endpoints.predict(stranger, endpoint, rows_of(1, 17))


def test_without_the_grants_nothing_is_answered(place, permit_for, endpoint, rows_of: Callable) -> None:
    with pytest.raises(CarelakeError, match="rows:write"):
        place.endpoints.predict(permit_for("models:read", "rows:read"), endpoint, rows_of(1, 18))


def test_a_missing_feature_is_an_error_and_no_rows_are_no_answers(place, permit, endpoint, rows_of: Callable) -> None:
    rows = rows_of(2, 19)
    with pytest.raises(Invalid) as caught:
        place.endpoints.predict(permit, endpoint, rows.drop_columns(["age"]))
    assert caught.value.code == "models.feature_missing"
    assert place.endpoints.predict(permit, endpoint, rows.slice(0, 0)) == []
