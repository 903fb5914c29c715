"""Names of things as AWS writes them: ``arn:aws:SERVICE:REGION:ACCOUNT:RESOURCE``.

An account's number is made of its name, so that it is the same in every workspace and none is kept.
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference-arns.html
"""

from __future__ import annotations

import hashlib
import re

from carelake.core.errors import Invalid

__all__ = ["REGION", "account_number", "arn", "resource_of"]

REGION = "us-east-1"
_ARN = re.compile(r"arn:aws[a-z-]{0,8}:([a-z0-9-]{1,32}):[a-z0-9-]{1,16}:(\d{12}):(\S{1,2048})")


def account_number(account: str) -> str:
    """The twelve digits that stand for an account."""
    return f"{int.from_bytes(hashlib.sha256(account.encode()).digest()[:8], 'big') % 10**12:012d}"


def arn(service: str, account: str, resource: str, region: str = REGION) -> str:
    """The ARN of a resource, for example ``model-package/readmission/3``, of one of our accounts."""
    return f"arn:aws:{service}:{region}:{account_number(account)}:{resource}"


def resource_of(text: str, service: str, account: str) -> str:
    """The resource that an ARN names in this account; a text that is no ARN is answered as it is.

    Raises:
        Invalid: ``core.arn``: of another service or account, or no ARN though it begins like one.
    """
    if not text.startswith("arn:"):
        return text
    found = _ARN.fullmatch(text)
    if found is None or found[1] != service or found[2] != account_number(account):
        raise Invalid("core.arn", f"Expected the ARN of a thing of {service} in the account that is called in.")
    return found[3]
