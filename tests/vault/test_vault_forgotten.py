"""The list of what must not come back: never cut, and not read as a whole for each line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from carelake.core.errors import Corrupt, Unsupported
from carelake.vault import forgotten
from carelake.vault.forgotten import Forgotten

AT = "2026-01-02T03:04:05.000Z"


@pytest.fixture
def listed(tmp_path: Path) -> Forgotten:
    return Forgotten(tmp_path / "keys", "w1", b"s" * 32)


def erase(listed: Forgotten, *numbers: int) -> None:
    for number in numbers:
        listed.note_patient(f"{number:032x}", "production", f"{number:064x}", AT)


def test_a_list_over_its_bound_is_refused_and_not_cut(listed: Forgotten, monkeypatch: pytest.MonkeyPatch) -> None:
    erase(listed, *range(6))
    before = listed.read()
    fresh = Forgotten(listed.key_dir, "w1", listed.secret)
    monkeypatch.setattr(forgotten, "_MAX_BYTES", len(before))
    assert len(fresh.lines()) == 6
    for bound in (len(before), len(before) - 100):
        monkeypatch.setattr(forgotten, "_MAX_BYTES", bound)
        for each in (listed, fresh):
            with pytest.raises(Unsupported) as caught:
                erase(each, 7)
            assert caught.value.code == "vault.forgotten_size"
    with pytest.raises(Unsupported):
        fresh.lines()
    assert listed.path.read_bytes() == before


def test_an_append_reads_the_list_only_where_another_wrote_it(
    listed: Forgotten, monkeypatch: pytest.MonkeyPatch
) -> None:
    parse, parsed = forgotten._parse, []

    def counted(data: bytes, key: bytes) -> Any:
        parsed.append(len(data))
        return parse(data, key)

    monkeypatch.setattr(forgotten, "_parse", counted)
    erase(listed, *range(50), 3)
    assert parsed == []
    other = Forgotten(listed.key_dir, "w1", listed.secret)
    erase(other, 50, 51)
    erase(listed, 50, 52, 53)
    assert len(parsed) == 2
    assert [line.n for line in listed.lines()] == list(range(1, 55))
    # What a killed append left is written over; what was altered is found at the next reading.
    with listed.path.open("ab") as file:
        file.write(b'{"n":55')
    erase(listed, 54)
    assert len(listed.lines()) == 55
    listed.path.write_bytes(listed.read().replace(b"production", b"production ", 1))
    with pytest.raises(Corrupt):
        erase(listed, 55)


def test_a_list_that_was_removed_begins_anew(listed: Forgotten) -> None:
    erase(listed, 1, 2)
    listed.path.unlink()
    erase(listed, 2, 3)
    assert [(line.n, line.id[-1]) for line in listed.lines()] == [(1, "2"), (2, "3")]
