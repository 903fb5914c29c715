"""Bodies under patients' keys: bound to their place, lost with their key, never sealed under an undone one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from carelake.core.clock import FixedClock
from carelake.core.errors import Corrupt, Gone, Invalid, Refused
from carelake.core.ids import RandomIds
from carelake.core.permit import Permit
from carelake.vault.sealing import Sealer
from carelake.vault.tables import patient_key
from carelake.vault.workspace import Vault

PermitFor = Callable[..., Permit]


@pytest.fixture
def rows(permit_for: PermitFor) -> Permit:
    return permit_for("rows:read", "rows:write", "rows:erase")


def sealed(vault: Vault, permit: Permit, owner: str, data: bytes = b"body", context: bytes = b"Patient/1/1") -> bytes:
    with vault.database.transaction(permit) as tx:
        return vault.sealer.seal(permit, tx, owner, context, data)


def opened(vault: Vault, permit: Permit, owner: str, body: bytes, context: bytes = b"Patient/1/1") -> bytes:
    with vault.database.reading(permit) as tx:
        return vault.sealer.open(permit, tx, owner, context, body)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    owner=st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20),
    data=st.binary(),
    context=st.binary(),
)
def test_what_is_sealed_opens(vault: Vault, rows: Permit, owner: str, data: bytes, context: bytes) -> None:
    body = sealed(vault, rows, owner, data, context)
    assert opened(vault, rows, owner, body, context) == data
    assert len(body) == len(data) + 31
    assert sealed(vault, rows, owner, data, context) != body


def test_every_byte_and_every_binding_counts(vault: Vault, rows: Permit, permit_for: PermitFor) -> None:
    body = sealed(vault, rows, "p1")
    sealed(vault, rows, "p2")
    for at in range(len(body)):
        bad = bytearray(body)
        bad[at] ^= 1
        with pytest.raises(Corrupt):
            opened(vault, rows, "p1", bytes(bad))
    for cut in (b"", body[:10], body[:-1], body + b"x"):
        with pytest.raises(Corrupt):
            opened(vault, rows, "p1", cut)
    with pytest.raises(Corrupt):
        opened(vault, rows, "p1", body, b"Patient/1/2")
    for owner in ("p2", ""):
        with pytest.raises(Corrupt):
            opened(vault, rows, owner, body)
    other = permit_for("rows:read", "rows:write", account="research")
    sealed(vault, other, "p1")
    with pytest.raises(Corrupt):
        opened(vault, other, "p1", body)


def test_a_page_takes_few_statements(vault: Vault, rows: Permit) -> None:
    owners = [f"p{number}" for number in range(1000)]
    with vault.database.transaction(rows) as tx:
        keys = vault.sealer.keys_for(rows, tx, [*owners, *owners, ""])
        bodies = [keys.seal(owner, b"c", owner.encode()) for owner in [*owners, ""]]
    fresh = Sealer(vault.keyring, "w1", vault.clock)
    with vault.database.reading(rows) as tx:
        before = tx.exec_driver_sql("SELECT count(*) FROM patient_key").scalar()
        keys = fresh.keys_for(rows, tx, [*owners, ""], create=False)
        assert before == 1000
        assert [keys.open(owner, b"c", body).decode() for owner, body in zip([*owners, ""], bodies, strict=True)] == [
            *owners,
            "",
        ]
        with pytest.raises(Refused):
            keys.seal("p1", b"", b"")
    with pytest.raises(Invalid, match="ended"):
        keys.open("p1", b"c", bodies[1])


def test_a_key_that_was_rolled_back_is_not_used_again(vault: Vault, rows: Permit) -> None:
    def fail() -> None:
        with vault.database.transaction(rows) as tx:
            vault.sealer.seal(rows, tx, "p1", b"c", b"lost")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    body = sealed(vault, rows, "p1")
    with vault.database.reading(rows) as tx:
        fresh = Sealer(vault.keyring, "w1", vault.clock)
        assert fresh.open(rows, tx, "p1", b"Patient/1/1", body) == b"body"


def test_a_key_that_a_savepoint_undid_is_not_used_again(vault: Vault, rows: Permit) -> None:
    with vault.database.transaction(rows) as tx:
        savepoint = tx.begin_nested()
        held = vault.sealer.keys_for(rows, tx, ["p1"])
        held.seal("p1", b"c", b"lost")
        savepoint.rollback()
        with pytest.raises(Invalid, match="undone"):
            held.seal("p1", b"c", b"lost as well")
        body = vault.sealer.seal(rows, tx, "p1", b"c", b"kept")
        savepoint = tx.begin_nested()
        vault.sealer.seal(rows, tx, "p2", b"c", b"lost")
        savepoint.rollback()
        again = vault.sealer.seal(rows, tx, "p1", b"c", b"kept too")
    fresh = Sealer(vault.keyring, "w1", vault.clock)
    for sealer in (fresh, vault.sealer):
        with vault.database.reading(rows) as tx:
            assert sealer.open(rows, tx, "p1", b"c", body) == b"kept"
            assert sealer.open(rows, tx, "p1", b"c", again) == b"kept too"
            assert tx.scalar(select(func.count()).select_from(patient_key)) == 1


def test_an_erased_key_is_gone_for_everyone_at_once(vault: Vault, rows: Permit, clock: FixedClock) -> None:
    body = sealed(vault, rows, "p1")
    kept = sealed(vault, rows, "p2")
    key_dir = vault.root.parent / "keys"
    with Vault.open(vault.root, settings=vault.settings, key_dir=key_dir, clock=clock, ids=RandomIds()) as second:
        assert opened(second, rows, "p1", body) == b"body"
        with vault.database.transaction(rows) as tx:
            held = vault.sealer.keys_for(rows, tx, ["p1"])
            assert vault.sealer.forget(rows, tx, "p1") == 1
            with pytest.raises(Invalid):
                held.seal("p1", b"", b"")
            with pytest.raises(Gone):
                vault.sealer.open(rows, tx, "p1", b"Patient/1/1", body)
        for each in (vault, second):
            with pytest.raises(Gone) as caught:
                opened(each, rows, "p1", body)
            assert caught.value.code == "vault.erased"
            assert opened(each, rows, "p2", kept) == b"body"
    new = sealed(vault, rows, "p1")
    assert opened(vault, rows, "p1", new) == b"body"
    with pytest.raises(Corrupt):
        opened(vault, rows, "p1", body)


def test_an_erasure_that_was_rolled_back_did_not_happen(vault: Vault, rows: Permit) -> None:
    body = sealed(vault, rows, "p1")

    def fail() -> None:
        with vault.database.transaction(rows) as tx:
            vault.sealer.forget(rows, tx, "p1")
            vault.sealer.seal(rows, tx, "p1", b"c", b"lost")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert opened(vault, rows, "p1", body) == b"body"
    assert opened(vault, rows, "p1", sealed(vault, rows, "p1")) == b"body"


def test_the_cache_is_bounded_and_what_falls_out_is_read_again(vault: Vault, rows: Permit) -> None:
    small = Sealer(vault.keyring, "w1", vault.clock, cached=10)
    with vault.database.transaction(rows) as tx:
        bodies = {f"p{n}": small.seal(rows, tx, f"p{n}", b"c", b"%d" % n) for n in range(50)}
    with vault.database.reading(rows) as tx:
        for owner, body in bodies.items():
            assert small.open(rows, tx, owner, b"c", body).decode() == owner[1:]
    assert len(small._cache.young) + len(small._cache.old) <= 10


def test_sealing_needs_a_transaction_and_the_right_grant(vault: Vault, rows: Permit, permit_for: PermitFor) -> None:
    with vault.database.reading(rows) as tx, pytest.raises(Invalid, match="transaction"):
        vault.sealer.seal(rows, tx, "p1", b"", b"")
    reader, writer, eraser = permit_for("rows:read"), permit_for("rows:write"), permit_for("rows:read", "rows:write")
    body = sealed(vault, writer, "p1")
    with vault.database.transaction(writer) as tx:
        with pytest.raises(Refused):
            vault.sealer.seal(reader, tx, "p1", b"", b"")
        with pytest.raises(Refused):
            vault.sealer.open(writer, tx, "p1", b"", body)
        with pytest.raises(Refused):
            vault.sealer.forget(eraser, tx, "p1")
        with pytest.raises(Invalid, match="256"):
            vault.sealer.seal(writer, tx, "x" * 257, b"", b"")


def test_a_wrapped_key_moved_to_another_patient_does_not_open(vault: Vault, rows: Permit) -> None:
    body = sealed(vault, rows, "p1")
    sealed(vault, rows, "p2")
    with vault.database.transaction(rows) as tx:
        tx.exec_driver_sql(
            "UPDATE patient_key SET wrapped = (SELECT wrapped FROM patient_key WHERE patient = 'p2') "
            "WHERE patient = 'p1'"
        )
    fresh = Sealer(vault.keyring, "w1", vault.clock)
    with vault.database.reading(rows) as tx, pytest.raises(Corrupt):
        fresh.open(rows, tx, "p1", b"Patient/1/1", body)


def test_references_and_signatures(vault: Vault, permit_for: PermitFor) -> None:
    permit, other = permit_for("models:write"), permit_for("models:write", account="research")
    keyring = vault.keyring
    assert keyring.reference(permit, "resource", b"x") == keyring.reference(permit, "resource", b"x")
    assert keyring.reference(permit, "resource", b"x")[9:] != keyring.reference(permit, "view", b"x")[5:]
    signature = keyring.sign(permit, "models", b"data")
    assert keyring.verify(b"data", signature, account="production", purpose="models")
    assert not keyring.verify(b"date", signature, account="production", purpose="models")
    assert not keyring.verify(b"data", signature, account="research", purpose="models")
    assert not keyring.verify(b"data", b"junk", account="production", purpose="models")
    assert keyring.sign(other, "models", b"data") != signature
    trail = keyring.sign_trail(b"segment")
    assert keyring.verify(b"segment", trail, account="security", purpose="trail")
    assert not keyring.verify(b"segment", trail, account="security", purpose="models")
    assert keyring.trail_public_key().startswith(b"-----BEGIN PUBLIC KEY-----")
    assert len(keyring.sign_token(b"head.body")) == 64
    for purpose, account in (("trail", "production"), ("other", "security"), ("models", "nobody")):
        with pytest.raises(Invalid):
            keyring.verify(b"", b"", account=account, purpose=purpose)
    with pytest.raises(Invalid):
        keyring.sign(permit, "trail", b"")
