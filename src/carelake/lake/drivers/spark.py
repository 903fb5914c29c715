"""Spark over the lake's tables: it reads the same files, at the same snapshots, and may compact them.

Spark finds tables through the catalog's door (`rest`), and files by the bucket (setting ``lake.driver = "s3"``), with
the credentials that the AWS SDK finds in the environment. It sees all of an account, so it works for a permit that
shows all of it; for others rows are handed over (`views.over`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from carelake.core.errors import Refused, Unavailable
from carelake.core.nouns import Noun
from carelake.core.permit import Permit
from carelake.core.settings import LakeSettings
from carelake.lake.current import rows_of
from carelake.lake.drivers.rest import door
from carelake.lake.engines.spark import in_time, session
from carelake.lake.iceberg.catalog import VaultCatalog
from carelake.lake.iceberg.layout import buckets
from carelake.lake.seeing.sight import sight_of
from carelake.vault.workspace import Vault

__all__ = ["SparkLake", "compact", "conformed", "kind", "reaches", "reading"]

_CATALOG = "spark.sql.catalog"
_NUMBERS = itertools.count(1)
_FEW = 20_000_000
"""Rows of a table of which the numbers of those that were replaced fit into each executor's memory."""
_CURRENT = """
SELECT {hint}{columns} FROM {table} VERSION AS OF {snapshot} AS t LEFT ANTI JOIN (
    SELECT replaced_seq FROM {table} VERSION AS OF {snapshot} WHERE replaced_seq IS NOT NULL
) AS gone ON t.seq = gone.replaced_seq WHERE NOT t.deleted
"""


def reaches(permit: Permit, vault: Vault) -> bool:
    """Whether Spark can read the lake's files itself, and the permit shows all that is in them."""
    return vault.settings.lake.driver == "s3" and sight_of(permit).whole


@dataclass(frozen=True, slots=True)
class SparkLake:
    """The tables of a permit's account in a Spark session.

    Attributes:
        spark: the session. name: of the catalog in it.
    """

    spark: Any
    name: str
    permit: Permit
    vault: Vault

    def table(self, resource_type: str) -> str:
        """What SQL calls a table; with ``VERSION AS OF`` after it as of a snapshot."""
        return f"{_quoted(self.name)}.{_quoted(self.permit.account)}.{_quoted(resource_type)}"

    def current(self, resource_type: str, snapshot: Noun, columns: Mapping[str, str]) -> Any | None:
        """The current resources of a type as of a snapshot, as a DataFrame; None where the lake has none of the type.

        Args:
            columns: Spark SQL by the name of the column it makes; the table's columns are in ``t``.
        """
        told = snapshot.body["tables"].get(resource_type)
        if not told or not told["snapshot"]:
            return None
        shown = ", ".join(f"{text} AS {_quoted(name)}" for name, text in columns.items())
        # Without the hint all rows are shuffled and sorted, to leave out the few that were replaced.
        hint = "/*+ BROADCAST(gone) */ " if told["rows"] < _FEW else ""
        said = {"table": self.table(resource_type), "snapshot": int(told["snapshot"])}
        text = _CURRENT.format(columns=shown, hint=hint, **said)
        return self.spark.sql(text)

    def schema(self, resource_type: str, snapshot: Noun) -> pa.Schema:
        """The columns of a type's table as of a snapshot."""
        told = snapshot.body["tables"][resource_type]
        return rows_of(self.permit, self.vault, resource_type, int(told["snapshot"])).files.arrow


@contextmanager
def reading(permit: Permit, vault: Vault) -> Iterator[SparkLake]:
    """The lake in Spark, as long as the block lasts.

    Raises:
        Refused: ``lake.spark_scope``: the permit shows less than the account's files hold.
        Unavailable: ``lake.spark_bucket``: the files are sealed in the vault; as `session`.
    """
    if not sight_of(permit).whole:
        raise Refused("lake.spark_scope", "The permit does not show all of the account, and Spark would read it all.")
    if vault.settings.lake.driver != "s3":
        raise Unavailable(
            "lake.spark_bucket",
            "The lake's files are sealed in the vault, which Spark does not read; lay the lake in a bucket "
            '(lake.driver = "s3", docs/engines.md).',
        )
    spark = session(vault.settings.lake.spark, iceberg=True)
    name = f"lake{next(_NUMBERS)}"
    with door(VaultCatalog(vault, permit)) as at:
        said = _said(vault.settings.lake, at.uri, at.token)
        # Set in the running session: what is in its first configuration is shown in the list of processes.
        for key, value in said.items():
            spark.conf.set(f"{_CATALOG}.{name}{key}", value)
        try:
            yield SparkLake(spark, name, permit, vault)
        finally:
            for key in said:
                spark.conf.unset(f"{_CATALOG}.{name}{key}")


def _said(lake: LakeSettings, uri: str, token: str) -> dict[str, str]:
    """Properties of the catalog, by the end of their names."""
    bucket = lake.s3
    said = {
        "": "org.apache.iceberg.spark.SparkCatalog",
        ".type": "rest",
        ".uri": uri,
        ".token": token,
        ".token-refresh-enabled": "false",
        ".rest-metrics-reporting-enabled": "false",
        ".cache-enabled": "false",
        ".io-impl": "org.apache.iceberg.aws.s3.S3FileIO",
        ".s3.sse.type": "kms",
        ".s3.path-style-access": str(bool(bucket.endpoint_url)).lower(),
    }
    optional = {
        ".s3.sse.key": bucket.kms_key,
        ".client.region": bucket.region,
        ".s3.endpoint": bucket.endpoint_url,
    }
    return said | {key: value for key, value in optional.items() if value}


def compact(permit: Permit, vault: Vault, names: Sequence[str] | None = None) -> dict[str, tuple[int, int]]:
    """Merge small files of tables on Spark, into the buckets, sorted by time; one commit for each table.

    Args:
        permit: grants ``lake:read``, ``lake:write``, ``rows:read``, ``rows:write``.
        names: of tables, by default all.

    Returns:
        By table how many files went into others, and how many came of it.

    Raises:
        Refused, Unavailable: as `reading`. Unavailable: ``lake.spark_job``.
    """
    catalog = VaultCatalog(vault, permit)
    there = [name for _, name in catalog.list_tables() if names is None or name in names]
    done: dict[str, tuple[int, int]] = {}
    with reading(permit, vault) as lake:
        for name in there:
            table = catalog.load_table((permit.account, name))
            if table.current_snapshot() is None or not buckets(table.spec()):
                continue
            account = permit.account.replace("'", "\\'")
            call = (
                f"CALL {_quoted(lake.name)}.system.rewrite_data_files(table => '`{account}`.`{name}`', "
                "strategy => 'sort', options => map('min-input-files', '2'))"
            )
            told = _called(lake.spark, vault.settings.lake, call)
            done[name] = (int(told[0]), int(told[1]))
    permit.log.count(lake_files_merged=sum(gone for gone, _ in done.values()))
    return done


def _called(spark: Any, limits: LakeSettings, call: str) -> Any:
    """The one row that a procedure answers with."""
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    try:
        return in_time(spark, limits, lambda: spark.sql(call).collect())[0]
    except (PySparkException, Py4JError):
        raise Unavailable(
            "lake.spark_job", "Spark did not compact a table, which is as it was; look at the cluster's log."
        ) from None


def conformed(source: str, have: pa.DataType, wanted: pa.DataType, depth: int = 0) -> str:
    """Spark SQL of a value in a type with more or fewer named parts: missing ones are null, others are left out."""
    if have.equals(wanted):
        return source
    if pa.types.is_struct(wanted):
        there = {field.name: field.type for field in have}
        parts = []
        for field in wanted:
            inner = f"{source}.{_quoted(field.name)}"
            made = (
                conformed(inner, there[field.name], field.type, depth)
                if field.name in there
                else f"CAST(NULL AS {kind(field.type)})"
            )
            parts.append(f"{_text(field.name)}, {made}")
        return f"(CASE WHEN {source} IS NOT NULL THEN named_struct({', '.join(parts)}) END)"
    if pa.types.is_list(wanted):
        item = f"x{depth}"
        return f"transform({source}, {item} -> {conformed(item, have.value_type, wanted.value_type, depth + 1)})"
    return f"CAST({source} AS {kind(wanted)})"


def kind(wanted: pa.DataType) -> str:
    """Spark's name of a type."""
    if pa.types.is_struct(wanted):
        return f"STRUCT<{', '.join(f'{_quoted(field.name)}: {kind(field.type)}' for field in wanted)}>"
    if pa.types.is_list(wanted):
        return f"ARRAY<{kind(wanted.value_type)}>"
    return _KINDS[wanted]


_KINDS = {
    pa.string(): "STRING",
    pa.bool_(): "BOOLEAN",
    pa.int32(): "INT",
    pa.int64(): "BIGINT",
    pa.float64(): "DOUBLE",
}


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def _text(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
