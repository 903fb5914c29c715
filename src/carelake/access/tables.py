"""Tables of access: who there is, what they were given for a time, and what their credentials did.

A column that holds a reason or a secret is sealed under the key of an account; the others are as the database keeps
them.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, LargeBinary, String, Table, Text

from carelake.vault.database import metadata

__all__ = [
    "access_break_glass",
    "access_client",
    "access_consent",
    "access_consent_rule",
    "access_failure",
    "access_grant",
    "access_group",
    "access_key",
    "access_link",
    "access_member",
    "access_revoked",
    "access_seen",
    "access_stamp",
    "principal",
]

_INSTANT = String(24)
_Big = BigInteger().with_variant(Integer, "sqlite")

principal = Table(
    "principal",
    metadata,
    Column("name", String(128), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("roles", Text, nullable=False),
    Column("accounts", Text, nullable=False),
    Column("uid", Integer),
    Column("disabled", Boolean, nullable=False),
    Column("created", _INSTANT),
)

access_stamp = Table(
    "access_stamp",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("stamp", String(32), nullable=False),
    comment="Changes with each change of rights, so that what was read before it is not used after it.",
)

access_group = Table(
    "access_group",
    metadata,
    Column("name", String(128), primary_key=True),
    Column("roles", Text, nullable=False),
    Column("created", _INSTANT, nullable=False),
)

access_member = Table(
    "access_member",
    metadata,
    Column("group_name", String(128), primary_key=True),
    Column("principal", String(128), primary_key=True, index=True),
)

access_grant = Table(
    "access_grant",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("principal", String(128), nullable=False, index=True),
    Column("action", String(64), nullable=False),
    Column("account", String(64), nullable=False),
    Column("purpose", String(16), nullable=False),
    Column("reason", LargeBinary, nullable=False),
    Column("days", Integer, nullable=False),
    Column("requested_by", String(128), nullable=False),
    Column("requested", _INSTANT, nullable=False),
    Column("approved_by", String(128)),
    Column("approved", _INSTANT),
    Column("expires", _INSTANT),
    Column("revoked_by", String(128)),
    Column("revoked", _INSTANT),
    comment="Expires so many days after its approval.",
)

access_break_glass = Table(
    "access_break_glass",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("principal", String(128), nullable=False, index=True),
    Column("account", String(64), nullable=False),
    Column("purpose", String(16), nullable=False),
    Column("reason", LargeBinary, nullable=False),
    Column("reason_ref", String(80), nullable=False),
    Column("begun", _INSTANT, nullable=False),
    Column("expires", _INSTANT, nullable=False),
    Column("review_by", _INSTANT, nullable=False),
    Column("ended", _INSTANT),
    Column("reviewed_by", String(128)),
    Column("reviewed", _INSTANT),
    Column("verdict", String(16)),
)

access_key = Table(
    "access_key",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("principal", String(128), nullable=False, index=True),
    Column("account", String(64), nullable=False),
    Column("purpose", String(16), nullable=False),
    Column("role", String(32), nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("created", _INSTANT, nullable=False),
    Column("last_used", _INSTANT),
    Column("disabled", Boolean, nullable=False),
)

access_client = Table(
    "access_client",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("principal", String(128), nullable=False, index=True),
    Column("account", String(64), nullable=False),
    Column("purpose", String(16), nullable=False),
    Column("scopes", Text, nullable=False, comment="SMART scopes that it may ask for, space between two"),
    Column("keys_url", Text, nullable=False, comment="https address of its JSON Web Key Set, or an empty text"),
    Column("keys", Text, nullable=False, comment="its JSON Web Key Set, or an empty text"),
    Column("created", _INSTANT, nullable=False),
    Column("disabled", Boolean, nullable=False),
    comment="Backend services: clients that sign assertions, by SMART App Launch 2.2.",
)

access_revoked = Table(
    "access_revoked",
    metadata,
    Column("id", String(128), primary_key=True),
    Column("principal", String(128), nullable=False),
    Column("expires", _INSTANT, nullable=False),
    Column("at", _INSTANT, nullable=False),
    comment="Tokens that are worth nothing before they end; a row may go once its token has ended.",
)

access_seen = Table(
    "access_seen",
    metadata,
    Column("id", String(80), primary_key=True),
    Column("expires", _INSTANT, nullable=False, index=True),
    comment="What may be used once: signatures of changing requests, tokens of issuers with `once`.",
)

access_failure = Table(
    "access_failure",
    metadata,
    Column("id", String(80), primary_key=True),
    Column("failures", Integer, nullable=False),
    Column("locks", Integer, nullable=False),
    Column("first", _INSTANT, nullable=False),
    Column("last", _INSTANT, nullable=False, index=True),
    Column("locked_until", _INSTANT),
    comment="Failed attempts by digest of source and claimed name.",
)

access_link = Table(
    "access_link",
    metadata,
    Column("issuer", String(256), primary_key=True),
    Column("subject", String(256), primary_key=True),
    Column("principal", String(128), nullable=False, index=True),
    comment="Which principal a subject of an identity provider is.",
)

access_consent = Table(
    "access_consent",
    metadata,
    Column("account", String(64), primary_key=True),
    Column("consent", String(64), primary_key=True, comment="id of the Consent"),
    Column("owner", _Big, nullable=False, comment="symbol of its patient in the record, 0 for none"),
    Column("patient", String(64), nullable=False, comment="id of its patient, as index rows have ids"),
    Column("word", String(16), nullable=False, comment="what became of it: see carelake.access.directives"),
    Column("rules", Integer, nullable=False, comment="rows of access_consent_rule"),
    Column("widened", Integer, nullable=False, comment="denials that could not be narrowed as they ask"),
    Column("dropped", Integer, nullable=False, comment="permissions that were not understood"),
    comment="Consents of the record as they are projected, each that is not deleted; they go with their patient.",
)
Index("access_consent_patient", access_consent.c.account, access_consent.c.patient)

access_consent_rule = Table(
    "access_consent_rule",
    metadata,
    Column("account", String(64), primary_key=True),
    Column("consent", String(64), primary_key=True),
    Column("node", Integer, primary_key=True, autoincrement=False, comment="its provision, numbered within it"),
    Column("part", Integer, primary_key=True, autoincrement=False),
    Column("parent", Integer, nullable=False, comment="the provision that it is an exception to, -1 for none"),
    Column("owner", _Big, nullable=False),
    Column("patient", String(64), nullable=False),
    Column("denies", Boolean, nullable=False),
    Column("purpose", String(16), nullable=False, comment="a purpose of use; this and the next three: empty for any"),
    Column("mode", String(8), nullable=False, comment="access or disclose"),
    Column("actor", Text, nullable=False, comment="reference or identifier of who is meant"),
    Column("kind", String(64), nullable=False, comment="a FHIR type"),
    Column("low", _Big, nullable=False, comment="holds from then on, microseconds since 1970 UTC"),
    Column("high", _Big, nullable=False, comment="and until before then"),
    comment="One row for each combination of what a provision of a Consent, and those above it, ask for.",
)
Index("access_consent_rule_owner", access_consent_rule.c.account, access_consent_rule.c.owner)
Index("access_consent_rule_patient", access_consent_rule.c.account, access_consent_rule.c.patient)
