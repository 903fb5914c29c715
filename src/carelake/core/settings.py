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

MIB = 1024 * 1024
FORMAT = 2
"""Number of the on-disk format that this version writes; see `carelake.vault.formats`."""

LEAST_RETENTION_DAYS = 2190
_COPY = re.compile(r"[0-9a-f]{16}")
_BASE_URL = re.compile(
    r"(https://[A-Za-z0-9.-]{1,253}|http://(localhost|127\.0\.0\.1|\[::1\]))(:\d{1,5})?(/[A-Za-z0-9._~/-]*[A-Za-z0-9._~-])?"
)


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


class SparkSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Spark, where the lake's engine is that (docs/engines.md).

    Attributes:
        master: ``local[N]``, or a cluster's address as Spark takes it.
        memory: of the driver's Java process.
        jars: folder of Iceberg's and S3's jars, fetched from Maven Central once; "": in the user's cache folder.
    """

    master: str = "local[2]"
    memory: str = "2g"
    jars: str = ""


class LakeBucketSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the lake's files lie with the lake's driver ``s3``: plain Parquet under SSE-KMS, a bucket per account.

    Attributes:
        bucket: with ``{account}`` in it, for example ``acme-lake-{account}``.
    """

    bucket: str = ""
    prefix: str = ""
    region: str = ""
    endpoint_url: str = ""
    kms_key: str = ""

    def __post_init__(self) -> None:
        if self.bucket and "{account}" not in self.bucket:
            raise ValueError("lake.s3.bucket has {account} in it: accounts do not share a bucket")


class LakeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """DuckDB never spills in the clear (decision D8): past the limit it fails with an error that names this.

    Attributes:
        buckets: of patients, in each table.
        keep_days: how long snapshots stay that nothing needs.
        grace_seconds: how long files stay that no snapshot needs.
        result_bytes: of the rows of one statement of a user.
        seconds: that one statement of a user may take.
        statements: of one principal that run at the same time, at a server.
        keep_seconds: how long a server keeps the result of a statement.
        follow: whether a server keeps the lake right behind the record. follow_seconds: between a follower's flushes.
        engine: what runs views: DuckDB in this process, or Spark.
        k: patients that a count must be over, for who sees counts alone (docs/lake-access.md).
        driver: where files lie: sealed in the vault, or in buckets that Spark reads too (decision 0046).
    """

    memory_limit: str = "4GB"
    threads: int = 2
    result_bytes: int = 1 << 30
    seconds: float = 300.0
    statements: int = 4
    keep_seconds: float = 900.0
    buckets: int = 16
    follow: bool = False
    follow_seconds: float = 0.5
    keep_days: int = 7
    grace_seconds: int = 3600
    k: int = 11
    engine: Literal["duckdb", "spark"] = "duckdb"
    driver: Literal["vault", "s3"] = "vault"
    spark: SparkSettings = SparkSettings()
    s3: LakeBucketSettings = LakeBucketSettings()

    def __post_init__(self) -> None:
        if not 1 <= self.buckets <= 4096:
            raise ValueError(f"lake.buckets is {self.buckets}; a table has one to 4096")
        if min(self.keep_days, self.grace_seconds) < 0:
            raise ValueError("lake.keep_days and lake.grace_seconds are 0 or more")
        if self.k < 2:
            raise ValueError("lake.k is 2 or more: a count over one patient is that patient's")
        if self.driver == "s3" and not self.s3.bucket:
            raise ValueError("lake.driver is s3, which needs lake.s3.bucket")
        if self.result_bytes < 1 or not self.seconds > 0:
            raise ValueError("lake.result_bytes and lake.seconds are more than 0")
        if not self.follow_seconds > 0:
            raise ValueError("lake.follow_seconds is more than 0")
        if self.statements < 1 or self.keep_seconds < 1:
            raise ValueError("lake.statements and lake.keep_seconds are 1 or more")


class ApprovalSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who lets a model through, and how they show that it is they (decisions D14, 0054).

    Attributes:
        local: whether a local principal may approve within a run, and be spoken for; with false a run stops at
            PendingManualApproval.
        reauthenticate: of whom a fresh proof is asked: ``credential`` (whoever comes by a token that is older than
            ``reauthenticate_seconds``), ``always`` (everyone, at a local door too), ``off``.
    """

    local: bool = True
    reauthenticate: Literal["off", "credential", "always"] = "credential"
    reauthenticate_seconds: int = 300

    def __post_init__(self) -> None:
        if not 1 <= self.reauthenticate_seconds <= 3600:
            raise ValueError("approval.reauthenticate_seconds is 1 to 3600")

    @property
    def in_run(self) -> bool:
        """Whether a run may ask a local principal: where no fresh proof is asked of one."""
        return self.local and self.reauthenticate != "always"


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
    scope_claim: str = "scope"
    patient_claim: str = "patient"
    authorization_endpoint: str = ""
    token_endpoint: str = ""


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


class SmartSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The token endpoint for backend services (docs/smart.md).

    Attributes:
        base_url: this server's address as clients know it, without a slash at the end, for example
            ``https://fhir.example.org``; assertions are made for it. "" answers on loopback addresses only.
        token_seconds: how long its tokens last, at most five minutes.
    """

    base_url: str = ""
    token_seconds: int = 300

    def __post_init__(self) -> None:
        if self.base_url and not _BASE_URL.fullmatch(self.base_url):
            raise ValueError(
                "access.smart.base_url is https://HOST[:PORT][/PATH] (http on loopback), no slash at the end"
            )
        if not 1 <= self.token_seconds <= 300:
            raise ValueError("access.smart.token_seconds is 1 to 300")


class ConsentSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What holds where a patient's consent says nothing, and whom consents mean (docs/consent.md).

    Attributes:
        opt_in: purposes for which only records are seen whose patient permits it; for others all but those who deny.
        opt_in_deidentified: the same, of what is seen de-identified.
        actors: who is meant by an actor of a Consent, ``Practitioner/ID`` or ``SYSTEM|VALUE``: a principal,
            ``role:ROLE``, ``account:ACCOUNT``, or ``*`` for all here.
    """

    opt_in: tuple[str, ...] = ()
    opt_in_deidentified: tuple[str, ...] = ()
    actors: dict[str, str] = {}


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
    consent: ConsentSettings = ConsentSettings()
    lockout: LockoutSettings = LockoutSettings()
    oidc: OidcSettings = OidcSettings()
    sigv4: Sigv4Settings = Sigv4Settings()
    smart: SmartSettings = SmartSettings()


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


class FeatureSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Feature groups.

    Attributes:
        groups: of an account, at most; SageMaker's own quota by default.
        ingest_rows: rows of a file that are written together.
        log_rows: rows of the offline log that go into one file.
    """

    groups: int = 100
    ingest_rows: int = 50_000
    log_rows: int = 50_000

    def __post_init__(self) -> None:
        if min(self.groups, self.ingest_rows, self.log_rows) < 1:
            raise ValueError("features.groups, features.ingest_rows and features.log_rows are 1 or more")


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


_ORIGIN = re.compile(r"https://[a-z0-9.-]+(:[1-9][0-9]{0,4})?|http://(localhost|127\.0\.0\.1)(:[1-9][0-9]{0,4})?")
"""An exact origin, as browsers write it; without TLS on the same machine only."""


class ServeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The HTTP door and its bounds (docs/serving.md).

    Attributes:
        workers: processes that answer.
        tls_certificate: PEM file of the certificate and those between it and its root; with it the door speaks TLS.
        tls_key: PEM file of its private key, not encrypted.
        hsts_seconds: for so long browsers shall come by TLS only; 0 says nothing of it.
        principal_per_second: requests of one principal, over all workers; 0 counts none.
        source_per_second: requests from one address (IPv6: one /64), over all workers; 0 counts none.
        burst_seconds: how long one who was quiet may go on at any speed, in seconds' worth of requests.
        answer_seconds: how long an answer may take to be made.
        silent_seconds: a worker whose event loop does not run for so long is ended, and another one begins; 0: never.
        gzip: compress answers for those who take that.
        cors_origins: origins whose pages browsers let read answers, each as a browser sends it.
        max_bundle_entries: entries of one batch or transaction.
    """

    max_body_bytes: int = 5 * MIB
    seal_seconds: float = 1.0
    workers: int = 1
    tls_certificate: str = ""
    tls_key: str = ""
    hsts_seconds: int = 31_536_000
    principal_per_second: float = 5_000.0
    source_per_second: float = 10_000.0
    burst_seconds: float = 2.0
    answer_seconds: float = 60.0
    silent_seconds: float = 30.0
    gzip: bool = True
    max_bundle_entries: int = 1000
    cors_origins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if wrong := [one for one in self.cors_origins if not _ORIGIN.fullmatch(one)]:
            raise ValueError(f"serve.cors_origins has {wrong[0]!r}; expected origins like https://app.example:8443")
        if not 1 <= self.workers <= 64:
            raise ValueError(f"serve.workers is {self.workers}; one to 64 processes answer")
        if bool(self.tls_certificate) != bool(self.tls_key):
            raise ValueError("serve.tls_certificate and serve.tls_key are given both or neither")
        if min(self.principal_per_second, self.source_per_second, self.hsts_seconds, self.silent_seconds) < 0:
            raise ValueError("serve: rates, hsts_seconds and silent_seconds are 0 or more")
        if self.burst_seconds <= 0 or self.answer_seconds <= 0:
            raise ValueError("serve.burst_seconds and serve.answer_seconds are more than 0")


class ServingSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Endpoints: when an alarm is one (docs/endpoints.md). A distance must pass its bound and what chance reaches.

    Attributes:
        errors: share of requests that fail on this side.
        latency_ms: under which 95 of 100 requests stay.
        psi, linf: distances of scores, from what the old version says of the same rows, or from the baseline.
        missing: how far the share of rows that have a feature may fall under the baseline's.
        calibration: how far observed events may be from the expected ones, as a part of these.
        enough, enough_requests, enough_outcomes: under which nothing is said.
        after_bake: what an alarm does once a rollout is over: it is told, or the version before serves again.
        watch_minutes: of the last windows that are looked at once a rollout is over.
        tick_seconds: how often a server looks at rollouts; 0 for never.
    """

    errors: float = 0.05
    latency_ms: float = 500.0
    psi: float = 0.2
    linf: float = 0.1
    missing: float = 0.1
    calibration: float = 0.25
    enough: int = 100
    enough_requests: int = 20
    enough_outcomes: int = 100
    after_bake: Literal["tell", "rollback"] = "tell"
    watch_minutes: int = 60
    tick_seconds: float = 1.0

    def __post_init__(self) -> None:
        bounds = (self.errors, self.latency_ms, self.psi, self.linf, self.missing, self.calibration)
        if min(bounds) <= 0 or min(self.enough, self.enough_requests, self.enough_outcomes, self.watch_minutes) < 1:
            raise ValueError("serving: bounds are more than 0, and what is enough is 1 or more")
        if self.tick_seconds < 0:
            raise ValueError("serving.tick_seconds is 0 or more")


class BulkSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bulk export and import (docs/bulk.md).

    Attributes:
        part_resources: resources in a file of an export; a job goes on with the file at which it was killed.
        keep_seconds: how long files of an export stay after it is done.
        most_jobs: of one principal that are not at their end.
        import_folder: folder whose files may be imported over HTTP; "" for none.
    """

    part_resources: int = 50_000
    keep_seconds: float = 86_400.0
    most_jobs: int = 4
    poll_seconds: float = 2.0
    import_folder: str = ""


class PipelineSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How steps of pipelines run (docs/pipelines.md).

    Attributes:
        isolation: ``process``: each step in a process of its own, under the limits; ``none``: all in this one,
            without limits of memory and processor time.
        parallel: steps at once, where neither the pipeline nor its execution says.
        memory_mb, cpu_seconds, seconds: limits of one step's process; 0 for none. A step's own
            ``MaxRuntimeInSeconds`` holds where it is less.
        poll_seconds: how often a server looks for executions to carry out and schedules that are due; 0 for never.
    """

    isolation: Literal["process", "none"] = "process"
    parallel: int = 2
    memory_mb: int = 16_384
    cpu_seconds: int = 43_200
    seconds: int = 21_600
    poll_seconds: float = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.parallel <= 64:
            raise ValueError(f"pipelines.parallel is {self.parallel}; 1 to 64 steps run at once")
        if min(self.memory_mb, self.cpu_seconds, self.seconds, self.poll_seconds) < 0:
            raise ValueError("pipelines: limits are 0 or more")


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
