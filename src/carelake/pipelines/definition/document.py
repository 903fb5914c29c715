"""A definition, read and checked whole: parameters, steps, what each waits for, and which branch it is in.

https://aws-sagemaker-mlops.github.io/sagemaker-model-building-pipeline-definition-JSON-schema/
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from graphlib import CycleError, TopologicalSorter
from typing import Any

import msgspec

from carelake.core.errors import Invalid
from carelake.pipelines.definition import conditions
from carelake.pipelines.definition.durations import duration
from carelake.pipelines.definition.parameters import Parameter, declared
from carelake.pipelines.definition.places import Place
from carelake.pipelines.definition.references import Reference, references
from carelake.pipelines.definition.retries import Retry, policies
from carelake.pipelines.definition.shapes import CACHED, STEP_KEYS, TYPES, check_arguments, check_kind, property_known

__all__ = ["BYTES", "STEPS", "Definition", "Step", "parse"]

BYTES = 1_048_576
"""Length of a definition, as CreatePipeline has it."""

STEPS = 50
"""Steps of one pipeline, SageMaker's quota."""

_VERSION = "2020-12-01"
_NAME = r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}"
_TOP = frozenset({"Version", "Metadata", "Parameters", "PipelineExperimentConfig", "MlflowConfig", "Steps"})


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        said: the step as it stands in the definition.
        arguments: its ``Arguments``.
        waits: names of the steps that must have succeeded before it.
        branch: the Condition step that it belongs to and the outcome that leads to it, None at the top.
        expires: how old a cached result may be, None for any age; with ``cached`` only.
        files: property files: name to output and path in it.
    """

    name: str
    type: str
    said: Mapping[str, Any]
    arguments: Mapping[str, Any]
    waits: frozenset[str]
    branch: tuple[str, bool] | None = None
    cached: bool = False
    expires: timedelta | None = None
    retries: tuple[Retry, ...] = ()
    files: Mapping[str, tuple[str, str]] | None = None

    @property
    def title(self) -> str:
        """What people are told while it runs."""
        return str(self.said.get("DisplayName") or self.name)


@dataclass(frozen=True)
class Definition:
    """A definition.

    Attributes:
        steps: by name, those of branches too, each after all that it waits for.
    """

    parameters: tuple[Parameter, ...]
    steps: Mapping[str, Step]

    def upstream(self, names: frozenset[str]) -> frozenset[str]:
        """These steps and all that they wait for, however far."""
        found: set[str] = set()
        ahead = list(names)
        while ahead:
            name = ahead.pop()
            if name not in found:
                found.add(name)
                ahead += self.steps[name].waits
        return frozenset(found)


def parse(text: str | bytes) -> Definition:
    """Read a definition.

    Raises:
        Invalid: ``pipelines.definition``, naming the step and what was expected; ``pipelines.json``.
        Unsupported: ``pipelines.unsupported``, naming what is not carried out here.
    """
    if len(text) > BYTES:
        raise Invalid("pipelines.definition", f"The definition has more than {BYTES:,} characters.")
    try:
        said = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise Invalid(
            "pipelines.json", "The definition is not valid JSON; expected SageMaker Pipelines JSON."
        ) from None
    top = Place("The definition", said)
    top.keys(_TOP, frozenset({"Version", "Steps"}))
    if top["Version"].value != _VERSION:
        raise top["Version"].wrong(f'"{_VERSION}"')
    if top["Metadata"].value or top["MlflowConfig"].value:
        raise top.unsupported("what is in Metadata or MlflowConfig")
    parameters = declared(Place("Parameters", said.get("Parameters")))
    found: dict[str, Step] = {}
    for place, branch in _flat(Place("Step", said["Steps"]), None, 0):
        step = _step(place, branch)
        if step.name in found:
            raise Place(f"Step {step.name}", None).wrong("a name that no other step has, in a branch or at the top")
        found[step.name] = step
    if not 1 <= len(found) <= STEPS:
        raise Place("Steps", None).wrong(f"1 to {STEPS} steps")
    _check_references(found, {one.name for one in parameters})
    return Definition(parameters, _ordered(found))


def _flat(
    steps: Place, branch: tuple[str, bool] | None, deep: int
) -> Iterator[tuple[Place, tuple[str, bool] | None]]:
    """Every step with its branch, those of branches after their condition."""
    if deep > 8:
        raise steps.wrong("at most 8 conditions within one another")
    for one in steps.items():
        name = one["Name"].text(_NAME, "a name of letters, digits, dashes and underscores, 64 at most")
        place = Place(f"Step {name}", one.value)
        if place["Type"].value not in TYPES:
            raise place["Type"].wrong(f"one of {', '.join(TYPES)}; other types are not carried out here")
        yield place, branch
        if place["Type"].value == "Condition":
            for key, outcome in (("IfSteps", True), ("ElseSteps", False)):
                inner = Place(f"Step {name}, {key}", place["Arguments"][key].value)
                yield from _flat(inner, (name, outcome), deep + 1)


def _step(place: Place, branch: tuple[str, bool] | None) -> Step:
    said = place.mapping()
    name, kind = str(said["Name"]), str(said["Type"])
    place.keys(STEP_KEYS[kind])
    for key in ("DisplayName", "Description"):
        if key in place:
            place[key].text()
    check_arguments(kind, place["Arguments"])
    check_kind(kind, place)
    waits = {one.text(_NAME, "the name of a step") for one in place["DependsOn"].items()}
    waits |= {reference.name for _, reference in _mentions(place, kind) if reference.kind == "Steps"}
    if branch is not None:
        waits.add(branch[0])
    cached, expires = _cache(place["CacheConfig"]) if kind in CACHED else (False, None)
    files = _property_files(place) if kind == "Processing" else None
    retries = policies(place["RetryPolicies"])
    _check_outputs(place)
    return Step(
        name, kind, said, said.get("Arguments") or {}, frozenset(waits), branch, cached, expires, retries, files
    )


def _mentions(place: Place, kind: str) -> Iterator[tuple[Place, Reference]]:
    """References of one step, without those of the steps in its branches."""
    if kind == "Condition":
        for one in place["Arguments"]["Conditions"].items():
            yield from conditions.check(one)
        return
    for name in place.mapping():
        if name not in ("Name", "Type", "DependsOn"):
            yield from references(place[name])


def _cache(place: Place) -> tuple[bool, timedelta | None]:
    if place.value is None:
        return False, None
    place.keys(frozenset({"Enabled", "ExpireAfter"}), frozenset({"Enabled"}))
    expires = None
    if "ExpireAfter" in place:
        expires = duration(place["ExpireAfter"].text())
        if expires is None:
            raise place["ExpireAfter"].wrong("an ISO 8601 duration in days, hours, minutes, such as P30D or T12H")
    return place["Enabled"].boolean(), expires


def _property_files(place: Place) -> dict[str, tuple[str, str]]:
    outputs = place["Arguments"]
    known = set()
    if "ProcessingOutputConfig" in outputs:
        known = {one["OutputName"].value for one in outputs["ProcessingOutputConfig"]["Outputs"].items()}
    found = {}
    for one in place["PropertyFiles"].items(10):
        one.keys(
            frozenset({"PropertyFileName", "OutputName", "FilePath"}),
            frozenset({"PropertyFileName", "OutputName", "FilePath"}),
        )
        if one["OutputName"].value not in known:
            raise one["OutputName"].wrong("the OutputName of one of the step's outputs")
        found[one["PropertyFileName"].text(_NAME, "a name")] = (one["OutputName"].value, one["FilePath"].text())
    return found


def _check_outputs(place: Place) -> None:
    if "OutputParameters" in place:
        for one in place["OutputParameters"].items(50):
            one.keys(frozenset({"OutputName", "OutputType"}), frozenset({"OutputName"}))
            if one["OutputType"].value not in ("String", "Integer", "Boolean", "Float", None):
                raise one["OutputType"].wrong("String, Integer, Boolean or Float")


def _check_references(steps: Mapping[str, Step], parameters: set[str]) -> None:
    for step in steps.values():
        place = Place(f"Step {step.name}", step.said)
        for name in sorted(step.waits - set(steps)):
            raise place.wrong(f"steps that there are; {name[:64]} is none")
        for at, reference in _mentions(place, step.type):
            if reference.kind == "Parameters" and reference.name not in parameters:
                raise at.wrong(f"a parameter that is declared; {reference.name[:64]} is not")
            if reference.kind == "Steps":
                _check_property(at, steps[reference.name], reference)
            elif reference.kind == "Execution" and reference.name.endswith("JobName"):
                raise at.unsupported(f"Execution.{reference.name}")


def _check_property(at: Place, step: Step, reference: Reference) -> None:
    if not any(re.fullmatch(one, reference.path) for one in property_known(step.type)):
        raise at.wrong(f"a property that a step of type {step.type} has; {reference.path[:64]} is none")
    file = reference.path.removeprefix("PropertyFiles.")
    if file != reference.path and file not in (step.files or {}):
        raise at.wrong(f"a property file that step {step.name} declares")


def _ordered(steps: Mapping[str, Step]) -> dict[str, Step]:
    """Each step after those that it waits for, otherwise as they stand."""
    places = {name: number for number, name in enumerate(steps)}
    sorter = TopologicalSorter({name: sorted(step.waits, key=places.__getitem__) for name, step in steps.items()})
    try:
        order = tuple(sorter.static_order())
    except CycleError as error:
        circle = " -> ".join(dict.fromkeys(str(one) for one in error.args[1]))
        raise Invalid("pipelines.cycle", f"Steps wait for each other in a circle: {circle}.") from None
    return {name: steps[name] for name in order}
