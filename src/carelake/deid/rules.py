"""The rules of `rules.toml`: for each resource type a tree of elements, with what is done to each."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from importlib import resources

import msgspec

from carelake.core.shapes import decodable
from carelake.fhir import definitions
from carelake.fhir.path.ucum import unit

__all__ = ["PARTS", "Rules", "Tree", "is_code", "paths", "required_codes", "rules"]

Tree = Mapping[str, "Tree | str"]
"""JSON name of an element to the kind of its rule, or to the tree of its parts."""

PARTS: Mapping[str, tuple[str, ...]] = {
    "coding": ("system", "code"),
    "quantity": ("value", "comparator", "system", "code"),
    "reference": ("reference",),
}
"""Kinds that are about a value with parts, and the parts that they leave."""

_PLAIN = frozenset({"birth", "code", "date", "keep", "letters", "omb", "state", "zip3"})


_UCUM = "http://unitsofmeasure.org"
_BRACES = re.compile(r"\{([^}]*)\}")
_SOMEBODYS = re.compile(r"[0-9]{5}|[0-9][0-9-]{5,}[0-9]")
"""A number that is long enough to be a patient's, or a date."""


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    systems: dict[str, str]
    systems_below: dict[str, tuple[str, str]]
    annotations: frozenset[str]
    zip3_rare: frozenset[str]
    states: frozenset[str]
    parts: dict[str, dict[str, str]]
    types: dict[str, dict[str, list[str]]]


class Rules(msgspec.Struct, frozen=True):
    """The rules as they are used.

    Attributes:
        systems: code system to the form of its codes.
        systems_below: by what systems begin with the form of what follows, and of their codes.
        annotations: what may stand in the braces of a unit.
        types: resource type to the tree of its elements; other types are not there.
    """

    systems: Mapping[str, re.Pattern[str]]
    systems_below: Mapping[str, tuple[re.Pattern[str], re.Pattern[str]]]
    annotations: frozenset[str]
    zip3_rare: frozenset[str]
    states: frozenset[str]
    types: Mapping[str, Tree]


@cache
def rules() -> Rules:
    """The package's rules."""
    text = resources.files(__package__).joinpath("rules.toml").read_text(encoding="utf-8")
    said = msgspec.convert(tomllib.loads(text), decodable(_File))
    trees = {kind: _tree(listed, said.parts) for kind, listed in said.types.items()}
    forms = {name: re.compile(form) for name, form in said.systems.items()}
    below = {name: (re.compile(rest), re.compile(form)) for name, (rest, form) in said.systems_below.items()}
    return Rules(forms, below, said.annotations, said.zip3_rare, said.states, trees)


@lru_cache(65_536)
def is_code(system: str, code: str) -> bool:
    """Whether a code is one of a system that the rules know, by its form."""
    told = rules()
    form = told.systems.get(system)
    if form is not None:
        return form.fullmatch(code) is not None and (system != _UCUM or _is_unit(code))
    for start, (rest, inner) in told.systems_below.items():
        if system.startswith(start):
            name = system.removeprefix(start)
            fits = rest.fullmatch(name) is not None and inner.fullmatch(code) is not None
            return fits and not _SOMEBODYS.search(name) and not _SOMEBODYS.search(code)
    return False


def _is_unit(code: str) -> bool:
    told = set(_BRACES.findall(code))
    return told <= rules().annotations and not _SOMEBODYS.search(code) and unit(code) is not None


def _tree(listed: Mapping[str, list[str]], parts: Mapping[str, Mapping[str, str]]) -> Tree:
    tree: dict[str, Tree | str] = {}
    for kind, named in listed.items():
        for path in named:
            if kind in parts:
                for part, inner in parts[kind].items():
                    _put(tree, f"{path}.{part}", inner)
            else:
                _put(tree, path, kind)
    return tree


def _put(tree: dict[str, Tree | str], path: str, kind: str) -> None:
    if kind not in _PLAIN and kind not in PARTS:
        raise ValueError(f"no such kind of rule: {kind}")
    *above, last = path.split(".")
    for name in above:
        inner = tree.setdefault(name, {})
        if not isinstance(inner, dict):
            raise ValueError(f"a rule inside of a rule: {path}")
        tree = inner
    if last in tree:
        raise ValueError(f"two rules for one element: {path}")
    tree[last] = kind


def paths(tree: Tree, above: str = "") -> Iterator[str]:
    """The paths of what a tree leaves."""
    for name, rule in tree.items():
        path = f"{above}{name}"
        if not isinstance(rule, str):
            yield from paths(rule, f"{path}.")
        elif rule in PARTS:
            yield from (f"{path}.{part}" for part in PARTS[rule])
        else:
            yield path


@cache
def required_codes(type_name: str, name: str) -> frozenset[str]:
    """The codes that R4 requires an element of a type to be one of; none where it does not list them."""
    for element in definitions.element(type_name).values():
        if name in element.keys and element.codes:
            try:
                return frozenset(definitions.codes(element.codes).codes)
            except KeyError:
                return frozenset()
    return frozenset()
