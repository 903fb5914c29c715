"""The number of the on-disk format: who may open what, and what to do when they may not.

The number stands in ``carelake.toml`` and in the database, with the version of carelake that wrote it. It grows when
an older carelake must not open a workspace any more; what only adds to the schema is a migration within a format.
"""

from __future__ import annotations

from carelake import __version__
from carelake.core.errors import Conflict, Unsupported
from carelake.core.settings import FORMAT

__all__ = ["FORMAT", "OLDEST", "SCHEMA", "check_format", "check_not_newer", "check_schema"]

SCHEMA = "0007"
"""The newest migration of `carelake.vault.migrations`."""

OLDEST = 1
"""The oldest format that `carelake upgrade` brings up."""


def check_format(found: int, written_by: str = "") -> None:
    """Let pass the one format that this version works with.

    Raises:
        Conflict: ``vault.upgrade_needed``, it is older.
        Unsupported: ``vault.format``, it is newer, or was never one.
    """
    check_not_newer(found, written_by)
    if found < FORMAT:
        raise Conflict(
            "vault.upgrade_needed",
            f"The workspace has format {found}, this carelake works with {FORMAT}: back it up, stop what uses it, "
            "and run `carelake upgrade`.",
        )


def check_not_newer(found: int, written_by: str = "") -> None:
    """As `check_format`, but older ones pass too."""
    if found > FORMAT:
        needed = f"carelake {written_by} or later" if written_by else "a later carelake"
        raise Unsupported(
            "vault.format",
            f"The workspace has format {found}; this is carelake {__version__}, which knows formats up to {FORMAT}. "
            f"Install {needed}.",
        )
    if found < OLDEST:
        raise Unsupported("vault.format", f"There is no format {found}; restore carelake.toml from a backup.")


def check_schema(found: str, written_by: str = "") -> None:
    """As `check_format`, for the database's newest migration."""
    if found > SCHEMA:
        needed = f"carelake {written_by} or later" if written_by else "a later carelake"
        raise Unsupported("vault.format", f"The database has migration {found}, which this carelake does not know. "
                          f"Install {needed}.")  # fmt: skip
    if found < SCHEMA:
        raise Conflict(
            "vault.upgrade_needed",
            f"The database has migration {found or '(none)'} of {SCHEMA}: back the workspace up, stop what uses it, "
            "and run `carelake upgrade`.",
        )
