"""Queries of SQL on FHIR: one SELECT over the rows of views, kept as a Library (profiles SQLQuery and SQLView).

https://build.fhir.org/ig/HL7/sql-on-fhir/en/StructureDefinition-SQLQuery.html. What a query reads are views and
other queries, by the labels that it gives them. All are resolved before anything runs, to a `Node`:

    {"view": VIEWDEFINITION}
    {"text": SQL, "tables": {LABEL: NODE, ...}, "values": {NAME: VALUE, ...}}

Values are bound to the statement, and never become text of it.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa

from carelake.core.errors import Invalid, NotFound
from carelake.core.nouns import Noun
from carelake.core.permit import Permit
from carelake.lake.materialisation.materialised import Found, of_view
from carelake.lake.query import prepared
from carelake.lake.statements import bounded
from carelake.lake.views.definition import read
from carelake.vault.workspace import Vault

__all__ = ["Among", "Node", "Query", "bind", "evaluate", "none_such", "query_of", "resolved"]

Node = Mapping[str, Any]

_MOST_TABLES = 100
_DEEPEST = 20
_TOO_MUCH = (
    f"It reads itself, or what it reads is more than {_DEEPEST} deep or {_MOST_TABLES} views and queries in all."
)
_LABEL = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}", re.ASCII).fullmatch
_KINDS = frozenset({"sql-query", "sql-view"})
_DIALECT = re.compile(r"application/sql(?:\s*;\s*dialect\s*=\s*\"?(?P<name>[\w-]*)\"?)?\s*").fullmatch
_DIALECTS = ("duckdb", "", "ansi")
"""Of several texts of one query, the first that there is in this order; others are of other engines."""
_PARTS = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|--[^\n]*|/\*.*?\*/|::|:(?P<name>[A-Za-z_]\w*)", re.DOTALL)
_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "boolean": bool,
    **dict.fromkeys(("integer", "positiveInt", "unsignedInt"), int),
    "decimal": (int, Decimal),
    **dict.fromkeys(("string", "code", "id", "uri", "url", "canonical", "oid", "uuid", "markdown"), str),
    **dict.fromkeys(("date", "dateTime", "instant", "time", "base64Binary"), str),
}


@dataclass(frozen=True)
class Among:
    """Which resources views are run over.

    Attributes:
        patients: only in the compartments of these; None for all.
        since: only versions that were written after it.
    """

    patients: frozenset[str] | None = None
    since: datetime | None = None


@dataclass(frozen=True)
class Query:
    """A query, read.

    Attributes:
        tables: label -> canonical of what it stands for.
        declared: name of a parameter -> its FHIR type, and whether it must be given.
    """

    name: str
    text: str
    tables: Mapping[str, str]
    declared: Mapping[str, tuple[str, bool]]


def query_of(library: Mapping[str, Any]) -> Query:
    """A Library as a query.

    Raises:
        Invalid: ``lake.query``.
    """
    coded = {one.get("code") for one in library.get("type", {}).get("coding", ())}
    if library.get("resourceType") != "Library" or (coded and not coded & _KINDS):
        raise _wrong("It is no SQLQuery or SQLView: a Library of the type sql-query or sql-view.")
    tables: dict[str, str] = {}
    for one in library.get("relatedArtifact", ()):
        if one.get("type") != "depends-on":
            continue
        label, of = str(one.get("label", "")), str(one.get("resource", ""))
        if not _LABEL(label) or not of or label.lower() in {known.lower() for known in tables}:
            raise _wrong("Each depends-on has a resource and a label of its own: letters, digits and underscores.")
        tables[label] = of
    declared = {
        str(one.get("name", "")): (str(one.get("type", "")), int(one.get("min", 0)) > 0)
        for one in library.get("parameter", ())
        if one.get("use", "in") == "in"
    }
    if not all(kind in _TYPES for kind, _ in declared.values()):
        raise _wrong("A parameter of it has a type that cannot be bound; expected a primitive one.")
    return Query(str(library.get("name", "")), _text(library.get("content", ())), tables, declared)


def _text(contents: Iterable[Mapping[str, Any]]) -> str:
    texts: dict[str, str] = {}
    for one in contents:
        dialect = _DIALECT(str(one.get("contentType", "")).lower())
        if dialect is not None and one.get("data"):
            try:
                texts[dialect["name"] or ""] = base64.b64decode(one["data"], validate=True).decode()
            except (binascii.Error, UnicodeDecodeError, ValueError):
                raise _wrong("Its SQL is not base64 of UTF-8.") from None
    for name in _DIALECTS:
        if name in texts:
            return texts[name]
    raise _wrong("It has no SQL: content of application/sql, or of the dialect duckdb, with data.")


def bind(query: Query, given: Mapping[str, tuple[str, Any]]) -> tuple[str, dict[str, Any]]:
    """The statement with ``$name`` for ``:name``, and the values of those.

    Dates and times are bound as texts, which is what views have them as; a query may cast both.

    Args:
        given: name -> FHIR type and value.

    Raises:
        Invalid: ``lake.query_parameter``: not declared, of another type, or missing.
    """
    for name, (kind, value) in given.items():
        if name not in query.declared:
            raise _unfit("A parameter is given that the query does not declare.")
        wanted, real = query.declared[name][0], _TYPES[query.declared[name][0]]
        same = kind == wanted or (_TYPES.get(kind) is real and wanted not in ("date", "dateTime", "instant", "time"))
        if not same or not isinstance(value, real) or (isinstance(value, bool) and real is not bool):
            raise _unfit(f"A parameter is given as another type than the query declares; expected {wanted}.")
    if any(must and name not in given for name, (_, must) in query.declared.items()):
        raise _unfit("A parameter that the query must have is not given.")
    used: dict[str, Any] = {}

    def put(part: re.Match[str]) -> str:
        name = part["name"]
        if name is None or name not in query.declared:
            return part[0]
        used[name] = given[name][1] if name in given else None
        return f"${name}"

    return _PARTS.sub(put, query.text), used


def resolved(
    query: Query,
    given: Mapping[str, tuple[str, Any]],
    find: Callable[[str], Mapping[str, Any]],
    depth: int = 0,
    count: Iterator[int] | None = None,
) -> Node:
    """A query with all that it reads.

    Args:
        find: the ViewDefinition or Library of a canonical.
        depth, count: of what is resolved already: what is read twice is run twice.

    Raises:
        NotFound: ``lake.no_such_view``, of ``find``. Invalid: ``lake.query``, and as `read` for views.
    """
    count = itertools.count(1) if count is None else count
    if depth > _DEEPEST:
        raise _wrong(_TOO_MUCH)
    text, values = bind(query, given)
    tables: dict[str, Node] = {}
    for label, of in query.tables.items():
        if next(count) > _MOST_TABLES:
            raise _wrong(_TOO_MUCH)
        found = find(of)
        if found.get("resourceType") == "Library":
            tables[label] = resolved(query_of(found), {}, find, depth + 1, count)
        else:
            read(found)
            tables[label] = {"view": found}
    return {"text": text, "tables": tables, "values": values}


def evaluate(
    permit: Permit, vault: Vault, snapshot: Noun, node: Node, among: Among | None = None, most: int | None = None
) -> Found:
    """The rows of a view or a query as of a snapshot, in what the permit sees.

    Args:
        among: narrows the resources that views are run over, before a query reads those.
        most: so many rows are enough.

    Raises:
        Invalid: ``lake.query_sql``: what DuckDB refuses; as `over.over`. Unavailable: as `query.sql`.
    """
    among = among or Among()
    if "view" in node:
        patients: Collection[str] | None = among.patients
        return of_view(permit, vault, snapshot, node["view"], patient=patients, since=among.since, most=most)
    tables = {label: evaluate(permit, vault, snapshot, inner, among).rows for label, inner in node["tables"].items()}
    return Found(_selected(permit, vault, snapshot, node, tables, most))


def _selected(
    permit: Permit, vault: Vault, snapshot: Noun, node: Node, tables: Mapping[str, pa.Table], most: int | None
) -> pa.Table:
    values = node["values"] or None
    try:
        with prepared(permit, vault, snapshot, node["text"], values, relations=tables) as connection:
            found = bounded.select(connection, node["text"], vault.settings.lake, values)
    except Invalid as error:
        if error.code != "lake.sql":
            raise
        raise Invalid("lake.query_sql", error.message) from None
    return found if most is None else found.slice(0, most)


def _wrong(message: str) -> Invalid:
    return Invalid("lake.query", message)


def _unfit(message: str) -> Invalid:
    return Invalid("lake.query_parameter", message, expression="parameters")


def none_such() -> NotFound:
    """Of a canonical that nothing has."""
    return NotFound("lake.no_such_view", "A view or query that is named is neither sent, saved nor stored here.")
