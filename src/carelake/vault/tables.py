"""Tables of the vault itself: patients' keys, and what lies in the object store under which name."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, LargeBinary, String, Table, false, true

from carelake.vault.database import metadata

__all__ = [
    "forgotten_due",
    "forgotten_patient",
    "object_inline",
    "object_manifest",
    "object_part",
    "object_removal",
    "object_upload",
    "object_version",
    "patient_key",
]

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

forgotten_patient = Table(
    "forgotten_patient",
    metadata,
    Column("id", String(32), primary_key=True, comment="of this erasure"),
    Column("account", String(32), nullable=False),
    Column("name", String(64), nullable=False, comment="HMAC of the patient, as in the list outside (`forgotten`)"),
    Column("at", String(32), nullable=False),
    comment="Who was erased here: what the list outside tells beyond this is replayed.",
)

forgotten_due = Table(
    "forgotten_due",
    metadata,
    Column("account", String(32), primary_key=True),
    Column("patient", String(256), primary_key=True),
    comment="Whose keys a replay ended in this copy: their rows, ranges and files go before anybody opens it.",
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
    Column("deleted", Boolean, nullable=False, server_default=false(), comment="has no bytes (any more)"),
    Column("form", String(8), nullable=False, server_default="file", comment="file, inline, parts or marker"),
    Column("storage", String(8), nullable=False, server_default="hot", comment="storage class: hot, cool, archive"),
    Column("parts", Integer, nullable=False, server_default="0", comment="if > 0, sha256 is over the parts' digests"),
    Column("retain_mode", String(12), comment="governance or compliance"),
    Column("retain_until", String(32)),
    Column("held", Boolean, nullable=False, server_default=false(), comment="legal hold"),
    Column("voucher", LargeBinary(32), comment="see `vouched`; never null in a workspace that opens"),
)

object_inline = Table(
    "object_inline",
    metadata,
    Column("object", String(32), primary_key=True, comment="as in object_version"),
    Column("sealed", LargeBinary, nullable=False, comment="a small object whole, in the format of decision D5"),
    comment="Decision 0017: a small object is one commit instead of a file, a folder and a commit.",
    sqlite_with_rowid=False,
)

object_part = Table(
    "object_part",
    metadata,
    Column("version", String(32), primary_key=True, comment="of object_version, or the upload that will be it"),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("account", String(32), nullable=False),
    Column("zone", String(32), nullable=False),
    Column("object", String(32), nullable=False, comment="opaque name of the part's bytes; restored versions share"),
    Column("bound", String(48), nullable=False, comment="what its bytes are bound to in place of a version"),
    Column("size", BigInteger, nullable=False),
    Column("stored_size", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("form", String(8), nullable=False, server_default="file", comment="file or inline"),
    Column("storage", String(8), nullable=False, server_default="hot"),
)
Index("object_part_object", object_part.c.object)
Index("object_part_place", object_part.c.account, object_part.c.zone)

object_manifest = Table(
    "object_manifest",
    metadata,
    Column("version", String(32), primary_key=True),
    Column("key_version", Integer, nullable=False),
    Column("sealed", LargeBinary, nullable=False, comment="the list of parts, bound to the version's place"),
)

object_upload = Table(
    "object_upload",
    metadata,
    Column("upload", String(32), primary_key=True, comment="becomes the version"),
    Column("account", String(32), nullable=False),
    Column("zone", String(32), nullable=False),
    Column("name", String(1024), nullable=False, comment="can be a patient's name; only ever here"),
    Column("created", String(32), nullable=False),
    Column("part_bytes", BigInteger, nullable=False),
    Column("tags", String, nullable=False),
)
Index("object_upload_name", object_upload.c.account, object_upload.c.zone, object_upload.c.name)

object_removal = Table(
    "object_removal",
    metadata,
    Column("object", String(32), primary_key=True),
    Column("storage", String(8), primary_key=True),
    Column("account", String(32), nullable=False),
    Column("zone", String(32), nullable=False),
    comment="Bytes that a committed transaction gave up; what a process did not come to remove, the next one does.",
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
