"""What `carelake doctor` asks the database about itself. No row of the workspace is read."""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy

from carelake.core.errors import CarelakeError
from carelake.core.settings import DatabaseSettings, Settings
from carelake.vault.checkup import Check
from carelake.vault.database import Database, metadata
from carelake.vault.formats import FORMAT, SCHEMA
from carelake.vault.sql.postgres import has_password

__all__ = ["database"]

_UPGRADE = "back up, stop what uses the workspace, and run `carelake upgrade`"
_ASKED = (
    "data_checksums",
    "fsync",
    "full_page_writes",
    "log_error_verbosity",
    "log_min_duration_statement",
    "log_parameter_max_length",
    "log_parameter_max_length_on_error",
    "log_statement",
    "server_version",
)


def database(db: Database, settings: Settings) -> Iterator[Check]:
    """Format, migrations, pages, and what is particular to each kind of database."""
    told = db.told()
    if told.format == FORMAT and told.schema == SCHEMA:
        yield _schema(db)
    else:
        found = f"format {told.format} of {FORMAT}, migration {told.schema or '(none)'} of {SCHEMA}"
        yield Check("schema", "fail", found, _UPGRADE)
    if told.workspace not in ("", settings.workspace):
        yield Check("database", "fail", "it is another workspace's", "look at [database] url, or restore a backup")
    yield _pages(db)
    with db.snapshot() as connection:
        if db.dialect == "postgresql":
            yield from _postgres(connection, settings.database)
        else:
            version = connection.exec_driver_sql("PRAGMA cipher_version").scalar()
            yield Check("encryption", "ok", f"SQLCipher {version}: every page is encrypted")


def _schema(db: Database) -> Check:
    """Whether the tables are those that the migrations should have given."""
    with db.snapshot() as connection:
        seen = sqlalchemy.inspect(connection)
        there = {name: {c["name"] for c in seen.get_columns(name)} for name in seen.get_table_names()}
    missing = [
        f"{name}.{column.name}"
        for name, table in sorted(metadata.tables.items())
        for column in table.columns
        if column.name not in there.get(name, ())
    ]
    if missing:
        shown = ", ".join(missing[:3])
        return Check("schema", "fail", f"{len(missing)} columns are missing: {shown}", "restore a backup")
    return Check("schema", "ok", f"format {FORMAT}, migration {SCHEMA}")


def _pages(db: Database) -> Check:
    try:
        damage = db.damaged()
    except CarelakeError as error:
        damage = error.message
    if damage:
        return Check("integrity", "fail", damage, "restore a backup")
    return Check("integrity", "ok", "no page fails its check")


def _postgres(connection: sqlalchemy.Connection, settings: DatabaseSettings) -> Iterator[Check]:
    names = ", ".join(f"'{name}'" for name in _ASKED)
    rows = connection.exec_driver_sql(f"SELECT name, setting FROM pg_settings WHERE name IN ({names})")
    said = {row.name: row.setting for row in rows}
    yield Check("postgresql", "ok", f"version {said['server_version']}")
    if settings.encrypted_volume:
        yield Check("encryption", "ok", "the settings attest that the disk of PostgreSQL is encrypted")
    else:
        yield Check(
            "encryption",
            "warn",
            "index rows, file names and object names are plaintext to PostgreSQL (decision D4)",
            "put its data on an encrypted volume, then set [database] encrypted_volume = true",
        )
    if has_password(settings.url):
        yield Check("password", "warn", "it stands in [database] url", "put it into a file, [database] password_file")
    yield _transport(connection)
    off = [name for name in ("fsync", "full_page_writes") if said[name] == "off"]
    if off:
        yield Check("durability", "fail", f"{', '.join(off)} off: a power cut loses what was answered", "turn it on")
    elif said["data_checksums"] == "off":
        yield Check("durability", "warn", "pages carry no checksums", "pg_checksums --enable, when it is stopped")
    else:
        yield Check("durability", "ok", "writes are flushed, pages carry checksums")
    yield _logs(said)


def _transport(connection: sqlalchemy.Connection) -> Check:
    local, ssl = connection.exec_driver_sql(
        "SELECT coalesce(inet_server_addr() << '127.0.0.0/8' OR inet_server_addr() = '::1', true), "
        "coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false)"
    ).one()
    if ssl or local:
        return Check("transport", "ok", "TLS" if ssl else "on this machine")
    return Check(
        "transport", "fail", "rows cross the network in the clear", "add sslmode=verify-full to [database] url"
    )


def _logs(said: dict[str, str]) -> Check:
    """Whether the server's log can come to hold values of rows."""
    whole = said["log_parameter_max_length"] != "0"
    leaks = []
    if said["log_statement"] in ("mod", "all") and whole:
        leaks.append("log_statement")
    if said["log_min_duration_statement"] != "-1" and whole:
        leaks.append("log_min_duration_statement")
    if said["log_parameter_max_length_on_error"] != "0":
        leaks.append("log_parameter_max_length_on_error")
    if said["log_error_verbosity"] != "terse":
        leaks.append("log_error_verbosity")
    if leaks:
        return Check(
            "server log",
            "warn",
            f"it can come to hold values of rows, by {', '.join(leaks)}",
            "log_parameter_max_length = 0, log_error_verbosity = terse",
        )
    return Check("server log", "ok", "it holds no values of rows")
