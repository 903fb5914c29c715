"""Search parameters of a resource type, made from definitions: what they are and which sources they use."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from carelake.core.errors import Invalid
from carelake.fhir import path
from carelake.fhir.definitions import SearchDefinition, is_resource
from carelake.fhir.search.expression import Misfit, NoElement, Path, Refers, read_part, split
from carelake.fhir.search.sources import Source, Use, general, phonetic, united

__all__ = ["Component", "SearchParameter", "foreign", "made", "named_uses"]

TYPES = frozenset({"number", "date", "string", "token", "reference", "composite", "quantity", "uri", "special"})


@dataclass(frozen=True, slots=True)
class Component:
    """One component of a composite.

    Attributes:
        code: of the parameter it is like, for messages.
        type: how its values are read.
        root: sources of it on the resource itself; () where the composite is about parts only.
        part: its rows in ``parts``; None where the composite is about the resource only.
    """

    code: str
    type: str
    root: tuple[Use, ...] = ()
    part: Source | None = None


@dataclass(frozen=True, slots=True)
class SearchParameter:
    """A search parameter that can be asked for.

    Attributes:
        type: ``number``, ``date``, ``string``, ``token``, ``reference``, ``composite``, ``quantity``, ``uri`` or
            ``special`` (``near``, ``_text`` and ``_content``: the type of the source says which).
        uses: sources of its values, of this resource type only; () for composites.
        targets: resource types that a reference may point to, empty for any.
        components: of a composite.
    """

    code: str
    url: str
    type: str
    uses: tuple[Use, ...]
    targets: tuple[str, ...] = ()
    components: tuple[Component, ...] = ()

    @property
    def root(self) -> tuple[tuple[Use, ...], ...]:
        """Of a composite on the resource itself: for each component its uses, all of which must hold; else ()."""
        found = tuple(component.root for component in self.components)
        return found if all(found) else ()

    @property
    def parts(self) -> tuple[Source, ...]:
        """Of a composite on repeated elements: for each component the source of its part rows, which must meet in
        the same item; else ()."""
        found = tuple(component.part for component in self.components if component.part is not None)
        return found if len(found) == len(self.components) else ()

    @property
    def kinds(self) -> frozenset[str]:
        """FHIR types of its values; empty where any may come."""
        every = [use.source.kinds for use in self.uses]
        return frozenset(kind for kinds in every for kind in kinds) if all(every) else frozenset()

    @property
    def phonetic(self) -> bool:
        """Whether it compares the sounds of words (`carelake.fhir.search.values.sounds`), as rows of words."""
        return any(use.source.phonetic for use in self.uses)

    @property
    def sources(self) -> tuple[Source, ...]:
        """Everything that must be built before it can be asked for, but sources for modifiers (`Source.sides`)."""
        own = [use.source for use in self.uses]
        own += [use.source for component in self.components for use in component.root]
        return tuple(dict.fromkeys([*own, *self.parts]))

    @property
    def paths(self) -> tuple[Path, ...]:
        """Its plain paths, with the tests of references in place."""
        return tuple(_with_target(use) for use in self.uses if use.source.steps)


def _with_target(use: Use) -> Path:
    *before, last = use.source.steps
    test = Refers(use.target) if use.target else last.test
    return Path("Resource", (*before, type(last)(last.name, last.type, test)))


_NARRATIVE = Source("words:text", "words", ("Narrative",))
_CONTENT = Source("words:content", "words", ("Resource",))
# Answers change with the time, with other resources or with terminology; resolve() may tell a reference's type only.
_OUTSIDE = re.compile(
    r"\b(?:now|today|timeOfDay|memberOf|subsumes|subsumedBy|conformsTo)\(|%terminologies\b"
    r"|\bresolve\(\)(?!\s*(?:is\b|as\b|\.is\(|\.ofType\(|\.as\(|\)|$))"
)
_OF_RESOURCE = "%resource."
_ABSTRACT = frozenset({"Resource", "DomainResource"})
_ROOT = re.compile(r"[\s(]*(?P<type>[A-Z]\w*)\b(?!\()")


_Known = Mapping[str, SearchDefinition]


def made(
    definition: SearchDefinition, resource_type: str, bases: set[str], known: _Known, content: bool
) -> SearchParameter:
    """The parameter of a definition for one resource type.

    Args:
        bases: the names that the type goes by in expressions: its own, ``Resource``, ``DomainResource``.
        known: definitions by url, for components.
        content: whether ``_content`` is indexed.

    Raises:
        Misfit: it cannot be offered; the text says why.
    """
    uses: list[Use] = []
    components: tuple[Component, ...] = ()
    kind = definition.type
    if definition.code == "_query":
        raise Misfit("it names a search of a server's own, and carelake has none")
    if definition.code == "_content" and not content:
        raise Misfit("the texts of whole resources are indexed with the setting search.content only")
    if definition.code in ("_text", "_content"):
        kind, uses = "special", [Use(_NARRATIVE if definition.code == "_text" else _CONTENT)]
    elif kind == "composite":
        components = _components(definition, resource_type, bases, known)
    elif definition.usage == "phonetic":
        uses = _phonetic(definition, resource_type, bases)
    else:
        uses = named_uses(resource_type, bases, definition.expression, "near" if kind == "special" else kind)
        uses = [_pointed(use, definition.targets) for use in uses]
    if not uses and not components:
        raise Misfit("the elements it names have no values of its type")
    return SearchParameter(definition.code, definition.url, kind, tuple(uses), definition.targets, components)


def _pointed(use: Use, targets: tuple[str, ...]) -> Use:
    """What FHIRPath finds is told apart by the definition's targets, if there is one only."""
    one = use.source.expression and use.source.type == "reference" and len(targets) == 1
    return Use(use.source, targets[0]) if one else use


def foreign(part: str, bases: set[str]) -> bool:
    """Whether a part of a union starts at another resource type."""
    found = _ROOT.match(part)
    return found is not None and found["type"] not in bases and is_resource(found["type"])


def named_uses(root: str, bases: set[str], expression: str, kind: str) -> list[Use]:
    """The sources of an expression: plain paths where they do, FHIRPath for the rest.

    Args:
        root: type that paths start from.

    Raises:
        Misfit: the expression is no FHIRPath.
    """
    paths, rest = [], []
    for part in split(expression):
        try:
            plain = read_part(part)
            if plain.root not in _ABSTRACT and not is_resource(plain.root) and plain.root != root:
                raise NoElement(f"{plain.root} is no resource type of R4")
            if plain.root in bases:
                united(root, [plain.steps], kind)
                paths.append(plain.steps)
        except NoElement:
            raise
        except Misfit:
            if not foreign(part, bases):
                rest.append(part)
    if "" in rest:
        raise Misfit("the standard gives no expression for it")
    for part in rest:
        _compiles(part)
    return united(root, paths, kind) + [Use(general(kind, part)) for part in rest]


def _compiles(expression: str) -> None:
    found = _OUTSIDE.search(expression)
    if found is not None:
        raise Misfit(f"its expression asks {found[0]}, but index values come from the resource alone")
    try:
        path.compile(expression)
    except Invalid as error:
        raise Misfit(f"its expression is no FHIRPath: {error}") from None


def _phonetic(definition: SearchDefinition, resource_type: str, bases: set[str]) -> list[Use]:
    found = []
    for plain in [read_part(part) for part in split(definition.expression)]:
        if plain.root in bases:
            strings = united(resource_type, [plain.steps], "string")
            human = any(use.source.steps != plain.steps for use in strings)
            found.append(Use(phonetic(plain.steps, "HumanName" if human else "string")))
    return found


def _components(
    definition: SearchDefinition, resource_type: str, bases: set[str], known: _Known
) -> tuple[Component, ...]:
    """The components; where the expression names the resource they have roots, where it names elements parts."""
    items = [part for part in split(definition.expression) if not foreign(part, bases)]
    itself = any(item in bases for item in items)
    elements = tuple(item for item in items if item not in bases)
    components = []
    for url, expression in definition.components:
        like = known.get(url)
        if like is None:
            raise Misfit("one of its components is of a definition that is not known here")
        root = _root(resource_type, bases, like.type, expression) if itself else ()
        part = _part(elements, like.type, expression) if elements else None
        components.append(Component(like.code, like.type, root, part))
    if not components:
        raise Misfit("it has no components")
    return tuple(components)


def _root(resource_type: str, bases: set[str], kind: str, expression: str) -> tuple[Use, ...]:
    found = tuple(named_uses(resource_type, bases, expression.removeprefix(_OF_RESOURCE), kind))
    if not found:
        raise Misfit("a component has no values of its type on the resource itself")
    return found


def _part(elements: tuple[str, ...], kind: str, expression: str) -> Source:
    if kind in ("composite", "special"):
        raise Misfit(f"a component of type {kind} has no meaning")
    own = expression.startswith(_OF_RESOURCE)
    inner = expression.removeprefix(_OF_RESOURCE) if own else expression
    for text in (*elements, inner):
        _compiles(text)
    paths = "|".join(element.partition(".")[2] or element for element in elements)
    name = f"part:{paths}#{kind}:{_OF_RESOURCE if own else ''}{inner.replace(' ', '')}"
    return Source(name, "part", expression=inner, inner=kind, items=elements, own=own)
