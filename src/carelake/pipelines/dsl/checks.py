"""Steps that hold data, models and explanations against baselines."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from carelake.pipelines.dsl.step import Machine, Step, inputs, outputs
from carelake.pipelines.dsl.values import plain

__all__ = ["ClarifyCheck", "QualityCheck"]


@dataclass
class _Check(Step):
    """A check.

    Attributes:
        kind: CheckType.
        rows: the table that is looked at.
        group: model package group whose newest approved version has the baseline, where none is supplied.
        supplied: constraints that an earlier check left, and ``statistics``.
        skip: leave only a baseline. register: that one is what later checks are held against.
        fails: the step fails where the baseline is not met.
        settings: what SageMaker's container is told in its environment.
    """

    kind: str
    rows: Any
    group: Any = None
    supplied: Any = None
    skip: Any = False
    register: Any = False
    fails: Any = True
    settings: Mapping[str, Any] = field(default_factory=dict)

    _input, _output = "", ""

    @property
    def constraints(self) -> dict[str, Any]:
        """A reference to the constraints that it calculated."""
        return self.get("CalculatedBaselineConstraints")

    @property
    def used(self) -> dict[str, Any]:
        """A reference to the constraints that later checks are held against."""
        return self.get("BaselineUsedForDriftCheckConstraints")

    @abstractmethod
    def _environment(self) -> dict[str, Any]:
        """What its job is told."""

    def _named(self) -> dict[str, Any]:
        return {self._input: self.rows}

    def _supplied(self) -> dict[str, Any]:
        return {"SuppliedBaselineConstraints": plain(self.supplied)} if self.supplied is not None else {}

    def _parts(self, machine: Machine, pipeline: str) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "AppSpecification": {"ImageUri": plain(machine.image)},
            "ProcessingInputs": inputs(self._named()),
            "ProcessingOutputConfig": outputs([self._output], machine, pipeline, self.name),
            "ProcessingResources": {"ClusterConfig": plain(machine.resources())},
            "RoleArn": plain(machine.role),
        }
        told = self._environment()
        arguments |= {"Environment": told} if told else {}
        flags = {"SkipCheck": self.skip, "RegisterNewBaseline": self.register, "FailOnViolation": self.fails}
        group = {"ModelPackageGroupName": plain(self.group)} if self.group is not None else {}
        said = {"Arguments": arguments, "CheckType": self.kind, **group, **self._supplied()}
        return {**said, **{name: plain(one) for name, one in flags.items()}}


@dataclass
class QualityCheck(_Check):
    """``DATA_QUALITY`` of a table, or ``MODEL_QUALITY`` of risks beside outcomes."""

    statistics: Any = None

    _type, _input, _output = "QualityCheck", "baseline_dataset_input", "quality_check_output"

    def _environment(self) -> dict[str, Any]:
        found: dict[str, Any] = plain(dict(self.settings))
        return found

    def _supplied(self) -> dict[str, Any]:
        more = {"SuppliedBaselineStatistics": plain(self.statistics)} if self.statistics is not None else {}
        return {**super()._supplied(), **more}


@dataclass
class ClarifyCheck(_Check):
    """``DATA_BIAS``, ``MODEL_BIAS`` or ``MODEL_EXPLAINABILITY``.

    Attributes:
        config: Clarify's analysis configuration, told in the environment; or
        config_file: the address of a file with it, as SageMaker's container wants it.
        model: the name of the model that is asked, as `Model.called` refers to it.
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    config_file: Any = None
    model: Any = None

    _type, _input, _output = "ClarifyCheck", "dataset", "analysis_result"

    def _named(self) -> dict[str, Any]:
        file = {"analysis_config": self.config_file} if self.config_file is not None else {}
        return {**file, **super()._named()}

    def _environment(self) -> dict[str, Any]:
        told = {"analysis_config": json.dumps(dict(self.config))} if self.config else {}
        named = {"model_name": plain(self.model)} if self.model is not None else {}
        return {**told, **named, **plain(dict(self.settings))}
