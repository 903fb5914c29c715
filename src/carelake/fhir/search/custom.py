"""SearchParameter resources read into definitions (https://hl7.org/fhir/R4/searchparameter.html)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from carelake.core.errors import Invalid
from carelake.fhir.definitions import SearchDefinition, is_resource
from carelake.fhir.search.expression import Misfit
from carelake.fhir.search.parameters import TYPES, made
from carelake.fhir.search.registry import bases_of, known_definitions

__all__ = ["definition"]

MAX_EXPRESSION = 4000
_CODE = re.compile(r"[A-Za-z_][A-Za-z0-9_\-]{0,63}").fullmatch
_ANY = {"Resource": "Basic", "DomainResource": "Basic"}


def definition(resource: Mapping[str, Any], known: Iterable[SearchDefinition] = ()) -> SearchDefinition:
    """The definition in a SearchParameter resource, proven to work for each of its base types.

    Args:
        resource: valid JSON of a SearchParameter; its status is the caller's matter.
        known: other custom definitions, which its components may name. A composite with a component that is not
            known here is taken, and `Registry.unsupported` tells of it until the other is there too.

    Raises:
        Invalid: ``search.definition``: what of it cannot be used, and why.
    """
    found = _read(resource)
    definitions = {**{one.url: one for one in known}, **known_definitions()}
    if any(url not in definitions for url, _ in found.components):
        return found
    for base in found.base:
        name = _ANY.get(base, base)
        try:
            made(found, name, bases_of(name), definitions, True)
        except Misfit as misfit:
            raise _bad(f"for {base}: {misfit}") from None
    return found


def _read(resource: Mapping[str, Any]) -> SearchDefinition:
    if resource.get("resourceType") != "SearchParameter":
        raise _bad("expected a SearchParameter resource")
    code, kind = resource.get("code", ""), resource.get("type", "")
    base, expression = tuple(sorted(set(resource.get("base", ())))), resource.get("expression", "").strip()
    if not resource.get("url"):
        raise _bad("it has no url, by which it is known")
    if not _CODE(code):
        raise _bad("its code is to be a letter or _ and up to 63 letters, digits, _ and -")
    if kind not in TYPES or kind == "special":
        raise _bad(f"its type is to be one of {', '.join(sorted(TYPES - {'special'}))}")
    if not base or not all(is_resource(name) or name in _ANY for name in base):
        raise _bad("its base is to name resource types of R4, Resource or DomainResource")
    if not expression:
        raise _bad("it has no expression; xpath is not read")
    components = tuple(
        (str(c["definition"]).partition("|")[0], c["expression"]) for c in resource.get("component", ())
    )
    if max(map(len, [expression, *(text for _, text in components)])) > MAX_EXPRESSION:
        raise _bad(f"an expression may have up to {MAX_EXPRESSION} characters")
    if (kind == "composite") != bool(components):
        raise _bad("components go with the type composite, and the other way round")
    usage = resource.get("xpathUsage", "")
    targets = tuple(sorted(set(resource.get("target", ()))))
    return SearchDefinition(code, kind, base, expression, targets, components, usage, resource["url"])


def _bad(reason: str) -> Invalid:
    return Invalid("search.definition", f"The SearchParameter cannot be used: {reason}.")
