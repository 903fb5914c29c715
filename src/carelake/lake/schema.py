"""The columns of a resource type's table: R4's own definitions, cut down to the elements that occur.

Layout, the same in Iceberg, Arrow and DuckDB:

* Key columns first (`KEYS`): what every table is filtered, joined and followed by (decision D11).
* Then one column per top-level element that occurs, under its JSON name, nested as structs and lists. An element
  that has a key column's name (``code``, ``patient``, ``version``) is stored as ``code_element`` and so on.
  ``resourceType`` and ``id`` are not repeated.
* A decimal is two neighbours, ``value`` (double) to compute with and ``value_text`` (its digits, decision D7).
  Dates and times are the text that was sent: they may be partial.
* What has no fixed shape is its canonical JSON as text: extensions, contained resources, what hangs on a primitive
  (``_birthDate``), and a type that repeats inside itself (an Identifier inside an Identifier's assigner).

So a row holds everything of its resource (`rows.restore` makes the JSON again), and a new element is a new column:
tables evolve by union of names and nothing is rewritten.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import pyarrow as pa

from carelake.core.errors import Corrupt, Invalid
from carelake.fhir import definitions

__all__ = [
    "KEYS",
    "Leaf",
    "Listed",
    "Node",
    "Record",
    "arrow_type",
    "column_of",
    "merge",
    "occurring",
    "of_arrow",
    "selected",
    "structure",
    "table_schema",
]

KEYS = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("version", pa.int32()),
        pa.field("last_updated", pa.timestamp("us", "UTC")),
        pa.field("patient", pa.string()),
        pa.field("code", pa.string()),
        pa.field("code_system", pa.string()),
        pa.field("time", pa.timestamp("us", "UTC")),
        pa.field("seq", pa.int64()),
        pa.field("deleted", pa.bool_()),
        pa.field("replaced_seq", pa.int64()),
    ]
)
"""Key columns: patient is the one patient of the compartment or null; code and time are the primary ones or null;
replaced_seq is the seq of the version before, null for none."""

NOT_STORED = frozenset({"resourceType", "id"})
TEXT_OF = "_text"

Kind = Literal["text", "bool", "int", "decimal", "json"]


@dataclass(frozen=True, slots=True)
class Leaf:
    """A value without parts."""

    kind: Kind


@dataclass(frozen=True, slots=True)
class Record:
    """Named parts, in alphabetical order: column orders do not depend on what came first."""

    fields: Mapping[str, Node]


@dataclass(frozen=True, slots=True)
class Listed:
    """A repeated value."""

    item: Node


Node = Leaf | Record | Listed

_JSON = Leaf("json")
_PRIMITIVES: Mapping[str, Leaf] = {
    "boolean": Leaf("bool"),
    "integer": Leaf("int"),
    "positiveInt": Leaf("int"),
    "unsignedInt": Leaf("int"),
    "decimal": Leaf("decimal"),
}
_OPEN = frozenset({"extension", "modifierExtension", "contained"})


@cache
def _keys(type_name: str) -> dict[str, tuple[str, bool]]:
    """JSON name of an element to its type and whether it repeats."""
    return {
        name: (kind, item.max != "1")
        for item in definitions.element(type_name).values()
        for name, kind in item.keys.items()
    }


def _node(type_name: str, name: str, path: tuple[str, ...], inner: Any) -> Node:
    """The node of one element; ``inner`` says which parts occur (a mapping, or a list around one)."""
    if name.startswith("_") or name in _OPEN:
        return _JSON
    found = _keys(type_name).get(name)
    if found is None:
        raise Corrupt("lake.unknown_element", "A stored resource has an element that R4 does not define.")
    kind, repeats = found
    while isinstance(inner, list):
        inner = inner[0] if inner else None
    item = _item(kind, path, inner)
    return Listed(item) if repeats and item is not _JSON else item


def _item(kind: str, path: tuple[str, ...], inner: Any) -> Node:
    if definitions.is_primitive(kind):
        return _PRIMITIVES.get(kind, Leaf("text"))
    if kind in path or definitions.is_resource(kind) or kind == "Resource" or not isinstance(inner, Mapping):
        return _JSON
    return _record(kind, inner, path)


def _record(type_name: str, occurs: Mapping[str, Any], path: tuple[str, ...]) -> Record:
    here = (*path, type_name)
    return Record({name: _node(type_name, name, here, occurs[name]) for name in sorted(occurs)})


def occurring(resource_type: str, occurs: Mapping[str, Any]) -> Record:
    """The record of a resource type with the elements that occur.

    Args:
        occurs: nested names, as DuckDB's ``json_group_structure`` tells them: mapping for an object, one-element
            list for an array, anything else for a value.

    Raises:
        Corrupt: ``lake.unknown_element``; the store validates, so this is damage.
    """
    return _record(resource_type, {k: v for k, v in occurs.items() if k not in NOT_STORED}, ())


def selected(resource_type: str, paths: Iterable[str]) -> Record:
    """The record with the named elements only, for example ``valueQuantity.value`` and ``code.coding.system``."""
    occurs: dict[str, Any] = {}
    for path in paths:
        level = occurs
        *above, last = path.split(".")
        for name in above:
            level = level.setdefault(name, {})
        level.setdefault(last, None)
    try:
        return occurring(resource_type, occurs)
    except Corrupt:
        raise Invalid("lake.unknown_path", f"{resource_type} has no such element; see the R4 definitions.") from None


def merge(a: Record, b: Record) -> Record:
    """Everything of both.

    Raises:
        Corrupt: ``lake.shape``, when they disagree about an element's kind.
    """
    names = sorted({*a.fields, *b.fields})
    return Record({name: _merge(a.fields.get(name), b.fields.get(name)) for name in names})


def _merge(a: Node | None, b: Node | None) -> Node:
    if a is None or b is None:
        found = a if b is None else b
        assert found is not None
        return found
    if isinstance(a, Record) and isinstance(b, Record):
        return merge(a, b)
    if isinstance(a, Listed) and isinstance(b, Listed):
        return Listed(_merge(a.item, b.item))
    if a != b:
        raise Corrupt("lake.shape", "A stored element is a value in one resource and an object in another.")
    return a


def column_of(element: str) -> str:
    """The top-level column of an element."""
    return f"{element}_element" if element in KEYS.names else element


_ARROW = {
    "text": pa.string(),
    "bool": pa.bool_(),
    "int": pa.int32(),
    "decimal": pa.float64(),
    "json": pa.string(),
}
_DUCKDB = {"text": "VARCHAR", "bool": "BOOLEAN", "int": "INTEGER", "decimal": "DOUBLE", "json": "VARCHAR"}


def arrow_type(node: Node) -> pa.DataType:
    """The Arrow type of a node; a decimal's is its double."""
    if isinstance(node, Leaf):
        return _ARROW[node.kind]
    if isinstance(node, Listed):
        return pa.list_(pa.field("element", arrow_type(node.item)))
    return pa.struct(_fields(node))


def _fields(record: Record) -> list[pa.Field]:
    found = []
    for name, node in record.fields.items():
        found.append(pa.field(name, arrow_type(node)))
        if node == Leaf("decimal"):
            found.append(pa.field(name + TEXT_OF, pa.string()))
    return found


def table_schema(record: Record) -> pa.Schema:
    """Key columns, then the elements' columns."""
    return pa.schema([*KEYS, *(field.with_name(column_of(field.name)) for field in _fields(record))])


def structure(node: Node) -> Any:
    """What DuckDB's ``from_json`` wants to be told, as JSON."""
    if isinstance(node, Leaf):
        return _DUCKDB[node.kind]
    if isinstance(node, Listed):
        return [structure(node.item)]
    told: dict[str, Any] = {}
    for name, part in node.fields.items():
        told[name] = structure(part)
        if part == Leaf("decimal"):
            told[name + TEXT_OF] = "VARCHAR"
    return told


def of_arrow(resource_type: str, schema: pa.Schema) -> Record:
    """The record that a table's schema was made from."""
    elements = {column_of(name): name for name in _names(resource_type)}
    occurs = {
        elements.get(field.name, field.name): _occurs(field.type)
        for field in schema
        if field.name not in KEYS.names and not _is_digits(field.name)
    }
    return occurring(resource_type, occurs)


def _names(resource_type: str) -> list[str]:
    return [*_keys(resource_type), *(f"_{name}" for name in _keys(resource_type))]


def _is_digits(name: str) -> bool:
    """Is it the neighbour of a decimal? ``_text`` alone is what hangs on a primitive called ``text``."""
    return len(name) > len(TEXT_OF) and name.endswith(TEXT_OF)


def _occurs(kind: pa.DataType) -> Any:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return [_occurs(kind.value_type)]
    if pa.types.is_struct(kind):
        return {field.name: _occurs(field.type) for field in kind if not _is_digits(field.name)}
    return None
