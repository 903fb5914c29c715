"""One execution while it is carried out: what is ready begins, what ended is written before what waits for it begins.

Steps that had succeeded stay as they are; those that were under way when a process was killed are begun again. What a
step makes is named by its content, so doing one again makes the same thing once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from carelake.core import canonical
from carelake.core.clock import instant, iso
from carelake.core.errors import CarelakeError
from carelake.core.permit import Permit
from carelake.pipelines.definition.conditions import holds
from carelake.pipelines.definition.document import Definition, Step
from carelake.pipelines.definition.references import resolve
from carelake.pipelines.definition.retries import wait_before
from carelake.pipelines.definition.shapes import CHECKS
from carelake.pipelines.execution import callbacks, reuse
from carelake.pipelines.execution.properties import metadata, named, properties, typed
from carelake.pipelines.execution.rows import ENDED, Execution, Rows, StepRow
from carelake.pipelines.execution.running import Task, failed
from carelake.pipelines.execution.scope import ExecutionScope
from carelake.pipelines.jobs.catalogue import Job

if TYPE_CHECKING:
    from carelake.pipelines.execution.executor import Executor

__all__ = ["Carrying", "Told"]

Told = Callable[[Definition, Mapping[str, StepRow]], None]
"""Told of the steps as they stand, whenever one begins or ends."""

_POLL = 0.2


class Carrying:
    """One execution while it is carried out."""

    def __init__(
        self,
        executor: Executor,
        permit: Permit,
        one: Execution,
        definition: Definition,
        steps: dict[str, StepRow],
        told: Told,
    ) -> None:
        self._by = executor
        self._permit = permit
        self._one = one
        self._definition = definition
        self._steps = steps
        self._told = told
        self._tasks: dict[Future[dict[str, Any]], tuple[Step, Task]] = {}
        self._scope = ExecutionScope(executor.vault, executor.nouns, permit, one, definition, steps)
        self._begun: set[str] = set()
        self._parallel = one.parallel or executor.parallel

    def through(self) -> Execution:
        """To the end, or to where only callbacks are left."""
        try:
            while True:
                if self._stopping():
                    return self._stop()
                moved = self._inline()
                moved = self._begin() or moved
                if self._tasks:
                    self._collect()
                elif not moved:
                    if pause := self._pause():
                        time.sleep(pause)
                    elif self._waiting():
                        return self._leave()
                    else:
                        return self._end()
        except BaseException:
            for _, task in self._tasks.values():
                self._by.launcher.stop(task)
            raise

    # -- what is ready --------------------------------------------------------------------------------------------

    def _ready(self, step: Step) -> bool:
        row = self._steps.get(step.name)
        if row is not None and not self._open(step, row):
            return False
        if self._failed() or (self._one.selected and step.name not in self._one.selected):
            return False
        waits = [self._steps.get(name) for name in step.waits]
        if any(one is None or one.status != "Succeeded" for one in waits):
            return False
        return step.branch is None or self._taken_branch(step.branch)

    def _open(self, step: Step, row: StepRow) -> bool:
        """Whether a step with a row may begin: again, after a wait or after its process was killed."""
        if row.status == "Starting":
            return not row.due or row.due <= self._now()
        return row.status == "Executing" and step.name not in self._begun and step.type != "Callback"

    def _taken_branch(self, branch: tuple[str, bool]) -> bool:
        said = self._steps[branch[0]].output.get("properties", {})
        return bool(said.get("Outcome") == str(branch[1]))

    def _failed(self) -> bool:
        return any(row.status == "Failed" for row in self._steps.values())

    def _inline(self) -> bool:
        """Steps that need no process: decided, or asked for, at once."""
        moved = False
        for step in self._definition.steps.values():
            if step.type in reuse.INLINE and self._ready(step):
                self._do_inline(step)
                moved = True
        return self._called_back() or moved

    def _do_inline(self, step: Step) -> None:
        row = self._row(step, status="Executing", started=self._now(), attempts=1)
        try:
            said = {} if step.type == "Condition" else self._resolved(step)
            if step.type == "Condition":
                outcome = str(all(holds(one, self._scope) for one in step.arguments["Conditions"]))
                done = self._done(
                    row, {"properties": {"Outcome": outcome}, "metadata": {"Condition": {"Outcome": outcome}}}
                )
            elif step.type == "Model":
                container = said["PrimaryContainer"]
                name = str(container.get("ModelDataUrl") or container["ModelPackageName"])
                done = self._done(row, {"properties": {"ModelName": name, "ModelArn": name}})
            elif step.type == "Callback":
                self._ask(step, row, said)
                return
            else:
                message = str(said["ErrorMessage"])[:3072]
                done = self._failed_row(
                    row, "pipelines.fail", message, {"metadata": {"Fail": {"ErrorMessage": message}}}
                )
        except CarelakeError as error:
            done = self._failed_row(row, error.code, error.message)
        self._keep(done)

    def _ask(self, step: Step, row: StepRow, said: Mapping[str, Any]) -> None:
        by, url = self._by, str(step.said.get("SqsQueueUrl") or "")
        with by.vault.database.transaction(self._permit) as tx:
            token = callbacks.ask(tx, self._one.account, self._one.id, step.name, self._now())
            metadata = {"Callback": {"CallbackToken": token, **({"SqsQueueUrl": url} if url else {})}}
            row = replace(row, output={"metadata": metadata, "title": step.title})
            Rows(tx, self._one.account).put_step(self._one.id, row)
            told = {"pipeline": self._one.pipeline, "execution": self._one.id, "step": step.name, "token": token}
            by.outbox.publish(
                tx, self._one.account, "pipeline.callback", f"run:{self._one.id}", {**told, "arguments": said}
            )
        self._steps[step.name] = row
        self._begun.add(step.name)
        self._told(self._definition, self._steps)

    def _called_back(self) -> bool:
        """Steps whose token came back."""
        moved = False
        for name in self._waiting():
            step, row = self._definition.steps[name], self._steps[name]
            with self._by.vault.database.reading(self._permit) as tx:
                found = callbacks.told(tx, self._one.id, name)
            if found is None or found.status == "Executing":
                continue
            given = canonical.load(found.output)
            metadata = {"Callback": {**row.output["metadata"]["Callback"], "OutputParameters": named(given)}}
            if found.status == "Succeeded":
                try:
                    said = properties(step, {}, {"values": typed(step, given)}, self._one.account, self._one.id)
                    row = self._done(row, {"properties": said, "metadata": metadata})
                except CarelakeError as error:
                    row = self._failed_row(row, error.code, error.message, {"metadata": metadata})
            else:
                row = self._failed_row(row, "pipelines.callback", found.reason or "It was told that it failed.")
            self._keep(row)
            moved = True
        return moved

    def _waiting(self) -> list[str]:
        rows = self._steps.values()
        return [row.name for row in rows if row.type == "Callback" and row.status == "Executing"]

    # -- processes ------------------------------------------------------------------------------------------------

    def _begin(self) -> bool:
        """Begin what is ready, as many as may be at once; a result of the cache is taken at once."""
        moved = False
        for step in self._definition.steps.values():
            if step.type in reuse.INLINE or not self._ready(step):
                continue
            if len(self._tasks) >= self._parallel:
                break
            self._begin_one(step)
            moved = True
        return moved

    def _begin_one(self, step: Step) -> None:
        before = self._steps.get(step.name)
        row = before or self._row(step)
        row = replace(row, status="Executing", attempts=row.attempts + 1, started=row.started or self._now(), due="")
        try:
            request = self._resolved(step)
            job = self._by.job(step)
            if step.cached:
                told = (self._by, self._permit, self._one, self._scope)
                row = replace(row, key=reuse.key(*told, step.type, job, request))
                if (hit := reuse.cached(*told, step, row)) is not None:
                    self._keep(hit)
                    return
        except (CarelakeError, OSError) as error:
            code, message = (
                (error.code, error.message)
                if isinstance(error, CarelakeError)
                else ("pipelines.no_such_file", "An input cannot be read.")
            )
            self._keep(self._failed_row(row, code, message))
            return
        task = self._task(step, job, request)
        self._keep(row)
        self._begun.add(step.name)
        self._tasks[self._by.launcher.begin(task)] = (step, task)

    def _task(self, step: Step, job: Job, request: Mapping[str, Any]) -> Task:
        one = self._one
        told = (request.get("StoppingCondition") or {}).get("MaxRuntimeInSeconds")
        return {
            "id": f"{one.id}/{step.name}/{self._steps[step.name].attempts if step.name in self._steps else 0}",
            "execution": one.id,
            "pipeline": one.pipeline,
            "step": step.name,
            "type": step.type,
            "does": job.does,
            "request": dict(request),
            "local": one.local,
            "principal": one.principal,
            "purpose": one.purpose,
            "account": one.account,
            "bounds": one.bounds,
            "seconds": int(told) if told else 0,
        }

    def _collect(self) -> None:
        """Write down what ended."""
        done, _ = wait(self._tasks, _POLL, FIRST_COMPLETED)
        for future in done:
            step, task = self._tasks.pop(future)
            self._begun.discard(step.name)
            self._keep(self._ended(step, task, future.result()))

    def _ended(self, step: Step, task: Task, result: dict[str, Any]) -> StepRow:
        row = replace(self._steps[step.name], memory=int(result.get("memory", 0)))
        if "error" not in result:
            try:
                said = properties(step, task["request"], result, self._one.account, self._one.id)
                return self._done(row, {"properties": said, **self._left(step, task, result)})
            except CarelakeError as error:
                result = failed(error.code, error.message, "", type(error).__name__)
        wrong = result["error"]
        row = replace(row, failures=(*row.failures, wrong["kind"]))
        since = (self._by.vault.clock.now() - instant(row.started)).total_seconds()
        again = wait_before(step.retries, row.failures, since)
        if again is not None:
            due = iso(self._by.vault.clock.now() + timedelta(seconds=again))
            return replace(row, status="Starting", due=due, reason=f"{wrong['code']}: {wrong['message']}")
        left = self._left(step, task, result) if "outputs" in result else {}
        return self._failed_row(row, wrong["code"], wrong["message"], left, kind=wrong.get("class", ""))

    def _left(self, step: Step, task: Task, result: Mapping[str, Any]) -> dict[str, Any]:
        """What a step left, also one that failed at what it found."""
        told = metadata(step, task["request"], result, self._one.account, self._one.id)
        return {"outputs": result["outputs"], "asked": result.get("asked"), **told}

    # -- ends -----------------------------------------------------------------------------------------------------

    def _stopping(self) -> bool:
        with self._by.vault.database.reading(self._permit) as tx:
            return Rows(tx, self._one.account).execution(self._one.id).status == "Stopping"

    def _stop(self) -> Execution:
        for _, task in self._tasks.values():
            self._by.launcher.stop(task)
        wait(self._tasks)
        for future, (step, task) in list(self._tasks.items()):
            row = self._ended(step, task, future.result())
            self._keep(row if row.status == "Succeeded" else self._stopped(row))
        self._tasks.clear()
        for row in list(self._steps.values()):
            if row.status not in ENDED:
                self._keep(self._stopped(row))
        return self._finish("Stopped", "")

    def _stopped(self, row: StepRow) -> StepRow:
        return replace(row, status="Stopped", ended=self._now(), due="")

    def _end(self) -> Execution:
        failed = next((row for row in self._steps.values() if row.status == "Failed"), None)
        if failed is None:
            return self._finish("Succeeded", "")
        return self._finish("Failed", f"Step {failed.name} failed: {failed.reason}"[:1300])

    def _leave(self) -> Execution:
        """Nothing is left but callbacks: whoever sends one back frees it for whoever carries on."""
        with self._by.vault.database.transaction(self._permit) as tx:
            rows = Rows(tx, self._one.account)
            if any(
                (found := callbacks.told(tx, self._one.id, name)) and found.status != "Executing"
                for name in self._waiting()
            ):
                rows.change_execution(self._one.id, process="")
            else:
                rows.change_execution(self._one.id, process=callbacks.WAITING)
            return rows.execution(self._one.id)

    def _finish(self, status: str, reason: str) -> Execution:
        with self._by.vault.database.transaction(self._permit) as tx:
            rows = Rows(tx, self._one.account)
            rows.change_execution(self._one.id, status=status, reason=reason, process="", modified=self._now())
            said = {"pipeline": self._one.pipeline, "execution": self._one.id, "status": status}
            self._by.outbox.publish(tx, self._one.account, "pipeline.execution", f"run:{self._one.id}", said)
            return rows.execution(self._one.id)

    # -- rows -----------------------------------------------------------------------------------------------------

    def _row(self, step: Step, **said: Any) -> StepRow:
        position = list(self._definition.steps).index(step.name)
        return StepRow(step.name, position, step.type, output={"title": step.title}, **said)

    def _done(self, row: StepRow, output: Mapping[str, Any]) -> StepRow:
        title = row.output.get("title", "")
        return self._timed(replace(row, status="Succeeded", output={**output, "title": title}, reason=""))

    def _failed_row(
        self, row: StepRow, code: str, message: str, output: Mapping[str, Any] | None = None, kind: str = ""
    ) -> StepRow:
        error = {"code": code, "message": message, "class": kind}
        said = {**row.output, **(output or {}), "error": error}
        return self._timed(replace(row, status="Failed", output=said, reason=f"{code}: {message}"))

    def _timed(self, row: StepRow) -> StepRow:
        now = self._by.vault.clock.now()
        spent = (now - instant(row.started)).total_seconds() * 1000 if row.started else 0
        return replace(row, ended=iso(now), milliseconds=max(0, round(spent)), due="")

    def _keep(self, row: StepRow) -> None:
        self._permit.log.count(steps=int(row.status in ENDED))
        with self._by.vault.database.transaction(self._permit) as tx:
            Rows(tx, self._one.account).put_step(self._one.id, row)
        self._steps[row.name] = row
        self._told(self._definition, self._steps)

    def _resolved(self, step: Step) -> dict[str, Any]:
        found = self._scope.addressed(resolve(step.arguments, self._scope))
        assert isinstance(found, dict)
        if step.type in ("QualityCheck", "ClarifyCheck"):
            told = {name: resolve(step.said[name], self._scope) for name in CHECKS if step.said.get(name) is not None}
            return {**found, "Check": told}
        return found

    def _pause(self) -> float:
        """Seconds to the next attempt that is due, 0 where there is none."""
        dues = [row.due for row in self._steps.values() if row.status == "Starting" and row.due]
        if not dues or self._failed():
            return 0.0
        left = (instant(min(dues)) - self._by.vault.clock.now()).total_seconds()
        return min(max(left, 0.01), _POLL)

    def _now(self) -> str:
        return iso(self._by.vault.clock.now())
