"""Settings: one frozen object, read from ``carelake.toml`` and ``CARELAKE_*`` in `apps.wiring` only."""

from __future__ import annotations

import msgspec

__all__ = [
    "AccessSettings",
    "ApprovalSettings",
    "IngestSettings",
    "LakeSettings",
    "ServeSettings",
    "Settings",
]

MIB = 1024 * 1024


class IngestSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bounds on what is read; each one's breach is a quarantine or an error that names the setting."""

    workers: int = 1
    max_line_bytes: int = 64 * MIB
    max_document_bytes: int = 256 * MIB
    max_ratio: int = 250
    max_depth: int = 100


class LakeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """DuckDB never spills in the clear (decision D8): past the limit it fails with an error that names this."""

    memory_limit: str = "4GB"
    threads: int = 2


class ApprovalSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Decision D14: with ``local`` false a run stops at PendingManualApproval."""

    local: bool = True


class AccessSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long a permit, a job's permit and a token live, in seconds."""

    permit_seconds: int = 3600
    job_seconds: int = 86_400
    token_seconds: int = 3600


class ServeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bounds of the HTTP door."""

    max_body_bytes: int = 5 * MIB
    seal_seconds: float = 1.0


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that can be set.

    Attributes:
        workspace: the workspace's id, made by ``init``.
        format: number of the on-disk format.
    """

    workspace: str
    format: int = 1
    ingest: IngestSettings = IngestSettings()
    lake: LakeSettings = LakeSettings()
    approval: ApprovalSettings = ApprovalSettings()
    access: AccessSettings = AccessSettings()
    serve: ServeSettings = ServeSettings()
