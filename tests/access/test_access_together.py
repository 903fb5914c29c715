"""What a group of readings shares, and what the next group sees: rights, and the key ring."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from carelake.access.lockout import Lockout
from carelake.access.principals import Principal, Principals
from carelake.core.clock import FixedClock
from carelake.core.errors import CarelakeError
from carelake.core.permit import Permit
from carelake.core.settings import LockoutSettings
from carelake.vault import destruction, rotation


def beside(work: Callable[[], object]) -> None:
    """Do it in another thread, to its end: as another process would."""
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_a_key_that_is_disabled_counts_from_the_next_group_on(
    vault: Any, gate: Any, clock: FixedClock, permit_for: Callable[..., Permit]
) -> None:
    ring, name = vault.keyring, "production/patient"
    reads, admin = permit_for("rows:read"), permit_for("keys:write")
    with gate.together():
        before = ring.use(reads, "rows:read", name)
        beside(lambda: destruction.disable(admin, ring, clock, name))
        assert ring.use(reads, "rows:read", name) is before
    with gate.together(), pytest.raises(CarelakeError) as error:
        ring.use(reads, "rows:read", name)
    assert error.value.code == "vault.key_disabled"
    with pytest.raises(CarelakeError):
        ring.use(reads, "rows:read", name)


def test_a_group_that_fails_holds_no_ring(
    vault: Any, gate: Any, clock: FixedClock, permit_for: Callable[..., Permit]
) -> None:
    admin = permit_for("keys:write")
    with pytest.raises(RuntimeError), gate.together():
        raise RuntimeError
    before = vault.keyring.current()
    rotation.rotate(admin, vault.keyring, clock, "production/clinical")
    assert vault.keyring.current().file.generation > before.file.generation


def test_a_right_that_is_taken_counts_from_the_next_group_on(vault: Any, gate: Any) -> None:
    who = Principal("reader", "person", ("clinician",), ("production",))
    with vault.database.ledger() as connection:
        Principals(connection).add(who)

    def allowed() -> bool:
        return bool(gate.explain(who, "record:read", "production", "TREAT", ("Patient",)).allowed)

    def disable() -> None:
        with vault.database.ledger() as connection:
            Principals(connection).disable("reader")

    with gate.together():
        assert allowed()
        beside(disable)
        assert allowed()  # the group's moment began before
    with gate.together():
        assert not allowed()


def test_acts_tell_of_the_verdict_that_counted(vault: Any, gate: Any) -> None:
    """What acts say of a verdict is made once for it, and anew for another one."""
    found = []
    for roles in (("clinician",), ("clinician", "auditor"), ("clinician",)):
        with vault.database.ledger() as connection:
            people = Principals(connection)
            name = f"one{len(found)}"
            people.add(Principal(name, "person", roles, ("production",)))
            who = people.get(name)
        for _ in range(2):
            with gate.enter(who, "record:read", "Patient", "TREAT", account="production") as permit:
                pass
            with vault.database.ledger_reading() as connection:
                row = connection.exec_driver_sql(f"SELECT facts FROM act WHERE correlation = '{permit.act}'").scalar()
            found.append((roles, row))
    assert all(str(list(roles)).replace("'", '"').replace(" ", "") in str(row) for roles, row in found)


def test_failures_of_somebody_else_do_not_stand_against_a_pair(vault: Any) -> None:
    lockout = Lockout(vault, LockoutSettings())
    with vault.database.ledger_reading() as connection:
        assert not lockout.stands(connection, "here", "one")
    lockout.failed("here", "one")
    with vault.database.together(), vault.database.ledger_reading() as connection:
        assert lockout.stands(connection, "here", "one")
        assert not lockout.stands(connection, "here", "other")
        assert not lockout.stands(connection, "there", "one")
