"""The same tables, number for number, whatever the number of workers; and a reindex that is killed goes on."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import forked
from carelake.fhir.query import parse_text
from carelake.ingest.sources import Found, expand
from carelake.store import Resources
from carelake.store.tables import INDEXES
from carelake.synth import generate

_CHILD = Path(__file__).with_name("ingest_child.py")
_REINDEX = Path(__file__).with_name("reindex_child.py")
_spec = importlib.util.spec_from_file_location("ingest_child", _CHILD)
assert _spec
assert _spec.loader
child = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(child)

VERSION = 'seq, kind, id, version, previous, deleted, owner, updated, origin, "offset", length, line, digest'
_DISTINCT = "(SELECT DISTINCT kind, id FROM resource_version) AS ids"
TABLES = {table.name: "*" for table in INDEXES} | {
    "resource": "*",
    "resource_version": VERSION,
    "symbol": "*",
    "display": "*",
    "index_state": "*",
}


def tables(vault: Any, permit: Any) -> dict[str, list[Any]]:
    """Every row of the record but sealed bodies, whose nonces are drawn."""
    with vault.database.reading(permit) as tx:
        return {
            name: sorted(tuple(row) for row in tx.exec_driver_sql(f"SELECT {columns} FROM {name}"))
            for name, columns in TABLES.items()
        }


def sums(vault: Any, permit: Any) -> dict[str, int]:
    """As `tables`, for records that no memory holds: of each table the sum of its rows' hashes, in any order."""
    with vault.database.reading(permit) as tx:
        rows = {
            name: tx.execution_options(yield_per=10_000).exec_driver_sql(f"SELECT {columns} FROM {name}")
            for name, columns in TABLES.items()
        }
        return {name: sum(map(_number, found)) for name, found in rows.items()}


def _number(row: Any) -> int:
    return int.from_bytes(hashlib.sha256(repr(tuple(row)).encode()).digest(), "big")


def same(
    tmp_path: Path, folder: Path, workers: Sequence[int] = range(4), take: Callable[[Any, Any], Any] = tables
) -> int:
    """Read by several numbers of workers into copies of one workspace; the number of versions.

    Args:
        take: what is compared, by name of its table.
    """
    (tmp_path / "new").mkdir()
    child.workspace(tmp_path / "new", 0)[0].close()
    found: dict[str, Any] = {}
    for count in workers:
        root = tmp_path / str(count)
        shutil.copytree(tmp_path / "new", root)
        vault, permit = child.workspace(root, count)
        with vault:
            report = child.run(vault, permit, folder)
            assert report.read == report.stored + report.unchanged + report.quarantined
            assert report.stored == _count(vault, permit, "resource_version")
            assert _count(vault, permit, _DISTINCT) == _count(vault, permit, "resource")
            rows = take(vault, permit)
        shutil.rmtree(root)
        found = found or rows
        for name, wanted in found.items():
            assert rows[name] == wanted, (name, count)
    return int(report.stored)


def _count(vault: Any, permit: Any, table: str) -> int:
    with vault.database.reading(permit) as tx:
        return int(tx.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one())


@pytest.mark.slow
def test_workers_make_the_same_tables(tmp_path: Path, shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("carelake.ingest.reader._SMALL", 0)
    (tmp_path / "in").mkdir()
    for file in sorted((shared_data / "synthea-r4").glob("*.json.gz"), key=lambda one: one.stat().st_size)[:12]:
        shutil.copy(file, tmp_path / "in")
    assert same(tmp_path, tmp_path / "in") > 100


@pytest.mark.soak
def test_workers_make_the_same_tables_of_the_whole_set(tmp_path: Path, shared_data: Path) -> None:
    found = expand([shared_data / "synthea-r4"])
    assert isinstance(found, Found)
    assert len(found.sources) == 167
    assert same(tmp_path, shared_data / "synthea-r4") > 10_000


@pytest.mark.soak
def test_workers_make_the_same_tables_of_a_million_resources(tmp_path: Path) -> None:
    generate(tmp_path / "in", patients=18_400, seed=4)
    assert same(tmp_path, tmp_path / "in", (0, 1, 3), sums) > 1_000_000


def test_sums_tell_tables_apart(tmp_path: Path) -> None:
    generate(tmp_path / "in", patients=3, seed=4)
    (tmp_path / "w").mkdir()
    vault, permit = child.workspace(tmp_path / "w", 0)
    with vault:
        child.run(vault, permit, tmp_path / "in")
        before = sums(vault, permit)
        with vault.database.transaction(permit) as tx:
            tx.exec_driver_sql("UPDATE ix_token SET system = system + 1 WHERE seq = 1")
        after = sums(vault, permit)
    assert {name for name in before if before[name] != after[name]} == {"ix_token"}


@pytest.mark.slow
def test_a_reindex_that_is_killed_goes_on(tmp_path: Path) -> None:
    lines = [
        f'{{"resourceType":"Patient","id":"p{number}","gender":"male","name":[{{"family":"N{number % 9}"}}]}}'
        for number in range(200)
    ]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.ndjson").write_text("\n".join(lines))
    root = tmp_path / "r"
    root.mkdir()
    vault, permit = child.workspace(root, 0)
    with vault:
        child.run(vault, permit, tmp_path / "in")
        wanted = tables(vault, permit)
        with vault.database.transaction(permit) as tx:
            for name in ("ix_token", "ix_string", "index_state"):
                tx.exec_driver_sql(f"DELETE FROM {name}")
            tx.exec_driver_sql("UPDATE index_registry SET stamp = 1")
    moment, kills = 30, 0
    while True:
        done = forked.run(str(_REINDEX), str(root), str(moment), env={**os.environ})
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        if done.returncode == 0:
            break
        kills += 1
        moment += 25
        vault, permit = child.workspace(root, 0)
        with vault:
            resources = Resources(vault)
            with vault.database.reading(permit) as tx:
                states = tx.exec_driver_sql("SELECT state FROM index_state").scalars().all()
            if not states or "building" in states:
                with pytest.raises(Exception, match="reindex --param"):
                    resources.search(permit, parse_text("Patient?gender=male"))
    assert kills >= 2
    vault, permit = child.workspace(root, 0)
    with vault:
        found = tables(vault, permit)
        assert {k: v for k, v in found.items() if k != "index_state"} == {
            k: v for k, v in wanted.items() if k != "index_state"
        }
        assert {state for _, _, state, *_ in found["index_state"]} == {"ready"}
        assert Resources(vault).verify_index(permit).differences == []
