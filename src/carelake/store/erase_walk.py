"""Walks over all versions of an account, whomever they belong to, for erasures; nothing of it is noted as read.

Bodies are looked through by a machine for the names of what is erased. Nobody sees them, so the act does not name
their patients: it would name everybody.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, case, func, select

from carelake.core import canonical
from carelake.core.errors import Gone as Erased
from carelake.core.permit import Permit
from carelake.fhir.gone import Gone
from carelake.fhir.unlink import without
from carelake.store import bodies
from carelake.store.indexed import Indexed
from carelake.store.symbols import Symbols, kinds_of
from carelake.store.tables import resource_version
from carelake.vault.workspace import Vault

__all__ = ["COLUMNS", "PLACED", "Shown", "Survey", "Taken", "Version", "Walker", "binaries_in"]

Shown = tuple[int, str, str, str, str]
"""A text of a code that came with a version: symbol of the type, source, system, code, folded text."""

Range = tuple[str, int, int]
"""Ref of a landing, offset and length."""

_PAGE = 2_000
_CHUNK = 500
_LARGE = 1 << 16
_V = resource_version.c


def _bounded(columns: Sequence[Any]) -> list[Any]:
    """Without bodies that are large: null, and to be asked for one by one."""
    body = case((func.octet_length(_V.body) <= _LARGE, _V.body), else_=None).label("body")
    return [body if column is _V.body else column for column in columns]


COLUMNS = (_V.seq, _V.kind, _V.id, _V.version, _V.previous, _V.deleted, _V.owner, _V.body)
"""What opens a version; with `PLACED` also where it came from."""
PLACED = (*COLUMNS, _V.origin, _V.offset, _V.length)
_WALK = (
    select(*_bounded(COLUMNS))
    .where(_V.seq > bindparam("after"), _V.seq <= bindparam("until"))
    # Not by the index of types: it would be gone through whole, and sorted, for each page.
    .where((_V.kind + 0).in_(bindparam("kinds", expanding=True)))
    .order_by(_V.seq)
    .limit(_PAGE)
)


@dataclass(slots=True)
class Survey:
    """Which versions are whose.

    Attributes:
        seqs: versions by patient.
        until: the newest seq that was looked at.
        landings: refs of the landings that they came from.
    """

    seqs: dict[str, list[int]]
    until: int
    landings: set[str] = field(default_factory=set)


class Version(NamedTuple):
    """A version, without its body."""

    seq: int
    kind: int
    id: str


@dataclass(slots=True)
class Taken:
    """What was taken out with a page of patients, for the rooms that come after.

    Attributes:
        resources: ``Type/id`` of each.
        ranges: where they lie in landings.
        binaries: ``Binary/id`` that they pointed to.
        seqs: type and seq of each version. unread: how many could not be opened, since their key went before.
        relinked: type and seq of versions that follow another one than before.
        counts: versions, rows.
    """

    resources: set[str] = field(default_factory=set)
    identifiers: set[tuple[str, str]] = field(default_factory=set)
    ranges: set[Range] = field(default_factory=set)
    shown: set[Shown] = field(default_factory=set)
    binaries: set[str] = field(default_factory=set)
    seqs: list[tuple[str, int]] = field(default_factory=list)
    relinked: list[tuple[str, int]] = field(default_factory=list)
    unread: int = 0
    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))


class Walker:
    """See the module."""

    def __init__(self, vault: Vault, symbols: Symbols, indexed: Indexed) -> None:
        self._vault = vault
        self._symbols = symbols
        self._indexed = indexed

    def mentions(
        self,
        permit: Permit,
        gone: Gone,
        binaries: set[str],
        *,
        after: int = 0,
        progress: Callable[[int, int], None] = lambda done, of: None,
    ) -> tuple[list[int], int]:
        """Versions that name what is gone, of whoever's; one walk over all bodies of the account.

        Args:
            binaries: those that somebody else points to are taken out of this set.
            after: versions beyond this seq only.

        Returns their seqs and the newest seq that was looked at.
        """
        found: list[int] = []
        with self._vault.database.reading(permit) as tx:
            kinds = self._kinds(permit, tx)
            until = int(tx.execute(select(func.max(_V.seq))).scalar() or 0)
        while after < until:
            with self._vault.database.reading(permit) as tx:
                said = {"after": after, "until": until, "kinds": list(kinds)}
                rows = tx.execute(_WALK, said).all()
                for some in self._whole(tx, rows, COLUMNS):
                    opened = list(self._texts(permit, tx, some, kinds))
                    found += _naming(opened, gone, kinds)
                    for row, text in opened if binaries else ():
                        if b"Binary/" in text and f"{kinds[row.kind]}/{row.id}" not in binaries:
                            binaries -= binaries_in(text)
            if not rows:
                break
            after = rows[-1].seq
            progress(after, until)
        return found, until

    def _texts(
        self, permit: Permit, tx: Connection, rows: Sequence[Any], kinds: Mapping[int, str]
    ) -> Iterator[tuple[Any, bytes]]:
        """Rows with their bodies' texts; b"" where there is none any more."""
        owners = self._symbols.texts(tx, {row.owner for row in rows})
        keys = self._vault.sealer.keys_for(permit, tx, set(owners.values()) | {""}, create=False)
        for row in rows:
            text = b""
            if not row.deleted:
                try:
                    context = bodies.context(kinds[row.kind], row.id, row.version)
                    text = bodies.unpack(keys.open(owners.get(row.owner, ""), context, row.body))
                except Erased:
                    pass
            yield row, text

    @staticmethod
    def _rows(tx: Connection, seqs: Sequence[int], query: Any) -> Iterator[Any]:
        for start in range(0, len(seqs), _CHUNK):
            yield from tx.execute(query.where(_V.seq.in_(list(seqs[start : start + _CHUNK]))))

    def _held(self, tx: Connection, seqs: Sequence[int], columns: Sequence[Any]) -> Iterator[Sequence[Any]]:
        """As `_rows`, as many at a time as may be held with their bodies."""
        for start in range(0, len(seqs), _CHUNK):
            rows = list(self._rows(tx, seqs[start : start + _CHUNK], select(*_bounded(columns))))
            yield from self._whole(tx, rows, columns)

    def _whole(self, tx: Connection, rows: Sequence[Any], columns: Sequence[Any]) -> Iterator[Sequence[Any]]:
        """Rows that were asked for without large bodies, and then each of the others by itself."""
        small = [row for row in rows if row.body is not None]
        if small:
            yield small
        for row in rows:
            if row.body is None:
                yield list(self._rows(tx, [row.seq], select(*columns)))

    def _kinds(self, permit: Permit, tx: Connection) -> dict[int, str]:
        return {key: text for text, key in self._symbols.everything(tx, kinds_of(permit.account)).items()}


def _naming(opened: Sequence[tuple[Any, bytes]], gone: Gone, kinds: Mapping[int, str]) -> Iterator[int]:
    """Seqs of versions that are gone, or have a link to what is: a cheap look, then the dear one that is right."""
    near = set(gone.may_be_in([text for _, text in opened]))
    for at, (row, text) in enumerate(opened):
        if f"{kinds[row.kind]}/{row.id}" in gone.resources or (at in near and _names(text, gone)):
            yield row.seq


def _names(text: bytes, gone: Gone) -> bool:
    body = canonical.load(text)
    return bool(without(body, gone) != body)


def binaries_in(text: bytes) -> set[str]:
    """``Binary/id`` of each that a text points to."""
    if b"Binary/" not in text:
        return set()
    found = set()
    for part in text.split(b'"')[1:]:
        if part.startswith(b"Binary/"):
            found.add("/".join(part.decode("utf-8", "replace").split("/")[:2]))
    return found
