"""What the modules of the object store share: where bytes and rows lie, and the keys that open them."""

from __future__ import annotations

from dataclasses import dataclass, field

from carelake.core.clock import Clock
from carelake.core.ids import Ids
from carelake.core.permit import Permit, check
from carelake.core.settings import Settings
from carelake.vault.blobs import Blobs
from carelake.vault.database import Database
from carelake.vault.keyring import Key, Keyring
from carelake.vault.places import LOCKED, zone_of
from carelake.vault.presence import Presence

__all__ = ["Depot"]


@dataclass(slots=True)
class Depot:
    """The parts of one open object store.

    Attributes:
        gone: blobs whose bytes are removed, and whose rows of ``object_removal`` can go with the next write.
        unsure: writes of this process that may have left files without a row.
    """

    workspace: str
    settings: Settings
    keyring: Keyring
    database: Database
    clock: Clock
    ids: Ids
    blobs: Blobs
    presence: Presence
    gone: list[tuple[str, str]] = field(default_factory=list)
    unsure: int = 0

    def reader(self, permit: Permit, zone: str) -> None:
        """Let pass a permit with ``ZONE:read``; the use of the zone's key is noted."""
        self.keyring.use(permit, f"{zone_of(zone)}:read", _key_of(permit, zone))

    def writer(self, permit: Permit, zone: str) -> Key:
        """The zone's newest key, for a permit with ``ZONE:write``."""
        return self.keyring.use(permit, f"{zone_of(zone)}:write", _key_of(permit, zone))

    def keeper(self, permit: Permit, zone: str) -> None:
        """Let pass a permit with ``ZONE:keep``. It opens no bytes, so no key is used."""
        check(permit, f"{zone_of(zone)}:keep", now=self.clock.now())

    def key(self, account: str, zone: str, version: int | None = None) -> Key:
        """A key of a zone, for modules of this room that have checked the permit."""
        return self.keyring.inner(f"{account}/{zone}", version)

    def inline_bytes(self, zone: str) -> int:
        """Longest object of a zone whose bytes go beside its row.

        None in a locked zone: evidence lies apart from the rows that it is evidence of. None on a driver that is
        asked for by name, since what lies there is wanted there.
        """
        said = self.settings.objects
        return 0 if zone in LOCKED or said.driver != "local" else said.inline_bytes


def _key_of(permit: Permit, zone: str) -> str:
    # What is no permit at all is refused by `use`, by name, and must get that far.
    return f"{getattr(permit, 'account', '')}/{zone}"
