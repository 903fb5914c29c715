"""A trail put back to an earlier point goes on from there, and says so (decision 0023).

    record  {"at","copy","from","key","parent","point","restore","signature","to","workspace"}
    copy    the id of the copy that was made; parent: that of the one that was backed up, "" for the original
    from    the head of that one, as it was signed; null when none was known
    to      {"at","digest","last","number"}: where the restored trail goes on from

Records lie beside the root key, one a line, with the copy's head: those that its original came from, then its own.
The original's files are read, and not changed. Heads at an anchor name their copy: those of the original hold for the
copy up to where it goes its own way, those of other copies do not; the record says which, and nothing else does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

from sqlalchemy import select, update

from carelake.audit.heads import Heads
from carelake.audit.merkle import Frontier
from carelake.audit.signing import TrailKey
from carelake.audit.tables import act, seal_lease, segment
from carelake.core import canonical
from carelake.core.clock import iso
from carelake.core.errors import CarelakeError, Corrupt
from carelake.core.permit import Permit
from carelake.vault.backup.records import Original, RestoresFile
from carelake.vault.workspace import Vault

if TYPE_CHECKING:
    from carelake.audit.trail import Trail

__all__ = ["Restores", "TrailEnd", "end_of", "seal_all", "trail_end"]

_PATIENCE_SECONDS = 5.0
_LOOK_SECONDS = 0.05
_NEVER = 2**63


@dataclass(frozen=True, slots=True)
class TrailEnd:
    """Where a trail ends.

    Attributes:
        number, digest, sealed: the last segment, its digest and its last act; 0, "" and 0 when there is none.
        last, at: the last act, sealed or not, and its time.
    """

    number: int
    digest: str
    sealed: int
    last: int
    at: str


def trail_end(connection: Any) -> TrailEnd:
    """The end of the trail in a snapshot."""
    row = connection.execute(select(segment).order_by(segment.c.number.desc()).limit(1)).mappings().first()
    last = connection.execute(select(act.c.seq, act.c.at).order_by(act.c.seq.desc()).limit(1)).first()
    number, digest, sealed = (row["number"], row["digest"], row["last"]) if row else (0, "", 0)
    return TrailEnd(number, digest, sealed, last.seq if last else 0, last.at if last else "")


def end_of(vault: Vault) -> TrailEnd:
    """The end of the trail now."""
    with vault.database.ledger_reading() as connection:
        return trail_end(connection)


def seal_all(vault: Vault, trail: Trail, permit: Permit) -> bool:
    """Have all acts sealed that are committed by now, by us or whoever is the sealer; False if it took too long."""
    wanted, give_up = end_of(vault).last, monotonic() + _PATIENCE_SECONDS
    while True:
        trail.seal(permit)
        if end_of(vault).sealed >= wanted:
            return True
        if monotonic() > give_up:
            return False
        sleep(_LOOK_SECONDS)


class Restores:
    """The records of one workspace."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._key = TrailKey(vault.keyring)
        self._file = RestoresFile(vault.head_folder, vault.settings.workspace, vault.settings.copy)

    def all(self) -> list[dict[str, Any]]:
        """Every record that this workspace signed, oldest first."""
        return [record for line in self._file.read().splitlines() if (record := self._opened(line))]

    @cached_property
    def _shared(self) -> dict[str, int]:
        """The last segment that we share with each copy that we came from. The records are read once."""
        here, upto = self._vault.settings.copy, _NEVER
        shared = {here: upto}
        for record in reversed(self.all()):
            if record["copy"] == here and record["parent"] not in shared:
                here, upto = record["parent"], min(upto, record["to"]["number"])
                shared[here] = upto
        return shared

    def unfounded(self) -> str:
        """What is wrong when this calls itself a copy and nothing signed says of what; "" when nothing is."""
        if self._vault.settings.copy and len(self._shared) == 1:
            return "the signed record of the restore that made this copy is missing beside the root key"
        return ""

    def ours(self, heads: Iterable[bytes]) -> Iterator[bytes]:
        """Of the heads at an anchor those that hold for this trail, and whatever is none at all."""
        for data in heads:
            try:
                told = canonical.load(data)
                workspace, copy, number = told["workspace"], told.get("copy", ""), int(told["number"])
            except (CarelakeError, AttributeError, KeyError, TypeError, ValueError):
                yield data
                continue
            if workspace != self._vault.settings.workspace or number <= self._shared.get(copy, 0):
                yield data

    @staticmethod
    def copy_told(data: bytes) -> str:
        """Which copy a head names, unproved."""
        try:
            return str(canonical.load(data).get("copy", ""))
        except (CarelakeError, AttributeError, ValueError):
            return ""

    def findings(self) -> Iterator[tuple[str, str]]:
        """Name and sentence for each restore, for `verify`."""
        for record in self.all():
            to, left = record["to"], record["from"]
            lost = f"acts {to['last'] + 1} to {left['last']} of the original are not in it" if left else ""
            if left and left["last"] <= to["last"]:
                lost = "it has every act that the original's head knew of"
            told = f"restored on {record['at']} from the backup point {record['point']}"
            yield f"segment {to['number']}", f"{told}; {lost or 'it is not known what it lacks'}"

    def clear_lease(self) -> None:
        """The sealer of the lost copy is gone, whatever its lease says; the fence goes on counting."""
        with self._vault.database.ledger() as connection:
            connection.execute(update(seal_lease).values(until=iso(self._vault.clock.now())))

    def go_on(self, heads: Heads, original: Original, *, restore: str, point: str) -> dict[str, Any]:
        """Sign the record of this restore, then the copy's head, which names the restored end; answers the record.

        The same ``restore`` again, after a crash, finds its record and leaves it: the head of the original in it is
        that of the first try.

        Raises:
            Corrupt: ``audit.restored_empty``: the point holds no sealed segment.
        """
        with self._vault.database.ledger_reading() as connection:
            query = select(segment).order_by(segment.c.number.desc()).limit(1)
            row = connection.execute(query).mappings().first()
        if row is None:
            raise Corrupt("audit.restored_empty", "The restored trail has no sealed segment; use another point.")
        record = next((one for one in self.all() if one["restore"] == restore), None)
        if record is None:
            record = self._signed(heads, original, dict(row), restore, point)
            # Lines that we did not sign come along: they are somebody's to explain.
            self._file.write(original.records() + canonical.dump(record) + b"\n")
        self._vault.write_head(heads.signed(dict(row), Frontier(row["peaks"]).root()))
        return record

    def left_behind(self, heads: Heads, original: Original, restore: str) -> dict[str, Any] | None:
        """The original's head, now or at the first try of this restore; None when none is known."""
        for record in self.all():
            if record["restore"] == restore:
                return record["from"] or None
        data = original.head()
        return (heads.opened(data, original.copy) if data is not None else None) or None

    def _signed(
        self, heads: Heads, original: Original, row: dict[str, Any], restore: str, point: str
    ) -> dict[str, Any]:
        said = {
            "workspace": self._vault.settings.workspace,
            "copy": self._vault.settings.copy,
            "parent": original.copy,
            "restore": restore,
            "point": point,
            "at": iso(self._vault.clock.now()),
            "from": self.left_behind(heads, original, restore),
            "to": {name: row[name] for name in ("number", "digest", "last", "at")},
            "key": self._key.version,
        }
        return {**said, "signature": self._key.sign(b"carelake-restore-1\n" + canonical.dump(said)).hex()}

    def _opened(self, line: bytes) -> dict[str, Any]:
        try:
            record = canonical.load(line)
            said = {name: value for name, value in record.items() if name != "signature"}
            signature = bytes.fromhex(record["signature"])
            if said["workspace"] != self._vault.settings.workspace:
                return {}
            signed = self._key.verify(b"carelake-restore-1\n" + canonical.dump(said), signature, said["key"])
        except (CarelakeError, AttributeError, KeyError, TypeError, ValueError):
            return {}
        return dict(record) if signed else {}
