"""SMART App Launch 2.2: discovery, and the token endpoint of Backend Services.

https://hl7.org/fhir/smart-app-launch/STU2.2/conformance.html
https://hl7.org/fhir/smart-app-launch/STU2.2/backend-services.html
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from starlette.responses import Response

from carelake.access.identity import Caller
from carelake.access.narrowed import NEEDS
from carelake.access.scopes import Scope, common, read_scopes
from carelake.access.smart_clients import ALGORITHMS, Client
from carelake.apps.http import answers
from carelake.apps.http.calls import Call
from carelake.apps.http.routes import Operation
from carelake.core.errors import CarelakeError, Invalid, NotFound, Refused, Unauthenticated, Unavailable
from carelake.core.settings import OidcIssuer, Settings

__all__ = ["configuration", "operations", "security", "token"]

PATH = "/auth/token"
ACTION = "token:exchange"
_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_OAUTH_URIS = "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris"
_SERVICES = "http://terminology.hl7.org/CodeSystem/restful-security-service"
_LONGEST = 65_536
_FIELDS = frozenset({"grant_type", "scope", "client_assertion_type", "client_assertion", "client_id"})
_NEVER_KEPT = {"Cache-Control": "no-store", "Pragma": "no-cache"}
_SCOPES = ("patient/*.rs", "user/*.cruds", "system/*.cruds", "patient/*.read", "user/*.read", "system/*.read")
_PERMISSIONS = ("permission-patient", "permission-user", "permission-v1", "permission-v2")
_PURPOSE = (
    "A bearer token that says who, for what purpose and in which account; its SMART scopes, if it has some, narrow "
    "what policy allows; every access is decided by policy and recorded."
)


def operations() -> list[Operation]:
    """The addresses of discovery and of the token endpoint."""
    fields = {name: {"type": "string"} for name in sorted(_FIELDS)}
    return [
        Operation(
            "GET",
            "/fhir/.well-known/smart-configuration",
            "smartConfiguration",
            "What of SMART App Launch is offered, and where",
            configuration,
            "fhir",
            open=True,
            answers={"404": "Neither a token endpoint nor an identity provider has an address here"},
        ),
        Operation(
            "POST",
            PATH,
            "token",
            "Exchange a signed assertion for an access token (SMART Backend Services)",
            token,
            "service",
            open=True,
            body={"type": "object", "properties": fields, "required": ["grant_type", "client_assertion", "scope"]},
            body_type="application/x-www-form-urlencoded",
            most=2 * _LONGEST,
            answers={
                "400": "RFC 6749 section 5.2",
                "401": "invalid_client",
                "503": "The client's keys cannot be read",
            },
        ),
    ]


# -- discovery -------------------------------------------------------------------------------------------------------


def configuration(call: Call) -> Response:
    """What is offered. https://hl7.org/fhir/smart-app-launch/STU2.2/conformance.html#using-well-known"""
    call.only("_format", "_pretty")
    told = _configured(call.door.settings, call.base)
    if told is None:
        raise NotFound(
            "http.no_smart",
            "No address of a token endpoint can be told; access.smart.base_url or an issuer's endpoints say one.",
        )
    return answers.json(told)


def _configured(settings: Settings, base: str) -> dict[str, Any] | None:
    provider, own = _provider(settings), _own(settings, base)
    if provider is None and not own:
        return None
    told: dict[str, Any] = {}
    capabilities = [*_PERMISSIONS]
    if provider is not None:
        # Apps are launched by way of the provider: the endpoints are of one server, as clients expect.
        told["authorization_endpoint"] = provider.authorization_endpoint
        told["token_endpoint"] = provider.token_endpoint
        told["grant_types_supported"] = ["authorization_code"]
        capabilities += ["launch-standalone", "context-standalone-patient"]
        if own:
            told["backend_services_token_endpoint"] = own
    else:
        told["token_endpoint"] = own
        told["grant_types_supported"] = ["client_credentials"]
        told["token_endpoint_auth_methods_supported"] = ["private_key_jwt"]
        told["token_endpoint_auth_signing_alg_values_supported"] = list(ALGORITHMS)
    if own:
        capabilities.append("client-confidential-asymmetric")
    told["scopes_supported"] = list(_SCOPES)
    told["code_challenge_methods_supported"] = ["S256"]
    told["capabilities"] = sorted(capabilities)
    return told


def security(settings: Settings, base: str) -> dict[str, Any]:
    """``CapabilityStatement.rest.security``. https://hl7.org/fhir/smart-app-launch/STU2.2/conformance.html"""
    provider, own = _provider(settings), _own(settings, base)
    told: dict[str, Any] = {"cors": bool(settings.serve.cors_origins), "description": _PURPOSE}
    if provider is None and not own:
        return told
    uris = [{"url": "token", "valueUri": provider.token_endpoint if provider is not None else own}]
    if provider is not None:
        uris.append({"url": "authorize", "valueUri": provider.authorization_endpoint})
    coding = {"system": _SERVICES, "code": "SMART-on-FHIR"}
    return {"extension": [{"url": _OAUTH_URIS, "extension": uris}], "service": [{"coding": [coding]}], **told}


def _provider(settings: Settings) -> OidcIssuer | None:
    """The first identity provider whose endpoints are told."""
    found = (one for one in settings.access.oidc.issuers if one.authorization_endpoint and one.token_endpoint)
    return next(found, None)


def _own(settings: Settings, base: str) -> str:
    """The address of our token endpoint, "" where none is known.

    What a request says of our address is believed on loopback alone: an assertion that was made for another server
    must not be good here because somebody writes that server's name into a header.
    """
    said = settings.access.smart.base_url
    if not said and urlsplit(base).hostname in ("127.0.0.1", "::1", "localhost"):
        said = base
    return f"{said}{PATH}" if said else ""


# -- tokens ----------------------------------------------------------------------------------------------------------


class _Wrong(Exception):
    """An error of RFC 6749 section 5.2."""

    def __init__(self, error: str, said: str, status: int = 400) -> None:
        super().__init__(said)
        self.error, self.said, self.status = error, said, status


def token(call: Call) -> Response:
    """An access token for a client's assertion. RFC 6749 section 4.4, RFC 7523 section 2.2"""
    try:
        said = _fields(call)
        return _exchanged(call, said)
    except _Wrong as wrong:
        return _refusal(wrong.error, wrong.said, wrong.status)
    except Unauthenticated as error:
        answer = _refusal("invalid_client", error.message, 401)
        wait = error.facts.get("retry_after")
        if wait is not None:
            answer.headers["Retry-After"] = str(wait)
        return answer
    except Unavailable as error:
        return _refusal("temporarily_unavailable", error.message, 503)
    except Refused as error:
        return _refusal("unauthorized_client", error.message, 400)


def _refusal(error: str, said: str, status: int) -> Response:
    answer = answers.json({"error": error, "error_description": said}, status)
    answer.headers.update(_NEVER_KEPT)
    return answer


def _fields(call: Call) -> dict[str, str]:
    if call.raw_query or len(call.body) > _LONGEST or call.headers.get("authorization"):
        raise _Wrong("invalid_request", f"All of it is in the body, of at most {_LONGEST} bytes, and nowhere else.")
    names = [name for name, _ in call.pairs]
    if len(set(names)) < len(names):
        raise _Wrong("invalid_request", "A field is given more than once.")
    said = dict(call.pairs)
    grant = said.get("grant_type")
    if not grant:
        raise _Wrong("invalid_request", "grant_type is missing; expected client_credentials.")
    if grant != "client_credentials":
        raise _Wrong(
            "unsupported_grant_type",
            "Expected client_credentials; apps that people use are launched by way of an identity provider.",
        )
    if said.get("client_assertion_type", _ASSERTION) != _ASSERTION:  # 400: no client was told apart by it
        raise _Wrong("invalid_client", f"Expected client_assertion_type {_ASSERTION}.")
    if "client_assertion_type" not in said or not said.get("client_assertion"):
        raise _Wrong("invalid_client", f"Expected client_assertion, and client_assertion_type {_ASSERTION}.", 401)
    return said


def _exchanged(call: Call, said: dict[str, str]) -> Response:
    caller, client = _asserted(call, said["client_assertion"])
    if said.get("client_id", client.id) != client.id:
        raise _unfit(
            call, caller, Invalid("access.client", "client_id is not that of the assertion."), "invalid_client"
        )
    try:
        scopes = read_scopes(said.get("scope", ""))
    except Invalid as error:
        raise _unfit(call, caller, error, "invalid_scope") from None
    left = () if scopes.unknown else _allowed(call, caller, common(_system(scopes.resources), _given(client)))
    if not left:
        wrong = Invalid(
            "access.scope",
            "None of the scopes can be given, or one is none: expected some of the client's own, "
            "as system/Observation.rs, for what policy allows.",
        )
        raise _unfit(call, caller, wrong, "invalid_scope")
    text = " ".join(one.said for one in left)
    door, told = call.door, call.door.settings.access
    seconds = min(told.smart.token_seconds, told.token_max_seconds)
    with door.enter(caller, ACTION, f"principal/{caller.principal.name}") as permit:
        call.act = permit.act
        made, claims = door.identity.tokens.issue(
            caller.principal, purpose=caller.purpose, account=caller.account, seconds=seconds, scope=text
        )
        permit.log.wrote(f"token:{claims.id}")
    answer = answers.json({"access_token": made, "token_type": "bearer", "expires_in": seconds, "scope": text})
    answer.headers.update(_NEVER_KEPT)
    return answer


def _asserted(call: Call, assertion: str) -> tuple[Caller, Client]:
    """Who the assertion names; the refusal of one that names nobody is in the trail."""
    own = _own(call.door.settings, call.base)
    if not own:
        raise Unavailable(
            "http.no_smart",
            "This server does not know its address; access.smart.base_url says it to it and to clients.",
        )
    try:
        return call.door.identity.asserted(assertion, own, call.client)
    except Unauthenticated as error:
        if error.code != "access.locked":
            nobody = call.door.identity.nobody()
            locked = {"locked_until": error.facts["locked_until"]} if "locked_until" in error.facts else {}
            call.act = call.door.gate.refuse(nobody, ACTION, "access", "production", error, **locked)
        raise


def _unfit(call: Call, caller: Caller, error: CarelakeError, said: str) -> _Wrong:
    target = f"principal/{caller.principal.name}"
    call.act = call.door.gate.refuse(caller.principal, ACTION, target, caller.account, error)
    return _Wrong(said, error.message, 401 if said == "invalid_client" else 400)


def _system(scopes: Sequence[Scope]) -> list[Scope]:
    """Those that a service can have: there is no patient in context, and no user."""
    return [one for one in scopes if one.level == "system"]


def _given(client: Client) -> Sequence[Scope]:
    return read_scopes(client.scopes).resources


def _allowed(call: Call, caller: Caller, scopes: Sequence[Scope]) -> tuple[Scope, ...]:
    """The scopes without the interactions that policy allows the client nowhere, so that the answer is true."""
    found = []
    for one in scopes:
        letters = "".join(letter for letter in one.letters if _may(call, caller, letter, one.type))
        if letters:
            less = Scope(one.level, one.type, letters, one.query)
            found.append(one if letters == one.letters else replace(less, said=less.text))
    return tuple(found)


def _may(call: Call, caller: Caller, letter: str, kind: str) -> bool:
    action = next(name for name in ("record:read", "record:search", "record:write") if letter in NEEDS[name])
    types = () if kind == "*" else (kind,)
    return call.door.gate.explain(caller.principal, action, caller.account, caller.purpose, types).allowed
