"""What is under and above a code (https://hl7.org/fhir/R4/codesystem.html#hierarchy)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

from carelake.fhir.terminology.model import CodeSystem

__all__ = ["Hierarchy"]


class Hierarchy:
    """A code system with its codes found by name. A circle of parents ends where it began."""

    def __init__(self, system: CodeSystem) -> None:
        self.system = system

    @cached_property
    def places(self) -> dict[str, int]:
        """Where each code is in `CodeSystem.codes`."""
        return {code: place for place, code in enumerate(self.system.codes)}

    @cached_property
    def _children(self) -> Mapping[int, list[int]]:
        found: dict[int, list[int]] = {}
        for place, parents in enumerate(self.system.parents):
            for parent in parents:
                found.setdefault(parent, []).append(place)
        return found

    def below(self, code: str) -> list[str]:
        """The code itself and all under it; `KeyError` for none such."""
        return self._walk(code, self._under)

    def above(self, code: str) -> list[str]:
        """The code itself and all above it."""
        return self._walk(code, self.system.parents.__getitem__)

    def next(self, code: str, *, up: bool) -> list[str]:
        """What is directly under a code, or above it."""
        at = self.places[code]
        return [self.system.codes[place] for place in (self.system.parents[at] if up else self._under(at))]

    def _under(self, place: int) -> Sequence[int]:
        return self._children.get(place, ())

    def _walk(self, code: str, edges: Callable[[int], Sequence[int]]) -> list[str]:
        todo = [self.places[code]]
        found = dict.fromkeys(todo)
        while todo:
            for place in edges(todo.pop()):
                if place not in found:
                    found[place] = None
                    todo.append(place)
        return [self.system.codes[place] for place in found]
