"""What a decision costs with 1,000 policies loaded: cold, warm, and at the gate.

    python bench/access.py [--policies 1000] [--rounds 3000] [--out bench/results]

Sets of policies, each beside the package's own:

    spread    each policy names a principal, an action and an account of its own, as tools that write policies do
    roles     all share one action; each first asks for a role
    people    all share one action; each names a principal
    opaque    all share one action and begin with a condition that cannot be looked at: nothing is left out

``cold`` evaluates with Cedar each time, over the policies that may apply; ``all`` evaluates every policy, as it would
be without slicing; ``warm`` is `decide`, which keeps verdicts; ``first`` is a verdict whose slice must be parsed.
``gate`` is a verdict by rights read from the encrypted database. Microseconds: of the wall clock, and (``cpu``) of
this thread's processor time, which other work on the machine does not lengthen.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path
from typing import Any

from carelake.access.actions import actions
from carelake.access.policy import Policies, Request, policy_texts
from carelake.access.principals import DEFAULTS, ROLES, Principal
from carelake.access.verdicts import Judge
from carelake.apps.wiring import Workspace

TARGET = 200.0
NOWHERE = Path("/nonexistent")
ROLE_NAMES = sorted(ROLES)
ACCOUNTS = ("production", "research")


def policies(kind: str, count: int) -> Policies:
    """The package's policies and ``count`` more."""
    names = sorted(actions())
    made = []
    for number in range(count):
        head = 'principal, action == Action::"record:search", resource'
        when = 'context.purpose == "TREAT"'
        if kind == "spread":
            who, what, where = f"user{number}", names[number % len(names)], ACCOUNTS[number % 2]
            head = f'principal == Principal::"{who}", action == Action::"{what}", resource == Account::"{where}"'
        elif kind == "people":
            head = f'principal == Principal::"user{number}", action == Action::"record:search", resource'
        elif kind == "roles":
            when = f'principal.roles.contains("role{number}") && context.purpose == "TREAT"'
        else:
            when = f'context.purpose == "TREAT" && principal.name == "user{number}"'
        made.append(f'@id("own {number}") @scope("account") permit ({head}) when {{ {when} }};')
    return Policies({**policy_texts(NOWHERE), "own.cedar": "\n".join(made)})


def requests(count: int) -> list[Request]:
    """People with roles of their own, and what they ask."""
    asked = ["record:search", "record:read", "audit:read", "endpoint:invoke", "status:read"]
    return [
        Request(
            Principal(
                f"user{number}", "person", (ROLE_NAMES[number % len(ROLE_NAMES)], f"role{number}"), ACCOUNTS[:1]
            ),
            asked[number % len(asked)],
            ACCOUNTS[number % 2],
            ("TREAT", "HOPERAT")[number % 3 == 0],
        )
        for number in range(count)
    ]


def timed(work: Callable[[Any], Any], given: Iterator[Any], rounds: int) -> dict[str, float]:
    """Percentiles of single calls, in microseconds."""
    walls, cpus = [], []
    for _ in range(rounds):
        one = next(given)
        wall, cpu = time.perf_counter_ns(), time.thread_time_ns()
        work(one)
        cpus.append(time.thread_time_ns() - cpu)
        walls.append(time.perf_counter_ns() - wall)
    return {
        f"{name}{percent}": round(sorted(taken)[int(len(taken) * percent / 100) - 1] / 1000, 1)
        for name, taken in (("p", walls), ("cpu_p", cpus))
        for percent in (50, 99)
    }


def measured(kind: str, count: int, rounds: int) -> dict[str, Any]:
    """The figures of one set."""
    start = time.perf_counter()
    loaded = policies(kind, count)
    seconds = round(time.perf_counter() - start, 2)
    asked = requests(200)
    first = timed(loaded.evaluate, iter(asked), len(asked))
    sizes = sorted(len(loaded.may_apply(one)) for one in asked)
    cold = timed(loaded.evaluate, cycle(asked), rounds)
    for one in asked:
        loaded.decide(one)
    return {
        "set": kind,
        "policies": len(loaded.statements),
        "load_seconds": seconds,
        "slice_median": sizes[len(sizes) // 2],
        "slice_max": sizes[-1],
        "first": first,
        "cold": cold,
        "warm": timed(loaded.decide, cycle(asked), rounds),
        "all": timed(lambda one: loaded.evaluate(one, every=True), cycle(asked), max(200, rounds // 10)),
    }


def at_the_gate(count: int, rounds: int) -> dict[str, Any]:
    """Verdicts by rights in the database of a workspace, the spread set beside the package's own."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["CARELAKE_KEY_DIR"] = str(Path(folder) / "keys")
        workspace = Workspace.create(Path(folder) / "workspace", os.environ)
        try:
            judge = Judge(workspace.vault, policies("spread", count))
            who = [replace(one) for one in DEFAULTS]

            def ask(one: Principal) -> None:
                judge.judge(one, "status:read", "production", "HOPERAT")

            timed(ask, cycle(who), 50)
            return timed(ask, cycle(who), rounds)
        finally:
            workspace.close()


def _met(one: dict[str, Any], percentile: str) -> dict[str, bool]:
    return {name: one[name][percentile] < TARGET for name in ("cold", "warm")}


def main() -> None:
    """Measure, print, and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policies", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3000)
    parser.add_argument("--out", type=Path)
    told = parser.parse_args()
    sets = [measured(kind, told.policies, told.rounds) for kind in ("spread", "roles", "people", "opaque")]
    gate = at_the_gate(told.policies, told.rounds)
    for one in sets:
        print(json.dumps(one))
    print(json.dumps({"gate": gate}))
    report = {
        "what": "access decisions, microseconds",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {
            "cpus": os.cpu_count(),
            "python": platform.python_version(),
            "system": platform.system(),
            "load": os.getloadavg()[0],
        },
        "target_p99": TARGET,
        "sets": sets,
        "gate": gate,
        "met": {one["set"]: _met(one, "p99") for one in sets},
        "met_cpu": {one["set"]: _met(one, "cpu_p99") for one in sets},
    }
    if told.out:
        told.out.mkdir(parents=True, exist_ok=True)
        (told.out / f"access-{report['date']}.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
