"""Writes tests/slow.txt: the tests that `make unit` leaves out, by how long each took.

make test T="--junitxml=times.xml"; python tools/write_slow.py times.xml

A module is named as a whole where its tests take long together: what they share is made by whichever comes first. Of
other modules the functions that take long. What its own source marks as slow is not listed.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from xml.etree import ElementTree as ET

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "tests" / "slow.txt"
HEAD = """# Tests that `make unit` leaves out, as if each were marked slow: modules, and functions of other modules.
# Written by tools/write_slow.py from the times of a run. A new test is quick until it is written again.
"""
MARKS = ("mark.slow", "mark.soak", "mark.spark")
MODULE, TEST = 1.5, 0.3
"""Seconds of a module, and of a test, that are long."""
QUICK = 0.012
"""Seconds of a test; a module of thousands as quick as that is none that takes long."""


def measured(times: Path) -> dict[str, list[float]]:
    """Seconds of the cases of each test function, by its node id."""
    found: dict[str, list[float]] = defaultdict(list)
    for case in ET.parse(times).iter("testcase"):
        parts = case.attrib["classname"].split(".")
        depth = next((n for n in range(len(parts), 0, -1) if (ROOT / _file(parts[:n])).is_file()), 0)
        if depth:
            name = "::".join([_file(parts[:depth]), *parts[depth:], case.attrib["name"].partition("[")[0]])
            found[name].append(float(case.attrib["time"]))
    return {name: took for name, took in found.items() if not _marked(name)}


def _file(parts: list[str]) -> str:
    return "/".join(parts) + ".py"


def _marked(name: str) -> bool:
    module, *path = name.split("::")
    return any(mark in text for mark in MARKS for text in _said(module, path[-1]))


@cache
def _said(module: str, function: str) -> list[str]:
    """What marks stand at a function, and at its module."""
    tree = ast.parse((ROOT / module).read_text(encoding="utf-8"))
    texts = [ast.unparse(node) for node in tree.body if isinstance(node, ast.Assign) and _is_mark(node)]
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == function:
            texts += [ast.unparse(one) for one in node.decorator_list if "parametrize" not in ast.unparse(one)]
    return texts


def _is_mark(node: ast.Assign) -> bool:
    return any(getattr(target, "id", "") == "pytestmark" for target in node.targets)


def slow(times: Mapping[str, list[float]]) -> Iterator[str]:
    """The lines of the list."""
    modules: dict[str, list[str]] = defaultdict(list)
    for name in sorted(times):
        modules[name.partition("::")[0]].append(name)
    for module, names in sorted(modules.items()):
        took = [second for name in names for second in times[name]]
        if sum(took) > MODULE and sum(took) > QUICK * len(took):
            yield module
        else:
            yield from (name for name in names if max(times[name]) > TEST or sum(times[name]) > 3 * TEST)


if __name__ == "__main__":
    lines = "\n".join(slow(measured(Path(sys.argv[1]))))
    PAGE.write_text(HEAD + lines + "\n", encoding="utf-8")
