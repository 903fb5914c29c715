"""The lake's files as plain objects under SSE-KMS, so that Spark reads and writes the same ones (decisions D9, 0046).

Address: ``s3://BUCKET/PREFIX<workspace>/<account>/NAME``, a bucket for each account. What S3 does not say is under
SSE-KMS is not read, whoever wrote it. Removing takes every version of a key.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import fsspec
from pyiceberg.io.fsspec import FsspecFileIO

from carelake.core.clock import iso
from carelake.core.errors import NotFound, Refused, Unsupported
from carelake.core.permit import Permit, check
from carelake.core.settings import S3Settings
from carelake.vault.drivers.s3 import S3Source, client_for, sdk_errors
from carelake.vault.workspace import Vault

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

__all__ = ["BucketFile", "BucketFileIO", "BucketZone"]

_READ, _WRITE = "lake:read", "lake:write"
_READ_AHEAD = 1 << 20
_ABSENT = frozenset({"NoSuchKey", "404", "NotFound"})


class BucketFile(NamedTuple):
    """A file in a bucket. See `zone.Entry`."""

    name: str
    created: str
    size: int
    held: bool = False


@lru_cache(maxsize=16)
def _client(said: S3Settings) -> Any:
    return client_for(said)


class BucketZone:
    """See `zone.Zone`."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._said = vault.settings.lake.s3

    def root(self, permit: Permit) -> str:
        """What the addresses of the account's files begin with."""
        return f"s3://{self._bucket(permit)}/{self._prefix(permit)}"

    def address(self, permit: Permit, name: str) -> str:
        """See `zone.Zone`."""
        return self.root(permit) + name

    def name(self, permit: Permit, address: str) -> str:
        """The name of an address of the account's.

        Raises:
            Unsupported: ``lake.scheme``.
        """
        root = self.root(permit)
        if not address.startswith(root):
            raise Unsupported(
                "lake.scheme",
                "A lake file lies outside of this workspace's place in the account's bucket, and is not followed: "
                "the lake was made with other settings, or by the workspace that this one is a copy of.",
            )
        return address[len(root) :]

    def put(self, permit: Permit, name: str, data: ReadableBuffer) -> None:
        """See `zone.Zone`."""
        self._check(permit, _WRITE)
        how = {"ServerSideEncryption": "aws:kms"}
        if self._said.kms_key:
            how["SSEKMSKeyId"] = self._said.kms_key
        place = self._place(permit, name)
        with sdk_errors():
            sent = self._s3(permit).put_object(**place, **how, Body=bytes(data))
        if not _sealed(sent):
            with suppress(NotFound):
                self.remove(permit, name)  # with its version: a deletion alone would leave it there in the clear
        _must_be_sealed(sent)

    def open(self, permit: Permit, name: str) -> io.BufferedReader:
        """See `zone.Zone`."""
        found = self._head(permit, name)
        if found is None:
            raise NotFound("lake.file", "A file of the lake is missing.")
        _must_be_sealed(found)
        place = self._place(permit, name)
        return io.BufferedReader(
            _Reader(S3Source(self._s3(permit), lambda: (place, found["ContentLength"]))), _READ_AHEAD
        )

    def list(self, permit: Permit, prefix: str = "") -> list[BucketFile]:
        """See `zone.Zone`."""
        return sorted(self._listed(permit, prefix))

    def remove(self, permit: Permit, name: str) -> None:
        """See `zone.Zone`."""
        self._check(permit, _WRITE)
        place = self._place(permit, name)
        gone = 0
        with sdk_errors():
            pages = self._s3(permit).get_paginator("list_object_versions")
            for page in pages.paginate(Bucket=place["Bucket"], Prefix=place["Key"]):
                for version in (*page.get("Versions", ()), *page.get("DeleteMarkers", ())):
                    if version["Key"] == place["Key"]:
                        self._s3(permit).delete_object(**place, VersionId=version["VersionId"])
                        gone += 1
        if not gone:
            raise NotFound("lake.file", "There is no such file of the lake.")

    def file_io(self, permit: Permit) -> BucketFileIO:
        """See `zone.Zone`."""
        return BucketFileIO(self, permit)

    def stat(self, permit: Permit, name: str) -> int | None:
        """The size of a file, or None where there is none."""
        found = self._head(permit, name)
        return None if found is None else int(found["ContentLength"])

    def _head(self, permit: Permit, name: str) -> Any:
        self._check(permit, _READ)
        with sdk_errors():
            try:
                return self._s3(permit).head_object(**self._place(permit, name))
            except Exception as error:
                told = getattr(error, "response", None)
                if isinstance(told, dict) and str(told.get("Error", {}).get("Code", "")) in _ABSENT:
                    return None
                raise

    def _listed(self, permit: Permit, prefix: str) -> Iterator[BucketFile]:
        self._check(permit, _READ)
        whole = self._prefix(permit)
        with sdk_errors():
            # With versions: of what another program deleted, the bytes may lie there still, and must be found.
            pages = self._s3(permit).get_paginator("list_object_versions")
            last = None
            for page in pages.paginate(Bucket=self._bucket(permit), Prefix=whole + prefix):
                for one in page.get("Versions", ()):  # by key, the newest first
                    if one["Key"] != last:
                        last = one["Key"]
                        yield BucketFile(last[len(whole) :], iso(one["LastModified"]), one["Size"])

    def _check(self, permit: Permit, grant: str) -> None:
        check(permit, grant, now=self._vault.clock.now())

    def _bucket(self, permit: Permit) -> str:
        return self._said.bucket.replace("{account}", permit.account)

    def _prefix(self, permit: Permit) -> str:
        return f"{self._said.prefix}{self._vault.settings.copy_name}/{permit.account}/"

    def _place(self, permit: Permit, name: str) -> dict[str, str]:
        return {"Bucket": self._bucket(permit), "Key": self._prefix(permit) + name}

    def _s3(self, permit: Permit) -> Any:
        said = self._said
        return _client(
            S3Settings(
                bucket=self._bucket(permit), region=said.region, endpoint_url=said.endpoint_url, kms_key=said.kms_key
            )
        )


def _sealed(answer: Any) -> bool:
    return str(answer.get("ServerSideEncryption", "")).startswith("aws:kms")


def _must_be_sealed(answer: Any) -> None:
    if not _sealed(answer):
        raise Refused(
            "lake.not_encrypted",
            "A file of the lake is not under SSE-KMS in its bucket, so it is not used; let the bucket refuse such.",
        )


class _Reader(io.RawIOBase):
    """A file in a bucket, read in ranges."""

    def __init__(self, source: S3Source) -> None:
        self._source = source
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._source.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, out: WriteableBuffer) -> int:
        got = self._source.read_at(self._at, memoryview(out).cast("B"))
        self._at += got
        return got

    def close(self) -> None:
        self._source.close()
        super().close()


class _Writer(io.BytesIO):
    """A file that is written whole when it is closed."""

    def __init__(self, zone: BucketZone, permit: Permit, name: str) -> None:
        super().__init__()
        self._to = (zone, permit, name)

    def close(self) -> None:
        if not self.closed:
            zone, permit, name = self._to
            zone.put(permit, name, self.getbuffer().toreadonly())
        super().close()

    def __exit__(self, kind: Any, *_: object) -> None:
        if kind is not None:
            super().close()  # half a file is none
        self.close()


class _FileSystem(fsspec.AbstractFileSystem):  # type: ignore[misc]
    """As much of a filesystem as pyiceberg asks for."""

    protocol = "s3"
    cachable = False

    def __init__(self, zone: BucketZone, permit: Permit) -> None:
        super().__init__(skip_instance_cache=True)
        self._zone = zone
        self._permit = permit

    def __reduce__(self) -> Any:
        raise TypeError("a lake's filesystem holds a permit and is not carried to another process")

    def open(self, path: str, mode: str = "rb", **_: Any) -> Any:
        """A file to read or to write whole."""
        if mode == "rb":
            try:
                return self._zone.open(self._permit, self._name(path))
            except NotFound as error:
                raise FileNotFoundError(error.message) from None
        if mode == "wb":
            return _Writer(self._zone, self._permit, self._name(path))
        raise Unsupported("lake.mode", f"Files of the lake are written whole: mode {mode} is not offered.")

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Size and type of a file."""
        size = self._zone.stat(self._permit, self._name(path))
        if size is None:
            raise FileNotFoundError("There is no such file of the lake.")
        return {"name": path, "size": size, "type": "file"}

    def exists(self, path: str, **_: Any) -> bool:
        """Whether there is a file. A refusal is raised, not answered with no, as fsspec would."""
        return self._zone.stat(self._permit, self._name(path)) is not None

    lexists = exists

    def rm(self, path: str, recursive: bool = False, maxdepth: int | None = None) -> None:
        """Remove one file."""
        try:
            self._zone.remove(self._permit, self._name(path))
        except NotFound as error:
            raise FileNotFoundError(error.message) from None

    def _name(self, path: str) -> str:
        return self._zone.name(self._permit, path)


class BucketFileIO(FsspecFileIO):  # type: ignore[misc]
    """pyiceberg's files in the bucket of one permit's account; it reads and writes nowhere else."""

    def __init__(self, zone: BucketZone, permit: Permit) -> None:
        super().__init__({})
        self._bucket_fs = _FileSystem(zone, permit)

    def get_fs(self, scheme: str, hostname: str | None = None) -> _FileSystem:
        """The filesystem of the permit, for ``s3://`` alone."""
        if scheme != "s3":
            raise Unsupported("lake.scheme", "Lake files live in the account's bucket; no other address is followed.")
        return self._bucket_fs
