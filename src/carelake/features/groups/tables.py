"""Tables of feature groups: what they are, the online store, the log before the offline store, and its pointers."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, LargeBinary, String, Table

from carelake.vault.database import metadata

__all__ = [
    "feature_change",
    "feature_due",
    "feature_group",
    "feature_ingest",
    "feature_log",
    "feature_position",
    "feature_refused",
    "feature_row",
    "feature_table",
]

_Big = BigInteger().with_variant(Integer, "sqlite")

feature_group = Table(
    "feature_group",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("account", String(64), nullable=False),
    Column("name", String(64), nullable=False),
    Column("state", String(16), nullable=False, comment="Created, or Deleted: its offline store stays"),
    Column("version", Integer, nullable=False, comment="grows with each change of the definition"),
    Column("definition", LargeBinary, nullable=False, comment="JSON; names, types and settings, no values"),
    Column("seq", _Big, nullable=False, comment="rows that were ever written to the offline store"),
    Column("created", String(32), nullable=False),
    Column("modified", String(32), nullable=False),
    Column("ref", String(96), nullable=False, comment="its noun"),
    # The state of the online store, of groups that are copied elsewhere.
    Column("turn", _Big, nullable=False, server_default="0", comment="how many states there were"),
    Column("word", String(32), nullable=False, server_default="", comment="what this one is called"),
    comment="Feature groups; a name is one group's among those that are not deleted.",
)
Index("feature_group_name", feature_group.c.account, feature_group.c.name)

feature_row = Table(
    "feature_row",
    metadata,
    Column("grp", String(32), primary_key=True),
    Column("record", String(2048), primary_key=True, comment="the record identifier"),
    Column("account", String(64), nullable=False),
    # The patient whose key seals the row, "" for nobody; erasure deletes the row with the key.
    Column("owner", String(256), nullable=False),
    Column("event", _Big, nullable=False, comment="event time, microseconds since 1970 UTC"),
    Column("expires", _Big, comment="from then on it is not there"),
    Column("deleted", Boolean, nullable=False, comment="softly: its event time still counts"),
    Column("sealed", LargeBinary, nullable=False, comment="the values"),
    comment="Online store: the latest record of each identifier.",
    sqlite_with_rowid=False,
)
Index("feature_row_owner", feature_row.c.account, feature_row.c.owner)

feature_log = Table(
    "feature_log",
    metadata,
    Column("grp", String(32), primary_key=True),
    Column("seq", _Big, primary_key=True),
    Column("account", String(64), nullable=False),
    Column("owner", String(256), nullable=False),
    Column("called", _Big, nullable=False, comment="api_invocation_time, microseconds since 1970 UTC"),
    Column("written", _Big, nullable=False, comment="write_time"),
    Column("deleted", Boolean, nullable=False),
    Column("sealed", LargeBinary, nullable=False, comment="the values"),
    # What says of a marker that it is of an erased patient's record, once nobody can open that one's rows.
    Column("record", LargeBinary, comment="HMAC of the record identifier"),
    comment="Offline store, as long as a row is in no Iceberg file yet.",
    sqlite_with_rowid=False,
)
Index("feature_log_owner", feature_log.c.account, feature_log.c.owner)

feature_change = Table(
    "feature_change",
    metadata,
    Column("grp", String(32), primary_key=True),
    Column("turn", _Big, primary_key=True),
    Column("record", LargeBinary(32), primary_key=True, comment="HMAC of the record identifier; empty for any"),
    Column("account", String(64), nullable=False),
    Column("word", String(32), nullable=False, comment="what the state is called that this led to"),
    comment="What changed in the last states of online stores that are copied elsewhere.",
    sqlite_with_rowid=False,
)

feature_table = Table(
    "feature_table",
    metadata,
    Column("account", String(64), primary_key=True),
    Column("name", String(64), primary_key=True, comment="id of the group"),
    Column("location", String(512), nullable=False, comment="of the current metadata file, in the features zone"),
    Column("previous", String(512), comment="the one before it"),
    comment="Iceberg catalog of the offline store; as lake_table.",
)

feature_ingest = Table(
    "feature_ingest",
    metadata,
    Column("grp", String(32), primary_key=True),
    Column("source", String(96), primary_key=True, comment="HMAC of the file"),
    Column("account", String(64), nullable=False),
    Column("done", _Big, nullable=False, comment="rows of it that are stored or refused"),
    Column("rows", _Big, nullable=False),
    Column("refused", _Big, nullable=False),
    Column("at", String(32), nullable=False),
    comment="Files that were ingested, and how far: a run that was killed goes on there.",
)

feature_refused = Table(
    "feature_refused",
    metadata,
    Column("grp", String(32), primary_key=True),
    Column("source", String(96), primary_key=True, comment="of a file, or of a computation"),
    Column("line", _Big, primary_key=True, comment="from 1"),
    Column("account", String(64), nullable=False),
    Column("owner", String(256), nullable=False),
    Column("reason", String(160), nullable=False, comment="feature and gate, no value"),
    Column("at", String(32), nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    comment="Rows that broke a gate of their group.",
)
Index("feature_refused_owner", feature_refused.c.account, feature_refused.c.owner)

feature_position = Table(
    "feature_position",
    metadata,
    Column("grp", String(32), primary_key=True),
    Column("account", String(64), nullable=False),
    Column("seq", _Big, nullable=False, comment="every change of the record up to this one is in the features"),
    Column("moment", _Big, nullable=False, comment="values are as of then, microseconds since 1970 UTC"),
    Column("snapshot", String(128), nullable=False),
    comment="How far declared features are computed.",
)

feature_due = Table(
    "feature_due",
    metadata,
    Column("grp", String(32), primary_key=True),
    Column("owner", String(256), primary_key=True),
    Column("account", String(64), nullable=False),
    Column("due", _Big, nullable=False, comment="when something leaves a window"),
    comment="Patients whose declared features change by time alone.",
    sqlite_with_rowid=False,
)
Index("feature_due_next", feature_due.c.grp, feature_due.c.due)
Index("feature_due_owner", feature_due.c.account, feature_due.c.owner)
