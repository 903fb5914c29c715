"""Write the next migration: what the tables of the rooms have, and the newest migration before it does not give.

    python tools/write_migration.py 0003 "What it does" [--out FILE]

The difference is found on SQLite (columns, tables, indexes; not keys and not data). Read what it wrote: a new column
of an old table needs a server default or must be nullable, and data that must move is yours to write, in a function
`by_hand` at the end of the file: what stands from there on stays when the file is written again, and is called last.
A migration is never edited once it is released.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import sqlalchemy
from alembic.autogenerate import produce_migrations, render_python_code
from alembic.runtime.migration import MigrationContext

from carelake.apps.wiring import import_tables
from carelake.vault.database import metadata
from carelake.vault.upgrading import FOLDER, run_migrations

HEAD = '''"""{title}."""

# ruff: noqa: E501

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "{number}"
down_revision = "{before}"


def upgrade() -> None:
    """Change the schema."""
    {body}
'''


BY_HAND = "\n\ndef by_hand() -> None:"


def difference(before: str) -> str:
    """Operations that turn the schema after the migration ``before`` into that of the rooms, as code."""
    import_tables()
    warnings.filterwarnings("ignore", "autogenerate skipping metadata-specified expression-based index")
    engine = sqlalchemy.create_engine("sqlite://")
    with engine.begin() as connection:
        run_migrations(connection, before)
        options = {"compare_server_default": _another, "include_object": _wanted, "version_table": "schema_version"}
        context = MigrationContext.configure(connection, opts={**options, "target_metadata": metadata})
        operations = produce_migrations(context, metadata).upgrade_ops
        assert operations is not None
        body = render_python_code(operations, render_as_batch=False, migration_context=context)
    body = re.sub(r"(sa\.Boolean\(\), server_default=)sa\.text\(.0.\)", r"\1sa.false()", body)
    body = re.sub(r"(sa\.Boolean\(\), server_default=)sa\.text\(.1.\)", r"\1sa.true()", body)
    return "\n".join(line for line in body.splitlines() if not line.strip().startswith("#")).strip()


def _another(_context: Any, _found: Any, _column: Any, found: str | None, _default: Any, wanted: str | None) -> bool:
    """Whether a default differs: SQLite tells a text in quotes or brackets."""
    return (found or "").strip("'()") != (wanted or "").strip("'")


def _wanted(thing: Any, name: str | None, kind: str, reflected: bool, other: Any) -> bool:
    return name != "schema_version" and getattr(thing, "_ddl_if", None) is None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("number")
    parser.add_argument("title")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    before = f"{int(asked.number) - 1:04d}"
    text = HEAD.format(title=asked.title, number=asked.number, before=before, body=difference(before))
    known = next(iter(sorted(FOLDER.glob(f"r{asked.number}_*.py"))), None)
    out = asked.out or known or FOLDER / f"r{asked.number}_{asked.title.split()[0].lower()}.py"
    _, mark, rest = (out.read_text(encoding="utf-8") if out.exists() else "").partition(BY_HAND)
    if mark:
        text += "    by_hand()\n" + mark + rest
    out.write_text(text, encoding="utf-8")
    for done in (["format"], ["check", "--fix", "--select", "RUF100"]):
        subprocess.run([sys.executable, "-m", "ruff", *done, "--quiet", str(out)], check=True)


if __name__ == "__main__":
    main()
