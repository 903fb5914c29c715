"""Credentials at the HTTP door, over a real server on loopback: boto3 is let in, attackers learn nothing."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from queue import Queue
from typing import Any

import boto3
import httpx
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from carelake.access.keys import AccessKeys
from carelake.access.principals import Principal, Principals
from carelake.apps.http.server import make_server
from carelake.apps.wiring import Workspace
from carelake.audit.readings import Acts

SETTINGS = "[access.lockout]\nfailures = 4\nfirst_seconds = 600\n"


class Silent:
    """A logger that keeps nothing."""

    def info(self, event: str, **facts: Any) -> None:
        """Nothing."""

    error = info


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    folder = tmp_path_factory.mktemp("door")
    environment = {"CARELAKE_KEY_DIR": str(folder / "keys")}
    Workspace.create(folder / "ws", environment).close()
    with (folder / "ws" / "carelake.toml").open("a") as file:
        file.write(SETTINGS)
    made = Workspace.open(folder / "ws", environment)
    operator = made.identity.local_user()
    with made.vault.database.ledger() as connection:
        Principals(connection).add(Principal("app", "service", ("application",), ("production",)), by=operator)
        Principals(connection).add(Principal("ann", "person", ("clinician",), ("production",)), by=operator)
    with (
        made.gate.enter(operator, "record:ingest", "test", "TREAT", account="production") as permit,
        made.vault.database.transaction(permit) as tx,
    ):
        made.resources.update(permit, tx, {"resourceType": "Patient", "id": "p0", "gender": "female"})
    yield made
    made.close()


@pytest.fixture(scope="module")
def address(workspace: Workspace) -> Iterator[str]:
    addresses: Queue[str] = Queue()
    server = make_server(workspace, port=0, started=addresses.put, log=Silent())
    thread = threading.Thread(target=server.run)
    thread.start()
    yield addresses.get(timeout=10)
    server.should_exit = True
    thread.join(15)


@pytest.fixture(autouse=True)
def forgiven(workspace: Workspace) -> None:
    with workspace.vault.database.ledger() as connection:
        connection.exec_driver_sql("DELETE FROM access_failure")


@pytest.fixture(scope="module")
def key(workspace: Workspace) -> tuple[str, str]:
    operator = workspace.identity.local_user()
    with (
        workspace.gate.enter(operator, "credential:manage", "access", "HOPERAT", account="production") as permit,
        workspace.vault.database.transaction(permit) as tx,
    ):
        made, secret = AccessKeys(workspace.vault, tx).add(
            workspace.gate.vouching(),
            Principals(tx).get("app"),
            account="production",
            purpose="TREAT",
            role="application",
            by=operator,
        )
    return made.id, secret


def client(address: str, key: tuple[str, str], region: str = "us-east-1") -> Any:
    return boto3.client(
        "s3",
        endpoint_url=address,
        region_name=region,
        aws_access_key_id=key[0],
        aws_secret_access_key=key[1],
        config=Config(
            signature_version="s3v4", s3={"addressing_style": "path"}, retries={"max_attempts": 1}, proxies={}
        ),
    )


def token(workspace: Workspace, name: str = "ann", **other: Any) -> str:
    who = workspace.identity.named(name, Principal("", "person", (), ()))
    said: dict[str, Any] = {"purpose": "TREAT", "account": "production", "seconds": 60, **other}
    return workspace.identity.issue(who, **said)


def get(address: str, path: str = "/fhir/Patient/p0", **headers: str) -> httpx.Response:
    return httpx.get(address + path, headers=headers, trust_env=False)


def test_boto3_reads_the_record(workspace: Workspace, address: str, key: tuple[str, str]) -> None:
    answer = client(address, key).get_object(Bucket="fhir", Key="Patient/p0")
    assert b'"female"' in answer["Body"].read()
    with workspace.vault.database.ledger_reading() as connection:
        act = next(iter(Acts(connection).find(limit=1)))
    assert (act["principal"], act["credential"], act["purpose"]) == ("app", f"key:{key[0]}", "TREAT")


@pytest.mark.parametrize(
    ("change", "region"), [((0, "AKCL" + "B" * 16), "us-east-1"), ((1, "x" * 40), "us-east-1"), (None, "eu-north-1")]
)
def test_boto3_with_a_wrong_key_is_refused(
    address: str, key: tuple[str, str], change: tuple[int, str] | None, region: str
) -> None:
    wrong = list(key)
    if change:
        wrong[change[0]] = change[1]
    with pytest.raises(ClientError) as caught:
        client(address, (wrong[0], wrong[1]), region).get_object(Bucket="fhir", Key="Patient/p0")
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 401


def test_boto3_presigns_a_reading(address: str, key: tuple[str, str]) -> None:
    link = client(address, key).generate_presigned_url(
        "get_object", Params={"Bucket": "fhir", "Key": "Patient/p0"}, ExpiresIn=60
    )
    assert "X-Amz-Signature" in link
    assert httpx.get(link, trust_env=False).status_code == 200
    assert httpx.get(link.replace("p0", "p1"), trust_env=False).status_code == 401


def test_the_challenge_says_what_is_wrong(workspace: Workspace, address: str) -> None:
    bare, wrong = get(address), get(address, authorization="Bearer a.b.c")
    assert (bare.status_code, bare.headers["www-authenticate"]) == (401, 'Bearer realm="carelake"')
    assert wrong.headers["www-authenticate"] == 'Bearer realm="carelake", error="invalid_token"'
    for scheme in ("Basic YTpi", "Bearer", "AWS4-HMAC-SHA256", "Digest x"):
        assert get(address, authorization=scheme).status_code == 401
    good = token(workspace)
    assert get(address, authorization=f"Bearer {good}").status_code == 200
    twice = httpx.get(
        address + "/fhir/Patient/p0",
        headers=[("authorization", f"Bearer {good}"), ("authorization", "Bearer x")],
        trust_env=False,
    )
    assert twice.status_code == 401


def test_nobody_learns_which_names_there_are(workspace: Workspace, address: str) -> None:
    head, _, signature = token(workspace).split(".")
    answers = []
    for name in ("ann", "nobody"):
        claims = {"iss": workspace.identity.tokens.issuer, "sub": name, "aud": "x", "exp": 1, "iat": 1, "jti": "x"}
        body = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
        answers.append(get(address, authorization=f"Bearer {head}.{body}.{signature}"))
    assert answers[0].status_code == answers[1].status_code == 401
    assert answers[0].json() == answers[1].json()


def test_a_lock_is_told_once_in_the_trail_and_with_its_wait(workspace: Workspace, address: str) -> None:
    def refusals() -> list[dict[str, Any]]:
        with workspace.vault.database.ledger_reading() as connection:
            return [act for act in Acts(connection).find(limit=50) if act["phase"] == "refused"]

    before = len(refusals())
    forged = token(workspace).rsplit(".", 1)[0] + "." + "A" * 86
    answers = [get(address, authorization=f"Bearer {forged}") for _ in range(7)]
    assert [answer.json()["issue"][0]["details"]["text"] for answer in answers] == ["access.token"] * 4 + [
        "access.locked"
    ] * 3
    assert 0 < int(answers[-1].headers["retry-after"]) <= 601
    found = refusals()
    assert len(found) - before == 4
    assert "locked_until" in found[0]
    assert get(address, authorization=f"Bearer {token(workspace)}").status_code == 401
    other = token(workspace, "auditor", purpose="HOPERAT")
    assert get(address, authorization=f"Bearer {other}").status_code == 403


def test_a_revoked_token_is_worth_nothing(workspace: Workspace, address: str) -> None:
    text = token(workspace)
    claims = workspace.identity.tokens.verified(text)
    assert get(address, authorization=f"Bearer {text}").status_code == 200
    with workspace.vault.database.ledger() as connection:
        workspace.identity.tokens.revoke(connection, claims.id, claims.principal, claims.expires)
        workspace.identity.tokens.revoke(connection, claims.id, claims.principal, claims.expires)
    assert get(address, authorization=f"Bearer {text}").status_code == 401
    assert get(address, authorization=f"Bearer {token(workspace)}").status_code == 200


def test_a_refusal_says_why(workspace: Workspace, address: str) -> None:
    answer = get(address, authorization=f"Bearer {token(workspace, purpose='HRESCH')}")
    assert answer.status_code == 403
    assert "no policy permits" in answer.text
