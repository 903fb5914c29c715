"""What the suites of the ports share: a moto server on loopback, and a bucket in it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from carelake.core.settings import S3Settings


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="module")
def bucket(moto: str) -> Iterator[S3Settings]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        import boto3

        kms = boto3.client("kms", region_name="eu-central-1", endpoint_url=moto)
        key = kms.create_key(Description="objects")["KeyMetadata"]["Arn"]
        name = f"carelake-{uuid.uuid4().hex[:12]}"
        s3 = boto3.client("s3", region_name="eu-central-1", endpoint_url=moto)
        place = {"LocationConstraint": "eu-central-1"}
        s3.create_bucket(Bucket=name, CreateBucketConfiguration=place, ObjectLockEnabledForBucket=True)
        yield S3Settings(bucket=name, prefix="ws/", region="eu-central-1", endpoint_url=moto, kms_key=key)
