"""All settings together: one frozen object."""

from __future__ import annotations

import re

import msgspec

from carelake.core.settings.access import AccessSettings, ApprovalSettings
from carelake.core.settings.doors import EventSettings, ServeSettings
from carelake.core.settings.lake import LakeSettings
from carelake.core.settings.learning import FeatureSettings, PipelineSettings, ServingSettings
from carelake.core.settings.record import BulkSettings, IngestSettings, SearchSettings, ValidationSettings
from carelake.core.settings.vault import (
    AccountSettings,
    AuditSettings,
    DatabaseSettings,
    KeysSettings,
    LifecycleRules,
    ObjectSettings,
    S3Settings,
)

__all__ = ["FORMAT", "Settings"]

FORMAT = 2
"""Number of the on-disk format that this version writes; see `carelake.vault.formats`."""
_COPY = re.compile(r"[0-9a-f]{16}")


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that can be set.

    Attributes:
        workspace: the workspace's id, made by ``init``.
        format: number of the on-disk format.
        version: of the carelake that wrote the format: an older one asks for it.
        copy: of a workspace that `restore` made, 16 hex digits: tells its files outside from the original's.
    """

    workspace: str
    format: int = FORMAT
    version: str = ""
    copy: str = ""
    ingest: IngestSettings = IngestSettings()
    lake: LakeSettings = LakeSettings()
    approval: ApprovalSettings = ApprovalSettings()
    access: AccessSettings = AccessSettings()
    accounts: dict[str, AccountSettings] = {}
    audit: AuditSettings = AuditSettings()
    bulk: BulkSettings = BulkSettings()
    database: DatabaseSettings = DatabaseSettings()
    events: EventSettings = EventSettings()
    features: FeatureSettings = FeatureSettings()
    keys: KeysSettings = KeysSettings()
    search: SearchSettings = SearchSettings()
    serve: ServeSettings = ServeSettings()
    serving: ServingSettings = ServingSettings()
    validation: ValidationSettings = ValidationSettings()
    objects: ObjectSettings = ObjectSettings()
    pipelines: PipelineSettings = PipelineSettings()
    s3: S3Settings = S3Settings()
    lifecycle: dict[str, LifecycleRules] = {}

    def __post_init__(self) -> None:
        if self.copy and not _COPY.fullmatch(self.copy):
            raise ValueError("copy is 16 lower-case hex digits, as `restore` wrote them, or is left out")

    @property
    def copy_name(self) -> str:
        """``WORKSPACE``, or ``WORKSPACE.COPY``: what tells this copy of the workspace from any other."""
        return f"{self.workspace}.{self.copy}" if self.copy else self.workspace
