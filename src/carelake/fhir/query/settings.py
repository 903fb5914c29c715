"""Parameters that say how the answer looks, not what matches: ``_sort``, ``_count``, ``_elements`` and so on.

https://hl7.org/fhir/R4/search.html#return
"""

from __future__ import annotations

from collections.abc import Sequence

from carelake.core.errors import Unsupported
from carelake.fhir.definitions import element
from carelake.fhir.query.conditions import Conditions
from carelake.fhir.query.errors import bad_value, too_many, unsupported
from carelake.fhir.query.model import Sort

__all__ = [
    "SETTINGS",
    "check_format",
    "read_count",
    "read_elements",
    "read_sort_key",
    "read_summary",
    "read_total",
    "sort_texts",
]

MAX_COUNT = 10_000
SETTINGS = frozenset(
    {"_count", "_sort", "_total", "_totalMethod", "_summary", "_elements", "_format", "_pretty", "_contained"}
)
"""Given once each, without modifier. ``_totalMethod=count`` is how fhirpy asks for ``_total=accurate``."""
_JSON = frozenset({"json", "application/json", "application/fhir+json", "text/json"})
_UNSORTED = frozenset({"composite", "special", "words", "list", "has"})


def check_format(text: str) -> None:
    """Only JSON is offered."""
    if text.partition(";")[0].strip().replace(" ", "+") not in _JSON:  # a "+" in a url is read as a blank
        raise Unsupported("search.unsupported", "Only JSON is offered; ask for _format=json.")


def read_count(text: str) -> int:
    """The page size, at most `MAX_COUNT`."""
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise bad_value("_count", "a number")
    return min(int(text), MAX_COUNT)


def read_total(text: str) -> str:
    """``none``, ``estimate`` or ``accurate``."""
    if text not in ("none", "estimate", "accurate"):
        raise bad_value("_total", "none, estimate or accurate")
    return text


def read_summary(text: str) -> str:
    """``true``, ``text``, ``data``, ``count``; "" for ``false``."""
    if text not in ("true", "text", "data", "count", "false"):
        raise bad_value("_summary", "true, text, data, count or false")
    return "" if text == "false" else text


def read_elements(types: Sequence[str], text: str) -> tuple[str, ...]:
    """Names of elements, each of at least one of the types."""
    names = tuple(dict.fromkeys(name for name in text.split(",") if name))
    if any(all(name not in element(kind) for kind in types) for name in names):
        raise bad_value("_elements", f"names of top-level elements of {' or '.join(types[:5])}")
    return names


def read_sort_key(conditions: Conditions, resource_type: str, text: str) -> Sort:
    """One key; a leading ``-`` turns the order."""
    code = text.removeprefix("-")
    if not code:
        raise bad_value("_sort", "names of search parameters, as in _sort=-date,_id")
    key = Sort(conditions.named(resource_type, code, "_sort"), text.startswith("-"))
    heard = not isinstance(key.param, str) and key.param.phonetic
    if heard or key.type in _UNSORTED:
        raise unsupported("_sort", f"is not offered for {code}: a {key.type} parameter has no order.")
    return key


def sort_texts(text: str, most: int = 10) -> list[str]:
    """The keys of ``_sort``."""
    keys = [key.strip() for key in text.split(",") if key.strip()]
    if len(keys) > most:
        raise too_many(f"A search may be sorted by at most {most} parameters.")
    return keys
