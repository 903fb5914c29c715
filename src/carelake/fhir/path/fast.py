"""A quick way for the simple expressions that most are: paths, casts, filters, existence, equality and logic.

For one starting type, elements and their types are known before any data is seen; the closures here then walk plain
JSON without making nodes. Whatever they do not cover is left to `compiler` (`quick` gives None), and data that is out
of the ordinary (extensions beside a primitive, nulls, values that are not of their type's shape) raises `Unusual`, on
which the caller evaluates again in the general way. Both ways give the same: a test compares them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from carelake.fhir.path.fast_paths import NOTHING, direct, nodes_of
from carelake.fhir.path.functions.references import referred
from carelake.fhir.path.getters import (
    Nodes,
    Quick,
    Truth,
    Unusual,
    choice_equals,
    negated,
    one_equals,
    one_exists,
)
from carelake.fhir.path.model import UNTYPED, Type
from carelake.fhir.path.syntax import Binary, Call, Literal, Member, Part, Special, TypeTest
from carelake.fhir.path.typetests import predicate

__all__ = ["quick", "truth_of"]


def quick(part: Part, kind: Type) -> Quick | None:
    """The quick way of an expression that starts from a type; None where there is none."""
    if kind.resolves or not kind.fields or kind.primitive or kind.path == "Bundle":
        return None
    nodes = nodes_of(part, kind)
    if nodes is not None:
        get = nodes.get
        return get if nodes.fresh else lambda value: [*get(value)]
    truth = truth_of(part, kind)
    if truth is None:
        return _count_of(part, kind)

    def answer(value: Any) -> list[Any]:
        found = truth(value)
        return [] if found is None else [found]

    return answer


def _count_of(part: Part, kind: Type) -> Quick | None:
    number = _number(part, kind)
    return None if number is None or isinstance(part, Literal) else lambda value: [number(value)]


# --- truth ---


def truth_of(part: Part, kind: Type) -> Truth | None:
    """The test that a part is, of one element; None where it needs the general way."""
    match part:
        case Binary(sign="and" | "or" | "implies" | "xor"):
            return _logic(part, kind)
        case Binary(sign="=" | "!="):
            return _equality(part, kind)
        case Binary(sign="<" | "<=" | ">" | ">="):
            return _order(part, kind)
        case Call(name="exists" | "empty" | "all" | "not" | "hasValue"):
            return _existence(part, kind)
        case TypeTest(word="is", operand=Call(name="resolve")):
            return _refers(part, kind)
        case Member() | TypeTest() | Call():
            return _singleton(part, kind)
    return None


def _singleton(part: Part, kind: Type) -> Truth | None:
    """A path as a truth value: its one Boolean, or that there is one."""
    nodes = nodes_of(part, kind)
    if nodes is None or nodes.kind is None or nodes.kind is UNTYPED or isinstance(part, Special):
        return None
    get, boolean = nodes.get, nodes.kind.system == "Boolean"

    def truth(value: Any) -> bool | None:
        found = get(value)
        if not found:
            return None
        if len(found) > 1:
            raise Unusual
        return bool(found[0]) if boolean else True

    return truth


def _logic(part: Binary, kind: Type) -> Truth | None:
    left, right = truth_of(part.left, kind), truth_of(part.right, kind)
    if left is None or (right is None and part.sign == "xor"):
        return None
    right = right or _unusual  # the left side often settles it

    def both(value: Any) -> bool | None:
        a = left(value)
        if a is False:
            return False
        b = right(value)
        return False if b is False else True if a and b else None

    def either(value: Any) -> bool | None:
        a = left(value)
        if a:
            return True
        b = right(value)
        return True if b else None if a is None or b is None else False

    def implied(value: Any) -> bool | None:
        a = left(value)
        if a is False:
            return True
        b = right(value)
        return True if b else False if a and b is False else None

    def one_of(value: Any) -> bool | None:
        a, b = left(value), right(value)
        return None if a is None or b is None else a is not b

    return {"and": both, "or": either, "implies": implied, "xor": one_of}[part.sign]


def _unusual(value: Any) -> bool | None:
    raise Unusual


_COMPARABLE = {str: "String", bool: "Boolean", int: "Integer"}


def _equality(part: Binary, kind: Type) -> Truth | None:
    numbers = _numbers(part, kind)
    if numbers is not None:
        left, right = numbers
        if part.sign == "=":
            return lambda value: left(value) == right(value)
        return lambda value: left(value) != right(value)
    if _is_test(part.left) and _is_test(part.right):
        return _same_truth(part, kind)
    if not isinstance(part.right, Literal) or len(part.right.items) != 1:
        return None
    wanted = part.right.items[0]
    nodes = nodes_of(part.left, kind)
    if nodes is not None and nodes.kind is None and nodes is not NOTHING and wanted.__class__ is bool:
        return choice_equals(nodes.get, wanted, part.sign == "=")
    if nodes is None or nodes.kind is None or nodes.kind.system != _COMPARABLE.get(wanted.__class__):
        return None
    get, same = nodes.get, part.sign == "="
    field = direct(part.left, kind)
    if field is not None and not field.many:
        return one_equals(field, wanted, same)

    def equals(value: Any) -> bool | None:
        found = get(value)
        if not found:
            return None
        return (len(found) == 1 and found[0] == wanted) is same

    return equals


def _is_test(part: Part) -> bool:
    """Whether it gives one Boolean, or nothing, and never elements."""
    if isinstance(part, Binary):
        return part.sign in ("and", "or", "implies", "xor")
    return isinstance(part, Call) and part.name in ("exists", "empty", "all", "not", "hasValue")


def _same_truth(part: Binary, kind: Type) -> Truth | None:
    left, right, same = truth_of(part.left, kind), truth_of(part.right, kind), part.sign == "="
    if left is None or right is None:
        return None

    def compared(value: Any) -> bool | None:
        a, b = left(value), right(value)
        return None if a is None or b is None else (a is b) is same

    return compared


def _order(part: Binary, kind: Type) -> Truth | None:
    numbers = _numbers(part, kind)
    if numbers is None:
        return None
    left, right = numbers
    if part.sign == "<":
        return lambda value: left(value) < right(value)
    if part.sign == "<=":
        return lambda value: left(value) <= right(value)
    if part.sign == ">":
        return lambda value: left(value) > right(value)
    return lambda value: left(value) >= right(value)


def _numbers(part: Binary, kind: Type) -> tuple[Callable[[Any], int], Callable[[Any], int]] | None:
    left, right = _number(part.left, kind), _number(part.right, kind)
    return None if left is None or right is None else (left, right)


def _number(part: Part, kind: Type) -> Callable[[Any], int] | None:
    """`count()` of elements, or an integer as written."""
    if isinstance(part, Literal) and len(part.items) == 1 and part.items[0].__class__ is int:
        number: int = part.items[0]
        return lambda value: number
    if isinstance(part, Call) and part.name == "count" and part.source is not None:
        if isinstance(part.source, Call) and part.source.name == "children" and part.source.source is None:
            return _children
        nodes = nodes_of(part.source, kind)
        if nodes is not None:
            get = nodes.get
            return lambda value: len(get(value))
    return None


def _children(value: Any) -> int:
    total = 0
    for key, inner in value.items():
        if key[:1] == "_" or inner is None:
            raise Unusual
        if inner.__class__ is list:
            if None in inner:
                raise Unusual
            total += len(inner)
        elif key != "resourceType":
            total += 1
    return total


def _existence(part: Call, kind: Type) -> Truth | None:
    if part.name == "not":
        inner = None if part.source is None else truth_of(part.source, kind)
        return None if inner is None else negated(inner)
    nodes = Nodes(lambda value: [value], kind, True) if part.source is None else nodes_of(part.source, kind)
    if nodes is None:
        return None
    get = nodes.get
    if part.arguments:
        return _each(part, nodes)
    field = None if part.source is None else direct(part.source, kind)
    if field is not None and part.name in ("exists", "empty"):
        return one_exists(field, part.name == "exists")
    if part.name == "exists":
        return lambda value: bool(get(value))
    if part.name == "empty":
        return lambda value: not get(value)
    if part.name == "hasValue" and nodes.kind is not None and nodes.kind is not UNTYPED:
        return (lambda value: len(get(value)) == 1) if nodes.kind.primitive else (lambda value: False)
    return None


def _each(part: Call, nodes: Nodes) -> Truth | None:
    if nodes.kind is None:
        return (lambda value: part.name == "all") if nodes is NOTHING else None
    if nodes.kind is UNTYPED:
        return lambda value: part.name == "all" if not nodes.get(value) else None
    test = truth_of(part.arguments[0], nodes.kind)
    if test is None:
        return None
    get = nodes.get
    if part.name == "all":
        return lambda value: all(test(inner) for inner in get(value))
    return lambda value: any(test(inner) for inner in get(value))


def _refers(part: TypeTest, kind: Type) -> Truth | None:
    """`resolve() is Patient` without a resolver: what the reference says; one to the same resource is looked up."""
    operand = part.operand
    assert isinstance(operand, Call)
    nodes = Nodes(lambda value: [value], kind, True) if operand.source is None else nodes_of(operand.source, kind)
    if nodes is None or nodes.kind is None or nodes.kind.path != "Reference" or part.type.space:
        return None
    get, of, name = nodes.get, nodes.kind, part.type.name
    any_type = name in ("Resource", "DomainResource")
    predicate(part.type, False)

    def refers(value: Any) -> bool | None:
        found = get(value)
        if len(found) != 1:
            if found:
                raise Unusual
            return None
        text = found[0].get("reference")
        if text is None or text[:1] == "#":
            raise Unusual
        told = referred((found[0], of, None))
        if not told:
            raise Unusual  # its Bundle may know
        return told == name or any_type

    return refers
