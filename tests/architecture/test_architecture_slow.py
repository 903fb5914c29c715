"""The list of slow tests names tests that there are."""

from __future__ import annotations

from pathlib import Path


def test_what_is_listed_as_slow_is_there(root: Path) -> None:
    lines = (root / "tests" / "slow.txt").read_text(encoding="utf-8").splitlines()
    wrong, texts = [], dict[str, str]()
    for line in lines:
        if line.startswith("#"):
            continue
        module, _, name = line.partition("::")
        path = root / module
        if module not in texts:
            texts[module] = path.read_text(encoding="utf-8") if path.is_file() else ""
        said = name.rpartition("::")[2]
        if not texts[module] or (said and f"def {said}(" not in texts[module] and said != "runTest"):
            wrong.append(line)
    assert not wrong, "tests/slow.txt names tests that are gone: take their lines out"
