"""A search's parameters as typed, frozen data (https://hl7.org/fhir/R4/search.html); the store makes SQL of it.

What is not offered is an error that names the parameter, never an unfiltered answer. No message holds a value.
Reading of the texts of values is in `carelake.fhir.query_values`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from carelake.core.errors import Invalid, Unsupported
from carelake.fhir.definitions import element, is_resource
from carelake.fhir.query_values import (
    DateValue,
    NumberValue,
    ReferenceValue,
    StringValue,
    TokenValue,
    UriValue,
    Value,
    read_value,
    split,
)
from carelake.fhir.search.expression import Refers
from carelake.fhir.search.registry import SearchParameter, parameters, unsupported

__all__ = [
    "Condition",
    "DateValue",
    "NumberValue",
    "Query",
    "ReferenceValue",
    "Sort",
    "StringValue",
    "TokenValue",
    "UriValue",
    "Value",
    "parse",
    "parse_text",
]

MAX_PAIRS = 100
MAX_VALUES = 1000
MAX_COUNT = 10_000


@dataclass(frozen=True, slots=True)
class Condition:
    """One parameter of a search; its values are alternatives.

    Attributes:
        param: code, also ``_id`` and ``_lastUpdated``, which are columns of the store.
        type: ``token``, ``string``, ``date``, ``number``, ``quantity``, ``reference`` or ``uri``; ``id`` for ``_id``.
        modifier: "", ``exact``, ``contains``, ``not``, ``missing`` (then `missing` holds the answer) or ``chain``
            (then `chain` is the search that the resource pointed to must satisfy).
        values: alternatives, of the value class of the type; `TokenValue` for ``id``.
    """

    param: str
    type: str
    modifier: str = ""
    values: tuple[Value, ...] = ()
    missing: bool = False
    chain: Query | None = None


@dataclass(frozen=True, slots=True)
class Sort:
    """One key of the order; `type` as in `Condition`."""

    param: str
    type: str
    descending: bool = False


@dataclass(frozen=True, slots=True)
class Query:
    """A search: all conditions must hold.

    Attributes:
        count: page size asked for, or None.
        total: ``none``, ``estimate``, ``accurate`` or "" where nothing was asked.
        count_only: only the number of matches is wanted (``_summary=count`` or ``_count=0``).
        elements: names of top-level elements wanted, empty for all.
    """

    type: str
    conditions: tuple[Condition, ...] = ()
    sort: tuple[Sort, ...] = ()
    count: int | None = None
    total: str = ""
    count_only: bool = False
    elements: tuple[str, ...] = ()


@dataclass(slots=True)
class _Draft:
    conditions: list[Condition] = field(default_factory=list)
    settings: dict[str, str] = field(default_factory=dict)


_SETTINGS = frozenset({"_count", "_sort", "_total", "_summary", "_elements", "_format", "_pretty"})
_JSON = frozenset({"json", "application/json", "application/fhir+json", "text/json"})
_NOT_OFFERED = frozenset(
    {"_include", "_revinclude", "_has", "_contained", "_containedType", "_filter", "_text", "_content", "_list"}
    | {"_query", "_type"}
)
_MODIFIERS = {
    "string": {"exact", "contains", "missing"},
    "token": {"not", "missing"},
    "reference": {"missing"},
}
_STANDARD_MODIFIERS = frozenset(
    {"missing", "exact", "contains", "text", "in", "below", "above", "not-in", "not", "type", "identifier"}
    | {"of-type", "iterate"}
)
_SHOWABLE = re.compile(r"[A-Za-z0-9_.:\-]{1,64}").fullmatch
_SORTABLE = frozenset({"date", "string", "token", "number", "quantity"})


def parse_text(text: str) -> Query:
    """Read ``Patient?gender=female``; values are percent-decoded.

    Raises:
        Invalid, Unsupported: as `parse`; ``search.unknown_type`` when the part before ``?`` is no resource type.
    """
    name, _, rest = text.strip().lstrip("/").partition("?")
    try:
        pairs = parse_qsl(rest, keep_blank_values=True, strict_parsing=bool(rest), max_num_fields=MAX_PAIRS)
    except ValueError:
        raise Invalid("search.syntax", "The search is not of the form Type?name=value&name=value.") from None
    return parse(name, pairs)


def parse(resource_type: str, pairs: Sequence[tuple[str, str]]) -> Query:
    """Read name and value pairs, percent-decoded.

    Raises:
        Invalid: ``search.unknown_type``, ``search.unknown_parameter``, ``search.unknown_modifier``,
            ``search.bad_value``, ``search.too_many``.
        Unsupported: ``search.unsupported``: in the standard, but not offered.
    """
    if not is_resource(resource_type):
        raise Invalid("search.unknown_type", "FHIR R4 has no such resource type; expected for example Patient.")
    if len(pairs) > MAX_PAIRS:
        raise Invalid("search.too_many", f"A search may have at most {MAX_PAIRS} parameters.")
    draft = _Draft()
    for name, value in pairs:
        if name in _SETTINGS:
            if name in draft.settings:
                raise _bad(name, "given once only")
            draft.settings[name] = value
        else:
            draft.conditions.append(_condition(resource_type, name, value))
    return _finish(resource_type, draft)


def _shown(name: str) -> str:
    return f"The search parameter {name}" if _SHOWABLE(name) else "A search parameter"


def _bad(name: str, expected: str) -> Invalid:
    return Invalid("search.bad_value", f"{_shown(name)} has a value that is not valid here; expected: {expected}.")


def _condition(resource_type: str, name: str, value: str, *, chained: bool = False) -> Condition:
    stem, dot, inner = name.partition(".")
    code, colon, modifier = stem.partition(":")
    if dot:
        if chained:
            raise Unsupported("search.unsupported", f"{_shown(name)} chains more than once, which is not offered.")
        return _chain(resource_type, code, modifier, inner, value)
    parameter = _parameter(resource_type, code)
    if colon and not modifier:
        raise Invalid("search.unknown_modifier", f"{_shown(code)} is followed by a colon and no modifier.")
    _check_modifier(parameter, modifier)
    if modifier == "missing":
        if value not in ("true", "false"):
            raise _bad(name, "true or false")
        return Condition(code, parameter.type, "missing", missing=value == "true")
    texts = split(value, ",")
    if len(texts) > MAX_VALUES:
        raise Invalid("search.too_many", f"{_shown(code)} has more than {MAX_VALUES} values.")
    target = modifier if is_resource(modifier) else _sole_target(parameter)
    try:
        values = tuple(read_value(parameter.type, text, target) for text in texts)
    except ValueError as error:
        raise _bad(code, str(error)) from None
    return Condition(code, parameter.type, "" if is_resource(modifier) else modifier, values)


def _chain(resource_type: str, code: str, modifier: str, inner: str, value: str) -> Condition:
    parameter = _parameter(resource_type, code)
    if parameter.type != "reference":
        raise Invalid("search.unknown_parameter", f"{_shown(code)} is no reference, so nothing can be chained to it.")
    _check_modifier(parameter, modifier)
    target = modifier or _sole_target(parameter)
    if not is_resource(target):
        raise Invalid(
            "search.unknown_modifier", f"{_shown(code)} has several targets; say which: {code}:Patient.name=."
        )
    condition = _condition(target, inner, value, chained=True)
    return Condition(code, "reference", "chain", chain=Query(target, (condition,)))


_COLUMNS = {
    "_id": SearchParameter("_id", "id", (), ()),
    "_lastUpdated": SearchParameter("_lastUpdated", "date", (), ()),
}


def _parameter(resource_type: str, code: str) -> SearchParameter:
    found = _COLUMNS.get(code) or parameters(resource_type).get(code)
    if found is not None:
        return found
    reason = unsupported(resource_type).get(code)
    if reason is not None or code in _NOT_OFFERED:
        raise Unsupported(
            "search.unsupported", f"{_shown(code)} of {resource_type} is not offered: {reason or 'not yet built'}."
        )
    raise Invalid(
        "search.unknown_parameter",
        f"{_shown(code)} is none of {resource_type} in FHIR R4; its parameters are in the CapabilityStatement.",
    )


def _check_modifier(parameter: SearchParameter, modifier: str) -> None:
    if not modifier or modifier in _MODIFIERS.get(parameter.type, {"missing"} - _columns(parameter)):
        return
    if parameter.type == "reference" and is_resource(modifier):
        if parameter.targets and modifier not in parameter.targets:
            raise Invalid("search.unknown_modifier", f"{_shown(parameter.code)} cannot point to that resource type.")
        return
    if modifier in _STANDARD_MODIFIERS:
        raise Unsupported("search.unsupported", f"{_shown(parameter.code)} is not offered with :{modifier}.")
    raise Invalid("search.unknown_modifier", f"{_shown(parameter.code)} has a modifier that FHIR R4 does not know.")


def _columns(parameter: SearchParameter) -> set[str]:
    return {"missing"} if parameter.code in _COLUMNS else set()


def _sole_target(parameter: SearchParameter) -> str:
    tested = {step.test.type for path in parameter.paths for step in path.steps if isinstance(step.test, Refers)}
    targets = tested or set(parameter.targets)
    return targets.pop() if len(targets) == 1 else ""


def _finish(resource_type: str, draft: _Draft) -> Query:
    told = draft.settings
    if told.get("_format", "json") not in _JSON:
        raise Unsupported("search.unsupported", "Only JSON is offered; ask for _format=json.")
    summary = told.get("_summary", "false")
    if summary not in ("count", "false"):
        raise Unsupported("search.unsupported", "_summary is offered with the values count and false only.")
    total = told.get("_total", "")
    if total not in ("", "none", "estimate", "accurate"):
        raise _bad("_total", "none, estimate or accurate")
    count = _count(told.get("_count"))
    return Query(
        resource_type,
        tuple(draft.conditions),
        tuple(_sort_key(resource_type, text) for text in told.get("_sort", "").split(",") if text),
        count or None,
        total,
        summary == "count" or count == 0,
        _elements(resource_type, told.get("_elements", "")),
    )


def _count(text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise _bad("_count", "a number")
    return min(int(text), MAX_COUNT)


def _sort_key(resource_type: str, text: str) -> Sort:
    code = text.removeprefix("-")
    parameter = _parameter(resource_type, code)
    if parameter.type not in _SORTABLE and parameter.code not in _COLUMNS:
        raise Unsupported("search.unsupported", f"Sorting by {code} is not offered; it is a {parameter.type}.")
    return Sort(code, parameter.type, text.startswith("-"))


def _elements(resource_type: str, text: str) -> tuple[str, ...]:
    names = tuple(name for name in text.split(",") if name)
    known = element(resource_type)
    if any(name not in known for name in names):
        raise _bad("_elements", f"names of top-level elements of {resource_type}")
    return names
