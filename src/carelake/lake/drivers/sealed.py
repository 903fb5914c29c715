"""The lake's files as sealed objects of the vault's zone ``lake``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pyiceberg.io.fsspec import FsspecFileIO

from carelake.core.errors import Unsupported
from carelake.core.permit import Permit
from carelake.vault.filesystem import VaultFileSystem
from carelake.vault.versions import ObjectVersion
from carelake.vault.workspace import Vault

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["SealedZone", "VaultFileIO"]


class VaultFileIO(FsspecFileIO):  # type: ignore[misc]
    """pyiceberg's files through one permit's filesystem; it reads and writes nowhere else."""

    def __init__(self, vault: Vault, permit: Permit) -> None:
        super().__init__({})
        self._vault_fs = VaultFileSystem(vault.objects, permit)

    def get_fs(self, scheme: str, hostname: str | None = None) -> VaultFileSystem:
        """The filesystem of the permit, for ``vault://`` alone."""
        if scheme != "vault":
            raise Unsupported("lake.scheme", "Lake files live in vault://; another address is not followed.")
        return self._vault_fs


class SealedZone:
    """See `zone.Zone`."""

    name = "lake"

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    def address(self, permit: Permit, name: str) -> str:
        """See `zone.Zone`."""
        return f"vault://{self.name}/{name}"

    def put(self, permit: Permit, name: str, data: ReadableBuffer) -> None:
        """See `zone.Zone`."""
        self._vault.objects.put(permit, self.name, name, data)

    def open(self, permit: Permit, name: str) -> Any:
        """See `zone.Zone`."""
        return self._vault.objects.open(permit, self.name, name)

    def list(self, permit: Permit, prefix: str = "") -> Sequence[ObjectVersion]:
        """See `zone.Zone`."""
        return self._vault.objects.list(permit, self.name, prefix)

    def remove(self, permit: Permit, name: str) -> None:
        """See `zone.Zone`."""
        self._vault.objects.remove(permit, self.name, name)

    def file_io(self, permit: Permit) -> VaultFileIO:
        """See `zone.Zone`."""
        return VaultFileIO(self._vault, permit)
