"""Setting up says what a machine lacks, and the command that installs it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

Tool = Callable[[str], ModuleType]


def _missing(tool: Tool, version: tuple[int, int], platform: str, modules: set[str], libraries: set[str]) -> str:
    needs = tool("check_machine").missing(version, platform, modules.__contains__, libraries.__contains__)
    return "\n".join(f"{what}: {command}" for what, command in needs)


ALL = {"venv", "ensurepip"}
GOMP, OMP = {"libgomp.so.1"}, {"/opt/homebrew/opt/libomp/lib/libomp.dylib"}


@pytest.mark.parametrize(("platform", "libraries"), [("linux", GOMP), ("darwin", OMP)])
def test_a_fit_machine_lacks_nothing(tool: Tool, platform: str, libraries: set[str]) -> None:
    assert _missing(tool, (3, 11), platform, ALL, libraries) == ""


@pytest.mark.parametrize(
    ("version", "platform", "modules", "libraries", "expected"),
    [
        ((3, 9), "linux", ALL, GOMP, "apt-get install python3 python3-venv"),
        ((3, 9), "darwin", ALL, OMP, "brew install python@3.13"),
        ((3, 12), "linux", {"venv"}, GOMP, "python3.12-venv"),
        ((3, 12), "linux", ALL, set(), "apt-get install libgomp1"),
        ((3, 12), "darwin", ALL, set(), "brew install libomp"),
    ],
)
def test_what_is_missing_is_named_with_its_command(
    tool: Tool, version: tuple[int, int], platform: str, modules: set[str], libraries: set[str], expected: str
) -> None:
    assert expected in _missing(tool, version, platform, modules, libraries)


def test_this_machine_is_fit(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "tools/check_machine.py"], cwd=root, capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def _find(root: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", "tools/find_python.sh"], cwd=root, env=environment, capture_output=True, text=True, timeout=30
    )


def _fake(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_no_python_is_said_with_the_command(root: Path, tmp_path: Path) -> None:
    _fake(tmp_path, "uname", "echo Linux")
    done = _find(root, PATH=str(tmp_path))
    assert done.returncode == 1
    assert "apt-get install python3 python3-venv" in done.stderr
    _fake(tmp_path, "uname", "echo Darwin")
    assert "brew install python" in _find(root, PATH=str(tmp_path)).stderr


def test_a_python_that_can_make_environments_wins(root: Path, tmp_path: Path) -> None:
    _fake(tmp_path, "python3.13", 'case "$2" in *ensurepip*) exit 1;; esac')  # new enough, without venv
    assert _find(root, PATH=str(tmp_path)).stdout.strip() == str(tmp_path / "python3.13")
    _fake(tmp_path, "python3.12", "exit 0")
    assert _find(root, PATH=str(tmp_path)).stdout.strip() == str(tmp_path / "python3.12")


def test_an_old_or_broken_python_is_passed_over(root: Path, tmp_path: Path) -> None:
    _fake(tmp_path, "python3.13", "exit 127")  # a version manager's shim without the version
    _fake(tmp_path, "python3", "exit 0")
    assert _find(root, PATH=str(tmp_path)).stdout.strip() == str(tmp_path / "python3")


def test_the_python_that_is_asked_for_is_taken_or_refused(root: Path, tmp_path: Path) -> None:
    spaced = tmp_path / "a folder"
    spaced.mkdir()
    _fake(spaced, "mine", "exit 0")
    path = os.environ.get("PATH", "")
    assert _find(root, PATH=path, PYTHON=str(spaced / "mine")).stdout.strip() == str(spaced / "mine")
    refused = _find(root, PATH=path, PYTHON=str(spaced / "none"))
    assert refused.returncode == 1
    assert "is not a Python 3.11 or newer" in refused.stderr


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_alone_lists_every_target(root: Path) -> None:
    makefile = (root / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (help .*)$", makefile, re.M)
    assert phony is not None
    said = subprocess.run(["make"], cwd=root, capture_output=True, text=True, timeout=30, check=True).stdout
    listed = set(re.findall(r"^  make (\w+) ", said, re.M))
    assert listed == set(phony[1].split())
    assert {"demo", "test", "unit", "lint", "types", "layers", "soak", "bench", "docs", "lock", "clean"} <= listed


def test_ci_runs_what_everybody_runs(root: Path) -> None:
    script = root / ".ci" / "run"
    text = script.read_text()
    assert os.access(script, os.X_OK)
    assert "set -euo pipefail" in text
    assert "make test" in text


def test_a_skip_fails_in_ci(root: Path, tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import pytest\n\n\ndef test_ran():\n    pass\n\n\ndef test_left_out():\n    pytest.skip('no such part')\n"
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
        str(tmp_path),
    ]
    environment = {**os.environ, "PYTHONPATH": str(root / "tools")}
    lenient = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    strict = subprocess.run(
        [*command, "-p", "strict_skips"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert lenient.returncode == 0, lenient.stdout
    assert strict.returncode == 1, strict.stdout
    assert "test_left_out: no such part" in strict.stdout
