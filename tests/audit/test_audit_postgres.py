"""The trail on PostgreSQL: numbers without gaps, one sealer among workspaces that share rows, lineage, patients."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError
from tests.audit.conftest import Ward

from carelake.access.gate import Gate
from carelake.access.policy import Policies
from carelake.access.principals import DEFAULTS, Principals
from carelake.apps.wiring import import_tables
from carelake.audit.acts import ActHeader, ActRow, append, prepared
from carelake.audit.nouns import Nouns
from carelake.audit.readings import Acts, Filter
from carelake.core.errors import Unavailable
from carelake.core.ids import RandomIds
from carelake.core.nouns import Noun
from carelake.core.settings import Settings
from carelake.vault.workspace import Vault

pytestmark = pytest.mark.slow


@pytest.fixture
def shared(postgres: Any, tmp_path: Path, clock: Any) -> Iterator[list[Ward]]:
    """Two openings of one workspace, as two servers have them."""
    import_tables()
    settings = Settings(workspace="w1", database=postgres)
    told: dict[str, Any] = {"settings": settings, "key_dir": tmp_path / "keys", "clock": clock, "ids": RandomIds()}
    vaults = [Vault.create(tmp_path / "ws", **told), Vault.open(tmp_path / "ws", **told)]
    with vaults[0].database.ledger() as connection:
        for who in DEFAULTS:
            Principals(connection).add(who)
    yield [Ward(vault, Gate(vault, Policies.load(Path("/nonexistent")))) for vault in vaults]
    for vault in vaults:
        vault.close()


def test_two_servers_make_one_trail(shared: list[Ward]) -> None:
    def work(ward: Ward) -> None:
        for n in range(15):
            ward.act(1, f"patient:{n:064x}")
            ward.seal()

    threads = [threading.Thread(target=work, args=(ward,)) for ward in shared for _ in range(2)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(120)
    shared[0].seal()
    verdict = shared[1].verify()
    assert verdict.problems == ()
    assert (verdict.acts, verdict.sealed) == (60, 60)
    with shared[0].vault.database.ledger_reading() as connection:
        assert len(Acts(connection).find(Filter(patient=f"patient:{3:064x}"))) == 4
        assert Acts(connection).unfinished() == []


def test_acts_of_reads_wait_for_no_writer_and_have_no_gap(shared: list[Ward]) -> None:
    """They are one statement, whoever else writes; who writes acts in a transaction has the numbers around them."""
    done = []

    def read(ward: Ward) -> None:
        for n in range(10):
            ward.act(1, f"patient:{n:064x}")
        done.append(ward)

    def write(ward: Ward) -> None:
        for _ in range(10):
            with ward.vault.database.ledger() as connection:
                append(connection, [_row(ward)])

    shared[1].act()  # the first one makes the counter
    with shared[0].vault.database.ledger() as connection:
        reader = threading.Thread(target=read, args=(shared[1],))
        reader.start()
        reader.join(30)
        assert done, "a reading waited for a writer that has written no act"
        append(connection, [_row(shared[0])])
    threads = [threading.Thread(target=work, args=(ward,)) for ward in shared for work in (read, write)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(60)
    assert shared[0].rows("SELECT count(*), min(seq), max(seq) FROM act") == [(52, 1, 52)]
    assert shared[0].rows("SELECT count(*) FROM act_patient") == [(30,)]
    shared[0].seal()
    assert shared[1].verify().intact


def test_what_the_server_does_by_default_changes_nothing(shared: list[Ward], postgres: Any) -> None:
    """A statement that is a transaction of its own goes by what the session says."""
    name = postgres.url.rpartition("/")[2]
    with shared[0].vault.database.ledger() as connection:
        for said in ("transaction_read_only = on", "transaction_isolation = serializable"):
            connection.exec_driver_sql(f"ALTER DATABASE {name} SET default_{said}")
    shared[0].act()
    shared[1].vault.database._engine.dispose()  # its next connection begins with these
    shared[1].act(2)
    with shared[1].gate.together():
        shared[1].act(2)
    assert shared[0].rows("SELECT count(*), max(seq) FROM act") == [(5, 5)]


def test_an_act_whose_clock_is_behind_says_so(shared: list[Ward], clock: Any) -> None:
    ward = shared[0]
    ward.act()
    clock.move(seconds=-5)
    ward.act()
    with ward.vault.database.ledger_reading() as connection:
        first, second = Acts(connection).after(0)
    assert ("after" in first, second["after"]) == (False, first["at"])
    assert second["at"] < first["at"]
    assert ward.sealed(1).verify().intact


def test_when_the_commit_itself_fails_nobody_is_answered(shared: list[Ward]) -> None:
    """A constraint that is looked at when the transaction ends, after the statement has given its rows."""
    ward = shared[0]
    ward.act()
    with ward.vault.database.ledger() as connection:
        connection.exec_driver_sql("CREATE TABLE known (phase text PRIMARY KEY)")
        connection.exec_driver_sql("INSERT INTO known VALUES ('done')")
        connection.exec_driver_sql(
            "ALTER TABLE act ADD CONSTRAINT one FOREIGN KEY (target) REFERENCES known DEFERRABLE INITIALLY DEFERRED "
            "NOT VALID"
        )
    for together in (False, True, False, True):
        with pytest.raises((IntegrityError, Unavailable)), ward.gate.together() if together else nullcontext():
            ward.act()
    assert ward.rows("SELECT count(*) FROM act") == [(1,)]
    with ward.vault.database.ledger() as connection:
        connection.exec_driver_sql("ALTER TABLE act DROP CONSTRAINT one")
    with ward.gate.together():
        ward.act(3)
    assert ward.rows("SELECT count(*), max(seq) FROM act") == [(4, 4)]


def _row(ward: Ward) -> ActRow:
    header = ActHeader("a" * 32, "auditor", "production", "HOPERAT", "audit:read", "trail")
    return prepared(header, "done", ward.vault.clock, {})


def test_a_changed_row_is_named(shared: list[Ward]) -> None:
    ward = shared[0].sealed(3)
    with ward.vault.database.ledger() as connection:
        connection.exec_driver_sql("UPDATE act SET principal = 'x' WHERE seq = 2")
    assert [one.name for one in ward.verify().problems] == ["act 2"]


def test_lineage(shared: list[Ward], clock: Any) -> None:
    nouns = Nouns(clock)
    refs = [f"snapshot:{n:064x}" for n in range(130)]
    with shared[0].vault.database.ledger() as tx:
        chain = [Noun(ref, "production", "made", "a", (refs[n - 1],) if n else ()) for n, ref in enumerate(refs)]
        nouns.write_all(tx, chain)
        assert [one.ref for one in nouns.lineage(tx, refs[-1], account="production")] == refs[::-1]
        assert [one.ref for one in nouns.descendants(tx, refs[0], account="production")] == refs[1:]
        assert [one.ref for one in nouns.descendants(tx, refs[0], account="production", depth=3)] == refs[1:4]
