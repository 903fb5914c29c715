"""Features declared as code: TOML that says what each one takes from a flat view of the lake, over which window.

    name = "patient-utilisation"
    description = "How much care a patient has had"

    [codes]                       # code groups; a code that ends with * stands for all that begin so
    diabetes = ["E10*", "E11*"]

    [[feature]]
    name = "emergency_visits_6m"
    description = "Visits of an emergency department"
    unit = "1"
    view = "encounters"
    take = "count"                # any, count, distinct, first, last, max, mean, min, slope, sum
    window = "180d"               # absent: all that is known
    where = { class = ["EMER"] }  # columns and the values that count; a name of a code group too
    low = 0.0

A group of declared features has one record for each patient. The value at a moment rests on the rows of the view that
were known then (``known``: issued, recorded, else when it happened) and that happened in the window before it.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import msgspec
import pyarrow as pa

from carelake.core import canonical
from carelake.core.errors import Invalid
from carelake.core.shapes import decodable
from carelake.features import cohort
from carelake.features.groups.definition import SUBJECT_TAG, Gate
from carelake.lake.flat import view

__all__ = ["Declared", "Item", "load", "readings", "request_of", "shipped"]

_WINDOW = re.compile(r"(\d{1,6})([hdw])")
_HOURS = {"h": 1, "d": 24, "w": 168}
_MICROS_OF_HOUR = 3_600_000_000
_STORAGE = ("Standard", "Standard_V2", "InMemory")
_WHOLE = frozenset({"any", "count", "distinct"})
_TAKES = frozenset({*_WHOLE, "first", "last", "max", "mean", "min", "slope", "sum"})

_VIEWS: Mapping[str, tuple[str, str, str, str]] = {
    # time, known, key of a row, column and list of what is not a fact
    "conditions": ("time", "recorded_time", "condition_id", "verification_status=void_condition"),
    "encounters": ("start_time", "start_time", "encounter_id", "status=void_encounter"),
    "medications": ("time", "time", "medication_id", "status=void_medication"),
    "observations": ("time", "issued", "observation_id", "status=void_observation"),
    "procedures": ("time", "time", "procedure_id", "status=void_procedure"),
}


@cache
def readings() -> Mapping[str, Mapping[str, Any]]:
    """Laboratory results and vital signs of ``readings.toml``, by name."""
    text = files("carelake.features").joinpath("readings.toml").read_text("utf-8")
    return {one["name"]: one for one in tomllib.loads(text)["reading"]}


class Item(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One feature.

    Attributes:
        reading: of observations: a name of ``readings.toml``, for its codes and units; or ``where`` says which rows.
        value: the column that is taken; of counts it is not needed.
        text: whether first and last are of a text.
        time, known: columns, by default the view's own.
        complete: least share of a batch's rows with a value.
    """

    name: str
    take: str
    view: str
    description: str = ""
    unit: str = ""
    source: str = ""
    reading: str = ""
    where: dict[str, list[str]] = {}
    value: str = ""
    text: bool = False
    window: str = ""
    time: str = ""
    known: str = ""
    low: float | None = None
    high: float | None = None
    allowed: tuple[str, ...] = ()
    complete: float = 0.0

    @property
    def kind(self) -> str:
        """Its FeatureType."""
        return "Integral" if self.take in _WHOLE else "String" if self.text else "Fractional"

    @property
    def micros(self) -> int | None:
        """The window in microseconds, None for ever."""
        found = _WINDOW.fullmatch(self.window)
        return int(found[1]) * _HOURS[found[2]] * _MICROS_OF_HOUR if found else None

    @property
    def columns(self) -> tuple[str, str, str]:
        """Of when it happened, when it was known, and what tells rows apart."""
        time, known, key, _ = _VIEWS[self.view]
        own = self.time or time
        return own, self.known or (own if self.time else known), key

    @property
    def column(self) -> str:
        """The column that is taken."""
        return self.value or ("value" if self.view == "observations" else self.columns[2])

    @property
    def void(self) -> tuple[str, tuple[str, ...]]:
        """A column, and its values of rows that are no facts."""
        column, _, name = _VIEWS[self.view][3].partition("=")
        return column, tuple(cohort.rules()["codes"][name])


class Declared(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A group of declared features.

    Attributes:
        availability: of a patient's first computation: ``recorded``, each value counts as known from its own moment
            on, as histories that are loaded in bulk need; ``system``, from when it was computed.
        storage: StorageType of the online store, "" for what it is by default.
        text: the TOML.
    """

    name: str
    feature: tuple[Item, ...]
    description: str = ""
    on_breach: str = "quarantine"
    availability: str = "recorded"
    storage: str = ""
    codes: dict[str, list[str]] = {}
    text: str = ""

    @property
    def views(self) -> tuple[str, ...]:
        """The views that it reads."""
        return tuple(sorted({one.view for one in self.feature}))

    def __str__(self) -> str:
        return self.text

    @property
    def digest(self) -> str:
        """SHA-256 of what it says, however that is written: in TOML or Python, with or without comments."""
        said = {name: value for name, value in msgspec.to_builtins(self).items() if name != "text"}
        return canonical.digest(said)

    def listed(self, values: list[str]) -> list[str]:
        """Values with the codes of code groups in the place of their names."""
        known = {**cohort.rules()["codes"], **self.codes}
        return [code for one in values for code in known.get(one, [one])]

    def extras(self) -> dict[str, Any]:
        """What `FeatureGroups.create` is told beside the request."""
        gates = {
            one.name: Gate(one.low, one.high, one.allowed, one.complete)
            for one in self.feature
            if (one.low, one.high, one.allowed, one.complete) != (None, None, (), 0.0)
        }
        return {
            "gates": gates,
            "on_breach": self.on_breach,
            "about": {one.name: _about(one) for one in self.feature},
            "declaration": self.text,
        }


def _about(one: Item) -> dict[str, Any]:
    said = {"unit": one.unit, "source": one.source or _source(one), "take": one.take, "window": one.window}
    parameters = [{"Key": key, "Value": value[:255]} for key, value in said.items() if value]
    return {"Description": one.description[:255], "Parameters": parameters}


def _source(one: Item) -> str:
    if one.reading:
        return "LOINC " + " ".join(readings()[one.reading]["loinc"])
    return f"{one.view}: " + "; ".join(f"{column} {' '.join(values)}" for column, values in one.where.items())


def load(text: str) -> Declared:
    """A declaration of its TOML.

    Raises:
        Invalid: ``features.declaration``.
    """
    try:
        made = msgspec.convert(tomllib.loads(text), decodable(Declared))
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise Invalid("features.declaration", f"The declaration cannot be read: {error}") from None
    for one in made.feature:
        _check(one)
    words = (
        made.on_breach in ("refuse", "quarantine"),
        made.availability in ("recorded", "system"),
        made.storage in ("", *_STORAGE),
    )
    if not made.feature or not all(words):
        raise Invalid(
            "features.declaration",
            "A declaration has features, on_breach refuse or quarantine, availability recorded or system, and "
            f"storage {', '.join(_STORAGE)}, or none of these.",
        )
    return msgspec.structs.replace(made, text=text)


def _check(one: Item) -> None:
    wrong = ""
    if one.take not in _TAKES:
        wrong = f"take is one of {', '.join(sorted(_TAKES))}"
    elif one.view not in _VIEWS:
        wrong = f"view is one of {', '.join(_VIEWS)}"
    elif one.window and not one.micros:
        wrong = "a window is a number of hours, days or weeks, for example 48h, 7d or 4w"
    elif one.reading and (one.view != "observations" or one.reading not in readings()):
        wrong = f"reading is one of {', '.join(readings())}, of the view observations"
    elif one.text and one.take not in ("first", "last"):
        wrong = "a text is taken first or last"
    elif one.text and (one.low, one.high) != (None, None):
        wrong = "a text has no low and no high"
    else:
        wrong = _wrong_columns(one)
    if wrong:
        raise Invalid("features.declaration", f"Feature {one.name}: {wrong}.")


def _wrong_columns(one: Item) -> str:
    schema = view(one.view).empty.schema
    time, known, _ = one.columns
    if unknown := sorted({*one.where, one.column, time, known} - set(schema.names)):
        return f"the view {one.view} has no column {', '.join(unknown)}; it has {', '.join(schema.names)}"
    kind = schema.field(one.column).type
    if one.text:
        return "" if pa.types.is_string(kind) else "its value is no text"
    if one.take not in _WHOLE and not pa.types.is_floating(kind) and not pa.types.is_integer(kind):
        return f"{one.take} is of numbers; say text = true for the first or last text, or another value"
    if not all(pa.types.is_timestamp(schema.field(name).type) for name in (time, known)):
        return "time and known are columns of times"
    return "" if all(pa.types.is_string(schema.field(name).type) for name in one.where) else "where is of texts"


def request_of(declared: Declared) -> dict[str, Any]:
    """CreateFeatureGroup's request: a record for each patient, online and offline."""
    kind = {"StorageType": declared.storage} if declared.storage else {}
    features = [
        {"FeatureName": "subject_id", "FeatureType": "String"},
        {"FeatureName": "event_time", "FeatureType": "String"},
        *({"FeatureName": one.name, "FeatureType": one.kind} for one in declared.feature),
    ]
    return {
        "FeatureGroupName": declared.name,
        "RecordIdentifierFeatureName": "subject_id",
        "EventTimeFeatureName": "event_time",
        "FeatureDefinitions": features,
        "OnlineStoreConfig": {"EnableOnlineStore": True, **kind},
        "OfflineStoreConfig": {"S3StorageConfig": {"S3Uri": "s3://carelake-features"}, "TableFormat": "Iceberg"},
        "Description": declared.description[:128],
        "Tags": [{"Key": SUBJECT_TAG, "Value": "subject_id"}],
    }


@cache
def shipped() -> Mapping[str, str]:
    """The declarations that come with carelake: TOML by name."""
    folder = files("carelake.features.groups").joinpath("declared")
    found = sorted(folder.iterdir(), key=lambda one: one.name)
    return {one.name.removesuffix(".toml"): one.read_text("utf-8") for one in found if one.name.endswith(".toml")}
