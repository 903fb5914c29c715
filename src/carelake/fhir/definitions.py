"""What FHIR R4 says its types are, compiled from the official core package (decision D16) by `tools/compile_r4.py`.

Names of types: ``Patient``, ``HumanName``, ``string``, and for what is defined inside a type its path:
``Patient.contact``, ``Timing.repeat``. The file is read at the first call (about 10 ms).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from types import MappingProxyType

import msgspec
import zstandard

from carelake.core.errors import Invalid
from carelake.core.shapes import decodable

__all__ = [
    "Codes",
    "Element",
    "Primitive",
    "SearchDefinition",
    "codes",
    "compartment",
    "core_search_definitions",
    "element",
    "is_complex",
    "is_primitive",
    "is_resource",
    "primitive",
    "resource_types",
    "search_definitions",
    "types",
]


class Element(msgspec.Struct, frozen=True, array_like=True):
    """One element of a type.

    Attributes:
        name: its JSON name; for a choice the stem, ``value`` of ``value[x]``.
        types: names of types it may have; ``BackboneElement`` or ``Element`` where ``content_ref`` names them.
        max: "1" or "*".
        content_ref: path of the type defined in place, or of the one it repeats (``Questionnaire.item``), or "".
        codes: url of the value set whose codes are required, where the core package lists them, or "".
        targets: resource types a Reference or canonical may point to; ("Resource",) for any.
    """

    name: str
    types: tuple[str, ...]
    min: int
    max: str
    choice: bool
    content_ref: str
    codes: str
    targets: tuple[str, ...]
    summary: bool
    modifier: bool

    @property
    def keys(self) -> dict[str, str]:
        """JSON name to type name: one pair, or one for each type of a choice."""
        if self.choice:
            return {self.name + kind[0].upper() + kind[1:]: kind for kind in self.types}
        return {self.name: self.content_ref or self.types[0]}


class Primitive(msgspec.Struct, frozen=True, array_like=True):
    """A primitive type, the one it specialises or "", and its regular expression (must match the whole text)."""

    name: str
    specialises: str
    regex: str


class Codes(msgspec.Struct, frozen=True, array_like=True):
    """The codes of a value set, and their code system where there is one only."""

    url: str
    system: str
    codes: tuple[str, ...]


class SearchDefinition(msgspec.Struct, frozen=True, array_like=True):
    """A search parameter as its author defines it.

    Attributes:
        targets: resource types that a reference may point to.
        components: of a composite: (url of the definition, expression).
        usage: ``normal``, ``phonetic``, ``nearby``, ``distance``, ``other`` or "".
    """

    code: str
    type: str
    base: tuple[str, ...]
    expression: str
    targets: tuple[str, ...]
    components: tuple[tuple[str, str], ...]
    usage: str
    url: str = ""


class _Type(msgspec.Struct, frozen=True, array_like=True):
    name: str
    kind: str
    elements: list[Element]


class _File(msgspec.Struct, frozen=True, array_like=True):
    version: str
    types: list[_Type]
    primitives: list[Primitive]
    codes: list[Codes]
    parameters: list[SearchDefinition]
    compartments: list[tuple[str, list[tuple[str, tuple[str, ...]]]]]
    abstract: tuple[str, ...]


class _Definitions:
    def __init__(self, file: _File) -> None:
        self.kinds = {t.name: t.kind for t in file.types}
        self.elements = {t.name: MappingProxyType({e.name: e for e in t.elements}) for t in file.types}
        self.primitives = {p.name: p for p in file.primitives}
        self.codes = {c.url: c for c in file.codes}
        self.parameters = tuple(file.parameters)
        self.compartments = {code: dict(members) for code, members in file.compartments}
        self.resources = frozenset(n for n, k in self.kinds.items() if k == "resource" and n not in file.abstract)


@cache
def _load() -> _Definitions:
    packed = resources.files("carelake.fhir").joinpath("r4.msgpack.zst").read_bytes()
    return _Definitions(msgspec.msgpack.decode(zstandard.decompress(packed), type=decodable(_File)))


def types() -> tuple[str, ...]:
    """Every type that has elements: resources, complex types and the ones defined inside them."""
    return tuple(_load().elements)


def resource_types() -> frozenset[str]:
    """The 146 resource types that can be instantiated."""
    return _load().resources


def element(type_name: str) -> Mapping[str, Element]:
    """Elements of a type by name, in the standard's order.

    Raises:
        Invalid: ``fhir.unknown_type``.
    """
    found = _load().elements.get(type_name)
    if found is None:
        raise Invalid(
            "fhir.unknown_type", "FHIR R4 has no such type; expected for example Patient or Patient.contact."
        )
    return found


def is_resource(name: str) -> bool:
    """Whether it is a resource type that can be instantiated."""
    return name in _load().resources


def is_primitive(name: str) -> bool:
    """Whether it is a primitive type; ``xhtml`` is one."""
    return name in _load().primitives


def is_complex(name: str) -> bool:
    """Whether it is a type with elements that is not a resource."""
    return _load().kinds.get(name, "resource") != "resource"


def primitive(name: str) -> Primitive:
    """A primitive type; KeyError where there is none."""
    return _load().primitives[name]


def codes(url: str) -> Codes:
    """The codes that `Element.codes` names; KeyError where the package does not list them."""
    return _load().codes[url]


def search_definitions() -> tuple[SearchDefinition, ...]:
    """Every search parameter of the base specification, unsupported ones too."""
    return _load().parameters


@cache
def core_search_definitions() -> tuple[SearchDefinition, ...]:
    """The search parameters that US Core 6.1.0 adds to the standard's."""
    packed = resources.files("carelake.fhir").joinpath("us-core-6.1.0-search.msgpack.zst").read_bytes()
    return msgspec.msgpack.decode(zstandard.decompress(packed), type=decodable(tuple[SearchDefinition, ...]))


def compartment(code: str = "Patient") -> Mapping[str, tuple[str, ...]]:
    """Resource type to the search parameters that put it in the compartment; no parameters: never in it."""
    return _load().compartments[code]
