"""Statements with lists in them, on PostgreSQL."""

from __future__ import annotations

import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table, bindparam, select

from carelake.core.settings import DatabaseSettings
from carelake.vault.sql.driver import WRITE
from carelake.vault.sql.postgres import Postgres

_THING = Table("thing", MetaData(), Column("kind", Integer, primary_key=True), Column("id", String, primary_key=True))
_LISTED = select(_THING.c.id).where(
    _THING.c.kind == bindparam("k"), _THING.c.id.in_(bindparam("ids", expanding=True))
)
_PREPARED = "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%thing%'"


@pytest.mark.parametrize(("many", "prepared"), [(500, 0), (1, 1)])
def test_a_list_is_planned_for_itself(postgres: DatabaseSettings, many: int, prepared: int) -> None:
    """The plan that is kept for any list would be the one for the table as it was: empty, and read whole."""
    engine = Postgres(postgres).engine()
    with engine.connect().execution_options(**{WRITE: True}) as connection:
        connection.exec_driver_sql("BEGIN")
        _THING.create(connection)
        for number in range(20):
            asked = {"k": 1, "ids": [f"{number}-{one}" for one in range(many)]}
            assert connection.execute(_LISTED, asked).all() == []
            assert connection.execute(_LISTED.execution_options(stream_results=True), asked).all() == []
        assert connection.exec_driver_sql(_PREPARED.replace("%", "%%")).scalar() == prepared
    engine.dispose()
