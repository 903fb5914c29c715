"""Binary operators: equality and order with what FHIRPath leaves open, arithmetic, logic, unions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from carelake.fhir.path.model import UNTYPED
from carelake.fhir.path.syntax import Binary
from carelake.lake.views.errors import path_error, sql_error
from carelake.lake.views.moments import compared
from carelake.lake.views.paths import Names, deduplicated, items, whole
from carelake.lake.views.plan import BOOL, INT, TEXT, Case, Const, Expr, Let, Null, Op, Ref
from carelake.lake.views.vals import Val, nothing, plain

if TYPE_CHECKING:
    from carelake.lake.views.compiler import Compiler, Scope

__all__ = ["OPERATORS", "equality", "negative", "union"]

_NUMBERS = frozenset({"Integer", "Decimal"})
_TEMPORAL = frozenset({"Date", "DateTime", "Time"})
_Operator = Callable[["Compiler", Binary, "Scope"], Val]


def _group(val: Val) -> str:
    """Values of one group may be compared."""
    if val.system in _NUMBERS:
        return "Number"
    return "Date" if val.system in ("Date", "DateTime") else val.system


# --- equality and order ---


def _equals(wanted: bool) -> _Operator:
    def work(compiler: Compiler, part: Binary, scope: Scope) -> Val:
        left, right = compiler.value(part.left, scope), compiler.value(part.right, scope)
        said = equality(compiler.names, left, right, scope.at)
        return plain(said if wanted else Op("not", (said,)), "Boolean")

    return work


def equality(names: Names, left: Val, right: Val, at: str) -> Expr:
    """``=`` of two collections."""
    if left.absent or right.absent:
        return Null(BOOL)
    for side in (left, right):
        if side.root or side.complex:
            raise sql_error(at, "Equality of elements that have parts (compare the parts)")
    if left.many or right.many:
        return _lists_equal(names, left, right, at)
    if _group(left) != _group(right):
        there = Op("and", (Op("is_not_null", (left.expr,)), Op("is_not_null", (right.expr,))))
        return Case(there, Const(False, BOOL), Null(BOOL))
    if left.system in _TEMPORAL:
        return Op("eq", (compared(names, left.expr, right.expr, left.system), Const(0, INT)))
    return Op("eq", (left.expr, right.expr))


def _lists_equal(names: Names, left: Val, right: Val, at: str) -> Expr:
    if _group(left) != _group(right) or left.system in _TEMPORAL:
        raise sql_error(at, "Equality of collections of dates, or of different types")
    one_side, other = names.new("l"), names.new("l")
    a, b = items(names, left), items(names, right)
    if left.system != right.system:
        a, b = Op("decimals", (a,)), Op("decimals", (b,))
    sizes = [Op("size", (Ref(name),)) for name in (one_side, other)]
    there = Op("and", tuple(Op("gt", (size, Const(0, INT))) for size in sizes))
    same = Op("and", (Op("eq", (sizes[0], sizes[1])), Op("eq", (Ref(one_side), Ref(other)))))
    return Let(one_side, a, Let(other, b, Case(there, same, Null(BOOL))))


def _equivalent(wanted: bool) -> _Operator:
    def work(compiler: Compiler, part: Binary, scope: Scope) -> Val:
        left, right = compiler.single(part.left, scope), compiler.single(part.right, scope)
        if left.complex or right.complex or _group(left) in ("Number", "Date", "Time"):
            raise sql_error(scope.at, "~ of anything but texts and Booleans")
        if left.absent or right.absent:
            other = right if left.absent else left
            said: Expr = Const(True, BOOL) if other.absent else Op("is_null", (other.expr,))
        elif _group(left) != _group(right):
            said = Op("and", (Op("is_null", (left.expr,)), Op("is_null", (right.expr,))))
        else:
            fold = "fold" if left.system == "String" else "same"
            said = Op("is_same", (Op(fold, (left.expr,)), Op(fold, (right.expr,))))
        return plain(said if wanted else Op("not", (said,)), "Boolean")

    return work


def _ordered(word: str) -> _Operator:
    def work(compiler: Compiler, part: Binary, scope: Scope) -> Val:
        left, right = compiler.single(part.left, scope), compiler.single(part.right, scope)
        if left.absent or right.absent:
            return nothing(BOOL)
        if "Quantity" in (left.system, right.system):
            raise sql_error(scope.at, "The order of Quantities (compare their values)")
        if _group(left) != _group(right) or left.complex or left.system in ("Boolean", ""):
            raise path_error(scope.at, f"{part.sign} takes two values of one kind that have an order.", part.at)
        if left.system in _TEMPORAL:
            order = compared(compiler.names, left.expr, right.expr, left.system)
            return plain(Op(word, (order, Const(0, INT))), "Boolean")
        return plain(Op(word, (left.expr, right.expr)), "Boolean")

    return work


def _membership(turned: bool) -> _Operator:
    def work(compiler: Compiler, part: Binary, scope: Scope) -> Val:
        item, among = (part.right, part.left) if turned else (part.left, part.right)
        wanted, found = compiler.single(item, scope), compiler.value(among, scope)
        if wanted.absent:
            return nothing(BOOL)
        if wanted.complex or found.complex or wanted.system in _TEMPORAL:
            raise sql_error(scope.at, "Membership of dates or of elements that have parts")
        if found.absent or _group(wanted) != _group(found):
            said: Expr = Const(False, BOOL)
        else:
            said = Op("coalesce", (Op("has", (items(compiler.names, found), wanted.expr)), Const(False, BOOL)))
        return plain(Case(Op("is_not_null", (wanted.expr,)), said, Null(BOOL)), "Boolean")

    return work


# --- logic ---


def _logic(word: str) -> _Operator:
    def work(compiler: Compiler, part: Binary, scope: Scope) -> Val:
        left = compiler.truth(compiler.part(part.left, scope), scope)
        right = compiler.truth(compiler.part(part.right, scope), scope)
        if word == "implies":
            return plain(Op("or", (Op("not", (left,)), right)), "Boolean")
        return plain(Op("ne" if word == "xor" else word, (left, right)), "Boolean")

    return work


# --- arithmetic ---


def negative(val: Val, at: str) -> Val:
    """The number with the other sign."""
    if val.absent:
        return val
    if val.system not in _NUMBERS:
        raise path_error(at, "only a number has another sign.")
    return plain(Op("neg", (val.expr,)), val.system)


def _arithmetic(word: str) -> _Operator:
    def work(compiler: Compiler, part: Binary, scope: Scope) -> Val:
        left, right = compiler.single(part.left, scope), compiler.single(part.right, scope)
        if left.absent or right.absent:
            return nothing()
        systems = {left.system, right.system}
        if word == "add" and systems == {"String"}:
            return plain(Op("concat", (left.expr, right.expr)), "String")
        if systems & (_TEMPORAL | {"Quantity"}):
            raise sql_error(scope.at, "Arithmetic of dates and Quantities")
        if not systems <= _NUMBERS:
            raise path_error(scope.at, f"{part.sign} takes two numbers.", part.at)
        if word == "div" or word == "mod" or systems == {"Integer"}:
            kind = "Decimal" if word == "quotient" or (word == "mod" and "Decimal" in systems) else "Integer"
        else:
            kind = "Decimal"
        suffix = "_int" if systems == {"Integer"} and word != "quotient" else ""
        return plain(Op(word + suffix, (left.expr, right.expr)), kind)

    return work


def _concatenated(compiler: Compiler, part: Binary, scope: Scope) -> Val:
    sides = [compiler.text(side, scope, "&") for side in (part.left, part.right)]
    texts = tuple(Op("coalesce", (side.expr, Const("", TEXT))) for side in sides)
    return plain(Op("concat", texts), "String")


# --- unions ---


def union(compiler: Compiler, found: list[Val], scope: Scope, *, distinct: bool = True) -> Val:
    """The items of all, each once."""
    parts = [val for val in found if not val.absent]
    if not parts:
        return found[0] if found else nothing()
    head = parts[0]
    if any(val.root for val in parts) or any(
        (val.type.path if val.complex else val.system) != (head.type.path if head.complex else head.system)
        for val in parts
    ):
        raise sql_error(scope.at, "A union of different types")
    for val in parts:
        whole(val)
        if head.complex and val.node != head.node:
            raise sql_error(scope.at, "A union of elements that lie differently in the table")
    expr = (
        items(compiler.names, head) if len(parts) == 1 else Op("cat", tuple(items(compiler.names, v) for v in parts))
    )
    kind = head.type if head.complex or all(val.type is head.type for val in parts) else UNTYPED
    made = replace(head, expr=expr, many=True, type=kind, parent=None, lexeme=None)
    return deduplicated(compiler.names, made) if distinct else made


OPERATORS: dict[str, _Operator] = {
    "=": _equals(True),
    "!=": _equals(False),
    "~": _equivalent(True),
    "!~": _equivalent(False),
    "<": _ordered("lt"),
    "<=": _ordered("le"),
    ">": _ordered("gt"),
    ">=": _ordered("ge"),
    "in": _membership(False),
    "contains": _membership(True),
    "and": _logic("and"),
    "or": _logic("or"),
    "xor": _logic("xor"),
    "implies": _logic("implies"),
    "&": _concatenated,
    "+": _arithmetic("add"),
    "-": _arithmetic("sub"),
    "*": _arithmetic("mul"),
    "/": _arithmetic("quotient"),
    "div": _arithmetic("div"),
    "mod": _arithmetic("mod"),
}
