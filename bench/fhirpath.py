"""FHIRPath, side by side with fhirpathpy: the same expressions on the same resources, in one run.

    python bench/fhirpath.py [--resources 150] [--peer PYTHON] [--out bench/results]

The expressions are all of R4's search parameters that apply to a resource, and all invariants of the US Core 6.1.0
profile it claims or of its base elements, on the official examples and US Core's. Both sides compile each expression
once, before the clock starts, and evaluate every pair in three rounds of five; the best round counts. "Compiled"
compares that (on our side with `reader`, the way for many resources of one type, as search and views use it);
"evaluate" compares the call that most people make, with the text of the expression, where one side keeps what it
compiled and the other reads the text again.

The goal is held where the median pair is at least 50 times faster; the ratio of the sums is given too, and hangs on
the few heaviest expressions.

``--peer`` names a Python that has fhirpathpy; without it an environment is made in a temporary folder. It is measured
only, and is no dependency of the project.
"""

from __future__ import annotations

import argparse
import gc
import gzip
import json
import os
import random
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import venv
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

FACTOR = 50
ROUNDS, TIMES = 3, 5
EVALUATED = 400
PEER = "fhirpathpy==2.2.4"
Json = dict[str, Any]
Job = tuple[str, int]


# --- what is evaluated ---


def examples(data: Path) -> Iterator[Json]:
    """The official examples and US Core's."""
    with gzip.open(data / "fhir-r4-examples" / "examples.ndjson.gz") as lines:
        yield from (json.loads(line) for line in lines)
    for name, resource in packaged(data):
        if name.startswith("package/example/"):
            yield resource


def packaged(data: Path) -> Iterator[tuple[str, Json]]:
    with tarfile.open(data / "us-core-6.1.0" / "us_core_610.tgz") as archive:
        for member in archive:
            file = archive.extractfile(member)
            if file is not None and member.name.endswith(".json"):
                yield member.name, json.load(file)


def parameters(data: Path) -> dict[str, list[str]]:
    """Resource type to the expressions of its search parameters."""
    with gzip.open(data / "fhir-r4-definitions" / "search-parameters.json.gz") as file:
        entries = json.load(file)["entry"]
    found: dict[str, list[str]] = {}
    for parameter in (entry["resource"] for entry in entries):
        for base in parameter["base"]:
            if parameter.get("expression"):
                found.setdefault(base, []).append(parameter["expression"])
    return found


def invariants(data: Path) -> dict[str, list[str]]:
    """Resource type to the invariants on the whole resource, base and US Core."""
    found: dict[str, dict[str, None]] = {}
    for _, profile in packaged(data):
        if profile.get("resourceType") != "StructureDefinition" or profile.get("type") == "Extension":
            continue
        root = profile["snapshot"]["element"][0]
        for constraint in root.get("constraint", ()):
            if constraint.get("expression"):
                found.setdefault(profile["type"], {})[constraint["expression"]] = None
    return {name: list(expressions) for name, expressions in found.items()}


def workload(data: Path, count: int) -> dict[str, Any]:
    """Resources, and for each kind the pairs of expression and resource."""
    everything = [resource for resource in examples(data) if len(json.dumps(resource)) < 50_000]
    resources = random.Random(1).sample(everything, count)
    searched, checked = parameters(data), invariants(data)
    jobs: dict[str, list[Job]] = {"search parameters": [], "invariants": []}
    for n, resource in enumerate(resources):
        kind = resource["resourceType"]
        for base in (kind, "DomainResource", "Resource"):
            jobs["search parameters"] += [(text, n) for text in searched.get(base, ())]
        jobs["invariants"] += [(text, n) for text in checked.get(kind, ())]
    return {"resources": resources, "jobs": jobs}


# --- the two sides; each runs in a process of its own ---


def ours() -> tuple[Callable[[str, str], Callable[[Json], Any]], Callable[[str, Json], Any]]:
    from carelake.fhir import path

    def compiled(text: str, kind: str) -> Callable[[Json], Any]:
        return path.compile(text).reader(kind, filters=True)

    return compiled, lambda text, resource: path.evaluate(text, resource, filters=True)


def theirs() -> tuple[Callable[[str, str], Callable[[Json], Any]], Callable[[str, Json], Any]]:
    import fhirpathpy
    from fhirpathpy.models import models

    model = models["r4"]

    def compiled(text: str, kind: str) -> Callable[[Json], Any]:
        run = fhirpathpy.compile(text, model)
        return lambda resource: run(resource, {"resource": resource, "rootResource": resource})

    return compiled, lambda text, resource: fhirpathpy.evaluate(resource, text, {"resource": resource}, model)


def best(work: Callable[..., Any], *given: Any, rounds: int = ROUNDS, times: int = TIMES) -> float | None:
    """The least seconds of a call, over some rounds of several; None where it fails."""
    least = float("inf")
    try:
        for _ in range(rounds):
            began = time.perf_counter()
            for _ in range(times):
                work(*given)
            least = min(least, (time.perf_counter() - began) / times)
    except Exception:
        return None
    return least


def measure(load: dict[str, Any], side: str) -> dict[str, Any]:
    compiled, evaluate = ours() if side == "ours" else theirs()
    resources = load["resources"]
    result: dict[str, Any] = {}
    gc.disable()
    for kind, jobs in load["jobs"].items():
        made: dict[tuple[str, str], Any] = {}
        for text, n in jobs:
            key = (text, resources[n]["resourceType"])
            try:
                made[key] = made.get(key) or compiled(*key)
            except Exception:
                made[key] = None
        runs = [(made[text, resources[n]["resourceType"]], resources[n]) for text, n in jobs]
        times = [None if run is None else best(run, resource) for run, resource in runs]
        few = random.Random(2).sample(jobs, min(EVALUATED, len(jobs)))
        calls = [best(evaluate, text, resources[n], rounds=2, times=1) for text, n in few]
        result[kind] = {"compiled": times, "evaluate": calls}
    return result


# --- comparison ---


def ratio(mine: list[float | None], other: list[float | None]) -> dict[str, Any]:
    both = [(a, b) for a, b in zip(mine, other, strict=True) if a is not None and b is not None]
    each = sorted(b / a for a, b in both)
    return {
        "pairs": len(mine),
        "failed_ours": sum(a is None for a in mine),
        "failed_peer": sum(b is None for b in other),
        "microseconds_ours": round(1e6 * sum(a for a, _ in both) / len(both), 2),
        "microseconds_peer": round(1e6 * sum(b for _, b in both) / len(both), 2),
        "times_faster": round(sum(b for _, b in both) / sum(a for a, _ in both), 1),
        "times_faster_median": round(statistics.median(each), 1),
        "times_faster_p10": round(each[len(each) // 10], 1),
    }


def peer_python(folder: Path) -> str:
    venv.create(folder, with_pip=True)
    python = str(folder / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "--quiet", PEER], check=True)
    return python


def run_side(python: str, side: str, file: Path) -> dict[str, Any]:
    answer = file.with_name(f"{side}.json")
    # Standard output is not the channel: the peer prints what trace() is given.
    command = [python, __file__, "--side", side, str(file), str(answer)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return dict(json.loads(answer.read_text()))


def compare(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    root = Path(__file__).resolve().parents[2]
    data = Path(os.environ.get("CARELAKE_TEST_DATA") or root / "shared" / "data")
    file = folder / "load.json"
    load = workload(data, arguments.resources)
    file.write_text(json.dumps(load))
    python = arguments.peer or peer_python(folder / "peer")
    mine, other = run_side(sys.executable, "ours", file), run_side(python, "theirs", file)
    kinds = {
        kind: {way: ratio(mine[kind][way], other[kind][way]) for way in ("compiled", "evaluate")} for kind in mine
    }
    ways = ("compiled", "evaluate")
    every = {way: [list(chain(*(side[kind][way] for kind in mine))) for side in (mine, other)] for way in ways}
    return {**kinds, "together": {way: ratio(*sides) for way, sides in every.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--resources", type=int, default=150)
    parser.add_argument("--peer", help="a Python that has fhirpathpy")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--side", nargs=3, metavar=("SIDE", "LOAD", "ANSWER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        side, load, answer = arguments.side
        Path(answer).write_text(json.dumps(measure(json.loads(Path(load).read_text()), side)))
        return
    with tempfile.TemporaryDirectory() as folder:
        found = compare(arguments, Path(folder))
    now = datetime.now(UTC)
    held = {way: found["together"][way]["times_faster_median"] >= FACTOR for way in ("compiled", "evaluate")}
    report = {
        "bench": "fhirpath",
        "at": now.isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "python": sys.version.split()[0],
        "peer": PEER,
        "resources": arguments.resources,
        **found,
        "held": held,
    }
    arguments.out.mkdir(exist_ok=True)
    (arguments.out / f"fhirpath-{now:%Y-%m-%d}.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
