"""FHIR read, version read and search. https://hl7.org/fhir/R4/http.html"""

from __future__ import annotations

from starlette.responses import Response

from carelake.apps.http import answers
from carelake.apps.http.calls import Call
from carelake.apps.http.capability import statement
from carelake.core import canonical
from carelake.core.errors import Invalid, NotFound, Unsupported
from carelake.fhir.definitions import is_resource

__all__ = ["capabilities", "read", "search", "vread"]

_JSON = frozenset({"json", "application/json", "application/fhir+json", "text/json"})


def capabilities(call: Call) -> Response:
    """https://hl7.org/fhir/R4/http.html#capabilities"""
    _format(call)
    call.only("_format", "mode")
    if call.one("mode") not in (None, "full"):
        raise Unsupported("http.mode", "Only mode=full is offered.")
    return answers.fhir(statement())


def read(call: Call) -> Response:
    """https://hl7.org/fhir/R4/http.html#read"""
    return _one(call, None)


def vread(call: Call) -> Response:
    """https://hl7.org/fhir/R4/http.html#vread"""
    return _one(call, call.path["version"])
