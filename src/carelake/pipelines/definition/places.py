"""Where in a definition something stands, so that an error names the step and says what was expected there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from carelake.core.errors import Invalid, Unsupported

__all__ = ["Place"]


@dataclass(frozen=True, slots=True)
class Place:
    """A value of a definition and the words for where it stands."""

    words: str
    value: Any

    def wrong(self, expected: str) -> Invalid:
        """The error that something else was expected here."""
        return Invalid("pipelines.definition", f"{self.words}: expected {expected}.", where=self.words)

    def unsupported(self, what: str) -> Unsupported:
        """The error that this part of SageMaker's form is not carried out here."""
        return Unsupported(
            "pipelines.unsupported", f"{self.words}: {what} is not carried out here; leave it out.", where=self.words
        )

    def mapping(self) -> Mapping[str, Any]:
        """The value as an object."""
        if not isinstance(self.value, dict):
            raise self.wrong("a JSON object")
        return self.value

    def __getitem__(self, key: str) -> Place:
        return Place(f"{self.words}, {key}", self.mapping().get(key))

    def __contains__(self, key: str) -> bool:
        return self.mapping().get(key) is not None

    def items(self, most: int = 1000) -> Iterator[Place]:
        """The entries of a list; none for null."""
        if self.value is None:
            return
        if not isinstance(self.value, list) or len(self.value) > most:
            raise self.wrong(f"a list of at most {most}")
        for number, one in enumerate(self.value, 1):
            yield Place(f"{self.words} {number}", one)

    def text(self, pattern: str = r"[\s\S]{1,3072}", words: str = "a text of 1 to 3072 characters") -> str:
        """The value as a text of that form."""
        if not isinstance(self.value, str) or not re.fullmatch(pattern, self.value):
            raise self.wrong(words)
        return self.value

    def number(self, low: float, high: float, *, whole: bool = False) -> float:
        """The value as a number within bounds."""
        kinds = (int,) if whole else (int, float)
        if isinstance(self.value, bool) or not isinstance(self.value, kinds) or not low <= self.value <= high:
            raise self.wrong(f"a{' whole' if whole else ''} number from {low} to {high}")
        return self.value

    def boolean(self) -> bool:
        """The value as true or false."""
        if not isinstance(self.value, bool):
            raise self.wrong("true or false")
        return self.value

    def keys(self, known: frozenset[str], required: frozenset[str] = frozenset()) -> None:
        """Let pass an object with these keys; one that is not carried out here is refused by name."""
        said = self.mapping()
        for name in said:
            if name not in known:
                raise self.unsupported(f"{name[:64]!r}")
        for name in sorted(required):
            if said.get(name) is None:
                raise self.wrong(f"a value for {name}")
