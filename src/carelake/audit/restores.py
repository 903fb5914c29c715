"""A trail put back to an earlier point goes on from there, and says so (decision 0023).

    record  {"at","from","key","point","restore","signature","to","workspace"}
    from    the head that was left behind, as it was signed; null when none was known
    to      {"at","digest","last","number"}: where the restored trail goes on from

Records lie beside the root key, like the head, one a line. The head is never silently replaced: first the record is
there, then the head that names the restored end. What an anchor remembers of the way that was left is excused by the
record, and by nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
from carelake.vault.backup.records import RestoresFile
from carelake.vault.workspace import Vault

if TYPE_CHECKING:
    from carelake.audit.trail import Trail

__all__ = ["Restores", "TrailEnd", "end_of", "seal_all", "trail_end"]

_PATIENCE_SECONDS = 5.0
_LOOK_SECONDS = 0.05


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
        self._file = RestoresFile(vault.head_folder, vault.settings.workspace)

    def all(self) -> list[dict[str, Any]]:
        """Every record that this workspace signed, oldest first."""
        return [record for line in self._file.read().splitlines() if (record := self._opened(line))]

    @cached_property
    def _known(self) -> list[dict[str, Any]]:
        return self.all()

    def abandoned(self, head: Mapping[str, Any]) -> bool:
        """Is this head on a way that was left by a restore? The records are read once."""
        return any(
            (record["from"] or {}).get("number", 0) >= head["number"] > record["to"]["number"]
            for record in self._known
        )

    def findings(self) -> Iterator[tuple[str, str]]:
        """Name and sentence for each restore, for `verify`."""
        for record in self.all():
            to, left = record["to"], record["from"]
            lost = f"acts {to['last'] + 1} to {left['last']} of the lost copy are not in it" if left else ""
            if left and left["last"] <= to["last"]:
                lost = "no act that the head knew of was lost"
            told = f"restored on {record['at']} from the backup point {record['point']}"
            yield f"segment {to['number']}", f"{told}; {lost or 'it is not known what was lost'}"

    def clear_lease(self) -> None:
        """The sealer of the lost copy is gone, whatever its lease says; the fence goes on counting."""
        with self._vault.database.ledger() as connection:
            connection.execute(update(seal_lease).values(until=iso(self._vault.clock.now())))

    def go_on(self, heads: Heads, *, restore: str, point: str) -> dict[str, Any]:
        """Sign the record of this restore, then the head that names the restored end; answers the record.

        The same ``restore`` again, after a crash, finds its record and leaves it: the head that it left behind is
        the one from before the first try.

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
            record = self._signed(heads, dict(row), restore, point)
            # Lines that we did not sign stay: they are somebody's to explain.
            self._file.write(self._file.read() + canonical.dump(record) + b"\n")
        self._vault.write_head(heads.signed(dict(row), Frontier(row["peaks"]).root()))
        return record

    def left_behind(self, heads: Heads, restore: str) -> dict[str, Any] | None:
        """The head that this restore leaves behind, or left at its first try; None when none is known."""
        for record in self.all():
            if record["restore"] == restore:
                return record["from"] or None
        return heads.read() or None

    def _signed(self, heads: Heads, row: dict[str, Any], restore: str, point: str) -> dict[str, Any]:
        left = heads.read()
        said = {
            "workspace": self._vault.settings.workspace,
            "restore": restore,
            "point": point,
            "at": iso(self._vault.clock.now()),
            "from": left or None,
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
