"""Endpoints over HTTP and at the command line: answered means captured; a rollout is looked after by the server."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import cbor2
import httpx
import msgspec
import numpy as np
import pytest
from sqlalchemy import func, select
from tests.apps.served import admit, fill, known, own_workspace
from tests.apps.test_apps_cds import TRAINING_SET, model, patient, stay

from carelake.apps import guarding
from carelake.apps.cli import endpoints as commands
from carelake.apps.cli import transforming
from carelake.apps.wiring import Workspace
from carelake.audit.tables import act
from carelake.core.errors import Invalid
from carelake.core.nouns import Noun
from carelake.serving import capture
from carelake.serving.sandbox import walls
from carelake.serving.tables import invocation, outcome, prediction

_CANARY = "Zyxwvutsrq"
_LINE = {
    "BlueGreenUpdatePolicy": {
        "TrafficRoutingConfiguration": {
            "Type": "LINEAR",
            "WaitIntervalInSeconds": 600,
            "LinearStepSize": {"Type": "CAPACITY_PERCENT", "Value": 50},
        }
    }
}


def entered(made: Workspace, name: str, action: str) -> Any:
    return made.gate.enter(known(made, name), action, "record", "HOPERAT", account="production")


@cache
def _files() -> dict[str, bytes]:
    files = model()
    metrics = json.loads(files["metrics.json"])
    if not metrics.get("subgroups"):  # what approval asks for; the small model has none
        metrics["subgroups"] = [{"group": "sex", "value": "female", "n": 100, "events": 10, "auroc": 0.7}]
        files["metrics.json"] = json.dumps(metrics).encode()
    return files


def approved(made: Workspace, by: float, number: int = 0) -> str:
    files = dict(_files())
    told = json.loads(files["model.json"])
    told["platt"][0] += by
    with entered(made, "pipeline", "model:train") as permit:
        training_set = f"trainingset:{number:064x}"
        with made.vault.database.transaction(permit) as tx:
            made.nouns.write(tx, Noun(training_set, "production", "made", permit.act))
            permit.log.wrote(training_set)
        files["model.json"] = msgspec.json.encode(told)
        ref = made.platform.registry.register(permit, "readmission", training_set, files).ref
    with entered(made, "reviewer", "model:approve") as permit:
        made.platform.registry.approve(permit, ref)
    return ref


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    with own_workspace(tmp_path_factory.mktemp("endpoints")) as made:
        admit(made, "person", doctor="clinician", researcher="auditor")
        later = [stay(f"p2-{n}", "p2", f"2026-0{n}-01", f"2026-0{n}-09") for n in (1, 2, 4)]
        office = stay("office", "p1", "2026-07-20", "2026-07-20", "AMB")
        fill(made, patient("p1"), stay("s1", "p1", "2026-01-01", "2026-01-09"), office, patient("p2"), *later)
        ref = approved(made, 0.0)
        with entered(made, "operator", "endpoint:deploy") as permit:
            made.endpoints.deploy(permit, "readmission", ref)
        yield made


@pytest.fixture
def ask(address: str, token: Callable[..., dict[str, str]]) -> Iterator[Callable[..., httpx.Response]]:
    with httpx.Client(base_url=address, timeout=30) as client:

        def post(body: Any, who: str = "doctor", name: str = "readmission", **headers: str) -> httpx.Response:
            sent = body if isinstance(body, bytes) else json.dumps(body).encode()
            said = {
                "content-type": "application/json",
                **token(who),
                **{k.replace("_", "-"): v for k, v in headers.items()},
            }
            return client.post(f"/endpoints/{name}/invocations", content=sent, headers=said)

        yield post


def instance(number: int, **more: Any) -> dict[str, Any]:
    return {"age": 60 + number % 30, "admissions_12m": number % 4, "los_days": 3.0, **more}


def names(made: Workspace) -> list[str]:
    with entered(made, "operator", "endpoint:deploy") as permit:
        return list(made.endpoints.load(permit, "readmission").files.scorer.names)


def row_of(made: Workspace, number: int) -> list[float]:
    return [float(60 + number % 30 if at == 0 else number % (at + 3)) for at in range(len(names(made)))]


def counted(made: Workspace, table: Any) -> int:
    with made.vault.database.ledger_reading() as tx:
        return int(tx.execute(select(func.count()).select_from(table)).scalar_one())


def test_a_row_is_answered_numbered_captured_and_written_back(workspace: Workspace, ask: Any, address: str) -> None:
    row = {"features": row_of(workspace, 1), "subject_id": "p1", "encounter_id": "s1"}
    answer = ask({"instances": [row]}, x_amzn_sagemaker_inference_id="mine-1")
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-amzn-invoked-production-variant"] == "AllTraffic"
    (told,) = answer.json()["predictions"]
    assert 0 < told["score"] < 1
    assert told["reasons"]
    while workspace.endpoints.catch_up():
        pass
    kind, key = told["resource"].split("/")
    with entered(workspace, "operator", "record:read") as permit:
        resource = workspace.resources.read(permit, kind, key)
    assert resource["identifier"][0]["value"] == told["prediction"]
    assert resource["subject"] == {"reference": "Patient/p1"}
    with workspace.vault.database.ledger_reading() as tx:
        rows = tx.execute(select(invocation)).all()
        (kept,) = [one for one in rows if one.event.startswith("i-")]
        assert not [one for one in rows if "mine" in str(tuple(one))], "an InferenceId may be a patient's number"
        (phase,) = tx.execute(select(act.c.phase).where(act.c.correlation == kept.act)).scalars()
    assert (kept.rows, phase) == (1, "done")


@pytest.mark.parametrize(
    ("sent", "kind"),
    [("1,2\n3,4\n", "text/csv"), ("a,b\n1,2\n", "text/csv"), ('{"features": []}\n', "application/jsonlines")],
)
def test_what_cannot_be_scored_is_refused_without_its_values(ask: Any, sent: str, kind: str) -> None:
    answer = ask(f"{_CANARY},{sent}".encode(), content_type=kind)
    assert answer.status_code == 400
    assert _CANARY not in answer.text


def test_formats_of_builtin_algorithms(workspace: Workspace, ask: Any) -> None:
    rows = [row_of(workspace, number) for number in range(3)]
    scores = [one["score"] for one in ask({"instances": rows}).json()["predictions"]]
    text = "\n".join(",".join(map(str, row)) for row in rows).encode()
    answer = ask(text, content_type="text/csv", accept="text/csv")
    assert np.allclose([float(line) for line in answer.text.splitlines()], scores)
    lines = b"\n".join(json.dumps({"features": row}).encode() for row in rows)
    answer = ask(lines, content_type="application/jsonlines", accept="application/jsonlines")
    assert [json.loads(line)["score"] for line in answer.text.splitlines()] == scores
    head = ",".join(["subject_id", *names(workspace)])
    told = "\n".join([head, *(f"p{at},{','.join(map(str, row))}" for at, row in enumerate(rows))]).encode()
    assert [one["score"] for one in ask(told, content_type="text/csv").json()["predictions"]] == scores
    assert ask({"instances": rows}, accept="image/png").status_code in (406, 415, 501, 400)


def test_refused_unknown_and_out_of_scope(ask: Any, workspace: Workspace) -> None:
    before = counted(workspace, invocation)
    row = {"instances": [row_of(workspace, 1)]}
    assert ask(row, who="researcher").status_code == 403
    assert ask(row, name="nothing").status_code == 404
    assert ask({"instances": []}).status_code == 400
    assert counted(workspace, invocation) == before


def test_many_at_once_are_numbered_without_a_gap(workspace: Workspace, address: str, token: Any) -> None:
    import concurrent.futures

    row, before = row_of(workspace, 7), counted(workspace, invocation)

    def one(number: int) -> int:
        body = {"instances": [{"features": row, "subject_id": f"q{number % 9}", "encounter_id": f"e{number}"}]}
        found = httpx.post(
            f"{address}/endpoints/readmission/invocations", json=body, headers=token("doctor"), timeout=30
        )
        return found.status_code

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert set(pool.map(one, range(60))) == {200}
    assert counted(workspace, invocation) == before + 60
    with entered(workspace, "operator", "status:read") as permit:
        assert workspace.endpoints.verify_captures(permit, "readmission").whole


def test_a_server_takes_a_shifted_version_back_by_itself(workspace: Workspace, ask: Any) -> None:
    with entered(workspace, "operator", "endpoint:deploy") as permit:
        first = workspace.endpoints.find(permit, "readmission").ref
        second = workspace.endpoints.deploy(permit, "readmission", approved(workspace, 2.0, 2), _LINE).ref
    rows = [{"features": row_of(workspace, at), "subject_id": f"r{at}"} for at in range(300)]
    told = ask({"instances": rows}).json()["predictions"]
    assert {one["endpoint"] for one in told} == {first, second}
    said: list[str] = []
    with guarding.beside(workspace, said.append):
        for _ in range(100):
            if {one["endpoint"] for one in ask({"instances": rows[:40]}).json()["predictions"]} == {first}:
                break
            time.sleep(0.1)
    assert said == []
    with entered(workspace, "operator", "endpoint:guard") as permit:
        status = workspace.endpoints.status(permit, "readmission")
    assert (status["stage"]["name"], status["stage"]["reason"]) == ("rolled_back", "score-distribution")
    with workspace.vault.database.ledger_reading() as tx:
        facts = tx.execute(select(act.c.facts).where(act.c.principal == "vault").order_by(act.c.seq)).scalars()
        steps = [json.loads(one).get("changed", {}).get("step") for one in facts]
    assert [one for one in steps if one][-2:] == ["alarm", "rollback"]


# -- at the command line ------------------------------------------------------------------------------------------


def captured(made: Workspace) -> capture.Seen:
    since, until = datetime(2020, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
    with entered(made, "operator", "monitor:check") as permit, made.vault.database.reading(permit) as tx:
        ref = made.endpoints.find(permit, "readmission").ref
        return capture.replay(permit, tx, made.vault, ref, since, until)


class Told:
    """A session over an open workspace."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace

    def caller(self) -> Any:
        return self.workspace.local(None, None, None)


def test_the_commands(workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    session: Any = Told(workspace)

    def said(command: Any, **told: Any) -> Any:
        command(session, json_out=True, **told)
        return json.loads(capsys.readouterr().out)

    rows = tmp_path / "rows.csv"
    rows.write_text(",".join(map(str, row_of(workspace, 3))) + "\n")
    invoke = {
        "name": "readmission",
        "patient": None,
        "body": rows,
        "content_type": None,
        "accept": "",
        "variant": None,
    }
    assert len(said(commands.endpoint_invoke, **invoke)["predictions"]) == 1
    assert said(commands.endpoint_status, name="readmission")["EndpointStatus"] == "InService"
    assert said(commands.endpoint_list)[0]["name"] == "readmission"
    told = {"policy": "canary", "percent": 5, "wait": 60, "keep": 0, "timeout": 0, "alarms": [], "shadows": []}
    ref = approved(workspace, 0.1, 3)
    found = said(commands.endpoint_deploy, name="readmission", model=ref, told=told, config=None)
    assert (found["EndpointStatus"], found["stage"]["share"]) == ("Updating", 0.05)
    assert said(commands.endpoint_rollback, name="readmission")["stage"]["reason"] == "asked"
    assert said(commands.captures_verify, name="readmission")["whole"]
    assert said(commands.endpoint_shadows, name="readmission") == []
    said(commands.endpoint_deploy, name="other", model=ref, told={**told, "policy": "all-at-once"}, config=None)
    assert said(commands.endpoint_delete, name="other")["EndpointStatus"] == "OutOfService"


def _mine(pid: int) -> bool:
    while pid > 1 and pid != os.getpid():
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[1])
    return pid == os.getpid()


def _sandboxes() -> list[int]:
    """Those that this process began, whatever is around them."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words, pid = entry.read_bytes().split(b"\0"), int(entry.parent.name)
            if b"carelake.serving.sandbox.child" in words and not words[0].endswith(b"bwrap") and _mine(pid):
                found.append(pid)
    return found


@pytest.mark.skipif(not walls.abi(), reason="this kernel has no Landlock")
def test_an_endpoint_in_a_sandbox(
    workspace: Workspace, ask: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session: Any = Told(workspace)
    told = {"policy": "all-at-once", "percent": 5, "wait": 0, "keep": 0, "timeout": 0, "alarms": [], "shadows": []}
    config, ref = tmp_path / "config.json", approved(workspace, 0.3, 6)
    config.write_text('{"EnableNetworkIsolation": true}')
    commands.endpoint_deploy(session, json_out=True, name="boxed", model=ref, told=told, config=config)
    [box] = json.loads(capsys.readouterr().out)["sandbox"].values()
    assert box["trust"] == "process"
    body = {"instances": [{"features": row_of(workspace, 3)}]}
    assert ask(body, name="boxed").status_code == 200
    for pid in _sandboxes():
        os.kill(pid, signal.SIGKILL)
    answer = ask(body, name="boxed")
    # Whoever looks first sees that it is gone and begins another one, or is told that it went.
    assert answer.status_code == 200 or answer.json()["code"] == "serving.sandbox_died"
    assert ask(body, name="boxed").status_code == 200
    commands.endpoint_attest(session, json_out=True, name="boxed", model=ref, nonce="00ff" * 8)
    measured = json.loads(capsys.readouterr().out)
    assert measured["measurements"] == box["measurements"][0]
    assert cbor2.loads(cbor2.loads(bytes.fromhex(measured["document"])).value[2])["nonce"] == bytes.fromhex(
        "00ff" * 8
    )
    with pytest.raises(Invalid):
        commands.endpoint_attest(session, json_out=True, name="boxed", model=ref, nonce="0g")
    commands.endpoint_delete(session, json_out=True, name="boxed")
    capsys.readouterr()
    with entered(workspace, "operator", "audit:read") as permit, workspace.vault.database.reading(permit) as tx:
        told = [json.loads(facts) for facts in tx.execute(select(act.c.facts).order_by(act.c.seq)).scalars()]
    released = [one["changed"] for one in told if one.get("changed", {}).get("release") == "granted"]
    assert len(released) >= 2  # at the deployment, and after the process was killed
    (subject,) = {one["subject"] for one in released}
    assert subject.startswith("endpoint:")


def test_ground_truth_is_joined_once(workspace: Workspace, ask: Any, tmp_path: Path, capsys: Any) -> None:
    row = {"features": row_of(workspace, 11), "subject_id": "t1", "encounter_id": "t1s"}
    (told,) = ask({"instances": [row]}, x_amzn_sagemaker_inference_id="truth-1").json()["predictions"]
    (other,) = ask({"instances": [{**row, "subject_id": "t2"}]}).json()["predictions"]

    def line(event: str, data: str) -> str:
        said = {"groundTruthData": {"data": data, "encoding": "CSV"}, "eventMetadata": {"eventId": event}}
        return json.dumps({**said, "eventVersion": "0"})

    truth = tmp_path / "truth.jsonl"
    truth.write_text("\n".join([line("truth-1", "1"), line(other["prediction"], "0"), line("nobody", "1")]))
    session: Any = Told(workspace)
    for joined in (2, 0):
        commands.endpoint_outcomes(session, json_out=True, name="readmission", labels=truth)
        found = json.loads(capsys.readouterr().out)
        assert (found["joined"], found["unmatched"]) == (joined, 1)
    seen = captured(workspace)
    known_ = dict(zip(seen.refs, seen.y, strict=True))
    assert (known_[told["prediction"]], known_[other["prediction"]]) == (1.0, 0.0)
    assert np.isnan(seen.y).sum() == len(seen.y) - 2


def test_what_the_record_tells_is_joined_once_the_follow_up_is_over(workspace: Workspace, capsys: Any) -> None:
    with entered(workspace, "operator", "endpoint:invoke") as permit:
        (one,) = workspace.predict(permit, "readmission", patient="p1")
        (two,) = workspace.predict(permit, "readmission", patient="p2")
    session: Any = Told(workspace)
    commands.endpoint_outcomes(session, json_out=True, name="readmission", labels=None)
    found = json.loads(capsys.readouterr().out)
    assert found["joined"] == 2
    assert found["waiting"] > 0
    labels = dict(zip((seen := captured(workspace)).refs, seen.y, strict=True))
    assert (labels[one.ref], labels[two.ref]) == (0.0, 0.0)
    with workspace.vault.database.ledger_reading() as tx:
        (sealed,) = tx.execute(select(outcome.c.sealed).where(outcome.c.ref == one.ref)).scalars()
        assert sealed != b""
    with entered(workspace, "operator", "record:erase") as permit, workspace.vault.database.transaction(permit) as tx:
        capture.forget(tx, "production", "p2")
    assert two.ref not in captured(workspace).refs
    with entered(workspace, "operator", "status:read") as permit:
        checked = workspace.endpoints.verify_captures(permit, "readmission")
    assert (checked.lost, checked.whole) == (0, True)
    assert checked.erased >= 1


def test_ids_in_a_file_are_text(tmp_path: Path) -> None:
    source = tmp_path / "rows.csv"
    source.write_text("subject_id,encounter_id,prediction_time,age\n007,0042,,61\n")
    [row] = transforming._rows(source, 10)
    assert row == {"subject_id": "007", "encounter_id": "0042", "prediction_time": None, "age": 61}
    lines = tmp_path / "rows.jsonl"
    lines.write_text("[1, 2]\n")
    with pytest.raises(Invalid):
        list(transforming._rows(lines, 10))


def test_a_transform_goes_on_where_it_was_broken_off(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session: Any = Told(workspace)
    source, out = tmp_path / "rows.jsonl", tmp_path / "answers.csv"
    heads = names(workspace)
    lines = [
        json.dumps(
            {
                **dict(zip(heads, row_of(workspace, at), strict=True)),
                "subject_id": f"u{at}",
                "encounter_id": f"ue{at}",
                "label": 1,
            }
        )
        for at in range(50)
    ]
    source.write_text("\n".join(lines))
    written, real = [0], transforming._line

    def broken(one: Any, row: Any) -> bytes:
        written[0] += 1
        if written[0] == 25:
            raise KeyboardInterrupt
        return real(one, row)

    monkeypatch.setattr(transforming, "_line", broken)
    with pytest.raises(KeyboardInterrupt):
        transforming.transform(session, "readmission", source, out, 10)
    monkeypatch.setattr(transforming, "_line", real)
    before = counted(workspace, prediction)
    found = transforming.transform(session, "readmission", source, out, 10)
    assert (found["rows"], found["resumed_at"]) in ((50, 20), (50, 24))
    assert counted(workspace, prediction) <= before + 30
    told = out.read_text().splitlines()
    assert len(told) == 51
    assert out.stat().st_mode & 0o777 == 0o600
    assert TRAINING_SET.startswith("trainingset:")
