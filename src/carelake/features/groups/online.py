"""The online store in SQL: the latest record of each identifier, sealed under its patient's key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec
from sqlalchemy import Connection

from carelake.features.groups.values import Values
from carelake.vault.database import bulk, rows_of
from carelake.vault.sealing import PageKeys

__all__ = ["Latest", "drop", "latest", "packed", "page", "put", "row_context", "sweep", "unpacked"]

_FIND = "SELECT record, owner, event, expires, deleted, sealed FROM feature_row WHERE grp = ? AND record"
_PUT = (
    "INSERT INTO feature_row (grp, record, account, owner, event, expires, deleted, sealed) VALUES "
    "(?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (grp, record) DO UPDATE SET owner = excluded.owner, "
    "event = excluded.event, expires = excluded.expires, deleted = excluded.deleted, sealed = excluded.sealed"
)
_PAGE = (
    "SELECT record, owner FROM feature_row WHERE grp = ? AND record > ? AND (expires IS NULL OR expires > ?) "
    "AND (deleted = ? OR deleted = ?) ORDER BY record LIMIT ?"
)
_AT_ONCE = 400
_decode = msgspec.msgpack.Decoder(list[str | list[str] | None]).decode
_encode = msgspec.msgpack.Encoder().encode


class Latest(NamedTuple):
    """A record of the online store; times in microseconds since 1970 UTC."""

    record: str
    owner: str
    event: int
    expires: int | None
    deleted: bool
    sealed: bytes

    def there(self, now: int) -> bool:
        """Whether it has not expired: then it is as if it had been removed."""
        return self.expires is None or self.expires > now


def packed(values: Values) -> bytes:
    """Values as they are sealed."""
    return _encode(values)


def unpacked(data: bytes) -> Values:
    """The values of `packed`."""
    return _decode(data)


def row_context(group: str, record: str) -> bytes:
    """What binds a sealed record to its place."""
    return b"feature\x1f" + group.encode() + b"\x1f" + record.encode()


def latest(tx: Connection, group: str, records: Sequence[str]) -> dict[str, Latest]:
    """What is stored of these identifiers, also what has expired or is deleted softly."""
    if len(records) == 1:
        return {row[0]: Latest(*row) for row in rows_of(tx, f"{_FIND} = ?", group, records[0])}
    found: dict[str, Latest] = {}
    for start in range(0, len(records), _AT_ONCE):
        some = records[start : start + _AT_ONCE]
        marks = ", ".join("?" * len(some))
        found.update((row[0], Latest(*row)) for row in rows_of(tx, f"{_FIND} IN ({marks})", group, *some))
    return found


def put(tx: Connection, keys: PageKeys, account: str, group: str, rows: Iterable[tuple[Latest, bytes]]) -> None:
    """Store records in the place of what there is; each with its packed values, which are sealed here."""
    bulk(
        tx,
        _PUT,
        [
            (
                group,
                row.record,
                account,
                row.owner,
                row.event,
                row.expires,
                row.deleted,
                keys.seal(row.owner, row_context(group, row.record), data),
            )
            for row, data in rows
        ],
    )


def drop(tx: Connection, group: str, records: Iterable[str]) -> None:
    """Remove records."""
    bulk(tx, "DELETE FROM feature_row WHERE grp = ? AND record = ?", [(group, record) for record in records])


def sweep(tx: Connection, group: str, now: int) -> int:
    """Remove what has expired; how many records."""
    gone = [
        row[0] for row in rows_of(tx, "SELECT record FROM feature_row WHERE grp = ? AND expires <= ?", group, now)
    ]
    drop(tx, group, gone)
    return len(gone)


def page(tx: Connection, group: str, after: str, now: int, limit: int, *, deleted: bool) -> Sequence[tuple[str, str]]:
    """Identifiers and owners beyond one, in order.

    Args:
        deleted: with those that are deleted softly.
    """
    found: Sequence[Mapping[str, str] | tuple[str, ...]] = rows_of(
        tx, _PAGE, group, after, now, False, deleted, limit
    )
    return [(row[0], row[1]) for row in found]  # type: ignore[index]
