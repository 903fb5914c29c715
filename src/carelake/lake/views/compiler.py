"""FHIRPath as expressions of `plan`, typed by the R4 definitions.

Each kind of part has its method; functions are in `calls` and `texts`. What FHIRPath has and SQL has not is told as
`Unsupported`, what is wrong by the types alone as `Invalid`, both before any data is read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from carelake.fhir.path.model import SYSTEM_TYPES, UNTYPED, is_type, type_named
from carelake.fhir.path.quantity import Quantity
from carelake.fhir.path.registry import FUNCTIONS
from carelake.fhir.path.syntax import (
    Binary,
    Call,
    External,
    Indexer,
    Literal,
    Member,
    Negative,
    Part,
    Special,
    TypeTest,
    Union,
)
from carelake.fhir.path.temporal import Temporal
from carelake.fhir.path.values import kind_of as system_of
from carelake.lake.views import operators
from carelake.lake.views.definition import Path
from carelake.lake.views.errors import path_error, sql_error, type_error
from carelake.lake.views.paths import Names, exists, member, of_type, one, pick, present
from carelake.lake.views.plan import BOOL, DECIMAL, INT, TEXT, Case, Const, Expr, Null, Op
from carelake.lake.views.vals import Choice, Val, kind_of, nothing, plain
from carelake.lake.views.weight import bounded

__all__ = ["CALLS", "Compiler", "Scope", "Some", "call"]

Some = Val | Choice
_URLS = {
    "sct": "http://snomed.info/sct",
    "loinc": "http://loinc.org",
    "ucum": "http://unitsofmeasure.org",
}


@dataclass(frozen=True, slots=True)
class Scope:
    """Where a part stands: ``$this``, the resource, ``%rowIndex``, ``$index``, and the place in the view."""

    focus: Some
    resource: Val
    row: Expr
    at: str
    place: Expr | None = None
    context: Some | None = None


Work = Callable[["Compiler", Call, Some, Scope], Some]
CALLS: dict[str, tuple[int, int, Work]] = {}
"""Function to (least, most arguments, work); the work gets the input already compiled."""


def call(name: str, least: int = 0, most: int | None = None) -> Callable[[Work], Work]:
    """Declare a function."""

    def declare(work: Work) -> Work:
        CALLS[name] = (least, least if most is None else most, work)
        return work

    return declare


class Compiler:
    """Compiles the expressions of one view."""

    def __init__(self, names: Names) -> None:
        self.names = names

    def path(self, path: Path, scope: Scope) -> Some:
        """An expression of the view."""
        return bounded(self.part(path.part, replace(scope, at=path.at, context=scope.focus)), path.at)

    def part(self, part: Part, scope: Scope) -> Some:
        """Any part."""
        match part:
            case Literal(items=items):
                return self._literal(items, scope)
            case Member():
                return self._member(part, scope)
            case Special(name=name):
                return self._special(name, scope)
            case External(name=name):
                return self._external(name, scope)
            case Call():
                return self._call(part, scope)
            case TypeTest():
                return self._tested(part, scope)
            case Indexer():
                return self._indexed(part, scope)
            case Negative(sign=sign, operand=operand):
                number = self.single(operand, scope)
                return number if sign == "+" else operators.negative(number, scope.at)
            case Binary(sign=sign):
                return operators.OPERATORS[sign](self, part, scope)
            case Union(parts=parts):
                return operators.union(self, [self.value(inner, scope) for inner in parts], scope)
        raise sql_error(scope.at, "A part of the expression")

    def value(self, part: Part, scope: Scope) -> Val:
        """A part that is of one type."""
        found = self.part(part, scope)
        if isinstance(found, Choice):
            raise sql_error(scope.at, "A value of several types (choose one with ofType())")
        return found

    def single(self, part: Part, scope: Scope) -> Val:
        """A part as one item."""
        return one(self.names, self.value(part, scope), scope.at)

    def text(self, part: Part, scope: Scope, what: str) -> Val:
        """A part as one text."""
        found = self.single(part, scope)
        if not found.absent and found.system != "String":
            raise path_error(scope.at, f"{what} takes a text.", part.at)
        return found

    def truth(self, found: Some, scope: Scope) -> Expr:
        """A collection as true, false or null: its one item, true where that is not a Boolean."""
        if isinstance(found, Choice):
            single = exists(self.names, found)
            return Case(single, Const(True, BOOL), Null(BOOL))
        if found.root:
            return Case(found.guard, Const(True, BOOL), Null(BOOL)) if found.guard else Const(True, BOOL)
        single_one = one(self.names, found, scope.at)
        if single_one.system == "Boolean":
            return single_one.expr
        if single_one.absent:
            return Null(BOOL)
        return Case(Op("is_not_null", (single_one.expr,)), Const(True, BOOL), Null(BOOL))

    def test(self, part: Part, focus: Some, place: Expr, scope: Scope) -> Expr:
        """A criterion of an element."""
        return self.truth(self.part(part, replace(scope, focus=focus, place=place)), scope)

    # --- parts ---

    def _literal(self, items: tuple[Any, ...], scope: Scope) -> Val:
        if not items:
            return nothing()
        return constant(items[0], scope.at)

    def _member(self, part: Member, scope: Scope) -> Some:
        if part.source is None:
            focus = scope.focus
            if isinstance(focus, Val) and part.name in focus.type.names:
                return focus
            if part.name[:1].isupper() and is_type(part.name):
                raise path_error(scope.at, "the path starts with another type than that of the data.", part.at)
            return member(self.names, focus, part.name, scope.at, part.at)
        return member(self.names, self.part(part.source, scope), part.name, scope.at, part.at)

    def _special(self, name: str, scope: Scope) -> Some:
        if name == "this":
            return scope.focus
        if name == "index" and scope.place is not None:
            return plain(scope.place, "Integer")
        raise sql_error(scope.at, f"${name}")

    def _external(self, name: str, scope: Scope) -> Some:
        if name == "rowIndex":
            return plain(scope.row, "Integer")
        if name in ("resource", "rootResource"):
            return scope.resource
        if name == "context":
            return scope.context or scope.focus
        if name in _URLS:
            return plain(Const(_URLS[name], TEXT), "String")
        kind = {"vs-": "ValueSet", "ext-": "StructureDefinition"}.get(
            name[: name.index("-") + 1] if "-" in name else ""
        )
        if kind:
            return plain(Const(f"http://hl7.org/fhir/{kind}/{name.partition('-')[2]}", TEXT), "String")
        raise sql_error(scope.at, "A variable that is defined inside of the expression")

    def _call(self, part: Call, scope: Scope) -> Some:
        if part.name == "$":
            return scope.focus if part.source is None else self.part(part.source, scope)
        known = CALLS.get(part.name)
        if known is None:
            if part.name in FUNCTIONS:
                raise sql_error(scope.at, f"{part.name}()")
            raise path_error(scope.at, "there is no such function.", part.at)
        least, most, work = known
        if not least <= len(part.arguments) <= most:
            raise path_error(scope.at, f"{part.name}() got the wrong number of arguments.", part.at)
        source = scope.focus if part.source is None else self.part(part.source, scope)
        return work(self, part, source, scope)

    def _indexed(self, part: Indexer, scope: Scope) -> Some:
        source, place = self.part(part.source, scope), self.single(part.index, scope)
        if not place.absent and place.system != "Integer":
            raise path_error(scope.at, "an index is an Integer.", part.at)
        return pick(self.names, source, place.expr)

    # --- types ---

    def _tested(self, part: TypeTest, scope: Scope) -> Some:
        source = scope.focus if part.operand is None else self.part(part.operand, scope)
        name, space = part.type.name, part.type.space
        system = space == "System" or (name in SYSTEM_TYPES and not is_type(name))
        if not system and not is_type(name):
            raise path_error(scope.at, "FHIR R4 and System have no such type. Mind capital letters.", part.type.at)
        if part.word == "is":
            return self._is(source, name, system, scope)
        if isinstance(source, Choice):
            if system:
                return nothing()
            found = of_type(self.names, source, type_named(name), scope.at)
            return one(self.names, found, scope.at) if part.word == "as" else found
        kept = source if _of(source, name, system, exact=True) else nothing(kind_of(source))
        return one(self.names, kept, scope.at) if part.word == "as" and not source.root else kept

    def _is(self, source: Some, name: str, system: bool, scope: Scope) -> Val:
        if isinstance(source, Choice):
            if source.many:
                raise sql_error(scope.at, "is, of a collection of several types")
            choices = source.field.choices or {}
            kinds = [kind for kind in choices.values() if not system and name in kind.names]
            tests = [exists(self.names, of_type(self.names, source, kind, scope.at)) for kind in kinds]
            said: Expr = Op("or", tuple(tests)) if tests else Const(False, BOOL)
            return plain(Case(present(self.names, source), said, Null(BOOL)), "Boolean")
        if source.root:
            return plain(Const(_of(source, name, system, exact=False), BOOL), "Boolean")
        single = one(self.names, source, scope.at)
        answer = Const(_of(source, name, system, exact=False), BOOL)
        return plain(Case(Op("is_not_null", (single.expr,)), answer, Null(BOOL)), "Boolean")


def _of(val: Val, name: str, system: bool, *, exact: bool) -> bool:
    """Whether a value's static type is the one told."""
    if system:
        return val.type is UNTYPED and (name in ("Any", val.system))
    if val.type is UNTYPED:
        return False
    return name == val.type.path if exact and val.type.primitive else name in val.type.names


def constant(item: Any, at: str) -> Val:
    """A System value of the view."""
    if isinstance(item, Quantity):
        raise sql_error(at, "A Quantity")
    if isinstance(item, Temporal):
        if len(item.parts) in (4, 5) and item.kind == "DateTime":
            raise sql_error(at, "A date-time without seconds")
        return plain(Const(item.text, TEXT), item.kind)
    if isinstance(item, bool):
        return plain(Const(item, BOOL), "Boolean")
    if isinstance(item, int):
        if not -(2**31) <= item < 2**31:
            raise sql_error(at, "An Integer of more than 32 bits")
        return plain(Const(int(item), INT), "Integer")
    if isinstance(item, Decimal):
        return replace(plain(Const(float(item), DECIMAL), "Decimal"), lexeme=Const(format(item, "f"), TEXT))
    if isinstance(item, str):
        if "\0" in item:
            raise type_error(at, "a text has a NUL character, which SQL does not take.")
        return plain(Const(item, TEXT), "String")
    raise sql_error(at, f"A {system_of(item)}")
