"""The notebooks of the documents run: each cell, in order, over made-up patients; none holds an output."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.apps.asked import EACH, PATIENTS, filled, own_workspace

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def cells(path: Path) -> list[dict[str, Any]]:
    told = json.loads(path.read_text(encoding="utf-8"))
    assert told["nbformat"] == 4
    return [one for one in told["cells"] if one["cell_type"] == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_holds_no_output(path: Path) -> None:
    assert all(one["outputs"] == [] and one["execution_count"] is None for one in cells(path))


def test_explore_the_lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with own_workspace(tmp_path) as workspace:
        filled(workspace)
    monkeypatch.setenv("CARELAKE_KEY_DIR", str(tmp_path / "keys"))
    monkeypatch.setenv("CARELAKE_WORKSPACE", str(tmp_path / "workspace"))
    names: dict[str, Any] = {}
    for cell in cells(FOLDER / "explore_the_lake.ipynb"):
        exec(compile("".join(cell["source"]), "cell", "exec"), names)
    assert names["patients"].rows() == [("female", "1950s", PATIENTS)]
    assert names["common"].rows() == [("718-7", PATIENTS * EACH, PATIENTS)]
    assert names["names"].height == 5
    assert names["rows"] == PATIENTS * EACH
    assert names["by_month"].height == 1
