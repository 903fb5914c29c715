"""From names and values to a `Query`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from carelake.core.errors import Invalid
from carelake.fhir.compartment import COMPARTMENTS, compartment_codes, compartment_types
from carelake.fhir.definitions import is_resource, resource_types
from carelake.fhir.query.conditions import Conditions, Parameters
from carelake.fhir.query.errors import bad_value, is_showable, too_many, unknown_parameter, unsupported
from carelake.fhir.query.includes import INCLUDES, read_include
from carelake.fhir.query.model import Condition, Include, Query, Sort
from carelake.fhir.query.settings import (
    SETTINGS,
    check_format,
    read_count,
    read_elements,
    read_sort_key,
    read_summary,
    read_total,
    sort_texts,
)
from carelake.fhir.query.texts import is_id
from carelake.fhir.query.values import ReferenceValue, TokenValue
from carelake.fhir.search.registry import BASE

__all__ = ["parse", "parse_text"]

MAX_PAIRS = 100
MAX_INCLUDES = 50
_IGNORABLE = frozenset({"search.unknown_parameter", "search.unknown_modifier", "search.unsupported"})


def parse_text(text: str, *, registry: Parameters = BASE, lenient: bool = False, base: str = "") -> Query:
    """Read ``Patient?gender=female``, ``?_type=Patient,Group&_id=1``, ``Patient/1/Observation?code=x`` or
    ``Patient/1/*?_lastUpdated=gt2024``; values are percent-decoded.

    Raises:
        Invalid, Unsupported: as `parse`; ``search.syntax``.
    """
    path, mark, rest = text.strip().lstrip("/").partition("?")
    try:
        pairs = parse_qsl(rest, keep_blank_values=True, strict_parsing=bool(rest), max_num_fields=MAX_PAIRS)
    except ValueError:
        raise Invalid("search.syntax", "The search is not of the form Type?name=value&name=value.") from None
    steps = path.split("/")
    within: tuple[str, str] | None = None
    if len(steps) == 3:
        within = (steps[0], steps[1])
        steps = steps[2:]
    if len(steps) != 1 or not (path or mark):
        raise _unknown_type()
    types = () if steps[0] in ("", "*") and (within or not path) else (steps[0],)
    return parse(types, pairs, registry=registry, lenient=lenient, compartment=within, base=base)


def parse(
    types: str | Sequence[str],
    pairs: Sequence[tuple[str, str]],
    *,
    registry: Parameters = BASE,
    lenient: bool = False,
    blank: bool = False,
    compartment: tuple[str, str] | None = None,
    base: str = "",
) -> Query:
    """Read name and value pairs, percent-decoded.

    Args:
        types: one type, several, or none for all (``_type`` may name some then).
        lenient: leave out what is unknown or not offered, and say so in `Query.ignored`; values that are not valid
            stay errors.
        blank: leave out what has no value (https://hl7.org/fhir/R4/search.html#errors), and say so as well; never of
            a condition of a write, which would match everything.
        compartment: type and id of the resource whose compartment is searched.
        base: this server's own address, without slash at the end.

    Raises:
        Invalid: ``search.unknown_type``, ``search.unknown_parameter``, ``search.unknown_modifier``,
            ``search.unknown_compartment``, ``search.bad_value``, ``search.too_many``.
        Unsupported: ``search.unsupported``: in the standard, but not offered.
    """
    asked = (types,) if isinstance(types, str) else tuple(types)
    if not all(map(is_resource, asked)):
        raise _unknown_type()
    if len(pairs) > MAX_PAIRS:
        raise too_many(f"A search may have at most {MAX_PAIRS} parameters.")
    if compartment is not None:
        _check_compartment(compartment)
    return _Reader(Conditions(registry, base), lenient, blank, compartment).read(asked, pairs)


def _total(told: dict[str, str]) -> str:
    if told.get("_totalMethod", "count") != "count":
        raise bad_value("_totalMethod", "count, as _total=accurate has it")
    if "_total" in told:
        return read_total(told["_total"])
    return "accurate" if "_totalMethod" in told else ""


def _unknown_type() -> Invalid:
    return Invalid("search.unknown_type", "FHIR R4 has no such resource type; expected for example Patient.")


def _check_compartment(compartment: tuple[str, str]) -> None:
    if compartment[0] not in COMPARTMENTS:
        said = f"FHIR R4 has compartments of {', '.join(COMPARTMENTS)} only, as in Patient/123/Observation."
        raise Invalid("search.unknown_compartment", said)
    if not is_id(compartment[1]):
        raise Invalid("search.unknown_compartment", "A compartment has an id of 1 to 64 letters, digits, - and .")


@dataclass(slots=True)
class _Draft:
    """What the pairs said, sorted by what it is for."""

    told: dict[str, str] = field(default_factory=dict)
    filters: list[tuple[str, str]] = field(default_factory=list)
    joins: list[tuple[str, str]] = field(default_factory=list)


class _Reader:
    """Reads one search."""

    def __init__(
        self, conditions: Conditions, lenient: bool, blank: bool, compartment: tuple[str, str] | None
    ) -> None:
        self._conditions = conditions
        self._lenient = lenient
        self._blank = blank
        self._compartment = compartment
        self._ignored: list[str] = []
        self._rewritten: dict[tuple[str, str], tuple[str, str] | None] = {}
        """Pairs that were ignored, or in part."""

    def read(self, asked: tuple[str, ...], pairs: Sequence[tuple[str, str]]) -> Query:
        empty: list[str] = []
        if self._blank:
            empty = [name for name, value in pairs if not value and _is_setting(name, named=bool(asked))]
        if empty:
            pairs = [pair for pair in pairs if pair[1] or pair[0] not in empty]
        pairs = _one_sort(pairs)
        draft = _sorted_out(pairs, named=bool(asked))
        types = self._types(asked, draft.told.get("_type"))
        columns = [self._filter(types, name, value) for name, value in draft.filters]
        conditions = [
            (*self._membership(kind), *(column[n] for column in columns if column)) for n, kind in enumerate(types)
        ]
        sorts = self._sorts(types, draft.told.get("_sort", ""))
        parts: tuple[Query, ...] = ()
        if len(types) > 1:
            parts = tuple(map(Query, [(kind,) for kind in types], conditions, sorts))
        told, joins = draft.told, draft.joins
        includes = [(name, self._include(types, name, value)) for name, value in joins] if joins else []
        count = read_count(told["_count"]) if "_count" in told else None
        self._check(told, joined=bool(joins))
        return Query(
            types,
            () if parts else conditions[0],
            () if parts else sorts[0],
            count or None,
            _total(told),
            "count" if count == 0 else read_summary(told.get("_summary", "false")),
            read_elements(types, told["_elements"]) if "_elements" in told else (),
            tuple([one for name, one in includes if one and not name.startswith("_rev")]),
            tuple([one for name, one in includes if one and name.startswith("_rev")]),
            tuple(dict.fromkeys((*self._ignored, *empty))),
            parts,
            self._compartment,
            self._kept(pairs),
            self._level(asked),
        )

    def _check(self, told: dict[str, str], *, joined: bool) -> None:
        """What asks for nothing that we could give but the usual."""
        if "_format" in told:
            check_format(told["_format"])
        if told.get("_pretty", "true") not in ("true", "false"):
            raise bad_value("_pretty", "true or false")
        if told.get("_contained", "false") != "false":
            self._ignore_or_raise("_contained", unsupported("_contained", "is offered with the value false only."))
            self._rewritten["_contained", told["_contained"]] = None
        if joined and told.get("_summary") == "text":
            raise bad_value("_summary", "not text together with _include or _revinclude")

    def _types(self, asked: tuple[str, ...], told: str | None) -> tuple[str, ...]:
        """The types searched: those of the path, or of ``_type``, or all there can be."""
        if told is not None:
            asked = tuple(dict.fromkeys(told.split(",")))
            if not all(map(is_resource, asked)):
                raise bad_value("_type", "resource types of FHIR R4, as in _type=Patient,Group")
        if self._compartment is None:
            return asked or tuple(sorted(resource_types()))
        members = compartment_types(self._compartment[0])
        if not set(asked).issubset(members):
            said = f"Resources of that type are in no compartment of a {self._compartment[0]}."
            raise Invalid("search.unknown_compartment", said)
        return asked or members

    def _membership(self, resource_type: str) -> tuple[Condition, ...]:
        """The condition of being in the compartment."""
        if self._compartment is None:
            return ()
        kind, key = self._compartment
        own = [Condition("_id", values=(TokenValue(None, key),))] if resource_type == kind else []
        pointing = [
            Condition(self._conditions.reference(resource_type, code), values=(ReferenceValue(kind, key, ""),))
            for code in compartment_codes(kind, resource_type)
        ]
        found = (*own, *pointing)
        return found if len(found) == 1 else (Condition("", any=found),)

    def _filter(self, types: tuple[str, ...], name: str, value: str) -> list[Condition]:
        """The condition for each type; none where it is ignored."""
        try:
            return [self._conditions.read(kind, name, value) for kind in types]
        except Invalid as error:
            if len(types) > 1 and error.code == "search.unknown_parameter":
                error = unknown_parameter(name, "is not one that all the types searched have.")
            self._ignore_or_raise(name, error, value)
            self._rewritten[name, value] = None
            return []

    def _sorts(self, types: tuple[str, ...], text: str) -> list[tuple[Sort, ...]]:
        """The keys for each type."""
        columns: list[list[Sort]] = []
        kept: list[str] = []
        for key in sort_texts(text) if text else ():
            try:
                column = [read_sort_key(self._conditions, kind, key) for kind in types]
                if len({one.type for one in column}) > 1:
                    raise unknown_parameter(key.removeprefix("-"), "differs in kind between the types searched.")
                columns.append(column)
                kept.append(key)
            except Invalid as error:
                self._ignore_or_raise("_sort", error)
                self._rewritten["_sort", text] = None
        if kept and self._rewritten.get(("_sort", text), ()) is None:
            self._rewritten["_sort", text] = ("_sort", ",".join(kept))
        return [tuple(column[n] for column in columns) for n in range(len(types))]

    def _include(self, types: tuple[str, ...], name: str, value: str) -> Include | None:
        try:
            return read_include(self._conditions, types, name, value)
        except Invalid as error:
            self._ignore_or_raise(name, error, value)
            self._rewritten[name, value] = None
            return None

    def _ignore_or_raise(self, name: str, error: Invalid, value: str = "-") -> None:
        # Only the value of what is known can be wrong.
        empty = self._blank and not value and error.code == "search.bad_value"
        if not empty and (not self._lenient or error.code not in _IGNORABLE):
            raise error
        self._ignored.append(name if is_showable(name) else "(not shown)")

    def _kept(self, pairs: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
        if not self._rewritten:
            return tuple(pairs)
        kept = (self._rewritten.get(pair, pair) for pair in pairs)
        return tuple(pair for pair in kept if pair is not None)

    def _level(self, asked: tuple[str, ...]) -> str:
        types = ",".join(asked)
        return types if self._compartment is None else f"{'/'.join(self._compartment)}/{types or '*'}"


def _one_sort(pairs: Sequence[tuple[str, str]]) -> Sequence[tuple[str, str]]:
    """``_sort`` may repeat, for inner orders (https://hl7.org/fhir/R4/search.html#table): as one list of keys."""
    keys = [value for name, value in pairs if name == "_sort"]
    if len(keys) < 2:
        return pairs
    others = [pair for pair in pairs if pair[0] != "_sort"]
    return [*others, ("_sort", ",".join(keys))]


def _sorted_out(pairs: Sequence[tuple[str, str]], *, named: bool) -> _Draft:
    """Args: named: whether the path has named the type, so that ``_type`` has no place."""
    draft = _Draft()
    for name, value in pairs:
        if not (value.isprintable() and name.isprintable()):
            _check_text(name, value)
        if name.partition(":")[0] in INCLUDES:
            draft.joins.append((name, value))
        elif _is_setting(name, named=named):
            if name in draft.told:
                raise bad_value(name, "given once only")
            draft.told[name] = value
        else:
            draft.filters.append((name, value))
    if len(draft.joins) > MAX_INCLUDES:
        raise too_many(f"A search may have at most {MAX_INCLUDES} of _include and _revinclude.")
    return draft


def _is_setting(name: str, *, named: bool) -> bool:
    return name in SETTINGS or (name == "_type" and not named)


def _check_text(name: str, value: str) -> None:
    """No database takes what is no Unicode text, or has a NUL in it."""
    try:
        odd = b"\0" in f"{name}{value}".encode()
    except UnicodeEncodeError:
        odd = True
    if odd:
        raise bad_value(name, "text in UTF-8, without the sign NUL")
