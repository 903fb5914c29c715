"""The trail as one thing: seals what was committed, keeps the head outside, and verifies all of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, insert, select

from carelake.audit import segments
from carelake.audit.acts import Acts, close_interrupted
from carelake.audit.tables import segment as segment_table
from carelake.core import canonical
from carelake.core.clock import iso
from carelake.core.errors import CarelakeError, Corrupt, NotFound
from carelake.core.permit import Permit
from carelake.vault.workspace import Vault

__all__ = ["Problem", "Trail", "Verdict"]

_BATCH = 10_000


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that does not verify."""

    kind: str
    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `Trail.verify` found.

    Attributes:
        acts: acts in the trail.
        sealed: acts covered by a signed segment.
        problems: everything that does not verify, in the order it was found.
        unfinished: jobs that have begun and not ended.
    """

    acts: int
    sealed: int
    segments: int
    problems: tuple[Problem, ...]
    unfinished: int

    @property
    def intact(self) -> bool:
        return not self.problems


class Trail:
    """Seals and verifies the acts of one workspace."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._sealing = threading.Lock()

    def recover(self) -> int:
        """Mark jobs whose process is gone as interrupted; answers how many."""
        with self._vault.database.ledger() as connection:
            return close_interrupted(connection, self._vault.clock)

    def seal(self, permit: Permit) -> int:
        """Seal all committed acts that no segment covers; answers how many segments were made.

        Steps survive a crash: a segment object without its row is adopted, a head behind the rows is moved on.
        """
        made = 0
        with self._sealing:
            while self._seal_next(permit):
                made += 1
        return made

    def _seal_next(self, permit: Permit) -> bool:
        # The head first: what it names was committed before it was moved, so a later snapshot holds that.
        head = self._head()
        with self._vault.database.ledger_reading() as connection:
            _continues(head, connection)
            last = self._last_segment(connection)
            number, after, previous = (
                (last["number"] + 1, last["last"], last["digest"]) if last else (1, 0, segments.GENESIS)
            )
            acts = list(Acts(connection).after(after, _BATCH))
        self._advance_head(last)
        if not acts:
            return False
        sealed = self._stored(permit, number) or self._write(permit, number, previous, acts)
        row = {
            "number": number,
            "first": sealed.header["first"],
            "last": sealed.header["last"],
            "name": _object_name(number),
            "digest": sealed.digest,
            "at": sealed.header["at"],
        }
        with self._vault.database.ledger() as connection:
            latest = self._last_segment(connection)
            if (latest["number"] if latest else 0) >= number:
                return True  # another sealer was faster; its segment has the same name and content
            connection.execute(insert(segment_table).values(**row))
        self._advance_head(row)
        return True

    def _write(self, permit: Permit, number: int, previous: str, acts: list[dict[str, Any]]) -> segments.Segment:
        header, line, lines = segments.build(
            acts,
            workspace=self._vault.settings.workspace,
            number=number,
            previous=previous,
            at=iso(self._vault.clock.now()),
        )
        signature = self._vault.keyring.sign_trail(line)
        sealed = segments.Segment(header, line, lines, signature)
        try:
            self._vault.objects.put(permit, "audit", _object_name(number), sealed.data())
        except CarelakeError:
            # The audit zone is locked: the name is taken, so another sealer came first. Use what stands there.
            stored = self._stored(permit, number)
            if stored is None:
                raise
            return stored
        return sealed

    def _stored(self, permit: Permit, number: int) -> segments.Segment | None:
        try:
            return segments.parse(self._vault.objects.get(permit, "audit", _object_name(number)))
        except NotFound:
            return None

    @staticmethod
    def _last_segment(connection: Any) -> dict[str, Any] | None:
        query = select(segment_table).order_by(segment_table.c.number.desc()).limit(1)
        row = connection.execute(query).mappings().first()
        return dict(row) if row else None

    def _advance_head(self, row: dict[str, Any] | None) -> None:
        if row is None:
            return
        head = self._head()
        # A head that is gone or altered stays so: another one would hide from `verify` that the tail was cut.
        first = head is None and row["number"] == 1
        if first or (head and head["number"] < row["number"]):
            said = {"workspace": self._vault.settings.workspace, **{k: row[k] for k in ("number", "digest", "last")}}
            signature = self._vault.keyring.sign_trail(canonical.dump(said)).hex()
            self._vault.write_head(canonical.dump({**said, "signature": signature}))

    def _head(self) -> dict[str, Any] | None:
        """The head kept outside: None when it is missing, empty when it is not one that this workspace signed."""
        data = self._vault.read_head()
        if data is None:
            return None
        try:
            head = canonical.load(data)
            signature = bytes.fromhex(head.pop("signature"))
            signed = self._vault.keyring.verify(canonical.dump(head), signature, account="security", purpose="trail")
        except (CarelakeError, AttributeError, KeyError, TypeError, ValueError):
            return {}
        return dict(head) if signed else {}

    def verify(self, permit: Permit) -> Verdict:
        """Compare rows, segments, signatures and the outside head.

        Numbered as in ``docs/internals/audit.md``: (1) each segment is there, readable and signed, (2) it names its
        predecessor, (3) its lines give its root, (4) its lines equal the rows, (5) the outside head is among them.
        """
        found: list[Problem] = []
        head = self._head()
        with self._vault.database.ledger_reading() as connection:
            total = Acts(connection).count()
            unfinished = len(Acts(connection).unfinished())
            rows = [dict(r) for r in connection.execute(select(segment_table).order_by("number")).mappings()]
        previous, last, digests = segments.GENESIS, 0, {0: segments.GENESIS}
        for expected, row in enumerate(rows, start=1):
            found += self._verify_segment(permit, row, expected, previous, last)
            previous, last = row["digest"], row["last"]
            digests[row["number"]] = row["digest"]
        found += self._verify_head(head, digests)
        return Verdict(total, last, len(rows), tuple(found), unfinished)

    def _verify_segment(
        self, permit: Permit, row: dict[str, Any], expected: int, previous: str, last: int
    ) -> Iterator[Problem]:
        name = f"segment {row['number']}"
        if row["number"] != expected or row["first"] != last + 1:
            yield Problem("segment", name, "the segments before it do not lead up to it")
        try:
            stored = self._stored(permit, row["number"])
        except CarelakeError as error:
            yield Problem("segment", name, error.message)
            return
        if stored is None:
            yield Problem("segment", name, "its object is missing or is not a segment")
            return
        yield from self._verify_content(name, stored, row, previous)

    def _verify_content(
        self, name: str, stored: segments.Segment, row: dict[str, Any], previous: str
    ) -> Iterator[Problem]:
        keyring = self._vault.keyring
        if not keyring.verify(stored.header_line, stored.signature, account="security", purpose="trail"):
            yield Problem("segment", name, "its signature is not the workspace's")
        if stored.digest != row["digest"] or stored.header.get("previous") != previous:
            yield Problem("segment", name, "it does not continue the segment before it")
        if segments.merkle_root(stored.lines) != stored.header.get("root"):
            yield Problem("segment", name, "its acts do not give its Merkle root")
        with self._vault.database.ledger_reading() as connection:
            acts = Acts(connection).after(row["first"] - 1, row["last"] - row["first"] + 1)
            rows = [canonical.dump(a) for a in acts]
        for number, (line, now) in enumerate(zip(stored.lines, rows, strict=False), start=row["first"]):
            if line != now:
                yield Problem("act", f"act {number}", "its row differs from what was sealed")
                return
        if len(stored.lines) != len(rows):
            yield Problem("act", f"act {row['first'] + len(rows)}", "its row is missing; a segment seals it")

    def _verify_head(self, head: dict[str, Any] | None, digests: dict[int, str]) -> Iterator[Problem]:
        if head is None:
            if len(digests) > 1:
                yield Problem("head", "head", "the signed head kept beside the root key is missing")
        elif not head:
            yield Problem("head", "head", "the head kept beside the root key was altered: its signature is wrong")
        elif head["number"] not in digests:
            yield Problem("head", f"segment {len(digests)}", "the head names a later segment: the tail was cut off")
        elif digests[head["number"]] != head["digest"]:
            yield Problem("head", f"segment {head['number']}", "it is not the segment that the head names")


def _continues(head: dict[str, Any] | None, connection: Connection) -> None:
    """Refuse to seal on top of a trail that the head kept outside does not belong to.

    Otherwise an old copy of the workspace, put back, would grow past the head and look intact again.

    Raises:
        Corrupt: ``audit.rolled_back``.
    """
    if not head:
        return  # missing or altered: there is nothing to compare with, and `verify` tells
    query = select(segment_table.c.digest).where(segment_table.c.number == head["number"])
    if connection.execute(query).scalar() != head["digest"]:
        raise Corrupt(
            "audit.rolled_back",
            "The trail is not the one whose head is kept beside the root key: an older copy was put back, or its "
            "tail was cut off. `carelake audit verify` says where; restore the newest copy.",
        )


def _object_name(number: int) -> str:
    return f"segments/{number:012d}"
