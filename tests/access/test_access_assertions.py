"""Assertions of backend services, against those who forge, replay and mislead."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import warnings
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from tests.access.test_access_oidc import Provider, provider  # noqa: F401 - a fixture

from carelake.access.identity import Identity
from carelake.access.principals import Principal, Principals
from carelake.access.smart_clients import Client, Clients
from carelake.core.clock import FixedClock
from carelake.core.errors import Conflict, Invalid, Refused, Unauthenticated, Unavailable
from carelake.core.settings import AccessSettings, LockoutSettings, Settings

AUDIENCE = "https://fhir.example.org/auth/token"
RSA = rsa.generate_private_key(65537, 2048)
OTHER = rsa.generate_private_key(65537, 2048)
WEAK = rsa.generate_private_key(65537, 1024)
EC = ec.generate_private_key(ec.SECP384R1())
P256 = ec.generate_private_key(ec.SECP256R1())
Claims = dict[str, Any]


def jwk(key: Any, kid: str, **other: Any) -> dict[str, Any]:
    algorithm = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm
    return {**algorithm.to_jwk(key.public_key(), as_dict=True), "kid": kid, **other}


def key_set(*keys: dict[str, Any]) -> str:
    return json.dumps({"keys": list(keys)})


KEYS = key_set(jwk(RSA, "r"), jwk(EC, "e"), jwk(P256, "p"), jwk(WEAK, "w"), jwk(RSA, "u", use="enc"))


def client(clock: FixedClock, name: str, **said: Any) -> Client:
    told: dict[str, Any] = {
        "principal": "loader",
        "account": "production",
        "purpose": "TREAT",
        "scopes": "system/*.rs",
        "keys_url": "",
        "keys": KEYS,
        "created": clock.now(),
    }
    return Client(name, **{**told, **said})


@pytest.fixture
def identity(vault: Any, clock: FixedClock) -> Identity:
    vault.settings = Settings(workspace="w1", access=AccessSettings(lockout=LockoutSettings(failures=1000)))
    with vault.database.ledger() as connection:
        Principals(connection).add(Principal("loader", "service", ("application",), ("production",)))
        Principals(connection).add(Principal("ann", "person", ("application",), ("production",)))
        Clients(connection).add(client(clock, "loads"), by=None)
        Clients(connection).add(client(clock, "other", keys=key_set(jwk(OTHER, "r"))), by=None)
    return Identity(vault)


@pytest.fixture
def claims(clock: FixedClock) -> Claims:
    now = int(clock.now().timestamp())
    return {"iss": "loads", "sub": "loads", "aud": AUDIENCE, "exp": now + 300, "jti": "j1"}


def signed(claims: Claims, key: Any = RSA, algorithm: str = "RS384", kid: str | None = "r", **head: Any) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a weak key
        return jwt.encode(claims, key, algorithm, {**({"kid": kid} if kid is not None else {}), **head})


def refused(identity: Identity, text: str, audience: str = AUDIENCE) -> None:
    with pytest.raises(Unauthenticated) as caught:
        identity.asserted(text, audience)
    assert caught.value.code == "access.client"
    assert caught.value.message.startswith("The client is not known here, or its assertion is not valid")


@pytest.mark.parametrize(("key", "algorithm", "kid"), [(RSA, "RS384", "r"), (EC, "ES384", "e")], ids=["RS", "ES"])
def test_a_good_assertion_names_its_client(
    identity: Identity, claims: Claims, key: Any, algorithm: str, kid: str
) -> None:
    caller, found = identity.asserted(signed(claims, key, algorithm, kid), AUDIENCE)
    assert (caller.principal.name, caller.account, caller.purpose) == ("loader", "production", "TREAT")
    assert caller.principal.credential == "client:loads"
    assert found.scopes == "system/*.rs"


def _pem(key: Any) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return bytes(key.public_key().public_bytes(serialization.Encoding.PEM, form))


def _confused(claims: Claims, algorithm: str, secret: bytes) -> str:
    """Signed by a public key, as if it were a shared secret."""

    def part(value: Any) -> bytes:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")

    head = part({"alg": algorithm, "kid": "r", "typ": "JWT"})
    said = head + b"." + part(claims)
    digest = {"HS256": hashlib.sha256, "HS384": hashlib.sha384}[algorithm]
    return (said + b"." + base64.urlsafe_b64encode(hmac.digest(secret, said, digest)).rstrip(b"=")).decode()


ATTACKS: dict[str, Callable[[Claims], str]] = {
    "another's key": lambda c: signed(c, OTHER),
    "another client's name": lambda c: signed({**c, "iss": "other", "sub": "other"}),
    "another subject": lambda c: signed({**c, "sub": "other"}),
    "another issuer": lambda c: signed({**c, "iss": "other"}),
    "nobody's name": lambda c: signed({**c, "iss": "nobody", "sub": "nobody"}),
    "a name that is none": lambda c: signed({**c, "iss": "'; --", "sub": "'; --"}),
    "a principal's name": lambda c: signed({**c, "iss": "loader", "sub": "loader"}),
    "no signature": lambda c: jwt.encode(c, None, algorithm="none", headers={"kid": "r"}),
    "a public key as a secret": lambda c: _confused(c, "HS384", _pem(RSA)),
    "a public key as a secret, 256": lambda c: _confused(c, "HS256", _pem(RSA)),
    "RS256": lambda c: signed(c, algorithm="RS256"),
    "RS512": lambda c: signed(c, algorithm="RS512"),
    "PS384": lambda c: signed(c, algorithm="PS384"),
    "ES256": lambda c: signed(c, P256, "ES256", "p"),
    "a weak key": lambda c: signed(c, WEAK, kid="w"),
    "a key for encryption": lambda c: signed(c, kid="u"),
    "the curve key's id": lambda c: signed(c, kid="e"),
    "no key id": lambda c: signed(c, kid=None),
    "an empty key id": lambda c: signed(c, kid=""),
    "an unknown key id": lambda c: signed(c, kid="x"),
    "its own key": lambda c: signed(c, OTHER, jwk=jwk(OTHER, "r")),
    "its own key set": lambda c: signed(c, OTHER, jku="http://127.0.0.1:9/jwks"),
    "a key set that is not registered": lambda c: signed(c, jku="https://loads.example.org/jwks"),
    "something critical": lambda c: signed(c, crit=["exp"]),
    "packed": lambda c: signed(c, zip="DEF"),
    "another server": lambda c: signed({**c, "aud": "https://evil.example.org/auth/token"}),
    "the server, not the endpoint": lambda c: signed({**c, "aud": "https://fhir.example.org"}),
    "the endpoint and a slash": lambda c: signed({**c, "aud": AUDIENCE + "/"}),
    "the endpoint without TLS": lambda c: signed({**c, "aud": AUDIENCE.replace("https", "http")}),
    "no audience": lambda c: signed({k: v for k, v in c.items() if k != "aud"}),
    "an empty audience": lambda c: signed({**c, "aud": []}),
    "no end": lambda c: signed({k: v for k, v in c.items() if k != "exp"}),
    "too late an end": lambda c: signed({**c, "exp": c["exp"] + 60}),
    "an hour": lambda c: signed({**c, "exp": c["exp"] + 3600}),
    "over": lambda c: signed({**c, "exp": c["exp"] - 300}),
    "not yet issued": lambda c: signed({**c, "iat": c["exp"]}),
    "not yet good": lambda c: signed({**c, "nbf": c["exp"]}),
    "no time": lambda c: signed({**c, "exp": "soon"}),
    "a time that is true": lambda c: signed({**c, "exp": True}),
    "a time that is no number": lambda c: signed({**c, "exp": float("nan")}),
    "no id": lambda c: signed({k: v for k, v in c.items() if k != "jti"}),
    "an id that is no text": lambda c: signed({**c, "jti": 5}),
    "an empty id": lambda c: signed({**c, "jti": ""}),
    "too long an id": lambda c: signed({**c, "jti": "x" * 257}),
    "no text at all": lambda c: "",
    "two parts": lambda c: signed(c).rpartition(".")[0],
    "another end of line": lambda c: signed(c) + "\n",
    "altered": lambda c: signed(c)[:-4] + "AAAA",
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_what_is_wrong_is_refused_alike(identity: Identity, claims: Claims, attack: Callable[[Claims], str]) -> None:
    refused(identity, attack(claims))
    # and nothing of it used up the id of a good one
    assert identity.asserted(signed(claims), AUDIENCE)


def test_an_assertion_is_good_once(identity: Identity, vault: Any, claims: Claims, clock: FixedClock) -> None:
    text = signed(claims)
    assert identity.asserted(text, AUDIENCE)
    refused(identity, text)
    refused(Identity(vault), text)  # nor in another process
    refused(identity, signed({**claims, "exp": claims["exp"] - 5}))  # nor in another text with that id
    clock.move(seconds=299)
    refused(identity, text)
    clock.move(seconds=2)
    refused(identity, text)
    assert identity.asserted(signed({**claims, "jti": "j2", "exp": claims["exp"] + 300}), AUDIENCE)


def test_two_clients_may_have_the_same_ids(identity: Identity, claims: Claims) -> None:
    assert identity.asserted(signed(claims), AUDIENCE)
    assert identity.asserted(signed({**claims, "iss": "other", "sub": "other"}, OTHER), AUDIENCE)


def test_what_was_ended_gets_nothing(identity: Identity, vault: Any, claims: Claims) -> None:
    with vault.database.ledger() as connection:
        Clients(connection).disable("loads", by=None)
    refused(identity, signed(claims))


def test_a_token_of_an_identity_provider_is_no_assertion_nor_the_other_way(
    identity: Identity, claims: Claims
) -> None:
    with pytest.raises(Unauthenticated) as caught:
        identity.bearer(signed(claims))
    assert caught.value.code == "access.token"
    text, _ = identity.tokens.issue(
        Principal("loader", "service", ("application",), ("production",)),
        purpose="TREAT",
        account="production",
        seconds=60,
    )
    refused(identity, text)


def test_who_fails_too_often_under_a_name_waits(
    vault: Any, clock: FixedClock, identity: Identity, claims: Claims
) -> None:
    vault.settings = Settings(workspace="w1", access=AccessSettings(lockout=LockoutSettings(failures=2)))
    strict = Identity(vault)
    for name in ("loads", "nobody"):
        for _ in range(2):
            with pytest.raises(Unauthenticated) as caught:
                strict.asserted(signed({**claims, "iss": name, "sub": name}, OTHER), AUDIENCE, "10.0.0.1")
        with pytest.raises(Unauthenticated) as caught:
            strict.asserted(signed({**claims, "iss": name, "sub": name}), AUDIENCE, "10.0.0.1")
        assert caught.value.code == "access.locked"
    assert strict.asserted(signed(claims), AUDIENCE, "10.0.0.2")


def test_keys_at_an_address(vault: Any, identity: Identity, provider: Provider, claims: Claims, clock: Any) -> None:  # noqa: F811
    provider.keys = [jwk(RSA, "r")]
    with vault.database.ledger() as connection:
        Clients(connection).add(client(clock, "remote", keys="", keys_url=provider.url), by=None)
    told = {**claims, "iss": "remote", "sub": "remote"}
    assert identity.asserted(signed(told), AUDIENCE)
    assert identity.asserted(signed({**told, "jti": "j2"}, jku=provider.url), AUDIENCE)
    refused(identity, signed({**told, "jti": "j3"}, jku=provider.url + "2"))
    refused(identity, signed({**told, "jti": "j4"}, OTHER))
    assert provider.asked == 1
    for number in range(20):
        refused(identity, signed({**told, "jti": "j5"}, kid=f"k{number}"))
    assert provider.asked == 1  # asked a moment ago
    provider.status = 500
    clock.move(seconds=700)
    told["exp"] += 700
    with pytest.raises(Unavailable):
        identity.asserted(signed({**told, "jti": "j6"}), AUDIENCE)


@pytest.mark.parametrize(
    ("said", "error", "code"),
    [
        ({"principal": "ann"}, Refused, "access.client"),
        ({"account": "research"}, Invalid, "access.client"),
        ({"scopes": "patient/*.rs"}, Invalid, "access.scope"),
        ({"scopes": "system/*.rs system/X.r"}, Invalid, "access.scope"),
        ({"scopes": "openid"}, Invalid, "access.scope"),
        ({"keys": ""}, Invalid, "access.client_keys"),
        ({"keys_url": "https://c.example.org/jwks"}, Invalid, "access.client_keys"),
        ({"keys": "", "keys_url": "http://c.example.org/jwks"}, Invalid, "access.jwks"),
        ({"keys": "", "keys_url": "/etc/passwd"}, Invalid, "access.client_keys"),
        ({"keys": "", "keys_url": "file:///etc/passwd"}, Invalid, "access.client_keys"),
        ({"keys": "{}"}, Invalid, "access.jwks"),
        ({"keys": "[" * 10_000}, Invalid, "access.jwks"),
        ({"keys": key_set()}, Invalid, "access.client_keys"),
        ({"keys": key_set(jwk(P256, "p"))}, Invalid, "access.client_keys"),
        ({"keys": key_set(jwk(WEAK, "w"))}, Invalid, "access.client_keys"),
        ({"keys": key_set(jwk(RSA, "r"), jwk(EC, "r"))}, Invalid, "access.client_keys"),
        ({"keys": key_set({k: v for k, v in jwk(RSA, "r").items() if k != "kid"})}, Invalid, "access.client_keys"),
        ({"keys": key_set(RSAAlgorithm.to_jwk(RSA, as_dict=True) | {"kid": "r"})}, Invalid, "access.client_keys"),
    ],
)
def test_a_client_is_registered_whole_or_not(
    vault: Any, identity: Identity, clock: FixedClock, said: dict[str, Any], error: type[Exception], code: str
) -> None:
    with vault.database.ledger() as connection, pytest.raises(error) as caught:
        Clients(connection).add(client(clock, "fresh", **said), by=None)
    assert caught.value.code == code  # type: ignore[attr-defined]


def test_clients_are_for_those_who_belong_there(vault: Any, identity: Identity, clock: FixedClock) -> None:
    stranger = Principal("r", "person", ("administrator",), ("research",))
    with vault.database.ledger() as connection:
        with pytest.raises(Refused):
            Clients(connection).add(client(clock, "fresh"), by=stranger)
        with pytest.raises(Refused):
            Clients(connection).disable("loads", by=stranger)
        with pytest.raises(Conflict):
            Clients(connection).add(client(clock, "loads"), by=None)
