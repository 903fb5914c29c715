"""Nothing that a permit may not see changes what it is told: neither rows nor errors, in no order.

Two lakes with the same keys differ in denied cells alone. Every statement, of whatever is thought of, has the same
answer over both, byte for byte; and no canary is in it. Counts are over enough patients, whatever is asked.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.append(str(Path(__file__).parent))  # for `import seen_data`

import seen_data
from seen_data import CANARIES, RARE_CODES, WITHHELD, Place

from carelake.core.errors import CarelakeError
from carelake.core.permit import Permit
from carelake.lake import query

_MINIMUM = frozenset(
    {"Patient.telecom", "Encounter.class.display", "Condition.code.display", "Condition.note", "Observation.note"}
)
_DENIED = {
    "deidentified": lambda element, name: element != "Condition.rare",
    "cells": lambda element, name: True,
    "minimum": lambda element, name: element in _MINIMUM or element.startswith(("Observation.", "Condition.")),
    "consent": lambda element, name: name in WITHHELD,
    "patient": lambda element, name: name != "p03",
}
"""Kind of permit to what it may not see: there the canaries stand."""


def permits(place: Place, kind: str) -> list[Permit]:
    if kind == "deidentified":
        return [place.permit("deidentified"), place.permit("account", action="lake:analyse", purpose="HOPERAT")][:1]
    if kind == "cells":
        return [place.permit("cells", "deidentified"), place.permit("cells", purpose="PUBHLTH")]
    if kind == "minimum":
        return [place.permit("minimum", purpose="HPAYMT")]
    if kind == "consent":
        return [place.consented("account"), place.consented("account", purpose="HRESCH"), place.consented("minimum")]
    return [place.permit("patient:p03", purpose="TREAT"), place.permit("patient:p03", "minimum", purpose="HOPERAT")]


@pytest.fixture(scope="module", params=sorted(_DENIED))
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, list[Place]]]:
    folder = tmp_path_factory.mktemp(request.param)
    with seen_data.places(folder, *CANARIES, where=_DENIED[request.param]) as made:
        yield request.param, made


# -- statements --

TABLES = st.sampled_from(
    [
        "Patient",
        "Condition",
        "Observation",
        "Encounter",
        "Organization",
        "Patient_history",
        "Condition_history",
        "patients",
        "conditions",
        "observations",
        "encounters",
        "deidentified.Patient",
        "deidentified.conditions",
        "deidentified.Condition",
        "main.Patient",
        "deletions",
        "duckdb_tables",
        "information_schema.columns",
        "Nowhere",
        "'file.csv'",
        "sqlite_master",
        "deidentified.Condition_history",
    ]
)
COLUMNS = st.sampled_from(
    [
        "*",
        "id",
        "patient",
        "subject_id",
        "code",
        "code_system",
        "gender",
        "sex",
        "birthDate",
        "name",
        "name[1].family",
        "telecom",
        "telecom[1].value",
        "note",
        "extension",
        "race",
        "code_element",
        "code_element.text",
        "display",
        "time",
        "value",
        "valueQuantity",
        "valueQuantity.unit",
        "identifier[1].value",
        "address[1].city",
        "class.display",
        "status",
        "version",
        "seq",
        "last_updated",
        "nothing",
        "text",
        "code_element.coding[1].display",
        "COLUMNS('.*')",
    ]
)
WORDS = st.sampled_from([*CANARIES, *RARE_CODES.values(), "p03", "p05", "male", "195662009", "2024-03", "x", "%"])


@st.composite
def values(draw: st.DrawFn) -> str:
    column, word = draw(COLUMNS.filter(lambda one: "*" not in one)), draw(WORDS)
    return draw(
        st.sampled_from(
            [
                column,
                f"CAST({column} AS INTEGER)",
                f"TRY_CAST({column} AS DATE)",
                f"length(CAST({column} AS VARCHAR))",
                f"upper({column})",
                f"({column} = '{word}')",
                f"CASE WHEN {column} = '{word}' THEN error('yes') END",
                f"year({column})",
                f"1 / (length({column}) - {len(word)})",
                f"getvariable('{word}')",
                f"hash({column})",
                f"json_extract_string({column}, '$[0].value')",
                f"contains(CAST({column} AS VARCHAR), '{word}')",
            ]
        )
    )


@st.composite
def wheres(draw: st.DrawFn) -> str:
    column, word, value = draw(COLUMNS.filter(lambda one: "*" not in one)), draw(WORDS), draw(values())
    return draw(
        st.sampled_from(
            [
                "",
                "",
                f" WHERE {column} = '{word}'",
                f" WHERE {column} <> '{word}'",
                f" WHERE {column} LIKE '%{word}%'",
                f" WHERE {column} IS NULL",
                f" WHERE {value} IS NOT NULL",
                f" WHERE CAST({column} AS VARCHAR) > '{word}'",
                f" WHERE {column} IN (SELECT {column} FROM Condition WHERE code <> '{word}')",
            ]
        )
    )


@st.composite
def statements(draw: st.DrawFn) -> str:
    table, other, column, value, where = draw(TABLES), draw(TABLES), draw(COLUMNS), draw(values()), draw(wheres())
    counts = draw(
        st.sampled_from(
            [
                "count(*)",
                "count(DISTINCT patient)",
                "count(DISTINCT subject_id)",
                "avg(value)",
                "sum(version)",
                f"min({value})",
                f"count({value})",
                "max(id)",
            ]
        )
    )
    group = value if column == "*" else draw(st.sampled_from([column, value]))
    return draw(
        st.sampled_from(
            [
                f"SELECT {column} FROM {table}{where}",
                f"SELECT {value} AS v FROM {table}{where}",
                f"SELECT {column} FROM {table}{where} ORDER BY {value} LIMIT 3",
                f"SELECT {counts} FROM {table}{where}",
                f"SELECT {group}, {counts} FROM {table}{where} GROUP BY 1",
                f"SELECT {group}, {counts} AS n FROM {table}{where} GROUP BY ALL ORDER BY n DESC",
                f"SELECT {counts} FROM {table}{where} HAVING count(*) > 1",
                f"SELECT {counts} FROM {table} a JOIN {other} b ON a.patient = b.patient{where}",
                f"SELECT a.code, {counts} FROM {table} a JOIN {other} b USING (subject_id){where} GROUP BY a.code",
                f"SELECT * FROM {table} UNION ALL SELECT * FROM {other}",
                f"WITH c AS (SELECT * FROM {table}{where}) SELECT {counts} FROM c",
                f"SELECT row_number() OVER (ORDER BY {value}) AS n, {column} FROM {table}{where}",
                f"DESCRIBE {table}",
                f"SUMMARIZE {table}",
                f"SELECT stats({column}) FROM {table}",
                f"FROM query('SELECT * FROM {table}')",
                f"SELECT * FROM {table}{where} LIMIT 2 OFFSET 1",
                f"PIVOT {table} ON gender USING {counts}",
                f"EXPLAIN ANALYZE SELECT * FROM {table}",
            ]
        )
    )


@given(text=statements(), at=st.integers(0, 2))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_denied_cells_change_nothing(pair: tuple[str, list[Place]], text: str, at: int) -> None:
    _same(pair, text, at)


@pytest.mark.soak
@given(text=statements(), at=st.integers(0, 2))
@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_denied_cells_change_nothing_for_long(pair: tuple[str, list[Place]], text: str, at: int) -> None:
    _same(pair, text, at)


def _same(pair: tuple[str, list[Place]], text: str, at: int) -> None:
    kind, made = pair
    told = []
    for place in made:
        wanted = permits(place, kind)
        told.append(place.told(wanted[at % len(wanted)], text))
    assert told[0] == told[1]
    if not any(word in text for word in CANARIES):
        assert not any(word in told[0] for word in CANARIES)


def test_rows_and_views_are_the_same_too(pair: tuple[str, list[Place]]) -> None:
    kind, made = pair
    for at in range(len(permits(made[0], kind))):
        for name in ("Patient", "Condition", "Observation", "Encounter", "Organization"):
            for read in (query.current, query.versions):
                assert _table(made[0], kind, at, read, name) == _table(made[1], kind, at, read, name)
        views = [_views(place, permits(place, kind)[at]) for place in made]
        assert views[0] == views[1]


def _table(place: Place, kind: str, at: int, read: object, name: str) -> str:
    try:
        found = read(permits(place, kind)[at], place.vault, place.snapshot, name)  # type: ignore[operator]
    except CarelakeError as error:
        return error.code
    return "none" if found is None else f"{found.schema} {json.dumps(found.to_pylist(), default=str)}"


def _views(place: Place, permit: Permit) -> str:
    try:
        found = query.views(permit, place.vault, place.snapshot)
    except CarelakeError as error:
        return error.code
    return json.dumps({name: table.to_pylist() for name, table in found.items()}, default=str)


# -- counts --


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with seen_data.places(tmp_path_factory.mktemp("ward"), CANARIES[0]) as (made,):
        yield made


KEYS = ("gender", "birthDate", "deceasedBoolean", "active")
TESTS = (
    "gender = 'male'",
    "gender <> 'male'",
    "birthDate < '1950'",
    "birthDate >= '1960'",
    "birthDate IN ('1942', '1944')",
    "gender IS NULL",
    "NOT (gender = 'female')",
    "birthDate LIKE '19%'",
    "CAST(birthDate AS INTEGER) % 4 = 0",
    "CAST(gender AS INTEGER) = 1",
    "upper(gender) = 'MALE'",
    "birthDate BETWEEN '1940' AND '1950'",
)


@given(
    keys=st.lists(st.sampled_from(KEYS), max_size=3, unique=True),
    tests=st.lists(st.sampled_from(TESTS), max_size=3, unique=True),
    joining=st.sampled_from([" AND ", " OR "]),
)
@settings(max_examples=20, deadline=None)
def test_no_count_is_over_too_few(ward: Place, keys: list[str], tests: list[str], joining: str) -> None:
    where = f" WHERE {joining.join(tests)}" if tests else ""
    shown = ", ".join([*keys, "count(DISTINCT patient) AS n", "count(*) AS rows"])
    group = f" GROUP BY {', '.join(keys)}" if keys else ""
    permit = ward.permit("cells", "deidentified")
    found = ward.sql(permit, f"SELECT {shown} FROM Patient{where}{group}").to_pylist()
    assert all(one["n"] >= ward.vault.settings.lake.k for one in found)
    # The same question of the coarse rows, counted by hand.
    expected = _groups(ward, keys, where)
    assert {tuple(one[key] for key in keys): one["n"] for one in found} == {
        group: n for group, n in expected.items() if n >= ward.vault.settings.lake.k
    }


def _groups(ward: Place, keys: list[str], where: str) -> dict[tuple[object, ...], int]:
    rows = ward.sql(ward.permit("deidentified"), "SELECT id, gender, birthDate, deceasedBoolean FROM Patient")
    for name in ("gender", "birthDate"):
        counts = pc.value_counts(rows.column(name))
        common = [one["values"].as_py() for one in counts if one["counts"].as_py() >= ward.vault.settings.lake.k]
        kept = [one if one in common else None for one in rows.column(name).to_pylist()]
        rows = rows.set_column(rows.column_names.index(name), name, pa.array(kept, pa.string()))
    rows = rows.append_column("active", pa.nulls(len(rows), pa.bool_()))
    tested = where.replace(" WHERE ", " WHERE TRY(") + (")" if where else "")
    shown = ", ".join([*keys, "count(DISTINCT id)"])
    group = f" GROUP BY {', '.join(keys)}" if keys else ""
    return {tuple(one[:-1]): one[-1] for one in duckdb.sql(f"SELECT {shown} FROM rows{tested}{group}").fetchall()}
