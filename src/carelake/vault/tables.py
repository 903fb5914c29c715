"""Tables of the vault itself: patients' keys, and what lies in the object store under which name."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, LargeBinary, String, Table, false, true

from carelake.vault.database import metadata

__all__ = ["object_version", "patient_key"]

patient_key = Table(
    "patient_key",
    metadata,
    Column("account", String(32), primary_key=True),
    Column("patient", String(256), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("parent_version", Integer, nullable=False),
    Column("wrapped", LargeBinary(128), nullable=False),
    Column("created", String(32), nullable=False),
    comment="Decision D4: a patient's key lies here and nowhere else; deleting the row forgets the patient.",
    sqlite_with_rowid=False,
)

object_version = Table(
    "object_version",
    metadata,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("account", String(32), nullable=False),
    Column("zone", String(32), nullable=False),
    Column("name", String(1024), nullable=False, comment="can be a patient's name; only ever here"),
    Column("version", String(32), nullable=False, unique=True),
    Column("object", String(32), nullable=False, unique=True, comment="opaque name on disk"),
    Column("size", BigInteger, nullable=False),
    Column("stored_size", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False, comment="of the plaintext"),
    Column("created", String(32), nullable=False),
    Column("tags", String, nullable=False, comment="JSON object of text to text"),
    Column("current", Boolean, nullable=False, server_default=true()),
    Column("deleted", Boolean, nullable=False, server_default=false()),
)

Index(
    "object_version_current",
    object_version.c.account,
    object_version.c.zone,
    object_version.c.name,
    unique=True,
    sqlite_where=object_version.c.current,
    postgresql_where=object_version.c.current,
)
Index("object_version_name", object_version.c.account, object_version.c.zone, object_version.c.name)
