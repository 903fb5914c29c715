"""The driver that the settings ask for."""

from __future__ import annotations

from pathlib import Path

import msgspec

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
        # By workspace and copy, since others may use the same place; only ``vault`` is the workspace's alone.
        root, name = folder.parent, settings.copy_name
        colder = {"cool": root / said.cool_folder / name, "archive": root / said.archive_folder / name}
        return LocalBlobs({"hot": folder, **colder})
    if said.driver == "s3":
        from carelake.vault.drivers.s3 import S3Blobs

        prefix = f"{settings.s3.prefix}{settings.copy_name}/"
        return S3Blobs.connect(msgspec.structs.replace(settings.s3, prefix=prefix))
    raise Invalid("vault.driver", "The setting objects.driver names no driver; expected local or s3.")
