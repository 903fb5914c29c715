"""The lake's catalog as Iceberg's REST catalog, for Spark: on loopback, for one permit, while its block lasts.

https://iceberg.apache.org/rest-catalog-spec/. Tables are read, and a commit may put the same rows into other files
(Iceberg's operation ``replace``, as a compaction does): what rows there are, the record alone tells. A commit goes
the way of all others: the pointer is swapped in the workspace's database, under the permit.
"""

from __future__ import annotations

import hmac
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import msgspec
from pydantic import ValidationError
from pyiceberg.exceptions import CommitFailedException, NoSuchTableError
from pyiceberg.table import CommitTableRequest, Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Operation
from pyiceberg.table.update import AddSnapshotUpdate, SetSnapshotRefUpdate

from carelake.core.errors import CarelakeError, Refused
from carelake.lake.following.sync import SEQ
from carelake.lake.iceberg.catalog import VaultCatalog

__all__ = ["Door", "door"]

_MAX_BODY = 64 << 20
_ENDPOINTS = [
    "GET /v1/{prefix}/namespaces",
    "GET /v1/{prefix}/namespaces/{namespace}",
    "GET /v1/{prefix}/namespaces/{namespace}/tables",
    "GET /v1/{prefix}/namespaces/{namespace}/tables/{table}",
    "POST /v1/{prefix}/namespaces/{namespace}/tables/{table}",
]


class Door(NamedTuple):
    """Where the catalog is.

    Attributes:
        token: whoever asks says it.
    """

    uri: str
    token: str


@contextmanager
def door(catalog: VaultCatalog) -> Iterator[Door]:
    """Serve the catalog of a permit; one request at a time, in a thread of its own."""
    token = secrets.token_urlsafe(32)
    server = HTTPServer(("127.0.0.1", 0), _handler(catalog, token))
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="lake-rest", daemon=True
    )
    thread.start()
    try:
        yield Door(f"http://127.0.0.1:{server.server_address[1]}", token)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Answer(Exception):
    """An error as the protocol says it."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "code": status}}


def _handler(catalog: VaultCatalog, token: str) -> type[BaseHTTPRequestHandler]:
    answers = _Answers(catalog)

    class Handler(BaseHTTPRequestHandler):
        timeout = 30

        def do_GET(self) -> None:
            self._answer(b"")

        def do_HEAD(self) -> None:
            self._answer(b"")

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            if not 0 <= length <= _MAX_BODY:
                self.send_error(413)
                return
            self._answer(self.rfile.read(length))

        def log_message(self, *_: Any) -> None:
            """Nothing: the permit's act tells what was done."""

        def _answer(self, body: bytes) -> None:
            said = self.headers.get("Authorization", "")
            try:
                if not hmac.compare_digest(said.encode(), f"Bearer {token}".encode()):
                    raise _Answer(401, "NotAuthorizedException", "Say the token.")
                path = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
                status, made = 200, answers.to(self.command, path, body)
            except _Answer as error:
                status, made = error.status, msgspec.json.encode(error.body)
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(made)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(made)

    return Handler


class _Answers:
    """What each request is answered with."""

    def __init__(self, catalog: VaultCatalog) -> None:
        self._catalog = catalog

    def to(self, method: str, path: list[str], body: bytes) -> bytes:
        """The JSON of an answer."""
        try:
            return self._to("GET" if method == "HEAD" else method, path, body)
        except NoSuchTableError:
            raise _Answer(404, "NoSuchTableException", "There is no such table.") from None
        except CommitFailedException:
            raise _Answer(409, "CommitFailedException", "The table was changed meanwhile.") from None
        except CarelakeError as error:
            raise _Answer(403, "ForbiddenException", error.code) from None
        except ValidationError:
            raise _Answer(400, "BadRequestException", "The request is not of the protocol's form.") from None

    def _to(self, method: str, path: list[str], body: bytes) -> bytes:
        account = self._catalog.list_namespaces()[0]
        match [method, *path]:
            case ["GET", "v1", "config"]:
                return msgspec.json.encode({"defaults": {}, "overrides": {}, "endpoints": _ENDPOINTS})
            case ["GET", "v1", "namespaces"]:
                return msgspec.json.encode({"namespaces": [list(account)]})
            case ["GET", "v1", "namespaces", name] if (name,) == account:
                return msgspec.json.encode({"namespace": [name], "properties": {}})
            case ["GET", "v1", "namespaces", name, "tables"] if (name,) == account:
                found = [{"namespace": [name], "name": table} for _, table in self._catalog.list_tables()]
                return msgspec.json.encode({"identifiers": found})
            case ["GET", "v1", "namespaces", name, "tables", table] if (name,) == account:
                there = self._catalog.load_table((name, table))
                return _told(there.metadata, str(there.metadata_location))
            case ["POST", "v1", "namespaces", name, "tables", table] if (name,) == account:
                return self._commit((name, table), body)
            case ["GET", "v1", "namespaces", _]:
                raise _Answer(404, "NoSuchNamespaceException", "There is no such namespace; it is the account.")
        raise _Answer(406, "UnsupportedOperationException", "The lake's catalog offers its tables, and no more.")

    def _commit(self, identifier: tuple[str, str], body: bytes) -> bytes:
        try:
            said = msgspec.json.decode(body, type=dict[str, Any])
        except msgspec.DecodeError:
            raise _Answer(400, "BadRequestException", "The request is no JSON object.") from None
        # Java leaves out what the address says.
        said["identifier"] = {"namespace": [identifier[0]], "name": identifier[1]}
        asked = CommitTableRequest.model_validate(said)
        table = self._catalog.load_table(identifier)
        if table.current_snapshot() is None or not asked.updates:
            raise _not_the_same()
        for update in asked.updates:
            _check(update, table)
        staged = self._catalog._update_and_stage_table(table, identifier, asked.requirements, asked.updates)
        if _rows(Table(identifier, staged.metadata, "", table.io, self._catalog)) != _rows(table):
            raise _not_the_same()
        made = self._catalog.commit_table(table, asked.requirements, asked.updates)
        return _told(made.metadata, made.metadata_location)


def _told(metadata: TableMetadata, location: str) -> bytes:
    body = metadata.model_dump_json(exclude_none=True)
    return b'{"metadata-location":%s,"metadata":%s,"config":{}}' % (msgspec.json.encode(location), body.encode())


def _check(update: Any, table: Table) -> None:
    """Let pass files that take the place of others; the snapshot says how far the table has followed the record."""
    if isinstance(update, AddSnapshotUpdate):
        summary, before = update.snapshot.summary, table.current_snapshot()
        if summary is None or summary.operation != Operation.REPLACE:
            raise _not_the_same()
        if before is not None and before.summary is not None and (seq := before.summary[SEQ]) is not None:
            summary[SEQ] = seq
    elif not (isinstance(update, SetSnapshotRefUpdate) and update.ref_name == "main"):
        raise _not_the_same()


def _rows(table: Table) -> int:
    tasks = list(table.scan().plan_files())
    if any(task.delete_files for task in tasks):  # rows that are crossed out are counted in their files still
        raise _not_the_same()
    return sum(task.file.record_count for task in tasks)


def _not_the_same() -> Refused:
    return Refused("lake.rows", "A commit from outside may put the same rows into other files, and nothing else.")
