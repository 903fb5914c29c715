"""The table of releases: to what the key ring gives the data keys of which objects."""

from __future__ import annotations

from sqlalchemy import Column, LargeBinary, String, Table, Text

from carelake.vault.database import metadata

__all__ = ["release_policy"]

release_policy = Table(
    "release_policy",
    metadata,
    Column("account", String(64), primary_key=True),
    Column("subject", String(96), primary_key=True, comment="ref of the endpoint that runs in the sandbox"),
    Column("said", Text, nullable=False, comment="JSON: objects, their digests, and the measurements allowed"),
    Column("at", String(24), nullable=False),
    Column("act", String(32), nullable=False),
    Column("voucher", LargeBinary(32), nullable=False, comment="HMAC under the key ring, over all of the row"),
    comment="What a sandbox must prove before it is given the data keys of a model.",
)
