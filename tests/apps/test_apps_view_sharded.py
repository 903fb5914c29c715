"""``carelake view export --workers N``: the same parts whatever N, and an export that was broken off is taken up."""

from __future__ import annotations

import importlib.util
import json
import stat
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

_spec = importlib.util.spec_from_file_location("apps_views", Path(__file__).with_name("test_apps_views.py"))
assert _spec is not None
assert _spec.loader is not None
_views: Any = importlib.util.module_from_spec(_spec)
sys.modules["apps_views"] = _views
_spec.loader.exec_module(_views)
place = _views.place


@pytest.mark.slow
def test_parts_are_the_same_and_are_taken_up(place: Any) -> None:
    def export(out: str, workers: int, code: int = 0) -> bytes:
        words = ("view", "export", place.folder / "view.json", "--out", place.folder / out, "--workers", str(workers))
        answer: bytes = place.command(*words, "--json", code=code)
        return answer

    told = [json.loads(export(f"out{n}", n))["views"] for n in (1, 2)]
    assert told[0] == told[1] == [{"view": "names", "resources": 3, "parts": 1, "folder": "names"}]
    one, two = (place.folder / f"out{n}" / "names" / "part-00001.parquet" for n in (1, 2))
    assert one.read_bytes() == two.read_bytes()
    assert stat.S_IMODE(one.stat().st_mode) == 0o600
    assert _views.ordered(pq.read_table(one).to_pylist()) == _views.ROWS
    # As it was left by a process that was killed before the part was written.
    manifest = place.folder / "out1" / "export.json"
    made = one.read_bytes()
    manifest.write_text(json.dumps({**json.loads(manifest.read_bytes()), "finished": False, "done": {}}))
    one.unlink()
    export("out1", 1)
    assert one.read_bytes() == made
    assert b"lake.export_there" in export("out1", 1, code=5)
    assert b"lake.workers" in export("out3", 65, code=2)
