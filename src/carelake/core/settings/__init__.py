"""Settings: one frozen object, read from ``carelake.toml`` and ``CARELAKE_*`` in `apps.wiring` only."""

from __future__ import annotations

from carelake.core.settings.access import (
    AccessSettings,
    ApprovalSettings,
    ConsentSettings,
    LockoutSettings,
    OidcIssuer,
    OidcSettings,
    Sigv4Settings,
    SmartSettings,
)
from carelake.core.settings.doors import EventSettings, ServeSettings
from carelake.core.settings.lake import LakeBucketSettings, LakeSettings, SparkSettings
from carelake.core.settings.learning import FeatureSettings, PipelineSettings, ServingSettings
from carelake.core.settings.record import BulkSettings, IngestSettings, SearchSettings, ValidationSettings
from carelake.core.settings.units import MIB
from carelake.core.settings.vault import (
    AccountSettings,
    AuditSettings,
    DatabaseSettings,
    KeysSettings,
    LifecycleRules,
    ObjectSettings,
    S3Settings,
)
from carelake.core.settings.whole import FORMAT, Settings

__all__ = [
    "FORMAT",
    "MIB",
    "AccessSettings",
    "AccountSettings",
    "ApprovalSettings",
    "AuditSettings",
    "BulkSettings",
    "ConsentSettings",
    "DatabaseSettings",
    "EventSettings",
    "FeatureSettings",
    "IngestSettings",
    "KeysSettings",
    "LakeBucketSettings",
    "LakeSettings",
    "LifecycleRules",
    "LockoutSettings",
    "ObjectSettings",
    "OidcIssuer",
    "OidcSettings",
    "PipelineSettings",
    "S3Settings",
    "SearchSettings",
    "ServeSettings",
    "ServingSettings",
    "Settings",
    "Sigv4Settings",
    "SmartSettings",
    "SparkSettings",
    "ValidationSettings",
]
