"""Ground: what objects, keys, acts, events and access need since the first release."""

# ruff: noqa: E501

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Change the schema."""
    op.create_table(
        "access_break_glass",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("principal", sa.String(length=128), nullable=False),
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("purpose", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.LargeBinary(), nullable=False),
        sa.Column("reason_ref", sa.String(length=80), nullable=False),
        sa.Column("begun", sa.String(length=24), nullable=False),
        sa.Column("expires", sa.String(length=24), nullable=False),
        sa.Column("review_by", sa.String(length=24), nullable=False),
        sa.Column("ended", sa.String(length=24), nullable=True),
        sa.Column("reviewed_by", sa.String(length=128), nullable=True),
        sa.Column("reviewed", sa.String(length=24), nullable=True),
        sa.Column("verdict", sa.String(length=16), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_access_break_glass_principal"), "access_break_glass", ["principal"], unique=False)
    op.create_table(
        "access_failure",
        sa.Column("id", sa.String(length=80), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("locks", sa.Integer(), nullable=False),
        sa.Column("first", sa.String(length=24), nullable=False),
        sa.Column("last", sa.String(length=24), nullable=False),
        sa.Column("locked_until", sa.String(length=24), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        comment="Failed attempts by digest of source and claimed name.",
    )
    op.create_index(op.f("ix_access_failure_last"), "access_failure", ["last"], unique=False)
    op.create_table(
        "access_grant",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("principal", sa.String(length=128), nullable=False),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("purpose", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.LargeBinary(), nullable=False),
        sa.Column("days", sa.Integer(), nullable=False),
        sa.Column("requested_by", sa.String(length=128), nullable=False),
        sa.Column("requested", sa.String(length=24), nullable=False),
        sa.Column("approved_by", sa.String(length=128), nullable=True),
        sa.Column("approved", sa.String(length=24), nullable=True),
        sa.Column("expires", sa.String(length=24), nullable=True),
        sa.Column("revoked_by", sa.String(length=128), nullable=True),
        sa.Column("revoked", sa.String(length=24), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        comment="Expires so many days after its approval.",
    )
    op.create_index(op.f("ix_access_grant_principal"), "access_grant", ["principal"], unique=False)
    op.create_table(
        "access_group",
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("roles", sa.Text(), nullable=False),
        sa.Column("created", sa.String(length=24), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "access_key",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("principal", sa.String(length=128), nullable=False),
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("purpose", sa.String(length=16), nullable=False),
        sa.Column("role", sa.String(length=32), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("created", sa.String(length=24), nullable=False),
        sa.Column("last_used", sa.String(length=24), nullable=True),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_access_key_principal"), "access_key", ["principal"], unique=False)
    op.create_table(
        "access_link",
        sa.Column("issuer", sa.String(length=256), nullable=False),
        sa.Column("subject", sa.String(length=256), nullable=False),
        sa.Column("principal", sa.String(length=128), nullable=False),
        sa.PrimaryKeyConstraint("issuer", "subject"),
        comment="Which principal a subject of an identity provider is.",
    )
    op.create_index(op.f("ix_access_link_principal"), "access_link", ["principal"], unique=False)
    op.create_table(
        "access_member",
        sa.Column("group_name", sa.String(length=128), nullable=False),
        sa.Column("principal", sa.String(length=128), nullable=False),
        sa.PrimaryKeyConstraint("group_name", "principal"),
    )
    op.create_index(op.f("ix_access_member_principal"), "access_member", ["principal"], unique=False)
    op.create_table(
        "access_revoked",
        sa.Column("id", sa.String(length=128), nullable=False),
        sa.Column("principal", sa.String(length=128), nullable=False),
        sa.Column("expires", sa.String(length=24), nullable=False),
        sa.Column("at", sa.String(length=24), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        comment="Tokens that are worth nothing before they end; a row may go once its token has ended.",
    )
    op.create_table(
        "access_seen",
        sa.Column("id", sa.String(length=80), nullable=False),
        sa.Column("expires", sa.String(length=24), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        comment="What may be used once: signatures of changing requests, tokens of issuers with `once`.",
    )
    op.create_index(op.f("ix_access_seen_expires"), "access_seen", ["expires"], unique=False)
    op.create_table(
        "access_stamp",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("stamp", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        comment="Changes with each change of rights, so that what was read before it is not used after it.",
    )
    op.create_table(
        "act_patient",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False),
        sa.Column(
            "patient",
            sa.LargeBinary(length=32),
            nullable=False,
            comment="the HMAC of `patient:HEX`; the act binds the list",
        ),
        sa.PrimaryKeyConstraint("seq", "patient"),
        sqlite_with_rowid=False,
    )
    op.create_index("act_patient_patient", "act_patient", ["patient", "seq"], unique=False)
    op.create_table(
        "declared_file",
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False, comment="as accepted"),
        sa.Column("accepted_by", sa.String(length=128), nullable=False),
        sa.Column("accepted_at", sa.String(length=32), nullable=False),
        sa.Column("seen", sa.String(length=64), nullable=False, comment="as last seen; the trail told of it then"),
        sa.PrimaryKeyConstraint("name"),
        comment="Digests of the plain files of the workspace that decide what it does.",
    )
    op.create_table(
        "event_cursor",
        sa.Column("consumer", sa.String(length=64), nullable=False),
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("type", sa.String(length=128), nullable=False),
        sa.Column(
            "seq",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            nullable=False,
            comment="all events of the stream up to here are settled",
        ),
        sa.Column(
            "attempts", sa.Integer(), nullable=False, comment="of the event after it, which holds the stream up"
        ),
        sa.Column("due", sa.String(length=24), nullable=False, comment="not before this, '' for now"),
        sa.Column("reason", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("consumer", "account", "type"),
    )
    op.create_table(
        "event_dead",
        sa.Column("consumer", sa.String(length=64), nullable=False),
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("type", sa.String(length=128), nullable=False),
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("at", sa.String(length=24), nullable=False),
        sa.Column("reason", sa.String(length=64), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=8), nullable=False, comment="dead, or again: to be delivered once more"),
        sa.Column("due", sa.String(length=24), nullable=False),
        sa.PrimaryKeyConstraint("consumer", "seq"),
    )
    op.create_table(
        "event_settled",
        sa.Column("consumer", sa.String(length=64), nullable=False),
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.PrimaryKeyConstraint("consumer", "id"),
        comment="Events whose effect was had: ahead of a stream's cursor, or kept so that a replay has none twice.",
    )
    op.create_table(
        "event_stream",
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("type", sa.String(length=128), nullable=False),
        sa.Column(
            "trimmed",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            nullable=False,
            comment="highest sequence that was trimmed, 0 for none",
        ),
        sa.Column("trimmed_time", sa.String(length=24), nullable=False, comment="its time, '' for none"),
        sa.PrimaryKeyConstraint("account", "type"),
    )
    op.create_table(
        "event_subscription",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column(
            "account",
            sa.String(length=64),
            nullable=False,
            comment="whose permit delivers; its own streams only, or all",
        ),
        sa.Column("driver", sa.String(length=16), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False, comment="active or paused"),
        sa.Column("filter", sa.Text(), nullable=False, comment="JSON: types, accounts, kinds"),
        sa.Column("target", sa.Text(), nullable=False, comment="JSON: the driver's own, without secrets"),
        sa.Column(
            "secret", sa.LargeBinary(), nullable=True, comment="sealed JSON: the signing secrets, newest first"
        ),
        sa.Column("created", sa.String(length=24), nullable=False),
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("fence", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("until", sa.String(length=24), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "forgotten_patient",
        sa.Column("id", sa.String(length=32), nullable=False, comment="of this erasure"),
        sa.Column("account", sa.String(length=32), nullable=False),
        sa.Column(
            "name",
            sa.String(length=64),
            nullable=False,
            comment="HMAC of the patient, as in the list outside (`forgotten`)",
        ),
        sa.Column("at", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        comment="Who was erased here: what the list outside tells beyond this is replayed.",
    )
    op.create_table(
        "object_inline",
        sa.Column("object", sa.String(length=32), nullable=False, comment="as in object_version"),
        sa.Column(
            "sealed", sa.LargeBinary(), nullable=False, comment="a small object whole, in the format of decision D5"
        ),
        sa.PrimaryKeyConstraint("object"),
        comment="Decision 0017: a small object is one commit instead of a file, a folder and a commit.",
        sqlite_with_rowid=False,
    )
    op.create_table(
        "object_manifest",
        sa.Column("version", sa.String(length=32), nullable=False),
        sa.Column("key_version", sa.Integer(), nullable=False),
        sa.Column(
            "sealed", sa.LargeBinary(), nullable=False, comment="the list of parts, bound to the version's place"
        ),
        sa.PrimaryKeyConstraint("version"),
    )
    op.create_table(
        "object_part",
        sa.Column(
            "version",
            sa.String(length=32),
            nullable=False,
            comment="of object_version, or the upload that will be it",
        ),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("account", sa.String(length=32), nullable=False),
        sa.Column("zone", sa.String(length=32), nullable=False),
        sa.Column(
            "object",
            sa.String(length=32),
            nullable=False,
            comment="opaque name of the part's bytes; restored versions share",
        ),
        sa.Column(
            "bound", sa.String(length=48), nullable=False, comment="what its bytes are bound to in place of a version"
        ),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("stored_size", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("form", sa.String(length=8), server_default="file", nullable=False, comment="file or inline"),
        sa.Column("storage", sa.String(length=8), server_default="hot", nullable=False),
        sa.PrimaryKeyConstraint("version", "number"),
    )
    op.create_index("object_part_object", "object_part", ["object"], unique=False)
    op.create_index("object_part_place", "object_part", ["account", "zone"], unique=False)
    op.create_table(
        "object_removal",
        sa.Column("object", sa.String(length=32), nullable=False),
        sa.Column("storage", sa.String(length=8), nullable=False),
        sa.Column("account", sa.String(length=32), nullable=False),
        sa.Column("zone", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("object", "storage"),
        comment="Bytes that a committed transaction gave up; what a process did not come to remove, the next one does.",
    )
    op.create_table(
        "object_upload",
        sa.Column("upload", sa.String(length=32), nullable=False, comment="becomes the version"),
        sa.Column("account", sa.String(length=32), nullable=False),
        sa.Column("zone", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=1024), nullable=False, comment="can be a patient's name; only ever here"),
        sa.Column("created", sa.String(length=32), nullable=False),
        sa.Column("part_bytes", sa.BigInteger(), nullable=False),
        sa.Column("tags", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("upload"),
    )
    op.create_index("object_upload_name", "object_upload", ["account", "zone", "name"], unique=False)
    op.create_table(
        "origin_run",
        sa.Column(
            "origin",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=False,
            nullable=False,
            comment="symbol of the landing's ref",
        ),
        sa.Column(
            "first",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=False,
            nullable=False,
            comment="seq of the first version of a run from it",
        ),
        sa.Column("last", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.PrimaryKeyConstraint("origin", "first"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "seal_lease",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("holder", sa.Text(), nullable=False, comment="host, process and a number of its own, as JSON"),
        sa.Column("until", sa.String(length=24), nullable=False),
        sa.Column(
            "fence",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            nullable=False,
            comment="grows with each election",
        ),
        sa.Column(
            "anchored",
            sa.String(length=24),
            server_default="",
            nullable=False,
            comment="when the anchor was last given a head",
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "trail_counter",
        sa.Column("name", sa.String(length=8), nullable=False, comment="act or noun"),
        sa.Column(
            "last",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            nullable=False,
            comment="the last number given out; locked until its writer commits",
        ),
        sa.Column("at", sa.String(length=24), nullable=False, comment="the latest time that was ever written"),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "vault_workspace",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("workspace", sa.String(length=96), nullable=False),
        sa.Column("format", sa.Integer(), nullable=False),
        sa.Column("version", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        comment="One row: whose rows these are, their format, and the carelake that wrote the format.",
    )
    op.drop_table("event_offset")
    op.create_index("event_stream_seq", "event", ["account", "type", "seq"], unique=False)
    op.create_index("noun_act", "noun", ["act"], unique=False)
    op.add_column(
        "object_version",
        sa.Column(
            "form",
            sa.String(length=8),
            server_default="file",
            nullable=False,
            comment="file, inline, parts or marker",
        ),
    )
    op.add_column(
        "object_version",
        sa.Column(
            "storage",
            sa.String(length=8),
            server_default="hot",
            nullable=False,
            comment="storage class: hot, cool, archive",
        ),
    )
    op.add_column(
        "object_version",
        sa.Column(
            "parts",
            sa.Integer(),
            server_default="0",
            nullable=False,
            comment="if > 0, sha256 is over the parts' digests",
        ),
    )
    op.add_column(
        "object_version",
        sa.Column("retain_mode", sa.String(length=12), nullable=True, comment="governance or compliance"),
    )
    op.add_column("object_version", sa.Column("retain_until", sa.String(length=32), nullable=True))
    op.add_column(
        "object_version",
        sa.Column("held", sa.Boolean(), server_default=sa.false(), nullable=False, comment="legal hold"),
    )
    op.add_column(
        "object_version",
        sa.Column(
            "voucher",
            sa.LargeBinary(length=32),
            nullable=True,
            comment="see `vouched`; never null in a workspace that opens",
        ),
    )
    op.add_column("principal", sa.Column("created", sa.String(length=24), nullable=True))
    op.add_column(
        "segment",
        sa.Column(
            "peaks",
            sa.Text(),
            server_default="",
            nullable=False,
            comment="the tree of headers up to this one, folded",
        ),
    )
    # Which landing the versions of the first release came from, by runs of their numbers: lineage goes forward by it.
    op.execute(
        "INSERT INTO origin_run (origin, first, last) "
        "SELECT origin, min(seq), max(seq) FROM ("
        "SELECT origin, seq, seq - row_number() OVER (PARTITION BY origin ORDER BY seq) AS run "
        "FROM resource_version WHERE origin <> 0) AS runs GROUP BY origin, run"
    )
