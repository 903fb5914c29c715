"""Tables of model package groups and of the versions in them; nothing in them is about a patient."""

from __future__ import annotations

from sqlalchemy import Column, Index, Integer, String, Table, Text

from carelake.vault.database import metadata

__all__ = ["model_group", "model_package"]

model_group = Table(
    "model_group",
    metadata,
    Column("account", String(64), primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("description", Text, nullable=False),
    Column("tags", Text, nullable=False, comment="JSON list of Key and Value"),
    Column("created", String(32), nullable=False),
    Column("created_by", String(128), nullable=False),
    Column("versions", Integer, nullable=False, comment="the last number that was given; none is given twice"),
    comment="Model package groups, as SageMaker has them.",
)

model_package = Table(
    "model_package",
    metadata,
    Column("ref", String(96), primary_key=True, comment="of the noun of kind model, which has its state"),
    Column("account", String(64), nullable=False),
    Column("name", String(64), nullable=False, comment="of its group"),
    Column("version", Integer, nullable=False),
    Column("created", String(32), nullable=False),
    Column("created_by", String(128), nullable=False),
    Column("modified", String(32), nullable=False),
    Column("modified_by", String(128), nullable=False),
    Column("started_by", String(128), nullable=False, comment="who spoke for the author; its own name for nobody"),
    Column("token", String(64), nullable=False, comment="ClientToken of the request that made it, empty for none"),
    Column("deleted", String(32), nullable=False, comment="empty while it is there"),
    Column("said", Text, nullable=False, comment="what was said of it, in the fields of CreateModelPackage, as JSON"),
    comment="Model package versions; what was approved of them is a noun of its own.",
)
Index("model_package_version", model_package.c.account, model_package.c.name, model_package.c.version, unique=True)
Index("model_package_created", model_package.c.account, model_package.c.created)
