"""The lake, its bucket and its engines."""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = ["LakeBucketSettings", "LakeSettings", "SparkSettings"]


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
