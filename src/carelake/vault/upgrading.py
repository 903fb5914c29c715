"""Bringing a workspace of an older format up to this one.

The order makes a kill at any point harmless. First ``carelake.toml`` gets the new number, atomically: from then on an
older carelake refuses the workspace, and this one asks for `carelake upgrade` until the database follows. The
database is changed in one transaction, with the act that tells of it. Each step looks whether it is done already.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import insert, inspect, select, update

from carelake import __version__
from carelake.core.errors import Conflict, Invalid
from carelake.core.permit import Permit
from carelake.vault.database import Database, schema_version, vault_workspace
from carelake.vault.disk import write_atomic
from carelake.vault.formats import FORMAT, SCHEMA
from carelake.vault.presence import Presence
from carelake.vault.workspace import Vault

__all__ = ["FOLDER", "Plan", "migrate", "pending", "plan", "run_migrations", "upgraded"]

FOLDER = Path(__file__).parent / "migrations"
_BASELINE = "0001"


@dataclass(frozen=True, slots=True)
class Plan:
    """What an upgrade would do, or did.

    Attributes:
        settings: the format in ``carelake.toml``.
        rows: the format in the database.
        migrations: number and title of those that the database lacks, in order.
    """

    settings: int
    rows: int
    migrations: tuple[tuple[str, str], ...]

    @property
    def nothing(self) -> bool:
        """Whether all is done."""
        return self.settings == self.rows == FORMAT and not self.migrations


def plan(vault: Vault) -> Plan:
    """What there is to do for a vault that was opened to be upgraded."""
    with vault.database.snapshot() as connection:
        return Plan(vault.settings.format, vault.database.told().format, pending(connection))


@contextmanager
def upgraded(vault: Vault, permit: Permit, config: Path) -> Iterator[sqlalchemy.Connection]:
    """The transaction in which the schema was brought up; what is written in it, and all of it, is there at the end.

    When the block fails, nothing is changed.

    Args:
        permit: with the grant ``rows:write``.
        config: ``carelake.toml``.

    Raises:
        Conflict: ``vault.in_use``, another process of this machine has the workspace open.
        Invalid: ``vault.format_line``.
    """
    with ExitStack() as stack:
        stack.enter_context(_alone(vault.root / "vault"))
        if vault.settings.format != FORMAT:
            stack.enter_context(_renumbered(config, vault.database))
        tx = stack.enter_context(vault.database.transaction(permit))
        if migrate(tx, vault.settings.copy_name):
            vault.objects.vouch_all(tx)
        yield tx


def pending(connection: sqlalchemy.Connection) -> tuple[tuple[str, str], ...]:
    """Number and title of the migrations that the database lacks, in order."""
    found = _revision(connection)
    wanted = [r for r in reversed(list(_scripts().walk_revisions("base", SCHEMA))) if r.revision > found]
    return tuple((r.revision, (r.doc or "").partition("\n")[0]) for r in wanted)


def migrate(connection: sqlalchemy.Connection, workspace: str) -> tuple[str, ...]:
    """Run the migrations that the database lacks, in the caller's write transaction; answers their numbers."""
    numbers = tuple(number for number, _ in pending(connection))
    if numbers:
        run_migrations(connection)
    said = {"workspace": workspace, "format": FORMAT, "version": __version__}
    if connection.execute(select(vault_workspace.c.id)).first() is None:
        connection.execute(insert(vault_workspace).values(id=1, **said))
    elif numbers:
        connection.execute(update(vault_workspace).values(said))
    return numbers


def run_migrations(connection: sqlalchemy.Connection, last: str = SCHEMA) -> None:
    """Run those that the database lacks, up to one, in the open transaction."""
    scripts = _scripts()
    options: dict[str, Any] = {
        "version_table": schema_version.name,
        "transactional_ddl": True,
        "transaction_per_migration": False,
    }
    if _revision(connection) == _BASELINE and not inspect(connection).has_table(schema_version.name):
        # A database of the first release has its tables, and nothing that says so.
        MigrationContext.configure(connection, opts=options).stamp(scripts, _BASELINE)
    environment = EnvironmentContext(Config(), scripts, fn=lambda rev, _context: scripts._upgrade_revs(last, rev))
    with environment:
        environment.configure(connection=connection, **options)
        environment.run_migrations()


def _revision(connection: sqlalchemy.Connection) -> str:
    """The newest migration of a database; "" for an empty one."""
    inspected = inspect(connection)
    if inspected.has_table(schema_version.name):
        return connection.scalar(select(schema_version.c.version_num)) or ""
    return _BASELINE if inspected.has_table("vault_epoch") else ""


def _scripts() -> ScriptDirectory:
    return ScriptDirectory(str(FOLDER), version_locations=[str(FOLDER)])


@contextmanager
def _renumbered(path: Path, database: Database) -> Iterator[None]:
    """This version's format number in the settings; everything else of the file stays as it is.

    The old number comes back if the database stayed as it was; where that is not known, the new one is harmless.
    """
    text = path.read_text(encoding="utf-8")
    start = found.start() if (found := re.search(r"^\s*\[", text, re.M)) else len(text)
    lines = [line for line in text[:start].splitlines(keepends=True) if not re.match(r"\s*version\s*=", line)]
    places = [i for i, line in enumerate(lines) if re.match(r"\s*format\s*=", line)]
    if len(places) != 1:
        raise Invalid(
            "vault.format_line", f"{path.name} has not exactly one line `format = ...`; put it right first."
        )
    lines[places[0]] = f'format = {FORMAT}\nversion = "{__version__}"\n'
    write_atomic(path, ("".join(lines) + text[start:]).encode())
    try:
        yield
    except BaseException:
        # Ctrl-C can come after the commit.
        if database.told().format != FORMAT:
            write_atomic(path, text.encode())
        raise


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    presence = Presence(folder)
    try:
        if not presence.alone():
            raise Conflict("vault.in_use", "Another process has the workspace open; stop it first.")
        yield
    finally:
        presence.leave(clean=True)
