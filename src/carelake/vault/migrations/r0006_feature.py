"""Feature groups, and what the learning loop keeps.."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Change the schema."""
    op.create_table(
        "aws_named",
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=48), nullable=False, comment="as in its ARN, for example endpoint-config"),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column(
            "said", sa.Text(), nullable=False, comment="JSON: the request that made it; names and settings, no values"
        ),
        sa.Column("created", sa.String(length=24), nullable=False),
        sa.Column("modified", sa.String(length=24), nullable=False),
        sa.Column("act", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("account", "kind", "name"),
        comment="What has a name at the AWS-shaped doors alone.",
    )
    op.create_table(
        "aws_tag",
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("resource", sa.String(length=256), nullable=False, comment="what follows the account in its ARN"),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("value", sa.String(length=256), nullable=False),
        sa.PrimaryKeyConstraint("account", "resource", "name"),
        comment="Tags of things that have an ARN.",
    )
    op.create_index("aws_tag_resource", "aws_tag", ["account", "resource"], unique=False)
    op.create_table(
        "endpoint_alarm",
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False, comment="of the endpoint"),
        sa.Column("alarm", sa.String(length=32), nullable=False),
        sa.Column("state", sa.String(length=32), nullable=False),
        sa.Column("since", sa.String(length=24), nullable=False),
        sa.PrimaryKeyConstraint("account", "name", "alarm"),
        comment="The state of alarms as it was told last, so that a change of it is told once.",
    )
    op.create_table(
        "endpoint_invocation",
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False, comment="of the endpoint"),
        sa.Column("number", sa.BigInteger(), nullable=False, comment="1, 2, ... in that name, without a gap"),
        sa.Column("event", sa.String(length=64), nullable=False, comment="eventId, or the caller's inferenceId"),
        sa.Column("endpoint", sa.String(length=96), nullable=False, comment="the variant that answered"),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.Column(
            "digest", sa.String(length=64), nullable=False, comment="over the refs of its predictions, in their order"
        ),
        sa.Column("at", sa.String(length=24), nullable=False),
        sa.Column("act", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("account", "name", "number"),
        comment="Every request that an endpoint answered; its number and its captures are one transaction.",
    )
    op.create_index("endpoint_invocation_event", "endpoint_invocation", ["account", "name", "event"], unique=False)
    op.create_table(
        "endpoint_revision",
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False, comment="of the endpoint"),
        sa.Column("number", sa.Integer(), nullable=False, comment="1, 2, ... in that name"),
        sa.Column(
            "base", sa.Integer(), nullable=False, comment="number of the revision that served before it; 0 for none"
        ),
        sa.Column("config", sa.Text(), nullable=False, comment="JSON: variants, shadows, DeploymentConfig"),
        sa.Column("begun", sa.String(length=24), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False, comment="of the schedule, that was told last"),
        sa.Column("ended", sa.String(length=24), nullable=False, comment="empty while it is under way"),
        sa.Column(
            "outcome",
            sa.String(length=16),
            nullable=False,
            comment="completed or rolled_back; empty while it is under way",
        ),
        sa.Column(
            "reason", sa.String(length=64), nullable=False, comment="of a rollback: the alarm, timeout, or asked"
        ),
        sa.Column("act", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("account", "name", "number"),
        comment="What an endpoint was told to serve, in order; a rollout's stage follows from its row and the clock.",
    )
    op.create_table(
        "endpoint_window",
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("endpoint", sa.String(length=96), nullable=False, comment="the variant"),
        sa.Column("minute", sa.Integer(), nullable=False, comment="since 1970 UTC"),
        sa.Column("metric", sa.String(length=16), nullable=False),
        sa.Column("bin", sa.Integer(), nullable=False),
        sa.Column("many", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account", "endpoint", "minute", "metric", "bin"),
        comment="Counts of what endpoints answered, a minute each; counts of windows add up.",
        sqlite_with_rowid=False,
    )
    op.create_table(
        "feature_due",
        sa.Column("grp", sa.String(length=32), nullable=False),
        sa.Column("owner", sa.String(length=256), nullable=False),
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column(
            "due",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            nullable=False,
            comment="when something leaves a window",
        ),
        sa.PrimaryKeyConstraint("grp", "owner"),
        comment="Patients whose declared features change by time alone.",
        sqlite_with_rowid=False,
    )
    op.create_index("feature_due_next", "feature_due", ["grp", "due"], unique=False)
    op.create_index("feature_due_owner", "feature_due", ["account", "owner"], unique=False)
    op.create_table(
        "feature_group",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column(
            "state", sa.String(length=16), nullable=False, comment="Created, or Deleted: its offline store stays"
        ),
        sa.Column("version", sa.Integer(), nullable=False, comment="grows with each change of the definition"),
        sa.Column(
            "definition", sa.LargeBinary(), nullable=False, comment="JSON; names, types and settings, no values"
        ),
        sa.Column(
            "seq",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            nullable=False,
            comment="rows that were ever written to the offline store",
        ),
        sa.Column("created", sa.String(length=32), nullable=False),
        sa.Column("modified", sa.String(length=32), nullable=False),
        sa.Column("ref", sa.String(length=96), nullable=False, comment="its noun"),
        sa.PrimaryKeyConstraint("id"),
        comment="Feature groups; a name is one group's among those that are not deleted.",
    )
    op.create_index("feature_group_name", "feature_group", ["account", "name"], unique=False)
    op.create_table(
        "feature_ingest",
        sa.Column("grp", sa.String(length=32), nullable=False),
        sa.Column("source", sa.String(length=96), nullable=False, comment="HMAC of the file"),
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column(
            "done",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            nullable=False,
            comment="rows of it that are stored or refused",
        ),
        sa.Column("rows", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("refused", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("at", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("grp", "source"),
        comment="Files that were ingested, and how far: a run that was killed goes on there.",
    )
    op.create_table(
        "feature_log",
        sa.Column("grp", sa.String(length=32), nullable=False),
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("owner", sa.String(length=256), nullable=False),
        sa.Column(
            "called",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            nullable=False,
            comment="api_invocation_time, microseconds since 1970 UTC",
        ),
        sa.Column(
            "written", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False, comment="write_time"
        ),
        sa.Column("deleted", sa.Boolean(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False, comment="the values"),
        sa.PrimaryKeyConstraint("grp", "seq"),
        comment="Offline store, as long as a row is in no Iceberg file yet.",
        sqlite_with_rowid=False,
    )
    op.create_index("feature_log_owner", "feature_log", ["account", "owner"], unique=False)
    op.create_table(
        "feature_position",
        sa.Column("grp", sa.String(length=32), nullable=False),
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column(
            "seq",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            nullable=False,
            comment="every change of the record up to this one is in the features",
        ),
        sa.Column(
            "moment",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            nullable=False,
            comment="values are as of then, microseconds since 1970 UTC",
        ),
        sa.Column("snapshot", sa.String(length=128), nullable=False),
        sa.PrimaryKeyConstraint("grp"),
        comment="How far declared features are computed.",
    )
    op.create_table(
        "feature_refused",
        sa.Column("grp", sa.String(length=32), nullable=False),
        sa.Column("source", sa.String(length=96), nullable=False, comment="of a file, or of a computation"),
        sa.Column("line", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False, comment="from 1"),
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("owner", sa.String(length=256), nullable=False),
        sa.Column("reason", sa.String(length=160), nullable=False, comment="feature and gate, no value"),
        sa.Column("at", sa.String(length=32), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("grp", "source", "line"),
        comment="Rows that broke a gate of their group.",
    )
    op.create_index("feature_refused_owner", "feature_refused", ["account", "owner"], unique=False)
    op.create_table(
        "feature_row",
        sa.Column("grp", sa.String(length=32), nullable=False),
        sa.Column("record", sa.String(length=2048), nullable=False, comment="the record identifier"),
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("owner", sa.String(length=256), nullable=False),
        sa.Column(
            "event",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            nullable=False,
            comment="event time, microseconds since 1970 UTC",
        ),
        sa.Column(
            "expires",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            nullable=True,
            comment="from then on it is not there",
        ),
        sa.Column("deleted", sa.Boolean(), nullable=False, comment="softly: its event time still counts"),
        sa.Column("sealed", sa.LargeBinary(), nullable=False, comment="the values"),
        sa.PrimaryKeyConstraint("grp", "record"),
        comment="Online store: the latest record of each identifier.",
        sqlite_with_rowid=False,
    )
    op.create_index("feature_row_owner", "feature_row", ["account", "owner"], unique=False)
    op.create_table(
        "feature_table",
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False, comment="id of the group"),
        sa.Column(
            "location",
            sa.String(length=512),
            nullable=False,
            comment="of the current metadata file, in the features zone",
        ),
        sa.Column("previous", sa.String(length=512), nullable=True, comment="the one before it"),
        sa.PrimaryKeyConstraint("account", "name"),
        comment="Iceberg catalog of the offline store; as lake_table.",
    )
    op.create_table(
        "model_group",
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("tags", sa.Text(), nullable=False, comment="JSON list of Key and Value"),
        sa.Column("created", sa.String(length=32), nullable=False),
        sa.Column("created_by", sa.String(length=128), nullable=False),
        sa.Column(
            "versions", sa.Integer(), nullable=False, comment="the last number that was given; none is given twice"
        ),
        sa.PrimaryKeyConstraint("account", "name"),
        comment="Model package groups, as SageMaker has them.",
    )
    op.create_table(
        "model_package",
        sa.Column(
            "ref", sa.String(length=96), nullable=False, comment="of the noun of kind model, which has its state"
        ),
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False, comment="of its group"),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created", sa.String(length=32), nullable=False),
        sa.Column("created_by", sa.String(length=128), nullable=False),
        sa.Column("modified", sa.String(length=32), nullable=False),
        sa.Column("modified_by", sa.String(length=128), nullable=False),
        sa.Column(
            "started_by",
            sa.String(length=128),
            nullable=False,
            comment="who spoke for the author; its own name for nobody",
        ),
        sa.Column(
            "token",
            sa.String(length=64),
            nullable=False,
            comment="ClientToken of the request that made it, empty for none",
        ),
        sa.Column("deleted", sa.String(length=32), nullable=False, comment="empty while it is there"),
        sa.Column(
            "said",
            sa.Text(),
            nullable=False,
            comment="what was said of it, in the fields of CreateModelPackage, as JSON",
        ),
        sa.PrimaryKeyConstraint("ref"),
        comment="Model package versions; what was approved of them is a noun of its own.",
    )
    op.create_index("model_package_created", "model_package", ["account", "created"], unique=False)
    op.create_index("model_package_version", "model_package", ["account", "name", "version"], unique=True)
    op.create_table(
        "monitor_execution",
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("schedule", sa.String(length=63), nullable=False),
        sa.Column("scheduled", sa.String(length=24), nullable=False, comment="the time that it was due"),
        sa.Column("endpoint", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("status", sa.String(length=32), nullable=False, comment="SageMaker's ExecutionStatus"),
        sa.Column("finding", sa.String(length=96), nullable=False, comment="ref; empty while there is none"),
        sa.Column(
            "failure", sa.String(length=1024), nullable=False, comment="code and message of the error; empty for none"
        ),
        sa.Column("created", sa.String(length=24), nullable=False),
        sa.Column("modified", sa.String(length=24), nullable=False),
        sa.Column("act", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("account", "schedule", "scheduled"),
        comment="What schedules ran.",
    )
    op.create_index(
        "monitor_execution_endpoint", "monitor_execution", ["account", "endpoint", "scheduled"], unique=False
    )
    op.create_table(
        "monitor_profile",
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("endpoint", sa.String(length=96), nullable=False),
        sa.Column("day", sa.String(length=10), nullable=False, comment="UTC"),
        sa.Column(
            "baseline", sa.String(length=64), nullable=False, comment="digest of the cells that were counted by"
        ),
        sa.Column("rows", sa.Integer(), nullable=False, comment="predictions of that day when it was counted"),
        sa.Column("act", sa.String(length=32), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False, comment="counts by column"),
        sa.PrimaryKeyConstraint("account", "endpoint", "day"),
        comment="Days of captured predictions, counted.",
    )
    op.create_table(
        "monitor_schedule",
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("endpoint", sa.String(length=64), nullable=False, comment="name"),
        sa.Column("kind", sa.String(length=32), nullable=False, comment="MonitoringType"),
        sa.Column("config", sa.Text(), nullable=False, comment="MonitoringScheduleConfig as JSON"),
        sa.Column("status", sa.String(length=16), nullable=False, comment="Pending, Failed, Scheduled or Stopped"),
        sa.Column("due", sa.String(length=24), nullable=False, comment="when it runs next; empty for never"),
        sa.Column("created", sa.String(length=24), nullable=False),
        sa.Column("modified", sa.String(length=24), nullable=False),
        sa.Column("act", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("account", "name"),
        comment="Monitoring schedules, in SageMaker's shape.",
    )
    op.create_index("monitor_schedule_due", "monitor_schedule", ["account", "due"], unique=False)
    op.create_table(
        "pipeline",
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=256), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False, comment="the newest, see pipeline_version"),
        sa.Column("display", sa.String(length=256), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False, comment="RoleArn as it was given; it decides nothing here"),
        sa.Column("parallel", sa.Integer(), nullable=False, comment="steps at once, 0 for the setting"),
        sa.Column("token", sa.String(length=128), nullable=False),
        sa.Column("created", sa.String(length=24), nullable=False),
        sa.Column("created_by", sa.String(length=128), nullable=False),
        sa.Column("modified", sa.String(length=24), nullable=False),
        sa.Column("modified_by", sa.String(length=128), nullable=False),
        sa.PrimaryKeyConstraint("account", "name"),
    )
    op.create_table(
        "pipeline_callback",
        sa.Column("token", sa.String(length=10), nullable=False),
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("execution", sa.String(length=32), nullable=False),
        sa.Column("step", sa.String(length=64), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False, comment="Executing, Succeeded, Failed or Stopped"),
        sa.Column("output", sa.Text(), nullable=False, comment="JSON: output parameters"),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created", sa.String(length=24), nullable=False),
        sa.Column("ended", sa.String(length=24), nullable=False),
        sa.PrimaryKeyConstraint("token"),
    )
    op.create_index("pipeline_callback_step", "pipeline_callback", ["execution", "step"], unique=False)
    op.create_table(
        "pipeline_execution",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("pipeline", sa.String(length=256), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False, comment="SageMaker's PipelineExecutionStatus"),
        sa.Column("display", sa.String(length=82), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("parameters", sa.Text(), nullable=False, comment="JSON: the texts that were given"),
        sa.Column("parallel", sa.Integer(), nullable=False),
        sa.Column("source", sa.String(length=32), nullable=False, comment="execution whose results are used again"),
        sa.Column("selected", sa.Text(), nullable=False, comment="JSON: steps of a selective execution, [] for all"),
        sa.Column("token", sa.String(length=128), nullable=False, comment="ClientRequestToken"),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("process", sa.Text(), nullable=False, comment='who carries it out, "" for nobody'),
        sa.Column("principal", sa.String(length=128), nullable=False, comment="who started it"),
        sa.Column("purpose", sa.String(length=16), nullable=False),
        sa.Column(
            "local", sa.Boolean(), server_default=sa.false(), nullable=False, comment="may read files of this machine"
        ),
        sa.Column("cause", sa.String(length=64), nullable=False, comment="the trigger that started it"),
        sa.Column("created", sa.String(length=24), nullable=False),
        sa.Column("modified", sa.String(length=24), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("pipeline_execution_name", "pipeline_execution", ["account", "pipeline", "created"], unique=False)
    op.create_index("pipeline_execution_status", "pipeline_execution", ["account", "status"], unique=False)
    op.create_index("pipeline_execution_token", "pipeline_execution", ["account", "pipeline", "token"], unique=True)
    op.create_table(
        "pipeline_step",
        sa.Column("execution", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("type", sa.String(length=16), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False, comment="SageMaker's StepStatus"),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("failures", sa.Text(), nullable=False, comment="JSON: kinds of the attempts that failed"),
        sa.Column("due", sa.String(length=24), nullable=False, comment='of the next attempt, "" for none'),
        sa.Column("key", sa.String(length=64), nullable=False, comment="of the cache: inputs, code and settings"),
        sa.Column("output", sa.Text(), nullable=False, comment="JSON: properties, outputs, values"),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column(
            "hit", sa.String(length=32), nullable=False, comment="execution whose result was used by the cache"
        ),
        sa.Column(
            "source",
            sa.String(length=32),
            nullable=False,
            comment="execution whose result was used since it was not selected",
        ),
        sa.Column("started", sa.String(length=24), nullable=False),
        sa.Column("ended", sa.String(length=24), nullable=False),
        sa.Column("milliseconds", sa.Integer(), nullable=False),
        sa.Column("memory", sa.Integer(), nullable=False, comment="most that its process held, in MiB"),
        sa.PrimaryKeyConstraint("execution", "name"),
    )
    op.create_index("pipeline_step_key", "pipeline_step", ["key"], unique=False)
    op.create_table(
        "pipeline_trigger",
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("pipeline", sa.String(length=256), nullable=False),
        sa.Column("schedule", sa.String(length=256), nullable=False, comment='at(), rate() or cron(), "" for none'),
        sa.Column("event", sa.String(length=128), nullable=False, comment='type of event, "" for none'),
        sa.Column("wanted", sa.Text(), nullable=False, comment="JSON: what the event's data must have"),
        sa.Column("parameters", sa.Text(), nullable=False, comment="JSON"),
        sa.Column("state", sa.String(length=16), nullable=False, comment="ENABLED or DISABLED"),
        sa.Column("principal", sa.String(length=128), nullable=False),
        sa.Column("purpose", sa.String(length=16), nullable=False),
        sa.Column("created", sa.String(length=24), nullable=False),
        sa.Column("due", sa.String(length=24), nullable=False, comment='of a schedule, "" for none'),
        sa.Column("last", sa.String(length=24), nullable=False),
        sa.PrimaryKeyConstraint("account", "name"),
    )
    op.create_table(
        "pipeline_version",
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=256), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("definition", sa.Text(), nullable=False),
        sa.Column("created", sa.String(length=24), nullable=False),
        sa.PrimaryKeyConstraint("account", "name", "version"),
        comment="Stays when its pipeline is deleted: executions name it.",
    )
    op.create_table(
        "prediction_due",
        sa.Column("ref", sa.String(length=96), nullable=False, comment="of the prediction"),
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("ref"),
        comment="Captured predictions whose RiskAssessment is to be written into the record.",
    )
    op.create_table(
        "prediction_outcome",
        sa.Column("ref", sa.String(length=96), nullable=False, comment="of the prediction"),
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("endpoint", sa.String(length=96), nullable=False),
        sa.Column("owner", sa.String(length=256), nullable=False),
        sa.Column("at", sa.String(length=24), nullable=False, comment="when it was joined"),
        sa.Column("act", sa.String(length=32), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("ref"),
        comment="What came of what was predicted, once the follow-up has ended.",
    )
    op.create_index("prediction_outcome_endpoint", "prediction_outcome", ["account", "endpoint", "at"], unique=False)
    op.create_index("prediction_outcome_owner", "prediction_outcome", ["account", "owner"], unique=False)
    op.add_column(
        "prediction",
        sa.Column(
            "role", sa.String(length=16), server_default="production", nullable=False, comment="production or shadow"
        ),
    )
    by_hand()


def by_hand() -> None:
    """Endpoints that are in service get their first revision."""
    import json

    connection = op.get_bind()
    columns = ("ref", "kind", "account", "state", "act", "at", "body", "number")
    noun = sa.table("noun", *(sa.column(name) for name in columns))
    names = ("account", "name", "number", "base", "config", "begun", "step", "ended", "outcome", "reason", "act")
    revision = sa.table("endpoint_revision", *(sa.column(name) for name in names))
    serving = sa.select(noun).where(noun.c.kind == "endpoint", noun.c.state == "InService").order_by(noun.c.number)
    for row in connection.execute(serving).mappings().all():
        body = json.loads(row["body"])
        variant = {"name": "AllTraffic", "endpoint": row["ref"], "model": body["model"], "weight": 1.0}
        values = (row["account"], body["name"], 1, 0, json.dumps({"variants": [variant]}))
        told = dict(zip(names, (*values, row["at"], 0, row["at"], "completed", "", row["act"]), strict=True))
        connection.execute(revision.insert().values(told))
