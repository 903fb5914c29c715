"""The list of what must not come back: never cut, and not read as a whole for each line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from carelake.core.errors import Corrupt, Gone, Unsupported
from carelake.core.permit import Permit
from carelake.vault import forgotten
from carelake.vault.forgotten import Forgotten
from carelake.vault.tables import forgotten_patient
from carelake.vault.workspace import Vault

AT = "2026-01-02T03:04:05.000Z"


@pytest.fixture
def listed(tmp_path: Path) -> Forgotten:
    return Forgotten(tmp_path / "keys", "w1", b"s" * 32)


def erase(listed: Forgotten, *numbers: int) -> None:
    for number in numbers:
        listed.note_patient(f"{number:032x}", "production", f"{number:064x}", AT)


def test_a_list_over_its_bound_is_refused_and_not_cut(listed: Forgotten) -> None:
    erase(listed, *range(6))
    before = listed.read()
    fresh = replace(listed)
    assert len(fresh.lines()) == 6
    for bound in (len(before), len(before) - 100):
        for each in (listed, fresh):
            object.__setattr__(each, "most_bytes", bound)
            with pytest.raises(Unsupported) as caught:
                erase(each, 7)
            assert caught.value.code == "vault.forgotten_size"
    with pytest.raises(Unsupported):
        fresh.lines()
    assert listed.path.read_bytes() == before


def test_an_erasure_that_the_list_has_no_room_for_does_not_happen(
    vault: Vault, permit_for: Callable[..., Permit]
) -> None:
    """It is refused before it commits: no key goes that the list could not keep from coming back."""
    permit = permit_for("rows:read", "rows:write", "rows:erase")
    with vault.database.transaction(permit) as tx:
        bodies = {owner: vault.sealer.seal(permit, tx, owner, b"at", b"said") for owner in ("p1", "p2", "p3")}
    before = vault.forgotten.read()

    def forget(*owners: str) -> None:
        with vault.database.transaction(permit) as tx:
            for owner in owners:
                assert vault.sealer.forget(permit, tx, owner) == 1

    # Room for one erasure, beside what is kept free for those that are on their way.
    object.__setattr__(vault.forgotten, "most_bytes", len(before) + forgotten._KEPT_FREE + forgotten._LINE_BYTES)
    with pytest.raises(Unsupported) as caught:
        forget("p1", "p2")
    assert caught.value.code == "vault.forgotten_full"
    with vault.database.reading(permit) as tx:
        assert {vault.sealer.open(permit, tx, owner, b"at", body) for owner, body in bodies.items()} == {b"said"}
        assert tx.execute(select(func.count()).select_from(forgotten_patient)).scalar_one() == 0
    assert vault.forgotten.read() == before
    forget("p3")
    assert [line.kind for line in vault.forgotten.lines()][-1] == "patient"
    with pytest.raises(Unsupported):
        forget("p1")
    with vault.database.reading(permit) as tx, pytest.raises(Gone):
        vault.sealer.open(permit, tx, "p3", b"at", bodies["p3"])


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
