"""The drill: a version whose scores shift goes out as a canary, the server is killed in its midst and begun again,
and traffic returns to the old one by itself; what was answered is captured, and every step is in the trail."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select
from tests.apps.fleet import Served
from tests.apps.served import known
from tests.apps.test_apps_endpoints import approved, entered, row_of

from carelake.apps.wiring import Workspace
from carelake.audit.tables import act
from carelake.serving.ledger import event_of
from carelake.serving.tables import invocation

_CANARY = {
    "BlueGreenUpdatePolicy": {
        "TrafficRoutingConfiguration": {
            "Type": "CANARY",
            "WaitIntervalInSeconds": 600,
            "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 50},
        }
    }
}


def ask(url: str, headers: dict[str, str], rows: list[list[float]], first: int, told: dict[str, Any]) -> None:
    with httpx.Client(base_url=url, timeout=30) as client:
        for number in range(first, first + 8):
            instances = [{"features": row, "subject_id": f"d{at}"} for at, row in enumerate(rows[:20])]
            said = {**headers, "x-amzn-sagemaker-inference-id": f"drill-{number}"}
            answer = client.post("/endpoints/readmission/invocations", json={"instances": instances}, headers=said)
            if answer.status_code == 200:
                told[f"drill-{number}"] = [one["endpoint"] for one in answer.json()["predictions"]]


@pytest.mark.slow
def test_the_drill(tmp_path: Path) -> None:
    environment = {"CARELAKE_KEY_DIR": str(tmp_path / "keys"), "CARELAKE_SERVING__ENOUGH": "150"}
    workspace = Workspace.create(tmp_path / "workspace", environment)
    try:
        old, new = approved(workspace, 0.0), approved(workspace, 2.0, 2)
        with entered(workspace, "operator", "endpoint:deploy") as permit:
            first = workspace.endpoints.deploy(permit, "readmission", old).ref
            second = workspace.endpoints.deploy(permit, "readmission", new, _CANARY).ref
            rows = [row_of(workspace, number) for number in range(20)]
        text = workspace.identity.issue(
            known(workspace, "operator"), purpose="TREAT", account="production", seconds=600
        )
    finally:
        workspace.close()
    headers, told = {"Authorization": f"Bearer {text}"}, {}
    server = Served(tmp_path / "workspace", environment, 2)
    server.start()
    try:
        ask(f"http://127.0.0.1:{server.port}", headers, rows, 0, told)
        server.kill()
        server.start()
        url = f"http://127.0.0.1:{server.port}"
        for turn in range(1, 100):
            ask(url, headers, rows, 8 * turn, told)
            if set(told[f"drill-{8 * turn + 7}"]) == {first}:
                break
            time.sleep(0.2)
        else:
            raise AssertionError("traffic did not come back")
    finally:
        server.end()
    # Before it was taken back, each patient went one way, over the kill and by either worker.
    mixed = [tuple(one) for one in told.values() if second in one]
    assert len(mixed) > 8
    assert len(set(mixed)) == 1
    workspace = Workspace.open(tmp_path / "workspace", environment)
    try:
        with workspace.vault.database.ledger_reading() as tx:
            kept = set(tx.execute(select(invocation.c.event)).scalars())
            facts = tx.execute(select(act.c.facts).where(act.c.principal == "vault").order_by(act.c.seq)).scalars()
            steps = [json.loads(one).get("changed", {}).get("step") for one in facts]
        with entered(workspace, "operator", "status:read") as permit:
            named = {event_of(permit, workspace.vault.keyring, "readmission", one) for one in told}
        assert named <= kept
        assert [one for one in steps if one] == ["alarm", "rollback"]
        with entered(workspace, "operator", "status:read") as permit:
            assert workspace.endpoints.verify_captures(permit, "readmission").whole
        assert workspace.trail.verify(workspace.gate.sealing()).problems == ()
    finally:
        workspace.close()
