"""The law of imports, and what else an import gives away."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

DANGEROUS = {
    "pickle": "no object is ever made by running bytes (promise 8)",
    "cPickle": "as pickle",
    "dill": "as pickle",
    "cloudpickle": "as pickle",
    "joblib": "its files are pickles",
    "shelve": "its values are pickles",
    "marshal": "as pickle",
    "xml": "use defusedxml",
}


def test_law_of_imports(root: Path) -> None:
    # A process of its own: import-linter puts the working folder on the path and caches what it saw.
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()", "--no-cache"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root / "src")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_law_covers_every_room(root: Path, sources: Sequence[Any]) -> None:
    law = (root / "pyproject.toml").read_text()
    layers = set(re.findall(r"\w+", law.partition("layers = [")[2].partition("]")[0]))
    assert {source.room for source in sources if source.room} <= layers


def test_nothing_dangerous_is_imported(sources: Sequence[Any]) -> None:
    found = [
        f"{source.name}:{line} imports {module}: {DANGEROUS[module.partition('.')[0]]}"
        for source in sources
        for module, _, line in source.imports()
        if module.partition(".")[0] in DANGEROUS
    ]
    assert not found


def test_private_names_stay_in_their_room(sources: Sequence[Any]) -> None:
    found = [
        f"{source.name}:{line} takes {name} from {module}"
        for source in sources
        for module, name, line in source.imports()
        if module.startswith("carelake.")
        and module.split(".")[1] != source.room
        and any(part.startswith("_") and not part.startswith("__") for part in (*module.split("."), name))
    ]
    assert not found


def test_async_lives_in_apps_only(sources: Sequence[Any]) -> None:
    found = [
        f"{source.name}:{line} imports {module}"
        for source in sources
        if source.room != "apps"
        for module, _, line in source.imports()
        if module.partition(".")[0] in {"asyncio", "anyio", "trio"}
    ]
    found += [
        f"{source.name}:{node.lineno} is async"
        for source in sources
        if source.room != "apps"
        for node in source.nodes
        if type(node).__name__.startswith("Async") or type(node).__name__ == "Await"
    ]
    assert not found


def test_core_stays_light(root: Path) -> None:
    """`core` is below everything: it may not pull in what is slow to import."""
    code = (
        "import sys, pkgutil, importlib, carelake.core as core\n"
        "for found in pkgutil.iter_modules(core.__path__): importlib.import_module('carelake.core.' + found.name)\n"
        "heavy = {'pyarrow', 'duckdb', 'lightgbm', 'sklearn', 'numpy', 'sqlalchemy', 'polars'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root / "src", capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
