"""One element of an object in its JSON form: its values with what is beside them, read and written together.

A primitive's id and extensions stand beside it (``birthDate`` and ``_birthDate``), place by place where it repeats
(https://hl7.org/fhir/R4/json.html#primitive); a choice stands under one of several names.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, NamedTuple

from carelake.fhir.path.model import Field, Type

__all__ = ["Entry", "Slot"]


class Entry(NamedTuple):
    """A value, what is beside it where it is a primitive, and the JSON name it stands under."""

    value: Any
    extra: Any
    key: str
    type: Type


@dataclass(frozen=True, slots=True)
class Slot:
    """The element ``field`` of ``owner``."""

    owner: dict[str, Any]
    field: Field

    @property
    def types(self) -> dict[str, Type]:
        """JSON names it may stand under."""
        return self.field.choices or {self.field.key: self.field.type}

    def read(self) -> list[Entry]:
        """Its entries in order."""
        found: list[Entry] = []
        for key, kind in self.types.items():
            beside = "_" + key
            if key not in self.owner and beside not in self.owner:
                continue
            values, extras = self.owner.get(key), self.owner.get(beside) if kind.primitive else None
            if isinstance(values, list) or isinstance(extras, list):
                pairs = zip_longest(_listed(values), _listed(extras))
                found += [Entry(value, extra, key, kind) for value, extra in pairs]
            else:
                found.append(Entry(values, extras, key, kind))
        return found

    def write(self, entries: list[Entry]) -> None:
        """Put these in place of what is there; none takes the element away. Names keep their place in the object."""
        kept = {entry.key for entry in entries}
        for key in self.types:
            if key not in kept:
                self.owner.pop(key, None)
                self.owner.pop("_" + key, None)
        for key in kept:
            of_key = [entry for entry in entries if entry.key == key]
            self._set(key, [entry.value for entry in of_key])
            self._set("_" + key, [entry.extra for entry in of_key])

    def _set(self, key: str, values: list[Any]) -> None:
        if all(value is None for value in values):
            self.owner.pop(key, None)
        else:
            self.owner[key] = values if self.field.many else values[0]


def _listed(values: Any) -> list[Any]:
    if values is None:
        return []
    return values if isinstance(values, list) else [values]
