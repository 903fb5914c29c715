"""Where index values come from: one path of a resource type, read as one index type.

Rows are kept under the name of their source, so that parameters over the same elements share them: ``Observation``'s
``code`` and ``combo-code`` both use ``token:code``. Names are kept in databases: they may not change once released.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256

from carelake.fhir.definitions import Element, element, is_primitive
from carelake.fhir.search.converters import EXPANDED, converts
from carelake.fhir.search.expression import Equals, Misfit, NoElement, Present, Refers, Step

__all__ = ["FHIRPATH", "SPANS", "Source", "Use", "general", "name_of_path", "phonetic", "spanned", "united", "uses"]

FHIRPATH = "fhirpath"
_MAX_NAME = 200


@dataclass(frozen=True, slots=True)
class Source:
    """One place that values come from.

    Attributes:
        name: key of its rows within the resource type, for example ``token:component.code``.
        type: what rows: ``token``, ``string``, ``date``, ``number``, ``quantity``, ``reference``, ``uri``, ``near``
            (positions), ``words``, or ``part`` (a component of a composite, read as `inner`).
        kinds: FHIR types of the values, for example ("CodeableConcept",); () where any may come.
        steps: the path, unless there is an `expression`.
        expression: FHIRPath, for what is no plain path.
        phonetic: its words are sounds (`carelake.fhir.search.values.sounds`).
        inner: of a part: type of its values.
        items: of a part: paths or FHIRPath of the elements whose ordinals are the rows' ``item``.
        own: of a part: whether `expression` starts at the resource instead of the element (``%resource.``).
    """

    name: str
    type: str
    kinds: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()
    expression: str = field(default="", kw_only=True)
    phonetic: bool = field(default=False, kw_only=True)
    inner: str = field(default="", kw_only=True)
    items: tuple[str, ...] = field(default=(), kw_only=True)
    own: bool = field(default=False, kw_only=True)

    @property
    def text(self) -> Source | None:
        """Tokens: the source of their texts (strings), for the modifier ``text``; codes' own texts are displays."""
        texts = not self.kinds or not _TEXTED.isdisjoint(self.kinds)
        return Source(f"{self.name}:text", "string") if self.type == "token" and texts else None

    @property
    def of_type(self) -> Source | None:
        """Identifiers: tokens ``<code of the type>|<value>`` in the system of the type, for ``of-type``."""
        told = self.type == "token" and (not self.kinds or "Identifier" in self.kinds)
        return Source(f"{self.name}:of-type", "token") if told else None

    @property
    def identifier(self) -> Source | None:
        """References: tokens of their identifiers, for the modifier ``identifier``."""
        told = self.type == "reference" and (not self.kinds or "Reference" in self.kinds)
        return Source(f"{self.name}:identifier", "token") if told else None

    @property
    def spans(self) -> tuple[Source, ...]:
        """Dates: the sources of ranges longer than a day (`SPANS`), by the longest that each holds."""
        return tuple(Source(f"{self.name}{suffix}", "date") for _, suffix in SPANS if suffix and self.type == "date")

    @property
    def sides(self) -> tuple[Source, ...]:
        """The sources for modifiers and of long ranges, whose rows are made and built together with its own."""
        return (*(side for side in (self.text, self.of_type, self.identifier) if side is not None), *self.spans)


_TEXTED = frozenset({"CodeableConcept", "Coding", "Identifier"})

_DAY = 86_400_000_000
SPANS: tuple[tuple[int | None, str], ...] = (
    (_DAY, ""),
    (32 * _DAY, ":days"),
    (367 * _DAY, ":months"),
    (None, ":years"),
)
"""Microseconds that a range of a date may have, None for any, and what its source's name then ends with.

Ranges are kept by how long they are: what reaches past a moment began no longer before it than that, so that an index
by their beginnings finds it.
"""


def spanned(name: str, length: int) -> str:
    """The source of a range of that length, by the name of the source of its date."""
    return name + next(suffix for most, suffix in SPANS if most is None or length <= most)


@dataclass(frozen=True, slots=True)
class Use:
    """How a parameter uses a source; `target`: only references to this resource type, "" for any."""

    source: Source
    target: str = ""


def name_of_path(steps: Iterable[Step]) -> str:
    """``telecom[system=phone]``, ``value[Quantity]``: a path as names of sources have it."""
    return ".".join(_named(step) for step in steps)


def _named(step: Step) -> str:
    test = f"[{step.test.name}={step.test.value}]" if isinstance(step.test, Equals) else ""
    return f"{step.name}[{step.type}]{test}" if step.type else f"{step.name}{test}"


def general(kind: str, expression: str) -> Source:
    """The source of what a FHIRPath expression finds."""
    name = f"{kind}:{FHIRPATH}:{expression}"
    if len(name) > _MAX_NAME:
        name = f"{name[:_MAX_NAME]}#{sha256(expression.encode()).hexdigest()[:16]}"
    return Source(name, kind, expression=expression)


def phonetic(steps: tuple[Step, ...], kind: str) -> Source:
    """The source of the sounds of names: of a HumanName or a string."""
    return Source(f"words:{name_of_path(steps)}:phonetic", "words", (kind,), steps, phonetic=True)


def united(root: str, paths: Iterable[tuple[Step, ...]], kind: str) -> list[Use]:
    """The sources of several paths; those that differ in the type of the last choice only are one.

    Args and errors as of `uses`.
    """
    grouped: dict[tuple[Step, ...], list[str]] = {}
    for steps in paths:
        if not steps:
            raise Misfit("the expression is the resource itself")
        *before, last = _spelled(root, steps)
        grouped.setdefault((*before, replace(last, type="")), []).append(last.type)
    found = [use for steps, casts in grouped.items() for use in uses(root, steps, kind, () if "" in casts else casts)]
    return list(dict.fromkeys(found))


def uses(root: str, steps: tuple[Step, ...], kind: str, casts: Sequence[str] = ()) -> list[Use]:
    """The sources of a path, with what the parameter may take of them; [] where none of its values can be indexed.

    Args:
        root: the type that the path starts from.
        kind: type of the parameter.
        casts: types that the last step, a choice, may have.

    Raises:
        Misfit: the types have no such elements.
    """
    steps = _coded(root, steps) if kind == "token" else steps
    *before, last = _spelled(root, steps)
    parents = _parents(root, before)
    if isinstance(last.test, Present):
        name = name_of_path([*before, Step(last.name)])
        return [Use(Source(f"{kind}:exists({name})", kind, ("boolean",), steps))]
    found = list(dict.fromkeys(k for p in parents for _, k in _next(p, last) if not casts or k in casts))
    target = last.test.type if isinstance(last.test, Refers) else ""
    last = replace(last, test=None) if target else last
    return [Use(source, target) for source in _sources((*before, last), parents, found, kind)]


def _parents(root: str, steps: Iterable[Step]) -> list[str]:
    parents = [root]
    for step in steps:
        parents = list(dict.fromkeys(k for parent in parents for _, k in _next(parent, step)))
    return parents


def _coded(root: str, steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """A path to the code of a Coding is one to the Coding: its system can be searched for too."""
    *before, last = steps
    if before and last == Step("code") and "Coding" in _parents(root, _spelled(root, tuple(before))):
        return (*before[:-1], replace(before[-1], type="Coding"))
    return steps


def _sources(steps: tuple[Step, ...], parents: list[str], found: list[str], kind: str) -> Iterator[Source]:
    *before, last = steps
    if kind == "string":
        for part in dict.fromkeys(part for k in found for part in EXPANDED.get(k, ())):
            path = (*before, last, Step(part))
            yield Source(f"string:{name_of_path(path)}", "string", ("string",), path)
    taken = tuple(sorted(k for k in found if converts(kind, k)))
    if not taken:
        return
    every = {k for p in parents for _, k in _next(p, Step(last.name)) if converts(kind, k)}
    narrow = f"[{','.join(taken)}]" if every - set(taken) else ""
    name = f"{name_of_path([*before, Step(last.name)])}{narrow}{_named(Step('', test=last.test))}"
    yield Source(f"{kind}:{name}", kind, taken, (*before, replace(last, type="")))


def _spelled(root: str, steps: tuple[Step, ...]) -> list[Step]:
    """Steps with names and types as the definitions have them: ``valueDateTime`` is ``value`` as ``dateTime``.

    Raises:
        Misfit: a step leads nowhere.
    """
    told: list[Step] = []
    parents = [root]
    for step in steps:
        if step.type and not is_primitive(step.type) and is_primitive(step.type[0].lower() + step.type[1:]):
            step = replace(step, type=step.type[0].lower() + step.type[1:])  # "DateTime", as one of R4 has it
        if not any(step.name in _elements(parent) for parent in parents):
            step = _chosen(parents, step)
        told.append(step)
        parents = list(dict.fromkeys(k for parent in parents for _, k in _next(parent, step)))
        if not parents:
            raise NoElement(f"the element {step.name} cannot be of the type it asks for")
    return told


def _chosen(parents: list[str], step: Step) -> Step:
    for parent in parents:
        for item in _elements(parent).values():
            if item.choice and step.name in item.keys:
                return replace(step, name=item.name, type=item.keys[step.name])
    if any(parent == "Resource" for parent in parents):
        raise Misfit("the path goes on in resources of any type")
    raise NoElement(f"R4 has no element {step.name} there")


def _elements(kind: str) -> Mapping[str, Element]:
    return {} if is_primitive(kind) or kind == "Resource" else element(kind)


def _next(parent: str, step: Step) -> list[tuple[str, str]]:
    """JSON names and types that a step leads to."""
    item = _elements(parent).get(step.name)
    if item is None:
        return []
    return [(key, kind) for key, kind in item.keys.items() if not (step.type and item.choice and kind != step.type)]
