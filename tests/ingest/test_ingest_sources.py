"""Paths to sources."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from carelake.core.errors import Invalid
from carelake.ingest import expand


def names(root: Path, *paths: Path | str) -> list[str]:
    return [str(source.path.relative_to(root)) for source in expand(paths).sources]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("b/2.json", "b/1.NDJSON.gz", "a.jsonl", "c.parquet", "truth.csv", "b/deep/er/x.json.gz", "README"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    return tmp_path / "in"


def test_a_folder_is_read_sorted_and_by_its_endings(tree: Path) -> None:
    found = expand([tree])
    assert names(tree, tree) == ["a.jsonl", "b/1.NDJSON.gz", "b/2.json", "b/deep/er/x.json.gz"]
    assert found.skipped == 3


def test_a_named_file_is_taken_whatever_its_ending(tree: Path) -> None:
    assert names(tree, tree / "README", tree / "a.jsonl") == ["README", "a.jsonl"]


def test_each_file_is_read_once(tree: Path) -> None:
    assert names(tree, tree / "b/2.json", tree, tree / "b/../b/2.json").count("b/2.json") == 1


def test_links_that_leave_the_folder_are_left_out(tree: Path) -> None:
    outside = tree.parent / "outside.json"
    outside.write_text("{}")
    (tree / "link.json").symlink_to(outside)
    (tree / "loop.json").symlink_to(tree / "loop.json")
    (tree / "up").symlink_to(tree.parent)
    (tree / "inside.json").symlink_to(tree / "a.jsonl")
    found = expand([tree])
    assert not [source for source in found.sources if source.path.name in ("link.json", "loop.json", "outside.json")]
    assert found.skipped == 5


def test_what_is_not_there_or_no_file_is_refused_without_its_name(tree: Path) -> None:
    os.mkfifo(tree / "pipe.json")
    for path, code in ((tree / "Canary-Name.json", "ingest.no_such_path"), (tree / "pipe.json", "ingest.not_a_file")):
        with pytest.raises(Invalid) as caught:
            expand([tree, path])
        assert caught.value.code == code
        assert "Canary" not in caught.value.message
    assert "pipe.json" not in names(tree, tree)
    with pytest.raises(Invalid, match="Nothing to read"):
        expand([])


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.json"))
    path.write_text("{}")
    (source,) = expand([tmp_path]).sources
    source.name.encode()
