"""The tables of endpoints: revisions and their rollouts, requests, captured predictions and what came of them.

What tells of a patient is sealed under that patient's key, in rows that name their owner; the rest is refs and
counts.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, String, Table, Text

from carelake.vault.database import metadata

__all__ = ["alarm", "card", "due", "invocation", "outcome", "prediction", "revision", "window"]

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
    Column("role", String(16), nullable=False, server_default="production", comment="production or shadow"),
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

revision = Table(
    "endpoint_revision",
    metadata,
    Column("account", String(64), primary_key=True),
    Column("name", String(64), primary_key=True, comment="of the endpoint"),
    Column("number", Integer, primary_key=True, comment="1, 2, ... in that name"),
    Column("base", Integer, nullable=False, comment="number of the revision that served before it; 0 for none"),
    Column("config", Text, nullable=False, comment="JSON: variants, shadows, DeploymentConfig"),
    Column("begun", String(24), nullable=False),
    Column("step", Integer, nullable=False, comment="of the schedule, that was told last"),
    Column("ended", String(24), nullable=False, comment="empty while it is under way"),
    Column("outcome", String(16), nullable=False, comment="completed or rolled_back; empty while it is under way"),
    Column("reason", String(64), nullable=False, comment="of a rollback: the alarm, timeout, or asked"),
    Column("act", String(32), nullable=False),
    comment="What an endpoint was told to serve, in order; a rollout's stage follows from its row and the clock.",
)

invocation = Table(
    "endpoint_invocation",
    metadata,
    Column("account", String(64), primary_key=True),
    Column("name", String(64), primary_key=True, comment="of the endpoint"),
    Column("number", BigInteger, primary_key=True, comment="1, 2, ... in that name, without a gap"),
    Column("event", String(64), nullable=False, comment="eventId, or the caller's inferenceId"),
    Column("endpoint", String(96), nullable=False, comment="the variant that answered"),
    Column("rows", Integer, nullable=False),
    Column("digest", String(64), nullable=False, comment="over the refs of its predictions, in their order"),
    Column("at", String(24), nullable=False),
    Column("act", String(32), nullable=False),
    comment="Every request that an endpoint answered; its number and its captures are one transaction.",
)
Index("endpoint_invocation_event", invocation.c.account, invocation.c.name, invocation.c.event)

due = Table(
    "prediction_due",
    metadata,
    Column("ref", String(96), primary_key=True, comment="of the prediction"),
    Column("account", String(64), nullable=False),
    comment="Captured predictions whose RiskAssessment is to be written into the record.",
)

outcome = Table(
    "prediction_outcome",
    metadata,
    Column("ref", String(96), primary_key=True, comment="of the prediction"),
    Column("account", String(64), nullable=False),
    Column("endpoint", String(96), nullable=False),
    # The patient whose key seals the row; erasure deletes the row.
    Column("owner", String(256), nullable=False),
    Column("at", String(24), nullable=False, comment="when it was joined"),
    Column("act", String(32), nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    comment="What came of what was predicted, once the follow-up has ended.",
)
Index("prediction_outcome_endpoint", outcome.c.account, outcome.c.endpoint, outcome.c.at)
Index("prediction_outcome_owner", outcome.c.account, outcome.c.owner)

window = Table(
    "endpoint_window",
    metadata,
    Column("account", String(64), primary_key=True),
    Column("endpoint", String(96), primary_key=True, comment="the variant"),
    Column("minute", Integer, primary_key=True, comment="since 1970 UTC"),
    Column("metric", String(16), primary_key=True),
    Column("bin", Integer, primary_key=True),
    Column("many", BigInteger, nullable=False),
    comment="Counts of what endpoints answered, a minute each; counts of windows add up.",
    sqlite_with_rowid=False,
)

alarm = Table(
    "endpoint_alarm",
    metadata,
    Column("account", String(64), primary_key=True),
    Column("name", String(64), primary_key=True, comment="of the endpoint"),
    Column("alarm", String(32), primary_key=True),
    Column("state", String(32), nullable=False),
    Column("since", String(24), nullable=False),
    comment="The state of alarms as it was told last, so that a change of it is told once.",
)
