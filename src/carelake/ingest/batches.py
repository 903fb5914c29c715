"""Batches: what goes to a worker, and what comes back. Plain data, packed with msgpack on the way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from carelake.core.records import Parsed, Rejected

__all__ = ["Batch", "Entry", "Mark", "Outcome", "group"]

TARGET_BYTES = 256 * 1024
TARGET_ENTRIES = 250


class Mark(msgspec.Struct, array_like=True, frozen=True):
    """How far a landing has been read.

    Attributes:
        entries: entries that are committed; the next one's position.
        offset, line: where the next line starts. Only lines resume there; a document is read again from its start,
            since its references and the uniqueness of its ids need all of it.
    """

    entries: int = 0
    offset: int = 0
    line: int = 1


class Entry(msgspec.Struct, array_like=True):
    """One resource's text, not yet parsed, or the reason why it was refused already.

    Attributes:
        data: the text.
        offset, line, position: as in `core.records.Parsed`.
        given_id: id to use where the resource has none ("" derives one from landing and position).
        bundle: number of the Bundle in which ids must be unique, 0 for none.
        mapping: ``urn:`` fullUrls that the text mentions, to ``Type/id``.
        next: where the next entry's line starts.
    """

    data: bytes
    offset: int
    line: int
    position: int
    given_id: str = ""
    bundle: int = 0
    mapping: dict[str, str] = {}
    next: tuple[int, int] = (0, 1)
    refused: Rejected | None = None


class Batch(msgspec.Struct, array_like=True):
    """Entries of one landing. ``seed``: the landing's hash, of which missing ids are derived."""

    seed: str
    entries: list[Entry]


class Outcome(msgspec.Struct, array_like=True):
    """What became of a batch: the parsed in order, and the refused by their index in the batch."""

    parsed: list[Parsed]
    refused: dict[int, Rejected]

    def items(self) -> Iterator[Parsed | Rejected]:
        """Everything in the batch's order."""
        parsed = iter(self.parsed)
        for index in range(len(self.parsed) + len(self.refused)):
            yield self.refused[index] if index in self.refused else next(parsed)


def group(seed: str, entries: Iterable[Entry]) -> Iterator[Batch]:
    """Batches of about a quarter MiB or 250 entries, whichever comes first."""
    held: list[Entry] = []
    size = 0
    for entry in entries:
        held.append(entry)
        size += len(entry.data)
        if size >= TARGET_BYTES or len(held) >= TARGET_ENTRIES:
            yield Batch(seed, held)
            held, size = [], 0
    if held:
        yield Batch(seed, held)
