"""Schemathesis over ``/openapi.json``: every address answers values made of its schema, and never with a fault."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from tests.apps.served import Lines, bearer, fill, own_workspace, serving

KINDS = ("Patient", "Observation", "ValueSet", "Binary", "Nothing")
KEYS = ("one", "nobody")


@dataclass
class Target:
    base: str
    headers: dict[str, str]
    log: Lines
    document: dict[str, Any]


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    log = Lines()
    with own_workspace(tmp_path_factory.mktemp("schemathesis")) as made, serving(made, log) as url:
        fill(made, {"resourceType": "Patient", "id": "one"})
        document = httpx.get(f"{url}/openapi.json", timeout=20).json()
        yield Target(url, bearer(made, "operator", seconds=7200), log, document)


def examine(target: Target, examples: int, number: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import schemathesis

        schema = schemathesis.openapi.from_dict(target.document)
        operations = [found.ok() for found in schema.get_all_operations()]
    listed = {(method, path) for path, methods in target.document["paths"].items() for method in methods}
    assert {(one.method.lower(), one.path) for one in operations} == listed

    for operation in operations:
        examine_one(target, operation, examples, number)


def examine_one(target: Target, operation: Any, examples: int, number: int) -> None:
    @seed(number)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.tuples(operation.as_strategy(), st.sampled_from(KINDS), st.sampled_from(KEYS), st.integers(0, 3)))
    def run(told: tuple[Any, str, str, int]) -> None:
        case, kind, key, free = told
        if free:  # a name that nobody has is soon told apart; most go further
            for name, value in (("type", kind), ("compartment", "Patient"), ("id", key)):
                if name in case.path_parameters:
                    case.path_parameters[name] = value
        before = len(target.log.said)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            answer = case.call(base_url=target.base, headers=target.headers, timeout=20)
        faults = [one for one in target.log.said[before:] if one.get("event") == "fault"]
        assert answer.status_code < 500, (operation.label, answer.status_code, faults)
        if answer.status_code >= 400 and operation.path.startswith("/fhir") and operation.method != "head":
            assert json.loads(answer.content)["resourceType"] == "OperationOutcome", operation.label

    run()


def test_every_address(target: Target) -> None:
    examine(target, 1, 1)


@pytest.mark.soak
def test_every_address_for_long(target: Target) -> None:
    examine(target, 40, 2)
