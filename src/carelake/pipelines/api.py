"""Pipelines by SageMaker's operations: requests and answers are dicts in the shapes of botocore's service model.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreatePipeline.html and its neighbours. Each takes a
permit for one of the actions ``pipeline:define``, ``pipeline:run`` and ``pipeline:read``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from carelake.core.clock import iso
from carelake.core.errors import Conflict, Invalid, Unsupported
from carelake.core.permit import Permit
from carelake.events.outbox import Outbox
from carelake.pipelines import answers
from carelake.pipelines.definition.document import Definition, parse
from carelake.pipelines.definition.parameters import as_text, values
from carelake.pipelines.execution import callbacks, pinning
from carelake.pipelines.execution.bounds import bounds_of
from carelake.pipelines.execution.rows import ACTIVE, ENDED, Execution, Rows, check_active
from carelake.pipelines.jobs.catalogue import check_jobs
from carelake.pipelines.names import execution_arn, execution_of, pipeline_arn, pipeline_of
from carelake.vault.workspace import Vault

__all__ = ["Pipelines"]

_TOKEN = re.compile(r"[\x21-\x7e]{1,128}")
_DISPLAY = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,81}")


class Pipelines:
    """Pipelines and their executions in one workspace."""

    def __init__(self, vault: Vault, outbox: Outbox) -> None:
        self._vault = vault
        self._outbox = outbox

    # -- pipelines ------------------------------------------------------------------------------------------------

    def create_pipeline(self, permit: Permit, request: Mapping[str, Any]) -> dict[str, Any]:
        """CreatePipeline; the same ClientRequestToken again is the same pipeline.

        Raises:
            Invalid: ``pipelines.definition`` and its kin, naming the step.
            Conflict: ``pipelines.exists``.
        """
        name = pipeline_of(str(request["PipelineName"]), permit.account)
        text, _ = _definition(request)
        now, token = self._now(), _token(request)
        with self._vault.database.transaction(permit) as tx:
            rows = Rows(tx, permit.account)
            known = rows.find_pipeline(name)
            if known is not None and (not token or known.token != token):
                raise Conflict("pipelines.exists", "There is a pipeline of this name; update it, or take another.")
            if known is None:
                said = {"version": rows.add_version(name, text, now), "token": token, **_words(request)}
                said |= {"parallel": _parallel(request), "created": now, "created_by": permit.principal}
                said |= {"modified": now, "modified_by": permit.principal}
                rows.keep_pipeline(name, said, new=True)
                permit.log.note(change="create")
                pinning.tell(permit, tx, self._outbox, name)
        return {"PipelineArn": pipeline_arn(permit.account, name)}

    def update_pipeline(self, permit: Permit, request: Mapping[str, Any]) -> dict[str, Any]:
        """UpdatePipeline; another definition is another version: executions keep theirs, triggers are held."""
        name = pipeline_of(str(request["PipelineName"]), permit.account)
        now = self._now()
        with self._vault.database.transaction(permit) as tx:
            rows = Rows(tx, permit.account)
            known = rows.pipeline(name)
            said: dict[str, Any] = {"modified": now, "modified_by": permit.principal, **_words(request, known)}
            if request.get("PipelineDefinition") or request.get("PipelineDefinitionS3Location"):
                said["version"] = rows.add_version(name, _definition(request)[0], now)
            if "ParallelismConfiguration" in request:
                said["parallel"] = _parallel(request)
            rows.keep_pipeline(name, said, new=False)
            permit.log.note(change="update")
            if said.get("version", known.version) != known.version:
                pinning.tell(permit, tx, self._outbox, name)
        version = said.get("version", known.version)
        return {"PipelineArn": pipeline_arn(permit.account, name), "PipelineVersionId": version}

    def delete_pipeline(self, permit: Permit, request: Mapping[str, Any]) -> dict[str, Any]:
        """DeletePipeline; what was executed stays known. `Conflict` ``pipelines.executing``."""
        name = pipeline_of(str(request["PipelineName"]), permit.account)
        with self._vault.database.transaction(permit) as tx:
            rows = Rows(tx, permit.account)
            rows.pipeline(name)
            if rows.executions(name, status=ACTIVE, limit=1):
                raise Conflict("pipelines.executing", "An execution of it is on its way; stop it, or wait.")
            rows.delete_pipeline(name)
            permit.log.note(change="delete")
        return {"PipelineArn": pipeline_arn(permit.account, name)}

    def describe_pipeline(self, permit: Permit, request: Mapping[str, Any]) -> dict[str, Any]:
        """DescribePipeline."""
        name = pipeline_of(str(request["PipelineName"]), permit.account)
        with self._vault.database.reading(permit) as tx:
            rows = Rows(tx, permit.account)
            row = rows.pipeline(name)
            version = int(request.get("PipelineVersionId") or row.version)
            return answers.described(row, rows.definition(name, version).definition, rows.last_started(name))

    def list_pipelines(self, permit: Permit, request: Mapping[str, Any]) -> dict[str, Any]:
        """ListPipelines."""
        prefix = str(request.get("PipelineNamePrefix") or "")
        with self._vault.database.reading(permit) as tx:
            rows = Rows(tx, permit.account)
            found = [one for one in rows.pipelines() if one.name.startswith(prefix)]
            told = [answers.summary(one, rows.last_started(one.name)) for one in found]
        key = "PipelineName" if request.get("SortBy") == "Name" else "CreationTime"
        told = _between(told, request, "CreationTime")
        told.sort(key=lambda one: (one[key], one["PipelineName"]), reverse=_descending(request))
        return self._page(permit, told, request, "PipelineSummaries")

    # -- executions -----------------------------------------------------------------------------------------------

    def start_pipeline_execution(
        self, permit: Permit, request: Mapping[str, Any], *, local: bool = False, cause: str = ""
    ) -> dict[str, Any]:
        """StartPipelineExecution: enters it; whoever carries executions out does so (`Executor`).

        Args:
            local: its parameters may name files of this machine; for who types at it.
            cause: the trigger that started it.

        Raises:
            Invalid: ``pipelines.parameter``, ``pipelines.selected``, ``pipelines.started_otherwise``.
        """
        name = pipeline_of(str(request["PipelineName"]), permit.account)
        token = _token(request) or self._vault.ids.new()
        with self._vault.database.transaction(permit) as tx:
            rows = Rows(tx, permit.account)
            row = rows.pipeline(name)
            version = int(request.get("PipelineVersionId") or row.version)
            definition = parse(rows.definition(name, version).definition)
            given = {str(one["Name"]): str(one["Value"]) for one in request.get("PipelineParameters") or ()}
            values(definition.parameters, given)
            source, selected = self._selective(rows, name, definition, request, permit.account)
            known = rows.of_token(name, token)
            if known is not None:
                if dict(known.parameters) != given or known.selected != selected or known.version != version:
                    raise Invalid("pipelines.token_used", "This ClientRequestToken started another execution.")
                return {"PipelineExecutionArn": execution_arn(permit.account, name, known.id)}
            made = self._entered(permit, request, name, token, given)
            made = replace(made, version=version, source=source, selected=selected, local=local, cause=cause)
            if not made.parallel:
                made = replace(made, parallel=row.parallel)
            rows.add_execution(made)
            self._announce(tx, permit, made, "Executing")
        return {"PipelineExecutionArn": execution_arn(permit.account, name, made.id)}

    def arn_of(self, permit: Permit, execution: str) -> str:
        """The ARN of an execution, by its id."""
        one = self._execution(permit, {"PipelineExecutionArn": execution})
        return execution_arn(permit.account, one.pipeline, one.id)

    def describe_pipeline_execution(self, permit: Permit, request: Mapping[str, Any]) -> dict[str, Any]:
        """DescribePipelineExecution."""
        return answers.execution_described(self._execution(permit, request))

    def describe_pipeline_definition_for_execution(
        self, permit: Permit, request: Mapping[str, Any]
    ) -> dict[str, Any]:
        """DescribePipelineDefinitionForExecution."""
        one = self._execution(permit, request)
        with self._vault.database.reading(permit) as tx:
            row = Rows(tx, permit.account).definition(one.pipeline, one.version)
        return {
            "PipelineDefinition": row.definition,
            "CreationTime": answers.execution_summary(one)["StartTime"],
        }

    def update_pipeline_execution(self, permit: Permit, request: Mapping[str, Any]) -> dict[str, Any]:
        """UpdatePipelineExecution: words and parallelism."""
        one = self._execution(permit, request)
        said: dict[str, Any] = {"modified": self._now()}
        if "PipelineExecutionDescription" in request:
            said["description"] = str(request["PipelineExecutionDescription"])[:3072]
        if "PipelineExecutionDisplayName" in request:
            said["display"] = _display(request)
        if "ParallelismConfiguration" in request:
            said["parallel"] = _parallel(request)
        with self._vault.database.transaction(permit) as tx:
            Rows(tx, permit.account).change_execution(one.id, **said)
        return {"PipelineExecutionArn": execution_arn(permit.account, one.pipeline, one.id)}

    def list_pipeline_executions(self, permit: Permit, request: Mapping[str, Any]) -> dict[str, Any]:
        """ListPipelineExecutions, the newest first where nothing else is asked for."""
        name = pipeline_of(str(request["PipelineName"]), permit.account)
        with self._vault.database.reading(permit) as tx:
            rows = Rows(tx, permit.account)
            found = rows.executions(name)
            if not found:
                rows.pipeline(name)
        told = _between([answers.execution_summary(one) for one in found], request, "StartTime")
        key = "PipelineExecutionArn" if request.get("SortBy") == "PipelineExecutionArn" else "StartTime"
        told.sort(key=lambda one: (one[key], one["PipelineExecutionArn"]), reverse=_descending(request))
        return self._page(permit, told, request, "PipelineExecutionSummaries")

    def list_pipeline_execution_steps(self, permit: Permit, request: Mapping[str, Any]) -> dict[str, Any]:
        """ListPipelineExecutionSteps: those that were begun, the last begun first where nothing else is asked for."""
        one = self._execution(permit, request)
        with self._vault.database.reading(permit) as tx:
            found = list(Rows(tx, permit.account).steps(one.id).values())
        found.sort(key=lambda step: (step.started, step.position), reverse=_descending(request))
        return self._page(permit, [answers.step_told(one, step) for step in found], request, "PipelineExecutionSteps")

    def list_pipeline_parameters_for_execution(self, permit: Permit, request: Mapping[str, Any]) -> dict[str, Any]:
        """ListPipelineParametersForExecution: every parameter with its value in that execution."""
        one = self._execution(permit, request)
        with self._vault.database.reading(permit) as tx:
            text = Rows(tx, permit.account).definition(one.pipeline, one.version).definition
        found = values(parse(text).parameters, one.parameters)
        told = [{"Name": name, "Value": as_text(value)} for name, value in found.items()]
        return self._page(permit, told, request, "PipelineParameters")

    def stop_pipeline_execution(self, permit: Permit, request: Mapping[str, Any]) -> dict[str, Any]:
        """StopPipelineExecution: who carries it out ends its steps; without anybody, who looks next does."""
        one = self._execution(permit, request)
        with self._vault.database.transaction(permit) as tx:
            rows = Rows(tx, permit.account)
            one = rows.execution(one.id)
            if one.status not in ("Stopping", "Stopped"):
                check_active(one)
                rows.change_execution(one.id, status="Stopping", modified=self._now())
                self._announce(tx, permit, one, "Stopping")
        return {"PipelineExecutionArn": execution_arn(permit.account, one.pipeline, one.id)}

    def retry_pipeline_execution(self, permit: Permit, request: Mapping[str, Any]) -> dict[str, Any]:
        """RetryPipelineExecution: a failed or stopped one goes on where it stood; what succeeded is kept."""
        one = self._execution(permit, request)
        with self._vault.database.transaction(permit) as tx:
            rows = Rows(tx, permit.account)
            one = rows.execution(one.id)
            if one.status in ENDED and one.status == "Succeeded":
                raise Conflict("pipelines.ended", "The execution has succeeded; there is nothing to do again.")
            if one.status in ENDED:
                for step in rows.steps(one.id).values():
                    if step.status != "Succeeded":
                        again = replace(
                            step, status="Starting", attempts=0, failures=(), due="", reason="", started="", ended=""
                        )
                        rows.put_step(one.id, again)
                rows.change_execution(one.id, status="Executing", reason="", process="", modified=self._now())
                self._announce(tx, permit, one, "Executing")
        return {"PipelineExecutionArn": execution_arn(permit.account, one.pipeline, one.id)}

    def send_pipeline_execution_step_success(self, permit: Permit, request: Mapping[str, Any]) -> dict[str, Any]:
        """SendPipelineExecutionStepSuccess: a callback step goes on with these output parameters."""
        given = {str(one["Name"]): str(one["Value"]) for one in request.get("OutputParameters") or ()}
        return self._called_back(permit, request, "Succeeded", given, "")

    def send_pipeline_execution_step_failure(self, permit: Permit, request: Mapping[str, Any]) -> dict[str, Any]:
        """SendPipelineExecutionStepFailure."""
        return self._called_back(permit, request, "Failed", {}, str(request.get("FailureReason") or "")[:256])

    # -- inside ---------------------------------------------------------------------------------------------------

    def _called_back(
        self, permit: Permit, request: Mapping[str, Any], status: str, given: Mapping[str, str], reason: str
    ) -> dict[str, Any]:
        with self._vault.database.transaction(permit) as tx:
            one = callbacks.settle(
                tx, permit.account, str(request["CallbackToken"]), status, given, reason, self._now()
            )
            permit.log.note(change="callback", state=status)
        return {"PipelineExecutionArn": execution_arn(permit.account, one.pipeline, one.id)}

    def _page(self, permit: Permit, found: list[Any], request: Mapping[str, Any], key: str) -> dict[str, Any]:
        return answers.page(permit, self._vault.keyring, found, request, key)

    def _execution(self, permit: Permit, request: Mapping[str, Any]) -> Execution:
        name = execution_of(str(request["PipelineExecutionArn"]), permit.account)
        with self._vault.database.reading(permit) as tx:
            return Rows(tx, permit.account).execution(name)

    def _entered(
        self, permit: Permit, request: Mapping[str, Any], name: str, token: str, given: Mapping[str, str]
    ) -> Execution:
        now = self._now()
        return Execution(
            id=self._vault.ids.new(),
            account=permit.account,
            pipeline=name,
            version=1,
            status="Executing",
            display=_display(request),
            description=str(request.get("PipelineExecutionDescription") or "")[:3072],
            parameters=given,
            parallel=_parallel(request),
            source="",
            selected=(),
            token=token,
            reason="",
            process="",
            principal=permit.principal,
            purpose=permit.purpose,
            local=False,
            cause="",
            created=now,
            modified=now,
            bounds=bounds_of(permit),
        )

    def _selective(
        self, rows: Rows, name: str, definition: Definition, request: Mapping[str, Any], account: str
    ) -> tuple[str, tuple[str, ...]]:
        config = request.get("SelectiveExecutionConfig") or {}
        selected = tuple(sorted({str(one["StepName"]) for one in config.get("SelectedSteps") or ()}))
        if not selected:
            return "", ()
        if unknown := [one for one in selected if one not in definition.steps]:
            raise Invalid("pipelines.selected", f"SelectedSteps names {unknown[0][:64]}, which is no step of it.")
        needed = definition.upstream(frozenset(selected)) - set(selected)
        arn = config.get("SourcePipelineExecutionArn")
        if arn is None:
            if needed:
                raise Invalid(
                    "pipelines.selected",
                    "The selected steps wait for others; give SourcePipelineExecutionArn, whose results they take.",
                )
            return "", selected
        source = rows.execution(execution_of(str(arn), account))
        if source.pipeline != name or source.status in ACTIVE:
            raise Invalid("pipelines.selected", "The source is an execution of this pipeline that came to its end.")
        done = {step.name for step in rows.steps(source.id).values() if step.status == "Succeeded"}
        if missing := sorted(needed - done):
            raise Invalid("pipelines.selected", f"The source has no result of {missing[0]}, which is waited for.")
        return source.id, selected

    def _announce(self, tx: Any, permit: Permit, one: Execution, status: str) -> None:
        said = {"pipeline": one.pipeline, "execution": one.id, "status": status, "by": permit.principal}
        self._outbox.publish(tx, one.account, "pipeline.execution", f"run:{one.id}", said)

    def _now(self) -> str:
        return iso(self._vault.clock.now())


def _definition(request: Mapping[str, Any]) -> tuple[str, Definition]:
    if request.get("PipelineDefinitionS3Location"):
        raise Unsupported(
            "pipelines.unsupported", "A definition in S3 is not read; give it as PipelineDefinition, up to 1 MiB."
        )
    text = str(request.get("PipelineDefinition") or "")
    definition = parse(text)
    check_jobs(definition)
    return text, definition


def _words(request: Mapping[str, Any], known: Any = None) -> dict[str, str]:
    found = {}
    columns = (("PipelineDisplayName", "display"), ("PipelineDescription", "description"), ("RoleArn", "role"))
    for key, column in columns:
        if key in request or known is None:
            found[column] = str(request.get(key) or "")[:3072]
    return found


def _parallel(request: Mapping[str, Any]) -> int:
    return int((request.get("ParallelismConfiguration") or {}).get("MaxParallelExecutionSteps") or 0)


def _token(request: Mapping[str, Any]) -> str:
    token = str(request.get("ClientRequestToken") or "")
    if token and not _TOKEN.fullmatch(token):
        raise Invalid("pipelines.token", "ClientRequestToken is 1 to 128 visible ASCII characters.")
    return token


def _display(request: Mapping[str, Any]) -> str:
    said = str(request.get("PipelineExecutionDisplayName") or "")
    if said and not _DISPLAY.fullmatch(said):
        raise Invalid("pipelines.name", "PipelineExecutionDisplayName is letters, digits and dashes, 82 at most.")
    return said


def _descending(request: Mapping[str, Any]) -> bool:
    return bool(request.get("SortOrder", "Descending") != "Ascending")


def _between(told: list[dict[str, Any]], request: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    after, before = request.get("CreatedAfter"), request.get("CreatedBefore")
    return [one for one in told if (after is None or one[key] > after) and (before is None or one[key] < before)]
