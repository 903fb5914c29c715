"""Closing the loop."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Change the schema."""
    op.create_table(
        "feature_change",
        sa.Column("grp", sa.String(length=32), nullable=False),
        sa.Column("turn", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column(
            "record",
            sa.LargeBinary(length=32),
            nullable=False,
            comment="HMAC of the record identifier; empty for any",
        ),
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("word", sa.String(length=32), nullable=False, comment="what the state is called that this led to"),
        sa.PrimaryKeyConstraint("grp", "turn", "record"),
        comment="What changed in the last states of online stores that are copied elsewhere.",
        sqlite_with_rowid=False,
    )
    op.create_table(
        "release_policy",
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column(
            "subject", sa.String(length=96), nullable=False, comment="ref of the endpoint that runs in the sandbox"
        ),
        sa.Column(
            "said", sa.Text(), nullable=False, comment="JSON: objects, their digests, and the measurements allowed"
        ),
        sa.Column("at", sa.String(length=24), nullable=False),
        sa.Column("act", sa.String(length=32), nullable=False),
        sa.Column(
            "voucher",
            sa.LargeBinary(length=32),
            nullable=False,
            comment="HMAC under the key ring, over all of the row",
        ),
        sa.PrimaryKeyConstraint("account", "subject"),
        comment="What a sandbox must prove before it is given the data keys of a model.",
    )
    op.add_column(
        "feature_group",
        sa.Column(
            "turn",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            server_default="0",
            nullable=False,
            comment="how many states there were",
        ),
    )
    op.add_column(
        "feature_group",
        sa.Column("word", sa.String(length=32), server_default="", nullable=False, comment="what this one is called"),
    )
    op.add_column(
        "feature_log", sa.Column("record", sa.LargeBinary(), nullable=True, comment="HMAC of the record identifier")
    )
    op.add_column(
        "pipeline_execution",
        sa.Column(
            "bounds",
            sa.Text(),
            nullable=True,
            comment="JSON: roles and grants that its starter came with; null before schema 0007",
        ),
    )
    op.add_column(
        "pipeline_trigger",
        sa.Column(
            "bounds", sa.Text(), nullable=True, comment="JSON: roles and grants that whoever added it came with"
        ),
    )
