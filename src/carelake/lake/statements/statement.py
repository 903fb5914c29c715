"""What a statement of a user's is made of, by DuckDB's own parser: one query, of parts that are listed and no others.

Read-only by construction: the statement is parsed to a tree, and each node of it must be on the list of
`statements.toml`. So there is no way to a file, a setting, the catalog or a statistic: nothing has to be thought of
that could lead there, it is enough that it is not on the list.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources
from typing import Any

import duckdb
import msgspec

from carelake.core.errors import Invalid
from carelake.core.shapes import decodable

__all__ = ["MAX_SQL", "Relation", "Statement", "not_there", "read", "written"]

MAX_SQL = 100_000
_KEPT = 256
_DEEPEST = 800


@dataclass(frozen=True, slots=True, order=True)
class Relation:
    """A table or view that a statement names, in small letters.

    Attributes:
        schema: "" where it names none.
    """

    schema: str
    name: str


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement that may be run.

    Attributes:
        text: as it was written.
        tree: its one query, as DuckDB's JSON has it; not to be changed.
        relations: the tables that it reads, without those that it makes itself.
    """

    text: str
    tree: Mapping[str, Any]
    relations: frozenset[Relation]


class _Allowed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    nodes: frozenset[str]
    tables: frozenset[str]
    functions: str


@cache
def _allowed() -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    text = resources.files("carelake.lake.statements").joinpath("statements.toml").read_text(encoding="utf-8")
    said = msgspec.convert(tomllib.loads(text), decodable(_Allowed))
    return said.nodes, said.tables, frozenset(name.lower() for name in said.functions.split())


@cache
def _parser() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(
        ":memory:", config={"temp_directory": "", "autoload_known_extensions": False, "threads": 1}
    )
    connection.sql("SET enable_external_access = false; SET lock_configuration = true")
    return connection


@cache
def _own() -> frozenset[str]:
    """Names that DuckDB itself has a table or view for: nothing of a statement may be called so."""
    found = _parser().cursor().execute("SELECT view_name FROM duckdb_views() WHERE internal").fetchall()
    return frozenset(name.lower() for (name,) in found)


def not_there() -> Invalid:
    """What every refusal of a statement's parts says: whether a thing is absent or withheld makes no difference."""
    return Invalid(
        "lake.sql",
        "The statement names a table, column or function that there is none of here, or one that is not for "
        "statements; docs/lake-access.md tells what there is.",
    )


@lru_cache(_KEPT)
def read(text: str) -> Statement:
    """A statement, looked through.

    Raises:
        Invalid: ``lake.sql``: it is no single SELECT, or has a part that is not on the list; no part is repeated.
    """
    if len(text) > MAX_SQL:
        raise Invalid("lake.sql", "The statement is too long.")
    if "\0" in text:
        raise _no_select()
    try:
        said = _parser().cursor().execute("SELECT json_serialize_sql(?::VARCHAR)", [text]).fetchall()[0][0]
        told = msgspec.json.decode(said)
    except (duckdb.Error, RecursionError, UnicodeError, msgspec.MsgspecError):
        raise _no_select() from None
    statements = told.get("statements", ())
    if told["error"] or len(statements) != 1:
        raise _no_select()
    tree = statements[0]["node"]
    return Statement(text, tree, frozenset(_relations(tree)))


def written(tree: Mapping[str, Any]) -> str:
    """A query's text."""
    said = msgspec.json.encode({"error": False, "statements": [{"node": tree, "named_param_map": []}]}).decode()
    found = _parser().cursor().execute("SELECT json_deserialize_sql(?::JSON)", [said]).fetchall()
    return str(found[0][0])


def _no_select() -> Invalid:
    return Invalid("lake.sql", "Expected one SELECT over views and tables of the lake; nothing else is run here.")


def _relations(tree: Any) -> Iterator[Relation]:
    """Every table that is named, once each node has been looked at."""
    nodes, tables, functions = _allowed()
    named: set[Relation] = set()
    made: set[str] = set()
    waiting: list[tuple[Any, int, str]] = [(tree, 0, "")]
    while waiting:
        node, depth, above = waiting.pop()
        if depth > _DEEPEST:
            raise _no_select()
        if isinstance(node, list):
            waiting += [(one, depth + 1, above) for one in node]
            continue
        if not isinstance(node, dict):
            continue
        if above == "cte_map":
            made.update(_made(node))
        # Of a bare value the type is no word but a type of its own.
        kinds = {kind for kind in (node.get("class"), node.get("type")) if isinstance(kind, str)}
        if not kinds <= nodes:
            raise not_there()
        if "BASE_TABLE" in kinds:
            named.add(_relation(node))
        if "function_name" in node and _path(node, "function_name")[-1] not in (
            tables if above == "function" else functions
        ):
            raise not_there()
        waiting += [(one, depth + 1, name) for name, one in node.items() if isinstance(one, dict | list)]
    if made & _own():
        raise not_there()
    return iter(one for one in named if one.schema or one.name not in made)


def _made(cte_map: Mapping[str, Any]) -> Iterator[str]:
    for entry in cte_map.get("map", ()):
        yield str(entry["key"]).lower()


def _relation(node: Mapping[str, Any]) -> Relation:
    if node.get("at_clause"):
        raise not_there()
    path = _path(node, "table_name")
    if not 1 <= len(path) <= 2:
        raise not_there()
    return Relation("" if len(path) == 1 else path[0], path[-1])


def _path(node: Mapping[str, Any], name: str) -> list[str]:
    """A name with what qualifies it, in small letters: newer versions of DuckDB say it as one list."""
    told = (node.get("qualified_name") or {}).get("path")
    parts = told or [
        node.get("catalog_name") or node.get("catalog"),
        node.get("schema_name") or node.get("schema"),
        node.get(name),
    ]
    return [str(part).lower() for part in parts if part]
