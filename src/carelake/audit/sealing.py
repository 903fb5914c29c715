"""Sealing: the elected process turns committed acts into signed segments (decisions D3 and 0024).

1. Be elected (`lease`).  2. Read the acts after the last segment; cut them by time and number; sign; write the
objects' bytes.  3. In one transaction: prove that the fence is the newest, enter the objects in the locked zone,
insert their rows.  4. Move the head on, and the anchor when it is time.

A crash before the commit of 3 leaves nothing but blobs without a row, which are swept; between 3 and 4 the head is
behind, and the next sealer moves it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from time import sleep
from typing import Any

from sqlalchemy import Connection, insert, select

from carelake.audit import runs
from carelake.audit.heads import Heads
from carelake.audit.lease import Lease
from carelake.audit.merkle import Frontier, leaf_hash
from carelake.audit.readings import COLUMNS, line_of
from carelake.audit.segments import GENESIS, Sealable, Segment, header_of, object_name, parse, spans
from carelake.audit.signing import TrailKey
from carelake.audit.tables import segment as table
from carelake.core import canonical
from carelake.core.clock import iso
from carelake.core.errors import Corrupt, NotFound, Refused
from carelake.core.permit import Permit
from carelake.vault.database import rows_of
from carelake.vault.workspace import Vault
from carelake.vault.writing import ObjectWriter

__all__ = ["SealingRound", "stored_segment"]

_SEGMENTS = 32
"""Segments of one transaction, while a backlog is worked off; writers wait for it."""

_START: dict[str, Any] = {"number": 0, "last": 0, "digest": GENESIS, "at": "", "peaks": ""}
_AT = next(number for number, column in enumerate(COLUMNS) if column.name == "at")
_SEQ = next(number for number, column in enumerate(COLUMNS) if column.name == "seq")
_ACTS = f"SELECT {', '.join(column.name for column in COLUMNS)}, facts FROM act WHERE seq > ? ORDER BY seq LIMIT ?"
_MORE = "SELECT 1 FROM act WHERE seq > ? LIMIT 1"
_PAGE, _REST_SECONDS = 80, 0.002
"""A page of acts takes this thread less than a millisecond; it takes the interpreter's lock from others for that."""


def _rest() -> None:
    """Let requests that this process answers go on."""
    sleep(_REST_SECONDS)


class _OvertakenError(Exception):
    """Another sealer was elected meanwhile; the transaction is undone."""


class SealingRound:
    """One round: everything that was committed when it began, and a bit of what came since."""

    def __init__(self, vault: Vault, heads: Heads, lease: Lease, permit: Permit, *, closing: bool) -> None:
        self._vault = vault
        self._heads = heads
        self._lease = lease
        self._permit = permit
        self._closing = closing
        self._key = TrailKey(vault.keyring)

    def run(self) -> int:
        """Seal until nothing is left; answers how many segments were made.

        Raises:
            Corrupt: ``audit.rolled_back``, ``audit.head_missing``, ``audit.stray_segment``, ``audit.peaks``.
        """
        made = 0
        while True:
            last, more = self._pending()
            # Elected first: those who are not read no acts.
            if not more or not self._lease.take():
                return made
            acts = list(self._after(last["last"]))
            frontier, full = self._frontier(last), len(acts) == self._most()
            while acts:
                new = self._built(last, frontier, acts)
                if not self._commit(last, frontier, new):
                    return made
                made += len(new)
                last = new[-1][1]
                self._gather(last["last"])
                acts = [one for one in acts if one.seq > last["last"]]
            if not full:
                return made

    def _most(self) -> int:
        return 2 * self._vault.settings.audit.segment_acts

    def _commit(
        self, last: Mapping[str, Any], frontier: Frontier, new: Sequence[tuple[Segment, dict[str, Any], bool]]
    ) -> bool:
        try:
            with ExitStack() as stack:
                # Their bytes first: whoever writes waits for the transaction.
                made = [self._written(stack, row, one.data()) for one, row, stored in new if not stored]
                with self._vault.database.ledger() as connection:
                    if not self._lease.hold(connection, closing=self._closing) or self._last(connection) != last:
                        raise _OvertakenError
                    anchor = self._lease.anchor_due(connection) if self._vault.settings.audit.anchor else False
                    for writer in made:
                        writer.commit()
                    for _, row, _ in new:
                        connection.execute(insert(table).values(**row))
        except _OvertakenError:
            self._lease.fence = 0
            return False
        self._heads.advance(new[-1][1], frontier.root(), anchor=anchor)
        return True

    def _written(self, stack: ExitStack, row: Mapping[str, Any], data: bytes) -> ObjectWriter:
        """A new object of the zone that is durable, and wants its row; where it gets none, it goes."""
        try:
            writer = self._vault.objects.create(self._permit, "audit", row["name"])
        except Refused as error:
            with self._vault.database.ledger_reading() as connection:
                if error.code != "vault.locked" or self._last(connection)["number"] < row["number"]:
                    raise  # also what is no segment: else nothing would ever be sealed, and nobody be told
            raise _OvertakenError from None  # another sealer's, since this round looked
        stack.callback(writer.discard)
        writer.write(data)
        writer.finish()
        return writer

    def _gather(self, sealed: int) -> None:
        """Sort patients of sealed acts into runs; see `runs`."""
        while True:
            with self._vault.database.ledger_reading() as connection:
                if not runs.due(connection, sealed):
                    return
            run = None
            for part in range(runs.PARTS):
                with self._vault.database.ledger(keys=False) as connection:
                    if not self._lease.hold(connection, closing=self._closing):
                        return  # the next sealer does it
                    run = run or runs.begun(connection, sealed)
                    runs.fill(connection, run, part)
                _rest()

    def _pending(self) -> tuple[dict[str, Any], bool]:
        """The last segment's row, and whether there are acts after it; a head that is behind is moved on."""
        # The head first: what it names was committed before it was moved, so a later snapshot holds that.
        head = self._heads.read()
        with self._vault.database.ledger_reading() as connection:
            _continues(head, connection)
            last = self._last(connection)
            more = bool(rows_of(connection, _MORE, last["last"]))
            if head is None and last["number"] and self._vault.settings.copy:
                raise Corrupt(
                    "audit.head_missing",
                    "The head of this restored copy is missing beside the root key: nothing shows whether its trail "
                    "is the newest. Put the file back, or restore the newest backup.",
                )
        if last["number"] and (head is None or (head and head["number"] < last["number"])):
            self._heads.advance(last, self._frontier(last).root(), anchor=False)
        return last, more

    def _after(self, seq: int) -> Iterator[Sealable]:
        """Acts in their order, page by page, with rests between: requests that this process answers go on."""
        left = self._most()
        while left:
            most = min(_PAGE, left)
            rows = self._vault.database.ledger_rows(_ACTS, seq, most)
            for row in rows:
                line = line_of(row)
                yield Sealable(row[_SEQ], row[_AT], line, leaf_hash(line))
            if len(rows) < most:
                return
            left -= most
            seq = rows[-1][_SEQ]
            _rest()

    def _built(
        self, last: Mapping[str, Any], frontier: Frontier, acts: list[Sealable]
    ) -> list[tuple[Segment, dict[str, Any], bool]]:
        """New segments with their rows, and whether the object is there already."""
        before, new = dict(last), []
        stray = self._stray(before)
        if stray is not None:
            before = self._row(stray, frontier)
            return [(stray, before, True)]
        for run in spans(acts, self._vault.settings.audit.segment_acts, _rest):
            sealed = self._signed(before, frontier, run)
            before = self._row(sealed, frontier)
            new.append((sealed, before, False))
            # The first one alone: only after it a missing head may be made, see `Heads.advance`.
            if len(new) == (_SEGMENTS if last["number"] else 1):
                break
        return new

    def _signed(self, before: Mapping[str, Any], frontier: Frontier, run: Any) -> Segment:
        header = header_of(
            run,
            workspace=self._vault.settings.workspace,
            number=before["number"] + 1,
            previous=before["digest"],
            tree=frontier.root().hex(),
            fence=self._lease.fence,
            # Never before the one before it, whatever the clock says.
            at=max(iso(self._vault.clock.now()), before["at"]),
            rest=_rest,
        )
        line, signature = self._key.sign_naming(lambda version: canonical.dump({**header, "key": version}))
        return Segment(canonical.load(line), line, tuple(one.line for one in run), signature)

    def _row(self, sealed: Segment, frontier: Frontier) -> dict[str, Any]:
        frontier.append(sealed.header_line)
        header = sealed.header
        told = {name: header[name] for name in ("number", "first", "last", "at")}
        return {**told, "name": object_name(told["number"]), "digest": sealed.digest, "peaks": frontier.text()}

    def _stray(self, last: Mapping[str, Any]) -> Segment | None:
        """A segment that lies in the zone without its row: an earlier version's sealer died between the two."""
        found = stored_segment(self._vault, self._permit, last["number"] + 1)
        if found is None:
            return None
        told = (found.header.get("number"), found.header.get("previous"), found.header.get("first"))
        signed = self._key.verify(found.header_line, found.signature, found.key)
        if not signed or told != (last["number"] + 1, last["digest"], last["last"] + 1):
            raise Corrupt(
                "audit.stray_segment",
                "The next segment's place in the audit zone is taken by something that does not continue the trail. "
                "`carelake audit verify` says more; restore the newest backup.",
            )
        return found

    def _frontier(self, last: Mapping[str, Any]) -> Frontier:
        """The tree so far. What is folded in the row counts only where a signature says so, too."""
        if not last["number"]:
            return Frontier()
        if last["peaks"]:
            found = Frontier.read(last["peaks"])
            if found is None or found.root().hex() != self._tree(last):
                raise Corrupt(
                    "audit.peaks",
                    "The tree of the trail, folded in the row of its last segment, was altered; nothing is sealed on "
                    "top of it. `carelake audit verify` says more; restore the newest backup.",
                )
            return found
        # The row is of a version that kept none: fold the headers once more.
        folded = Frontier()
        for number in range(1, last["number"] + 1):
            one = stored_segment(self._vault, self._permit, number)
            folded.append(one.header_line if one else b"")
        return folded

    def _tree(self, last: Mapping[str, Any]) -> str:
        """The root of the tree with this segment: as the head signed it, or, where that is behind, as folded anew."""
        head = self._heads.read()
        if head and (head["number"], head["digest"]) == (last["number"], last["digest"]) and "tree" in head:
            return str(head["tree"])
        one = stored_segment(self._vault, self._permit, last["number"])
        with self._vault.database.ledger_reading() as connection:
            before = connection.execute(select(table.c.peaks).where(table.c.number == last["number"] - 1)).scalar()
        folded = Frontier.read(before or "")
        if one is None or folded is None or one.digest != last["digest"]:
            return ""
        if not self._key.verify(one.header_line, one.signature, one.key):
            return ""
        # Its signed header names the tree before it. One of an earlier version names none, and has no folded tree.
        if one.header.get("tree") != folded.root().hex():
            return ""
        folded.append(one.header_line)
        return folded.root().hex()

    @staticmethod
    def _last(connection: Connection) -> dict[str, Any]:
        query = select(table).order_by(table.c.number.desc()).limit(1)
        row = connection.execute(query).mappings().first()
        return dict(row) if row else dict(_START)


def stored_segment(vault: Vault, permit: Permit, number: int) -> Segment | None:
    """The segment of that number as it lies in the zone; None where there is none, or it is not one."""
    try:
        return parse(vault.objects.get(permit, "audit", object_name(number)))
    except NotFound:
        return None


def _continues(head: dict[str, Any] | None, connection: Connection) -> None:
    """Refuse to seal on top of a trail that the head kept outside does not belong to.

    Otherwise an old copy of the workspace, put back, would grow past the head and look intact again.

    Raises:
        Corrupt: ``audit.rolled_back``.
    """
    if not head:
        return  # missing or altered: there is nothing to compare with, and `verify` tells
    query = select(table.c.digest).where(table.c.number == head["number"])
    if connection.execute(query).scalar() != head["digest"]:
        raise Corrupt(
            "audit.rolled_back",
            "The trail is not the one whose head is kept beside the root key: an older copy was put back, or its "
            "tail was cut off. `carelake audit verify` says where; restore the newest copy.",
        )
