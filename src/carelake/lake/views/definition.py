"""A ViewDefinition, read and checked: everything that can be told wrong before any data is seen.

https://build.fhir.org/ig/HL7/sql-on-fhir/StructureDefinition-ViewDefinition.html. Metadata (url, contact, ...) is
passed over; inside of `select`, `column`, `where` and `constant` an unknown name is an error, since it is a typo.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from carelake.core.errors import CarelakeError
from carelake.fhir import definitions
from carelake.fhir.path.model import type_named
from carelake.fhir.path.parser import parse
from carelake.fhir.path.syntax import Call, External, Literal, Part, children
from carelake.fhir.path.values import CONVERTERS
from carelake.lake.views.errors import definition_error, evaluation_error, path_error
from carelake.lake.views.rewrite import rewritten

__all__ = ["BUILT_IN", "Column", "Definition", "Path", "Select", "read"]

MAX_COLUMNS = 2_000
MAX_DEPTH = 50
BUILT_IN = frozenset({"rowIndex", "context", "resource", "rootResource"})
_URLS = frozenset({"ucum", "sct", "loinc"})
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,254}", re.ASCII).fullmatch
_STATUS = frozenset({"draft", "active", "retired", "unknown"})
_ANYWHERE = frozenset({"id", "extension", "modifierExtension"})
_SELECT = frozenset({"column", "select", "forEach", "forEachOrNull", "repeat", "unionAll"})
_COLUMN = frozenset({"name", "path", "description", "collection", "type", "tag", "tags"})
_EACH = ("forEach", "forEachOrNull", "repeat")
_CONSTANTS = """
base64Binary boolean canonical code date dateTime decimal id instant integer integer64 markdown oid positiveInt string
time unsignedInt uri url uuid
"""
_CONSTANT_TYPES = {"value" + kind[0].upper() + kind[1:]: kind for kind in _CONSTANTS.split()}
_SYSTEM = re.compile(r"(?:http://hl7\.org/fhirpath/)?System\.(\w+)").fullmatch
_STRUCTURE = "http://hl7.org/fhir/StructureDefinition/"
_TWICE = "a column of this name is there already."


@dataclass(frozen=True, slots=True)
class Path:
    """A FHIRPath expression of the view: parsed, constants put in, and the place that it has in the view."""

    text: str
    part: Part
    at: str


@dataclass(frozen=True, slots=True)
class Column:
    """A column: ``type`` is a FHIR type's name or "", ``tags`` are (name, value)."""

    name: str
    path: Path
    type: str
    collection: bool
    description: str
    tags: tuple[tuple[str, str], ...]
    at: str


@dataclass(frozen=True, slots=True)
class Select:
    """A selection structure.

    Attributes:
        each: of ``forEach`` or ``forEachOrNull``, or None.
        or_null: whether it was ``forEachOrNull``.
        repeat: the paths of ``repeat``.
    """

    each: Path | None
    or_null: bool
    repeat: tuple[Path, ...]
    columns: tuple[Column, ...]
    selects: tuple[Select, ...]
    unions: tuple[Select, ...]
    at: str

    def named(self) -> Iterator[Column]:
        """All columns in the order of the result; a union's are those of its first branch."""
        yield from self.columns
        for inner in self.selects:
            yield from inner.named()
        if self.unions:
            yield from self.unions[0].named()


@dataclass(frozen=True, slots=True)
class Definition:
    """A view: ``constants`` maps a name to its items (System values); ``root`` holds the top-level selects."""

    resource: str
    name: str
    url: str
    constants: Mapping[str, tuple[Any, ...]]
    root: Select
    where: tuple[Path, ...]

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns of the result in their order."""
        return tuple(self.root.named())


def read(view: Any) -> Definition:
    """A ViewDefinition's parsed JSON as a definition.

    Raises:
        Invalid: ``lake.view_definition``, ``lake.view_path``; ``facts["path"]`` is the place in the view.
    """
    if not isinstance(view, Mapping):
        raise definition_error("", "expected a JSON object.")
    resource = _resource(view)
    constants = _constants(view.get("constant"))
    reader = _Reader(constants)
    selects = tuple(reader.selects(view.get("select"), "select", 1))
    if not selects:
        raise definition_error("select", "expected at least one selection structure.")
    root = Select(None, False, (), (), selects, (), "select")
    where = tuple(reader.wheres(view.get("where")))
    _columns(root, ())
    name, url = _text(view, "name", ""), _text(view, "url", "")
    if name and not _NAME(name):
        raise definition_error("name", "expected letters, digits and underscores, a letter first.")
    return Definition(resource, name, url, constants, root, where)


def _resource(view: Mapping[str, Any]) -> str:
    resource = _text(view, "resource", "")
    if not resource:
        raise definition_error("resource", "expected the name of a resource type.")
    if not definitions.is_resource(resource):
        raise definition_error("resource", "FHIR R4 has no such resource type. Mind capital letters.")
    told = view.get("resourceType")
    if told is not None and (not isinstance(told, str) or told.rsplit("/", 1)[-1] != "ViewDefinition"):
        raise definition_error("resourceType", "expected ViewDefinition.")
    if view.get("status") is not None and view["status"] not in _STATUS:
        raise definition_error("status", f"expected one of {', '.join(sorted(_STATUS))}.")
    return resource


def _text(told: Mapping[str, Any], name: str, at: str) -> str:
    value = told.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or not value.strip():
        raise definition_error(_place(at, name), "expected a text that is not empty.")
    return value


def _place(at: str, name: str) -> str:
    return f"{at}.{name}" if at else name


def _list(told: Any, at: str) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Objects of a list that may be absent, each with its place."""
    if told is None:
        return
    if not isinstance(told, list):
        raise definition_error(at, "expected a list.")
    for n, value in enumerate(told):
        if not isinstance(value, Mapping):
            raise definition_error(f"{at}[{n}]", "expected an object.")
        yield value, f"{at}[{n}]"


def _known(told: Mapping[str, Any], names: frozenset[str], at: str) -> None:
    for name in told:
        if name not in names and name not in _ANYWHERE and not name.startswith("_"):
            raise definition_error(at, f"it has an element that is not known; known are {', '.join(sorted(names))}.")


# --- constants ---


def _constants(told: Any) -> dict[str, tuple[Any, ...]]:
    found: dict[str, tuple[Any, ...]] = {}
    for constant, at in _list(told, "constant"):
        _known(constant, frozenset({"name", *_CONSTANT_TYPES}), at)
        name = _text(constant, "name", at)
        if not _NAME(name):
            raise definition_error(f"{at}.name", "expected letters, digits and underscores, a letter first.")
        if name in found or name in BUILT_IN or name in _URLS:
            raise definition_error(f"{at}.name", "the name is taken.")
        keys = [key for key in constant if key in _CONSTANT_TYPES]
        if len(keys) != 1:
            raise definition_error(at, "expected exactly one value[x].")
        found[name] = (_constant(constant[keys[0]], _CONSTANT_TYPES[keys[0]], f"{at}.{keys[0]}"),)
    return found


def _constant(value: Any, kind: str, at: str) -> Any:
    """The System value of a constant, as a FHIRPath literal of it would be."""
    system = "Integer" if kind == "integer64" else type_named(kind).system
    made = CONVERTERS[system](_whole(value) if kind == "integer64" else value)
    if system in ("String",):
        good = isinstance(value, str)
    elif system == "Boolean":
        good = isinstance(value, bool)
    elif system == "Integer":
        good = isinstance(made, int) and not isinstance(made, bool)
    elif system == "Decimal":
        good = (not isinstance(value, str | bool) and made is not value) or made.__class__.__name__ in _DECIMALS
    else:
        good = isinstance(value, str) and made is not value  # dates and times that exist
    if not good:
        raise definition_error(at, f"expected a value of the type {kind}.")
    return made


_DECIMALS = frozenset({"Decimal", "Lexeme"})


def _whole(value: Any) -> Any:
    """An integer64, which JSON may write as text."""
    return int(value) if isinstance(value, str) and re.fullmatch(r"-?\d{1,19}", value, re.ASCII) else value


# --- selects ---


class _Reader:
    """Reads the parts that hold FHIRPath; counts columns."""

    def __init__(self, constants: Mapping[str, tuple[Any, ...]]) -> None:
        self._constants = constants
        self._columns = 0

    def wheres(self, told: Any) -> Iterator[Path]:
        for where, at in _list(told, "where"):
            _known(where, frozenset({"path", "description"}), at)
            yield self.path(where.get("path"), f"{at}.path")

    def selects(self, told: Any, at: str, depth: int) -> Iterator[Select]:
        if depth > MAX_DEPTH:
            raise definition_error(at, f"it is nested more than {MAX_DEPTH} deep.")
        for select, place in _list(told, at):
            yield self._select(select, place, depth)

    def _select(self, told: Mapping[str, Any], at: str, depth: int) -> Select:
        _known(told, _SELECT, at)
        if sum(told.get(name) is not None for name in _EACH) > 1:
            raise definition_error(at, "expected at most one of forEach, forEachOrNull and repeat.")
        or_null = told.get("forEachOrNull") is not None
        key = "forEachOrNull" if or_null else "forEach"
        each = None if told.get(key) is None else self.path(told[key], f"{at}.{key}")
        made = Select(
            each,
            or_null,
            tuple(self._repeat(told.get("repeat"), f"{at}.repeat")),
            tuple(self._column(column, place) for column, place in _list(told.get("column"), f"{at}.column")),
            tuple(self.selects(told.get("select"), f"{at}.select", depth + 1)),
            tuple(self.selects(told.get("unionAll"), f"{at}.unionAll", depth + 1)),
            at,
        )
        if not (made.columns or made.selects or made.unions):
            raise definition_error(at, "expected a column, a select or a unionAll inside.")
        return made

    def _repeat(self, told: Any, at: str) -> Iterator[Path]:
        if told is None:
            return
        if not isinstance(told, list) or not told:
            raise definition_error(at, "expected a list of FHIRPath expressions.")
        for n, text in enumerate(told):
            yield self.path(text, f"{at}[{n}]")

    def _column(self, told: Mapping[str, Any], at: str) -> Column:
        self._columns += 1
        if self._columns > MAX_COLUMNS:
            raise definition_error(at, f"there are more than {MAX_COLUMNS} columns.")
        _known(told, _COLUMN, at)
        name = _text(told, "name", at)
        if not _NAME(name):
            raise definition_error(f"{at}.name", "expected letters, digits and underscores, a letter first.")
        collection = told.get("collection")
        if collection is not None and not isinstance(collection, bool):
            raise definition_error(f"{at}.collection", "expected true or false.")
        path = self.path(told.get("path"), f"{at}.path")
        kind = _type(_text(told, "type", at), f"{at}.type")
        description = _text(told, "description", at)
        tags = tuple(
            _tag(tag, place) for key in ("tag", "tags") for tag, place in _list(told.get(key), f"{at}.{key}")
        )
        return Column(name, path, kind, bool(collection), description, tags, at)

    def path(self, text: Any, at: str) -> Path:
        """An expression, parsed, with the variables that it names checked."""
        if not isinstance(text, str) or not text.strip():
            raise definition_error(at, "expected a FHIRPath expression.")
        try:
            part = parse(text)
        except CarelakeError as error:
            raise evaluation_error(at, error) from None
        self._variables(part, at)
        return Path(text, rewritten(part, self._constants), at)

    def _variables(self, part: Part, at: str) -> None:
        stack, own = [part], set(self._constants) | BUILT_IN | _URLS
        parts: list[Part] = []
        while stack:
            inner = stack.pop()
            parts.append(inner)
            if isinstance(inner, Call) and inner.name == "defineVariable" and isinstance(inner.arguments[0], Literal):
                own.update(str(item) for item in inner.arguments[0].items)
            stack.extend(children(inner))
        for inner in parts:
            if isinstance(inner, External) and inner.name not in own and not inner.name.startswith(("vs-", "ext-")):
                raise path_error(at, "a variable is not defined; add a constant of its name.", inner.at)


def _tag(told: Mapping[str, Any], at: str) -> tuple[str, str]:
    _known(told, frozenset({"name", "value"}), at)
    name, value = _text(told, "name", at), _text(told, "value", at)
    if not name or not value:
        raise definition_error(at, "expected a name and a value.")
    return name, value


def _type(told: str, at: str) -> str:
    """The name of a column's type; "" where it is not told."""
    name = told.removeprefix(_STRUCTURE)
    system = _SYSTEM(name)
    if system is not None:
        return system[1]
    if name and name != "integer64" and name not in definitions.types() and not definitions.is_primitive(name):
        raise definition_error(at, "FHIR R4 has no such type. Mind capital letters.")
    return name


# --- names of columns ---


def _columns(select: Select, before: tuple[str, ...]) -> tuple[str, ...]:
    """The names after a selection structure (`ValidateColumns` of the specification)."""
    names = before
    for column in select.columns:
        if column.name in names:
            raise definition_error(f"{column.at}.name", _TWICE)
        names = (*names, column.name)
    for inner in select.selects:
        names = _columns(inner, names)
    branches = [_columns(inner, names)[len(names) :] for inner in select.unions]
    for inner, branch in zip(select.unions, branches, strict=True):
        if branch != branches[0]:
            raise definition_error(inner.at, "its columns have other names or another order than the first branch's.")
    return (*names, *branches[0]) if branches else names
