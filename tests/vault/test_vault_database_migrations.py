"""Migrations: from the first release they give exactly the schema that a new workspace has, on both databases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import inspect, select, text

from carelake.apps.wiring import import_tables
from carelake.core import canonical
from carelake.core.clock import FixedClock
from carelake.core.errors import Conflict, Corrupt, Unsupported
from carelake.serving import rollout
from carelake.vault.database import Database, metadata, schema_version
from carelake.vault.formats import FORMAT, SCHEMA, check_format
from carelake.vault.sql.driver import Driver
from carelake.vault.sql.postgres import Postgres
from carelake.vault.sql.sqlcipher import Sqlcipher
from carelake.vault.upgrading import migrate, pending, run_migrations

Make = Callable[[], Database]


@pytest.fixture(params=["sqlcipher", "postgres"])
def make(request: pytest.FixtureRequest, tmp_path: Path, clock: FixedClock) -> Iterator[Make]:
    """Makes empty databases of one kind."""
    import_tables()
    made: list[Database] = []

    def sqlcipher() -> Driver:
        path = tmp_path / f"{len(made)}.db"
        Sqlcipher.make(path)
        return Sqlcipher(path, b"k" * 32)

    def postgres() -> Driver:
        settings = request.getfixturevalue("postgres")
        engine = Postgres(settings).engine()
        with engine.connect() as connection:
            connection.exec_driver_sql(f"CREATE SCHEMA s{len(made)}")
        engine.dispose()
        url = f"{settings.url}?options=-csearch_path%3Ds{len(made)}"
        return Postgres(type(settings)(url=url, password_file=settings.password_file))

    def new() -> Database:
        made.append(Database(sqlcipher() if request.param == "sqlcipher" else postgres(), clock))
        return made[-1]

    yield new
    for each in made:
        each.close()


def schema(connection: sqlalchemy.Connection) -> dict[str, Any]:
    """Everything of a schema that the database itself tells, names of keys aside."""
    seen = inspect(connection)

    def plain(column: Any) -> tuple[Any, ...]:
        kind = repr(column["type"])
        return column["name"], kind, column["nullable"], column["default"], bool(column.get("autoincrement"))

    found: dict[str, Any] = {}
    for name in sorted(seen.get_table_names()):
        indexes = sorted(
            (i["name"] or "", tuple(i.get("expressions") or i["column_names"]), bool(i["unique"]), _where(i))
            for i in seen.get_indexes(name)
        )
        found[name] = {
            "columns": sorted(plain(column) for column in seen.get_columns(name)),
            "key": seen.get_pk_constraint(name)["constrained_columns"],
            "indexes": indexes,
            "unique": sorted(tuple(u["column_names"]) for u in seen.get_unique_constraints(name)),
            "comment": seen.get_table_comment(name)["text"] if connection.dialect.supports_comments else None,
            "rowid": "WITHOUT ROWID" in _sql(connection, name) if connection.dialect.name == "sqlite" else None,
        }
    return found


def _where(index: Any) -> str:
    said = index.get("dialect_options", {})
    return str(said.get("sqlite_where", said.get("postgresql_where", "")))


def _sql(connection: sqlalchemy.Connection, table: str) -> str:
    found = connection.execute(text("SELECT sql FROM sqlite_master WHERE name = :name"), {"name": table}).scalar_one()
    return str(found)


@pytest.mark.filterwarnings("ignore:Skipped unsupported reflection")
def test_migrations_give_the_schema_of_a_new_workspace(make: Make) -> None:
    """Fails when a room's tables change without a migration: `python tools/write_migration.py`, and raise SCHEMA."""
    fresh, upgraded = make(), make()
    fresh.create("w1")
    with upgraded._scope(writing=True, epoch=False) as scope:
        run_migrations(scope.connection)
        migrate(scope.connection, "w1")
    with fresh.snapshot() as one, upgraded.snapshot() as two:
        wanted, found = schema(one), schema(two)
        assert set(found) == set(wanted) == {*metadata.tables}
        for name in wanted:
            assert found[name] == wanted[name], name
        assert fresh.told() == upgraded.told()


def test_a_database_of_the_first_release_is_adopted_and_brought_up_once(make: Make) -> None:
    old = make()
    with old._scope(writing=True, epoch=False) as scope:
        run_migrations(scope.connection, "0001")
        schema_version.drop(scope.connection)
        scope.connection.exec_driver_sql("INSERT INTO vault_epoch (id, epoch) VALUES (1, 0)")
    assert old.told() == ("", 1, "", "")
    with pytest.raises(Conflict) as caught:
        old.check_workspace("w1")
    assert caught.value.code == "vault.upgrade_needed"
    with old._scope(writing=True) as scope:
        assert [number for number, _ in pending(scope.connection)] == ["0002", "0003", "0004", "0005", "0006", "0007"]
        assert migrate(scope.connection, "w1") == ("0002", "0003", "0004", "0005", "0006", "0007")
        assert pending(scope.connection) == ()
    with old._scope(writing=True) as scope:
        assert migrate(scope.connection, "w1") == ()
        assert scope.connection.scalars(select(schema_version.c.version_num)).all() == [SCHEMA]
    old.check_workspace("w1")
    with pytest.raises(Corrupt):
        old.check_workspace("w2")


def test_acts_that_were_there_are_sorted_by_patient(make: Make) -> None:
    old = make()
    rows = [(seq, bytes([(seq * 7 + number) % 5]) * 32) for seq in range(1, 9) for number in range(seq % 3)]
    with old._scope(writing=True, epoch=False) as scope:
        tx = scope.connection
        run_migrations(tx, "0004")
        names = ("correlation", "phase", "at", "principal", "account", "purpose", "action", "target", "facts")
        said = dict.fromkeys(names, "x")
        into = text(f"INSERT INTO act (seq, {', '.join(names)}) VALUES (:seq, :{', :'.join(names)})")
        tx.execute(into, [{"seq": seq, **said} for seq in range(1, 9)])
        people = [{"seq": seq, "patient": patient} for seq, patient in rows]
        tx.execute(text("INSERT INTO act_patient (seq, patient) VALUES (:seq, :patient)"), people)
        assert migrate(tx, "w1")[0] == "0005"
        assert tx.execute(text("SELECT number, first, last FROM patient_run")).all() == [(1, 1, 8)]
        kept = tx.execute(text("SELECT run, patient, seq FROM patient_act ORDER BY patient, seq")).all()
        assert [tuple(one) for one in kept] == sorted((1, patient, seq) for seq, patient in rows)


def test_endpoints_that_were_in_service_go_on(make: Make, clock: FixedClock) -> None:
    old = make()
    names = ("ref", "kind", "account", "state", "act", "at", "number", "body")
    nouns = [
        ("endpoint:" + "0" * 64, "endpoint", "production", "OutOfService", "a", "2026-01-01T00:00:00.000Z", 1, "m0"),
        ("endpoint:" + "1" * 64, "endpoint", "production", "InService", "a", "2026-01-02T00:00:00.000Z", 2, "m1"),
        ("endpoint:" + "2" * 64, "endpoint", "research", "InService", "b", "2026-01-03T00:00:00.000Z", 3, "m2"),
    ]
    with old._scope(writing=True, epoch=False) as scope:
        tx = scope.connection
        run_migrations(tx, "0005")
        into = text(f"INSERT INTO noun ({', '.join(names)}) VALUES (:{', :'.join(names)})")
        for *told, model in nouns:
            body = canonical.dump({"name": "readmission", "model": model, "model_name": "m", "model_version": 1})
            tx.execute(into, dict(zip(names, (*told, body), strict=True)))
        assert migrate(tx, "w1") == ("0006", "0007")
        for ref, account, model in ((nouns[1][0], "production", "m1"), (nouns[2][0], "research", "m2")):
            found = rollout.routing(tx, account, "readmission", clock.now())
            assert found is not None
            assert [(one.endpoint, one.model, share) for one, share in found.shares()] == [(ref, model, 1.0)]
            assert not found.newest.under_way


def test_an_upgrade_that_fails_changes_nothing(make: Make) -> None:
    old = make()
    with old._scope(writing=True, epoch=False) as scope:
        run_migrations(scope.connection, "0001")
        scope.connection.exec_driver_sql("INSERT INTO vault_epoch (id, epoch) VALUES (1, 0)")
    with old.snapshot() as connection:
        before = set(inspect(connection).get_table_names())

    def fail() -> None:
        with old._scope(writing=True) as scope:
            migrate(scope.connection, "w1")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with old.snapshot() as connection:
        assert set(inspect(connection).get_table_names()) == before
        assert [number for number, _ in pending(connection)] == ["0002", "0003", "0004", "0005", "0006", "0007"]


def test_a_later_migration_is_not_opened(make: Make) -> None:
    later = make()
    later.create("w1")
    with later.ledger() as connection:
        connection.exec_driver_sql("UPDATE schema_version SET version_num = '9999'")
        connection.exec_driver_sql("UPDATE vault_workspace SET version = '9.9.9'")
    with pytest.raises(Unsupported, match=r"9\.9\.9"):
        later.check_workspace("w1")
    with pytest.raises(Unsupported, match=r"9\.9\.9"):
        later.check_workspace("w1", upgrading=True)


def test_formats_say_what_to_do() -> None:
    check_format(FORMAT)
    with pytest.raises(Conflict, match="carelake upgrade"):
        check_format(FORMAT - 1)
    with pytest.raises(Unsupported, match=r"Install carelake 7\.0\.0 or later"):
        check_format(FORMAT + 1, "7.0.0")
    with pytest.raises(Unsupported):
        check_format(0)
