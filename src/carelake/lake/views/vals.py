"""What the compiler knows of an expression: its FHIR type, whether it may repeat, and where it lies in the table.

A view is compiled twice. The first time nothing is known of the table, and each step writes down in ``need``
which elements it reads; from that comes the record (`layout`), and the second time ``node`` tells what is native
and what is JSON text.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from carelake.fhir import definitions
from carelake.fhir.path.model import UNTYPED, Field, Type, type_named
from carelake.lake.schema import Leaf, Listed, Node, Record, occurring
from carelake.lake.views.plan import BOOL, DECIMAL, INT, JSON, TEXT, Expr, Get, Null, Ref

__all__ = ["Choice", "Need", "Val", "kind_of", "layout", "need_all", "nothing", "plain"]

Need = dict[str, Any]

_KINDS = {"Boolean": BOOL, "Integer": INT, "Long": INT, "Decimal": DECIMAL}


@dataclass(frozen=True, slots=True)
class Val:
    """An expression of one type.

    Attributes:
        type: its FHIR type, `UNTYPED` for a value that was computed.
        system: the System type that it converts to, "" for none.
        node: its physical node, one element's; None in the first pass.
        parent, name: the element that it is a child of, and its name there, for what hangs on a primitive.
        lexeme: the digits of a decimal, where they are at hand.
        json: whether it was read from JSON text, which has no digits beside its decimals.
        root: whether it is the resource itself, whose elements are columns; ``guard`` is then when it is there.
    """

    expr: Expr
    type: Type
    system: str
    many: bool = False
    node: Node | None = None
    need: Need | None = None
    parent: Val | None = None
    name: str = ""
    lexeme: Expr | None = None
    root: bool = False
    guard: Expr | None = None
    json: bool = False

    @property
    def complex(self) -> bool:
        """Whether it has elements."""
        return self.type is not UNTYPED and not self.type.primitive

    @property
    def absent(self) -> bool:
        """Whether it is known to be nothing."""
        return isinstance(self.expr, Null)

    def element(self, var: str) -> Val:
        """One element of it, in a variable."""
        return replace(self, expr=Ref(var), many=False, parent=None, lexeme=None)


@dataclass(frozen=True, slots=True)
class Choice:
    """``value`` of ``value[x]`` before somebody says which: the element that has it, and the field."""

    parent: Val
    field: Field

    @property
    def many(self) -> bool:
        """Whether it may repeat."""
        return self.parent.many or self.field.many


def plain(expr: Expr, system: str, many: bool = False) -> Val:
    """A computed value of a System type."""
    return Val(expr, UNTYPED, system, many, _KINDS.get(system, TEXT))


def nothing(kind: Node = TEXT) -> Val:
    """The empty collection."""
    return Val(Null(kind), UNTYPED, "", node=kind)


def kind_of(val: Val) -> Node:
    """The physical kind of one element of it."""
    if val.complex and val.type.system != "Quantity":
        return val.node or Record({})
    if val.complex:
        return val.node or Record({})
    return _KINDS.get(val.system, TEXT)


def need_all(kind: Type, need: Need, above: tuple[str, ...] = ()) -> None:
    """Write down that everything of a complex type is read."""
    for name, (_, inner) in kind.keys.items():
        below = need.setdefault(name, {})
        if inner.primitive:
            need.setdefault("_" + name, {})
        elif inner.path not in (*above, kind.path) and inner.path != "Extension" and not inner.resolves:
            need_all(inner, below, (*above, kind.path))


def layout(type_name: str, need: Need) -> Record:
    """The physical record of a type with the elements that are needed."""
    kind = type_named(type_name)
    told = {name: _filled(kind, name, inner, ()) for name, inner in need.items()}
    made = occurring(type_name, told)
    return made if made.fields or definitions.is_resource(type_name) else Record({"extension": JSON})


def _filled(kind: Type, name: str, inner: Need, above: tuple[int, ...]) -> Any:
    """A need as `schema.occurring` takes it: a struct always has a part."""
    found = kind.keys.get(name)
    if found is None or found[1].primitive or id(inner) in above:
        return None if found is None or found[1].primitive else {"id": None}
    below = found[1]
    return {each: _filled(below, each, part, (*above, id(inner))) for each, part in inner.items()} or {"id": None}


def part_node(node: Node | None, key: str) -> Node | None:
    """The physical node of a part; a list's is that of its element."""
    found = node.fields.get(key) if isinstance(node, Record) else None
    return found.item if isinstance(found, Listed) else found


def is_text(node: Node | None, kind: Type) -> bool:
    """Whether an element with parts lies there as JSON text."""
    return isinstance(node, Leaf) and not kind.primitive


def get(val: Val, key: str) -> Expr:
    """A part of a single element; a column, where that is the resource."""
    if isinstance(val.expr, Null):
        return val.expr
    return Ref(key) if val.root else Get(val.expr, key)
