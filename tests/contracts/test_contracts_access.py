"""Rights on every database: what one process takes away, another no longer has."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from carelake.access.gate import Gate
from carelake.access.glass import Glasses
from carelake.access.grants import Grant, Grants
from carelake.access.groups import Groups
from carelake.access.identity import Identity
from carelake.access.lockout import Lockout
from carelake.access.once import first_time
from carelake.access.policy import Policies
from carelake.access.principals import DEFAULTS, Principal, Principals
from carelake.apps.wiring import import_tables
from carelake.core.clock import FixedClock
from carelake.core.errors import Refused, Unauthenticated
from carelake.core.ids import RandomIds
from carelake.core.settings import LockoutSettings, Settings
from carelake.vault.workspace import Vault

POLICIES = Policies.load(Path("/nonexistent"))
ANN = Principal("ann", "person", ("clinician",), ("production",))


@pytest.fixture(params=["sqlcipher", "postgres"])
def settings(request: pytest.FixtureRequest) -> Settings:
    database = request.getfixturevalue("postgres") if request.param == "postgres" else None
    return Settings(workspace="w1") if database is None else Settings(workspace="w1", database=database)


@pytest.fixture
def vaults(settings: Settings, tmp_path: Path, clock: FixedClock) -> Iterator[tuple[Vault, Vault]]:
    """The same workspace opened twice, as two processes have it."""
    import_tables()
    told = {"settings": settings, "key_dir": tmp_path / "keys", "clock": clock, "ids": RandomIds()}
    with Vault.create(tmp_path / "ws", **told) as one, Vault.open(tmp_path / "ws", **told) as other:  # type: ignore[arg-type]
        with one.database.ledger() as connection:
            for who in (*DEFAULTS, ANN):
                Principals(connection).add(who, at=clock.now())
        yield one, other


def may(gate: Gate, account: str = "production", purpose: str = "TREAT") -> bool:
    try:
        with gate.enter(ANN, "record:read", "Patient", purpose, account=account):
            return True
    except Refused:
        return False


def test_what_is_taken_in_one_is_gone_in_the_other(vaults: tuple[Vault, Vault], clock: FixedClock) -> None:
    one, other = vaults
    here, there = Gate(one, POLICIES), Gate(other, POLICIES)
    assert may(here)
    assert may(there)
    for work, allowed in (
        (lambda c: Principals(c).disable("ann"), False),
        (lambda c: Principals(c).enable("ann"), True),
        (lambda c: Principals(c).remove_role("ann", "clinician"), False),
        (lambda c: Groups(c).add("ward", ["clinician"], at=clock.now()), False),
    ):
        with one.database.ledger() as connection:
            work(connection)
        assert may(there) is allowed
        assert may(here) is allowed


def test_grants_are_seen_everywhere(vaults: tuple[Vault, Vault], clock: FixedClock) -> None:
    one, other = vaults
    made = Grant("a" * 32, "ann", "ReadIdentified", "research", "HRESCH", 1, "operator", clock.now())
    boss = Principal("reviewer", "person", (), ("research",))
    there = Gate(other, POLICIES)
    assert not may(there, "research", "HRESCH")
    with one.database.ledger() as connection:
        Grants(connection).ask(made, most_days=5, seal=lambda name: b"s")
        Grants(connection).approve(made.id, boss, account="research", now=clock.now())
    assert may(there, "research", "HRESCH")
    with one.database.ledger_reading() as connection:
        assert [grant.state(clock.now()) for grant in Grants(connection).all()] == ["active"]
    clock.move(days=1)
    assert not may(there, "research", "HRESCH")


def test_emergency_access_is_seen_everywhere(vaults: tuple[Vault, Vault], clock: FixedClock) -> None:
    one, other = vaults
    with one.database.ledger() as connection:
        Principals(connection).remove_role("ann", "clinician")
        Principals(connection).add_role("ann", "administrator")
        glass = Glasses(connection).smash(
            ANN,
            name="b" * 32,
            account="production",
            purpose="ETREAT",
            reason="a reason that is long enough",
            minutes=5,
            most_minutes=60,
            review_days=1,
            now=clock.now(),
            reference=lambda text: "reason:" + "0" * 64,
            seal=lambda name, text: b"s",
        )
    boss = Identity(other).named("ann", ANN)
    gate = Gate(other, POLICIES)
    with gate.enter(boss, "record:read", "Patient", "ETREAT", account="production") as permit:
        assert permit.expires == clock.now() + timedelta(minutes=5)
    with other.database.ledger() as connection:
        Glasses(connection).end(glass.id, now=clock.now())
    with (
        pytest.raises(Refused),
        Gate(one, POLICIES).enter(boss, "record:read", "Patient", "ETREAT", account="production"),
    ):
        pass


def test_failures_are_counted_together(vaults: tuple[Vault, Vault]) -> None:
    one, other = (Lockout(vault, LockoutSettings(failures=4)) for vault in vaults)
    for lockout in (one, other, one, other):
        one.check("here", "ann")
        other.check("here", "ann")
        lockout.failed("here", "ann")
    for lockout in (one, other):
        with pytest.raises(Unauthenticated):
            lockout.check("here", "ann")


def test_once_is_once_for_all(vaults: tuple[Vault, Vault], clock: FixedClock) -> None:
    one, other = vaults
    until = clock.now() + timedelta(minutes=5)
    assert first_time(one, "signature", until)
    assert not first_time(other, "signature", until)
    clock.move(minutes=6)
    assert first_time(other, "signature", until + timedelta(minutes=6))


def test_a_revoked_token_is_revoked_everywhere(vaults: tuple[Vault, Vault]) -> None:
    one, other = (Identity(vault) for vault in vaults)
    text = one.issue(ANN, purpose="TREAT", account="production", seconds=60)
    claims = other.tokens.verified(text)
    assert other.bearer(text).principal.name == "ann"
    with vaults[0].database.ledger() as connection:
        one.tokens.revoke(connection, claims.id, "ann", claims.expires)
    with pytest.raises(Unauthenticated):
        other.bearer(text)
