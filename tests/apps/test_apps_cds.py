"""CDS Hooks on a real server: discovery, cards, feedback, and hostile calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import httpx
import numpy as np
import pyarrow as pa
import pytest
from tests.apps.served import Lines, act_of, admit, fill, known, own_workspace

from carelake.apps.wiring import Workspace
from carelake.core.nouns import Noun
from carelake.fhir.validate import validate
from carelake.lake import flat
from carelake.models import artifact, card, evaluate, matrix, train
from carelake.monitor import baseline
from carelake.monitor.check import report
from carelake.serving import feedback

NAMES = ["age", "admissions_12m", "los_days"]
TRAINING_SET = "trainingset:" + "0" * 64
CANARY = "Zyxwvutsrq"
VIEW, DISCHARGE = "readmission-patient-view", "readmission-encounter-discharge"


def model() -> dict[str, bytes]:
    """A small model over features that the record really has."""
    random, count = np.random.default_rng(1), 1500
    age, before, days = (
        random.normal(65, 12, count),
        random.poisson(0.8, count).astype(float),
        random.gamma(2, 2, count),
    )
    risk = 1 / (1 + np.exp(-(0.03 * (age - 65) + 0.8 * before + 0.05 * days - 1.5)))
    part = np.arange(count) / count
    table = pa.table(
        {
            "encounter_id": [f"e{number}" for number in range(count)],
            "subject_id": [f"p{number}" for number in range(count)],
            "prediction_time": pa.array(
                np.datetime64("2026-01-01T00:00:00", "us") + np.arange(count) * np.timedelta64(60_000_000, "us")
            ).cast(pa.timestamp("us", "UTC")),
            "sex": np.where(np.arange(count) % 2, "female", "male"),
            "label": random.random(count) < risk,
            "set": np.where(part < 0.5, "train", np.where(part < 0.65, "calibration", "test")),
            "lace": np.clip(3 * before + 2, 0, 19),
            "hospital": pa.nulls(count, pa.float64()),
            "age": age,
            "admissions_12m": before,
            "los_days": days,
        }
    )
    data, plan = matrix.rows(table, NAMES), train.Plan(replicates=50)
    scorer = train.train(data, plan, training_set=TRAINING_SET, words={"age": "age in *years*"})
    metrics = evaluate.evaluate(data, scorer, plan)
    content = card.card(scorer, metrics, plan, card.About(TRAINING_SET, "pipeline"))
    return artifact.pack(scorer, metrics, content, card.html(content, {}), baseline.of_model(data, scorer).to_bytes())


def patient(key: str, born: str = "1930-01-01") -> dict[str, Any]:
    return {"resourceType": "Patient", "id": key, "birthDate": born, "name": [{"family": CANARY}], "gender": "male"}


def stay(key: str, owner: str, start: str, end: str, kind: str = "IMP") -> dict[str, Any]:
    return {
        "resourceType": "Encounter",
        "id": key,
        "status": "finished",
        "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": kind},
        "subject": {"reference": f"Patient/{owner}"},
        "period": {"start": f"{start}T08:00:00Z", "end": f"{end}T08:00:00Z"},
    }


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    kept = [
        patient("p1"),
        *(stay(f"s{n}", "p1", f"2026-0{n}-01", f"2026-0{n}-09") for n in range(1, 8)),
        stay("office", "p1", "2026-07-20", "2026-07-20", "AMB"),
        patient("p2", "1990-01-01"),
    ]
    with own_workspace(tmp_path_factory.mktemp("cds")) as made:
        admit(made, "person", doctor="clinician", researcher="auditor")
        fill(made, *kept)

        def entered(name: str, action: str) -> Any:
            return made.gate.enter(known(made, name), action, "record", "HOPERAT", account="production")

        with entered("pipeline", "model:train") as permit:
            with made.vault.database.transaction(permit) as tx:
                made.nouns.write(tx, Noun(TRAINING_SET, "production", "made", permit.act))
            version = made.platform.registry.register(permit, "readmission", TRAINING_SET, model())
        with entered("reviewer", "model:approve") as permit:
            made.platform.registry.approve(permit, version.ref)
        with entered("operator", "endpoint:deploy") as permit:
            made.platform.endpoints.deploy(permit, "readmission", version.ref)
        yield made


@pytest.fixture
def client(address: str, token: Callable[..., dict[str, str]]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{address}/cds-services", timeout=30, headers=token()) as made:
        yield made


def viewing(key: str, hook: str = "patient-view", **more: Any) -> dict[str, Any]:
    context = {"userId": "Practitioner/1", "patientId": key, **more.pop("context", {})}
    return {"hook": hook, "hookInstance": str(uuid4()), "context": context, **more}


def cards(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["cards"]
    return found


def test_discovery_is_open(address: str) -> None:
    services = httpx.get(f"{address}/cds-services").json()["services"]
    assert {one["id"]: one["hook"] for one in services} == {VIEW: "patient-view", DISCHARGE: "encounter-discharge"}
    assert all(one["description"] and one["prefetch"]["patient"] for one in services)


def test_a_card_from_the_record(client: httpx.Client, workspace: Workspace, address: str) -> None:
    answer = client.post(f"/{VIEW}", json=viewing("p1"))
    (card,) = cards(answer)
    assert len(card["summary"]) < 140
    assert card["indicator"] == "warning"
    assert card["source"]["label"] == "carelake, model readmission v1"
    assert "calibration slope" in card["detail"]
    assert "age in \\*years\\*" in card["detail"]
    assert {one["code"] for one in card["overrideReasons"]} >= {"already-planned", "other"}
    request = card["suggestions"][0]["actions"][0]["resource"]
    assert not [issue for issue in validate(request) if issue.bad]
    facts = card["extension"]["org.carelake.prediction"]
    assert card["links"][0]["url"] == f"{address}/fhir/{facts['resource']}"
    act = act_of(workspace, answer)
    assert (act["action"], act["phase"], act["counts"]) == (
        "endpoint:invoke", "done", {**act["counts"], "cards": 1, "predictions": 1}
    )  # fmt: skip
    assert facts["prediction"] in act["wrote"]


def test_a_card_on_discharge_is_about_that_stay(client: httpx.Client) -> None:
    def discharging(encounter: str) -> httpx.Response:
        told = viewing("p1", "encounter-discharge", context={"encounterId": encounter})
        return client.post(f"/{DISCHARGE}", json=told)

    assert len(cards(discharging("s7"))) == 1
    assert cards(discharging("s6")) == []
    assert cards(discharging("office")) == []
    assert discharging("none").status_code == 412


def test_nothing_to_say(client: httpx.Client, workspace: Workspace) -> None:
    answer = client.post(f"/{VIEW}", json=viewing("p2"))
    assert cards(answer) == []
    assert act_of(workspace, answer)["counts"] == {"cards": 0}


def bundle(*resources: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"resourceType": "Bundle", "type": "searchset", "entry": [{"resource": one} for one in resources], **more}


def test_a_card_from_prefetch(client: httpx.Client, workspace: Workspace) -> None:
    stays = [stay(f"x{n}", "new", f"2026-0{n}-01", f"2026-0{n}-09") for n in (1, 2, 3)]
    other = stay("y", "p1", "2026-08-01", "2026-08-20")
    sent = {"patient": patient("new"), "encounters": bundle(*stays, other)}
    (card,) = cards(client.post(f"/{VIEW}", json=viewing("new", prefetch=sent)))
    assert card["extension"]["org.carelake.prediction"]["resource"].startswith("RiskAssessment/")
    with workspace.gate.enter(
        known(workspace, "operator"), "record:read", "record", "HOPERAT", account="production"
    ) as permit:
        kind, _, key = card["extension"]["org.carelake.prediction"]["resource"].partition("/")
        written = workspace.resources.read(permit, kind, key)
    assert (written["subject"], written["encounter"]) == (
        {"reference": "Patient/new"},
        {"reference": "Encounter/x3"},
    )


@pytest.mark.parametrize(
    "prefetch",
    [
        None,
        {},
        {"patient": None},
        {"patient": {"resourceType": "OperationOutcome", "issue": []}},
        {"patient": patient("someone-else")},
        {"patient": {**patient("q"), "gender": 5}},
        {"patient": patient("q"), "encounters": bundle(link=[{"relation": "next", "url": "http://x"}])},
        {"patient": patient("q"), "encounters": None},
        {"patient": patient("q"), "encounters": [1]},
    ],
)
def test_what_is_needed_is_neither_there_nor_sent(client: httpx.Client, prefetch: Any) -> None:
    answer = client.post(f"/{VIEW}", json=viewing("q", prefetch=prefetch))
    assert (answer.status_code, answer.json()["code"]) == (412, "http.cds_data")


@pytest.mark.parametrize(
    "told",
    [
        {},
        [],
        {"hook": "patient-view"},
        viewing("p1", "encounter-discharge"),
        {**viewing("p1"), "hookInstance": "x"},
        viewing("Patient/p1"),
        viewing(""),
        viewing("p1", context={"encounterId": "../x"}),
        viewing("p1", prefetch=[1]),
        viewing("p1", prefetch="x"),
    ],
)
def test_what_is_no_call_of_the_hook(client: httpx.Client, told: Any) -> None:
    answer = client.post(f"/{VIEW}", json=told)
    assert (answer.status_code, answer.json()["code"]) == (400, "http.cds_request")


def test_who_may_not_is_refused(client: httpx.Client, address: str, token: Callable[..., dict[str, str]]) -> None:
    assert httpx.post(f"{address}/cds-services/{VIEW}", json=viewing("p1")).status_code == 401
    assert client.post(f"/{VIEW}", json=viewing("p1"), headers=token("researcher")).status_code == 403
    assert client.post("/none", json=viewing("p1")).status_code == 404
    told = {"feedback": [outcome(str(uuid4()))]}
    assert client.post(f"/{VIEW}/feedback", json=told, headers=token("researcher")).status_code == 403


# -- feedback --------------------------------------------------------------------------------------------------------


def outcome(card: str, what: str = "accepted", at: str = "2026-11-01T00:00:00Z", **more: Any) -> dict[str, Any]:
    return {"card": card, "outcome": what, "outcomeTimestamp": at, **more}


def override(code: str, comment: str = "", system: str = "urn:carelake:override-reason") -> dict[str, Any]:
    return {"overrideReason": {"reason": {"code": code, "system": system}, "userComment": comment}}


def test_feedback_is_counted_and_comments_are_sealed(client: httpx.Client, workspace: Workspace, log: Lines) -> None:
    def show() -> str:
        return str(cards(client.post(f"/{VIEW}", json=viewing("p1")))[0]["uuid"])

    first, second, third = show(), show(), show()
    said = [
        outcome(first, acceptedSuggestions=[{"id": str(uuid4())}]),
        outcome(second, "overridden", **override("already-planned", f"{CANARY} will be seen on Monday")),
        outcome(third, "overridden", **override(CANARY, "", "http://other.example")),
    ]
    answer = client.post(f"/{VIEW}/feedback", json={"feedback": said})
    assert (answer.status_code, answer.json()) == (200, {"feedback": 3})
    act = act_of(workspace, answer)
    assert act["action"] == "endpoint:feedback"
    assert (act["counts"]["accepted"], act["counts"]["overridden"]) == (1, 2)
    assert act["counts"]["reason_already_planned"] == 1
    assert len(act["patients"]) == 1
    assert CANARY not in str(act) + str(log.said)
    again = client.post(
        f"/{VIEW}/feedback", json={"feedback": [outcome(first, "overridden", "2026-10-01T00:00:00Z")]}
    )
    assert again.json() == {"feedback": 0}
    with workspace.gate.enter(
        known(workspace, "operator"), "monitor:check", "readmission", "HOPERAT", account="production"
    ) as permit:
        loaded = workspace.platform.endpoints.load(permit, "readmission")
        from datetime import UTC, datetime

        checked = workspace.platform.monitor.check(permit, loaded, datetime(2020, 1, 1, tzinfo=UTC))
        with workspace.vault.database.reading(permit) as tx:
            kept = [feedback.beside(permit, tx, workspace.vault, one) for one in (first, second, third)]
    (rate,) = checked.as_json()["cards"]
    assert (rate["version"], rate["accepted"], rate["overridden"]) == ("1", 1, 2)
    assert rate["reasons"] == {"already-planned": 1, "other": 1}
    assert rate["acceptance_rate"] == 0.3333
    assert rate["cards"] == 3 + rate["unanswered"]
    assert "1 accepted (33%), 2 overridden (67%: already-planned 1, other 1)" in report(checked)
    assert kept[1] == {"userComment": f"{CANARY} will be seen on Monday"}
    assert kept[2]["reason"]["code"] == CANARY
    database = next(workspace.vault.root.rglob("*.db"), None)
    assert database is None or CANARY.encode() not in database.read_bytes()


@pytest.mark.parametrize(
    ("told", "code"),
    [
        ([], "http.cds_feedback"),
        ({}, "http.cds_feedback"),
        ([outcome(str(uuid4()))] * 101, "http.cds_feedback"),
        ([outcome("x")], "http.cds_feedback"),
        ([outcome(str(uuid4()), "ignored")], "http.cds_feedback"),
        ([outcome(str(uuid4()), at="yesterday")], "http.cds_feedback"),
        ([outcome(str(uuid4()), at="2999-01-01T00:00:00Z")], "http.cds_feedback"),
        ([outcome(str(uuid4()), "overridden", **override("other", "x" * 5000))], "http.cds_feedback"),
    ],
)
def test_what_is_no_feedback(client: httpx.Client, told: Any, code: str) -> None:
    answer = client.post(f"/{VIEW}/feedback", json={"feedback": told})
    assert (answer.status_code, answer.json()["code"]) == (400, code)


def test_feedback_on_a_card_that_was_not_shown(client: httpx.Client) -> None:
    shown = str(cards(client.post(f"/{VIEW}", json=viewing("p1")))[0]["uuid"])
    for service, uuid in ((VIEW, str(uuid4())), (DISCHARGE, shown)):
        answer = client.post(f"/{service}/feedback", json={"feedback": [outcome(uuid)]})
        assert (answer.status_code, answer.json()["code"]) == (404, "serving.no_such_card")


def test_prefetch_asks_for_what_features_are_made_of(address: str) -> None:
    for service in httpx.get(f"{address}/cds-services").json()["services"]:
        asked = {query.replace("/", "?").partition("?")[0] for query in service["prefetch"].values()}
        assert asked == flat.reads()


def test_a_card_says_what_the_endpoint_says(
    client: httpx.Client, address: str, token: Callable[..., dict[str, str]]
) -> None:
    (card,) = cards(client.post(f"/{VIEW}", json=viewing("p1")))
    said = httpx.post(f"{address}/predict/readmission", json={"patient": "p1"}, headers=token(), timeout=30).json()
    facts = card["extension"]["org.carelake.prediction"]
    assert (facts["prediction"], facts["probability"]) == (said["ref"], said["probability"])
    assert said["threshold"] == facts["threshold"]
