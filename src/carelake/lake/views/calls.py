"""Functions on collections, and FHIR's own: existence, filters, subsets, extensions, keys."""

from __future__ import annotations

from dataclasses import replace

from carelake.fhir.definitions import is_resource
from carelake.fhir.path.model import UNTYPED
from carelake.fhir.path.syntax import Call, Literal, Member
from carelake.lake.views.compiler import Compiler, Scope, Some, call
from carelake.lake.views.errors import path_error, sql_error
from carelake.lake.views.operators import equality, union
from carelake.lake.views.paths import (
    deduplicated,
    each,
    exists,
    first_of,
    having,
    items,
    keep,
    member,
    one,
    pick,
    size,
)
from carelake.lake.views.plan import BOOL, INT, TEXT, Case, Const, Expr, Null, Op
from carelake.lake.views.vals import Choice, Val, kind_of, nothing, plain

__all__: list[str] = []

_ZERO = Const(0, INT)


def _boolean(expr: Expr) -> Val:
    return plain(expr, "Boolean")


def single_type(source: Some, scope: Scope) -> Val:
    """The input, which must be of one type."""
    if isinstance(source, Choice):
        raise sql_error(scope.at, "A value of several types (choose one with ofType())")
    return source


def filtered(compiler: Compiler, part: Call, source: Some, scope: Scope) -> Some:
    """The items for which the function's argument is true."""
    criterion = part.arguments[0]
    if isinstance(source, Choice):
        held = having(compiler.names, source)

        def test(val: Val, place: Expr) -> Expr:
            return compiler.test(criterion, Choice(val, source.field), place, scope)

        return Choice(keep(compiler.names, held.parent, test), source.field)
    return keep(compiler.names, source, lambda val, place: compiler.test(criterion, val, place, scope))


# --- existence ---


@call("exists", 0, 1)
def _exists(compiler: Compiler, part: Call, source: Some, scope: Scope) -> Some:
    found = filtered(compiler, part, source, scope) if part.arguments else source
    return _boolean(exists(compiler.names, found))


@call("empty")
def _empty(compiler: Compiler, part: Call, source: Some, scope: Scope) -> Some:
    return _boolean(Op("not", (exists(compiler.names, source),)))


@call("count")
def _count(compiler: Compiler, part: Call, source: Some, scope: Scope) -> Some:
    if isinstance(source, Val) and source.root:
        return plain(Case(exists(compiler.names, source), Const(1, INT), _ZERO), "Integer")
    return plain(size(compiler.names, source), "Integer")


@call("not")
def _not(compiler: Compiler, part: Call, source: Some, scope: Scope) -> Some:
    return _boolean(Op("not", (compiler.truth(source, scope),)))


@call("all", 1)
def _all(compiler: Compiler, part: Call, source: Some, scope: Scope) -> Some:
    found = single_type(source, scope)
    criterion = part.arguments[0]

    def fails(val: Val, place: Expr) -> Expr:
        said = compiler.test(criterion, val, place, scope)
        return Op("not", (Op("coalesce", (said, Const(False, BOOL))),))

    return _boolean(Op("not", (exists(compiler.names, keep(compiler.names, found, fails)),)))


def _booleans(name: str, wanted: bool, every: bool) -> None:
    @call(name)
    def work(compiler: Compiler, part: Call, source: Some, scope: Scope) -> Some:
        found = single_type(source, scope)
        if not found.absent and found.system != "Boolean":
            raise path_error(scope.at, f"{name}() takes Booleans.", part.at)

        def test(val: Val, _: Expr) -> Expr:
            return Op("eq", (val.expr, Const(wanted is not every, BOOL)))

        there = exists(compiler.names, keep(compiler.names, found, test))
        return _boolean(Op("not", (there,)) if every else there)


_booleans("allTrue", True, True)
_booleans("allFalse", False, True)
_booleans("anyTrue", True, False)
_booleans("anyFalse", False, False)


@call("hasValue")
def _has_value(compiler: Compiler, part: Call, source: Some, scope: Scope) -> Some:
    found = single_type(source, scope)
    if found.complex:
        return _boolean(Const(False, BOOL))
    return _boolean(Op("eq", (size(compiler.names, found), Const(1, INT))))


@call("getValue")
def _get_value(compiler: Compiler, part: Call, source: Some, scope: Scope) -> Some:
    found = single_type(source, scope)
    if found.complex:
        return nothing()
    if found.many:
        single = Op("eq", (size(compiler.names, found), Const(1, INT)))
        return replace(first_of(found), expr=Case(single, first_of(found).expr, Null(kind_of(found))))
    return found


# --- filters and projections ---


@call("where", 1)
def _where(compiler: Compiler, part: Call, source: Some, scope: Scope) -> Some:
    return filtered(compiler, part, source, scope)


@call("select", 1)
def _select(compiler: Compiler, part: Call, source: Some, scope: Scope) -> Some:
    projection = part.arguments[0]
    if isinstance(source, Choice) or not source.many:
        return compiler.part(projection, replace(scope, focus=source, place=_ZERO))
    val = source

    def inner(element: Val) -> Val:
        return compiler.value(projection, replace(scope, focus=element, place=None))

    return each(compiler.names, val, inner)


@call("iif", 2, 3)
def _iif(compiler: Compiler, part: Call, source: Some, scope: Scope) -> Some:
    inner = replace(scope, focus=source)
    test = compiler.truth(compiler.part(part.arguments[0], inner), inner)
    found = [compiler.value(argument, inner) for argument in part.arguments[1:]] + [nothing()]
    then, otherwise = found[0], found[1]
    if isinstance(source, Val) and source.many:
        one(compiler.names, source, scope.at)
    return _either(compiler, test, then, otherwise, scope)


def _either(compiler: Compiler, test: Expr, then: Val, otherwise: Val, scope: Scope) -> Val:
    head = otherwise if then.absent else then
    for side in (then, otherwise):
        if side.root:
            raise sql_error(scope.at, "A choice of whole resources")
        if not side.absent and (side.system, side.complex and side.type.path) != (
            head.system,
            head.complex and head.type.path,
        ):
            raise sql_error(scope.at, "A choice between two types")
    many = then.many or otherwise.many
    a, b = (items(compiler.names, side) if many else side.expr for side in (then, otherwise))
    made = replace(head, expr=Case(test, a, b), many=many, parent=None, lexeme=None)
    return made if then.type is otherwise.type or head.complex else replace(made, type=UNTYPED)


@call("coalesce", 1, 50)
def _coalesce(compiler: Compiler, part: Call, source: Some, scope: Scope) -> Some:
    inner = replace(scope, focus=source)
    found = [compiler.value(argument, inner) for argument in part.arguments]
    made = found[-1]
    for val in reversed(found[:-1]):
        made = _either(compiler, exists(compiler.names, val), val, made, scope)
    return made


@call("trace", 1, 2)
def _trace(compiler: Compiler, part: Call, source: Some, scope: Scope) -> Some:
    return source


# --- subsets ---


@call("first")
def _first(compiler: Compiler, part: Call, source: Some, scope: Scope) -> Some:
    return pick(compiler.names, source, _ZERO) if source.many else source


@call("last")
def _last(compiler: Compiler, part: Call, source: Some, scope: Scope) -> Some:
    if isinstance(source, Choice):
        held = having(compiler.names, source).parent
        return Choice(replace(held, expr=Op("last", (held.expr,)), many=False) if held.many else held, source.field)
    return replace(source, expr=Op("last", (source.expr,)), many=False, parent=None) if source.many else source


@call("single")
def _single(compiler: Compiler, part: Call, source: Some, scope: Scope) -> Some:
    return one(compiler.names, single_type(source, scope), scope.at)


def _subset(name: str, arguments: int, word: str) -> None:
    @call(name, arguments)
    def work(compiler: Compiler, part: Call, source: Some, scope: Scope) -> Some:
        found = single_type(source, scope)
        count = compiler.single(part.arguments[0], scope).expr if part.arguments else Const(1, INT)
        if not found.many:
            rule = {"skip": Op("le", (count, _ZERO)), "take": Op("gt", (count, _ZERO))}[word]
            return keep(compiler.names, found, lambda _, __: rule)
        return replace(found, expr=Op(word, (found.expr, count)), parent=None)


_subset("tail", 0, "skip")
_subset("skip", 1, "skip")
_subset("take", 1, "take")


@call("distinct")
def _distinct(compiler: Compiler, part: Call, source: Some, scope: Scope) -> Some:
    return deduplicated(compiler.names, single_type(source, scope))


@call("isDistinct")
def _is_distinct(compiler: Compiler, part: Call, source: Some, scope: Scope) -> Some:
    found = single_type(source, scope)
    sizes = (size(compiler.names, deduplicated(compiler.names, found)), size(compiler.names, found))
    return _boolean(Op("eq", sizes))


def _combined(name: str, distinct: bool) -> None:
    @call(name, 1)
    def work(compiler: Compiler, part: Call, source: Some, scope: Scope) -> Some:
        sides = [single_type(source, scope), compiler.value(part.arguments[0], scope)]
        return union(compiler, sides, scope, distinct=distinct)


_combined("union", True)
_combined("combine", False)


def _against(name: str, wanted: bool) -> None:
    """`intersect` and `exclude`."""

    @call(name, 1)
    def work(compiler: Compiler, part: Call, source: Some, scope: Scope) -> Some:
        found, other = single_type(source, scope), compiler.value(part.arguments[0], scope)
        if found.complex or other.complex or found.system in ("Date", "DateTime", "Time"):
            raise sql_error(scope.at, f"{name}() of dates or of elements that have parts")
        if other.absent:
            return nothing() if wanted else found

        def test(val: Val, _: Expr) -> Expr:
            there = Op("coalesce", (Op("has", (items(compiler.names, other), val.expr)), Const(False, BOOL)))
            return there if wanted else Op("not", (there,))

        kept = keep(compiler.names, found, test)
        return deduplicated(compiler.names, kept) if wanted else kept


_against("intersect", True)
_against("exclude", False)


# --- FHIR ---


@call("extension", 1)
def _extension(compiler: Compiler, part: Call, source: Some, scope: Scope) -> Some:
    url = compiler.text(part.arguments[0], scope, "extension()")
    found = member(compiler.names, single_type(source, scope), "extension", scope.at, part.at)
    assert isinstance(found, Val)

    def test(val: Val, _: Expr) -> Expr:
        told = member(compiler.names, val, "url", scope.at)
        assert isinstance(told, Val)
        return equality(compiler.names, told, url, scope.at)

    return keep(compiler.names, found, test)


@call("getResourceKey")
def _resource_key(compiler: Compiler, part: Call, source: Some, scope: Scope) -> Some:
    found = single_type(source, scope)
    if not found.root:
        raise path_error(scope.at, "getResourceKey() takes a resource.", part.at)
    key = member(compiler.names, found, "id", scope.at)
    assert isinstance(key, Val)
    return plain(key.expr, "String")


@call("getReferenceKey", 0, 1)
def _reference_key(compiler: Compiler, part: Call, source: Some, scope: Scope) -> Some:
    wanted = ""
    if part.arguments:
        argument = part.arguments[0]
        if isinstance(argument, Member) and argument.source is None:
            wanted = argument.name
        elif isinstance(argument, Literal) and argument.items and isinstance(argument.items[0], str):
            wanted = argument.items[0]
        if not is_resource(wanted) and wanted not in ("Resource", "DomainResource"):
            raise path_error(scope.at, "getReferenceKey() takes the name of a resource type.", part.at)
    found = single_type(source, scope)
    if found.absent:
        return found
    if found.type.path != "Reference" and found.system != "String":
        raise path_error(scope.at, "getReferenceKey() takes a Reference.", part.at)
    return each(compiler.names, found, lambda val: _key(compiler, val, wanted, scope))


def _text(value: str) -> Const:
    return Const(value, TEXT)


def _key(compiler: Compiler, val: Val, wanted: str, scope: Scope) -> Val:
    """``Patient/1``, ``http://host/Patient/1/_history/2`` and ``urn:uuid:1`` as ``1``; nothing for ``#1``."""
    told, kind = val, None
    if val.complex:
        told, kind = (_child_of(compiler, val, name, scope) for name in ("reference", "type"))
    base = Op("split_part", (told.expr, _text("/_history/"), Const(1, INT)))
    last = Op("extract", (base, _text("([^/]*)$"), Const(1, INT)))
    key: Expr = Op("drop_prefix", (last, _text("urn:uuid:")))
    there: list[Expr] = [Op("not", (Op("starts", (told.expr, _text("#"))),)), Op("ne", (told.expr, _text("")))]
    if wanted and wanted not in ("Resource", "DomainResource"):
        named = Op("extract", (base, _text("([^/]*)/[^/]*$"), Const(1, INT)))
        said = Op("coalesce", (kind.expr if kind is not None else _text(""), _text("")))
        other = Op("matches", (named, _text("^[A-Z][A-Za-z]*$")))
        there.append(Case(other, Op("eq", (named, _text(wanted))), Op("eq", (said, _text(wanted)))))
    found: Expr = Case(Op("and", tuple(there)), key, Null(TEXT))
    if wanted:
        # Nearly all are ``Patient/1`` and nothing else: no pattern is needed for those.
        rest = Op("substr", (told.expr, Const(len(wanted) + 1, INT)))
        short = Op(
            "and", (Op("starts", (told.expr, _text(f"{wanted}/"))), Op("not", (Op("contains", (rest, _text("/"))),)))
        )
        found = Case(short, Op("drop_prefix", (rest, _text("urn:uuid:"))), found)
    return plain(found, "String")


def _child_of(compiler: Compiler, val: Val, name: str, scope: Scope) -> Val:
    found = member(compiler.names, val, name, scope.at)
    assert isinstance(found, Val)
    return found
