"""What the trail costs: verifying a million acts, sealing beside writes, acts of reads in groups, lineage at scale.

    python bench/audit.py [--acts 1000000] [--nouns 1000000] [--seconds 4] [--out bench/results]

    verify     `Trail.verify` over that many acts, each with a patient, in segments of a second's 1,000 to 2,000 acts;
               one process, nothing left out
    sealing    writes a second (one transaction and one act each) with and without a sealer beside them, in turns
    reads      FHIR reads a second over the loop at 1, 8 and 32 connections, with each act committed alone and in
               groups; the server and the client have a core each
    patients   shares of ingest for naming the patients that each page touches, and for all of its acts
    lineage    back from a prediction and forward from a landing, in tables of growing size; the answer stays the same

Everything is encrypted, signed and synced as in earnest.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from carelake.access.principals import Principal
from carelake.apps.wiring import Workspace
from carelake.audit import acts, commits, patients
from carelake.audit.acts import ActHeader, append, prepared
from carelake.audit.background import sealing_beside
from carelake.core.clock import FixedClock
from carelake.core.nouns import Noun
from carelake.pipelines.ingest import ingest
from carelake.store import keep, rows
from carelake.synth import generate

_PAIRS = 15
FACTS: dict[str, Any] = {
    "keys": ["production/clinical/v1", "production/patient/v1", "production/reference/v1"],
    "policy": "9c" * 32,
    "read": ["resource:" + "0a" * 32],
    "reasons": ["operator: the owner of a local workspace runs the whole loop"],
    "scope": ["account"],
}


@contextmanager
def workspace(folder: Path) -> Iterator[Workspace]:
    """A new workspace."""
    made = Workspace.create(folder / secrets.token_hex(4), {**os.environ, "CARELAKE_KEY_DIR": str(folder / "keys")})
    try:
        yield made
    finally:
        made.vault.close()
        shutil.rmtree(made.vault.root)


def verify(folder: Path, acts: int) -> dict[str, Any]:
    """Seconds for so many acts."""
    with workspace(folder) as made:
        clock = FixedClock(datetime.now(UTC))
        made.vault.clock = clock
        began = time.perf_counter()
        for _ in range(0, acts, 1000):
            clock.move(milliseconds=700)
            page = []
            for _ in range(1000):
                header = ActHeader(secrets.token_hex(16), "operator", "production", "TREAT", "record:read", "Patient")
                page.append(prepared(header, "done", clock, FACTS, ["patient:" + secrets.token_hex(32)]))
            with made.vault.database.ledger() as connection:
                append(connection, page)
        wrote = time.perf_counter()
        segments = made.trail.seal(made.gate.sealing())
        sealed = time.perf_counter()
        verdict = made.trail.verify(made.gate.sealing())
        done = time.perf_counter()
        assert verdict.intact, verdict.problems[:3]
        assert verdict.verified >= acts
        return {
            "acts": verdict.acts,
            "segments": segments,
            "write_seconds": round(wrote - began, 1),
            "seal_seconds": round(sealed - wrote, 1),
            "verify_seconds": round(done - sealed, 1),
            "acts_per_second": round(acts / (done - sealed)),
        }


def sealing(folder: Path, seconds: float) -> dict[str, Any]:
    """Writes a second with and without a sealer: the median of what each pair of neighbouring rounds lost."""
    with workspace(folder) as made:
        who = made.local(None, None, None).principal
        rounds: list[tuple[float, float]] = []
        for number in range(_PAIRS):
            rates = {}
            for name in ("without", "with")[:: 1 if number % 2 else -1]:
                with sealing_beside(made.trail, made.gate.sealing, 1.0) if name == "with" else nullcontext():
                    rates[name] = _writes(made, who, seconds)
                made.trail.seal(made.gate.sealing())
            rounds.append((rates["without"], rates["with"]))
        lost = sorted(1 - with_ / without for without, with_ in rounds)
        return {
            "writes_per_second": round(sorted(one for one, _ in rounds)[_PAIRS // 2]),
            "cost": round(lost[_PAIRS // 2], 4),
            "quartiles": [round(lost[_PAIRS // 4], 4), round(lost[3 * _PAIRS // 4], 4)],
        }


def _writes(made: Workspace, who: Principal, seconds: float) -> float:
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        with (
            made.gate.enter(who, "pipeline:run", "workspace", "HOPERAT", account="production") as permit,
            made.vault.database.transaction(permit) as tx,
        ):
            made.nouns.write(tx, Noun(f"run:{secrets.token_hex(32)}", "production", "made", permit.act))
        count += 1
    return count / (time.perf_counter() - began)


# -- reads over the loop ------------------------------------------------------------------------------------------


def serve(root: str, grouped: bool) -> None:
    """The server, in its own process; with each act in a commit of its own unless grouped."""
    if not grouped:

        def alone(self: commits.Commits, row: Any) -> None:
            with self._database.ledger() as connection:
                append(connection, [row])

        commits.Commits.commit = alone  # type: ignore[method-assign]
    from carelake.apps.http.server import serve as run

    made = Workspace.open(Path(root), os.environ)
    try:
        run(made, port=0, started=lambda url: print(url, flush=True))
    finally:
        made.close()


def reads(folder: Path, seconds: float) -> dict[str, Any]:
    """Reads a second and the 99th percentile in milliseconds."""
    os.environ["CARELAKE_KEY_DIR"] = str(folder / "keys")
    found: dict[str, Any] = {}
    with workspace(folder) as made:
        caller = made.local(None, "TREAT", None)
        source = generate(folder / "few", patients=5, seed=1)
        with made.enter(caller, "record:ingest", "record", job=True) as permit:
            ingest(
                made.vault, permit, [folder / "few"], resources=made.resources, nouns=made.nouns, outbox=made.outbox
            )
        lines = (json.loads(line) for file in source.files[:3] for line in file.read_text().splitlines())
        patient = next(one["id"] for one in lines if one["resourceType"] == "Patient")
        token = made.identity.issue(caller.principal, purpose="TREAT", account="production", seconds=3600)
        for name in ("alone", "grouped", "alone", "grouped"):
            process = subprocess.Popen(
                [sys.executable, __file__, "--serve", str(made.vault.root), name],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            assert process.stdout is not None
            port = int(process.stdout.readline().rpartition(":")[2])
            request = (
                f"GET /fhir/Patient/{patient} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"
            )
            asyncio.run(_load(port, request.encode(), 4, 1.0))
            for connections in (1, 8, 32):
                rate, p99 = asyncio.run(_load(port, request.encode(), connections, seconds))
                best = found.setdefault(name, {}).get(str(connections), {"per_second": 0})
                if rate > best["per_second"]:
                    found[name][str(connections)] = {"per_second": round(rate), "p99_ms": round(p99 * 1000, 1)}
            process.terminate()
            process.wait(30)
    found["gain"] = {
        n: round(found["grouped"][n]["per_second"] / found["alone"][n]["per_second"], 2) for n in ("1", "8", "32")
    }
    return found


async def _load(port: int, request: bytes, connections: int, seconds: float) -> tuple[float, float]:
    times: list[float] = []
    until = time.perf_counter() + seconds

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.perf_counter() < until:
            began = time.perf_counter()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head[:80]
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
            await reader.readexactly(length)
            times.append(time.perf_counter() - began)
        writer.close()

    await asyncio.gather(*(one() for _ in range(connections)))
    return len(times) / seconds, sorted(times)[int(len(times) * 0.99)]


# -- patients and lineage -----------------------------------------------------------------------------------------


def naming(folder: Path, count: int) -> dict[str, Any]:
    """Shares of an ingest's time: making the patients' names, and writing all its acts with them."""
    generate(folder / "hospital", patients=count, seed=2)
    spent = {"naming": 0.0, "acts": 0.0}

    def timed(name: str, work: Callable[..., None]) -> Callable[..., None]:
        def run(*told: Any) -> None:
            began = time.perf_counter()
            work(*told)
            spent[name] += time.perf_counter() - began

        return run

    note, write = patients.note, acts.append
    keep.note = rows.note = timed("naming", note)  # type: ignore[attr-defined]
    acts.append = timed("acts", write)
    try:
        with workspace(folder) as made:
            who = made.local(None, None, None).principal
            entered = made.gate.enter(who, "record:ingest", "record", "HOPERAT", account="production", job=True)
            with entered as permit:
                repositories = {"resources": made.resources, "nouns": made.nouns, "outbox": made.outbox}
                report = ingest(made.vault, permit, [folder / "hospital"], **repositories)  # type: ignore[arg-type]
    finally:
        keep.note = rows.note = note  # type: ignore[attr-defined]
        acts.append = write
    shares = {f"{name}_share": round(seconds / report.seconds, 4) for name, seconds in spent.items()}
    return {"resources": report.stored, "per_second": round(report.stored / report.seconds), **shares}


def lineage(folder: Path, most: int) -> list[dict[str, Any]]:
    """Milliseconds of the same answers in tables of growing size."""
    curve = []
    with workspace(folder) as made:
        size = 0
        landing = f"landing:{1:064x}"
        snapshot, endpoint = f"snapshot:{2:064x}", f"endpoint:{3:064x}"
        with made.vault.database.ledger() as tx:
            chain = [
                Noun(f"snapshot:{n:064x}", "production", "made", "a", (f"snapshot:{n - 1:064x}",))
                for n in range(10_001, 20_001)
            ]
            start = [
                Noun(landing, "production", "landed", "a"),
                Noun(snapshot, "production", "committed", "a", (landing,)),
                Noun(endpoint, "production", "InService", "a"),
                Noun(f"snapshot:{10_000:064x}", "production", "made", "a"),
            ]
            answers = [
                Noun(f"prediction:{n:064x}", "production", "answered", "a", (endpoint, snapshot)) for n in range(1000)
            ]
            made.nouns.write_all(tx, [*start, *chain, *answers])
        for target in (most // 10, most // 2, most):
            while size < target:
                with made.vault.database.ledger() as tx:
                    page = [
                        Noun(
                            f"prediction:{secrets.token_hex(32)}",
                            "production",
                            "answered",
                            "a",
                            (f"snapshot:{n + 10**9:064x}",),
                        )
                        for n in range(size, size + 10_000)
                    ]
                    made.nouns.write_all(tx, page)
                size += 10_000
            with made.vault.database.ledger_reading() as tx:

                def timed(work: Callable[[], list[Noun]], wanted: int) -> float:
                    best = float("inf")
                    for _ in range(3):
                        began = time.perf_counter()
                        found = work()
                        best = min(best, time.perf_counter() - began)
                        assert len(found) == wanted, len(found)
                    return round(best * 1000, 1)

                curve.append(
                    {
                        "nouns": made.nouns.counts(tx, "production")["prediction"],
                        "forward_1001_ms": timed(
                            lambda tx=tx: made.nouns.descendants(tx, landing, account="production"), 1001
                        ),
                        "back_4_ms": timed(
                            lambda tx=tx: made.nouns.lineage(tx, f"prediction:{7:064x}", account="production"), 4
                        ),
                        "deep_10001_back_ms": timed(
                            lambda tx=tx: made.nouns.lineage(tx, f"snapshot:{20_000:064x}", account="production"),
                            10_001,
                        ),
                        "deep_10000_forward_ms": timed(
                            lambda tx=tx: made.nouns.descendants(tx, f"snapshot:{10_000:064x}", account="production"),
                            10_000,
                        ),
                    }
                )
                print(json.dumps(curve[-1]), flush=True)
    return curve


def main() -> int:
    """Measure, print and keep the report; exit code 1 when a bound does not hold."""
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2], sys.argv[3] == "grouped")
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--acts", type=int, default=1_000_000)
    parser.add_argument("--nouns", type=int, default=1_000_000)
    parser.add_argument("--patients", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--only", choices=("verify", "sealing", "reads", "patients", "lineage"), action="append")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    told = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="carelake-audit-"))
    work: dict[str, Callable[[], Any]] = {
        "sealing": lambda: sealing(folder, told.seconds),
        "reads": lambda: reads(folder, told.seconds),
        "patients": lambda: naming(folder, told.patients),
        "lineage": lambda: lineage(folder, told.nouns),
        "verify": lambda: verify(folder, told.acts),
    }
    report: dict[str, Any] = {
        "bench": "audit",
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
    }
    try:
        for name in told.only or work:
            report[name] = work[name]()
            print(json.dumps({name: report[name]}), flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    held = {
        "verify": report.get("verify", {}).get("acts_per_second", 10**9) >= 50_000,
        "sealing": report.get("sealing", {}).get("cost", 0) < 0.10,
        "patients": report.get("patients", {}).get("acts_share", 0) < 0.10,
        "lineage": all(point["forward_1001_ms"] < 1000 for point in report.get("lineage", ())),
    }
    report["held"] = held
    if not told.only:
        told.out.mkdir(parents=True, exist_ok=True)
        (told.out / f"audit-{report['at'][:10]}.json").write_text(json.dumps(report, indent=2) + "\n")
    return 0 if all(held.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
