"""Settings: one frozen object, read from ``carelake.toml`` and ``CARELAKE_*`` in `apps.wiring` only."""

from __future__ import annotations

import posixpath
import re
from typing import Literal

import msgspec

__all__ = [
    "FORMAT",
    "MIB",
    "AccessSettings",
    "AccountSettings",
    "ApprovalSettings",
    "AuditSettings",
    "DatabaseSettings",
    "EventSettings",
    "IngestSettings",
    "KeysSettings",
    "LakeSettings",
    "LifecycleRules",
    "LockoutSettings",
    "ObjectSettings",
    "OidcIssuer",
    "OidcSettings",
    "S3Settings",
    "SearchSettings",
    "ServeSettings",
    "Settings",
    "Sigv4Settings",
    "ValidationSettings",
]

MIB = 1024 * 1024
FORMAT = 2
"""Number of the on-disk format that this version writes; see `carelake.vault.formats`."""

LEAST_RETENTION_DAYS = 2190
_COPY = re.compile(r"[0-9a-f]{16}")


class IngestSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bounds on what is read; each one's breach is a quarantine or an error that names the setting.

    Attributes:
        page: entries that are committed together; other writers wait for a page, and each page costs a commit.
    """

    workers: int = 1
    page: int = 10_000
    max_line_bytes: int = 64 * MIB
    max_document_bytes: int = 256 * MIB
    max_ratio: int = 250
    max_depth: int = 100
    validation: Literal["strict", "structure", "minimal"] = "structure"


class ValidationSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is asked of a resource before it is kept (docs/validation.md); for import see `IngestSettings.validation`.

    Attributes:
        write: the level for what is written over HTTP.
        references: with ``on``, what a write refers to on this server must be there.
    """

    write: Literal["strict", "structure", "minimal"] = "strict"
    references: Literal["off", "on"] = "off"


class LakeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """DuckDB never spills in the clear (decision D8): past the limit it fails with an error that names this."""

    memory_limit: str = "4GB"
    threads: int = 2


class ApprovalSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Decision D14: with ``local`` false a run stops at PendingManualApproval."""

    local: bool = True


class LockoutSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """After ``failures`` in ``window_seconds`` a source may not try a name for ``first_seconds``, then twice that."""

    failures: int = 5
    window_seconds: int = 900
    first_seconds: int = 5
    max_seconds: int = 900


class OidcIssuer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One identity provider whose tokens are taken, and how its claims become a principal (docs/access.md)."""

    issuer: str
    audience: str
    jwks: str
    algorithms: tuple[str, ...] = ("RS256", "ES256", "PS256")
    subject_claim: str = "sub"
    roles_claim: str = ""
    roles: dict[str, str] = {}
    purpose_claim: str = ""
    purpose: str = ""
    account: str = "production"
    max_seconds: int = 43_200
    once: bool = False


class OidcSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Identity providers, and the bounds on what is fetched from them."""

    issuers: tuple[OidcIssuer, ...] = ()
    leeway_seconds: int = 30
    cache_seconds: int = 600
    refetch_seconds: int = 30
    timeout_seconds: float = 5.0
    max_bytes: int = 262_144


class Sigv4Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a signed request must be signed for."""

    services: tuple[str, ...] = ("carelake", "execute-api", "healthlake", "s3", "sagemaker")
    regions: tuple[str, ...] = ("us-east-1",)
    skew_seconds: int = 300
    unsigned_payload: bool = False
    refuse_replay: bool = True


class AccessSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long rights live, in seconds; what else the doors ask of who calls (docs/access.md)."""

    permit_seconds: int = 3600
    job_seconds: int = 86_400
    token_seconds: int = 3600
    token_max_seconds: int = 43_200
    glass_max_minutes: int = 240
    review_days: int = 3
    grant_max_days: int = 365
    key_warn_days: int = 75
    key_max_days: int = 90
    lockout: LockoutSettings = LockoutSettings()
    oidc: OidcSettings = OidcSettings()
    sigv4: Sigv4Settings = Sigv4Settings()


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


class EventSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How events are delivered. Times in seconds.

    Attributes:
        hosts: hosts, or host:port, that webhooks and event buses may be at; white space or commas between them.
        networks: networks that are not public and that these may lie in, for example ``10.1.0.0/16``.
        tries: attempts before an event is a dead letter; the waits double from ``first_seconds`` to ``cap_seconds``.
        keep_days: `carelake events trim` deletes what is older, as far as everyone has it.
        poll_seconds: how often the server looks for events to deliver; 0 means that it delivers none.
    """

    hosts: str = ""
    networks: str = ""
    tries: int = 16
    first_seconds: float = 1.0
    cap_seconds: float = 21_600.0
    timeout_seconds: float = 10.0
    lease_seconds: float = 60.0
    keep_days: int = 30
    poll_seconds: float = 1.0


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


class SearchSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is indexed for searches, and their bounds.

    Attributes:
        content: index the words of all texts, for ``_content``; `carelake reindex` builds them.
        included: how many resources ``_include`` and ``_revinclude`` may bring to one page; the rest is left out,
            and the answer says so.
        seconds: how long the database may take for one search.
    """

    content: bool = False
    included: int = 2000
    seconds: float = 30.0


class ServeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bounds of the HTTP door."""

    max_body_bytes: int = 5 * MIB
    seal_seconds: float = 1.0


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
    database: DatabaseSettings = DatabaseSettings()
    events: EventSettings = EventSettings()
    keys: KeysSettings = KeysSettings()
    search: SearchSettings = SearchSettings()
    serve: ServeSettings = ServeSettings()
    validation: ValidationSettings = ValidationSettings()
    objects: ObjectSettings = ObjectSettings()
    s3: S3Settings = S3Settings()
    lifecycle: dict[str, LifecycleRules] = {}

    def __post_init__(self) -> None:
        if self.copy and not _COPY.fullmatch(self.copy):
            raise ValueError("copy is 16 lower-case hex digits, as `restore` wrote them, or is left out")

    @property
    def copy_name(self) -> str:
        """``WORKSPACE``, or ``WORKSPACE.COPY``: what tells this copy of the workspace from any other."""
        return f"{self.workspace}.{self.copy}" if self.copy else self.workspace
