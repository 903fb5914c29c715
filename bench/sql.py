"""What the database costs: small transactions by several threads, bulk inserts, and snapshots, on both kinds.

    python bench/sql.py [--seconds 2] [--postgres URL --password-file FILE] [--out bench/results]

Without ``--postgres`` only SQLite is measured. The last lines of PostgreSQL are without the lock that serves writers
one after another (decision 0021): what it costs, not a way to run.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import BigInteger, Column, Integer, MetaData, Table, Text, insert

from carelake.core.clock import SystemClock
from carelake.core.ids import RandomIds
from carelake.core.settings import DatabaseSettings, Settings
from carelake.vault.database import Database, bulk
from carelake.vault.sql import postgres
from carelake.vault.workspace import Vault

Big = BigInteger().with_variant(Integer, "sqlite")
TABLE = Table("bench", MetaData(), Column("n", Big, primary_key=True, autoincrement=True), Column("text", Text))
INSERT = "INSERT INTO bench (text) VALUES (?)"
AGAIN = "INSERT INTO bench (text) VALUES (?) ON CONFLICT DO NOTHING"


def rate(seconds: float, threads: int, work: Callable[[], None]) -> int:
    """Calls of ``work`` per second, by so many threads together."""
    done = [0] * threads
    end = time.perf_counter() + seconds

    def run(number: int) -> None:
        while time.perf_counter() < end:
            work()
            done[number] += 1

    started = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for one in started:
        one.start()
    for one in started:
        one.join()
    return round(sum(done) / seconds)


def write(database: Database) -> None:
    """One small write transaction."""
    with database.ledger() as tx:
        tx.execute(insert(TABLE), {"text": "x"})


def read(database: Database) -> None:
    """One snapshot with one small query."""
    with database.ledger_reading() as tx:
        tx.exec_driver_sql("SELECT text FROM bench WHERE n = 1").first()


def rows(database: Database, sql: str) -> int:
    """Rows per second of one bulk insert."""
    made = [(f"text {number}",) for number in range(100_000)]
    start = time.perf_counter()
    with database.ledger() as tx:
        bulk(tx, sql, made)
    return round(len(made) / (time.perf_counter() - start))


def measure(settings: Settings, seconds: float) -> dict[str, Any]:
    """Everything, on a new workspace."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        vault = Vault.create(
            root / "w", settings=settings, key_dir=root / "k", clock=SystemClock(), ids=RandomIds(), passphrase=None
        )
        with vault:
            database = vault.database
            with database.ledger() as tx:
                TABLE.create(tx)
            found: dict[str, Any] = {"bulk_insert": rows(database, INSERT), "bulk_upsert": rows(database, AGAIN)}
            for threads in (1, 4):
                found[f"reads_{threads}"] = rate(seconds, threads, lambda: read(database))
                found[f"writes_{threads}"] = rate(seconds, threads, lambda: write(database))
            if settings.database.url:
                postgres._BEGIN[True] = "BEGIN"
                for threads in (1, 4):
                    found[f"writes_{threads}_without_lock"] = rate(seconds, threads, lambda: write(database))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--postgres", default="")
    parser.add_argument("--password-file", default="")
    parser.add_argument("--out", type=Path, default=Path("bench/results"))
    asked = parser.parse_args()
    found = {"sqlite": measure(Settings(workspace="bench"), asked.seconds)}
    if asked.postgres:
        told = DatabaseSettings(url=asked.postgres, password_file=asked.password_file)
        found["postgresql"] = measure(Settings(workspace="bench", database=told), asked.seconds)
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / f"sql-{datetime.now(UTC):%Y-%m-%d}.json").write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
