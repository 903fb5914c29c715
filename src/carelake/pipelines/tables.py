"""Tables of pipelines, their executions and erasures: where each one stands, and what each step gave."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Connection, Index, Integer, LargeBinary, String, Table, Text, false, select

from carelake.vault.database import metadata

__all__ = [
    "callback",
    "erasure",
    "erasure_target",
    "execution",
    "execution_step",
    "pipeline",
    "pipeline_version",
    "run",
    "run_step",
    "trigger",
    "unfinished",
]

# Runs of recipes until schema 0006; since then each is an execution of a pipeline.
run = Table(
    "run",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("recipe", String(64), nullable=False),
    Column("account", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("parameters", Text, nullable=False),
    Column("process", Text, nullable=False),
    Column("started", String(24), nullable=False),
    Column("ended", String(24)),
)
Index("run_recipe", run.c.account, run.c.recipe, run.c.started)

run_step = Table(
    "run_step",
    metadata,
    Column("run", String(32), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("name", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("output", Text, nullable=False),
    Column("milliseconds", Integer, nullable=False),
)

pipeline = Table(
    "pipeline",
    metadata,
    Column("account", String(64), primary_key=True),
    Column("name", String(256), primary_key=True),
    Column("version", Integer, nullable=False, comment="the newest, see pipeline_version"),
    Column("display", String(256), nullable=False),
    Column("description", Text, nullable=False),
    Column("role", Text, nullable=False, comment="RoleArn as it was given; it decides nothing here"),
    Column("parallel", Integer, nullable=False, comment="steps at once, 0 for the setting"),
    Column("token", String(128), nullable=False),
    Column("created", String(24), nullable=False),
    Column("created_by", String(128), nullable=False),
    Column("modified", String(24), nullable=False),
    Column("modified_by", String(128), nullable=False),
)

pipeline_version = Table(
    "pipeline_version",
    metadata,
    Column("account", String(64), primary_key=True),
    Column("name", String(256), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("definition", Text, nullable=False),
    Column("created", String(24), nullable=False),
    comment="Stays when its pipeline is deleted: executions name it.",
)

execution = Table(
    "pipeline_execution",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("account", String(64), nullable=False),
    Column("pipeline", String(256), nullable=False),
    Column("version", Integer, nullable=False),
    Column("status", String(16), nullable=False, comment="SageMaker's PipelineExecutionStatus"),
    Column("display", String(82), nullable=False),
    Column("description", Text, nullable=False),
    Column("parameters", Text, nullable=False, comment="JSON: the texts that were given"),
    Column("parallel", Integer, nullable=False),
    Column("source", String(32), nullable=False, comment="execution whose results are used again"),
    Column("selected", Text, nullable=False, comment="JSON: steps of a selective execution, [] for all"),
    Column("token", String(128), nullable=False, comment="ClientRequestToken"),
    Column("reason", Text, nullable=False),
    Column("process", Text, nullable=False, comment='who carries it out, "" for nobody'),
    Column("principal", String(128), nullable=False, comment="who started it"),
    Column("purpose", String(16), nullable=False),
    Column("local", Boolean, nullable=False, server_default=false(), comment="may read files of this machine"),
    Column("cause", String(64), nullable=False, comment="the trigger that started it"),
    Column("created", String(24), nullable=False),
    Column("modified", String(24), nullable=False),
    Column("bounds", Text, comment="JSON: roles and grants that its starter came with; null before schema 0007"),
)
Index("pipeline_execution_name", execution.c.account, execution.c.pipeline, execution.c.created)
Index("pipeline_execution_token", execution.c.account, execution.c.pipeline, execution.c.token, unique=True)
Index("pipeline_execution_status", execution.c.account, execution.c.status)

execution_step = Table(
    "pipeline_step",
    metadata,
    Column("execution", String(32), primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("position", Integer, nullable=False),
    Column("type", String(16), nullable=False),
    Column("status", String(16), nullable=False, comment="SageMaker's StepStatus"),
    Column("attempts", Integer, nullable=False),
    Column("failures", Text, nullable=False, comment="JSON: kinds of the attempts that failed"),
    Column("due", String(24), nullable=False, comment='of the next attempt, "" for none'),
    Column("key", String(64), nullable=False, comment="of the cache: inputs, code and settings"),
    Column("output", Text, nullable=False, comment="JSON: properties, outputs, values"),
    Column("reason", Text, nullable=False),
    Column("hit", String(32), nullable=False, comment="execution whose result was used by the cache"),
    Column("source", String(32), nullable=False, comment="execution whose result was used since it was not selected"),
    Column("started", String(24), nullable=False),
    Column("ended", String(24), nullable=False),
    Column("milliseconds", Integer, nullable=False),
    Column("memory", Integer, nullable=False, comment="most that its process held, in MiB"),
)
Index("pipeline_step_key", execution_step.c.key)

callback = Table(
    "pipeline_callback",
    metadata,
    Column("token", String(10), primary_key=True),
    Column("account", String(64), nullable=False),
    Column("execution", String(32), nullable=False),
    Column("step", String(64), nullable=False),
    Column("status", String(16), nullable=False, comment="Executing, Succeeded, Failed or Stopped"),
    Column("output", Text, nullable=False, comment="JSON: output parameters"),
    Column("reason", Text, nullable=False),
    Column("created", String(24), nullable=False),
    Column("ended", String(24), nullable=False),
)
Index("pipeline_callback_step", callback.c.execution, callback.c.step)

trigger = Table(
    "pipeline_trigger",
    metadata,
    Column("account", String(64), primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("pipeline", String(256), nullable=False),
    Column("schedule", String(256), nullable=False, comment='at(), rate() or cron(), "" for none'),
    Column("event", String(128), nullable=False, comment='type of event, "" for none'),
    Column("wanted", Text, nullable=False, comment="JSON: what the event's data must have"),
    Column("parameters", Text, nullable=False, comment="JSON"),
    Column("state", String(16), nullable=False, comment="ENABLED or DISABLED"),
    Column("principal", String(128), nullable=False),
    Column("purpose", String(16), nullable=False),
    Column("created", String(24), nullable=False),
    Column("due", String(24), nullable=False, comment='of a schedule, "" for none'),
    Column("last", String(24), nullable=False),
    Column("bounds", Text, comment="JSON: roles and grants that whoever added it came with"),
)

erasure = Table(
    "erasure",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("account", String(64), nullable=False),
    Column("state", String(16), nullable=False, comment="the step that is under way, or done"),
    Column("reason", LargeBinary, nullable=False, comment="sealed: free text"),
    Column("reason_ref", String(96), nullable=False, comment="HMAC of it, which the trail names"),
    Column("counts", Text, nullable=False, comment="JSON: what was done so far"),
    Column("process", Text, nullable=False, comment="who carries it out, as in `run`"),
    Column("proof", String(96), nullable=False, comment='ref of the noun, "" before the end'),
    Column("act", String(32), nullable=False),
    Column("started", String(32), nullable=False),
    Column("ended", String(32)),
)
Index("erasure_state", erasure.c.account, erasure.c.state)

erasure_target = Table(
    "erasure_target",
    metadata,
    Column("erasure", String(32), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("sealed", LargeBinary, nullable=False, comment="whose and what is erased; the rows go at the end"),
)


def unfinished(connection: Connection) -> set[str]:
    """Accounts with an erasure that is under way, or was broken off."""
    return set(connection.scalars(select(erasure.c.account).where(erasure.c.state != "done")))
