"""Lock-out: longer each time, for the pair of source and name alone."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from carelake.access.identity import Identity
from carelake.access.lockout import UNKNOWN, Lockout
from carelake.access.principals import Principal
from carelake.access.tables import access_failure
from carelake.core.clock import FixedClock
from carelake.core.errors import Unauthenticated
from carelake.core.settings import LockoutSettings


@pytest.fixture
def lockout(vault: Any) -> Lockout:
    return Lockout(vault, LockoutSettings(failures=3, window_seconds=60, first_seconds=10, max_seconds=35))


def fail(lockout: Lockout, times: int, source: str = "1.2.3.4", name: str = "ann") -> None:
    for _ in range(times):
        lockout.failed(source, name)


def locked(lockout: Lockout, source: str = "1.2.3.4", name: str = "ann") -> int:
    try:
        lockout.check(source, name)
    except Unauthenticated as error:
        return int(str(error.facts["retry_after"])) if error.code == "access.locked" else -1
    return 0


def test_the_wait_grows_to_its_most(lockout: Lockout, clock: FixedClock) -> None:
    for seconds in (10, 20, 35, 35):
        fail(lockout, 2)
        assert not locked(lockout)
        fail(lockout, 1)
        assert locked(lockout) == seconds + 1
        clock.move(seconds=seconds)
        assert not locked(lockout)


def test_others_do_not_wait(lockout: Lockout) -> None:
    fail(lockout, 3)
    assert locked(lockout)
    assert not locked(lockout, source="5.6.7.8")
    assert not locked(lockout, name="bob")
    assert not locked(lockout, name=UNKNOWN)


def test_a_success_and_time_forget(lockout: Lockout, clock: FixedClock) -> None:
    fail(lockout, 2)
    lockout.succeeded("1.2.3.4", "ann")
    fail(lockout, 2)
    clock.move(seconds=61)
    fail(lockout, 2)
    assert not locked(lockout)


def test_made_up_names_lock_out_nobody_and_do_not_stay(vault: Any, clock: FixedClock) -> None:
    identity = Identity(vault)
    identity.bind_defaults(1)
    good = identity.issue(identity.named("auditor", _me()), purpose="HOPERAT", account="production", seconds=2000)
    head = good.partition(".")[0]
    for number in range(20):
        forged = json.dumps({"iss": identity.tokens.issuer, "sub": f"user{number}"}).encode()
        body = base64.urlsafe_b64encode(forged).rstrip(b"=").decode()
        with pytest.raises(Unauthenticated):
            identity.bearer(f"{head}.{body}.AAAA", "9.9.9.9")
    clock.move(seconds=901)
    with pytest.raises(Unauthenticated):
        identity.bearer("a.b.c", "9.9.9.9")
    with vault.database.ledger_reading() as connection:
        assert len(connection.execute(access_failure.select()).all()) <= 2
    assert identity.bearer(good, "9.9.9.9").principal.name == "auditor"


def test_a_name_that_is_attacked_from_one_place_is_free_elsewhere(vault: Any) -> None:
    identity = Identity(vault)
    identity.bind_defaults(1)
    good = identity.issue(identity.named("auditor", _me()), purpose="HOPERAT", account="production", seconds=60)
    forged = good.rsplit(".", 1)[0] + "." + "A" * 86
    codes = []
    for _ in range(7):
        with pytest.raises(Unauthenticated) as caught:
            identity.bearer(forged, "9.9.9.9")
        codes.append(caught.value.code)
    assert codes == ["access.token"] * 5 + ["access.locked"] * 2
    with pytest.raises(Unauthenticated):
        identity.bearer(good, "9.9.9.9")
    assert identity.bearer(good, "1.1.1.1").principal.name == "auditor"


def test_a_lock_does_not_tell_who_there_is(vault: Any) -> None:
    identity = Identity(vault)
    identity.bind_defaults(1)
    codes: dict[str, list[str]] = {}
    for name in ("auditor", "nobody"):
        forged = json.dumps({"iss": identity.tokens.issuer, "sub": name}).encode()
        text = "eyJhbGciOiJFUzI1NiJ9." + base64.urlsafe_b64encode(forged).rstrip(b"=").decode() + "." + "A" * 86
        for _ in range(7):
            with pytest.raises(Unauthenticated) as caught:
                identity.bearer(text, "9.9.9.9")
            codes.setdefault(name, []).append(caught.value.code)
    assert codes["auditor"] == codes["nobody"]


def _me() -> Principal:
    return Principal("operator", "person", ("operator",), ())
