"""Signatures of webhooks as Standard Webhooks 1.0 has them: HMAC-SHA256 over id, time and body.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from base64 import b64decode, b64encode
from collections.abc import Iterable
from datetime import datetime

__all__ = ["headers", "new_secret"]

_SECRET_BYTES = 32
_PREFIX = "whsec_"


def new_secret() -> str:
    """``whsec_`` and 256 random bits in base64."""
    return _PREFIX + b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def headers(name: str, moment: datetime, body: bytes, keys: Iterable[str]) -> dict[str, str]:
    """The three headers; one signature per key that is good now, so that a receiver may hold either."""
    seconds = int(moment.timestamp())
    said = f"{name}.{seconds}.".encode() + body
    signed = [hmac.digest(b64decode(key.removeprefix(_PREFIX)), said, hashlib.sha256) for key in keys]
    return {
        "webhook-id": name,
        "webhook-timestamp": str(seconds),
        "webhook-signature": " ".join("v1," + b64encode(one).decode() for one in signed),
    }
