"""The tables of monitors: what each day was like, schedules, and what they ran.

A day's profile holds counts over the baseline's cells and names nobody; it is sealed under the key of the account,
and deleted when a patient of that day is erased: what is left of the day is counted again.
"""

from __future__ import annotations

from sqlalchemy import Column, Index, Integer, LargeBinary, String, Table, Text

from carelake.vault.database import metadata

__all__ = ["execution", "profile", "schedule"]

profile = Table(
    "monitor_profile",
    metadata,
    Column("account", String(64), primary_key=True),
    Column("endpoint", String(96), primary_key=True),
    Column("day", String(10), primary_key=True, comment="UTC"),
    Column("baseline", String(64), nullable=False, comment="digest of the cells that were counted by"),
    Column("rows", Integer, nullable=False, comment="predictions of that day when it was counted"),
    Column("act", String(32), nullable=False),
    Column("sealed", LargeBinary, nullable=False, comment="counts by column"),
    comment="Days of captured predictions, counted.",
)

schedule = Table(
    "monitor_schedule",
    metadata,
    Column("account", String(64), primary_key=True),
    Column("name", String(63), primary_key=True),
    Column("endpoint", String(64), nullable=False, comment="name"),
    Column("kind", String(32), nullable=False, comment="MonitoringType"),
    Column("config", Text, nullable=False, comment="MonitoringScheduleConfig as JSON"),
    Column("status", String(16), nullable=False, comment="Pending, Failed, Scheduled or Stopped"),
    Column("due", String(24), nullable=False, comment="when it runs next; empty for never"),
    Column("created", String(24), nullable=False),
    Column("modified", String(24), nullable=False),
    Column("act", String(32), nullable=False),
    comment="Monitoring schedules, in SageMaker's shape.",
)
Index("monitor_schedule_due", schedule.c.account, schedule.c.due)

execution = Table(
    "monitor_execution",
    metadata,
    Column("account", String(64), primary_key=True),
    Column("schedule", String(63), primary_key=True),
    Column("scheduled", String(24), primary_key=True, comment="the time that it was due"),
    Column("endpoint", String(64), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("status", String(32), nullable=False, comment="SageMaker's ExecutionStatus"),
    Column("finding", String(96), nullable=False, comment="ref; empty while there is none"),
    Column("failure", String(1024), nullable=False, comment="code and message of the error; empty for none"),
    Column("created", String(24), nullable=False),
    Column("modified", String(24), nullable=False),
    Column("act", String(32), nullable=False),
    comment="What schedules ran.",
)
Index("monitor_execution_endpoint", execution.c.account, execution.c.endpoint, execution.c.scheduled)
