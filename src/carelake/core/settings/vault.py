"""Bytes at rest and what is kept of acts: accounts, trail, objects, keys, database."""

from __future__ import annotations

import posixpath

import msgspec

from carelake.core.settings.units import MIB

__all__ = [
    "AccountSettings",
    "AuditSettings",
    "DatabaseSettings",
    "KeysSettings",
    "LifecycleRules",
    "ObjectSettings",
    "S3Settings",
]

LEAST_RETENTION_DAYS = 2190


class AccountSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is said of an account beside its name."""

    jurisdiction: str = ""


class AuditSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the trail is sealed, kept and anchored (docs/audit.md).

    Attributes:
        retention_days: how long acts and segments are kept at the least; 2,190 days are six years.
        anchor: a folder (one file per head) or a file (one line per head) outside of workspace and key folder.
        anchor_seconds: the anchor gets a head at most this often.
        lease_seconds: a sealer that is silent for so long is replaced.
        segment_acts: most acts in one segment.
    """

    retention_days: int = 2190
    anchor: str = ""
    anchor_seconds: float = 60.0
    lease_seconds: float = 10.0
    segment_acts: int = 10_000

    def __post_init__(self) -> None:
        if self.retention_days < LEAST_RETENTION_DAYS:
            raise ValueError(
                f"audit.retention_days is {self.retention_days}; records of actions are kept at least "
                f"{LEAST_RETENTION_DAYS} days, six years (45 CFR 164.316(b)(2)(i))"
            )
        if not (1 <= self.segment_acts <= 100_000 and self.lease_seconds >= 1 and self.anchor_seconds >= 0):
            raise ValueError(
                "audit.segment_acts is 1 to 100000, audit.lease_seconds at least 1, audit.anchor_seconds at least 0"
            )


class ObjectSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where sealed objects lie (docs/objects.md). Folders are absolute, or below the workspace."""

    driver: str = "local"
    inline_bytes: int = 16_384
    part_bytes: int = 64 * MIB
    cool_folder: str = "vault-cool"
    archive_folder: str = "vault-archive"

    def __post_init__(self) -> None:
        folders = {posixpath.normpath(name) for name in ("vault", self.cool_folder, self.archive_folder)}
        if len(folders) < 3:
            raise ValueError("objects.cool_folder and objects.archive_folder are two folders, and neither is `vault`")


class S3Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The bucket of the object driver ``s3``: versioned, with Object Lock; credentials come from the environment."""

    bucket: str = ""
    prefix: str = ""
    region: str = ""
    endpoint_url: str = ""
    kms_key: str = ""


class LifecycleRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What happens to a zone's objects with age, in days; 0 is never. What is held or retained is not touched."""

    cool_days: int = 0
    archive_days: int = 0
    expire_days: int = 0
    expire_old_days: int = 0
    abort_upload_days: int = 7


class KeysSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When keys are due (docs/keys.md), in days; 0 means never.

    Attributes:
        waiting: between the confirmation of a key's destruction and the destruction, 7 to 30.
        unused: a key that nobody used for so long is told as stale.
    """

    account_max_age: int = 730
    zone_max_age: int = 365
    patient_max_age: int = 365
    signing_max_age: int = 730
    waiting: int = 30
    unused: int = 180

    def __post_init__(self) -> None:
        if not 7 <= self.waiting <= 30:
            raise ValueError(f"keys.waiting is {self.waiting}; the waiting period is 7 to 30 days")

    def max_age(self, kind: str) -> int:
        """Days after which a key of that kind is due for rotation; 0 for never."""
        return int(getattr(self, f"{kind}_max_age", 0))


class DatabaseSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where rows are kept: a SQLCipher file in the workspace, or PostgreSQL (docs/sql.md).

    Attributes:
        url: ``postgresql://USER@HOST:PORT/DATABASE``; "" for the file.
        password_file: a file that holds the password and nothing else; else libpq's own means, as ``PGPASSFILE``.
        encrypted_volume: attests that the server's disk is encrypted: its rows are plaintext to it (decision D4).
    """

    url: str = ""
    password_file: str = ""
    encrypted_volume: bool = False

    def __repr__(self) -> str:
        # The url may hold a password.
        return f"DatabaseSettings(url={'(set)' if self.url else '(none)'})"
