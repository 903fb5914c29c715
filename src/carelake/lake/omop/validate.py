"""The rules of the CDM's field list over written tables: columns, types, what is required, keys, and concepts.

Tables are read as they lie there, by anybody's export: ``TABLE/*.parquet``, ``TABLE.parquet``, or the same as CSV.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
from pyarrow import csv

from carelake.core.errors import Invalid
from carelake.core.settings import LakeSettings
from carelake.lake.engines.engine import connect
from carelake.lake.omop.schema import Field, Table, tables
from carelake.lake.omop.vocabulary import Vocabulary

__all__ = ["Finding", "datasets", "validate"]

_MOST_32 = 2**31 - 1
_STARTS = ("_start_date", "_start_datetime")


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule that rows break.

    Attributes:
        check: missing, columns, type, required, length, wide, key, reference, concept, domain or order. ``wide`` is a
            remark: the number is right and needs a column of 64 bits.
        rows: how many; 0 where it is about the table.
    """

    table: str
    field: str
    check: str
    rows: int

    @property
    def remark(self) -> bool:
        """It breaks no rule."""
        return self.check == "wide"


def datasets(folder: Path) -> Mapping[str, ds.Dataset]:
    """The tables that a folder has.

    Raises:
        Invalid: ``omop.unreadable``.
    """
    found = {}
    for name in tables():
        for form in ("parquet", "csv"):
            files = sorted(folder.glob(f"{name}/*.{form}")) or sorted(folder.glob(f"{name}.{form}"))
            if files:
                found[name] = _dataset(name, files, form)
                break
    return found


def _dataset(name: str, files: list[Path], form: str) -> ds.Dataset:
    try:
        if form == "parquet":
            return ds.dataset(files, format="parquet")
        names = csv.open_csv(files[0]).schema.names
        convert = csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, quoted_strings_can_be_null=False
        )
        return ds.dataset(files, format=ds.CsvFileFormat(convert_options=convert))
    except (OSError, pa.ArrowException):
        raise Invalid("omop.unreadable", f"A file of {name} cannot be read; expected Parquet or CSV.") from None


def validate(
    found: Mapping[str, ds.Dataset], vocabulary: Vocabulary | None = None, limits: LakeSettings | None = None
) -> list[Finding]:
    """Every rule that is broken, in the order of the tables.

    Args:
        vocabulary: with one, concepts must be standard ones of it and of the field's domain.
    """
    with connect(limits) as connection:
        for name, dataset in found.items():
            connection.register(name, dataset)
        if vocabulary is not None:
            connection.register("standard", vocabulary.standard)
        findings = []
        for table in tables().values():
            if table.name not in found:
                findings.append(Finding(table.name, "", "missing", 0))
                continue
            try:
                findings += _table(connection, table, found, vocabulary is not None)
            except (duckdb.Error, pa.ArrowException, OSError):
                raise Invalid("omop.unreadable", f"A file of {table.name} cannot be read; write it again.") from None
        return findings


def _table(
    connection: duckdb.DuckDBPyConnection, table: Table, found: Mapping[str, ds.Dataset], known: bool
) -> Iterator[Finding]:
    have = list(found[table.name].schema.names)
    if have != [field.name for field in table.fields]:
        yield Finding(table.name, "", "columns", 0)
        return
    checks = {}
    for field in table.fields:
        checks.update({(field.name, check): test for check, test in _tests(table, field).items()})
    checks.update(_orders(table))
    counts = ", ".join(f"count(*) FILTER (WHERE {test})" for test in checks.values())
    told = connection.sql(f'SELECT {counts} FROM "{table.name}"').fetchall()[0]
    yield from (
        Finding(table.name, name, check, rows) for (name, check), rows in zip(checks, told, strict=True) if rows
    )
    for check, name, query in _lookups(table, found, known):
        if rows := connection.sql(query).fetchall()[0][0]:
            yield Finding(table.name, name, check, rows)


def _tests(table: Table, field: Field) -> dict[str, str]:
    column = f'"{field.name}"'
    tests = {}
    if field.required:
        tests["required"] = f"{column} IS NULL"
    if field.kind == "v":
        tests["length"] = f"length({column}::VARCHAR) > {field.room}"
    elif field.kind == "i":
        tests["type"] = f"{column} IS NOT NULL AND try_cast({column}::VARCHAR AS BIGINT) IS NULL"
        most = _MOST_32
        tests["wide"] = f"abs(try_cast({column}::VARCHAR AS BIGINT)) > {most}"
    elif field.kind != "x":
        tests["type"] = f"{column} IS NOT NULL AND try_cast({column}::VARCHAR AS {field.sql}) IS NULL"
    return tests


def _orders(table: Table) -> dict[tuple[str, str], str]:
    names = {field.name for field in table.fields}
    made = {}
    for name in sorted(names):
        for start in _STARTS:
            if name.endswith(start) and (end := name.replace("_start_", "_end_")) in names:
                made[end, "order"] = f'try_cast("{end}" AS TIMESTAMP) < try_cast("{name}" AS TIMESTAMP)'
    return made


def _lookups(table: Table, found: Mapping[str, ds.Dataset], known: bool) -> Iterator[tuple[str, str, str]]:
    if table.key:
        key = f'"{table.key}"'
        yield "key", table.key, f'SELECT count({key}) - count(DISTINCT {key}) FROM "{table.name}"'
    for field in table.fields:
        column = f'"{field.name}"'
        number = f"try_cast({column}::VARCHAR AS BIGINT)"
        if field.refers == "concept":
            if known and not field.name.endswith("_source_concept_id"):
                yield "concept", field.name, _absent(table, number, "SELECT concept_id FROM standard")
                if field.domain:
                    domain = f"SELECT concept_id FROM standard WHERE domain = '{field.domain}'"
                    yield "domain", field.name, _absent(table, number, domain)
        elif field.refers in found:
            to = tables()[field.refers]
            keys = f'SELECT try_cast("{to.key}"::VARCHAR AS BIGINT) FROM "{to.name}"'
            yield "reference", field.name, _absent(table, number, keys, zero=False)
        elif field.refers:
            yield "reference", field.name, f'SELECT count({column}) FROM "{table.name}"'


def _absent(table: Table, number: str, among: str, *, zero: bool = True) -> str:
    also = f" AND {number} <> 0" if zero else ""
    return (
        f'SELECT count(*) FROM "{table.name}" WHERE {number} IS NOT NULL{also} '
        f"AND {number} NOT IN (SELECT x FROM ({among}) AS a(x) WHERE x IS NOT NULL)"
    )
