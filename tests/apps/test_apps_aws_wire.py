"""The wire without a server: routes, inputs and answers by botocore's models; botocore itself is the oracle."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.awsrequest import AWSRequest
from botocore.parsers import create_parser
from botocore.serialize import create_serializer
from botocore.validate import ParamValidator
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.apps.aws_inputs import strategy, takes

from carelake.apps.http.aws.answering import answer
from carelake.apps.http.aws.asking import asked
from carelake.apps.http.aws.models import RECORDS, RUNTIME, SAGEMAKER, SERVICES, model_of, operation_of, shape_of
from carelake.apps.http.aws.routing import Route, route_of
from carelake.apps.http.aws.table import served
from carelake.apps.http.aws.taking import reader_of
from carelake.core.errors import Invalid

SERVED = sorted(served())
PROTOCOLS = {SAGEMAKER: "json", RECORDS: "rest-json", RUNTIME: "rest-json"}
JSON = {"content-type": "application/x-amz-json-1.1"}
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=12)
NAME = st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True)


def written(service: str, name: str, said: dict[str, Any]) -> tuple[Route, dict[str, Any]]:
    """What botocore sends, and how it is read here."""
    made = create_serializer(PROTOCOLS[service]).serialize_to_request(said, operation_of(service, name))
    query = made["query_string"] if isinstance(made["query_string"], dict) else {}
    pairs = [(k, v) for k, vs in query.items() for v in (vs if isinstance(vs, list) else [vs])]
    headers = {k.lower(): str(v) for k, v in made["headers"].items()}
    body = made["body"].encode() if isinstance(made["body"], str) else bytes(made["body"])
    path = "/aws" + ("" if service == SAGEMAKER else made["url_path"].partition("?")[0])
    route = route_of(made["method"], path, headers.get("x-amz-target", ""))
    return route, asked(
        route, [(k, str(v)) for k, v in pairs], {**({} if service == RUNTIME else JSON), **headers}, body
    )


def _same(sent: Any, taken: Any) -> bool:
    if isinstance(sent, dict):
        return sent.keys() == taken.keys() and all(_same(value, taken[name]) for name, value in sent.items())
    if isinstance(sent, list):
        return len(sent) == len(taken) and all(map(_same, sent, taken))
    return bool(sent == taken)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(SERVED), st.data())
def test_what_botocore_sends_is_what_is_read(which: tuple[str, str], data: st.DataObject) -> None:
    service, name = which
    shape = operation_of(service, name).input_shape
    said = data.draw(strategy(service, shape.name))
    assert not ParamValidator().validate(said, shape).has_errors()
    route, taken = written(service, name, said)
    assert (route.service, route.operation) == (service, name)
    assert _same({k: v for k, v in said.items() if v != b""}, {k: v for k, v in taken.items() if v != b""})


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(SERVED), st.data())
def test_whatever_botocore_would_not_send_is_not_taken(which: tuple[str, str], data: st.DataObject) -> None:
    service, name = which
    shape = operation_of(service, name).input_shape
    members = st.sampled_from([*shape.members, "Other"])
    said = data.draw(st.dictionaries(members, ANY, max_size=4))
    if not takes(reader_of(service, shape.name), said):
        return
    # Taken: then botocore finds it good too. It reads some texts as moments and bytes where we ask for one form.
    given_ = {n: v for n, v in said.items() if v is not None}
    assert not ParamValidator().validate(given_, shape).has_errors()


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(["GET", "PUT", "POST", "DELETE"]),
    st.text("/aFeatureGroup%2Fendpoints.invocations:é", max_size=40),
    st.text(max_size=20),
    st.lists(st.tuples(TEXT, TEXT), max_size=3),
    st.binary(max_size=60) | ANY.map(lambda one: json.dumps(one).encode()),
)
def test_no_request_is_a_fault(
    method: str, path: str, target: str, pairs: list[tuple[str, str]], body: bytes
) -> None:
    with suppress(Invalid):
        route = route_of(method, "/aws/" + path, "SageMaker." + target)
        if route.operation:
            asked(route, pairs, JSON, body)


def test_a_name_may_hold_a_slash_when_it_is_written_as_one() -> None:
    group = "arn:aws:sagemaker:us-east-1:123456789012:feature-group/readmission"
    route, said = written(
        RECORDS,
        "GetRecord",
        {"FeatureGroupName": group, "RecordIdentifierValueAsString": "a/b c&d=é+", "FeatureNames": ["x", "y"]},
    )
    assert route.operation == "GetRecord"
    assert said == {
        "FeatureGroupName": group,
        "RecordIdentifierValueAsString": "a/b c&d=é+",
        "FeatureNames": ["x", "y"],
    }


def test_a_body_of_bytes_is_taken_as_it_is() -> None:
    body = b"\x00\xff1,2"
    said = {"EndpointName": "e", "Body": body, "ContentType": "text/csv", "InferenceId": "i", "TargetVariant": "blue"}
    assert written(RUNTIME, "InvokeEndpoint", said)[1] == said


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"FeatureGroupName": "-x"}, "FeatureGroupName: expected a text of the form"),
        ({"FeatureGroupName": ""}, "FeatureGroupName: expected at least 1 and at most"),
        ({"FeatureNames": []}, "FeatureNames: expected at least 1 members"),
        ({"ExpirationTimeResponse": "Maybe"}, "ExpirationTimeResponse: expected one of Enabled, Disabled"),
        ({"RecordIdentifierValueAsString": None}, "RecordIdentifierValueAsString: expected a value; it is required"),
        ({"RecordIdentifierValueAsString": "CANARY\0"}, "RecordIdentifierValueAsString: expected a text without"),
        ({"Secret": "x"}, "has a member that"),
    ],
)
def test_a_message_names_the_member_and_not_its_value(said: dict[str, Any], message: str) -> None:
    good = {"FeatureGroupName": "g", "RecordIdentifierValueAsString": "CANARY"}
    shape = operation_of(RECORDS, "GetRecord").input_shape
    with pytest.raises(Invalid) as caught:
        reader_of(RECORDS, shape.name)({**good, **said}, "")
    assert message in caught.value.message
    assert "CANARY" not in caught.value.message


def test_members_are_given_once_and_in_their_place() -> None:
    route = route_of("GET", "/aws/FeatureGroup/g", "")
    for pairs in (
        [("RecordIdentifierValueAsString", "1"), ("RecordIdentifierValueAsString", "2")],
        [("RecordIdentifierValueAsString", "1"), ("Other", "2")],
    ):
        with pytest.raises(Invalid):
            asked(route, pairs, {}, b"")
    with pytest.raises(Invalid):
        asked(route, [("RecordIdentifierValueAsString", "1")], {}, b"{}")
    put = route_of("PUT", "/aws/FeatureGroup/g", "")
    body = {"Record": [{"FeatureName": "a", "ValueAsString": "1"}]}
    assert asked(put, [], JSON, json.dumps(body).encode())
    with pytest.raises(Invalid):
        asked(put, [], JSON, json.dumps({**body, "FeatureGroupName": "h"}).encode())
    with pytest.raises(Invalid):
        asked(put, [], {"content-type": "text/csv"}, json.dumps(body).encode())


@pytest.mark.parametrize("service", SERVICES)
def test_every_shape_of_the_models_is_read(service: str) -> None:
    for name in model_of(service).shape_names:
        assert reader_of(service, name)


def test_answers_are_read_back_by_botocore() -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
    said = {"FeatureGroupSummaries": [{"FeatureGroupName": "g", "FeatureGroupArn": "a" * 20, "CreationTime": at}]}
    made = answer(SAGEMAKER, "ListFeatureGroups", said)
    parser = create_parser("json")
    told = {"status_code": 200, "headers": dict(made.headers), "body": made.body}
    back = parser.parse(told, operation_of(SAGEMAKER, "ListFeatureGroups").output_shape)
    assert back["FeatureGroupSummaries"][0]["CreationTime"] == at
    for wrong in (
        {"Other": 1},
        {"FeatureGroupSummaries": [{"FeatureGroupName": 3}]},
        {"FeatureGroupSummaries": [{}]},
    ):
        with pytest.raises(TypeError):
            answer(SAGEMAKER, "ListFeatureGroups", wrong)


def test_the_signers_request_is_made_of_the_same_parts() -> None:
    """`AWSRequest` keeps a query in its address as it came, repeated names and all."""
    made = AWSRequest("GET", "http://h/aws/FeatureGroup/g?FeatureName=b&FeatureName=a")
    assert made.url.endswith("?FeatureName=b&FeatureName=a")
    assert shape_of(RECORDS, "FeatureNames").type_name == "list"
