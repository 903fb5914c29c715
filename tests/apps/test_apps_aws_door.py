"""Doors of AWS's shape: who signed, and what is refused before anything is done. The client is boto3 as it comes."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from botocore import auth, xform_name
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from tests.apps.aws import Clients, Key, client, clients_of, made_key, refused
from tests.apps.served import Lines, act_of, admit, own_workspace

from carelake.access.keys import AccessKeys
from carelake.apps.http.aws.models import operations_of
from carelake.apps.http.aws.table import served
from carelake.apps.wiring import Workspace

ARTIFACT = "arn:aws:sagemaker:us-east-1:{}:artifact/model-{}"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    folder = tmp_path_factory.mktemp("aws")
    with own_workspace(Path(folder)) as made:
        admit(made, "person", doctor="clinician", checker="auditor")
        yield made


@pytest.fixture(scope="module")
def key(workspace: Workspace) -> Key:
    return made_key(workspace, "operator", purpose="HOPERAT")


@pytest.fixture(scope="module")
def of(address: str, key: Key) -> Clients:
    return clients_of(address, key)


@pytest.fixture(autouse=True)
def unlocked(workspace: Workspace) -> None:
    forget(workspace)


def forget(workspace: Workspace) -> None:
    """Failures so far lock nobody out of what follows."""
    with workspace.vault.database.ledger() as connection:
        connection.exec_driver_sql("DELETE FROM access_failure")


def sent(
    address: str,
    key: Key,
    *,
    method: str = "POST",
    path: str = "/aws",
    body: bytes = b"{}",
    target: str = "SageMaker.ListArtifacts",
    signed: Any = None,
    **more: Any,
) -> httpx.Response:
    """One request, signed by botocore and altered by ``signed(headers)`` before it is sent."""
    headers = {"content-type": "application/x-amz-json-1.1", "x-amz-target": target, "host": urlsplit(address).netloc}
    request = AWSRequest(method, address + path, data=body, headers=headers)
    auth.SigV4Auth(Credentials(*key), more.get("service", "sagemaker"), more.get("region", "us-east-1")).add_auth(
        request
    )
    told = {name.lower(): value for name, value in request.headers.items()}
    if signed is not None:
        signed(told)
    return httpx.request(
        method, address + path, headers=told, content=more.get("other", body), timeout=20, verify=False
    )


def told(answer: httpx.Response) -> tuple[int, str]:
    body = answer.json()
    assert body["__type"] == answer.headers["x-amzn-errortype"]
    assert answer.headers["x-amzn-requestid"] == answer.headers["x-request-id"]
    return answer.status_code, body["__type"]


def test_a_signed_request_is_an_act(workspace: Workspace, address: str, key: Key, of: Clients) -> None:
    found = of("sagemaker").list_artifacts()
    assert found["ArtifactSummaries"] == []
    answer = sent(address, key)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-amz-json-1.1")
    act = act_of(workspace, answer)
    assert (act["action"], act["principal"], act["account"]) == ("lineage:read", "operator", "production")
    assert act["changed"] == {"operation": "ListArtifacts"}
    assert act["credential"] == f"key:{key[0]}"


def test_the_address_is_in_the_log_by_its_operation(address: str, key: Key, log: Lines) -> None:
    sent(address, key)
    assert log.said[-1]["route"] == "/aws ListArtifacts"


def test_what_is_not_signed_rightly_is_refused(workspace: Workspace, address: str, key: Key) -> None:
    other = "0" * 64

    def dropped(name: str) -> Any:
        return lambda headers: headers.pop(name)

    def swapped(name: str, old: str, new: str) -> Any:
        def swap(headers: dict[str, str]) -> None:
            headers[name] = headers[name].replace(old, new)

        return swap

    def put(name: str, value: str) -> Any:
        return lambda headers: headers.update({name: value})

    cases = {
        "no key at all": (dropped("authorization"), "MissingAuthenticationTokenException", 403),
        "a bearer token": (put("authorization", "Bearer x"), "MissingAuthenticationTokenException", 403),
        "an unsigned date": (swapped("authorization", ";x-amz-date", ""), "IncompleteSignatureException", 400),
        "an unsigned target": (swapped("authorization", ";x-amz-target", ""), "IncompleteSignatureException", 400),
        "another header of AWS's": (put("x-amz-more", "1"), "IncompleteSignatureException", 400),
        "no date": (dropped("x-amz-date"), "IncompleteSignatureException", 400),
        "a session token": (put("x-amz-security-token", "t"), "UnrecognizedClientException", 403),
        "another target": (put("x-amz-target", "SageMaker.ListActions"), "InvalidSignatureException", 403),
        "another host": (put("host", "elsewhere.example"), "InvalidSignatureException", 403),
        "another hash": (put("x-amz-content-sha256", other), "IncompleteSignatureException", 400),
    }
    for what, (change, code, status) in cases.items():
        forget(workspace)
        answer = sent(address, key, signed=change)
        assert told(answer) == (status, code), what
        act = act_of(workspace, answer)
        assert (act["phase"], act["principal"]) == ("refused", "anonymous"), what


def test_a_signature_is_for_one_region_and_service(address: str, key: Key) -> None:
    assert told(sent(address, key, region="eu-west-1")) == (403, "InvalidSignatureException")
    assert told(sent(address, key, service="iam")) == (403, "InvalidSignatureException")
    with refused("InvalidSignatureException", 403) as said:
        client(address, key, "sagemaker", region="eu-west-1").list_artifacts()
    assert "region" in said["Error"]["Message"]


def test_another_body_or_query_than_was_signed_is_refused(address: str, key: Key) -> None:
    assert told(sent(address, key, other=b'{"MaxResults": 1}')) == (403, "InvalidSignatureException")
    answer = sent(address, key, method="GET", path="/aws/FeatureGroup/g?RecordIdentifierValueAsString=1", body=b"")
    assert answer.json()["__type"] != "InvalidSignatureException"


def test_a_body_is_not_read_before_its_signature(address: str, key: Key) -> None:
    assert told(sent(address, ("AKCL" + "A" * 16, key[1]), body=b"[" * 5000)) == (403, "InvalidSignatureException")
    assert told(sent(address, key, body=b"[" * 5000)) == (400, "ValidationException")


def test_a_clock_that_is_wrong_is_told_so(address: str, key: Key, monkeypatch: pytest.MonkeyPatch) -> None:
    for minutes in (-6, 6):
        moment = datetime.now(UTC) + timedelta(minutes=minutes)
        monkeypatch.setattr(auth, "get_current_datetime", lambda moment=moment: moment.replace(tzinfo=None))
        assert told(sent(address, key)) == (403, "RequestTimeTooSkewed")


def test_a_presigned_address_is_refused(address: str, key: Key) -> None:
    request = AWSRequest("GET", f"{address}/aws/FeatureGroup/g?RecordIdentifierValueAsString=1")
    auth.SigV4QueryAuth(Credentials(*key), "sagemaker", "us-east-1").add_auth(request)
    answer = httpx.get(request.url)
    assert told(answer) == (403, "MissingAuthenticationTokenException")


def test_keys_that_are_wrong_revoked_or_old_are_refused(workspace: Workspace, address: str, key: Key) -> None:
    def call(made: Key) -> None:
        client(address, made, "sagemaker").list_artifacts()

    for wrong in ((key[0], key[1] + "x"), ("AKCL" + "B" * 16, key[1])):
        with refused("InvalidSignatureException", 403):
            call(wrong)
    made = made_key(workspace, "checker", purpose="HOPERAT")
    call(made)
    with workspace.vault.database.ledger() as connection:
        AccessKeys(workspace.vault, connection).disable(made[0], by=None)
    with refused("InvalidSignatureException", 403):
        call(made)
    old = made_key(workspace, "checker", purpose="HOPERAT")
    call(old)
    with workspace.vault.database.ledger() as connection:
        connection.exec_driver_sql(
            f"UPDATE access_key SET created = '2020-01-01T00:00:00.000Z' WHERE id = '{old[0]}'"
        )
        AccessKeys(workspace.vault, connection).disable(made[0], by=None)  # rights have changed
    with refused("ExpiredTokenException", 403):
        call(old)


def test_who_may_not_is_told_why(workspace: Workspace, address: str) -> None:
    with refused("AccessDeniedException", 403) as said:
        client(address, made_key(workspace, "doctor", purpose="HPAYMT"), "sagemaker").list_artifacts()
    assert "doctor may not follow a noun" in said["Error"]["Message"]


def test_what_is_not_served_is_named(workspace: Workspace, address: str, key: Key, of: Clients) -> None:
    with refused("UnknownOperationException", 404) as said:
        of("sagemaker").list_domains()
    assert "ListDomains of sagemaker is not served here" in said["Error"]["Message"]
    with refused("UnknownOperationException", 404):
        of("sagemaker-runtime").invoke_endpoint_async(EndpointName="e", InputLocation="s3://b/k")
    for answer in (
        sent(address, key, target="SageMaker.NoSuchThing"),
        sent(address, key, target="Other.ListArtifacts"),
        sent(address, key, method="GET", path="/aws", body=b""),
        sent(address, key, path="/aws/NoSuchAddress"),
    ):
        assert told(answer) == (404, "UnknownOperationException")
        assert act_of(workspace, answer)["action"] == "aws:unserved"


def test_input_is_held_against_the_model(address: str, key: Key) -> None:
    cases = {
        b'{"Unknown": 1}': "has a member",
        b'{"MaxResults": "3"}': "MaxResults: expected a whole number",
        b'{"MaxResults": 101}': "MaxResults: expected at least 1 and at most 100",
        b'{"SortBy": "Size"}': "SortBy: expected one of CreationTime",
        b'{"CreatedAfter": "yesterday"}': "CreatedAfter: expected seconds",
        b"[]": "The body: expected a JSON object",
        b"{": "The body: expected JSON",
    }
    for body, message in cases.items():
        answer = sent(address, key, body=body)
        assert told(answer) == (400, "ValidationException"), body
        assert message in answer.json()["message"]
    answer = sent(address, key, target="SageMaker.DescribeArtifact")
    assert "ArtifactArn: expected a value; it is required" in answer.json()["message"]


def test_what_is_deep_is_refused(address: str, key: Key) -> None:
    expression = b'{"SubExpressions":[' * 900 + b"{}" + b"]}" * 900
    body = b'{"Resource":"FeatureGroup","SearchExpression":' + expression + b"}"
    assert told(sent(address, key, target="SageMaker.Search", body=body)) == (400, "ValidationException")


def test_the_description_of_the_other_addresses_has_none_of_these(address: str) -> None:
    assert not [path for path in httpx.get(f"{address}/openapi.json").json()["paths"] if path.startswith("/aws")]


def test_a_name_of_another_account_is_refused(of: Clients) -> None:
    with refused("ValidationException", 400):
        of("sagemaker").describe_artifact(ArtifactArn=ARTIFACT.format("0" * 12, "a" * 64))


def test_a_noun_that_is_not_there_is_not_found(of: Clients) -> None:
    from carelake.core.arns import account_number

    with refused("ResourceNotFound", 400):
        of("sagemaker").describe_artifact(ArtifactArn=ARTIFACT.format(account_number("production"), "a" * 64))


def test_a_body_that_is_too_long_is_refused(address: str, key: Key) -> None:
    answer = sent(address, key, body=b" " * (5 * 1024 * 1024 + 1))
    assert told(answer) == (413, "RequestEntityTooLargeException")


def test_every_served_operation_is_in_the_models() -> None:
    assert all(name in operations_of(service) for service, name in served())


def test_every_served_operation_is_called_by_boto3_somewhere_here() -> None:
    texts = "".join(page.read_text() for page in Path(__file__).parent.glob("test_apps_aws_*.py"))
    assert not [name for _, name in served() if not re.search(rf"\.{xform_name(name)}\b", texts)]


def test_the_page_tells_what_is_served() -> None:
    root = Path(__file__).resolve().parents[2]
    spec = importlib.util.spec_from_file_location("write_aws", root / "tools" / "write_aws.py")
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    page = (root / "docs" / "aws.md").read_text(encoding="utf-8")
    assert tool.render(page) == page, "run `make docs`"
