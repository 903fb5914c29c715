"""How an answer is asked for: its format, its layout, and what to do with parameters that are not known.

https://hl7.org/fhir/R4/http.html#mime-type, https://hl7.org/fhir/R4/search.html#errors
"""

from __future__ import annotations

import re

from carelake.apps.http.calls import Call
from carelake.core.errors import NotFound, Unsupported
from carelake.fhir.definitions import is_resource

__all__ = ["is_id", "json_only", "lenient", "names_json", "of_r4", "pretty", "resource_type", "strict"]

_JSON = frozenset({"json", "application/json", "application/fhir+json", "text/json"})
_ANY = frozenset({"*/*", "application/*", ""})
_USUAL = frozenset({"application/fhir+json", "application/json", "*/*", "", "json"})
_FHIR_VERSION = re.compile(r'fhirversion\s*=\s*"?([^";\s]*)')
_OURS = frozenset({"4.0", "4.0.1"})

is_id = re.compile(r"[A-Za-z0-9.-]{1,64}").fullmatch
"""The form of an id: 1 to 64 letters, digits, - and . (https://hl7.org/fhir/R4/datatypes.html#id)."""


def json_only(call: Call) -> None:
    """Refuse to answer in JSON of R4 somebody who takes none.

    Raises:
        Unsupported: ``http.format``.
    """
    told = call.one("_format")
    # A "+" in a query is a blank once it is decoded, and few clients write %2B.
    asked = told.strip().replace(" ", "+") if told is not None else call.headers.get("accept", "")
    if asked not in _USUAL and not any(map(_taken, [asked] if told is not None else asked.split(","))):
        raise Unsupported("http.format", "Only JSON of FHIR R4 is offered: application/fhir+json.")


def names_json(call: Call) -> bool:
    """Whether ``Accept`` names JSON of FHIR, and not just anything."""
    asked = (one.partition(";")[0].strip().lower() for one in call.headers.get("accept", "").split(","))
    return any(one in _JSON for one in asked)


def _taken(one: str) -> bool:
    kind, _, rest = one.lower().partition(";")
    if kind.strip() not in _JSON | _ANY or re.search(r"(^|;)\s*q\s*=\s*0(\.0*)?\s*(;|$)", rest):
        return False
    return of_r4(rest)


def of_r4(media_type: str) -> bool:
    """Whether a media type names no other version of FHIR (https://hl7.org/fhir/R4/http.html#version-parameter)."""
    version = _FHIR_VERSION.search(media_type.lower())
    return version is None or version[1] in _OURS


def pretty(call: Call) -> bool:
    """Whether the answer is for people's eyes (``_pretty=true``)."""
    return call.one("_pretty") == "true"


def lenient(call: Call) -> bool:
    """Whether what is not known is to be left out and told of: ``Prefer: handling=lenient`` (RFC 7240)."""
    return _handling(call) == "lenient"


def strict(call: Call) -> bool:
    """Whether nothing is to be left out, also not what has no value: ``Prefer: handling=strict``."""
    return _handling(call) == "strict"


def _handling(call: Call) -> str:
    """The first of several counts."""
    if "prefer" not in call.headers:
        return ""
    said = ",".join(value for name, value in call.raw_headers if name == "prefer")
    for one in said.replace(";", ",").split(","):
        name, _, value = one.partition("=")
        if name.strip().lower() == "handling":
            return value.strip().strip('"')
    return ""


def resource_type(name: str) -> str:
    """The name, when FHIR R4 has such a type. It goes on the trail: what is none is not written down.

    Raises:
        NotFound: ``http.unknown_type``.
    """
    if not is_resource(name):
        raise NotFound("http.unknown_type", "FHIR R4 has no such resource type; expected for example /fhir/Patient.")
    return name
