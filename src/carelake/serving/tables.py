"""The tables of captured predictions, sealed under their patients' keys, and of cards that showed them."""

from __future__ import annotations

from sqlalchemy import Column, Index, LargeBinary, String, Table

from carelake.vault.database import metadata

__all__ = ["card", "prediction"]

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

card = Table(
    "card",
    metadata,
    Column("id", String(36), primary_key=True, comment="the card's uuid, by which feedback names it"),
    Column("account", String(64), nullable=False),
    Column("name", String(64), nullable=False, comment="of the endpoint"),
    Column("service", String(64), nullable=False),
    Column("model", String(96), nullable=False),
    Column("version", String(32), nullable=False, comment="of the model"),
    Column("prediction", String(96), nullable=False),
    # The patient whose key seals the comment; erasure deletes the row.
    Column("owner", String(256), nullable=False),
    Column("shown", String(32), nullable=False),
    Column("outcome", String(16), nullable=False, comment="accepted or overridden; empty while nothing is told"),
    Column("reason", String(32), nullable=False, comment="our code of an override"),
    Column("told", String(32), nullable=False, comment="outcomeTimestamp"),
    Column("act", String(32), nullable=False, comment="of the feedback; until then of the card"),
    Column("sealed", LargeBinary, comment="what was written beside the outcome"),
    comment="Cards of CDS Hooks, and what was done about them.",
)
Index("card_shown", card.c.account, card.c.name, card.c.shown)
Index("card_owner", card.c.account, card.c.owner)
