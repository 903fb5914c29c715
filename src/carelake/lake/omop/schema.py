"""The fields of the tables that are written: names, types, what is required, what refers to what."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import pyarrow as pa

__all__ = ["Field", "Table", "ddl", "described", "tables"]

_ARROW: Mapping[str, pa.DataType] = {
    "i": pa.int64(),
    "d": pa.date32(),
    "t": pa.timestamp("us"),
    "f": pa.float64(),
    "x": pa.string(),
}
_SQL = {"i": "integer", "d": "date", "t": "timestamp", "f": "double", "x": "text"}
# What a field refers to, by the end of its name; the longest that fits counts.
_REFERS = {
    "person_id": "person",
    "visit_occurrence_id": "visit_occurrence",
    "visit_detail_id": "visit_detail",
    "provider_id": "provider",
    "care_site_id": "care_site",
    "location_id": "location",
}


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a table.

    Attributes:
        kind: i, d, t, f, x or v.
        room: characters of a varchar, else 0.
        refers: the table whose primary key it holds, or "".
        domain: that a concept must be of, or "".
    """

    name: str
    kind: str
    room: int
    required: bool
    refers: str
    domain: str

    @property
    def arrow(self) -> pa.DataType:
        """Whole numbers have 64 bits in Arrow."""
        return _ARROW.get(self.kind, pa.string())

    @property
    def sql(self) -> str:
        """Its type in SQL."""
        return _SQL.get(self.kind) or f"varchar({self.room})"


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the CDM; ``key`` is its primary key or ""."""

    name: str
    fields: tuple[Field, ...]
    key: str

    @property
    def arrow(self) -> pa.Schema:
        """Its columns."""
        return pa.schema([pa.field(field.name, field.arrow, not field.required) for field in self.fields])


@cache
def tables() -> Mapping[str, Table]:
    """The tables by name, in the order of the specification."""
    told = tomllib.loads(files("carelake.lake.omop").joinpath("cdm_5_4.toml").read_text("utf-8"))
    return {name: _table(name, said, told) for name, said in told["tables"].items()}


def _table(name: str, said: str, told: Mapping[str, Mapping[str, str]]) -> Table:
    first = said.split()[0]
    key = told["keys"].get(name, first)
    fields = tuple(_field(name, one, key, told["domains"]) for one in said.split(", "))
    return Table(name, fields, key)


def _field(table: str, said: str, key: str, domains: Mapping[str, str]) -> Field:
    name, kind = said.split()
    required, kind = kind.endswith("!"), kind.rstrip("!")
    refers = "concept" if name.endswith("_concept_id") else ""
    refers = refers or next((to for end, to in _REFERS.items() if name == end or name.endswith(f"_{end}")), "")
    if name == key and table != "death":
        refers = ""
    return Field(name, kind[0], int(kind[1:] or 0), required, refers, domains.get(f"{table}.{name}", ""))


def described(name: str) -> Table:
    """The table of that name."""
    return tables()[name]


def ddl(name: str) -> str:
    """CREATE TABLE with types, NOT NULL and the primary key."""
    table = described(name)
    fields = [f'"{one.name}" {one.sql}{" NOT NULL" if one.required else ""}' for one in table.fields]
    if table.key:
        fields.append(f'PRIMARY KEY ("{table.key}")')
    return f"CREATE TABLE {name} ({', '.join(fields)})"
