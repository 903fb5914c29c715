"""The table of attacks in the threat model names tests that are there, and all of the attack suite."""

from __future__ import annotations

import ast
import re
from pathlib import Path

NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def _tests(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_each_test_that_is_named_is_there(root: Path) -> None:
    named = NAMED.findall((root / "docs" / "threat-model.md").read_text(encoding="utf-8"))
    assert len(named) > 30
    missing = [f"{file}::{name}" for file, name in named if name not in _tests(root / file)]
    assert not missing


def test_each_file_of_the_suite_is_named(root: Path) -> None:
    page = (root / "docs" / "threat-model.md").read_text(encoding="utf-8")
    files = sorted((root / "tests" / "attacks").glob("test_*.py"))
    assert files
    assert not [file.name for file in files if file.name not in page]
