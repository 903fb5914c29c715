"""Cohorts: people who meet criteria, one after another, and how many each criterion leaves (attrition).

A definition is data; it becomes one SELECT over the flat views, which anybody may read and change. Nothing of a
definition is in it unchecked: codes are letters, digits, dots and dashes, all else is numbers, days and closed words.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from carelake.core.errors import Invalid, NotFound
from carelake.core.nouns import Noun
from carelake.core.permit import Permit
from carelake.lake import query
from carelake.lake.engines import engine
from carelake.lake.seeing.relations import find
from carelake.lake.seeing.sight import sight_of
from carelake.lake.statements import bounded
from carelake.lake.statements.statement import Relation
from carelake.vault.workspace import Vault

__all__ = [
    "COMPARATORS",
    "KINDS",
    "MOST",
    "Counts",
    "Criterion",
    "attrition",
    "bands",
    "count",
    "criteria",
    "members",
]

MOST = 20
"""Criteria of one cohort."""

COMPARATORS = {"<": "<", "<=": "<=", "=": "=", ">=": ">=", ">": ">"}
KINDS = {
    "sex": "Sex",
    "age": "Age today, years",
    "condition": "Has a condition",
    "medication": "Has a medication order",
    "procedure": "Has a procedure",
    "encounter": "Has an encounter",
    "observation": "Has an observation",
}
"""What a criterion can be about, and how people call it."""

_TIMED = {
    "condition": ("conditions", "code", "time"),
    "medication": ("medications", "code", "time"),
    "procedure": ("procedures", "code", "time"),
    "encounter": ("encounters", "class", "start_time"),
    "observation": ("observations", "code", "time"),
}
"""Kind -> the view, its column of codes and its time."""

_UNTRUE = "verification_status NOT IN ('refuted', 'entered-in-error')"
_CODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.\-]{0,31}\*?")
_AGE = "date_sub('year', birth_date, current_date)"
_BANDS = f"least({_AGE} // 10 * 10, 90)"


@dataclass(frozen=True, slots=True)
class Criterion:
    """One step of a cohort.

    Attributes:
        kind: of `KINDS`.
        code: a code; with ``*`` at its end whatever begins so. Of ``sex``: the FHIR code.
        comparator, value: of ``age``, and of an observation's value; "" and None for any.
        since, until: days, both counted in; None for any.
        without: those who do not meet it.
    """

    kind: str
    code: str = ""
    comparator: str = ""
    value: float | None = None
    since: date | None = None
    until: date | None = None
    without: bool = False

    def __post_init__(self) -> None:
        wants_value = self.kind == "age" or bool(self.comparator) or self.value is not None
        if self.kind not in KINDS:
            raise _wrong(f"A criterion is about one of {', '.join(KINDS)}.")
        if self.kind != "age" and not _CODE.fullmatch(self.code):
            raise _wrong("A code is letters, digits, dots and dashes, with * at its end for all that begin so.")
        if wants_value and (self.kind not in ("age", "observation") or self.value is None or not self.comparator):
            raise _wrong("A value goes with a comparator, of an age or an observation.")
        if self.value is not None and not (isinstance(self.value, int | float) and math.isfinite(self.value)):
            raise _wrong("A value is a number.")
        if self.comparator and self.comparator not in COMPARATORS:
            raise _wrong(f"A comparator is one of {', '.join(COMPARATORS)}.")
        if (self.since or self.until) and self.kind not in _TIMED:
            raise _wrong("An age and a sex have no dates.")
        if self.since and self.until and self.since > self.until:
            raise _wrong("A criterion begins after it ends.")

    @property
    def title(self) -> str:
        """As people say it."""
        said = [KINDS[self.kind], self.code, self.comparator, f"{self.value:g}" if self.value is not None else ""]
        said += [f"since {self.since}" if self.since else "", f"until {self.until}" if self.until else ""]
        return ("not: " if self.without else "") + " ".join(word for word in said if word)

    def as_json(self) -> dict[str, Any]:
        """Without what it does not say."""
        told = {name: value for name, value in asdict(self).items() if value not in ("", None, False)}
        return {name: str(value) if isinstance(value, date) else value for name, value in told.items()}


def criteria(said: Sequence[Mapping[str, Any]]) -> tuple[Criterion, ...]:
    """Criteria of JSON.

    Raises:
        Invalid: ``lake.cohort``.
    """
    if len(said) > MOST:
        raise _wrong(f"A cohort has at most {MOST} criteria.")
    try:
        return tuple(Criterion(**{**one, **_days(one)}) for one in said)
    except (AttributeError, OverflowError, TypeError, ValueError):
        raise _wrong("A criterion has kind, code, comparator, value, since, until (days) and without.") from None


def _days(one: Mapping[str, Any]) -> dict[str, date]:
    return {name: date.fromisoformat(one[name]) for name in ("since", "until") if one.get(name)}


def attrition(wanted: Sequence[Criterion]) -> str:
    """A SELECT of ``step`` (0 is everybody) and ``people``, in order."""
    counts = (f"SELECT {n} AS step, count(*) AS people FROM s{n}" for n in range(len(wanted) + 1))
    return f"{_steps(wanted)}\n" + "\nUNION ALL ".join(counts) + "\nORDER BY step"


def members(wanted: Sequence[Criterion]) -> str:
    """A SELECT of the ``subject_id`` of each of them."""
    return f"{_steps(wanted)}\nSELECT subject_id FROM s{len(wanted)} ORDER BY subject_id"


def bands(wanted: Sequence[Criterion]) -> str:
    """A SELECT of ``age`` (the first year of ten; 90 for all above), ``sex`` and ``people``."""
    return (
        f"{_steps(wanted)}\nSELECT {_BANDS} AS age, sex, count(*) AS people\nFROM s{len(wanted)}\n"
        "GROUP BY 1, 2 ORDER BY 1, 2"
    )


@dataclass(frozen=True, slots=True)
class Counts:
    """How many people there are, and who is left.

    Attributes:
        steps: of each step its title (``step``), how many it takes ``out`` and how many are ``left``.
        people: ``age``, ``sex`` and ``people`` of who is left, see `bands`.
        least: counts are rounded down to a multiple of it, and what is less is not told; 0 where all is.
    """

    steps: list[dict[str, Any]]
    people: pa.Table
    least: int = 0


def count(permit: Permit, vault: Vault, snapshot: Noun, wanted: Sequence[Criterion]) -> Counts:
    """Count a cohort in what the permit shows.

    Who may see counts over enough patients only (`cells`) is counted in the coarse tables that they may ask, and gets
    multiples of ``lake.k``: so what a step takes out is no small number either.
    """
    least = vault.settings.lake.k if sight_of(permit).cells else 0

    def run(text: str) -> pa.Table:
        if not least:
            return query.sql(permit, vault, snapshot, text)
        with engine.connect(vault.settings.lake) as connection:
            for name, table in _coarse(permit, vault, snapshot, wanted).items():
                connection.register(name, table)
            return bounded.select(connection, text, vault.settings.lake)

    return Counts(_counted(wanted, run(attrition(wanted)), least), _rounded(run(bands(wanted)), least), least)


def _coarse(permit: Permit, vault: Vault, snapshot: Noun, wanted: Sequence[Criterion]) -> dict[str, pa.Table]:
    names = {"patients", *(_TIMED[one.kind][0] for one in wanted if one.kind in _TIMED)}
    found = {name: find(permit, vault, snapshot, Relation("", name)) for name in sorted(names)}
    if any(one is None for one in found.values()):
        raise NotFound("lake.no_such_view", "What the criteria are about is not among what you may see.")
    return {name: one.read(None) for name, one in found.items() if one is not None}


def _counted(wanted: Sequence[Criterion], found: pa.Table, least: int) -> list[dict[str, Any]]:
    people = [n // least * least if least else n for n in found.sort_by("step").column("people").to_pylist()]
    titles = ["Everybody", *(one.title for one in wanted)]
    return [
        {"step": title, "left": left, "out": before - left}
        for title, left, before in zip(titles, people, [people[0], *people], strict=False)
    ]


def _rounded(people: pa.Table, least: int) -> pa.Table:
    if not least:
        return people
    rounded = [n // least * least for n in people.column("people").to_pylist()]
    told = people.set_column(2, "people", pa.array(rounded, pa.int64()))
    return told.filter(pc.field("people") > 0)


def _steps(wanted: Sequence[Criterion]) -> str:
    steps = ["s0 AS (SELECT subject_id, sex, birth_date FROM patients)"]
    for n, one in enumerate(wanted, 1):
        test = f"NOT coalesce({_test(one)}, false)" if one.without else _test(one)
        steps.append(f"s{n} AS (SELECT * FROM s{n - 1} WHERE {test})")
    return "WITH " + ",\n".join(steps)


def _test(one: Criterion) -> str:
    if one.kind == "sex":
        return f"sex = {_text(one.code)}"
    if one.kind == "age":
        return f"{_AGE} {one.comparator} {one.value:g}"
    view, code, time = _TIMED[one.kind]
    tests = ["subject_id IS NOT NULL", _coded(code, one.code)]
    if one.comparator:
        tests.append(f"value {one.comparator} {one.value!r}")
    if one.since:
        tests.append(f"{time} >= TIMESTAMP {_text(f'{one.since} 00:00:00')}")
    if one.until:
        tests.append(f"{time} < TIMESTAMP {_text(f'{one.until} 00:00:00')} + INTERVAL 1 DAY")
    if one.kind == "condition":
        tests.append(f"coalesce({_UNTRUE}, true)")
    return f"subject_id IN (SELECT subject_id FROM {view} WHERE {' AND '.join(tests)})"


def _coded(column: str, code: str) -> str:
    if code.endswith("*"):
        return f"starts_with({column}, {_text(code[:-1])})"
    return f"{column} = {_text(code)}"


def _text(value: str) -> str:
    quoted = value.replace("'", "''")  # there is none in a code, nor in a day; whatever comes is a text
    return f"'{quoted}'"


def _wrong(what: str) -> Invalid:
    return Invalid("lake.cohort", what)
