"""What events cost: publishing beside a write, delivering to a local consumer, and how a lag is worked off.

    python bench/events.py [--events 20000] [--out bench/results]

The publishing cost is the difference of the same small write transaction with and without an event, on the same
encrypted database. Deliveries are to a function that joins the settling transaction, and to one outside that does
nothing. The lag curve is taken while a writer publishes at a steady rate.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Column, Connection, Integer, MetaData, String, Table, insert

from carelake.apps.wiring import import_tables
from carelake.core.clock import SystemClock
from carelake.core.ids import RandomIds
from carelake.core.permit import Permit, mint
from carelake.core.settings import Settings
from carelake.events.backoff import Backoff
from carelake.events.delivery import Delivery
from carelake.events.drivers.local import Local
from carelake.events.envelopes import Event
from carelake.events.filters import Filter, start_of
from carelake.events.outbox import Outbox
from carelake.events.port import DONE, Driver, Outcome
from carelake.events.standing import standing
from carelake.events.subscriptions import Subscriptions
from carelake.vault.workspace import Vault

work = Table("bench_work", MetaData(), Column("n", Integer, primary_key=True), Column("body", String(200)))


class Log:
    """Notes nothing."""

    def __getattr__(self, _: str) -> Callable[..., None]:
        return lambda *_a, **_k: None


class Nowhere:
    """Takes events and does nothing."""

    batch = 100
    joins = False

    def deliver(self, events: Sequence[Event], tx: Connection | None) -> list[Outcome]:
        return [DONE] * len(events)

    def close(self) -> None:
        pass


def permit() -> Permit:
    said = {"act": "a" * 32, "principal": "bench", "account": "production", "purpose": "HOPERAT", "action": "bench"}
    expires = datetime.now(UTC) + timedelta(days=1)
    return mint(grants=("rows:read", "rows:write"), scope=(), expires=expires, log=Log(), target="bench", **said)


def publishing(vault: Vault, outbox: Outbox, rounds: int) -> dict[str, float]:
    """Microseconds per write: transactions of one row, and pages of 500 rows, with and without an event."""
    took: dict[str, list[float]] = {"write": [], "write_and_event": [], "page": [], "page_and_event": []}
    for _ in range(rounds):
        for name, rows in (("write", 1), ("page", 500)):
            for kind, events in ((name, False), (name + "_and_event", True)):
                began = time.perf_counter()
                with vault.database.transaction(permit()) as tx:
                    tx.execute(insert(work), [{"body": "x" * 150}] * rows)
                    if events:
                        outbox.publish(tx, "production", "bench.write", "landing:1", {"stored": rows})
                took[kind].append(time.perf_counter() - began)
    found = {f"{name}_us": round(statistics.median(each) * 1e6, 1) for name, each in took.items()}
    for name in ("write", "page"):
        found[f"event_in_{name}_percent"] = round(100 * (found[f"{name}_and_event_us"] / found[f"{name}_us"] - 1), 2)
    return found


def fill(vault: Vault, outbox: Outbox, number: int) -> float:
    """Events per second when a transaction publishes 500."""
    began = time.perf_counter()
    for start in range(0, number, 500):
        with vault.database.transaction(permit()) as tx:
            for n in range(start, min(number, start + 500)):
                outbox.publish(tx, "production", f"bench.{n % 4}", "landing:1", {"n": n})
    return round(number / (time.perf_counter() - began))


def worker(vault: Vault, driver: Driver) -> Delivery:
    return Delivery(vault, lambda *_: driver, backoff=Backoff(), lease_seconds=60)


def add(vault: Vault, name: str, driver: str, start: str) -> None:
    with vault.database.transaction(permit()) as tx:
        told = Subscriptions(tx, vault.clock, vault.sealer)
        told.add(permit(), name, driver, Filter.of(("bench",), (), ()), {}, start_of(start))


def delivering(vault: Vault, name: str, driver: Driver, number: int) -> float:
    """Events per second until nothing is left."""
    began = time.perf_counter()
    report = worker(vault, driver).turn(permit(), name, most=10 * number)
    assert report.tally.delivered == number, report
    return round(number / (time.perf_counter() - began))


def lag_curve(vault: Vault, outbox: Outbox, rate: int, seconds: float) -> dict[str, Any]:
    """Lag of a consumer, tenth of a second by tenth, while one thread publishes at a rate and another delivers."""
    add(vault, f"curve-{rate}", "pull", "now")
    ending, lags, published = threading.Event(), [], [0]

    def publish() -> None:
        began = time.perf_counter()
        while not ending.is_set():
            due = int((time.perf_counter() - began) * rate) - published[0]
            if due > 0:
                with vault.database.transaction(permit()) as tx:
                    for _ in range(due):
                        outbox.publish(tx, "production", "bench.curve", "landing:1", {})
                published[0] += due
            time.sleep(0.005)

    def deliver() -> None:
        mine = worker(vault, Nowhere())
        while not ending.is_set():
            mine.turn(permit(), f"curve-{rate}")
            time.sleep(0.01)

    threads = [threading.Thread(target=one) for one in (publish, deliver)]
    for thread in threads:
        thread.start()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        time.sleep(0.1)
        with vault.database.reading(permit()) as tx:
            told = Subscriptions(tx, vault.clock, vault.sealer)
            lags.append(standing(tx, told, told.get(f"curve-{rate}"), vault.clock).lag)
    ending.set()
    for thread in threads:
        thread.join()
    return {
        "rate": rate,
        "published": published[0],
        "lag_median": int(statistics.median(lags)),
        "lag_highest": max(lags),
        "lags": lags,
    }


def main() -> None:
    """Measure and print; with ``--out``, keep."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--events", type=int, default=20_000)
    asked.add_argument("--out", type=Path)
    told = asked.parse_args()
    import_tables()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        said = {"settings": Settings(workspace="bench"), "key_dir": folder / "keys", "clock": SystemClock()}
        with Vault.create(folder / "ws", ids=RandomIds(), **said) as vault:
            outbox = Outbox(vault.clock, vault.ids, workspace="bench")
            with vault.database.ledger() as tx:
                work.create(tx)
            found: dict[str, Any] = {"publish": publishing(vault, outbox, 150)}
            add(vault, "local", "local", "now")
            add(vault, "outside", "pull", "now")
            found["published_per_second"] = fill(vault, outbox, told.events)
            join = Local(lambda tx, one: tx.execute(insert(work).values(body=one.id)) and None)
            found["local_per_second"] = delivering(vault, "local", join, told.events)
            found["outside_per_second"] = delivering(vault, "outside", Nowhere(), told.events)
            found["lag"] = [lag_curve(vault, outbox, rate, 3.0) for rate in (100, 500, 2000)]
    print(json.dumps(found, indent=2))
    if told.out:
        told.out.mkdir(parents=True, exist_ok=True)
        (told.out / f"events-{datetime.now(UTC):%Y-%m-%d}.json").write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
