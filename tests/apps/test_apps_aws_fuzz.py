"""Whatever is signed is answered, and never by a fault: any input that a model takes, and any request at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import pytest
from botocore.exceptions import ClientError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.apps.aws import Clients, Key, clients_of, made_key
from tests.apps.aws_inputs import strategy
from tests.apps.served import Lines, own_workspace
from tests.apps.test_apps_aws_door import sent

from carelake.apps.http.aws.models import operation_of
from carelake.apps.http.aws.table import served
from carelake.apps.wiring import Workspace

SERVED = sorted(served())


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    with own_workspace(Path(tmp_path_factory.mktemp("fuzz"))) as made:
        yield made


@pytest.fixture(scope="module")
def key(workspace: Workspace) -> Key:
    return made_key(workspace, "operator", purpose="TREAT")


@pytest.fixture(scope="module")
def of(address: str, key: Key) -> Clients:
    return clients_of(address, key, retries={"total_max_attempts": 1})


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(which=st.sampled_from(SERVED), data=st.data())
def test_what_a_model_takes_is_answered(of: Clients, log: Lines, which: tuple[str, str], data: st.DataObject) -> None:
    service, name = which
    said = data.draw(strategy(service, operation_of(service, name).input_shape.name))
    before = len(log.said)
    with suppress(ClientError):
        of(service)._make_api_call(name, said)
    faults = [one for one in log.said[before:] if one["event"] == "fault" or one.get("status", 0) >= 500]
    assert not faults, name


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["GET", "PUT", "POST", "DELETE"]),
    st.lists(st.sampled_from(["FeatureGroup", "g", "BatchGetRecord", "endpoints", "invocations", "é/"]), max_size=4),
    st.sampled_from(["SageMaker.ListModels", "SageMaker.QueryLineage", "SageMaker.", "Other", ""]),
    st.binary(max_size=40) | st.sampled_from([b"{}", b"[]", b'{"MaxResults":1e400}', b'{"StartArns":[null]}']),
)
def test_what_is_signed_is_answered(
    address: str, key: Key, method: str, parts: list[str], target: str, body: bytes
) -> None:
    path = "".join(f"/{quote(part, safe='')}" for part in ["aws", *parts])
    answer = sent(address, key, method=method, path=path, target=target, body=body)
    assert answer.status_code < 500, answer.text
    assert "x-amzn-requestid" in answer.headers
