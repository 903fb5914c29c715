"""The driver that the settings ask for."""

from __future__ import annotations

from pathlib import Path

import msgspec

from carelake.core.errors import Invalid
from carelake.core.settings import S3Settings, Settings
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
        colder = {"cool": root / said.cool_folder, "archive": root / said.archive_folder}
        return LocalBlobs({"hot": folder, **{name: _own(path, root, settings) for name, path in colder.items()}})
    if said.driver == "s3":
        from carelake.vault.drivers.s3 import S3Blobs

        return S3Blobs.connect(_own_prefix(settings))
    raise Invalid("vault.driver", "The setting objects.driver names no driver; expected local or s3.")


def _own(folder: Path, root: Path, settings: Settings) -> Path:
    """A folder outside of the workspace is the original's; a restored copy has one of its own in it."""
    inside = folder.resolve().is_relative_to(root.resolve())
    return folder if inside or not settings.copy else folder / settings.copy


def _own_prefix(settings: Settings) -> S3Settings:
    """Likewise in a bucket."""
    said = settings.s3
    return msgspec.structs.replace(said, prefix=f"{said.prefix}{settings.copy}/") if settings.copy else said
