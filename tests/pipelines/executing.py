"""What tests of executions share: a workspace with a gate, small steps, and one call that carries a pipeline out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobs_for_tests import JOBS

from carelake.access.gate import Gate
from carelake.access.identity import Caller, Identity
from carelake.access.policy import Policies
from carelake.access.principals import DEFAULTS, Principals
from carelake.audit.nouns import Nouns
from carelake.events.outbox import Outbox
from carelake.pipelines.api import Pipelines
from carelake.pipelines.execution.executor import Executor
from carelake.pipelines.execution.launching import InThreads, Launcher
from carelake.pipelines.execution.rows import Execution, Rows, StepRow
from carelake.pipelines.execution.running import run_task
from carelake.pipelines.jobs import catalogue
from carelake.pipelines.names import execution_of
from carelake.pipelines.platform import Platform
from carelake.store import Resources
from carelake.vault.workspace import Vault

__all__ = ["Home", "condition", "of", "processing", "text", "value"]

catalogue.JOBS.update(JOBS)


def processing(
    name: str, job: str = "test.write", *, inputs: dict[str, Any] | None = None, **other: Any
) -> dict[str, Any]:
    """A Processing step with one output ``out`` and the property file ``Value``."""
    settings = {key: value for key, value in other.items() if not key[0].isupper()}
    more = {key: value for key, value in other.items() if key[0].isupper()}
    arguments: dict[str, Any] = {
        "AppSpecification": {"ImageUri": "carelake", "ContainerEntrypoint": ["carelake-job", job]},
        "Environment": {key: str(value) if not isinstance(value, dict) else value for key, value in settings.items()},
        "ProcessingOutputConfig": {"Outputs": [{"OutputName": "out"}]},
    }
    if inputs:
        arguments["ProcessingInputs"] = [
            {"InputName": key, "S3Input": {"S3Uri": value}} for key, value in inputs.items()
        ]
    files = [{"PropertyFileName": "Value", "OutputName": "out", "FilePath": "value.json"}]
    return {"Name": name, "Type": "Processing", "Arguments": arguments, "PropertyFiles": files, **more}


def of(name: str) -> dict[str, str]:
    """A reference to the output of such a step."""
    return {"Get": f"Steps.{name}.ProcessingOutputConfig.Outputs['out'].S3Output.S3Uri"}


def value(name: str) -> dict[str, Any]:
    """A reference to the number in it."""
    return {"Std:JsonGet": {"PropertyFile": {"Get": f"Steps.{name}.PropertyFiles.Value"}, "Path": "value"}}


def condition(name: str, conditions: list[Any], yes: Sequence[Any] = (), no: Sequence[Any] = ()) -> dict[str, Any]:
    """A Condition step."""
    return {
        "Name": name,
        "Type": "Condition",
        "Arguments": {"Conditions": conditions, "IfSteps": list(yes), "ElseSteps": list(no)},
    }


def text(*steps: dict[str, Any], parameters: list[dict[str, Any]] | None = None) -> str:
    """A definition."""
    return json.dumps({"Version": "2020-12-01", "Parameters": parameters or [], "Steps": list(steps)})


class Home:
    """A workspace in which pipelines are carried out."""

    def __init__(self, vault: Vault, launcher: Launcher | None = None, *, principals: bool = True) -> None:
        if principals:
            with vault.database.ledger() as connection:
                for who in DEFAULTS:
                    Principals(connection).add(who)
        self.vault = vault
        self.gate = Gate(vault, Policies.load(Path("/nonexistent")))
        nouns, outbox = Nouns(vault.clock), Outbox(vault.clock, vault.ids, workspace="w1")
        self.platform = Platform(vault, self.gate, Identity(vault), nouns, outbox, Resources(vault))
        standing = Identity(vault).register.standing("operator")
        assert standing is not None
        self.caller = Caller(standing.principal, "HOPERAT", "production")
        self.pipelines = Pipelines(vault, outbox)
        self.launcher = launcher or InThreads(lambda task: run_task(self.platform, self.caller, task))
        asked = {"gate": self.gate, "identity": self.platform.identity}
        self.executor = Executor(vault, nouns, outbox, self.launcher, "p1", 2, **asked)

    def enter(self, action: str = "pipeline:run", *, job: bool = False) -> Any:
        return self.gate.enter(
            self.caller.principal, action, "pipeline", self.caller.purpose, account=self.caller.account, job=job
        )

    def define(self, definition: str, name: str = "small") -> None:
        with self.enter("pipeline:define") as permit:
            known = [one["PipelineName"] for one in self.pipelines.list_pipelines(permit, {})["PipelineSummaries"]]
            call = self.pipelines.update_pipeline if name in known else self.pipelines.create_pipeline
            call(permit, {"PipelineName": name, "PipelineDefinition": definition})

    def start(self, name: str = "small", parameters: dict[str, str] | None = None, **request: Any) -> str:
        """Enter an execution; its id."""
        given = [{"Name": key, "Value": str(one)} for key, one in (parameters or {}).items()]
        with self.enter() as permit:
            said = {"PipelineName": name, "PipelineParameters": given, **request}
            arn = self.pipelines.start_pipeline_execution(permit, said)["PipelineExecutionArn"]
        return execution_of(arn, "production")

    def carry(self, execution: str, told: Any = lambda _definition, _steps: None) -> Execution:
        with self.enter(job=True) as permit:
            return self.executor.carry_out(permit, execution, told=told)

    def run(
        self, definition: str, parameters: dict[str, str] | None = None, **request: Any
    ) -> tuple[Execution, dict[str, StepRow]]:
        """Define, start and carry out; the execution and its steps."""
        self.define(definition)
        done = self.carry(self.start(parameters=parameters, **request))
        return done, self.steps(done.id)

    def steps(self, execution: str) -> dict[str, StepRow]:
        with self.enter("pipeline:read") as permit, self.vault.database.reading(permit) as tx:
            return Rows(tx, "production").steps(execution)
