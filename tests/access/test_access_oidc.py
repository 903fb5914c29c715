"""Tokens of an identity provider, against those who forge, replay and mislead; keys come from a loopback server."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from carelake.access.identity import Caller, Identity
from carelake.access.oidc import Links
from carelake.access.principals import Principal, Principals
from carelake.apps.http.calls import Call
from carelake.core.clock import FixedClock
from carelake.core.errors import Invalid, NotFound, Unauthenticated, Unavailable
from carelake.core.settings import AccessSettings, LockoutSettings, OidcIssuer, OidcSettings, Settings

ISSUER = "https://id.example.org"
RSA = rsa.generate_private_key(65537, 2048)
OTHER = rsa.generate_private_key(65537, 2048)
WEAK = rsa.generate_private_key(65537, 1024)
EC = ec.generate_private_key(ec.SECP256R1())


def jwk(key: Any, kid: str, **other: Any) -> dict[str, Any]:
    algorithm = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm
    return {**json.loads(algorithm.to_jwk(key.public_key())), "kid": kid, **other}


class Provider:
    """A key server that counts what it is asked."""

    def __init__(self) -> None:
        self.keys = [jwk(RSA, "r"), jwk(EC, "e"), jwk(WEAK, "w")]
        self.body: bytes | None = None
        self.status = 200
        self.asked = 0
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.asked += 1
                body = provider.body if provider.body is not None else json.dumps({"keys": provider.keys}).encode()
                self.send_response(provider.status)
                self.send_header("Location", "http://127.0.0.1:9/")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/jwks"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def provider() -> Iterator[Provider]:
    made = Provider()
    yield made
    made.close()


def settings(url: str, **other: Any) -> Settings:
    issuer = OidcIssuer(ISSUER, "carelake", url, purpose="TREAT", **other)
    return Settings(
        workspace="w1",
        access=AccessSettings(oidc=OidcSettings(issuers=(issuer,)), lockout=LockoutSettings(failures=1000)),
    )


def identity_of(vault: Any, told: Settings) -> Identity:
    vault.settings = told
    with vault.database.ledger() as connection:
        Principals(connection).add(Principal("ann", "person", ("clinician", "auditor"), ("production",)))
        Links(connection).add(ISSUER, "u-17", "ann")
    return Identity(vault)


@pytest.fixture
def identity(vault: Any, provider: Provider) -> Identity:
    return identity_of(vault, settings(provider.url))


@pytest.fixture
def claims(clock: FixedClock) -> dict[str, Any]:
    now = int(clock.now().timestamp())
    return {"iss": ISSUER, "aud": "carelake", "sub": "u-17", "iat": now, "nbf": now, "exp": now + 300, "jti": "j1"}


def token(
    claims: dict[str, Any], key: Any = RSA, algorithm: str = "RS256", kid: str | None = "r", **head: Any
) -> str:
    return jwt.encode(claims, key, algorithm=algorithm, headers={**({"kid": kid} if kid is not None else {}), **head})


def refused(identity: Identity, text: str) -> None:
    with pytest.raises(Unauthenticated) as caught:
        identity.bearer(text)
    assert caught.value.code == "access.token"
    assert caught.value.message.startswith("The access token is not valid here")


@pytest.mark.parametrize(
    ("key", "algorithm", "kid"),
    [(RSA, "RS256", "r"), (RSA, "PS256", "r"), (EC, "ES256", "e")],
    ids=["RS", "PS", "ES"],
)
def test_a_good_token_names_its_principal(
    identity: Identity, claims: dict[str, Any], key: Any, algorithm: str, kid: str
) -> None:
    caller: Caller = identity.bearer(token(claims, key, algorithm, kid))
    assert (caller.principal.name, caller.purpose, caller.account) == ("ann", "TREAT", "production")
    assert caller.principal.credential.startswith("oidc:")
    assert "u-17" not in caller.principal.credential
    assert caller.principal.until == datetime.fromtimestamp(claims["exp"] + 30, UTC)


def pem(key: Any) -> bytes:
    return bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


def raw(head: dict[str, Any], body: dict[str, Any], sign: Callable[[bytes], bytes] = lambda _: b"") -> str:
    def part(said: bytes) -> str:
        return base64.urlsafe_b64encode(said).rstrip(b"=").decode()

    text = f"{part(json.dumps(head).encode())}.{part(json.dumps(body).encode())}"
    return f"{text}.{part(sign(text.encode()))}"


def hs256(secret: bytes) -> Callable[[bytes], bytes]:
    return lambda text: hmac.digest(secret, text, hashlib.sha256)


def rs256(key: rsa.RSAPrivateKey) -> Callable[[bytes], bytes]:
    return lambda text: key.sign(text, padding.PKCS1v15(), hashes.SHA256())


def altered(text: str, **claims: Any) -> str:
    head, body, signature = text.split(".")
    said = json.loads(base64.urlsafe_b64decode(body + "=="))
    forged = base64.urlsafe_b64encode(json.dumps({**said, **claims}).encode()).rstrip(b"=").decode()
    return f"{head}.{forged}.{signature}"


ATTACKS: dict[str, Callable[[dict[str, Any]], str]] = {
    "alg none": lambda c: raw({"alg": "none", "kid": "r"}, c),
    "alg None": lambda c: raw({"alg": "None", "kid": "r"}, c),
    "no alg": lambda c: raw({"kid": "r"}, c),
    "HS256 with the public key": lambda c: raw({"alg": "HS256", "kid": "r"}, c, hs256(pem(RSA))),
    "HS256 with the JWK's n": lambda c: raw({"alg": "HS256", "kid": "r"}, c, hs256(jwk(RSA, "r")["n"].encode())),
    "RS384, which is not allowed": lambda c: token(c, algorithm="RS384"),
    "signed by another key": lambda c: token(c, OTHER),
    "signed by a weak key": lambda c: raw({"alg": "RS256", "kid": "w"}, c, rs256(WEAK)),
    "another key's id": lambda c: token(c, RSA, kid="e"),
    "an unknown key id": lambda c: token(c, OTHER, kid="x"),
    "a path as key id": lambda c: token(c, OTHER, kid="../../../../dev/null"),
    "a statement as key id": lambda c: token(c, OTHER, kid="r' OR '1'='1"),
    "a long key id": lambda c: token(c, OTHER, kid="r" * 5000),
    "a key id that is no text": lambda c: raw({"alg": "RS256", "kid": ["r"]}, c),
    "no key id where there are several": lambda c: token(c, OTHER, kid=None),
    "its own key set (jku)": lambda c: token(c, OTHER, jku="http://127.0.0.1:1/jwks"),
    "its own certificate (x5u)": lambda c: token(c, OTHER, x5u="http://127.0.0.1:1/cert"),
    "its own key (jwk)": lambda c: token(c, OTHER, jwk=jwk(OTHER, "r")),
    "a critical extension": lambda c: raw({"alg": "RS256", "kid": "r", "crit": ["b64"], "b64": False}, c),
    "another audience": lambda c: token({**c, "aud": "elsewhere"}),
    "another issuer": lambda c: token({**c, "iss": "https://evil.example.org"}),
    "no issuer": lambda c: token({k: v for k, v in c.items() if k != "iss"}),
    "no audience": lambda c: token({k: v for k, v in c.items() if k != "aud"}),
    "no end": lambda c: token({k: v for k, v in c.items() if k != "exp"}),
    "no beginning": lambda c: token({k: v for k, v in c.items() if k != "iat"}),
    "ended": lambda c: token({**c, "iat": c["iat"] - 400, "nbf": c["nbf"] - 400, "exp": c["iat"] - 31}),
    "not begun": lambda c: token({**c, "nbf": c["nbf"] + 60}),
    "issued in the future": lambda c: token({**c, "iat": c["iat"] + 60}),
    "issued long ago": lambda c: token({**c, "iat": c["iat"] - 50_000, "nbf": c["iat"] - 50_000}),
    "an end that is no number": lambda c: token({**c, "exp": True}),
    "an end past all time": lambda c: token({**c, "exp": 10**30}),
    "a subject that nobody is": lambda c: token({**c, "sub": "u-18"}),
    "a subject that has a principal's name": lambda c: token({**c, "sub": "ann"}),
    "a subject that is no text": lambda c: token({**c, "sub": ["u-17"]}),
    "no subject": lambda c: token({k: v for k, v in c.items() if k != "sub"}),
    "altered": lambda c: altered(token(c), sub="u-18"),
    "an altered signature": lambda c: token(c)[:-6] + "AAAAAA",
    "no signature": lambda c: token(c).rpartition(".")[0] + ".",
    "an ECDSA signature of zeros": lambda c: token(c, EC, "ES256", "e").rpartition(".")[0] + "." + "A" * 86,
    "an ECDSA signature that is short": lambda c: token(c, EC, "ES256", "e")[:-20],
    "padding": lambda c: token(c) + "==",
    "another alphabet": lambda c: token(c).replace("-", "+").replace("_", "/") + "+/",
    "spaces": lambda c: token(c).replace(".", ". "),
    "four parts": lambda c: token(c) + ".AAAA",
    "letters of elsewhere": lambda c: "é" + token(c),
    "too long": lambda c: token({**c, "more": "x" * 20_000}),
    "deep": lambda c: raw({"alg": "RS256", "kid": "r"}, json.loads("[" * 900 + "]" * 900)),
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_an_attack_is_refused(identity: Identity, claims: dict[str, Any], attack: Callable[..., str]) -> None:
    text = attack(claims)
    assert text != token(claims), "the attack changed nothing"
    refused(identity, text)


@pytest.mark.parametrize(
    "key",
    [
        {"kty": "EC", "crv": "P-256", "kid": "k", "x": "AAAA", "y": "AAAA"},
        {**jwk(EC, "k"), "y": jwk(EC, "k")["x"]},
        {**jwk(EC, "k"), "crv": "P-384"},
        {**jwk(EC, "k"), "use": "enc"},
        {**jwk(EC, "k"), "alg": "ES512"},
        {"kty": "oct", "kid": "k", "k": "c2VjcmV0"},
        {"kid": "k"},
        {**jwk(EC, "k"), "x": 5},
    ],
)
def test_a_key_that_is_none_verifies_nothing(
    identity: Identity, provider: Provider, claims: dict[str, Any], key: dict[str, Any]
) -> None:
    provider.keys = [key]
    refused(identity, token(claims, EC, "ES256", "k"))


def test_an_outside_role_narrows_and_gives_nothing(vault: Any, provider: Provider, claims: dict[str, Any]) -> None:
    told = settings(provider.url, roles_claim="groups", roles={"doctors": "clinician", "bosses": "operator"})
    identity = identity_of(vault, told)
    assert identity.bearer(token({**claims, "groups": ["doctors", "bosses"]})).principal.roles == ("clinician",)
    assert identity.bearer(token({**claims, "groups": "bosses other"})).principal.roles == ()
    assert identity.bearer(token(claims)).principal.roles == ()


def test_a_purpose_may_be_claimed(vault: Any, provider: Provider, claims: dict[str, Any]) -> None:
    identity = identity_of(vault, settings(provider.url, purpose_claim="purpose"))
    assert identity.bearer(token({**claims, "purpose": "HRESCH"})).purpose == "HRESCH"
    assert identity.bearer(token(claims)).purpose == ""


@pytest.mark.parametrize(
    ("said", "narrowed"),
    [
        ({}, None),
        ({"scope": "patient/*.rs launch/patient", "patient": "p1"}, ("p1/*.rs",)),
        (
            {"scope": ["patient/Patient.r", "user/Observation.read"], "patient": "p1"},
            ("p1/Patient.r", "/Observation.rs"),
        ),
        ({"scope": "patient/*.rs user/Patient.r"}, ("/Patient.r",)),
        ({"scope": "patient/*.rs", "patient": ["p1"]}, ()),
        ({"scope": "patient/*.rs", "patient": "Patient/p1"}, ()),
        ({"scope": "patient/*.rs", "patient": 1}, ()),
        ({"scope": "openid profile"}, ()),
        ({"scope": ""}, ()),
        ({"scope": 5}, ()),
        ({"scope": {"user/*.*": True}}, ()),
        ({"scope": [["user/*.*"]]}, ()),
        ({"scope": "user/*.RS user/Patient.sr User/*.rs"}, ()),
        ({"scope": "x" * 9000}, ()),
        ({"scope": "user/*.rs\tuser/*.cruds"}, ()),
    ],
)
def test_scopes_of_a_token_narrow_it(
    identity: Identity, claims: dict[str, Any], said: dict[str, Any], narrowed: tuple[str, ...] | None
) -> None:
    assert identity.bearer(token({**claims, **said})).principal.narrowed == narrowed


def test_an_issuer_may_write_other_things_into_the_claim(
    vault: Any, provider: Provider, claims: dict[str, Any]
) -> None:
    told = {"scope_claim": "", "patient_claim": "pat"}
    assert (
        identity_of(vault, settings(provider.url, **told))
        .bearer(token({**claims, "scope": "openid"}))
        .principal.narrowed
        is None
    )
    vault.settings = settings(provider.url, scope_claim="scp", patient_claim="pat")
    other = Identity(vault).bearer(token({**claims, "scp": ["patient/*.rs"], "pat": "p2", "patient": "p1"}))
    assert other.principal.narrowed == ("p2/*.rs",)


def test_a_token_may_be_good_once(vault: Any, provider: Provider, claims: dict[str, Any]) -> None:
    identity = identity_of(vault, settings(provider.url, once=True))
    assert identity.bearer(token(claims))
    refused(identity, token(claims))
    assert identity.bearer(token({**claims, "jti": "j2"}))
    bearer = f"Bearer {token({**claims, 'jti': 'j3'})}"
    named: dict[str, Any] = {"headers": {"authorization": bearer}, "raw_headers": [("authorization", bearer)]}
    call = Call(SimpleNamespace(identity=identity), "GET", "", "", {}, [], **named)  # type: ignore[arg-type]
    assert call.caller("record:search", "Patient") == call.caller("record:search", "Patient")
    refused(identity, token({k: v for k, v in claims.items() if k != "jti"}))


def test_a_new_key_is_fetched_once(
    identity: Identity, provider: Provider, claims: dict[str, Any], clock: Any
) -> None:
    identity.bearer(token(claims))
    provider.keys = [jwk(OTHER, "new")]
    refused(identity, token(claims, OTHER, kid="new"))  # asked a moment ago
    clock.move(seconds=31)
    assert identity.bearer(token(claims, OTHER, kid="new"))
    assert provider.asked == 2
    clock.move(seconds=31)
    refused(identity, token(claims))  # the old one is gone with the new set


def test_a_storm_of_unknown_keys_asks_once(
    identity: Identity, provider: Provider, claims: dict[str, Any], clock: Any
) -> None:
    identity.bearer(token(claims))
    clock.move(seconds=31)
    for number in range(50):
        refused(identity, token(claims, OTHER, kid=f"k{number}"))
    assert provider.asked == 2
    assert identity.bearer(token(claims))


def test_keys_are_kept_for_a_while(
    identity: Identity, provider: Provider, claims: dict[str, Any], clock: Any
) -> None:
    for _ in range(5):
        identity.bearer(token(claims))
    assert provider.asked == 1
    clock.move(seconds=200)
    identity.bearer(token(claims))
    assert provider.asked == 1


@pytest.mark.parametrize(
    "broken",
    [
        {"status": 500},
        {"status": 302},
        {"body": b"no json"},
        {"body": b"[]"},
        {"body": b'{"keys": 5}'},
        {"body": json.dumps({"keys": [{}] * 101}).encode()},
        {"body": b'{"keys": [], "more": "' + b"x" * 300_000 + b'"}'},
        {"body": b"[" * 100_000},
    ],
)
def test_without_keys_nothing_is_believed(
    identity: Identity, provider: Provider, claims: dict[str, Any], broken: dict[str, Any]
) -> None:
    for name, value in broken.items():
        setattr(provider, name, value)
    with pytest.raises(Unavailable) as caught:
        identity.bearer(token(claims))
    assert caught.value.code == "access.jwks"
    assert ISSUER not in caught.value.message


def test_a_provider_that_is_away_is_asked_once_in_a_while(vault: Any, claims: dict[str, Any]) -> None:
    identity = identity_of(vault, settings("http://127.0.0.1:9/jwks"))
    for _ in range(3):
        with pytest.raises(Unavailable):
            identity.bearer(token(claims))


def test_a_proxy_of_the_environment_is_not_asked_for_keys(
    vault: Any, provider: Provider, claims: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert identity_of(vault, settings(provider.url)).bearer(token(claims)) is not None
    assert provider.asked == 1


def test_keys_may_be_a_file(vault: Any, tmp_path: Path, claims: dict[str, Any]) -> None:
    file = tmp_path / "jwks.json"
    file.write_text(json.dumps({"keys": [jwk(RSA, "r")]}))
    identity = identity_of(vault, settings(str(file)))
    assert identity.bearer(token(claims)).principal.name == "ann"
    assert identity.bearer(token(claims, kid=None)).principal.name == "ann"


@pytest.mark.parametrize("url", ["http://id.example.org/jwks", "ftp://id.example.org/jwks", "gopher://127.0.0.1/"])
def test_an_address_that_others_can_alter_is_refused(vault: Any, url: str) -> None:
    with pytest.raises(Invalid) as caught:
        identity_of(vault, settings(url))
    assert caught.value.code == "access.jwks"


@pytest.mark.parametrize("algorithms", [("HS256",), ("none",), (), ("RS256", "HS512")])
def test_algorithms_with_shared_secrets_cannot_be_set(vault: Any, algorithms: tuple[str, ...]) -> None:
    with pytest.raises(Invalid) as caught:
        identity_of(vault, settings("jwks.json", algorithms=algorithms))
    assert caught.value.code == "access.oidc"


def test_a_link_names_one_principal_that_is_there(vault: Any, identity: Identity, claims: dict[str, Any]) -> None:
    with vault.database.ledger() as connection:
        with pytest.raises(NotFound):
            Links(connection).add(ISSUER, "u-20", "nobody")
        Links(connection).remove(ISSUER, "u-17", "ann")
    refused(identity, token(claims))


def test_settings_read_the_issuer() -> None:
    text = {"workspace": "w", "access": {"oidc": {"issuers": [{"issuer": "i", "audience": "a", "jwks": "j"}]}}}
    assert msgspec.convert(text, Settings).access.oidc.issuers[0].algorithms == ("RS256", "ES256", "PS256")


@pytest.mark.parametrize("name", ["exp", "iat", "nbf"])
@pytest.mark.parametrize("value", [253402300799, 1e18, -1, float("nan"), float("inf")])
def test_a_time_beyond_all_calendars_is_refused(
    identity: Identity, claims: dict[str, Any], name: str, value: float
) -> None:
    refused(identity, token({**claims, name: value}))
