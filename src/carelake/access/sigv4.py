"""AWS Signature Version 4: is a request signed by the secret that its key id stands for?

The request is signed again by botocore's own signer, with the stored secret, and the signatures are compared. So
canonical forms are botocore's, not ours. https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html

(1) the credential scope names a service and a region of the settings and the request's own date; (2) the date is
within the skew of our clock; (3) host, date and every ``x-amz-*`` header are signed; (4) the payload's hash is the
body's; (5) the signature is compared in constant time; (6) a changing request is taken once.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl

from carelake.core.errors import Unauthenticated, Unavailable
from carelake.core.settings import Sigv4Settings

__all__ = [
    "ALGORITHM",
    "BadSignature",
    "Claim",
    "SignedRequest",
    "bad_signature",
    "changes",
    "claim_of",
    "is_signed",
    "key_named",
    "same",
    "signature_of",
]

ALGORITHM = "AWS4-HMAC-SHA256"
UNSIGNED = "UNSIGNED-PAYLOAD"
_TIME = "%Y%m%dT%H%M%SZ"
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 +Credential=([A-Z0-9]{16,32})/(\d{8})/([a-z0-9-]{1,32})/([a-z0-9-]{1,32})/aws4_request, *"
    r"SignedHeaders=([a-z0-9;_.-]{4,2000}), *Signature=([0-9a-f]{64})"
)
_SCOPE = re.compile(r"([A-Z0-9]{16,32})/(\d{8})/([a-z0-9-]{1,32})/([a-z0-9-]{1,32})/aws4_request")
_TARGET = re.compile(r"/[^?#\\\s]*")
_HOST = re.compile(r"[^/?#@\\\s]+")
_KEY = re.compile(ALGORITHM + r" +Credential=([A-Z0-9]{16,32})/")
_LONGEST_LINK = 900
_SAFE = frozenset({"GET", "HEAD"})


class BadSignature(Unauthenticated):
    """A signature that is not valid here.

    Attributes:
        fault: in which way, where that tells nothing of keys: ``incomplete``, ``clock``, ``scope``, ``session``,
            ``replayed``; of all that is wrong with a key or what it signed it is ``signature``. Doors that answer in
            AWS's own words name it.
    """

    fault = "signature"


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """A request as it was received.

    Attributes:
        path: raw, still percent-encoded.
        query: raw.
        headers: in the order received, names in lower case.
    """

    method: str
    path: str
    query: str
    headers: Sequence[tuple[str, str]]
    body: bytes

    def all(self, name: str) -> list[str]:
        """The values of a header."""
        return [value for key, value in self.headers if key == name]

    def one(self, name: str) -> str:
        """The value of a header that is there once, "" otherwise."""
        found = self.all(name)
        return found[0] if len(found) == 1 else ""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a signed request claims, before anything of it is verified.

    Attributes:
        ends: when the signature stops to be good.
        link: whether it is in the query, a presigned address.
    """

    key_id: str
    region: str
    service: str
    stamp: str
    signed_headers: tuple[str, ...]
    signature: str
    ends: datetime
    link: bool


def key_named(authorization: str) -> str:
    """The key id that a header claims, "" where it claims none; nothing of it is verified."""
    found = _KEY.match(authorization)
    return found[1] if found else ""


def is_signed(request: SignedRequest) -> bool:
    """Whether a request says that it is signed so."""
    return request.one("authorization").startswith(ALGORITHM) or "X-Amz-Signature=" in request.query


def claim_of(request: SignedRequest, settings: Sigv4Settings, now: datetime) -> Claim:
    """The claim, when it may hold here and now; its signature is not verified yet.

    Raises:
        Unauthenticated: ``access.signature``.
    """
    if not _TARGET.fullmatch(request.path) or "#" in request.query or not _HOST.fullmatch(request.one("host")):
        raise bad_signature("incomplete")  # read as an address, the rest would be no part of what is signed
    authorization = request.one("authorization")
    if authorization and "X-Amz-Signature=" in request.query:
        raise bad_signature("incomplete")
    claim, day = _of_header(request) if authorization else _of_link(request)
    at = _time(claim.stamp)
    if claim.service not in settings.services or claim.region not in settings.regions:
        raise bad_signature("scope")
    if request.all("x-amz-security-token"):
        raise bad_signature("session")
    if not claim.stamp.startswith(day):
        raise bad_signature("incomplete")
    skew = timedelta(seconds=settings.skew_seconds)
    if at > now + skew or (now >= claim.ends if claim.link else at < now - skew):
        raise bad_signature("clock")
    _signed_enough(request, claim)
    if not claim.link:
        _payload(request, settings)
        return _until(claim, at + skew)
    return claim


def signature_of(request: SignedRequest, claim: Claim, secret: str) -> str:
    """The signature that the holder of ``secret`` makes of the request.

    Raises:
        Unavailable: ``access.no_aws``, without the extra ``aws``.
    """
    auth, made = _signer(claim, secret), _request(request, claim)
    canonical = auth.canonical_request(made)
    return str(auth.signature(auth.string_to_sign(made, canonical), made))


def same(one: str, other: str) -> bool:
    """Whether two signatures are the same, in constant time."""
    return hmac.compare_digest(one.encode(), other.encode())


def bad_signature(fault: str = "signature") -> BadSignature:
    """One and the same answer for whatever is wrong with a signed request."""
    error = BadSignature(
        "access.signature",
        "The request's signature is not valid here: expected AWS Signature Version 4 by a key of this workspace, for "
        "its service and region, with a clock that is right and the body that was signed.",
    )
    error.fault = fault
    return error


def changes(request: SignedRequest) -> bool:
    """Whether the request may change something, so that sending it twice matters."""
    return request.method not in _SAFE


def _of_header(request: SignedRequest) -> tuple[Claim, str]:
    found = _AUTHORIZATION.fullmatch(request.one("authorization").strip())
    stamp = request.one("x-amz-date")
    if not found:
        raise bad_signature("incomplete")
    key_id, day, region, service, signed, signature = found.groups()
    return Claim(key_id, region, service, stamp, tuple(signed.split(";")), signature, _time(stamp), False), day


def _of_link(request: SignedRequest) -> tuple[Claim, str]:
    said = _once(request.query)
    found = _SCOPE.fullmatch(said.get("X-Amz-Credential", ""))
    lasting = said.get("X-Amz-Expires", "")
    if not found or said.get("X-Amz-Algorithm") != ALGORITHM or "X-Amz-Security-Token" in said:
        raise bad_signature()
    if not re.fullmatch(r"\d{1,4}", lasting) or not 0 < int(lasting) <= _LONGEST_LINK:
        raise bad_signature()
    if changes(request) or request.body or not re.fullmatch(r"[0-9a-f]{64}", said.get("X-Amz-Signature", "")):
        raise bad_signature()
    key_id, day, region, service = found.groups()
    stamp = said.get("X-Amz-Date", "")
    signed = tuple(said.get("X-Amz-SignedHeaders", "").split(";"))
    ends = _time(stamp) + timedelta(seconds=int(lasting))
    return Claim(key_id, region, service, stamp, signed, said["X-Amz-Signature"], ends, True), day


def _once(query: str) -> Mapping[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=200)
    except ValueError:
        raise bad_signature() from None
    ours = [name for name, _ in pairs if name.startswith("X-Amz-")]
    if len(set(ours)) != len(ours):
        raise bad_signature()
    return dict(pairs)


def _signed_enough(request: SignedRequest, claim: Claim) -> None:
    signed = claim.signed_headers
    needed = {"host"} | {name for name, _ in request.headers if name.startswith("x-amz-")}
    if not needed <= set(signed) or list(signed) != sorted(set(signed)):
        raise bad_signature("incomplete")
    if len(request.all("host")) != 1 or any(not request.all(name) for name in signed):
        raise bad_signature("incomplete")


def _payload(request: SignedRequest, settings: Sigv4Settings) -> None:
    told = request.all("x-amz-content-sha256")
    if not told:
        return  # botocore hashes the body itself then
    if told == [UNSIGNED] and settings.unsigned_payload:
        return
    if told != [hashlib.sha256(request.body).hexdigest()]:
        raise bad_signature()


def _time(stamp: str) -> datetime:
    if not re.fullmatch(r"\d{8}T\d{6}Z", stamp, re.ASCII):
        raise bad_signature("incomplete")
    try:
        return datetime.strptime(stamp, _TIME).replace(tzinfo=UTC)
    except ValueError:
        raise bad_signature("incomplete") from None


def _until(claim: Claim, ends: datetime) -> Claim:
    head = (claim.key_id, claim.region, claim.service, claim.stamp, claim.signed_headers, claim.signature)
    return Claim(*head, ends, claim.link)


def _signer(claim: Claim, secret: str) -> Any:
    try:
        from botocore import auth
        from botocore.credentials import Credentials
    except ImportError:
        raise Unavailable(
            "access.no_aws", "Signed requests need botocore; install carelake[aws], or use an access token."
        ) from None
    plain = auth.S3SigV4QueryAuth if claim.link else auth.S3SigV4Auth
    other = auth.SigV4QueryAuth if claim.link else auth.SigV4Auth
    kind = plain if claim.service == "s3" else other
    return kind(Credentials(claim.key_id, secret), claim.service, claim.region)


def _request(request: SignedRequest, claim: Claim) -> Any:
    from botocore.awsrequest import AWSRequest

    query = request.query
    if claim.link:
        query = "&".join(part for part in query.split("&") if not part.startswith("X-Amz-Signature="))
    # http, since botocore signs every payload there; the scheme is no part of what is signed.
    url = f"http://{request.one('host')}{request.path}" + (f"?{query}" if query else "")
    made = AWSRequest(request.method, url, data=request.body)
    for name, value in request.headers:
        if name in claim.signed_headers:
            made.headers.add_header(name, value)
    made.context["timestamp"] = claim.stamp
    return made
