"""Code that runs in our process: what it gets without a permit, with one of another kind, and with a kept one."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from carelake.core.clock import FixedClock
from carelake.core.errors import CarelakeError, Refused
from carelake.core.permit import Permit

OPERATOR = "operator"
SOURCES = Path(__file__).parents[2] / "src" / "carelake"


class Forger(dict[str, Any]):
    """Says yes to everything."""

    def __contains__(self, _: object) -> bool:
        return True


def entered(gate: Any, action: str, **other: Any) -> Any:
    from carelake.access.principals import DEFAULTS

    name = other.pop("name", OPERATOR)
    who = next(one for one in DEFAULTS if one.name == name)
    return gate.enter(who, action, "workspace", "HOPERAT", account=other.pop("account", "production"), **other)


def refused(call: Callable[[], Any]) -> str:
    try:
        got = call()
        if hasattr(got, "__enter__"):
            got.__enter__()
        if isinstance(got, Iterator):
            next(got, None)
    except Refused as error:
        return error.code
    raise AssertionError("it was opened")


def doors(vault: Any, permit: Any) -> list[Callable[[], Any]]:
    """Ways into bytes and rows."""
    return [
        lambda: vault.objects.get(permit, "landing", "a"),
        lambda: vault.objects.put(permit, "landing", "b", b"x"),
        lambda: list(vault.objects.list(permit, "landing", "")),
        lambda: vault.database.reading(permit),
        lambda: vault.database.transaction(permit),
        lambda: vault.database.engine_for(permit),
        lambda: vault.keyring.reference(permit, "landing", b"x"),
        lambda: vault.keyring.sign(permit, "models", b"x"),
        lambda: list(vault.objects.verify(permit)),
    ]


@pytest.fixture
def held(vault: Any, gate: Any) -> Any:
    with entered(gate, "object:write@landing") as permit:
        vault.objects.put(permit, "landing", "a", b"x")
    return vault


def test_code_without_a_permit(held: Any) -> None:
    like = {"grants": frozenset({"landing:read"}), "account": "production", "seal": b"", "log": None, "scope": ()}
    for nothing in (None, "operator", object(), SimpleNamespace(**like), True):
        for call in doors(held, nothing):
            assert refused(call) == "permit.forged"


def test_a_permit_that_was_made_up_or_altered(held: Any, gate: Any, clock: FixedClock) -> None:
    with entered(gate, "status:read") as permit:
        everything = frozenset({"landing:read", "landing:write", "rows:read", "rows:write", "vault:verify"})
        others = [
            replace(permit, grants=everything),
            replace(permit, expires=permit.expires + timedelta(days=9)),
            replace(permit, account="research"),
            replace(permit, log=copy.copy(permit.log)),
            Permit(**{**{n: getattr(permit, n) for n in Permit.__slots__}, "seal": bytes(32)}),
        ]
        for forged in others:
            for call in doors(held, forged):
                assert refused(call) == "permit.forged"


def test_a_permit_for_another_action(held: Any, gate: Any) -> None:
    with entered(gate, "status:read") as permit:
        assert refused(lambda: held.objects.get(permit, "landing", "a")) == "permit.grant"
        assert refused(lambda: held.database.transaction(permit)) == "permit.grant"
        assert refused(lambda: list(held.objects.verify(permit))) == "permit.grant"
    with entered(gate, "object:read@landing") as permit:
        assert refused(lambda: held.objects.get(permit, "models", "a")) == "permit.grant"
        assert refused(lambda: held.objects.put(permit, "landing", "b", b"")) == "permit.grant"


def test_a_permit_that_is_used_after_its_act(held: Any, gate: Any) -> None:
    """What it would read, no act would tell of."""
    with entered(gate, "object:write@landing") as kept:
        assert held.objects.get(kept, "landing", "a") == b"x"
    for call in doors(held, kept)[:-1]:
        assert refused(call) == "permit.ended"
    with pytest.raises(ZeroDivisionError), entered(gate, "object:write@landing") as broken:
        raise ZeroDivisionError
    assert refused(lambda: held.objects.get(broken, "landing", "a")) == "permit.ended"


def test_an_expired_permit(held: Any, gate: Any, clock: FixedClock) -> None:
    with entered(gate, "object:write@landing") as permit:
        clock.move(seconds=3601)
        for call in doors(held, permit)[:5]:
            assert refused(call) == "permit.expired"
        clock.move(seconds=-3601)


def test_a_permit_is_not_carried_to_another_process(held: Any, gate: Any, tmp_path: Path) -> None:
    with entered(gate, "object:read@landing") as permit:
        bare = replace(permit, log=None)  # type: ignore[arg-type]
        (tmp_path / "permit").write_bytes(pickle.dumps(bare))
    code = (
        "import pickle, sys, datetime as d\n"
        "from carelake.core.permit import check\n"
        "from carelake.core.errors import Refused\n"
        "try: check(pickle.load(open(sys.argv[1], 'rb')), 'landing:read', now=d.datetime(2026, 1, 1, tzinfo=d.UTC))\n"
        "except Refused as e: print(e.code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "permit")], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "permit.forged"


def test_a_clock_set_back_revives_no_permit_whose_act_is_over(held: Any, gate: Any, clock: FixedClock) -> None:
    with entered(gate, "object:read@landing") as kept:
        pass
    clock.move(days=-30)
    assert refused(lambda: held.objects.get(kept, "landing", "a")) == "permit.ended"


def test_a_clock_set_back_does_not_shorten_a_retention(held: Any, gate: Any, clock: FixedClock) -> None:
    """What is kept until a date is kept, whichever way the clock is moved before that date."""
    with entered(gate, "object:keep@landing") as permit:
        held.objects.keeping.retain(permit, "landing", "a", "compliance", clock.now() + timedelta(days=10))
    clock.move(days=-400)
    with entered(gate, "object:keep@landing") as permit, pytest.raises(Refused) as caught:
        held.objects.keeping.purge(permit, "landing", "a")
    assert caught.value.code == "vault.retained"


def test_a_permit_is_no_sandbox(vault: Any) -> None:
    """The limit, as the threat model says it: private names are no wall against code in our own process.

    When this fails, the page may promise more.
    """
    assert len(vault.keyring.inner("production/landing").secret) == 32


def test_a_forger_of_segments_gets_none_in(vault: Any, gate: Any) -> None:
    """A signature by another key than the workspace's: the sealer itself refuses to enter it."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    from carelake.audit.trail import Trail

    with entered(gate, "audit:read", name="auditor") as permit:
        permit.log.count(rows=1)
    Trail(vault).seal(gate.sealing())
    forger = ec.generate_private_key(ec.SECP256R1())
    with pytest.MonkeyPatch.context() as patch:
        forged = lambda _self, data, *_a, **_k: forger.sign(data, ec.ECDSA(hashes.SHA256()))  # noqa: E731
        patch.setattr(type(vault.keyring), "sign_trail", forged)
        with entered(gate, "audit:read", name="auditor") as permit:
            permit.log.count(rows=666)
        with pytest.raises(CarelakeError):
            Trail(vault).seal(gate.sealing())
    Trail(vault).seal(gate.sealing())
    found = Trail(vault).verify(gate.sealing())
    assert found.intact, "what could not be forged was sealed honestly afterwards"
