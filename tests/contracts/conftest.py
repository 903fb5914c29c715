"""What the suites of the ports share: a bucket."""

from __future__ import annotations

import uuid

import pytest

from carelake.core.settings import S3Settings


@pytest.fixture(scope="module")
def bucket(moto: str) -> S3Settings:
    import boto3

    kms = boto3.client("kms", region_name="eu-central-1", endpoint_url=moto)
    key = kms.create_key(Description="objects")["KeyMetadata"]["Arn"]
    name = f"carelake-{uuid.uuid4().hex[:12]}"
    s3 = boto3.client("s3", region_name="eu-central-1", endpoint_url=moto)
    place = {"LocationConstraint": "eu-central-1"}
    s3.create_bucket(Bucket=name, CreateBucketConfiguration=place, ObjectLockEnabledForBucket=True)
    return S3Settings(bucket=name, prefix="ws/", region="eu-central-1", endpoint_url=moto, kms_key=key)
