"""Features declared in Python: what comes of it is the declaration that TOML makes, and only that.

    from carelake.features.declare import codes, conditions, encounters, group, reading

    heart_rate = reading("heart_rate")
    failure = codes("failure", "I50*", "I11.0")

    heart = group(
        "heart",
        "The heart of the last days",
        heart_rate.mean("24h", low=0, high=350),
        heart_rate.slope("7d", description="Trend, least squares"),
        encounters.where("class", "EMER").count("180d", name="emergency_visits_6m"),
        conditions.where("code", failure).any(name="has_failure"),
    )
    print(heart)  # `python heart.py > heart.toml`, then `carelake features create heart.toml`

`FeatureGroups.declare` takes the object too. A declaration is data: carelake keeps its TOML, and runs nothing of the
Python that wrote it, neither when it is created nor when features are computed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple, TypedDict, Unpack

import pyarrow as pa

from carelake.core.errors import Invalid
from carelake.features.groups.as_toml import as_toml
from carelake.features.groups.declaration import Declared, load, readings, request_of
from carelake.features.groups.definition import checked_features
from carelake.features.groups.shapes import check
from carelake.lake.flat import view

__all__ = [
    "Codes",
    "Feature",
    "Rows",
    "codes",
    "conditions",
    "encounters",
    "group",
    "medications",
    "observations",
    "procedures",
    "reading",
]

_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)
Window = str | timedelta
"""``48h``, ``7d``, ``4w``, or a timedelta of whole hours; "" for all that is known."""


class Said(TypedDict, total=False):
    """What a feature may say beside what it takes; see `declaration.Item`.

    Attributes:
        name: by default of what is taken: ``heart_rate_mean_24h``.
        unit: by default the reading's, and 1 of counts.
        value: the column that is taken, by default the value of an observation.
    """

    name: str
    description: str
    unit: str
    source: str
    value: str
    time: str
    known: str
    low: float
    high: float
    allowed: Sequence[str]
    complete: float


class Codes(NamedTuple):
    """A code group; a code that ends with ``*`` stands for all that begin so."""

    name: str
    codes: tuple[str, ...]


class Feature(NamedTuple):
    """One feature: what its TOML says, and the code groups that it names."""

    said: Mapping[str, Any]
    codes: tuple[Codes, ...]


def codes(name: str, *listed: str) -> Codes:
    """A code group, for `Rows.where`."""
    return Codes(name, listed)


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of a flat view, of which features are taken."""

    view: str
    reading: str = ""
    picked: tuple[tuple[str, tuple[str | Codes, ...]], ...] = ()

    def where(self, column: str, *values: str | Codes) -> Rows:
        """Those of them whose column has one of these values; a value may be a code group.

        Raises:
            Invalid: ``features.declaration``: a column twice, or no value.
        """
        if not values:
            raise _wrong(f"No value is given that the column {column} may have.")
        if column in dict(self.picked):
            raise _wrong(f"The column {column} is picked by twice; give all its values at once.")
        return Rows(self.view, self.reading, (*self.picked, (column, values)))

    def any(self, window: Window = "", **said: Unpack[Said]) -> Feature:
        """1 where there is a row, else 0."""
        return self._take("any", window, said)

    def count(self, window: Window = "", **said: Unpack[Said]) -> Feature:
        """How many rows there are."""
        return self._take("count", window, said)

    def distinct(self, window: Window = "", **said: Unpack[Said]) -> Feature:
        """How many different values there are."""
        return self._take("distinct", window, said)

    def first(self, window: Window = "", **said: Unpack[Said]) -> Feature:
        """The first value: a number or a text, as its column has."""
        return self._take("first", window, said)

    def last(self, window: Window = "", **said: Unpack[Said]) -> Feature:
        """The last value: a number or a text, as its column has."""
        return self._take("last", window, said)

    def max(self, window: Window = "", **said: Unpack[Said]) -> Feature:
        """The largest value."""
        return self._take("max", window, said)

    def mean(self, window: Window = "", **said: Unpack[Said]) -> Feature:
        """The mean of the values."""
        return self._take("mean", window, said)

    def min(self, window: Window = "", **said: Unpack[Said]) -> Feature:
        """The smallest value."""
        return self._take("min", window, said)

    def slope(self, window: Window = "", **said: Unpack[Said]) -> Feature:
        """The trend of the values, a day, by least squares."""
        return self._take("slope", window, said)

    def sum(self, window: Window = "", **said: Unpack[Said]) -> Feature:
        """The sum of the values."""
        return self._take("sum", window, said)

    def _take(self, take: str, window: Window, said: Said) -> Feature:
        wide = _window(window)
        given: dict[str, Any] = {"name": self._name(take, wide, said), "take": take, "view": self.view}
        told: dict[str, Any] = {**given, "window": wide, "reading": self.reading, "unit": self._unit(take), **said}
        told["where"] = {name: [_named(one) for one in values] for name, values in self.picked}
        told["text"] = take in ("first", "last") and self._is_text(told.get("value", ""))
        kept = {name: list(one) if isinstance(one, tuple) else one for name, one in told.items() if one or one == 0.0}
        if not told["text"]:
            kept.pop("text", None)
        return Feature(kept, tuple(one for _, values in self.picked for one in values if isinstance(one, Codes)))

    def _name(self, take: str, window: str, said: Said) -> str:
        if "name" in said:
            return said["name"]
        if self.picked:
            raise _wrong(f"A {take} of {self.view} that `where` picks needs a name.")
        words = (self.reading or self.view, said.get("value", ""), take, window)
        return "_".join(word for word in words if word)

    def _unit(self, take: str) -> str:
        if take in ("any", "count", "distinct"):
            return "1"
        own = str(readings()[self.reading]["unit"]) if self.reading in readings() else ""
        return f"{own}/d" if own and take == "slope" else own

    def _is_text(self, column: str) -> bool:
        names = view(self.view).empty.schema
        return column in names.names and pa.types.is_string(names.field(column).type)


conditions = Rows("conditions")
encounters = Rows("encounters")
medications = Rows("medications")
observations = Rows("observations")
procedures = Rows("procedures")


def reading(name: str) -> Rows:
    """A laboratory result or vital sign of ``readings.toml``, in its unit.

    Raises:
        Invalid: ``features.declaration``: there is none of that name.
    """
    if name not in readings():
        raise _wrong(f"There is no reading of that name; there are {', '.join(readings())}.")
    return Rows("observations", name)


_DEFAULTS = {"on_breach": "quarantine", "availability": "recorded"}


def group(
    name: str,
    description: str,
    *features: Feature,
    on_breach: str = "quarantine",
    availability: str = "recorded",
    storage: str = "",
) -> Declared:
    """The declaration of a feature group, read and checked as its TOML is.

    Args:
        on_breach: ``quarantine`` or ``refuse``, of a value that breaks a gate.
        availability, storage: see `declaration.Declared`.

    Raises:
        Invalid: ``features.declaration``, ``features.validation``.
    """
    listed: dict[str, tuple[str, ...]] = {}
    for one in (each for feature in features for each in feature.codes):
        if listed.setdefault(one.name, one.codes) != one.codes:
            raise _wrong(f"There are two code groups of the name {one.name}.")
    words = {"name": name, "description": description, "on_breach": on_breach, "availability": availability}
    words["storage"] = storage
    given = {key: value for key, value in words.items() if key == "name" or value != _DEFAULTS.get(key, "")}
    try:
        text = as_toml(given, listed, [one.said for one in features])
    except UnicodeEncodeError:
        raise _wrong("A text is no Unicode.") from None
    made = load(text)
    request = request_of(made)
    check("CreateFeatureGroup", request)
    checked_features(request["FeatureDefinitions"])
    return made


def _named(value: str | Codes) -> str:
    return value.name if isinstance(value, Codes) else value


def _window(window: Window) -> str:
    if isinstance(window, str):
        return window
    if window <= timedelta(0) or window % _HOUR:
        raise _wrong("A window is of whole hours.")
    return f"{window // _DAY}d" if not window % _DAY else f"{window // _HOUR}h"


def _wrong(message: str) -> Invalid:
    return Invalid("features.declaration", message)
