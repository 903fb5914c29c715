"""The driver that the settings ask for."""

from __future__ import annotations

from pathlib import Path

from carelake.core.errors import Invalid
from carelake.core.settings import Settings
from carelake.vault.blobs import Blobs
from carelake.vault.drivers.local import LocalBlobs

__all__ = ["blobs_for"]


def blobs_for(folder: Path, settings: Settings) -> Blobs:
    """Where the objects of a workspace lie.

    Args:
        folder: the workspace's ``vault`` folder.

    Raises:
        Invalid: ``vault.driver``. Unavailable: ``vault.extra``.
    """
    said = settings.objects
    if said.driver == "local":
        root = folder.parent
        return LocalBlobs({"hot": folder, "cool": root / said.cool_folder, "archive": root / said.archive_folder})
    if said.driver == "s3":
        from carelake.vault.drivers.s3 import S3Blobs

        return S3Blobs.connect(settings.s3)
    raise Invalid("vault.driver", "The setting objects.driver names no driver; expected local or s3.")
