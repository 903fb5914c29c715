"""Browsers of other origins: what they are told, and that nobody is told anything who is not named."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import msgspec
import pytest
from tests.apps.served import Lines, known, serving

from carelake.apps.wiring import Workspace
from carelake.core.settings import ServeSettings

APP = "https://app.example"
BEFORE = {"Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "authorization,content-type"}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    folder = tmp_path_factory.mktemp("cors")
    made = Workspace.create(folder / "workspace", {"CARELAKE_KEY_DIR": str(folder / "keys")})
    yield made
    made.close()


@contextmanager
def client(workspace: Workspace, *origins: str, **told: float) -> Iterator[httpx.Client]:
    before = workspace.settings
    serve = msgspec.structs.replace(before.serve, cors_origins=origins, **told)
    workspace.settings = msgspec.structs.replace(before, serve=serve)
    try:
        with serving(workspace, Lines()) as url, httpx.Client(base_url=url, timeout=30) as made:
            yield made
    finally:
        workspace.settings = before


def said(answer: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name.startswith("access-control")}


def test_without_the_setting_nothing_is_said(workspace: Workspace) -> None:
    with client(workspace) as asking:
        answer = asking.get("/healthz", headers={"Origin": APP})
        assert not said(answer)
        assert "Origin" not in answer.headers.get("Vary", "")
        assert asking.request("OPTIONS", "/fhir/Patient/p", headers={"Origin": APP, **BEFORE}).status_code == 405
        assert asking.get("/fhir/metadata").json()["rest"][0]["security"]["cors"] is False


def test_a_named_origin_may_ask_and_read(workspace: Workspace) -> None:
    text = workspace.identity.issue(known(workspace, "operator"), purpose="TREAT", account="production", seconds=600)
    headers = {"Authorization": f"Bearer {text}", "Origin": APP}
    with client(workspace, APP, "https://other.example") as asking:
        answer = asking.request("OPTIONS", "/fhir/Patient/p", headers={"Origin": APP, **BEFORE})
        told = said(answer)
        assert (answer.status_code, answer.content) == (204, b"")
        assert told["access-control-allow-origin"] == APP
        assert "PUT" in told["access-control-allow-methods"]
        allowed = {one.strip().lower() for one in told["access-control-allow-headers"].split(",")}
        assert {"authorization", "content-type", "if-match", "prefer"} <= allowed
        assert "access-control-allow-credentials" not in told

        answer = asking.put("/fhir/Patient/p", json={"resourceType": "Patient", "id": "p"}, headers=headers)
        assert answer.status_code == 201
        assert said(answer)["access-control-allow-origin"] == APP
        assert "ETag" in said(answer)["access-control-expose-headers"]
        assert "Origin" in answer.headers["Vary"]
        assert asking.get("/fhir/metadata").json()["rest"][0]["security"]["cors"] is True
        # An error can be read as well, or an application could not tell why.
        assert said(asking.get("/fhir/Patient/p", headers={"Origin": APP}))["access-control-allow-origin"] == APP


@pytest.mark.parametrize(
    "origin",
    ["https://app.example.evil", "https://app.example:444", "http://app.example", "null", "*", "https://APP.example"],
)
def test_who_is_not_named_is_told_nothing(workspace: Workspace, origin: str) -> None:
    with client(workspace, APP) as asking:
        for answer in (
            asking.get("/healthz", headers={"Origin": origin}),
            asking.request("OPTIONS", "/fhir/Patient/p", headers={"Origin": origin, **BEFORE}),
        ):
            assert not said(answer)
            assert answer.headers["Vary"] == "Origin"
        assert answer.status_code == 405
        two = asking.get("/healthz", headers=[("Origin", APP), ("Origin", origin)])
        assert not said(two)


def test_who_asks_before_is_counted(workspace: Workspace) -> None:
    with client(workspace, APP, source_per_second=0.01, burst_seconds=300.0) as asking:
        found = [asking.request("OPTIONS", "/fhir/Patient/p", headers={"Origin": APP, **BEFORE}) for _ in range(5)]
        assert [one.status_code for one in found] == [204, 204, 204, 429, 429]
        assert said(found[-1])["access-control-allow-origin"] == APP


@pytest.mark.parametrize(
    "origin",
    [
        "*",
        "null",
        "https://app.example/",
        "https://*.example",
        "http://app.example",
        "https://APP.example",
        "app.example",
        "",
    ],
)
def test_only_exact_origins_are_taken(origin: str) -> None:
    with pytest.raises(ValueError, match="cors_origins"):
        ServeSettings(cors_origins=(origin,))
    ServeSettings(cors_origins=(APP, "https://app.example:8443", "http://localhost:3000"))
