"""The seam for pyarrow, DuckDB and others: files in, files out, and nothing in the clear beside them."""

from __future__ import annotations

import pickle
import subprocess
from collections.abc import Callable
from pathlib import Path

import duckdb
import fsspec
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from pyarrow.fs import FSSpecHandler, PyFileSystem

from carelake.core.errors import CarelakeError, Refused, Unsupported
from carelake.core.permit import Permit
from carelake.vault.filesystem import VaultFileSystem
from carelake.vault.workspace import Vault

PermitFor = Callable[..., Permit]
CANARY = "Zebulon-Quartermain"


@pytest.fixture
def lake(vault: Vault, permit_for: PermitFor) -> VaultFileSystem:
    return VaultFileSystem(vault.objects, permit_for("lake:read", "lake:write", "rows:write"))


def table(rows: int = 300_000) -> pa.Table:
    return pa.table({"n": range(rows), "name": [f"{CANARY}-{number % 100}" for number in range(rows)]})


def test_files_and_folders(lake: VaultFileSystem) -> None:
    for path in ("vault://lake/t/a.txt", "lake/t/sub/b.txt", "vault://lake/c.txt"):
        with lake.open(path, "wb") as file:
            file.write(path.encode())
    assert lake.cat("vault://lake/t/a.txt") == b"vault://lake/t/a.txt"
    assert lake.cat_file("lake/t/a.txt", start=8, end=12) == b"lake"
    assert lake.ls("vault://lake", detail=False) == ["lake/c.txt", "lake/t"]
    assert lake.ls("lake/t", detail=False) == ["lake/t/a.txt", "lake/t/sub"]
    assert lake.ls("lake/t/a.txt", detail=False) == ["lake/t/a.txt"]
    assert lake.find("lake/t") == ["lake/t/a.txt", "lake/t/sub/b.txt"]
    assert lake.glob("lake/**/*.txt") == ["lake/c.txt", "lake/t/a.txt", "lake/t/sub/b.txt"]
    assert (lake.isfile("lake/t/a.txt"), lake.isdir("lake/t"), lake.isdir("lake")) == (True, True, True)
    assert (lake.exists("lake/t/a"), lake.isdir("lake/t/a.txt"), lake.exists("lake/t/sub")) == (False, False, True)
    assert lake.size("lake/c.txt") == 18
    assert lake.created("lake/c.txt").year == 2026
    lake.makedirs("lake/new/folder", exist_ok=True)
    lake.mv("lake/c.txt", "lake/d.txt")
    assert lake.cat("lake/d.txt") == b"vault://lake/c.txt"
    lake.rm("lake/t", recursive=True)
    assert lake.find("lake") == ["lake/d.txt"]
    for call in (lake.info, lake.ls, lake.rm_file, lake.open):
        with pytest.raises(FileNotFoundError):
            call("lake/t/a.txt")
    with lake.open("lake/text", "w") as file:
        file.write("é\n")
    assert lake.read_text("lake/text") == "é\n"
    with pytest.raises(Unsupported):
        lake.open("lake/d.txt", "ab")
    with pytest.raises(FileExistsError):
        lake.open("lake/d.txt", "xb")


def test_a_failed_write_leaves_the_old_file(lake: VaultFileSystem) -> None:
    lake.pipe("lake/a", b"old")

    def fail() -> None:
        with lake.open("lake/a", "wb") as file:
            file.write(b"new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert lake.cat("lake/a") == b"old"


def test_one_filesystem_per_permit(lake: VaultFileSystem, vault: Vault, permit_for: PermitFor) -> None:
    lake.pipe("lake/a", b"x")
    other = VaultFileSystem(vault.objects, permit_for("features:read"))
    assert other is not VaultFileSystem(vault.objects, permit_for("features:read"))
    for call in (other.cat, other.ls, other.info, other.exists, other.isfile, other.isdir, other.rm_file):
        with pytest.raises(Refused):
            call("lake/a")
    with pytest.raises(CarelakeError):
        lake.cat("nozone/a")
    with pytest.raises(TypeError):
        pickle.dumps(lake)
    assert VaultFileSystem._cache == {}
    with pytest.raises((ValueError, TypeError)):
        fsspec.filesystem("vault")


def test_parquet_and_duckdb_through_it_and_nothing_in_the_clear(lake: VaultFileSystem, vault: Vault) -> None:
    made = table()
    arrow = PyFileSystem(FSSpecHandler(lake))
    pq.write_table(made, f"lake/{CANARY}/part-0.parquet", filesystem=arrow, compression="none")
    back = pq.read_table(f"lake/{CANARY}/part-0.parquet", filesystem=arrow)
    assert back.equals(made)
    found = pyarrow.dataset.dataset(f"lake/{CANARY}", filesystem=arrow, format="parquet")
    assert found.count_rows(filter=pyarrow.dataset.field("n") < 10) == 10
    with duckdb.connect(config={"temp_directory": ""}) as duck:
        duck.register_filesystem(lake)
        query = f"SELECT count(*), max(n) FROM read_parquet('vault://lake/{CANARY}/*.parquet')"
        assert duck.execute(query).fetchall() == [(300_000, 299_999)]
        duck.execute(f"COPY (SELECT 1 AS one) TO 'vault://lake/{CANARY}/one.parquet'")
    assert pq.read_table(f"lake/{CANARY}/one.parquet", filesystem=arrow).to_pydict() == {"one": [1]}
    with lake.open(f"lake/{CANARY}/half", "wb") as half:
        half.write(CANARY.encode() * 100_000)
        permit = lake._permit
        with vault.database.transaction(permit) as tx:
            tx.exec_driver_sql("CREATE TABLE note (text TEXT)")
            tx.exec_driver_sql("INSERT INTO note VALUES (?)", (CANARY,))
            tx.exec_driver_sql("CREATE TEMP TABLE t AS SELECT * FROM note ORDER BY text")
            tx.exec_driver_sql("DROP TABLE temp.t")
            vault.sealer.seal(permit, tx, CANARY, b"", b"")
        assert_nowhere(vault.root)
    assert_nowhere(vault.root)


def assert_nowhere(root: Path) -> None:
    seen = 0
    for path in root.rglob("*"):
        assert CANARY not in str(path)
        if path.is_file():
            data = path.read_bytes() if path.name != "carelake.db" else _copied(path)
            assert CANARY.encode() not in data, path.name
            assert not data.startswith((b"SQLite format 3", b"PAR1")), path.name
            seen += 1
    assert seen > 4


def _copied(path: Path) -> bytes:
    # Opening and closing the live file in this process would drop SQLite's locks; read it through a child.
    return subprocess.run(["/bin/cat", str(path)], check=True, capture_output=True).stdout
