"""Decision D2: a permit is a capability that cannot be made up, altered, stretched or lent."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from carelake.core.clock import FixedClock
from carelake.core.errors import Refused
from carelake.core.permit import Permit, check

Make = Callable[..., Permit]


def test_a_minted_permit_opens_what_it_grants(permit_for: Make, clock: FixedClock) -> None:
    permit = permit_for("clinical:read")
    check(permit, "clinical:read", now=clock.now(), account="production")
    with pytest.raises(Refused, match="does not open") as caught:
        check(permit, "clinical:write", now=clock.now())
    assert caught.value.code == "permit.grant"


@pytest.mark.parametrize(
    "change",
    [
        {"grants": frozenset({"clinical:read", "clinical:write"})},
        {"account": "research"},
        {"principal": "someone"},
        {"purpose": "HRESCH"},
        {"scope": ("everything",)},
        {"expires": FixedClock},
        {"action": "other:act"},
        {"seal": b""},
    ],
)
def test_an_altered_permit_is_forged(permit_for: Make, clock: FixedClock, change: dict[str, Any]) -> None:
    permit = permit_for("clinical:read")
    if "expires" in change:
        change = {"expires": permit.expires + timedelta(days=1)}
    with pytest.raises(Refused) as caught:
        check(dataclasses.replace(permit, **change), "clinical:read", now=clock.now())
    assert caught.value.code == "permit.forged"


def test_a_permit_expires(permit_for: Make, clock: FixedClock) -> None:
    permit = permit_for("clinical:read")
    clock.move(hours=2)
    with pytest.raises(Refused) as caught:
        check(permit, "clinical:read", now=clock.now())
    assert caught.value.code == "permit.expired"


def test_a_permit_is_for_one_account(permit_for: Make, clock: FixedClock) -> None:
    with pytest.raises(Refused) as caught:
        check(permit_for("clinical:read"), "clinical:read", now=clock.now(), account="research")
    assert caught.value.code == "permit.account"


def test_a_permit_that_travelled_through_bytes_is_worth_nothing(permit_for: Make, clock: FixedClock) -> None:
    permit = permit_for("clinical:read")
    copy = pickle.loads(pickle.dumps(permit))
    with pytest.raises(Refused) as caught:
        check(copy, "clinical:read", now=clock.now())
    assert caught.value.code == "permit.forged"


def test_a_permit_does_not_show_its_seal(permit_for: Make) -> None:
    permit = permit_for("clinical:read")
    assert permit.seal.hex() not in repr(permit)
    assert "seal" not in repr(permit)


def test_anything_else_is_no_permit(clock: FixedClock) -> None:
    with pytest.raises(Refused):
        check(object(), "clinical:read", now=clock.now())  # type: ignore[arg-type]
