"""Blobs in an S3 bucket that is versioned and has Object Lock; extra ``aws``.

Key: ``PREFIX<workspace>/<account>/<zone>/<2 hex>/<32 hex>``. The bytes are sealed by the vault as they are on disk,
and under SSE-KMS besides. A blob goes up as one PutObject, or in parts of 8 MiB; the first part, which holds the
header, goes last. What is under retention or hold is so in the bucket too. To set aside is a delete marker.
Credentials are those of the AWS SDK's usual chain.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any

from carelake.core.errors import CarelakeError, Corrupt, Invalid, Refused, Unavailable
from carelake.core.settings import S3Settings
from carelake.vault.blobs import HEADER_BYTES, Blob, Blobs, Found, Guard

__all__ = ["S3Blobs", "S3Sink", "S3Source", "client_for", "sdk_errors"]

_PART = 8 << 20
_AHEAD = 1 << 20
_CLASSES = {"hot": "STANDARD", "cool": "STANDARD_IA", "archive": "GLACIER_IR"}
_STORAGE = {name: storage for storage, name in _CLASSES.items()}
_ABSENT = frozenset({"NoSuchKey", "404", "NotFound", "NoSuchVersion", "MethodNotAllowed", "405"})
_DENIED = frozenset({"AccessDenied", "InvalidRequest"})


def client_for(said: S3Settings) -> Any:
    """The SDK's client for the bucket of the settings.

    Raises:
        Unavailable: ``vault.extra``. Invalid: ``vault.bucket_name``.
    """
    if not said.bucket:
        raise Invalid("vault.bucket_name", "The driver s3 needs the setting s3.bucket.")
    try:
        boto3 = importlib.import_module("boto3")
        config = importlib.import_module("botocore.config").Config(
            retries={"mode": "standard", "max_attempts": 5}, connect_timeout=10, read_timeout=60
        )
    except ImportError:
        raise Unavailable(
            "vault.extra", "The driver s3 needs boto3, which is not installed; install the extra carelake[aws]."
        ) from None
    return boto3.session.Session().client(
        "s3", region_name=said.region or None, endpoint_url=said.endpoint_url or None, config=config
    )


class S3Blobs(Blobs):
    """See `blobs.Blobs`."""

    def __init__(self, client: Any, said: S3Settings) -> None:
        self._client = client
        self._said = said
        self._bucket = said.bucket

    @classmethod
    def connect(cls, said: S3Settings) -> S3Blobs:
        """A client for the bucket of the settings; the bucket is looked at when it is first used.

        Raises:
            Unavailable: ``vault.extra``. Invalid: ``vault.bucket_name``.
        """
        return cls(client_for(said), said)

    def create(self, blob: Blob, guard: Guard | None = None) -> S3Sink:
        """See `blobs.Blobs`."""
        how = self._how(blob.storage)
        if guard is not None and guard.mode:
            how |= {"ObjectLockMode": guard.mode.upper(), "ObjectLockRetainUntilDate": guard.until}
        if guard is not None and guard.hold:
            how["ObjectLockLegalHoldStatus"] = "ON"
        return S3Sink(self._client, {"Bucket": self._bucket, "Key": self._key(blob)}, how)

    def open(self, blob: Blob) -> S3Source:
        """See `blobs.Blobs`."""
        return S3Source(self._client, lambda: self._newest(blob))

    def move(self, blob: Blob, storage: str, guard: Guard | None = None) -> Blob | None:
        """See `blobs.Blobs`: here there is one copy, whose class changes; there is nothing to remove."""
        place, _ = self._newest(blob)
        old = place.pop("VersionId")
        with sdk_errors():
            self._client.copy(dict(place), self._bucket, place["Key"], ExtraArgs=self._how(storage))
        if guard is not None and guard != Guard():
            self.protect(blob, guard)
        # What the bucket itself keeps goes with the blob: `remove` takes every version.
        with suppress(Refused), sdk_errors():
            self._client.delete_object(**place, VersionId=old)
        return None

    def remove(self, blob: Blob) -> None:
        """See `blobs.Blobs`. Every S3 version of the key goes, and every delete marker."""
        key = self._key(blob)
        with sdk_errors():
            for version in self._versions(key):
                if version["Key"] == key:
                    self._client.delete_object(Bucket=self._bucket, Key=key, VersionId=version["VersionId"])
        self.abort(blob)

    def abort(self, blob: Blob) -> None:
        """See `blobs.Blobs`."""
        key = self._key(blob)
        with sdk_errors():
            for begun in self._begun(key):
                if begun["Key"] == key:
                    self._client.abort_multipart_upload(Bucket=self._bucket, Key=key, UploadId=begun["UploadId"])

    def protect(self, blob: Blob, guard: Guard) -> None:
        """See `blobs.Blobs`. What the bucket refuses, such as a compliance retention made shorter, is refused."""
        place = {"Bucket": self._bucket, "Key": self._key(blob)}
        status = "ON" if guard.hold else "OFF"
        with sdk_errors():
            self._client.put_object_legal_hold(**place, LegalHold={"Status": status})
            if guard.mode and guard.until is not None:
                self._client.put_object_retention(
                    **place,
                    Retention={"Mode": guard.mode.upper(), "RetainUntilDate": guard.until},
                    BypassGovernanceRetention=True,
                )
            elif not guard.mode and self._head(blob, "ObjectLockMode") == "GOVERNANCE":
                self._client.put_object_retention(**place, Retention={}, BypassGovernanceRetention=True)

    def set_aside(self, blob: Blob) -> None:
        """See `blobs.Blobs`."""
        with sdk_errors():
            self._client.delete_object(Bucket=self._bucket, Key=self._key(blob))

    def walk(self, now: datetime, under: str = "*/*") -> Iterator[Found]:
        """See `blobs.Blobs`. One entry for each key, told by its newest version."""
        prefix = self._said.prefix + ("" if under == "*/*" else under + "/")
        with sdk_errors():
            for version in self._versions(prefix):
                blob = self._blob(version["Key"], version.get("StorageClass", "STANDARD"))
                if blob is None or not version["IsLatest"]:
                    continue
                seconds = max(0.0, (now - version["LastModified"]).total_seconds())
                yield Found(blob, "aside" if "StorageClass" not in version else "blob", seconds)
            for begun in self._begun(prefix):
                blob = self._blob(begun["Key"], "STANDARD")
                if blob is not None:
                    yield Found(blob, "upload", max(0.0, (now - begun["Initiated"]).total_seconds()))

    def _how(self, storage: str) -> dict[str, Any]:
        how: dict[str, Any] = {"ServerSideEncryption": "aws:kms", "StorageClass": _CLASSES[storage]}
        if self._said.kms_key:
            how["SSEKMSKeyId"] = self._said.kms_key
        return how

    def _newest(self, blob: Blob) -> tuple[dict[str, Any], int]:
        """The S3 version that is read now, and its size; what was set aside is taken back."""
        with sdk_errors():
            head = self._head(blob)
            if head is None and self._take_back(blob):
                head = self._head(blob)
        if head is None:
            raise Corrupt("vault.missing", "The bytes of an object are missing; restore them from a backup.")
        place = {"Bucket": self._bucket, "Key": self._key(blob), "VersionId": head["VersionId"]}
        return place, head["ContentLength"]

    def _key(self, blob: Blob) -> str:
        return self._said.prefix + blob.path

    def _blob(self, key: str, storage: str) -> Blob | None:
        steps = key.removeprefix(self._said.prefix).split("/")
        if len(steps) != 4:
            return None
        return Blob(steps[0], steps[1], steps[3], _STORAGE.get(storage, "hot"))

    def _head(self, blob: Blob, field: str = "") -> Any:
        try:
            head = self._client.head_object(Bucket=self._bucket, Key=self._key(blob))
        except Exception as error:
            if _code(error) in _ABSENT:
                return None
            raise
        return head.get(field) if field else head

    def _versions(self, prefix: str) -> Iterator[dict[str, Any]]:
        pages = self._client.get_paginator("list_object_versions").paginate(Bucket=self._bucket, Prefix=prefix)
        for page in pages:
            yield from page.get("Versions", [])
            yield from page.get("DeleteMarkers", [])

    def _begun(self, prefix: str) -> Iterator[dict[str, Any]]:
        pages = self._client.get_paginator("list_multipart_uploads").paginate(Bucket=self._bucket, Prefix=prefix)
        for page in pages:
            yield from page.get("Uploads", [])

    def _take_back(self, blob: Blob) -> bool:
        key = self._key(blob)
        markers = [v for v in self._versions(key) if v["Key"] == key and "StorageClass" not in v and v["IsLatest"]]
        for marker in markers:
            self._client.delete_object(Bucket=self._bucket, Key=key, VersionId=marker["VersionId"])
        return bool(markers)


class S3Sink:
    """A blob on its way up; holds its first part and the one being filled, 8 MiB each."""

    def __init__(self, client: Any, place: dict[str, Any], how: dict[str, Any]) -> None:
        self._client = client
        self._place = place
        self._how = how
        self._first: bytes | None = None
        self._held = bytearray(HEADER_BYTES)
        self._upload = ""
        self._parts: list[dict[str, Any]] = []
        self._done = False

    def append(self, data: memoryview) -> None:
        """See `blobs.Sink`."""
        self._held += data
        while len(self._held) > _PART:
            piece, self._held = bytes(self._held[:_PART]), self._held[_PART:]
            self._take(piece)

    def finish(self, head: bytes) -> None:
        """See `blobs.Sink`."""
        with sdk_errors():
            if self._first is None:
                self._held[:HEADER_BYTES] = head
                self._client.put_object(**self._place, **self._how, Body=bytes(self._held))
            else:
                self._send(bytes(self._held))
                self._send(head + self._first[HEADER_BYTES:], number=1)
                parts = sorted(self._parts, key=lambda part: part["PartNumber"])
                self._client.complete_multipart_upload(
                    **self._place, UploadId=self._upload, MultipartUpload={"Parts": parts}
                )
                self._lock()
        self._done = True

    def discard(self) -> None:
        """See `blobs.Sink`."""
        if self._upload and not self._done:
            with suppress(CarelakeError), sdk_errors():
                self._client.abort_multipart_upload(**self._place, UploadId=self._upload)
        self._done = True

    def _lock(self) -> None:
        """AWS takes the lock from the upload's headers; not every store that speaks its protocol does."""
        if "ObjectLockMode" in self._how:
            kept = {"Mode": self._how["ObjectLockMode"], "RetainUntilDate": self._how["ObjectLockRetainUntilDate"]}
            self._client.put_object_retention(**self._place, Retention=kept)

    def _take(self, piece: bytes) -> None:
        if self._first is None:
            self._first = piece
            return
        with sdk_errors():
            self._send(piece)

    def _send(self, piece: bytes, number: int = 0) -> None:
        if not self._upload:
            self._upload = self._client.create_multipart_upload(**self._place, **self._how)["UploadId"]
        number = number or len(self._parts) + 2
        sent = self._client.upload_part(**self._place, UploadId=self._upload, PartNumber=number, Body=piece)
        self._parts.append({"PartNumber": number, "ETag": sent["ETag"]})


class S3Source:
    """A blob that is read in ranges; a little more than asked for is fetched where reads are small."""

    def __init__(self, client: Any, newest: Callable[[], tuple[dict[str, Any], int]]) -> None:
        self._client = client
        self._newest = newest
        self._place, self.size = newest()
        self._start = 0
        self._ahead = b""

    def read_at(self, start: int, out: memoryview) -> int:
        """See `blobs.Source`."""
        wanted = min(len(out), max(0, self.size - start))
        got = self._buffered(start, out[:wanted])
        if got < wanted:
            end = min(self.size, start + max(wanted, _AHEAD))
            self._start, self._ahead = start + got, self._fetch(start + got, end)
            got += self._buffered(start + got, out[got:wanted])
        return got

    def close(self) -> None:
        """Nothing is open between reads."""
        self._ahead = b""

    def _buffered(self, start: int, out: memoryview) -> int:
        within = start - self._start
        if not 0 <= within < len(self._ahead):
            return 0
        piece = self._ahead[within : within + len(out)]
        out[: len(piece)] = piece
        return len(piece)

    def _fetch(self, start: int, end: int) -> bytes:
        span = f"bytes={start}-{end - 1}"
        with sdk_errors():
            try:
                answer = self._client.get_object(**self._place, Range=span)
            except Exception as error:
                if _code(error) not in _ABSENT:
                    raise
                self._place, _ = self._newest()  # it moved: the same bytes are another S3 version now
                answer = self._client.get_object(**self._place, Range=span)
            body: bytes = answer["Body"].read()
        return body


def _code(error: Exception) -> str:
    told = getattr(error, "response", None)
    return str(told.get("Error", {}).get("Code", "")) if isinstance(told, dict) else ""


@contextmanager
def sdk_errors() -> Iterator[None]:
    """Our errors for the SDK's: its codes are shown, its words may quote more."""
    try:
        yield
    except CarelakeError:
        raise
    except Exception as error:
        code = _code(error)
        if code in _ABSENT:
            raise Corrupt(
                "vault.missing", "The bytes of an object are missing; restore them from a backup."
            ) from None
        if code in _DENIED:
            raise Refused(
                "vault.bucket_denied",
                "The bucket refused: it keeps the object (Object Lock), or the credentials may not do this.",
            ) from None
        if not code and not type(error).__module__.startswith(("botocore", "boto3", "urllib3", "s3transfer")):
            raise
        raise Unavailable(
            "vault.bucket",
            f"The bucket could not be used ({code or type(error).__name__}); see the settings s3.* and credentials.",
        ) from None
