"""The recipe of a data set: who is looked at and when, what came of it, and which features were known then.

The design is that of a prediction study, as PatientLevelPrediction declares it and TRIPOD+AI asks for: a target
cohort (T), an outcome (O) and a time at risk (TAR), with washout, exclusions, a competing event and censoring. Events
are SELECTs over the lake's flat views, checked and run as a user's (`lake.statements.statement`); numbers are data.
"""

from __future__ import annotations

import re
import tomllib
from datetime import timedelta
from functools import cache
from importlib import resources
from typing import Any, Literal

import msgspec

from carelake.core.errors import Invalid, NotFound
from carelake.core.shapes import decodable

__all__ = ["Design", "Exclusion", "Group", "Recipe", "Share", "of_toml", "parsed", "read", "shipped"]

_MOST = 1 << 20
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")


def _named(things: tuple[Any, ...]) -> None:
    names = [one.name for one in things]
    if len(set(names)) < len(names) or not all(_NAME.fullmatch(one) for one in names):
        raise ValueError("names begin with a letter, have letters, digits, _ and - only, and differ from each other")


class Exclusion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who is left out, counted under ``name``.

    Attributes:
        sql: ``subject_id`` and ``time``; without a ``time`` column the subjects are out at all times.
        days: how far back from the prediction time it counts, 0 for ever. What comes after never counts.
    """

    name: str
    sql: str
    days: int = 0


class Design(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who, when, and what is asked.

    Attributes:
        target: T, a SELECT of ``subject_id``, ``start_time``, ``end_time`` and further columns that are passed on.
        outcome: O, a SELECT of ``subject_id`` and ``time``.
        to_hours: end of the time at risk after the prediction time; from_hours: its beginning (that moment is out).
        predict: at the start or the end of an entry, ``offset_hours`` later; or with ``every_hours`` from the start
            on so often until the end.
        take: all entries of a subject, or the first.
        washout_days: an entry with another one of the subject that began in so many days before it is left out.
        observation: a SELECT of ``subject_id``, ``start_time``, ``end_time``: when a subject is seen at all; with
            ``observed_days`` of it asked before the prediction time. Its end ends the follow-up.
        prior_outcome_days: whoever had the outcome in so many days up to the prediction time is out; -1 for ever.
        competing: a SELECT of ``subject_id`` and ``time`` of what makes the outcome impossible, for example death.
            Whoever had it by the prediction time is out; after it, before the outcome, the label is false
            (``competing_label = "negative"``) or unknown (``"unknown"``).
        censoring: where the time at risk reaches beyond what was seen, ``"unknown"`` takes every label away, since
            keeping those who had the outcome would drop early non-events alone; ``"events"`` keeps them.
    """

    target: str
    outcome: str
    to_hours: int
    from_hours: int = 0
    predict: Literal["start", "end"] = "end"
    offset_hours: int = 0
    every_hours: int = 0
    take: Literal["all", "first"] = "all"
    washout_days: int = 0
    observation: str = ""
    observed_days: int = 0
    prior_outcome_days: int = 0
    competing: str = ""
    competing_label: Literal["negative", "unknown"] = "negative"
    censoring: Literal["unknown", "events"] = "unknown"
    exclusions: tuple[Exclusion, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.from_hours < self.to_hours:
            raise ValueError("the time at risk is from_hours (0 or more) to to_hours (more than that)")
        if min(self.washout_days, self.observed_days, self.every_hours) < 0 or self.prior_outcome_days < -1:
            raise ValueError("days and hours are 0 or more")
        if self.observed_days and not self.observation:
            raise ValueError("observed_days needs the SELECT of observation")
        _named(self.exclusions)


class Group(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A group of features, joined as of each prediction time.

    Attributes:
        sql: a SELECT of ``subject_id``, ``event_time``, features, and ``write_time`` and ``is_deleted`` where they
            are known; or
        group: the name of a feature group, whose offline table is read.
        features: those that are joined; all by default.
        staleness_hours: the greatest age of a value, 0 for none.
    """

    name: str
    sql: str = ""
    group: str = ""
    features: tuple[str, ...] = ()
    staleness_hours: int = 0

    def __post_init__(self) -> None:
        if bool(self.sql) == bool(self.group):
            raise ValueError("a group has sql or the name of a feature group, and not both")
        if self.staleness_hours < 0:
            raise ValueError("staleness_hours is 0 or more")

    @property
    def staleness(self) -> timedelta | None:
        """The greatest age, None for none."""
        return timedelta(hours=self.staleness_hours) if self.staleness_hours else None


class Share(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How rows are shared out, see `features.split`."""

    seed: int = 1
    test_patients: float = 0.5
    calibration_patients: float = 0.1
    time: float = 0.5


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A data set.

    Attributes:
        rows: ``design``, ``readmission`` for the rows and features of the readmission recipe, or ``meds``.
        scores: clinical scores that are computed of the features beside them, as columns of their names; ``news2`` of
            groups named as its measures, with ``last``.
    """

    name: str
    title: str
    rows: Literal["design", "readmission", "meds"] = "design"
    design: Design | None = None
    groups: tuple[Group, ...] = ()
    scores: tuple[Literal["news2"], ...] = ()
    share: Share = Share()

    def __post_init__(self) -> None:
        if (self.rows == "design") != (self.design is not None):
            raise ValueError("a recipe has a [design], unless its rows are made otherwise")
        if self.rows == "design" and not self.groups:
            raise ValueError("a recipe has one [[groups]] at least")
        _named(self.groups)

    def body(self) -> dict[str, Any]:
        """As JSON, without what is left at its default."""
        found: dict[str, Any] = msgspec.to_builtins(_slim(self))
        return found


def _slim(one: Any) -> Any:
    if isinstance(one, msgspec.Struct):
        return {
            field.name: _slim(getattr(one, field.name))
            for field in msgspec.structs.fields(one)
            if field.required or getattr(one, field.name) != field.default
        }
    if isinstance(one, tuple):
        return [_slim(each) for each in one]
    return str(one) if isinstance(one, float) else one


@cache
def shipped() -> tuple[str, ...]:
    """Names of the recipes that come with the package."""
    folder = resources.files(__package__).joinpath("recipes")
    return tuple(sorted(one.name.removesuffix(".toml") for one in folder.iterdir() if one.name.endswith(".toml")))


def read(name: str) -> Recipe:
    """A recipe that comes with the package.

    Raises:
        NotFound: ``datasets.no_such_recipe``.
    """
    if name not in shipped():
        raise NotFound(
            "datasets.no_such_recipe",
            f"There is no such recipe; give a TOML file, or one of {', '.join(shipped())}.",
        )
    return of_toml(resources.files(__package__).joinpath("recipes", f"{name}.toml").read_bytes())


def of_toml(text: bytes) -> Recipe:
    """A recipe as it is written.

    Raises:
        Invalid: ``datasets.recipe``.
    """
    if len(text) > _MOST:
        raise Invalid("datasets.recipe", "The recipe is larger than 1 MB; expected a design and its groups.")
    try:
        return parsed(tomllib.loads(text.decode()))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        raise Invalid("datasets.recipe", "The recipe is not TOML; check it with a TOML parser.") from None


def parsed(said: Any) -> Recipe:
    """A recipe from its JSON.

    Raises:
        Invalid: ``datasets.recipe``.
    """
    try:
        return msgspec.convert(said, decodable(Recipe), strict=False)
    except msgspec.ValidationError as error:
        raise Invalid("datasets.recipe", f"The recipe cannot be used: {error}.") from None
