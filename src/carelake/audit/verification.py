"""Verifying: rows, segments, signatures, patients, the head outside and the anchor, against each other.

Numbered as in ``docs/internals/audit.md``: (1) each segment is there, readable and signed, (2) it names its
predecessor and the tree of all before it, without a gap, (3) its lines give its root, (4) its lines equal the rows,
(5) the patients beside each act are those that it names or digests, and those of the sorted runs, (6) the outside
head is among the segments, (7) so is every head at the anchor, (8) each noun was written by an act that says so, and
(9) witnesses of other rooms find in their tables what the acts tell.

Acts are read once, in order, in step with the segments; a row's line is put together from the stored text without
parsing what it says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from sqlalchemy import Connection, select

from carelake.audit import merkle
from carelake.audit.clocks import ClockWatch
from carelake.audit.heads import Heads
from carelake.audit.made import strays
from carelake.audit.people import People
from carelake.audit.readings import COLUMNS, Acts, line_of, moment_of
from carelake.audit.restores import Restores
from carelake.audit.runs import wrong as runs_wrong
from carelake.audit.sealing import stored_segment
from carelake.audit.segments import GENESIS, Segment, object_name
from carelake.audit.signing import TrailKey
from carelake.audit.tables import act
from carelake.audit.tables import segment as table
from carelake.core.errors import CarelakeError
from carelake.core.permit import Permit
from carelake.vault.workspace import Vault

__all__ = ["Problem", "Verdict", "Verification", "Witness"]

Witness = Callable[[Connection], Iterator[tuple[str, str]]]
"""Says of rows that the acts do not account for: the name of each, and what is wrong."""

_ROWS = 5_000
_MOST_PROBLEMS = 1_000
_FOLDED = "the tree that is folded in its row is not that of the segments up to it"


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
        problems: everything that does not verify, in the order it was found; at most 1,000.
        unfinished: jobs that have begun and not ended.
        findings: what is worth a look and breaks nothing: clocks that were set back, copies that were restored.
        verified: acts that were compared with their segment: all that are sealed, but for ``since``.
    """

    acts: int
    sealed: int
    segments: int
    problems: tuple[Problem, ...]
    unfinished: int
    findings: tuple[Problem, ...] = ()
    verified: int = 0

    @property
    def intact(self) -> bool:
        return not self.problems


class _Rows:
    """The rows of acts in order, handed out in runs."""

    def __init__(self, connection: Connection, first: int) -> None:
        query = select(*COLUMNS, act.c.facts).where(act.c.seq >= first).order_by(act.c.seq)
        self._rows = iter(connection.execute(query, execution_options={"yield_per": _ROWS}))
        self._next = next(self._rows, None)

    def upto(self, last: int) -> Iterator[Any]:
        """Rows up to ``last``."""
        while self._next is not None and self._next[0] <= last:
            yield self._next
            self._next = next(self._rows, None)


class Verification:
    """One verification."""

    def __init__(
        self,
        vault: Vault,
        heads: Heads,
        permit: Permit,
        progress: Callable[[int, int], None] = lambda a, b: None,
        witnesses: Sequence[Witness] = (),
    ) -> None:
        self._vault = vault
        self._heads = heads
        self._permit = permit
        self._progress = progress
        self._witnesses = witnesses
        self._key = TrailKey(vault.keyring)
        self._previous: dict[str, Any] = {"number": 0, "last": 0, "digest": GENESIS, "at": ""}
        self._tree: merkle.Frontier | None = merkle.Frontier()
        self._clocks = ClockWatch()
        self._verified = 0
        self._restores = Restores(vault)

    def run(self, since: str = "") -> Verdict:
        """Verify everything.

        Args:
            since: an instant: leave out the segments that were sealed before it; the chain is then taken on trust up
                to there, but for the heads outside.
        """
        since = moment_of(since) if since else ""
        # Heads first: what they name was committed before, so a later snapshot holds it.
        head, anchored = self._heads.read(), self._anchors()
        with self._vault.database.ledger_reading() as connection:
            total = Acts(connection).count()
            unfinished = len(Acts(connection).unfinished())
            segments = [dict(row) for row in connection.execute(select(table).order_by(table.c.number)).mappings()]
            found = list(islice(self._segments(connection, segments, since, total), _MOST_PROBLEMS))
            runs = (Problem("act", *one) for one in runs_wrong(connection))
            found += islice(runs, _MOST_PROBLEMS - len(found))
            unmade = (Problem("noun", *one) for one in strays(connection))
            found += islice(unmade, _MOST_PROBLEMS - len(found))
            untold = (Problem("right", *one) for witness in self._witnesses for one in witness(connection))
            found += islice(untold, _MOST_PROBLEMS - len(found))
        digests = {0: GENESIS, **{row["number"]: row["digest"] for row in segments}}
        found += [*_of_head(head, digests), *self._of_anchor(anchored, digests)]
        found += [Problem("restore", "restore", wrong)] if (wrong := self._restores.unfounded()) else []
        sealed = segments[-1]["last"] if segments else 0
        findings = tuple(
            [Problem("clock", *found) for found in self._clocks.findings()]
            + [Problem("restore", *found) for found in self._restores.findings()]
        )
        return Verdict(total, sealed, len(segments), tuple(found), unfinished, findings, self._verified)

    def _segments(
        self, connection: Connection, segments: list[dict[str, Any]], since: str, total: int
    ) -> Iterator[Problem]:
        skipped = sum(1 for _ in _before(segments, since))
        if skipped:
            self._previous = segments[skipped - 1]
            peaks = self._previous["peaks"]
            self._tree = merkle.Frontier.read(peaks) if peaks else None
            if peaks and self._tree is None:
                yield Problem("segment", f"segment {self._previous['number']}", _FOLDED)
        rows = _Rows(connection, self._previous["last"] + 1)
        people = People(connection, self._previous["last"] + 1)
        for row in segments[skipped:]:
            yield from self._segment(row, rows, people)
            self._progress(row["last"], total)
        # What is not sealed yet has its patients too.
        for unsealed in rows.upto(2**62):
            self._clocks.see(unsealed[0], unsealed[3])
            if wrong := people.check(unsealed[0], unsealed[-1]):
                yield Problem("act", f"act {unsealed[0]}", wrong)
        yield from (Problem("act", f"act {seq}", "patients are noted for an act that is not there") for seq in people)

    def _segment(self, row: dict[str, Any], rows: _Rows, people: People) -> Iterator[Problem]:
        name, before = f"segment {row['number']}", self._previous
        self._previous = row
        if row["number"] != before["number"] + 1 or row["first"] != before["last"] + 1:
            yield Problem("segment", name, "the segments before it do not lead up to it")
        stored: Segment | None = None
        try:
            stored = stored_segment(self._vault, self._permit, row["number"])
        except CarelakeError as error:
            yield Problem("segment", name, error.message)
        else:
            if stored is None:
                yield Problem("segment", name, "its object is missing or is not a segment")
        if stored is not None:
            yield from self._header(name, stored, row, before)
            if merkle.root(stored.lines).hex() != stored.header.get("root"):
                yield Problem("segment", name, "its acts do not give its Merkle root")
        yield from self._acts(row, stored.lines if stored else None, rows, people)

    def _header(self, name: str, stored: Segment, row: dict[str, Any], before: dict[str, Any]) -> Iterator[Problem]:
        header = stored.header
        if not self._key.verify(stored.header_line, stored.signature, stored.key):
            yield Problem("segment", name, "its signature is not the workspace's")
        if stored.digest != row["digest"] or header.get("previous") != before["digest"]:
            yield Problem("segment", name, "it does not continue the segment before it")
        told = [header.get(one) for one in ("number", "first", "last", "at", "workspace")]
        if told != [row["number"], row["first"], row["last"], row["at"], self._vault.settings.workspace]:
            yield Problem("segment", name, "its header and its row tell of different acts")
        if row["name"] != object_name(row["number"]):
            yield Problem("segment", name, "its row names another object")
        if str(header.get("at")) < before["at"]:
            yield Problem("segment", name, "it was sealed before the segment before it, by its time")
        if self._tree is not None:
            if "tree" in header and header["tree"] != self._tree.root().hex():
                yield Problem("segment", name, "its tree is not that of the segments before it")
            self._tree.append(stored.header_line)
            if row["peaks"] != self._tree.text() and (row["peaks"] or "tree" in header):
                yield Problem("segment", name, _FOLDED)

    def _acts(
        self, row: dict[str, Any], lines: tuple[bytes, ...] | None, rows: _Rows, people: People
    ) -> Iterator[Problem]:
        expected, at, see, check = row["first"], 0, self._clocks.see, people.check
        told = False
        for _ in rows.upto(expected - 1):
            pass  # of a segment whose row is gone, which was told
        for one in rows.upto(row["last"]):
            seq = one[0]
            if seq != expected and not told:
                yield Problem("act", f"act {expected}", "its row is missing; a segment seals it")
                told = True
            at += seq - expected  # a missing row has its line all the same
            if lines is not None and (at >= len(lines) or line_of(one) != lines[at]) and not told:
                yield Problem("act", f"act {seq}", "its row differs from what was sealed")
                told = True
            if wrong := check(seq, one[-1]):
                yield Problem("act", f"act {seq}", wrong)
            see(seq, one[3])
            at, expected = at + 1, seq + 1
        self._verified += row["last"] - row["first"] + 1 if lines is not None else 0
        if expected != row["last"] + 1 and not told:
            yield Problem("act", f"act {expected}", "its row is missing; a segment seals it")
        elif lines is not None and len(lines) != row["last"] - row["first"] + 1 and not told:
            yield Problem("segment", f"segment {row['number']}", "it holds another number of acts than its row says")

    def _anchors(self) -> list[bytes] | CarelakeError:
        try:
            return list(self._restores.ours(self._heads.anchored()))
        except CarelakeError as error:
            return error

    def _of_anchor(self, anchored: list[bytes] | CarelakeError, digests: dict[int, str]) -> Iterator[Problem]:
        if isinstance(anchored, CarelakeError):
            yield Problem("anchor", "anchor", anchored.message)
        else:
            for data in anchored:
                yield from self._anchored(data, digests)
        if self._heads.anchor_fault:
            yield Problem("anchor", "anchor", self._heads.anchor_fault)

    def _anchored(self, data: bytes, digests: dict[int, str]) -> Iterator[Problem]:
        head = self._heads.opened(data, self._restores.copy_told(data))
        if not head:
            yield Problem("anchor", "anchor", "it holds a head that this workspace did not sign")
        elif digests.get(head["number"]) != head["digest"]:
            yield Problem(
                "anchor", f"segment {head['number']}", "it is not the segment that a head at the anchor names"
            )


def _before(segments: list[dict[str, Any]], since: str) -> Iterator[int]:
    for row in segments:
        if not since or row["at"] >= since:
            return
        yield row["number"]


def _of_head(head: dict[str, Any] | None, digests: dict[int, str]) -> Iterator[Problem]:
    if head is None:
        if len(digests) > 1:
            yield Problem("head", "head", "the signed head kept beside the root key is missing")
    elif not head:
        yield Problem("head", "head", "the head kept beside the root key was altered: its signature is wrong")
    elif head["number"] not in digests:
        yield Problem("head", f"segment {len(digests)}", "the head names a later segment: the tail was cut off")
    elif digests[head["number"]] != head["digest"]:
        yield Problem("head", f"segment {head['number']}", "it is not the segment that the head names")
