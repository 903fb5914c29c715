"""The offline store's log: rows that were written with the online store, and are in no Iceberg file yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from sqlalchemy import Connection

from carelake.core.permit import Permit
from carelake.features.groups.online import packed, unpacked
from carelake.features.groups.values import Values
from carelake.vault.database import bulk, rows_of
from carelake.vault.sealing import PageKeys
from carelake.vault.workspace import Vault

__all__ = ["Logged", "Stored", "append", "drop", "log_context", "numbers", "take", "teller"]

_APPEND = (
    "INSERT INTO feature_log (grp, seq, account, owner, called, written, deleted, sealed, record) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_TAKE = (
    "SELECT seq, owner, called, written, deleted, sealed FROM feature_log WHERE grp = ? AND seq > ? "
    "ORDER BY seq LIMIT ?"
)


class Logged(NamedTuple):
    """One row; times in microseconds since 1970 UTC.

    Attributes:
        record: what `teller` says of its identifier.
        values: of a marker of a deletion the record identifier and the event time alone.
    """

    owner: str
    called: int
    written: int
    deleted: bool
    record: bytes
    values: Values


class Stored(NamedTuple):
    """A row as it lies in the log."""

    seq: int
    owner: str
    called: int
    written: int
    deleted: bool
    sealed: bytes

    def open(self, keys: PageKeys, group: str) -> Values:
        """The values; `Gone` where their patient was erased."""
        return unpacked(keys.open(self.owner, log_context(group, self.seq), self.sealed))


def log_context(group: str, seq: int) -> bytes:
    """What binds a sealed row to its place."""
    return f"feature-log\x1f{group}\x1f{seq}".encode()


def numbers(tx: Connection, group: str, count: int) -> int:
    """Take so many numbers of the group's offline rows; the first of them."""
    bulk(tx, "UPDATE feature_group SET seq = seq + ? WHERE id = ?", [(count, group)])
    return int(rows_of(tx, "SELECT seq FROM feature_group WHERE id = ?", group)[0][0]) - count + 1


def append(tx: Connection, keys: PageKeys, account: str, group: str, rows: Sequence[Logged]) -> None:
    """Write rows at the end of a group's log."""
    first = numbers(tx, group, len(rows))
    bulk(
        tx,
        _APPEND,
        [
            (
                group,
                first + at,
                account,
                row.owner,
                row.called,
                row.written,
                row.deleted,
                keys.seal(row.owner, log_context(group, first + at), packed(row.values)),
                row.record,
            )
            for at, row in enumerate(rows)
        ],
    )


def take(tx: Connection, group: str, after: int = 0, limit: int = 50_000) -> list[Stored]:
    """Rows beyond a number, in order."""
    return [Stored(*row) for row in rows_of(tx, _TAKE, group, after, limit)]


def drop(tx: Connection, group: str, first: int, last: int, kept: Sequence[int] = ()) -> None:
    """Remove rows that are in a file now.

    Args:
        kept: numbers between them of rows that stay, ascending.
    """
    edges = zip([first, *(one + 1 for one in kept)], [*(one - 1 for one in kept), last], strict=True)
    gaps = [(group, begin, end) for begin, end in edges if begin <= end]
    bulk(tx, "DELETE FROM feature_log WHERE grp = ? AND seq >= ? AND seq <= ?", gaps)


def teller(permit: Permit, vault: Vault, group: str) -> Callable[[str], bytes]:
    """Gives the HMAC of a record identifier of a group: it tells rows of one record without saying which one."""
    mac = vault.keyring.referrer(permit, "feature-record")
    return lambda record: mac(f"{group}\x1f{record}".encode())
