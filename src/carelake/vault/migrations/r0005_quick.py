"""Quick looks for acts by patient; tables of consents, saved views and questions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Change the schema."""
    op.create_table(
        "access_consent",
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("consent", sa.String(length=64), nullable=False, comment="id of the Consent"),
        sa.Column(
            "owner",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            nullable=False,
            comment="symbol of its patient in the record, 0 for none",
        ),
        sa.Column(
            "patient", sa.String(length=64), nullable=False, comment="id of its patient, as index rows have ids"
        ),
        sa.Column(
            "word", sa.String(length=16), nullable=False, comment="what became of it: see carelake.access.directives"
        ),
        sa.Column("rules", sa.Integer(), nullable=False, comment="rows of access_consent_rule"),
        sa.Column("widened", sa.Integer(), nullable=False, comment="denials that could not be narrowed as they ask"),
        sa.Column("dropped", sa.Integer(), nullable=False, comment="permissions that were not understood"),
        sa.PrimaryKeyConstraint("account", "consent"),
        comment="Consents of the record as they are projected, each that is not deleted; they go with their patient.",
    )
    op.create_index("access_consent_patient", "access_consent", ["account", "patient"], unique=False)
    op.create_table(
        "access_consent_rule",
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("consent", sa.String(length=64), nullable=False),
        sa.Column(
            "node", sa.Integer(), autoincrement=False, nullable=False, comment="its provision, numbered within it"
        ),
        sa.Column("part", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column(
            "parent", sa.Integer(), nullable=False, comment="the provision that it is an exception to, -1 for none"
        ),
        sa.Column("owner", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("patient", sa.String(length=64), nullable=False),
        sa.Column("denies", sa.Boolean(), nullable=False),
        sa.Column(
            "purpose",
            sa.String(length=16),
            nullable=False,
            comment="a purpose of use; this and the next three: empty for any",
        ),
        sa.Column("mode", sa.String(length=8), nullable=False, comment="access or disclose"),
        sa.Column("actor", sa.Text(), nullable=False, comment="reference or identifier of who is meant"),
        sa.Column("kind", sa.String(length=64), nullable=False, comment="a FHIR type"),
        sa.Column(
            "low",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            nullable=False,
            comment="holds from then on, microseconds since 1970 UTC",
        ),
        sa.Column(
            "high",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            nullable=False,
            comment="and until before then",
        ),
        sa.PrimaryKeyConstraint("account", "consent", "node", "part"),
        comment="One row for each combination of what a provision of a Consent, and those above it, ask for.",
    )
    op.create_index("access_consent_rule_owner", "access_consent_rule", ["account", "owner"], unique=False)
    op.create_index("access_consent_rule_patient", "access_consent_rule", ["account", "patient"], unique=False)
    op.create_table(
        "lake_question",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("principal", sa.String(length=64), nullable=False),
        sa.Column(
            "sealed",
            sa.LargeBinary(),
            nullable=False,
            comment="name, statement and chart; a statement may name patients",
        ),
        sa.Column("at", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        comment="Questions that principals keep for themselves.",
    )
    op.create_index("lake_question_own", "lake_question", ["account", "principal"], unique=False)
    op.create_table(
        "lake_view",
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column(
            "key",
            sa.String(length=64),
            nullable=False,
            comment="the view's name in small letters: SQL minds no capitals",
        ),
        sa.Column(
            "definition",
            sa.LargeBinary(),
            nullable=False,
            comment="sealed: the ViewDefinition, which may name patients",
        ),
        sa.Column(
            "state",
            sa.String(length=16),
            nullable=False,
            comment="saved; kept: its rows are a table; erasing: kept, and empty",
        ),
        sa.Column("at", sa.String(length=32), nullable=False, comment="when it was saved"),
        sa.Column(
            "error",
            sa.String(length=64),
            server_default="",
            nullable=False,
            comment="code of why its rows are not fresh",
        ),
        sa.PrimaryKeyConstraint("account", "key"),
        comment="Views that were saved by name.",
    )
    op.create_table(
        "patient_act",
        sa.Column("run", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False),
        sa.Column("patient", sa.LargeBinary(length=32), nullable=False),
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("run", "patient", "seq"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "patient_run",
        sa.Column(
            "number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False
        ),
        sa.Column(
            "first",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            nullable=False,
            comment="the first act in it",
        ),
        sa.Column("last", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.PrimaryKeyConstraint("number"),
    )
    op.drop_index(op.f("act_phase"), table_name="act")
    op.create_index(
        "act_phase",
        "act",
        ["phase", "seq"],
        unique=False,
        sqlite_where=sa.text("phase != 'done'"),
        postgresql_where=sa.text("phase != 'done'"),
    )
    op.drop_index(op.f("act_patient_patient"), table_name="act_patient")
    by_hand()


def by_hand() -> None:
    """The acts that are there, in runs of a million."""
    tx = op.get_bind()
    last = tx.scalar(sa.text("SELECT coalesce(max(seq), 0) FROM act"))
    for number, first in enumerate(range(1, last + 1, _RUN), 1):
        run = {"number": number, "first": first, "last": min(first + _RUN - 1, last)}
        tx.execute(sa.text("INSERT INTO patient_run VALUES (:number, :first, :last)"), run)
        tx.execute(
            sa.text(
                "INSERT INTO patient_act (run, patient, seq) SELECT CAST(:number AS BIGINT), patient, seq "
                "FROM act_patient WHERE seq BETWEEN :first AND :last ORDER BY patient, seq"
            ),
            run,
        )
    _consents(tx)


def _consents(tx: sa.Connection) -> None:
    """Mark the accounts whose consents are older than their projection: their bodies are sealed to a migration."""
    tx.execute(
        sa.text(
            "INSERT INTO access_consent (account, consent, owner, patient, word, rules, widened, dropped) "
            "SELECT substr(space, 6), '', 0, '', 'not projected', 0, 0, 0 FROM symbol "
            "WHERE text = 'Consent' AND space LIKE 'kind:%'"
        )
    )


_RUN = 1_000_000
