"""SQL on FHIR views over the lake's tables, side by side with other implementations, and what they cost by size.

    python bench/views.py [--resources 1000000] [--sizes 10000,100000,1000000,10000000] [--smoke]
    python bench/views.py --folder DIR --prepare     makes the hospital and the lake there, and measures nothing
    python bench/views.py --folder DIR [--curves]    measures what was prepared, or the curves of it alone

A made-up hospital is read into a workspace and its lake synced. Our side is what `carelake view run` does: the
tables' files opened, decrypted and read, the view run, its rows as an Arrow table. Peers (`_peers.py`) run in
environments of their own on the same machine and hold the data as they like best: sqlonfhir as parsed resources in
memory, fhir4ds in its DuckDB table, Pathling in the Parquet it writes; their loading is not counted. Each has a part
of the same files, as large as it can do in a minute or two, and the rate counts. Rows are compared: those of our view
over the whole lake whose resource is in the part, with the peer's, as multisets of normalised rows (numbers as
numbers, keys as ids).

Curves: real Observations, written again with ids of their own, counted by code and run through a view; each time from
the encrypted files. Bounds (issue 6): 30 times sqlonfhir, 3 times fhir4ds and Pathling where they can be run; linear
or better.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

from _curves import drawn
from _peers import line, run
from _sizes import begun, written
from _views import VIEWS
from _workspace import Home
from lake import count

PER_PATIENT = 55
PARTS = {"sqlonfhir": 20_000, "fhir4ds": 150_000, "pathling": 300_000}
TIMES = 3
BOUNDS = {"sqlonfhir": 30.0, "fhir4ds": 3.0, "pathling": 3.0}
CURVE = "blood_pressures"
FILE_ROWS = 2_000_000
SLACK = 1.25
"""So much more than ten times the time for ten times the rows is noise."""


def prepare(folder: Path, resources: int) -> Home:
    """A hospital and its lake, if they are not there yet."""
    home = Home(folder)
    if not (folder / "ready").exists():
        from carelake.synth import generate

        generate(folder / "hospital", patients=max(1, round(resources / PER_PATIENT)), seed=3)
        home.make()
        home.ingest(folder / "hospital")
        home.run("-w", str(home.root), "lake", "sync")
        (folder / "ready").write_text("")
    return home


def ours(home: Home) -> tuple[dict[str, Any], dict[str, Any]]:
    """Figures of each view, and its rows."""
    from carelake.lake import query
    from carelake.lake.views.over import over

    told: dict[str, Any] = {}
    tables: dict[str, Any] = {}
    with home.opened() as space, space.enter(space.local(None, None, None), "lake:query", "lake") as permit:
        snapshot = query.snapshot_of(permit, space.vault, space.nouns)
        for view in VIEWS:
            seconds, used = [], []
            for _ in range(TIMES):
                began, busy = time.monotonic(), time.process_time()
                table = over(permit, space.vault, snapshot, view)
                seconds.append(time.monotonic() - began)
                used.append(time.process_time() - busy)
            tables[view["name"]] = table
            told[view["name"]] = {
                "resources": snapshot.body["tables"][view["resource"]]["rows"], "rows": len(table),
                "cold": round(seconds[0], 3), "warm": round(min(seconds[1:]), 3), "cpu": round(min(used), 3),
            }  # fmt: skip
    return told, tables


def part(source: Path, folder: Path, resources: int) -> dict[str, set[str]]:
    """The first files with so many resources, linked; the ids of what is in them, by type."""
    folder.mkdir(parents=True)
    ids: dict[str, set[str]] = {}
    for number, path in enumerate(sorted((source / "fhir").glob("*.ndjson"))):
        left = resources - sum(map(len, ids.values()))
        if left <= 0:
            break
        with (
            path.open(encoding="utf-8") as lines,
            (folder / f"{number:04}.ndjson").open("w", encoding="utf-8") as out,
        ):
            for text in lines:
                one = json.loads(text)
                ids.setdefault(one["resourceType"], set()).add(one["id"])
                out.write(text)
                left -= 1
                if left == 0:
                    break
    return ids


def rate(told: dict[str, Any], which: str) -> float:
    """Resources a second over all views."""
    return sum(one["resources"] for one in told.values()) / sum(one[which] for one in told.values())


def compared(tables: dict[str, Any], ids: dict[str, set[str]], out: Path) -> dict[str, Any]:
    """By view: how many rows are the same, and which columns differ."""
    found = {}
    for view in VIEWS:
        table = tables[view["name"]]
        mine = [row for row in table.to_pylist() if row["id"] in ids.get(view["resource"], ())]
        own = Counter(line(row, table.column_names) for row in mine)
        peers = Counter((out / f"{view['name']}.rows").read_text().splitlines())
        differ = []
        for number, name in enumerate(table.column_names):
            one, other = (Counter(_cell(text, number) for text in side.elements()) for side in (own, peers))
            if one != other:
                differ.append(name)
        found[view["name"]] = {
            "ours": len(mine), "theirs": sum(peers.values()), "same": sum((own & peers).values()),
            "columns_that_differ": differ,
        }  # fmt: skip
    return found


def _cell(text: str, number: int) -> str:
    return json.dumps(json.loads(text)[number])


def beside(source: Path, name: str, resources: int, tables: dict[str, Any]) -> dict[str, Any]:
    """One peer: its figures on its part, and whose rows are whose."""
    with tempfile.TemporaryDirectory(prefix="carelake-views-") as made:
        folder, out = Path(made, "part"), Path(made, "out")
        out.mkdir()
        ids = part(source, folder, resources)
        asked = {
            "source": str(folder), "out": str(out), "views": list(VIEWS), "times": 2,
            "columns": {view["name"]: tables[view["name"]].column_names for view in VIEWS},
        }  # fmt: skip
        told = run(name, asked)
        if "not_run" in told:
            return told
        return {
            "part": sum(map(len, ids.values())), "views": told,
            "cold_per_second": round(rate(told, "cold")), "warm_per_second": round(rate(told, "warm")),
            "rows": compared(tables, ids, out),
        }  # fmt: skip


def curve(home: Home, sizes: list[int]) -> list[dict[str, Any]]:
    """Count and view over so many Observations; the workspace's table is written anew for each size."""
    from carelake.lake import query
    from carelake.lake.views.over import over

    view = next(one for one in VIEWS if one["name"] == CURVE)
    found = []
    with home.opened() as space, space.enter(space.local(None, None, None), "lake:maintain", "lake") as permit:
        snapshot = query.snapshot_of(permit, space.vault, space.nouns)
        rows = query.versions(permit, space.vault, snapshot, "Observation")
    for size in sizes:
        fill(home, rows, size)
        counted = count(home)
        seconds = []
        with home.opened() as space, space.enter(space.local(None, None, None), "lake:query", "lake") as permit:
            snapshot = query.snapshot_of(permit, space.vault, space.nouns)
            for _ in range(TIMES):
                began = time.monotonic()
                made = len(over(permit, space.vault, snapshot, view))
                seconds.append(time.monotonic() - began)
        found.append(
            {
                "observations": counted["rows"], "files": counted["files"],
                "count_seconds": counted["median_seconds"], "view_seconds": round(min(seconds), 3), "view_rows": made,
            }
        )  # fmt: skip
        print(json.dumps(found[-1]), flush=True)
    return found


def fill(home: Home, rows: Any, size: int) -> None:
    """The Observations table with exactly so many rows: those given, again and again, with ids of their own."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from carelake.lake.following.sync import SEQ, seq_of
    from carelake.lake.iceberg.catalog import VaultCatalog
    from carelake.lake.iceberg.changing import change
    from carelake.lake.iceberg.files import Files
    from carelake.lake.iceberg.layout import bucketed, bucketed_spec, buckets
    from carelake.lake.upkeep.maintain import _note

    with (
        home.opened() as space,
        space.enter(space.local(None, None, None), "lake:maintain", "lake", job=True) as permit,
    ):
        table = VaultCatalog(space.vault, permit).load_table((permit.account, "Observation"))
        files, spec = Files(space.vault, permit, table.metadata), bucketed_spec(table.metadata)
        gone = [task.file for task in table.scan().plan_files()]
        made, done, parts = [], 0, []
        while done < size:
            some = rows.slice(0, min(len(rows), size - done))
            names = pc.binary_join_element_wise(some.column("id").cast(pa.string()), f"{done:x}", "-")
            parts.append(some.set_column(some.column_names.index("id"), "id", names))
            done += len(some)
            if sum(map(len, parts)) >= FILE_ROWS or done == size:  # files as large as maintenance leaves them
                whole = pa.concat_tables(parts)
                made += [files.put(files.encode(one, spec, at)) for at, one in bucketed(whole, buckets(spec))]
                parts = []
        tx = table.transaction()
        change(tx, made, gone, properties={SEQ: str(seq_of(table))})
        tx.commit_transaction()
        _note(permit, space.vault, space.nouns, VaultCatalog(space.vault, permit))


def linear(found: list[dict[str, Any]], figure: str) -> bool:
    """Whether ten times as many take at most about ten times as long."""
    return all(
        after[figure] / before[figure] <= SLACK * after["observations"] / before["observations"]
        for before, after in pairwise(found)
    )


def measured(home: Home, folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """The report."""
    report = begun("views")
    told, tables = ours(home)
    report["carelake"] = {
        "views": told, "resources": asked.resources, "cold_per_second": round(rate(told, "cold")),
        "warm_per_second": round(rate(told, "warm")),
    }  # fmt: skip
    print(json.dumps(report["carelake"]), flush=True)
    report["peers"] = {}
    for name in filter(None, asked.peers.split(",")):
        found = beside(folder / "hospital", name, min(PARTS[name], asked.resources), tables)
        if "not_run" not in found:
            same = {one: report["carelake"]["views"][one]["warm"] for one in told}
            found["times_as_fast_as_it"] = {
                "all_cold": round(report["carelake"]["cold_per_second"] / found["cold_per_second"], 1),
                "all_warm": round(report["carelake"]["warm_per_second"] / found["warm_per_second"], 1),
                **{one: round((told[one]["resources"] / same[one]) / (it["resources"] / it["warm"]), 1)
                   for one, it in found["views"].items()},
            }  # fmt: skip
        report["peers"][name] = found
        print(json.dumps({name: found}), flush=True)
    return report


def before(out: Path) -> dict[str, Any]:
    """Today's report as it is; its curves have the time of their own measurement."""
    path = out / f"views-{begun('views')['at'][:10]}.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def main() -> int:
    """Measure, print and keep the report; exit code 1 when a bound does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--resources", type=int, default=1_000_000)
    parser.add_argument("--peers", default="sqlonfhir,fhir4ds,pathling")
    parser.add_argument("--sizes", default="10000,100000,1000000,10000000", help="of the curves; '': as kept")
    parser.add_argument("--folder", type=Path, help="where hospital and workspace are; otherwise a temporary one")
    parser.add_argument("--curves", action="store_true", help="only the curves, into the report that there is")
    parser.add_argument("--prepare", action="store_true", help="only make them")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--smoke", action="store_true", help="small, without peers and bounds of time")
    asked = parser.parse_args()
    if asked.smoke:
        asked.resources, asked.peers, asked.sizes = 3000, "", "1000,2000"
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="carelake-views-"))
    try:
        home = prepare(folder, asked.resources)
        if asked.prepare:
            return 0
        report = before(asked.out) if asked.curves else measured(home, folder, asked)
        copy = Home(folder / "curve")
        if asked.sizes:
            shutil.copytree(home.root.parent / "workspace", folder / "curve" / "workspace")
            shutil.copytree(home.root.parent / "keys", folder / "curve" / "keys")
            report["curves_at"] = begun("views")["at"]
            report["curves"] = curve(copy, [int(one) for one in asked.sizes.split(",")])
        else:
            report |= {k: v for k, v in before(asked.out).items() if k in ("curves", "curves_at")}
    finally:
        shutil.rmtree(folder / "curve" if asked.folder else folder, ignore_errors=True)
    if asked.smoke:
        return 0
    held = {
        f"{times:g}x_{name}": report["peers"][name]["times_as_fast_as_it"]["all_warm"] >= times
        for name, times in BOUNDS.items()
        if "times_as_fast_as_it" in report["peers"].get(name, {})
    }
    for figure in ("count_seconds", "view_seconds"):
        held[f"{figure}_linear"] = linear(report.get("curves", []), figure)
    report["held"] = held
    written(report, asked.out)
    if report.get("curves"):
        lines = {
            label: [(one["observations"], one[figure]) for one in report["curves"]]
            for label, figure in (("count by code", "count_seconds"), (f"view {CURVE}", "view_seconds"))
        }
        (asked.out / f"views-{report['at'][:10]}.svg").write_text(drawn("Seconds over Observations", lines))
    print(json.dumps({"held": held}))
    return 0 if all(held.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
