"""The table of captured predictions: what went in and came out, sealed under the patient's key."""

from __future__ import annotations

from sqlalchemy import Column, Index, LargeBinary, String, Table

from carelake.vault.database import metadata

__all__ = ["prediction"]

prediction = Table(
    "prediction",
    metadata,
    Column("ref", String(96), primary_key=True),
    Column("account", String(64), nullable=False),
    Column("endpoint", String(96), nullable=False),
    Column("model", String(96), nullable=False),
    # The patient whose key seals the row; erasure deletes the row with the key.
    Column("owner", String(256), nullable=False),
    Column("at", String(24), nullable=False),
    Column("resource", String(64), nullable=False),
    Column("act", String(32), nullable=False),
    Column("sealed", LargeBinary, nullable=False),
)
Index("prediction_endpoint", prediction.c.account, prediction.c.endpoint, prediction.c.at)
Index("prediction_owner", prediction.c.account, prediction.c.owner)
