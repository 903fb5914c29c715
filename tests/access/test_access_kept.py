"""What is kept of a credential: for one state of all rights, while it lasts, and boundedly."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from carelake.access.kept import Kept

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Found(NamedTuple):
    name: str
    until: datetime = NOW + timedelta(seconds=10)


def test_it_is_good_for_one_state_and_one_time() -> None:
    kept: Kept[Found] = Kept()
    kept.put("token", ("stamp", 1), Found("a"))
    assert kept.get("token", ("stamp", 1), NOW) == Found("a")
    assert kept.get("token", ("stamp", 2), NOW) is None
    assert kept.get("token", ("other", 1), NOW) is None
    assert kept.get("token", ("stamp", 1), NOW + timedelta(seconds=10)) is None
    assert kept.get("Token", ("stamp", 1), NOW) is None
    assert kept.has("token")
    assert not kept.has("Token")


def test_it_is_bounded_and_keeps_what_is_asked_for() -> None:
    kept: Kept[Found] = Kept(most=100)
    kept.put("mine", 0, Found("mine"))
    for number in range(10_000):
        kept.put(f"t{number}", 0, Found("x"))
        if number % 10 == 0:
            assert kept.get("mine", 0, NOW) == Found("mine")
    assert len(kept._young) + len(kept._old) <= 100


def test_the_credential_itself_is_not_kept() -> None:
    kept: Kept[Found] = Kept()
    kept.put("very secret", 0, Found("a"))
    assert "secret" not in repr(vars(kept))
