"""Tables of what only AWS's shape has: models and endpoint configurations by name, job definitions, and tags."""

from __future__ import annotations

from sqlalchemy import Column, Index, String, Table, Text

from carelake.vault.database import metadata

__all__ = ["named", "tag"]

named = Table(
    "aws_named",
    metadata,
    Column("account", String(64), primary_key=True),
    Column("kind", String(48), primary_key=True, comment="as in its ARN, for example endpoint-config"),
    Column("name", String(64), primary_key=True),
    Column("said", Text, nullable=False, comment="JSON: the request that made it; names and settings, no values"),
    Column("created", String(24), nullable=False),
    Column("modified", String(24), nullable=False),
    Column("act", String(32), nullable=False),
    comment="What has a name at the AWS-shaped doors alone.",
)

tag = Table(
    "aws_tag",
    metadata,
    Column("account", String(64), primary_key=True),
    Column("resource", String(256), primary_key=True, comment="what follows the account in its ARN"),
    Column("name", String(128), primary_key=True),
    Column("value", String(256), nullable=False),
    comment="Tags of things that have an ARN.",
)
Index("aws_tag_resource", tag.c.account, tag.c.resource)
