"""What an erasure is about: sealed rows of its own until the end, when they go like everything else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec
import zstandard
from sqlalchemy import Connection, delete, func, insert, select

from carelake.core.errors import Invalid
from carelake.core.permit import Permit
from carelake.core.shapes import decodable
from carelake.fhir.gone import Gone
from carelake.pipelines.tables import erasure_target as table
from carelake.store.erase import Taken
from carelake.vault.workspace import Vault

__all__ = ["Target", "Targets", "checked_patients", "checked_reason", "pages", "reason_context"]

_MOST = 1 << 30
_LONGEST_REASON = 2000
_LONGEST_ID = 64
_PATIENTS, _VERSIONS = 25, 5_000


class Target(msgspec.Struct, array_like=True):
    """One row: who is asked for, and what was taken out with a page.

    Attributes:
        asked: ids of patients, in the first row.
        done: ids of those that are taken out of the record.
        rewritten: type and seq of versions that lost a link, or that follow another one than before.
        unread: numbers of versions that could not be opened any more.
    """

    asked: list[str] = []
    done: list[str] = []
    resources: list[str] = []
    identifiers: list[tuple[str, str]] = []
    ranges: list[tuple[str, int, int]] = []
    shown: list[tuple[int, str, str, str, str]] = []
    binaries: list[str] = []
    seqs: list[tuple[str, int]] = []
    rewritten: list[tuple[str, int]] = []
    unread: list[int] = []

    @classmethod
    def of(cls, taken: Taken, done: Iterable[str] = (), rewritten: Iterable[tuple[str, int]] = ()) -> Target:
        """What a page took out."""
        return cls(
            [],
            list(done),
            sorted(taken.resources),
            sorted(taken.identifiers),
            sorted(taken.ranges),
            sorted(taken.shown),
            sorted(taken.binaries),
            sorted(taken.seqs),
            sorted({*rewritten, *taken.relinked}),
            [taken.unread] if taken.unread else [],
        )

    def add(self, other: Target) -> None:
        """All of both."""
        for name in self.__struct_fields__:
            getattr(self, name).extend(getattr(other, name))

    @property
    def gone(self) -> Gone:
        """What is erased, as texts name it."""
        return Gone([*self.resources, *(f"Patient/{one}" for one in self.asked)], self.identifiers)


class Targets:
    """The rows of one erasure."""

    def __init__(self, vault: Vault, name: str) -> None:
        self._vault = vault
        self._name = name

    def keep(self, permit: Permit, tx: Connection, target: Target) -> None:
        """Add a row, in the transaction that does what it tells of."""
        query = select(func.max(table.c.number)).where(table.c.erasure == self._name)
        last = tx.execute(query).scalar()
        number = 0 if last is None else last + 1
        data = zstandard.compress(msgspec.msgpack.encode(target))
        sealed = self._vault.sealer.seal(permit, tx, "", self._context(number), data)
        tx.execute(insert(table).values(erasure=self._name, number=number, sealed=sealed))

    def load(self, permit: Permit, tx: Connection) -> Target:
        """All rows as one."""
        whole = Target()
        query = select(table.c.number, table.c.sealed).where(table.c.erasure == self._name).order_by(table.c.number)
        for number, sealed in tx.execute(query):
            data = self._vault.sealer.open(permit, tx, "", self._context(number), sealed)
            text = zstandard.ZstdDecompressor().decompress(data, max_output_size=_MOST)
            whole.add(msgspec.msgpack.decode(text, type=decodable(Target)))
        return whole

    def drop(self, tx: Connection) -> None:
        """Delete them: the erasure is done, and nothing remembers whose it was."""
        tx.execute(delete(table).where(table.c.erasure == self._name))

    def _context(self, number: int) -> bytes:
        return f"erasure-target\x1f{self._name}\x1f{number}".encode()


def reason_context(name: str) -> bytes:
    """What the reason of an erasure is sealed with."""
    return b"erasure-reason\x1f" + name.encode()


def checked_patients(patients: Sequence[str]) -> list[str]:
    """Ids, each once; `Invalid` ``pipelines.erase_patients``."""
    wanted = list(dict.fromkeys(one.removeprefix("Patient/") for one in patients))
    if not wanted or any(not 0 < len(one) <= _LONGEST_ID for one in wanted):
        raise Invalid("pipelines.erase_patients", "Name at least one patient, by the id that the record has.")
    return wanted


def checked_reason(text: str) -> str:
    """A reason in one line; `Invalid` ``pipelines.erase_reason``."""
    told = " ".join(text.split())
    if not 0 < len(told) <= _LONGEST_REASON:
        raise Invalid(
            "pipelines.erase_reason", f"A reason has 1 to {_LONGEST_REASON} characters; say why it is done."
        )
    return told


def pages(sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Start and end of pages of patients, by the versions of each: other writers wait while one is taken out."""
    start = held = 0
    for at, size in enumerate(sizes):
        if at > start and (at - start >= _PATIENTS or held + size > _VERSIONS):
            yield start, at
            start, held = at, 0
        held += size
    if start < len(sizes):
        yield start, len(sizes)
