"""Steps from elements to their children, over columns, structs, lists and JSON text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from carelake.fhir.path.model import UNTYPED, Field, Type, type_named
from carelake.lake.schema import TEXT_OF, Listed, Node
from carelake.lake.views.errors import cardinality_error, path_error, sql_error
from carelake.lake.views.plan import (
    BOOL,
    INT,
    TEXT,
    Case,
    Const,
    Each,
    Expr,
    Fail,
    Get,
    Keep,
    Let,
    Null,
    Op,
    ReadJson,
    Ref,
)
from carelake.lake.views.vals import Choice, Val, get, is_text, kind_of, layout, need_all, nothing, part_node

__all__ = [
    "Names",
    "both",
    "deduplicated",
    "each",
    "exists",
    "first_of",
    "having",
    "items",
    "keep",
    "listed_kind",
    "member",
    "of_type",
    "one",
    "pick",
    "present",
    "size",
    "whole",
]

TRUE = Const(True, BOOL)


class Names:
    """Fresh names of variables and columns."""

    def __init__(self) -> None:
        self._next = 0

    def new(self, letter: str) -> str:
        """One that was not given before; an underscore keeps it apart from elements."""
        self._next += 1
        return f"_{letter}{self._next}"


def both(*tests: Expr | None) -> Expr:
    """All of the tests that there are."""
    found = tuple(test for test in tests if test is not None and test != TRUE)
    return TRUE if not found else found[0] if len(found) == 1 else Op("and", found)


# --- children ---


def member(names: Names, val: Val | Choice, name: str, at: str, position: int = 0) -> Val | Choice:
    """The children of that name.

    Raises:
        Invalid: ``lake.view_path``: the type has no such element.
    """
    if isinstance(val, Choice):
        return _of_any(names, val, name, at, position)
    if val.type is UNTYPED:
        if val.absent and not val.system:
            return val
        raise path_error(at, "a computed value has no elements.", position)
    if val.type.primitive:
        return _of_primitive(names, val, name, at, position)
    field = val.type.fields.get(name)
    if field is None:
        raise path_error(at, f"{val.type.path} has no element of that name in R4.", position)
    if field.choices is not None:
        return Choice(val, field)
    return child(names, val, field, field.key, field.type, at)


def child(names: Names, val: Val, field: Field, key: str, kind: Type, at: str) -> Val:
    """The element of a JSON key, of each item."""
    if kind.resolves:
        raise sql_error(at, "A resource inside of a resource")
    return each(names, val, lambda one_of: _child(one_of, field, key, kind))


def _child(val: Val, field: Field, key: str, kind: Type) -> Val:
    """The element of a JSON key of a single element."""
    need = {} if val.need is None else val.need.setdefault(key, {})
    found = Val(get(val, key), kind, kind.system, field.many, part_node(val.node, key), need, val, key, json=val.json)
    if val.guard is not None:
        found = replace(found, expr=Case(val.guard, found.expr, Null(_whole(found))))
    if val.root and key == "id":
        found = replace(found, node=kind_of(found))
    if is_text(found.node, kind):
        record = layout(kind.path, need)
        expr = ReadJson(found.expr, Listed(record) if field.many else record)
        found = replace(found, expr=expr, node=record, json=True)
    elif field.many and kind.primitive:
        # A null in a list of primitives holds the place of one that has extensions only.
        found = replace(found, expr=Op("compact", (found.expr,)))
    if kind.system == "Decimal" and not field.many:
        found = replace(found, lexeme=get(val, key + TEXT_OF) if _has_digits(val, key) else None)
    return found


def _has_digits(val: Val, key: str) -> bool:
    return not val.absent and val.guard is None and not val.json


def _whole(val: Val) -> Node:
    kind = kind_of(val)
    return Listed(kind) if val.many else kind


def _of_primitive(names: Names, val: Val, name: str, at: str, position: int) -> Val:
    if name == "value":
        return replace(val, type=UNTYPED)
    if name not in ("id", "extension"):
        raise path_error(at, f"{val.type.path} has no element of that name in R4.", position)
    if val.parent is None:
        raise sql_error(at, "What hangs on a primitive of a collection")
    element = type_named("Element")
    beside = Field("_" + val.name, {"_" + val.name: element}, False, val.many)
    above = _child(val.parent, beside, "_" + val.name, element)
    found = member(names, above, name, at, position)
    assert isinstance(found, Val)
    return found


def _of_any(names: Names, choice: Choice, name: str, at: str, position: int) -> Val:
    """A child of whichever type the choice has: of those that have one of the name."""
    kinds = [(key, kind) for key, kind in (choice.field.choices or {}).items() if name in kind.fields]
    if not kinds:
        raise path_error(at, "no type of the choice has an element of that name in R4.", position)

    def inner(parent: Val) -> Val:
        found: list[Val] = []
        for key, kind in kinds:
            step = member(names, _child(parent, choice.field, key, kind), name, at, position)
            if isinstance(step, Choice):
                raise sql_error(at, "An element of a choice inside of a choice")
            found.append(step)
        head = found[0]
        alike = all((step.system, step.many, step.complex) == (head.system, head.many, False) for step in found)
        if len(found) > 1 and not alike:
            raise sql_error(at, "An element that several types of a choice have; choose with ofType()")
        if len(found) == 1:
            return head
        return replace(head, expr=Op("coalesce", tuple(val.expr for val in found)), type=UNTYPED, parent=None)

    return each(names, choice.parent, inner)


def of_type(names: Names, choice: Choice, kind: Type, at: str) -> Val:
    """The values of a choice that are of a type; nothing where the choice cannot be."""
    for key, known in (choice.field.choices or {}).items():
        if known is kind or known.path == kind.path:
            return child(names, choice.parent, choice.field, key, known, at)
    return nothing()


def present(names: Names, choice: Choice) -> Expr:
    """Whether a single element has the choice, of whatever type."""
    parts = []
    for key, kind in (choice.field.choices or {}).items():
        found = _child(choice.parent, choice.field, key, kind)
        parts.append(Op("is_not_null", (found.expr,)))
    return Op("or", tuple(parts))


# --- collections ---


def each(names: Names, val: Val, inner: Callable[[Val], Val]) -> Val:
    """The results of ``inner`` for every element, in order."""
    if not val.many:
        return inner(val)
    var = names.new("v")
    found = inner(val.element(var))
    if found.absent:
        return found
    if not found.many and found.expr == Ref(var):
        return replace(found, expr=val.expr, many=True)
    made = Each(val.expr, var, found.expr)
    expr: Expr = Op("flatten", (made,)) if found.many else Op("compact", (made,))
    return replace(found, expr=expr, many=True, parent=None, lexeme=None)


def keep(names: Names, val: Val, test: Callable[[Val, Expr], Expr]) -> Val:
    """The elements for which the test, of an element and its place, is true."""
    if val.root:
        return replace(val, guard=both(val.guard, test(val, Const(0, INT))))
    if not val.many:
        said = test(val, Const(0, INT))
        if said == TRUE:
            return val
        digits = None if val.lexeme is None else Case(said, val.lexeme, Null(TEXT))
        return replace(val, expr=Case(said, val.expr, Null(kind_of(val))), lexeme=digits)
    var, index = names.new("v"), names.new("i")
    said = test(val.element(var), Ref(index))
    if said == TRUE:
        return val
    return replace(val, expr=Keep(val.expr, var, said, index if _reads(said, index) else ""), parent=None)


def _reads(expr: object, name: str) -> bool:
    """Whether an expression reads a variable; a part that is shared is looked at once."""
    waiting, seen = [expr], {id(expr)}
    while waiting:
        one_of = waiting.pop()
        if isinstance(one_of, Ref) and one_of.name == name:
            return True
        for part in parts_of(one_of):
            if id(part) not in seen:
                seen.add(id(part))
                waiting.append(part)
    return False


def parts_of(expr: object) -> Iterator[object]:
    """Expressions right inside of one."""
    match expr:
        case Op(args=args):
            yield from args
        case Get(source=source) | ReadJson(source=source):
            yield source
        case Each(source=source, body=body):
            yield from (source, body)
        case Keep(source=source, test=test):
            yield from (source, test)
        case Let(value=value, body=body):
            yield from (value, body)
        case Case(test=test, then=then, otherwise=otherwise):
            yield from (test, then, otherwise)


def one(names: Names, val: Val, at: str) -> Val:
    """The single item; the query fails where there are several."""
    if not val.many:
        return val
    if val.absent:
        return replace(val, many=False)
    var, kind = names.new("l"), kind_of(val)
    fail = Fail(cardinality_error(at).code, at, kind)
    body = Case(Op("gt", (Op("size", (Ref(var),)), Const(1, INT))), fail, Op("first", (Ref(var),)))
    return replace(val, expr=Let(var, val.expr, body), many=False, parent=None, lexeme=None)


def first_of(val: Val) -> Val:
    """The first item."""
    return replace(val, expr=Op("first", (val.expr,)), many=False, parent=None) if val.many else val


def items(names: Names, val: Val) -> Expr:
    """As a list; null for none is as good as an empty one."""
    if val.absent:
        return Null(Listed(kind_of(val)))
    if val.many:
        return val.expr
    if isinstance(val.expr, Ref | Const):
        return Case(Op("is_null", (val.expr,)), Null(Listed(kind_of(val))), Op("list", (val.expr,)))
    return Op("compact", (Op("list", (val.expr,)),))


def exists(names: Names, val: Val | Choice) -> Expr:
    """Whether there is an item."""
    if isinstance(val, Choice):
        if not val.parent.many:
            return present(names, val)
        return Op("gt", (size(names, val), Const(0, INT)))
    if val.root:
        return TRUE if val.guard is None else Op("coalesce", (val.guard, Const(False, BOOL)))
    if val.absent:
        return Const(False, BOOL)
    if val.many:
        return Op("gt", (Op("size", (val.expr,)), Const(0, INT)))
    return Op("is_not_null", (val.expr,))


def size(names: Names, val: Val | Choice) -> Expr:
    """How many items there are."""
    if isinstance(val, Choice):
        if not val.parent.many:
            return Case(present(names, val), Const(1, INT), Const(0, INT))
        return Op("size", (having(names, val).parent.expr,))
    if val.absent:
        return Const(0, INT)
    if val.many:
        return Op("size", (val.expr,))
    return Case(exists(names, val), Const(1, INT), Const(0, INT))


def having(names: Names, choice: Choice) -> Choice:
    """The choice with those parents only that have it."""
    return Choice(keep(names, choice.parent, lambda val, _: present(names, Choice(val, choice.field))), choice.field)


def pick(names: Names, source: Val | Choice, place: Expr) -> Val | Choice:
    """The item at a place, from 0."""
    if isinstance(source, Choice):
        if source.field.many:
            raise TypeError
        return Choice(_at(having(names, source).parent, place, names), source.field)
    return _at(source, place, names)


def _at(val: Val, place: Expr, names: Names) -> Val:
    if not val.many:
        return keep(names, val, lambda _, __: Op("eq", (place, Const(0, INT))))
    return replace(val, expr=Op("item", (val.expr, place)), many=False, parent=None, lexeme=None)


def whole(val: Val) -> Val:
    """The value with everything in it read."""
    if val.complex and val.need is not None:
        need_all(val.type, val.need)
    return val


def deduplicated(names: Names, val: Val) -> Val:
    """Each value once, where it comes first."""
    if not val.many:
        return val
    whole(val)
    held, var, index = names.new("l"), names.new("v"), names.new("i")
    first = Op("eq", (Op("position", (Ref(held), Ref(var))), Ref(index)))
    return replace(val, expr=Let(held, val.expr, Keep(Ref(held), var, first, index)), parent=None)


def listed_kind(val: Val) -> Listed:
    """The kind of a list of its items."""
    return Listed(kind_of(val))
