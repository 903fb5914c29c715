"""What one evaluation runs in: where it starts, its variables, the services it was handed, and its budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from carelake.core.clock import Clock, SystemClock
from carelake.fhir.path.errors import limit_error, service_error, variable_error
from carelake.fhir.path.model import node
from carelake.fhir.path.values import Items

__all__ = ["MAX_COMPUTED", "MAX_ITEMS", "MAX_TEXT", "Closure", "Env", "Services", "Terminology"]

MAX_ITEMS = 2_000_000
"""Items that one evaluation may go through or make in loops; beyond it stops."""
MAX_COMPUTED = 10_000
"""Values that `repeat` may compute, where it does not walk elements."""
MAX_TEXT = 1024 * 1024
"""Characters of a text that an evaluation makes; FHIR's own limit of a string."""
MAX_TEXTS = 64 * MAX_TEXT
"""Characters of all of them together."""
REGEX_SECONDS = 0.5
"""Time that all regular expressions of one evaluation may take together."""

Closure = Callable[[Items, "Env"], Items]
"""A compiled part: the focus and the environment in, a collection out. No collection is changed after it is made."""


class Terminology(Protocol):
    """Answers about codes. Each takes and gives plain JSON; None for what it cannot tell."""

    def member_of(self, coded: Any, value_set: str) -> bool | None:
        """Whether a code, Coding or CodeableConcept is in a value set."""
        ...

    def subsumes(self, one: Any, other: Any) -> bool | None:
        """Whether the first Coding or CodeableConcept is the second or an ancestor of it."""
        ...


_CLOCK = SystemClock()


@dataclass(frozen=True, slots=True)
class Services:
    """Parts that some functions need; without one they stop with ``fhirpath.service``.

    Attributes:
        resolver: a reference's text or canonical to a resource, or None. ``#id`` and entries of the same Bundle are
            found without it.
        terminology: a `Terminology`; ``%terminologies`` calls its further methods (``expand``, ``lookup``,
            ``validate_vs``, ``validate_cs``, ``translate``) with the arguments as given.
        conforms: (element, canonical of a profile) to whether it conforms; None for an unknown profile.
        elements: (element, type name) to its ElementDefinition.
        slices: (elements, structure, slice name) to those of the slice.
        trace: (name, values) of each `trace()`. Values are clinical: do not log them.
        clock: what `now()` asks.
    """

    resolver: Callable[[str], dict[str, Any] | None] | None = None
    terminology: Any = None
    conforms: Callable[[Any, str], bool | None] | None = None
    elements: Callable[[Any, str], dict[str, Any] | None] | None = None
    slices: Callable[[list[Any], str, str], list[Any]] | None = None
    trace: Callable[[str, list[Any]], None] | None = None
    clock: Clock = _CLOCK


_URLS = {
    "sct": "http://snomed.info/sct",
    "loinc": "http://loinc.org",
    "ucum": "http://unitsofmeasure.org",
}
_STARTS = ("context", "resource", "rootResource")


class Env:
    """One evaluation.

    Attributes:
        start: the items of ``%context``.
        index, total: ``$index`` and ``$total``, None outside of the functions that set them.
        own: variables of `defineVariable` in scope.
        below: descendants of ``start``, once somebody asked.
    """

    __slots__ = (
        "_given",
        "_made",
        "_now",
        "_written",
        "below",
        "filters",
        "index",
        "own",
        "regex_left",
        "services",
        "start",
        "strict",
        "total",
    )

    def __init__(
        self, start: Items, given: Mapping[str, Any], services: Services, strict: bool = False, filters: bool = False
    ) -> None:
        self.start = start
        self.services = services
        self.strict = strict
        self.filters = filters
        self.index: int | None = 0
        self.total: Items | None = None
        self.own: dict[str, Items] = {}
        self.regex_left = REGEX_SECONDS
        self.below: Items | None = None
        self._given = given
        self._made = 0
        self._written = 0
        self._now: datetime | None = None

    @property
    def now(self) -> datetime:
        """The clock, asked once."""
        if self._now is None:
            self._now = self.services.clock.now()
        return self._now

    def spend(self, items: int, at: int) -> None:
        """Count made items.

        Raises:
            Invalid: ``fhirpath.limit``.
        """
        self._made += items
        if self._made > MAX_ITEMS:
            raise limit_error(at, f"it went through more than {MAX_ITEMS} items. Narrow them first.")

    def write(self, length: int, at: int) -> None:
        """Count the characters of a text before it is made.

        Raises:
            Invalid: ``fhirpath.limit``.
        """
        self._written += length
        if length > MAX_TEXT or self._written > MAX_TEXTS:
            raise limit_error(at, f"texts of more than {MAX_TEXT} characters, or too many of them, came to be.")

    def variable(self, name: str, at: int) -> Items:
        """The items of ``%name``.

        Raises:
            Invalid: ``fhirpath.variable``.
        """
        found = self.own.get(name)
        if found is not None:
            return found
        if name in self._given or "%" + name in self._given:
            value = self._given[name] if name in self._given else self._given["%" + name]
            if value is None:
                return []
            return [node(inner) for inner in value] if isinstance(value, list) else [node(value)]
        if name in _STARTS:
            return self.start
        if name in _URLS:
            return [_URLS[name]]
        if name == "terminologies":
            if self.services.terminology is None:
                raise service_error(at, "%terminologies", "terminology")
            return ["%terminologies"]
        if name.startswith("vs-"):
            return [f"http://hl7.org/fhir/ValueSet/{name[3:]}"]
        if name.startswith("ext-"):
            return [f"http://hl7.org/fhir/StructureDefinition/{name[4:]}"]
        raise variable_error(at, "it is not defined. Hand it in as variables=, or define it before its use.")

    def define(self, name: str, items: Items, at: int) -> None:
        """A variable of `defineVariable`."""
        taken = name in self.own or name in _STARTS or name in _URLS or name in self._given
        if taken or name.startswith(("vs-", "ext-")):
            raise variable_error(at, "the name is taken. Choose another.")
        self.own = {**self.own, name: items}

    def root(self, at: int) -> Any:
        """The JSON of ``%rootResource``, or None."""
        items = self.variable("rootResource", at)
        return items[0][0] if len(items) == 1 and items[0].__class__ is tuple else None
