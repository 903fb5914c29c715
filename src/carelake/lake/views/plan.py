"""The intermediate form that every SQL engine is written from: relational steps over typed nested values.

Scalar expressions are `Expr`: null is the empty collection, a list is a collection (null, or without nulls inside).
Relations are `Rel`: a chain of steps from the table. What is known of types lives in the compiler; an engine needs
the physical kinds only (`schema.Node`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from carelake.lake.schema import Leaf, Listed, Node, Record

__all__ = [
    "BOOL",
    "DECIMAL",
    "INT",
    "JSON",
    "TEXT",
    "Case",
    "Const",
    "Each",
    "Expr",
    "Extend",
    "Fail",
    "Get",
    "Keep",
    "Let",
    "Null",
    "Op",
    "Output",
    "Plan",
    "ReadJson",
    "Ref",
    "Rel",
    "Source",
    "UnionAll",
    "Unnest",
]

TEXT, BOOL, INT, DECIMAL, JSON = Leaf("text"), Leaf("bool"), Leaf("int"), Leaf("decimal"), Leaf("json")


@dataclass(frozen=True, slots=True)
class Expr:
    """Any scalar expression."""


@dataclass(frozen=True, slots=True)
class Ref(Expr):
    """A column of the relation, or a variable of `Each`, `Keep` and `Let`."""

    name: str


@dataclass(frozen=True, slots=True)
class Get(Expr):
    """A part of a struct."""

    source: Expr
    key: str


@dataclass(frozen=True, slots=True)
class Const(Expr):
    """A value of the view."""

    value: str | int | bool | float
    kind: Leaf


@dataclass(frozen=True, slots=True)
class Null(Expr):
    """Nothing, of a kind."""

    kind: Node


@dataclass(frozen=True, slots=True)
class Op(Expr):
    """One of the engines' words (`dialect.WORDS`) with its arguments."""

    word: str
    args: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Each(Expr):
    """A list with ``body`` for each element of ``source``; ``index`` is its place from 0, or ""."""

    source: Expr
    var: str
    body: Expr
    index: str = ""


@dataclass(frozen=True, slots=True)
class Keep(Expr):
    """The elements of ``source`` for which ``test`` is true."""

    source: Expr
    var: str
    test: Expr
    index: str = ""


@dataclass(frozen=True, slots=True)
class Let(Expr):
    """``body`` with a name for ``value``, so that it is written (and computed) once."""

    var: str
    value: Expr
    body: Expr


@dataclass(frozen=True, slots=True)
class Case(Expr):
    """``then`` where ``test`` is true, else ``otherwise``."""

    test: Expr
    then: Expr
    otherwise: Expr


@dataclass(frozen=True, slots=True)
class ReadJson(Expr):
    """JSON text as native values of a kind."""

    source: Expr
    kind: Node


@dataclass(frozen=True, slots=True)
class Fail(Expr):
    """Ends the query when it is computed: more than one value at ``at``; ``kind`` is what it would have been."""

    code: str
    at: str
    kind: Node


# --- relations ---


@dataclass(frozen=True, slots=True)
class Rel:
    """Any relation. ``names`` are its columns, physical ones first."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Source(Rel):
    """The rows of ``resources`` for which every test is true."""

    tests: tuple[Expr, ...] = ()


@dataclass(frozen=True, slots=True)
class Extend(Rel):
    """The same rows with one more column, computed once."""

    base: Rel
    name: str
    expr: Expr


@dataclass(frozen=True, slots=True)
class Unnest(Rel):
    """A row for each element of a list: the element as ``var``, its place as ``index``.

    Attributes:
        alive: column that says whether the element is a real one; "" where it always is.
        keeps: whether a row without elements stays, with a null one that is not alive.
        outer: the ``alive`` of the relation before: rows that are not alive stay rows that are not.
    """

    base: Rel
    source: Expr
    var: str
    index: str
    alive: str = ""
    keeps: bool = False
    outer: str = ""


@dataclass(frozen=True, slots=True)
class UnionAll(Rel):
    """The rows of every branch over the same base; each branch gives the columns of the base and ``outputs``."""

    base: Rel
    branches: tuple[tuple[Rel, tuple[Expr, ...]], ...]
    outputs: tuple[str, ...] = ()
    tests: tuple[Expr | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Output:
    """A column of the result: expression, its kind (of the whole, a `Listed` for a collection) and FHIR type."""

    name: str
    expr: Expr
    kind: Node
    type: str
    shape: Node | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """A compiled view.

    Attributes:
        record: the elements of ``resources`` that it reads, the table's columns.
        order: columns that put the rows of one resource in the order of the specification.
        deepest: levels of `repeat` that the plan goes down; 0 where it has none.
    """

    resource: str
    record: Record
    rel: Rel
    outputs: tuple[Output, ...]
    order: tuple[str, ...] = field(default=())
    deepest: int = 0


def listed(kind: Node) -> Listed:
    """A list of that kind."""
    return Listed(kind)
