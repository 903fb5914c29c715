"""Conditions of conditional interactions: a search that decides which resource is meant.

https://hl7.org/fhir/R4/http.html#cond-update
"""

from __future__ import annotations

from urllib.parse import parse_qsl

from carelake.core.errors import Invalid
from carelake.fhir.query import Query, parse
from carelake.fhir.query.settings import SETTINGS
from carelake.fhir.search import Registry

__all__ = ["criteria_query"]

_MOST = 100
_NOT_CONDITIONS = SETTINGS | {"_include", "_revinclude", "_type", "_page"}


def criteria_query(kind: str, criteria: str, registry: Registry) -> Query:
    """The search for resources of a type by ``name=value&name=value``, percent-encoded.

    Args:
        criteria: also after ``?`` or ``Patient?``.

    Raises:
        Invalid: ``store.criteria``; as `carelake.fhir.query.parse`.
    """
    before, mark, after = criteria.strip().partition("?")
    if mark and before not in ("", kind):
        raise Invalid("store.criteria", "The condition names another resource type than is written to.")
    try:
        pairs = parse_qsl(
            after if mark else before, keep_blank_values=True, strict_parsing=True, max_num_fields=_MOST
        )
    except ValueError:
        pairs = []
    if not pairs or any(name.partition(":")[0] in _NOT_CONDITIONS for name, _ in pairs):
        raise Invalid(
            "store.criteria",
            "A condition is a search of the form name=value&name=value, by parameters that say what matches.",
        )
    return parse(kind, pairs, registry=registry)
