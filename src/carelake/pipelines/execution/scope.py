"""What references mean in one execution: parameters, the execution itself, and steps that have succeeded."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from carelake.audit.nouns import Nouns
from carelake.core.clock import iso
from carelake.core.errors import Invalid, NotFound
from carelake.core.nouns import Noun
from carelake.core.permit import Permit
from carelake.pipelines.definition.document import Definition
from carelake.pipelines.definition.parameters import values
from carelake.pipelines.definition.references import Reference
from carelake.pipelines.execution import artifacts
from carelake.pipelines.execution.rows import Execution, StepRow
from carelake.pipelines.execution.tuning import candidate_of
from carelake.pipelines.execution.work import given
from carelake.pipelines.names import execution_arn, pipeline_arn
from carelake.vault.workspace import Vault

__all__ = ["ExecutionScope"]

_GONE = ("erased",)
_CANDIDATE = re.compile(r"s3://\S{1,1024}/([a-z0-9-]{1,63})/output/model\.tar\.gz")


class ExecutionScope:
    """The `references.Scope` of one execution; ``steps`` is read anew at each look."""

    def __init__(
        self,
        vault: Vault,
        nouns: Nouns,
        permit: Permit,
        one: Execution,
        definition: Definition,
        steps: Mapping[str, StepRow],
    ) -> None:
        self._vault = vault
        self._nouns = nouns
        self._permit = permit
        self._one = one
        self._definition = definition
        self._steps = steps
        self._values = values(definition.parameters, one.parameters)

    def value(self, reference: Reference) -> Any:
        """The value of a reference.

        Raises:
            Invalid: ``pipelines.no_property``: the step has no such property now.
        """
        if reference.kind == "Parameters":
            return self._values[reference.name]
        if reference.kind == "Execution":
            return self._of_execution(reference.name)
        row = self._steps.get(reference.name)
        if reference.path.startswith("PropertyFiles."):
            return self._property_file(reference, row)
        said = row.output.get("properties", {}) if row is not None and row.status == "Succeeded" else {}
        if reference.path not in said:
            raise Invalid("pipelines.no_property", f"Step {reference.name} has no {reference.path[:80]} to refer to.")
        return said[reference.path]

    def document(self, uri: Any) -> Any:
        """The JSON of a file that a step left."""
        found = given(str(uri), local=False)
        noun = self.noun(found.ref)
        if noun.kind != "artifact":
            return dict(noun.body)
        try:
            return msgspec.json.decode(artifacts.read(self._permit, self._vault, noun, found.file))
        except msgspec.DecodeError:
            raise Invalid("pipelines.json_get", "The file that Std:JsonGet reads is not JSON.") from None

    def noun(self, ref: str) -> Noun:
        """A noun of the account."""
        with self._vault.database.reading(self._permit) as tx:
            return self._nouns.get(tx, ref, account=self._one.account)

    def addressed(self, value: Any) -> Any:
        """The value, with what a candidate of a tuning step left in place of its address in S3.

        SageMaker's `get_top_model_s3_uri` makes these of the training job's name: ``…/JOB/output/model.tar.gz``.
        """
        if isinstance(value, dict):
            return {name: self.addressed(one) for name, one in value.items()}
        if isinstance(value, list):
            return [self.addressed(one) for one in value]
        found = _CANDIDATE.fullmatch(value) if isinstance(value, str) else None
        if found is None:
            return value
        tuned = (row.output for row in self._steps.values() if row.type == "Tuning" and row.status == "Succeeded")
        left = (candidate_of(one["properties"], one["outputs"], found[1]) for one in tuned)
        return next((one for one in left if one is not None), value)

    def there(self, refs: Iterable[str]) -> bool:
        """Whether all of these are still what they were: nobody in them was erased since."""
        try:
            return all(self.noun(ref).state not in _GONE for ref in refs)
        except NotFound:
            return False

    def _property_file(self, reference: Reference, row: StepRow | None) -> str:
        output, file = (self._definition.steps[reference.name].files or {})[reference.path.partition(".")[2]]
        ref = row.output.get("outputs", {}).get(output) if row is not None else None
        if ref is None:
            raise Invalid("pipelines.no_property", f"Step {reference.name} has left no output {output} to read.")
        return f"{ref}/{file}" if str(ref).startswith("artifact:") else str(ref)

    def _of_execution(self, name: str) -> str:
        one = self._one
        return {
            "StartDateTime": one.created,
            "CurrentDateTime": iso(self._vault.clock.now()),
            "PipelineName": one.pipeline,
            "PipelineArn": pipeline_arn(one.account, one.pipeline),
            "PipelineExecutionId": one.id,
            "PipelineExecutionArn": execution_arn(one.account, one.pipeline, one.id),
        }[name]
