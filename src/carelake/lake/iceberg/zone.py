"""The port of the lake's zone: where data files, manifests and metadata of its tables lie (decision 0046).

A file has a name (``iceberg/Patient/data/...``), the same with every driver, and an address, which Iceberg writes
into metadata. Every step asks for a permit with the grants ``lake:read`` or ``lake:write``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from pyiceberg.io import FileIO

from carelake.core.permit import Permit
from carelake.lake.drivers.s3 import BucketZone
from carelake.lake.drivers.sealed import SealedZone
from carelake.vault.workspace import Vault

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["Entry", "Zone", "zone"]


class Entry(Protocol):
    """A file that is there.

    Attributes:
        created: an instant. held: under a legal hold.
    """

    @property
    def name(self) -> str: ...
    @property
    def created(self) -> str: ...
    @property
    def held(self) -> bool: ...


class Zone(Protocol):
    """The zone of each account."""

    def address(self, permit: Permit, name: str) -> str:
        """What Iceberg calls a file."""
        ...

    def put(self, permit: Permit, name: str, data: ReadableBuffer) -> None:
        """Write a file whole."""
        ...

    def open(self, permit: Permit, name: str) -> Any:
        """A file to read, with seek; a context manager.

        Raises:
            NotFound: there is no such file.
        """
        ...

    def list(self, permit: Permit, prefix: str = "") -> Sequence[Entry]:
        """The files whose names begin so."""
        ...

    def remove(self, permit: Permit, name: str) -> None:
        """Remove a file with its bytes.

        Raises:
            NotFound: there is no such file. Refused: it is held.
        """
        ...

    def file_io(self, permit: Permit) -> FileIO:
        """pyiceberg's way to the same files."""
        ...


def zone(vault: Vault) -> Zone:
    """The zone that the settings ask for."""
    return BucketZone(vault) if vault.settings.lake.driver == "s3" else SealedZone(vault)
