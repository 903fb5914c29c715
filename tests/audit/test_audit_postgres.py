"""The trail on PostgreSQL: numbers without gaps, one sealer among workspaces that share rows, lineage, patients."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.audit.conftest import Ward

from carelake.access.gate import Gate
from carelake.access.policy import Policies
from carelake.access.principals import DEFAULTS, Principals
from carelake.apps.wiring import import_tables
from carelake.audit.nouns import Nouns
from carelake.audit.readings import Acts, Filter
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
