"""boto3 as it comes, before a server of ours: access keys, and answers that are held against botocore's models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import pytest
import regex
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.validate import ParamValidator
from tests.apps.served import known

from carelake.access.keys import AccessKeys
from carelake.apps.wiring import Workspace

REGION = "us-east-1"
SERVICES = ("sagemaker", "sagemaker-featurestore-runtime", "sagemaker-runtime")
Key = tuple[str, str]


def made_key(
    workspace: Workspace, name: str, *, purpose: str = "TREAT", account: str = "production", role: str = ""
) -> Key:
    """An access key of a principal: its id and its secret."""
    vouching, who = workspace.gate.vouching(), known(workspace, name)
    with workspace.vault.database.ledger() as connection:
        keys = AccessKeys(workspace.vault, connection)
        key, secret = keys.add(vouching, who, account=account, purpose=purpose, role=role, by=None)
    return key.id, secret


def client(address: str, key: Key, service: str, *, region: str = REGION, **told: Any) -> Any:
    """A client of one service; every answer that it parses is held against the model of its operation."""
    made = boto3.client(
        service,
        endpoint_url=f"{address}/aws",
        region_name=region,
        aws_access_key_id=key[0],
        aws_secret_access_key=key[1],
        config=Config(**told) if told else None,
    )
    made.meta.events.register("after-call.*.*", _fits)
    return made


def _fits(parsed: dict[str, Any], model: Any, http_response: Any, **_: Any) -> None:
    assert http_response.headers["x-amzn-RequestId"] == parsed["ResponseMetadata"]["RequestId"]
    if http_response.status_code >= 300 or model.output_shape is None:
        return
    said = {name: value for name, value in parsed.items() if name != "ResponseMetadata"}
    said = {name: value.read() if hasattr(value, "read") else value for name, value in said.items()}
    if "Body" in said:
        parsed["Body"] = said["Body"]
    report = ParamValidator().validate(said, model.output_shape)
    assert not report.has_errors(), f"{model.name}: {report.generate_report()}"
    wrong = list(broken(said, model.output_shape, model.name))
    assert not wrong


def broken(value: Any, shape: Any, at: str) -> Iterator[str]:
    """Constraints of a shape, beyond its types, that a value does not keep."""
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    size = value if isinstance(value, int | float) else len(value) if hasattr(value, "__len__") else None
    if size is not None and ((low is not None and size < low) or (high is not None and size > high)):
        yield f"{at}: {size} is not in {low}..{high}"
    if shape.type_name == "string":
        if shape.enum and value not in shape.enum:
            yield f"{at}: {value} is none of {shape.enum}"
        pattern = shape.metadata.get("pattern", "").replace(r"\z", r"\Z")
        if pattern and not regex.fullmatch(pattern, value):
            yield f"{at}: {value!r} is not {pattern}"
    elif shape.type_name == "structure":
        for name, said in value.items():
            yield from broken(said, shape.members[name], f"{at}.{name}")
    elif shape.type_name == "list":
        for said in value:
            yield from broken(said, shape.member, at)
    elif shape.type_name == "map":
        for said in value.values():
            yield from broken(said, shape.value, at)


@contextmanager
def refused(code: str, status: int = 0) -> Iterator[dict[str, Any]]:
    """An error of AWS's shape with this code is what comes back."""
    found: dict[str, Any] = {}
    with pytest.raises(ClientError) as caught:
        yield found
    found.update(caught.value.response)
    assert found["Error"]["Code"] == code, found
    assert status in (0, found["ResponseMetadata"]["HTTPStatusCode"])


Clients = Callable[..., Any]


def clients_of(address: str, key: Key, **told: Any) -> Clients:
    """Clients by service, made when first asked for."""
    made: dict[str, Any] = {}

    def of(service: str) -> Any:
        if service not in made:
            made[service] = client(address, key, service, **told)
        return made[service]

    return of
