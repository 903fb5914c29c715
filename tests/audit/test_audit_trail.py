"""The trail under attack: what was done stays told, or its change is found and named (decision D3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carelake.access.gate import Gate
from carelake.access.principals import DEFAULTS
from carelake.audit import segments
from carelake.audit.nouns import Nouns
from carelake.audit.readings import Acts
from carelake.audit.trail import Trail, Verdict
from carelake.core import canonical
from carelake.core.errors import Corrupt, NotFound, Refused
from carelake.core.nouns import Noun
from carelake.core.permit import Permit

WHO = {who.name: who for who in DEFAULTS}


def act(gate: Gate, times: int = 1) -> None:
    for _ in range(times):
        with gate.enter(WHO["auditor"], "audit:read", "trail", "HOPERAT", account="production") as permit:
            permit.log.count(rows=3)


def sealed(vault: Any, gate: Gate, *runs: int) -> Trail:
    trail = Trail(vault)
    for times in runs:
        act(gate, times)
        trail.seal(gate.sealing())
    return trail


def verify(trail: Trail, gate: Gate) -> Verdict:
    return trail.verify(gate.sealing())


def test_an_honest_trail_is_intact(vault: Any, gate: Gate) -> None:
    trail = sealed(vault, gate, 3, 1, 5)
    verdict = verify(trail, gate)
    assert verdict.intact
    assert (verdict.acts, verdict.sealed, verdict.segments) == (9, 9, 3)
    act(gate)
    later = verify(trail, gate)
    assert later.intact
    assert (later.acts, later.sealed) == (10, 9)


def test_sealing_nothing_makes_nothing(vault: Any, gate: Gate) -> None:
    trail = sealed(vault, gate, 2)
    assert trail.seal(gate.sealing()) == 0


def tamper(vault: Any, sql: str, *values: object) -> None:
    with vault.database.ledger() as connection:
        connection.exec_driver_sql(sql, values)


@pytest.mark.parametrize(
    ("sql", "values", "named"),
    [
        ("UPDATE act SET principal = ? WHERE seq = ?", ("someone", 4), "act 4"),
        ("DELETE FROM act WHERE seq = ?", (9,), "act 9"),
        ("DELETE FROM act WHERE seq = ?", (5,), "act 5"),
        ("UPDATE act SET facts = ? WHERE seq = ?", ("{}", 1), "act 1"),
        ("DELETE FROM segment WHERE number = ?", (3,), "segment 3"),
        ("DELETE FROM segment WHERE number = ?", (2,), "segment 3"),
        ("DELETE FROM object_version WHERE name = ?", ("segments/000000000002",), "segment 2"),
    ],
)
def test_a_changed_row_is_named(vault: Any, gate: Gate, sql: str, values: tuple[object, ...], named: str) -> None:
    trail = sealed(vault, gate, 3, 3, 3)
    tamper(vault, sql, *values)
    verdict = verify(trail, gate)
    assert not verdict.intact
    assert named in {problem.name for problem in verdict.problems}


def test_a_flipped_byte_in_a_segment_is_named(vault: Any, gate: Gate) -> None:
    trail = sealed(vault, gate, 3)
    [file] = [p for p in (vault.root / "vault" / "security" / "audit").rglob("*") if p.is_file()]
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.chmod(0o600)
    file.write_bytes(data)
    verdict = verify(trail, gate)
    assert [problem.name for problem in verdict.problems] == ["segment 1"]


def test_an_old_database_beside_a_newer_head_is_found(vault: Any, gate: Gate) -> None:
    trail = sealed(vault, gate, 3)
    sealed(vault, gate, 3)
    with vault.database.ledger() as connection:
        connection.exec_driver_sql("DELETE FROM segment WHERE number = 2")
        connection.exec_driver_sql("DELETE FROM act WHERE seq > 3")
    assert "the tail was cut off" in verify(trail, gate).problems[0].reason


def test_a_lost_or_forged_head_is_found(vault: Any, gate: Gate) -> None:
    trail = sealed(vault, gate, 3)
    head = canonical.load(vault.read_head())
    vault.write_head(canonical.dump({**head, "number": 0, "digest": segments.GENESIS}))
    assert verify(trail, gate).problems[0].kind == "head"
    vault._head.path.unlink()
    assert verify(trail, gate).problems[0].kind == "head"


def test_two_sealers_make_one_chain(vault: Any, gate: Gate) -> None:
    act(gate, 4)
    one, other = Trail(vault), Trail(vault)
    one.seal(gate.sealing())
    other.seal(gate.sealing())
    act(gate, 2)
    other.seal(gate.sealing())
    one.seal(gate.sealing())
    verdict = verify(one, gate)
    assert verdict.intact
    assert verdict.segments == 2


def test_a_crash_between_object_and_row_is_taken_up(vault: Any, gate: Gate) -> None:
    trail = sealed(vault, gate, 3)
    head = vault.read_head()
    sealed(vault, gate, 2)
    tamper(vault, "DELETE FROM segment WHERE number = 2")
    vault.write_head(head)  # the head moves last
    act(gate, 2)
    trail.seal(gate.sealing())
    verdict = verify(trail, gate)
    assert verdict.intact
    assert (verdict.sealed, verdict.segments) == (7, 3)


def test_a_refusal_is_on_the_trail_with_its_reasons(vault: Any, gate: Gate) -> None:
    with (
        pytest.raises(Refused) as caught,
        gate.enter(WHO["auditor"], "record:search", "Patient", "TREAT", account="production"),
    ):
        raise AssertionError("the block ran")
    assert caught.value.code == "access.denied"
    with vault.database.ledger() as connection:
        [told] = Acts(connection).find(phase="refused")
    assert told["correlation"] == caught.value.facts["act"]
    assert told["reasons"] == caught.value.facts["reasons"]


def test_a_writes_act_is_in_its_transaction(vault: Any, gate: Gate) -> None:
    def fail(permit: Permit) -> None:
        with vault.database.transaction(permit) as tx:
            permit.log.wrote("endpoint:1")
            tx.exec_driver_sql("UPDATE principal SET disabled = 1")
            raise ZeroDivisionError

    with gate.enter(WHO["operator"], "access:manage", "principals", "HOPERAT", account="production") as permit:
        with pytest.raises(ZeroDivisionError):
            fail(permit)
        with vault.database.ledger() as connection:
            assert Acts(connection).count() == 0
        with vault.database.transaction(permit) as tx:
            tx.exec_driver_sql("UPDATE principal SET disabled = 0")
        with vault.database.ledger() as connection:
            [told] = Acts(connection).find(phase="done")
    with vault.database.ledger() as connection:
        assert Acts(connection).count() == 1, "one act for one write"
    assert told["action"] == "access:manage"


def test_a_failure_is_told_by_its_code_alone(vault: Any, gate: Gate) -> None:
    with (
        pytest.raises(ValueError, match="Jane"),
        gate.enter(WHO["auditor"], "audit:read", "trail", "HOPERAT", account="production"),
    ):
        raise ValueError("Jane Doe")
    with vault.database.ledger() as connection:
        [told] = Acts(connection).find(phase="failed")
    assert told["error"] == "ValueError"
    assert "Jane" not in str(told)


def test_a_job_whose_process_died_is_interrupted(vault: Any, gate: Gate) -> None:
    entered = gate.enter(WHO["pipeline"], "lake:sync", "lake", "HOPERAT", account="production", job=True)
    entered.__enter__()
    assert Trail(vault).recover() == 0, "this process still runs"
    tamper(vault, "UPDATE act SET facts = replace(facts, '\"started\":', '\"started\":1')")
    assert Trail(vault).recover() == 1
    assert Trail(vault).recover() == 0


def test_many_refs_become_a_digest(vault: Any, gate: Gate, permit_for: Callable[..., Permit]) -> None:
    with gate.enter(WHO["auditor"], "audit:read", "trail", "HOPERAT", account="production") as permit:
        permit.log.read(*[f"resource:{n:064x}" for n in range(1000)])
    with vault.database.ledger() as connection:
        [told] = Acts(connection).find(phase="done")
    assert told["read_count"] == 1000
    assert len(told["read_digest"]) == 64


def _merkle_by_definition(lines: list[bytes]) -> bytes:
    # RFC 6962 section 2.1, as written there: split at the largest power of two below n.
    import hashlib

    if not lines:
        return hashlib.sha256(b"").digest()
    if len(lines) == 1:
        return hashlib.sha256(b"\x00" + lines[0]).digest()
    k = 1 << (len(lines) - 1).bit_length() - 1
    return hashlib.sha256(b"\x01" + _merkle_by_definition(lines[:k]) + _merkle_by_definition(lines[k:])).digest()


@given(st.lists(st.binary(max_size=8), max_size=40))
def test_the_merkle_root_is_rfc_6962s(lines: list[bytes]) -> None:
    assert segments.merkle_root(lines) == _merkle_by_definition(lines).hex()


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("trail", "trail"),
        ("Patient", "Patient"),
        ("prediction:" + "0a" * 32, "prediction:" + "0a" * 32),
        ("principal/ann", "principal/ann"),
        ("Smith", "(other)"),
        ("smith", "(other)"),
        ("Jane Smith", "(other)"),
        ("555-0100", "(other)"),
    ],
)
def test_the_trail_tells_no_name_that_someone_typed(vault: Any, gate: Gate, typed: str, told: str) -> None:
    with gate.enter(WHO["auditor"], "audit:read", typed, "HOPERAT", account="production"):
        pass
    with pytest.raises(Refused), gate.enter(WHO["auditor"], "audit:read", typed, "Jane", account="Smith"):
        pass
    with vault.database.ledger() as connection:
        [refused, done] = Acts(connection).find(limit=2)
    assert (done["target"], refused["target"]) == (told, told)
    assert (refused["account"], refused["purpose"]) == ("(other)", "(other)")


def test_an_old_copy_put_back_does_not_grow_past_the_head(vault: Any, gate: Gate) -> None:
    trail = sealed(vault, gate, 3, 3)
    with vault.database.ledger() as connection:
        connection.exec_driver_sql("DELETE FROM segment WHERE number = 2")
        connection.exec_driver_sql("DELETE FROM act WHERE seq > 3")
        connection.exec_driver_sql("DELETE FROM object_version WHERE name = 'segments/000000000002'")
    for _ in range(4):
        act(gate)
        with pytest.raises(Corrupt) as caught:
            trail.seal(gate.sealing())
        assert caught.value.code == "audit.rolled_back"
    assert not verify(trail, gate).intact


def test_lineage_stays_in_its_account(vault: Any, permit_for: Callable[..., Permit]) -> None:
    nouns = Nouns(vault.clock)
    with vault.database.transaction(permit_for("rows:write")) as tx:
        nouns.write(tx, Noun("landing:" + "1" * 64, "production", "landed", "a"))
        nouns.write(tx, Noun("snapshot:" + "2" * 64, "production", "committed", "a", ("landing:" + "1" * 64,)))
        found = nouns.lineage(tx, "snapshot:" + "2" * 64, {}, account="production")
        assert [n.kind for n in found] == ["snapshot", "landing"]
        assert [n.kind for n in nouns.descendants(tx, "landing:" + "1" * 64, account="production")] == ["snapshot"]
        assert nouns.descendants(tx, "landing:" + "1" * 64, account="research") == []
        with pytest.raises(NotFound):
            nouns.lineage(tx, "snapshot:" + "2" * 64, {}, account="research")
