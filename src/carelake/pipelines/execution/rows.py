"""Rows of pipelines and executions: what is read and written of them, in the caller's transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, and_, delete, func, insert, select, update

from carelake.core import canonical
from carelake.core.errors import Conflict, NotFound
from carelake.pipelines.tables import execution, execution_step, pipeline, pipeline_version

__all__ = ["ACTIVE", "ENDED", "Execution", "Rows", "StepRow"]

ACTIVE = ("Executing", "Stopping")
ENDED = ("Stopped", "Failed", "Succeeded")


@dataclass(frozen=True)
class Execution:
    """One execution, as its row has it; `execution` says what the columns mean."""

    id: str
    account: str
    pipeline: str
    version: int
    status: str
    display: str
    description: str
    parameters: Mapping[str, str]
    parallel: int
    source: str
    selected: tuple[str, ...]
    token: str
    reason: str
    process: str
    principal: str
    purpose: str
    local: bool
    cause: str
    created: str
    modified: str
    bounds: str | None = None


@dataclass(frozen=True)
class StepRow:
    """One step of an execution, as its row has it; `execution_step` says what the columns mean."""

    name: str
    position: int
    type: str
    status: str = "Starting"
    attempts: int = 0
    failures: tuple[str, ...] = ()
    due: str = ""
    key: str = ""
    output: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""
    hit: str = ""
    source: str = ""
    started: str = ""
    ended: str = ""
    milliseconds: int = 0
    memory: int = 0


class Rows:
    """Rows of one account."""

    def __init__(self, tx: Connection, account: str) -> None:
        self._tx = tx
        self._account = account

    # -- pipelines ------------------------------------------------------------------------------------------------

    def pipeline(self, name: str) -> Row[Any]:
        """A pipeline; `NotFound` ``pipelines.no_such_pipeline``."""
        found = self.find_pipeline(name)
        if found is None:
            raise NotFound("pipelines.no_such_pipeline", "No such pipeline; `carelake pipelines list` shows them.")
        return found

    def find_pipeline(self, name: str) -> Row[Any] | None:
        """A pipeline, or None."""
        own = (pipeline.c.account == self._account) & (pipeline.c.name == name)
        return self._tx.execute(select(pipeline).where(own)).first()

    def pipelines(self) -> list[Row[Any]]:
        """Every pipeline of the account, by name."""
        query = select(pipeline).where(pipeline.c.account == self._account)
        return list(self._tx.execute(query.order_by(pipeline.c.name)))

    def add_version(self, name: str, definition: str, at: str) -> int:
        """Keep a definition, unless it is the newest already; its version."""
        own = (pipeline_version.c.account == self._account) & (pipeline_version.c.name == name)
        query = select(pipeline_version.c.version, pipeline_version.c.definition).where(own)
        newest = self._tx.execute(query.order_by(pipeline_version.c.version.desc()).limit(1)).first()
        if newest is not None and newest.definition == definition:
            return int(newest.version)
        version = 1 if newest is None else int(newest.version) + 1
        said = {"account": self._account, "name": name, "version": version, "definition": definition, "created": at}
        self._tx.execute(insert(pipeline_version).values(**said))
        return version

    def definition(self, name: str, version: int) -> Row[Any]:
        """The row of a version of a definition."""
        own = (pipeline_version.c.account == self._account) & (pipeline_version.c.name == name)
        row = self._tx.execute(select(pipeline_version).where(own, pipeline_version.c.version == version)).first()
        if row is None:
            raise NotFound("pipelines.no_such_version", "The pipeline has no version of that number.")
        return row

    def version_at(self, name: str, at: str) -> int:
        """The version that was the newest at a moment, 0 for none."""
        own = (pipeline_version.c.account == self._account) & (pipeline_version.c.name == name)
        query = select(func.max(pipeline_version.c.version)).where(own, pipeline_version.c.created <= at)
        return int(self._tx.execute(query).scalar() or 0)

    def keep_pipeline(self, name: str, said: Mapping[str, Any], *, new: bool) -> None:
        """Write a pipeline's row."""
        if new:
            self._tx.execute(insert(pipeline).values(account=self._account, name=name, **said))
            return
        own = (pipeline.c.account == self._account) & (pipeline.c.name == name)
        self._tx.execute(update(pipeline).where(own).values(**said))

    def delete_pipeline(self, name: str) -> None:
        """Delete a pipeline; its versions and executions stay."""
        own = (pipeline.c.account == self._account) & (pipeline.c.name == name)
        self._tx.execute(delete(pipeline).where(own))

    # -- executions -----------------------------------------------------------------------------------------------

    def execution(self, name: str) -> Execution:
        """An execution by its id; `NotFound` ``pipelines.no_such_execution``."""
        own = (execution.c.account == self._account) & (execution.c.id == name)
        row = self._tx.execute(select(execution).where(own)).first()
        if row is None:
            raise NotFound(
                "pipelines.no_such_execution", "No such execution; `carelake pipelines status NAME` shows them."
            )
        return _execution(row)

    def executions(
        self, name: str | None = None, *, status: Sequence[str] = (), limit: int = 1000
    ) -> list[Execution]:
        """Executions of a pipeline, or of all; the newest first."""
        query = select(execution).where(execution.c.account == self._account)
        if name is not None:
            query = query.where(execution.c.pipeline == name)
        if status:
            query = query.where(execution.c.status.in_(status))
        ordered = query.order_by(execution.c.created.desc(), execution.c.id.desc()).limit(limit)
        return [_execution(row) for row in self._tx.execute(ordered)]

    def of_token(self, name: str, token: str) -> Execution | None:
        """The execution that this ClientRequestToken started."""
        own = and_(execution.c.account == self._account, execution.c.pipeline == name, execution.c.token == token)
        row = self._tx.execute(select(execution).where(own)).first()
        return None if row is None else _execution(row)

    def last_started(self, name: str) -> str:
        """When the newest execution of a pipeline was started, "" for never."""
        own = (execution.c.account == self._account) & (execution.c.pipeline == name)
        return str(self._tx.execute(select(func.max(execution.c.created)).where(own)).scalar() or "")

    def add_execution(self, said: Execution) -> None:
        """Write a new execution."""
        self._tx.execute(insert(execution).values(**_said(said)))

    def change_execution(self, name: str, **said: Any) -> None:
        """Change columns of an execution."""
        own = (execution.c.account == self._account) & (execution.c.id == name)
        self._tx.execute(update(execution).where(own).values(**_encoded(said)))

    # -- steps ----------------------------------------------------------------------------------------------------

    def steps(self, name: str) -> dict[str, StepRow]:
        """Steps of an execution that were begun, by name, in the order of the definition."""
        query = select(execution_step).where(execution_step.c.execution == name).order_by(execution_step.c.position)
        return {row.name: _step(row) for row in self._tx.execute(query)}

    def put_step(self, name: str, step: StepRow) -> None:
        """Write a step's row, whether or not it is there."""
        own = (execution_step.c.execution == name) & (execution_step.c.name == step.name)
        said = _encoded({key: getattr(step, key) for key in StepRow.__dataclass_fields__})
        if not self._tx.execute(update(execution_step).where(own).values(**said)).rowcount:
            self._tx.execute(insert(execution_step).values(execution=name, **said))

    def cached(self, pipeline_name: str, key: str, since: str) -> tuple[str, StepRow] | None:
        """The newest result of this key in the pipeline that ended at ``since`` or later: execution and step."""
        done = (execution_step.c.key == key) & (execution_step.c.status == "Succeeded") & (execution_step.c.hit == "")
        own = (execution.c.account == self._account) & (execution.c.pipeline == pipeline_name)
        query = (
            select(execution_step)
            .join(execution, execution.c.id == execution_step.c.execution)
            .where(done, own, execution_step.c.ended >= since)
            .order_by(execution_step.c.ended.desc(), execution_step.c.execution.desc())
        )
        row = self._tx.execute(query.limit(1)).first()
        return None if row is None else (str(row.execution), _step(row))


def check_active(one: Execution) -> None:
    """Let pass an execution that has not come to its end."""
    if one.status not in ACTIVE:
        raise Conflict("pipelines.ended", f"The execution is {one.status}; this is for one that is on its way.")


_JSON = ("parameters", "selected", "failures", "output")


def _encoded(said: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for key, value in said.items():
        if key in _JSON:
            value = list(value) if isinstance(value, tuple) else dict(value) if isinstance(value, Mapping) else value
            value = canonical.dump(value).decode()
        found[key] = value
    return found


def _said(one: Execution) -> dict[str, Any]:
    return _encoded({key: getattr(one, key) for key in Execution.__dataclass_fields__})


def _execution(row: Row[Any]) -> Execution:
    said = dict(row._mapping)
    said["parameters"] = canonical.load(said["parameters"])
    said["selected"] = tuple(canonical.load(said["selected"]))
    return Execution(**said)


def _step(row: Row[Any]) -> StepRow:

    said = {key: value for key, value in row._mapping.items() if key != "execution"}
    said["failures"] = tuple(canonical.load(said["failures"]))
    # Figures, which go into comparisons: plain floats, not exact decimals.
    said["output"] = msgspec.json.decode(said["output"])
    return StepRow(**said)
