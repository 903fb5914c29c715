"""PostgreSQL (14 or later) by psycopg 3, for workspaces that several machines or many processes use.

Write transactions take one advisory lock of their schema before they read anything, so that writers are served one
after another and numbers given out are seen in their order (decision 0021); snapshots wait for nobody. Texts are
compared by code point (``COLLATE "C"``) as SQLite does. Rows are plaintext to the server: see ``encrypted_volume``.

The password never reaches SQLAlchemy: its engine has an address without user, host or secret.
"""

from __future__ import annotations

import re
import select
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import sqlalchemy
from sqlalchemy.dialects.postgresql.base import PGDDLCompiler
from sqlalchemy.pool import QueuePool

from carelake.core.errors import CarelakeError, Corrupt, Invalid, Unavailable
from carelake.core.settings import DatabaseSettings
from carelake.vault.sql.driver import FIRST, READ_ONLY, WRITE, Asked, too_long

if TYPE_CHECKING:
    import psycopg

__all__ = ["OLDEST", "Postgres", "has_password", "without_password"]

OLDEST = 140000
"""The oldest server version that is taken, as ``server_version_num`` has it."""

_BUSY_SECONDS = 30.0
_LOCK_CLASS = 1_667_330_156
"""First half of the advisory lock's number ("carl"); the second is a hash of the schema's name."""

_SESSION = (
    "SET lock_timeout = {milliseconds}; SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; "
    "SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3; "
    "SET default_transaction_isolation = 'read committed'; SET default_transaction_read_only = off; "
    "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
)
_BEGIN = {
    True: "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; "
    f"SELECT pg_advisory_xact_lock({_LOCK_CLASS}, hashtext(current_schema()))",
    False: "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
    None: "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE",
}
_LISTED = 50
"""So many parameters only a list has."""
_URL = re.compile(r"(\w+://)(?:([^@/]*)@)?(?:[^/?]*@)?([^?]*)(?:\?(.*))?", re.DOTALL)
_SECRETS = frozenset({"password", "sslpassword", "oauth_client_secret"})
_PLAIN_INSERT = re.compile(r'INSERT INTO (\w+) (\([\w", ]+\)) VALUES \((?:\?, )*\?\)')


class Postgres:
    """A database of a PostgreSQL server."""

    dialect = "postgresql"
    readers_apart = False
    ends_with = True

    def __init__(self, settings: DatabaseSettings, *, busy_seconds: float = _BUSY_SECONDS) -> None:
        """Take the database that ``settings.url`` names; nothing is connected yet.

        Raises:
            Unavailable: ``vault.postgres_extra``, ``vault.password_file``.
            Invalid: ``vault.database_url``.
        """
        try:
            import psycopg
        except ImportError:
            raise Unavailable(
                "vault.postgres_extra",
                "PostgreSQL needs the extra `postgres`: install carelake[postgres], or take [database] url out.",
            ) from None
        self._psycopg = psycopg
        self._session = _SESSION.format(milliseconds=round(busy_seconds * 1000))
        self._address = _address(psycopg, settings)

    def engine(self) -> sqlalchemy.Engine:
        engine = sqlalchemy.create_engine(
            "postgresql+psycopg://",
            creator=self._connect,
            poolclass=QueuePool,
            pool_size=16,
            max_overflow=-1,
            pool_use_lifo=True,
            hide_parameters=True,
        )
        engine.dialect.ddl_compiler = _ByCodePoint
        engine.dialect.do_execute = _planned  # type: ignore[method-assign]
        sqlalchemy.event.listen(engine, "checkout", _still_there)
        return engine

    def _connect(self) -> Any:
        try:
            connection = self._psycopg.connect(**self._address, autocommit=True)
            if connection.info.server_version < OLDEST:
                connection.close()
                raise Unavailable(
                    "vault.database_version", f"PostgreSQL is older than version {OLDEST // 10000}; use a newer one."
                )
            connection.execute(self._session)
        except self._psycopg.Error as error:
            raise self._connecting(error) from None
        return connection

    @staticmethod
    def _connecting(error: psycopg.Error) -> CarelakeError:
        # libpq gives no SQLSTATE for a refused login; its text names user, host and database, so it is not shown.
        text = str(error)
        if (error.sqlstate or "")[:2] in ("28", "3D") or re.search(r"password|authentication|does not exist", text):
            return Unavailable(
                "vault.database_login",
                "PostgreSQL refused the login: user, password or database. See [database] url and password_file.",
            )
        return _gone()

    def turn(self) -> AbstractContextManager[None]:
        return nullcontext()  # its lock serves writers in the order of their coming

    def begin(self, connection: sqlalchemy.Connection) -> None:
        write = connection.get_execution_options().get(WRITE)
        connection.info[READ_ONLY] = write is False
        first = connection.info.get(FIRST, ())
        with self._told(connection) as driver:
            # In one message: each answer that is waited for costs more than the server's work for it.
            cursor = driver.execute("; ".join((_BEGIN[write], *first)))
            found = []
            while True:
                if cursor.description is not None:
                    found.append(cursor.fetchall())
                if not cursor.nextset():
                    break
        connection.info[FIRST] = Asked(found[len(found) - len(first) :])

    def translate(self, error: BaseException, *, reads_only: bool) -> BaseException | None:
        if not isinstance(error, self._psycopg.Error):
            return None
        # Its text can hold values of the row, and would be shown as the cause of what is raised instead.
        text = f"PostgreSQL refused a statement: {type(error).__name__} {error.sqlstate or ''}".strip()
        error.args = (text,)
        return _translated(error.sqlstate, reads_only=reads_only) or self._silent(error)

    def _silent(self, error: psycopg.Error) -> BaseException | None:
        """The error as SQLAlchemy has it, made anew: the one that it made before holds the text as it was."""
        if isinstance(error, self._psycopg.OperationalError) and error.sqlstate is None:
            return _gone()
        integrity = isinstance(error, self._psycopg.IntegrityError)
        shown: type[sqlalchemy.exc.DBAPIError] = (
            sqlalchemy.exc.IntegrityError if integrity else sqlalchemy.exc.ProgrammingError
        )
        return shown(None, None, error, hide_parameters=True)

    def many(self, connection: sqlalchemy.Connection, sql: str, rows: Sequence[tuple[Any, ...]]) -> None:
        copy = _copy_of(sql)
        if copy is None or len(rows) < 4:
            connection.exec_driver_sql(_percent(sql), list(rows))
            return
        with self._told(connection) as driver, driver.cursor() as cursor, cursor.copy(copy) as out:
            for row in rows:
                out.write_row(row)

    @contextmanager
    def bounded(self, connection: sqlalchemy.Connection, seconds: float) -> Iterator[None]:
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = {max(1, round(seconds * 1000))}")
        yield
        # After an error the transaction is undone, and with it what was set.
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")

    def rows(
        self, connection: sqlalchemy.Connection, sql: str, parameters: Sequence[Any]
    ) -> Sequence[tuple[Any, ...]]:
        with self._told(connection) as driver:
            found: list[tuple[Any, ...]] = driver.execute(_percent(sql), parameters).fetchall()
        return found

    def alone(
        self, connection: sqlalchemy.Connection, sql: str, parameters: Sequence[Any], *, ends: bool = False
    ) -> Sequence[tuple[Any, ...]]:
        # The server says that it is ready, which is waited for, after it has committed.
        connection.info[READ_ONLY] = False
        if not ends:
            return self.rows(connection, sql, parameters)
        with self._told(connection) as driver:
            try:
                with driver.pipeline() if self._psycopg.Pipeline.is_supported() else nullcontext():
                    driver.execute("COMMIT", prepare=False)
                    cursor = driver.execute(_percent(sql), parameters)
                found: list[tuple[Any, ...]] = cursor.fetchall()
            except Exception as error:
                # A commit that failed leaves the two sides of a pipeline apart, and the driver in doubt.
                told, info = isinstance(error, self._psycopg.Error), driver.info
                if told and not (driver.closed or info.pipeline_status or info.transaction_status):
                    raise
                driver.close()
                raise self._psycopg.OperationalError(type(error).__name__) from None
        return found

    @contextmanager
    def _told(self, connection: sqlalchemy.Connection) -> Iterator[Any]:
        """The driver's own connection, past SQLAlchemy; its errors are told as ours."""
        driver: Any = connection.connection.driver_connection
        info = connection.info  # asked of a connection that was lost in a transaction, it would raise
        try:
            yield driver
        except self._psycopg.Error as error:
            if driver.closed:
                connection.invalidate()
            raise self.translate(error, reads_only=bool(info.get(READ_ONLY))) or error from None

    def damage(self, connection: sqlalchemy.Connection) -> str:
        failed = connection.exec_driver_sql(
            "SELECT coalesce(checksum_failures, 0) FROM pg_stat_database WHERE datname = current_database()"
        ).scalar()
        return f"PostgreSQL counts {failed} pages that failed their checksum. Restore a backup." if failed else ""

    def unreachable(self, error: CarelakeError) -> bool:
        return error.code == "vault.database_down"


def _still_there(connection: Any, record: Any, proxy: Any) -> None:
    """Let no connection out of the pool that the server ended while it lay there, as it does when it is restarted.

    What the server said then, or that it hung up, waits in the socket, where a connection at rest has nothing: so the
    server need not be asked. All that were connected before are made anew then.
    """
    if not connection.closed:
        waiting = select.poll()
        waiting.register(connection.fileno(), select.POLLIN)
        if not waiting.poll(0):
            return
    raise sqlalchemy.exc.InvalidatePoolError


def _planned(cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
    """Run a statement; one of a writer with a list in it is planned for that list each time.

    A prepared one gets a plan for any list, made when it was first asked: a table that was empty then is read whole
    each time, until the server counts it anew a minute later: two thirds of the time of an import of 100,000.
    """
    # A server's cursor, which has a name, is never prepared.
    if parameters and len(parameters) > _LISTED and not hasattr(cursor, "name") and _writes(context):
        cursor.execute(statement, parameters, prepare=False)
    else:
        cursor.execute(statement, parameters)


def _writes(context: Any) -> bool:
    return context is not None and bool(context.root_connection.get_execution_options().get(WRITE))


class _ByCodePoint(PGDDLCompiler):
    """Columns of text are compared by code point, whatever the database's own collation is."""

    def get_column_specification(self, column: sqlalchemy.Column[Any], **kwargs: Any) -> str:
        said: str = super().get_column_specification(column, **kwargs)  # type: ignore[no-untyped-call]
        if isinstance(column.type, sqlalchemy.String) and not column.type.collation:
            kind = self.dialect.type_compiler_instance.process(column.type)
            said = said.replace(f" {kind}", f' {kind} COLLATE "C"', 1)
        return said


def has_password(url: str) -> bool:
    """Whether a password stands in the address."""
    return without_password(url) != url


def without_password(url: str) -> str:
    """The address as it may be kept; a password has its own file, or comes with the environment each time.

    Cut as libpq cuts it (``conninfo_uri_parse_options``), which is not as RFC 3986 says: up to the first ``@`` a
    password may hold ``?`` and ``#``, and names of parameters may be percent-encoded.
    """
    found = _URL.fullmatch(url)
    if found is None:
        return url
    scheme, user, place, query = found.groups()
    name = f"{user.partition(':')[0]}@" if user is not None else ""
    if query is None:
        return f"{scheme}{name}{place}"
    asked = [part for part in query.split("&") if unquote(part.partition("=")[0]).strip() not in _SECRETS]
    return f"{scheme}{name}{place}" + ("?" + "&".join(asked) if asked else "")


def _address(psycopg: Any, settings: DatabaseSettings) -> Mapping[str, Any]:
    if not settings.url.startswith(("postgresql://", "postgres://")):
        raise _bad_url()
    try:
        said = psycopg.conninfo.conninfo_to_dict(settings.url)
    except psycopg.Error:
        # Its text repeats the address, and with it the password.
        raise _bad_url() from None
    if settings.password_file:
        try:
            said["password"] = Path(settings.password_file).expanduser().read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            raise Unavailable(
                "vault.password_file", "The file that [database] password_file names cannot be read."
            ) from None
    plain = {"connect_timeout": "10", "application_name": "carelake"}
    return {**plain, **said, "client_encoding": "UTF8"}


def _bad_url() -> Invalid:
    return Invalid(
        "vault.database_url", "[database] url cannot be read; expected postgresql://USER@HOST:PORT/DATABASE."
    )


@lru_cache(maxsize=256)
def _percent(sql: str) -> str:
    return sql.replace("%", "%%").replace("?", "%s")


@lru_cache(maxsize=256)
def _copy_of(sql: str) -> str | None:
    """The COPY that does what a plain INSERT of given columns does; None for any other statement."""
    found = _PLAIN_INSERT.fullmatch(sql)
    return f"COPY {found[1]} {found[2]} FROM STDIN" if found else None


def _gone() -> Unavailable:
    return Unavailable(
        "vault.database_down",
        "PostgreSQL cannot be reached, or ended the connection. A write that was not answered is there whole or not "
        "at all; look, and run the command again.",
    )


def _translated(state: str | None, *, reads_only: bool) -> CarelakeError | None:
    state = state or ""
    if state in ("55P03", "40P01", "40001"):
        return Unavailable(
            "vault.busy", "The database was held by another writer for 30 s; try again when it is done."
        )
    if state == "57014":
        return too_long()
    if state == "53100":
        return Unavailable("vault.disk_full", "The disk of PostgreSQL is full; nothing was kept. Free space.")
    if state == "58030":
        return Unavailable("vault.disk", "The disk of PostgreSQL failed a read or a write; look after the disk.")
    if state[:2] == "XX" and state != "XX000":
        return Corrupt("vault.database", "PostgreSQL found damaged pages or indexes. Restore a backup.")
    if state == "25006" and reads_only:
        return Invalid("vault.read_only", "A write was tried in a reading; use Database.transaction.")
    if state[:2] == "08" or state[:3] == "57P" or state == "25006" or state == "53300":
        return _gone()
    if state in ("42501", "28000", "28P01", "3D000"):
        return Unavailable(
            "vault.database_login",
            "PostgreSQL does not let this user do what is needed; it must own the tables of the workspace.",
        )
    return None
