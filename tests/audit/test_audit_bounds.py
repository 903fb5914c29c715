"""What bounds the trail: accounts, what acts say was changed, nouns that no act made, and work beside a sealer."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from carelake.audit.evidence import Evidence
from carelake.audit.export import Exporter
from carelake.audit.nouns import Nouns
from carelake.audit.readings import Acts, Filter
from carelake.audit.trail import Trail
from carelake.core.errors import Corrupt, NotFound, Refused
from carelake.core.nouns import Noun
from carelake.core.permit import Permit
from carelake.vault.outside import export_folder
from carelake.vault.rotation import rotate


def export(ward: Any, out: Path, progress: Callable[[int, int], None] = lambda done, total: None) -> str:
    exporter = Exporter(ward.vault, ward.trail.heads, ward.gate.sealing(), Filter(), progress)
    with export_folder(out) as folder:
        exporter.write(folder, "jsonl")
    command = [sys.executable, "-I", str(out / "verify.py"), str(out)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout


def write(ward: Any, *things: str, state: str = "made", action: str = "pipeline:run", told: str = "") -> None:
    who = ward.who["reviewer" if action == "model:approve" else "operator"]
    with (
        ward.gate.enter(who, action, "workspace", "HOPERAT", account="production") as permit,
        ward.vault.database.transaction(permit) as tx,
    ):
        for ref in things:
            Nouns(ward.vault.clock).write(tx, Noun(ref, "production", state, permit.act))
            Nouns(ward.vault.clock).set_state(tx, ref, state)
        permit.log.wrote(*things)
        if told:
            permit.log.note(state=told)


def test_a_reading_is_bound_to_its_account(ward: Any) -> None:
    ward.sealed(2)
    with ward.gate.enter(ward.who["operator"], "status:read", "nouns", "HPAYMT", account="research"):
        pass
    ward.seal()
    evidence = Evidence(ward.vault, Nouns(ward.vault.clock), ward.gate.sealing())
    assert evidence.of("1")["rows"][0]["account"] == "production"
    assert evidence.of("3", "research")["rows"][0]["seq"] == 3
    with pytest.raises(NotFound):
        evidence.of("1", "research")
    with ward.vault.database.ledger_reading() as connection:
        assert [one["seq"] for one in Acts(connection).find(Filter().within("research"))] == [3]
        assert Acts(connection).find(Filter(principal="auditor").within("research")) == []
    with pytest.raises(Refused, match="another account"):
        Filter(account="production").within("research")


def test_an_act_says_what_was_changed_unless_it_was_undone(ward: Any) -> None:
    def change(permit: Permit, fails: bool) -> None:
        with ward.vault.database.transaction(permit):
            permit.log.note(change="add-role", role="auditor")
            if fails:
                raise ZeroDivisionError

    with ward.gate.enter(
        ward.who["operator"], "access:manage", "principals", "HOPERAT", account="production"
    ) as permit:
        change(permit, False)
    facts = [json.loads(row[0]) for row in ward.rows("SELECT facts FROM act")]
    assert [one["changed"] for one in facts] == [{"change": "add-role", "role": "auditor"}]
    ward.seal()
    assert ward.verify().intact


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("at", "2026-01-02T03:04:06.000Z"),
        ("name", "segments/000000000001"),
        ("peaks", "2:" + "0" * 64),
        ("peaks", "1:zz"),
        ("peaks", ""),
    ],
)
def test_an_altered_segment_row_is_found(ward: Any, column: str, value: str) -> None:
    ward.sealed(1, 1)
    ward.sql(f"UPDATE segment SET {column} = ? WHERE number = 2", value)
    assert "segment 2" in {one.name for one in ward.verify().problems}


@pytest.mark.parametrize("behind", [False, True])
def test_nothing_is_sealed_on_an_altered_tree(ward: Any, behind: bool) -> None:
    ward.sealed(1, 1)
    head = ward.vault.read_head()
    ward.sealed(1)
    if behind:
        ward.vault.write_head(head)
    (kept,) = ward.rows("SELECT peaks FROM segment WHERE number = 3")
    ward.sql("UPDATE segment SET peaks = ? WHERE number = 3", "2:" + "1" * 64 + " 1:" + "2" * 64)
    ward.act()
    with pytest.raises(Corrupt) as caught:
        Trail(ward.vault).seal(ward.gate.sealing())
    assert caught.value.code == "audit.peaks"
    ward.sql("UPDATE segment SET peaks = ? WHERE number = 3", kept[0])
    assert Trail(ward.vault).seal(ward.gate.sealing()) == 1
    assert ward.verify().intact


def test_a_noun_that_no_act_wrote_is_found(ward: Any) -> None:
    write(ward, "run:" + "1" * 64, "run:" + "2" * 64)
    write(ward, *(f"run:{n:064x}" for n in range(100, 200)))  # counted and digested by its act
    ward.seal()
    assert ward.verify().intact
    acts = [row[0] for row in ward.rows("SELECT correlation FROM act ORDER BY seq")]
    columns = "INSERT INTO noun (ref, kind, account, state, act, at, number, body) VALUES "
    for number, act in enumerate([*acts, "f" * 32], 9000):
        ref = f"model:{number:064x}"
        ward.sql(columns + "(?, 'model', 'production', 'made', ?, '', ?, X'7b7d')", ref, act, number)
    found = {one.name for one in ward.verify().problems}
    assert {f"model:{number:064x}" for number in range(9000, 9003)} <= found
    assert not {"run:" + "1" * 64, "run:" + "2" * 64} & found


def test_a_model_is_as_its_last_act_left_it(ward: Any) -> None:
    good, bad, old = (f"model:{n:064x}" for n in (1, 2, 3))
    write(ward, good, bad, old, state="PendingManualApproval", told="PendingManualApproval")
    write(ward, good, state="Approved", action="model:approve", told="Approved")
    write(ward, old, state="Approved", action="model:approve")  # by an earlier version, which did not tell the state
    assert ward.verify().intact
    ward.sql("UPDATE noun SET state = 'Approved' WHERE ref = ?", bad)
    assert [one.name for one in ward.verify().problems] == [bad]
    write(ward, bad, state="Rejected", action="model:approve", told="Rejected")
    assert ward.verify().intact
    write(ward, good, state="Approved", action="model:release", told="Approved")  # by a change plan, without a person
    assert ward.verify().intact
    ward.sql("UPDATE noun SET state = 'Approved' WHERE ref = ?", bad)
    assert [one.name for one in ward.verify().problems] == [bad]


def test_an_export_beside_a_sealer_is_intact(ward: Any, tmp_path: Path) -> None:
    ward.sealed(2)
    assert export(ward, tmp_path / "x", lambda done, total: ward.sealed(1) and None).startswith("intact")


def test_a_verification_beside_a_sealer_with_an_anchor_is_intact(ward: Any, tmp_path: Path) -> None:
    settings = ward.vault.settings
    told = msgspec.structs.replace(settings.audit, anchor=f"{tmp_path / 'anchor'}/", anchor_seconds=0)
    ward.vault.settings = msgspec.structs.replace(settings, audit=told)
    (tmp_path / "anchor").mkdir()
    ward.trail = Trail(ward.vault)
    ward.sealed(1, 1)
    verdict = ward.verify(progress=lambda done, total: ward.sealed(1) and None)
    assert verdict.intact, verdict.problems
    assert len(list((tmp_path / "anchor").iterdir())) > 2
    assert ward.verify().intact


def test_the_trails_key_is_rotated(ward: Any, tmp_path: Path, permit_for: Any) -> None:
    ward.sealed(2)
    rotate(permit_for("keys:write", account="security"), ward.vault.keyring, ward.vault.clock, "security/sign-trail")
    ward.sealed(2, 1)
    assert [ward.rows("SELECT count(*) FROM segment")[0][0], ward.verify().problems] == [3, ()]
    assert export(ward, tmp_path / "x").startswith("intact: 5 acts, 3 segments")
    assert sorted(one.name for one in (tmp_path / "x" / "keys").iterdir()) == ["trail-v1.pem", "trail-v2.pem"]
    keys = {
        json.loads(line)["key"]
        for line in (tmp_path / "x" / "trail.jsonl").read_text().splitlines()
        if '"root"' in line
    }
    assert keys == {1, 2}
