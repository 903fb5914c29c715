"""Writing the tables of the CDM, a shard of patients at a time.

Ids are whole numbers that stay the same from one export to the next: a person, a visit, a provider, a care site and a
location have the change number of their resource's first version, rows of events 64 times that and their place among
the rows of the resource. No free text is written: codes, numbers, dates, and the address that ``location`` is for.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache, cached_property, partial
from importlib.resources import files
from typing import Any

import duckdb
import pyarrow as pa

from carelake.core import canonical
from carelake.core.nouns import Noun
from carelake.core.permit import Permit
from carelake.lake.engines.engine import connect
from carelake.lake.omop.schema import Table, described, tables
from carelake.lake.omop.vocabulary import Vocabulary, facts
from carelake.lake.ready import shards as ready
from carelake.lake.ready.parts import Export, encoded, part_name
from carelake.vault.workspace import Vault

__all__ = ["EVERYBODY", "KINDS_OF_ALL", "Made", "Source", "export", "prepared"]

_PER_PATIENT = (
    "patient", "encounter", "encounter_location", "condition", "observation", "observation_component",
    "medication_request", "medication_dispense", "medication_administration", "immunization", "procedure",
    "allergy_intolerance", "device", "device_use", "document_reference",
)  # fmt: skip
EVERYBODY = ("organization", "location", "practitioner", "practitioner_role", "medication")
_KINDS = (
    "Patient", "Encounter", "Condition", "Observation", "MedicationRequest", "MedicationDispense",
    "MedicationAdministration", "Immunization", "Procedure", "AllergyIntolerance", "Device", "DocumentReference",
)  # fmt: skip
KINDS_OF_ALL = ("Organization", "Location", "Practitioner")
_CODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.\-_/^]{0,29}")
_ROOM = 64
# What was not written, and why: of events, of patients without a birth date, of stays without a beginning.
_LEFT_OUT = f"""
SELECT 'event: ' || left_out AS reason, count(*) AS n FROM told WHERE left_out IS NOT NULL GROUP BY ALL
UNION ALL SELECT 'event: parts', count(*) FROM coded WHERE k >= {_ROOM}
UNION ALL SELECT 'patient: birth date', count(*) FROM patient WHERE day_of(birth_date) IS NULL
UNION ALL SELECT 'death: date', count(*) FROM people WHERE deceased AND day_of(deceased_time) IS NULL
UNION ALL SELECT 'note', count(*) FROM document_reference d
    LEFT JOIN people q ON q.id = d.patient_id
    LEFT JOIN visits v ON v.id = d.encounter_id AND v.person_id = q.person_id
    WHERE d.status = 'entered-in-error' OR q.person_id IS NULL
        OR coalesce(day_of(d.date), v.starts_at::DATE) IS NULL
UNION ALL SELECT 'encounter', (SELECT count(*) FROM encounter) - (SELECT count(*) FROM visits)
UNION ALL SELECT 'encounter_location: parts', count(*) FROM encounter_location WHERE position >= {_ROOM}
"""
_UNMAPPED = "SELECT target, system, code, count(*) AS n FROM coded WHERE concept_id = 0 GROUP BY ALL"


@dataclass(frozen=True)
class Source:
    """What is exported: the lake as of a snapshot, under a permit.

    Attributes:
        at: the moment that stays which go on are cut at: the snapshot's, so that it has the same rows again.
        holder: who holds the data, for ``cdm_source``.
    """

    permit: Permit
    vault: Vault
    snapshot: Noun
    vocabulary: Vocabulary
    at: datetime
    holder: str

    @cached_property
    def numbers(self) -> ready.Numbers:
        """Numbers of its resources."""
        return ready.Numbers(self.permit, self.vault, self.snapshot)


@dataclass(frozen=True)
class Made:
    """What an export wrote.

    Attributes:
        tables: rows of each.
        left_out: how many resources were not written, by reason.
        unmapped: (table, system, code) to how many rows have concept 0. What is no plain code is counted as "other".
    """

    tables: Mapping[str, int]
    left_out: Mapping[str, int]
    unmapped: Mapping[tuple[str, str, str], int]

    def as_json(self) -> dict[str, Any]:
        """For the report."""
        unmapped = sorted(self.unmapped.items(), key=lambda one: (-one[1], one[0]))
        return {
            "tables": dict(self.tables),
            "left_out": {reason: count for reason, count in sorted(self.left_out.items()) if count},
            "unmapped": [{"table": t, "system": s, "code": c, "rows": n} for (t, s, c), n in unmapped],
        }


@cache
def _sql(name: str) -> str:
    return files("carelake.lake.omop").joinpath("sql", name).read_text("utf-8")


@cache
def _selects() -> Mapping[str, Mapping[str, str]]:
    return tomllib.loads(files("carelake.lake.omop").joinpath("tables.toml").read_text("utf-8"))


def export(
    source: Source, kept: Export, form: str, progress: Callable[[int, int], None] = lambda done, of: None
) -> Made:
    """Write every table as ``TABLE/part-NNNNN.FORM``.

    Part 0 has what is of no patient; a shard that was done before is not done again.
    """
    parts = ready.shards(source.permit, source.vault, source.snapshot)
    kept.of_patients(parts)
    everybody = _everybody(source)
    kept.shard("0", lambda: _once(source, everybody, kept, form, empty=not parts))
    for number, patients in enumerate(parts, 1):
        kept.shard(str(number), partial(_shard, source, everybody, patients, kept, form, number))
        progress(number, len(parts))
    made = _made(kept.done.values())
    kept.place.write("report.json", _report(made))
    kept.finish()
    return made


def _report(made: Made) -> bytes:
    return canonical.dump_pretty(made.as_json()).encode() + b"\n"


def _everybody(source: Source) -> dict[str, pa.Table]:
    found = dict(ready.views(source.permit, source.vault, source.snapshot, EVERYBODY))
    found["number_of_all"] = source.numbers.of(KINDS_OF_ALL)
    return found


def _once(
    source: Source, everybody: Mapping[str, pa.Table], kept: Export, form: str, *, empty: bool
) -> Mapping[str, Any]:
    """What is of no patient; where there are none, the other tables too, so that all are there."""
    rows = {}
    with connect(source.vault.settings.lake) as connection:
        _register(connection, {**everybody, **_constants(source)})
        connection.execute(ready.macros() + _sql("macros.sql"))
        for name, told in _selects().items():
            if "once" in told:
                rows[name] = _write(connection, told["once"], name, kept, form, 0)
            elif empty:
                kept.place.write(part_name(name, 0, form), encoded(form, described(name).arrow.empty_table()))
    about = _about(source, described("cdm_source"))
    kept.place.write(part_name("cdm_source", 0, form), encoded(form, about))
    return {"rows": {**rows, "cdm_source": 1}}


def _shard(
    source: Source,
    everybody: Mapping[str, pa.Table],
    patients: frozenset[str],
    kept: Export,
    form: str,
    number: int,
) -> Mapping[str, Any]:
    with connect(source.vault.settings.lake) as connection:
        prepared(connection, source, everybody, patients)
        rows = {
            name: _write(connection, told["sql"], name, kept, form, number)
            for name, told in _selects().items()
            if "sql" in told
        }
        left = dict(connection.execute(_LEFT_OUT).fetchall())
        unmapped = [[_plain(t), _plain(s), _plain(c), n] for t, s, c, n in connection.execute(_UNMAPPED).fetchall()]
    source.permit.log.count(rows=sum(rows.values()))
    return {"rows": rows, "left_out": left, "unmapped": unmapped}


def prepared(
    connection: duckdb.DuckDBPyConnection,
    source: Source,
    everybody: Mapping[str, pa.Table],
    patients: frozenset[str],
) -> None:
    """Make the temporary tables of a shard: people, visits, event, told and coded."""
    found = dict(ready.views(source.permit, source.vault, source.snapshot, _PER_PATIENT, patients))
    found["number"] = source.numbers.of(_KINDS, patients)
    _register(connection, {**found, **everybody, **_constants(source)})
    connection.execute(ready.macros() + _sql("macros.sql"))
    connection.execute(f"CREATE TEMP TABLE event AS {_sql('events.sql')}")
    connection.execute(_sql("prepare.sql"))


def _register(connection: duckdb.DuckDBPyConnection, found: Mapping[str, pa.Table]) -> None:
    for name, table in found.items():
        connection.register(name, table)


def _constants(source: Source) -> dict[str, pa.Table]:
    at = pa.array([source.at.replace(tzinfo=None, microsecond=0)], pa.timestamp("us"))
    return {"facts": facts(), "mapped": source.vocabulary.mapped, "release": pa.table({"released": at})}


def _write(
    connection: duckdb.DuckDBPyConnection, select: str, name: str, kept: Export, form: str, number: int
) -> int:
    table = described(name)
    found = connection.sql(f"SELECT * FROM ({select}) ORDER BY 1").to_arrow_table()
    kept.place.write(part_name(name, number, form), encoded(form, _shaped(found, table)))
    return len(found)


def _shaped(found: pa.Table, table: Table) -> pa.Table:
    """All fields of the table, in its order and types."""
    have = set(found.column_names)
    columns = [
        found.column(field.name).cast(field.arrow) if field.name in have else pa.nulls(len(found), field.arrow)
        for field in table.fields
    ]
    return pa.table(columns, schema=table.arrow)


def _about(source: Source, table: Table) -> pa.Table:
    [cdm] = [one["id"] for one in facts().to_pylist() if (one["kind"], one["code"]) == ("other", "cdm")]
    told: dict[str, Any] = {
        "cdm_source_name": "carelake",
        "cdm_source_abbreviation": "carelake",
        "cdm_holder": source.holder,
        "cdm_etl_reference": source.snapshot.ref,
        "source_release_date": source.at.date(),
        "cdm_release_date": source.at.date(),
        "cdm_version": "5.4",
        "cdm_version_concept_id": cdm,
        "vocabulary_version": source.vocabulary.version,
    }
    return pa.Table.from_pylist([{field.name: told.get(field.name) for field in table.fields}], schema=table.arrow)


def _plain(said: str | None) -> str:
    """A code or a system as the report may show it: what could be a text somebody typed is not shown."""
    if said is None:
        return ""
    return said if _CODE.fullmatch(said) or re.fullmatch(r"(?:https?://|urn:oid:)[\w./:\-]{1,120}", said) else "other"


def _made(done: Iterable[Mapping[str, Any]]) -> Made:
    rows, left, unmapped = Counter[str](), Counter[str](), Counter[tuple[str, str, str]]()
    for one in done:
        rows.update(one["rows"])
        left.update(one.get("left_out", {}))
        for table, system, code, count in one.get("unmapped", ()):
            unmapped[table, system, code] += count
    return Made({name: rows[name] for name in tables()}, left, unmapped)
