"""Signed requests: botocore's own signer is believed, everything else is refused."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore import auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from carelake.access.gate import Gate
from carelake.access.identity import Identity
from carelake.access.keys import AccessKeys
from carelake.access.principals import Principal, Principals
from carelake.access.sigv4 import SignedRequest, is_signed
from carelake.core.clock import FixedClock
from carelake.core.errors import Conflict, Refused, Unauthenticated

HOST = "127.0.0.1:8321"
SOURCES = itertools.count()  # each attempt comes from a place of its own, so that none is locked out


@pytest.fixture
def identity(vault: Any, gate: Gate) -> Identity:
    return Identity(vault)


@pytest.fixture
def key(vault: Any, gate: Gate) -> tuple[str, str]:
    with vault.database.ledger() as connection:
        Principals(connection).add(Principal("app", "service", ("application",), ("production",)))
    return made(vault, gate)


def made(vault: Any, gate: Gate) -> tuple[str, str]:
    operator = Principal("operator", "person", ("operator",), ("production",))
    with (
        gate.enter(operator, "credential:manage", "principal/app", "HOPERAT", account="production") as permit,
        vault.database.transaction(permit) as tx,
    ):
        who = Principals(tx).get("app")
        keys = AccessKeys(vault, tx)
        found, secret = keys.add(
            gate.vouching(), who, account="production", purpose="TREAT", role="application", by=operator
        )
    return found.id, secret


@pytest.fixture(autouse=True)
def told_time(monkeypatch: pytest.MonkeyPatch, clock: FixedClock) -> None:
    """The signer's clock is the workspace's."""
    monkeypatch.setattr(auth, "get_current_datetime", lambda: clock.now().replace(tzinfo=None))


def signed(
    key: tuple[str, str],
    method: str = "GET",
    path: str = "/fhir/Patient/p0?b=2&a=1",
    *,
    body: bytes = b"",
    service: str = "s3",
    region: str = "us-east-1",
    signer: Any = None,
    **headers: str,
) -> SignedRequest:
    kind = signer or (auth.S3SigV4Auth if service == "s3" else auth.SigV4Auth)
    request = AWSRequest(method, f"http://{HOST}{path}", data=body, headers=headers)
    kind(Credentials(*key), service, region).add_auth(request)
    parts = urlsplit(request.url)
    said = [(name.lower(), value) for name, value in request.headers.items()]
    return SignedRequest(method, parts.path, parts.query, [("host", HOST), *said, ("user-agent", "x")], body)


def refused(identity: Identity, gate: Gate, request: SignedRequest, code: str = "access.signature") -> None:
    with pytest.raises(Unauthenticated) as caught:
        identity.signed(request, gate.vouching(), f"source {next(SOURCES)}")
    assert caught.value.code == code


def altered(request: SignedRequest, name: str, value: str | None) -> SignedRequest:
    headers = [(key, said) for key, said in request.headers if key != name]
    return replace(request, headers=headers + ([(name, value)] if value is not None else []))


@pytest.mark.parametrize("service", ["s3", "healthlake", "sagemaker", "execute-api"])
@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/fhir/Patient/p0",
        "/fhir/Patient?name=%C3%A9&_count=5&a=&a=1",
        "/a%20b/c%2Fd/~e",
        "/a//b/../c",
        "/fhir/Observation?code=http%3A%2F%2Floinc.org%7C1234-5",
    ],
)
def test_the_signer_of_botocore_is_believed(
    identity: Identity, gate: Gate, key: tuple[str, str], service: str, path: str
) -> None:
    caller = identity.signed(signed(key, path=path, service=service), gate.vouching())
    assert (caller.principal.name, caller.purpose, caller.account) == ("app", "TREAT", "production")
    assert (caller.principal.roles, caller.principal.credential) == (("application",), f"key:{key[0]}")


def test_a_body_is_signed_too(identity: Identity, gate: Gate, key: tuple[str, str]) -> None:
    for service in ("s3", "healthlake"):
        request = signed(
            key, "POST", "/fhir", body=b'{"a": 1}', service=service, **{"content-type": "application/json"}
        )
        assert identity.signed(request, gate.vouching())
        refused(identity, gate, replace(signed(key, "PUT", "/fhir", body=b"one", service=service), body=b"two"))


def test_what_is_altered_is_refused(identity: Identity, gate: Gate, key: tuple[str, str]) -> None:
    good = signed(key)
    authorization = good.one("authorization")
    date = good.one("x-amz-date")
    for bad in (
        replace(good, method="DELETE"),
        replace(good, path="/fhir/Patient/p1"),
        replace(good, query="b=2&a=2"),
        replace(good, query="b=2&a=1&c=3"),
        altered(good, "host", "evil.example.org"),
        altered(good, "host", None),
        altered(good, "x-amz-date", date[:-3] + "59Z"),
        altered(good, "x-amz-date", None),
        altered(good, "x-amz-date", "yesterday"),
        altered(good, "x-amz-content-sha256", "UNSIGNED-PAYLOAD"),
        altered(good, "x-amz-security-token", "t"),
        replace(good, headers=[*good.headers, ("x-amz-target", "Delete")]),
        replace(good, headers=[*good.headers, ("x-amz-date", date)]),
        replace(good, headers=[*good.headers, ("host", HOST)]),
        altered(good, "authorization", authorization[:-1] + ("0" if authorization[-1] != "0" else "1")),
        altered(good, "authorization", authorization.replace("us-east-1", "eu-west-1")),
        altered(good, "authorization", authorization.replace("/s3/", "/iam/")),
        altered(good, "authorization", authorization.replace("host;", "")),
        altered(good, "authorization", authorization.replace("Signature=", "Signature= ")),
        altered(good, "authorization", authorization.replace(key[0], "AKCL" + "A" * 16)),
        altered(good, "authorization", authorization.replace("AWS4-HMAC-SHA256", "AWS4-HMAC-SHA1")),
        altered(good, "authorization", "AWS4-HMAC-SHA256 " + "x" * 5000),
    ):
        refused(identity, gate, bad)
    assert identity.signed(good, gate.vouching(), "elsewhere")


@pytest.mark.parametrize("other", [{"region": "eu-west-1"}, {"service": "iam"}])
def test_a_signature_for_elsewhere_is_refused(
    identity: Identity, gate: Gate, key: tuple[str, str], other: dict[str, str]
) -> None:
    refused(identity, gate, signed(key, **other))  # type: ignore[arg-type]


def test_another_secret_is_refused(identity: Identity, gate: Gate, key: tuple[str, str]) -> None:
    refused(identity, gate, signed((key[0], key[1][:-1] + "x")))


@pytest.mark.parametrize("minutes", [-6, 6])
def test_a_clock_that_is_wrong_is_refused(
    identity: Identity, gate: Gate, key: tuple[str, str], clock: FixedClock, minutes: int
) -> None:
    request = signed(key)
    clock.move(minutes=minutes)
    refused(identity, gate, request)
    clock.move(minutes=-minutes)
    assert identity.signed(request, gate.vouching(), "elsewhere")


def test_a_change_is_taken_once_and_a_reading_again(identity: Identity, gate: Gate, key: tuple[str, str]) -> None:
    reading, change = signed(key), signed(key, "POST", "/fhir", body=b"{}")
    for _ in range(2):
        assert identity.signed(reading, gate.vouching())
    assert identity.signed(change, gate.vouching())
    refused(identity, gate, change)


def test_a_presigned_address_reads_until_it_ends(
    identity: Identity, gate: Gate, key: tuple[str, str], clock: FixedClock
) -> None:
    for service, kind in (("s3", auth.S3SigV4QueryAuth), ("healthlake", auth.SigV4QueryAuth)):

        def signer(*given: Any, kind: Any = kind) -> Any:
            return kind(*given, expires=600)

        link = signed(key, service=service, signer=signer)
        link = replace(link, headers=[("host", HOST)])
        caller = identity.signed(link, gate.vouching())
        assert isinstance(caller.principal.until, datetime)
        for bad in (
            replace(link, method="PUT"),
            replace(link, query=link.query.replace("X-Amz-Expires=600", "X-Amz-Expires=900")),
            replace(link, query=link.query + "&more=1"),
            replace(link, query=link.query + "&X-Amz-Expires=600"),
            replace(link, body=b"x"),
        ):
            refused(identity, gate, bad)
        clock.move(seconds=600)
        refused(identity, gate, link)
        assert identity.signed(signed(key, service=service), gate.vouching(), "elsewhere")


def test_a_long_presigned_address_is_refused(identity: Identity, gate: Gate, key: tuple[str, str]) -> None:
    link = signed(key, signer=lambda *given: auth.S3SigV4QueryAuth(*given, expires=3600))
    refused(identity, gate, replace(link, headers=[("host", HOST)]))


def test_a_disabled_and_an_old_key_are_refused(
    vault: Any, identity: Identity, gate: Gate, key: tuple[str, str], clock: FixedClock
) -> None:
    clock.move(days=89)
    assert identity.signed(signed(key), gate.vouching())
    clock.move(days=1)
    refused(identity, gate, signed(key), "access.key_expired")
    fresh = made(vault, gate)
    assert identity.signed(signed(fresh), gate.vouching())
    with vault.database.ledger() as connection:
        AccessKeys(vault, connection).disable(fresh[0], by=None)
    refused(identity, gate, signed(fresh))


def test_the_secret_is_sealed_and_two_keys_are_the_most(vault: Any, gate: Gate, key: tuple[str, str]) -> None:
    with vault.database.ledger_reading() as connection:
        stored = connection.exec_driver_sql("SELECT sealed FROM access_key").scalar_one()
    assert key[1].encode() not in stored
    made(vault, gate)
    with pytest.raises(Conflict):
        made(vault, gate)


def test_the_time_of_use_is_kept_to_the_hour(
    vault: Any, identity: Identity, gate: Gate, key: tuple[str, str], clock: FixedClock
) -> None:
    def used() -> datetime | None:
        with vault.database.ledger_reading() as connection:
            return AccessKeys(vault, connection).get(key[0]).last_used

    assert used() is None
    identity.signed(signed(key), gate.vouching())
    first = used()
    clock.move(minutes=20)
    identity.signed(signed(key), gate.vouching())
    assert used() == first
    clock.move(minutes=50)
    identity.signed(signed(key), gate.vouching())
    assert used() == clock.now()


def test_a_key_is_known_to_who_signed_with_it_and_to_nobody_else(
    identity: Identity, gate: Gate, key: tuple[str, str]
) -> None:
    wrong = (key[0], "x" * len(key[1]))
    assert not identity.remembers_key(key[0], "ward")
    refused(identity, gate, signed(wrong))
    with pytest.raises(Unauthenticated):
        identity.signed(signed(wrong), gate.vouching(), "ward")
    assert not identity.remembers_key(key[0], "ward"), "it was looked up, and nothing was signed by it"
    identity.signed(signed(key), gate.vouching(), "ward")
    assert identity.remembers_key(key[0], "ward")
    assert not identity.remembers_key(key[0], "elsewhere")
    with pytest.raises(Unauthenticated):
        identity.signed(signed(wrong, path="/fhir/Patient/p1"), gate.vouching(), "ward")
    assert not identity.remembers_key(key[0], "ward")


def test_a_key_for_one_role_carries_that_alone_and_nothing_once_it_is_taken_away(
    vault: Any, identity: Identity, gate: Gate, key: tuple[str, str]
) -> None:
    def entered(action: str) -> None:
        caller = identity.signed(signed(key), gate.vouching())
        with gate.enter(caller.principal, action, "models", caller.purpose, account=caller.account):
            pass

    with vault.database.ledger() as connection:
        Principals(connection).add_role("app", "operator")
    entered("endpoint:invoke")
    entered("features:read")
    for action in ("endpoint:deploy", "endpoint:guard", "features:write", "monitor:check"):
        with pytest.raises(Refused):
            entered(action)
    with vault.database.ledger() as connection:
        Principals(connection).remove_role("app", "application")
    with pytest.raises(Refused):
        entered("endpoint:invoke")


def test_a_role_that_is_not_held_gives_no_key(vault: Any, gate: Gate, key: tuple[str, str]) -> None:
    with vault.database.ledger() as connection, pytest.raises(Refused):
        AccessKeys(vault, connection).add(
            gate.vouching(),
            Principals(connection).get("app"),
            account="production",
            purpose="TREAT",
            role="operator",
            by=None,
        )


def test_what_is_not_signed_is_not_taken_for_it() -> None:
    assert not is_signed(SignedRequest("GET", "/", "", [("authorization", "Bearer x")], b""))
    assert is_signed(SignedRequest("GET", "/", "X-Amz-Signature=0", [], b""))


@pytest.mark.parametrize("service", ["s3", "healthlake"])
@pytest.mark.parametrize("part", ["path", "query", "host"])
def test_what_is_behind_a_hash_is_not_left_unsigned(
    identity: Identity, gate: Gate, key: tuple[str, str], service: str, part: str
) -> None:
    made = signed(key, path="/fhir/Patient", service=service)
    forged = {
        "path": replace(made, path="/fhir/Patient#", query="name=anybody"),
        "query": replace(made, query="#&name=anybody"),
        "host": altered(made, "host", f"{HOST}/fhir/Patient#"),
    }
    refused(identity, gate, forged[part])


def test_a_key_that_is_not_there_takes_the_time_of_one_that_is(
    identity: Identity, gate: Gate, vault: Any, key: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[bytes] = []
    own = vault.sealer.open

    def counted(*said: Any) -> bytes:
        opened.append(said[3])
        return bytes(own(*said))

    monkeypatch.setattr(vault.sealer, "open", counted)
    refused(identity, gate, signed(("AKCL" + "A" * 16, key[1])))
    assert len(opened) == 1
