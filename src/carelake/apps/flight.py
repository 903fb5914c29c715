"""Arrow Flight: large results as record batches over gRPC, to whom a token names (https://arrow.apache.org/docs/format/Flight.html).

``GetFlightInfo`` takes a statement as a command and gives a ticket; ``DoGet`` runs it and streams its rows. A ticket
is a random number, good once, for its caller, for some minutes: no statement is in it. A call has its token in the
header ``authorization``, as HTTP has. A client that goes away ends its statement.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import Any

import msgspec
import pyarrow as pa
from pyarrow import flight

from carelake.access.identity import Caller
from carelake.apps.asking import ACTION, TARGET, Question, rows_of
from carelake.apps.errors import message_of
from carelake.apps.http.ports import Door
from carelake.apps.http.rates import Rates, Table, source_of
from carelake.apps.http.server import check_host, no_port
from carelake.apps.http.tls import context_of
from carelake.core.errors import (
    CarelakeError,
    Invalid,
    NotFound,
    Refused,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from carelake.core.settings import ServeSettings
from carelake.core.shapes import decodable
from carelake.lake.statements.cursor import Stop

__all__ = ["FlightDoor", "open_door"]

_TICKET_SECONDS = 300.0
_MOST_TICKETS = 1000
_OF_ONE = 32
_MOST_COMMAND = 1 << 20
_BATCH_ROWS = 32_768
_LOCKED = "access.locked"

_KINDS: tuple[tuple[type[CarelakeError], type[flight.FlightError]], ...] = (
    (Unauthenticated, flight.FlightUnauthenticatedError),
    (Refused, flight.FlightUnauthorizedError),
    (Unavailable, flight.FlightUnavailableError),
    (CarelakeError, flight.FlightServerError),
)


@contextmanager
def _told() -> Iterator[None]:
    """Raise our errors as Flight's, with their code; of a fault say its type, since its text may hold anything."""
    try:
        yield
    except (flight.FlightError, GeneratorExit):
        raise
    except CarelakeError as error:
        # Never `FlightCancelledError`: the clients of pyarrow take that for Ctrl-C at their own keyboard.
        kind = next(kind for ours, kind in _KINDS if isinstance(error, ours))
        raise kind(f"{error.message} [{error.code}]") from None
    except Exception as error:
        raise flight.FlightInternalError(message_of(error)) from None


class _Header(flight.ServerMiddleware):  # type: ignore[misc]
    """The token of one call."""

    def __init__(self, token: str) -> None:
        self.token = token


class _Headers(flight.ServerMiddlewareFactory):  # type: ignore[misc]
    """Takes the token out of the headers of a call; who that is, the call itself asks."""

    def start_call(self, _info: flight.CallInfo, headers: dict[str, list[str | bytes]]) -> _Header:
        told = headers.get("authorization", [])
        text = told[0] if len(told) == 1 else ""
        scheme, _, token = (text.decode("latin-1") if isinstance(text, bytes) else text).partition(" ")
        return _Header(token.strip() if scheme.lower() == "bearer" else "")


@dataclass
class _Ticket:
    caller: Caller
    question: Question
    until: float


@dataclass
class _Desk:
    """Questions that were asked and not fetched, and those that run; counted by who asks."""

    most: int
    _tickets: dict[bytes, _Ticket] = field(default_factory=dict)
    _running: dict[Stop, str] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def give(self, caller: Caller, question: Question) -> bytes:
        now, name = monotonic(), caller.principal.name
        with self._lock:
            self._tickets = {key: one for key, one in self._tickets.items() if one.until > now}
            of_one = sum(one.caller.principal.name == name for one in self._tickets.values())
            if of_one >= _OF_ONE or len(self._tickets) >= _MOST_TICKETS:
                raise Unavailable("flight.too_many", "Too many tickets wait to be fetched; fetch them, or try later.")
            key = secrets.token_bytes(24)
            self._tickets[key] = _Ticket(caller, question, now + _TICKET_SECONDS)
            return key

    def take(self, caller: Caller, key: bytes) -> Question:
        with self._lock:
            found = self._tickets.get(key)
            if found is None or found.until <= monotonic() or not _same(found.caller, caller):
                message = "There is no such ticket of yours; each is good once, for five minutes."
                raise NotFound("flight.no_ticket", message)
            del self._tickets[key]
            return found.question

    def begin(self, caller: Caller, stop: Stop) -> None:
        name = caller.principal.name
        with self._lock:
            if sum(one == name for one in self._running.values()) >= self.most:
                raise Unavailable(
                    "lake.too_many",
                    f"{self.most} of your statements run already (lake.statements); wait for one, or cancel it.",
                )
            self._running[stop] = name

    def end(self, stop: Stop) -> None:
        with self._lock:
            self._running.pop(stop, None)

    def end_all(self) -> None:
        with self._lock:
            running = list(self._running)
        for one in running:
            one.cancel()


class FlightDoor(flight.FlightServerBase):  # type: ignore[misc]
    """The server; it serves from when it is made until `end`."""

    def __init__(self, door: Door, location: str, certificates: list[tuple[bytes, bytes]]) -> None:
        self._door = door
        told = door.settings.serve
        memory = Table()
        self._sources = Rates(memory, "source", told.source_per_second, told.burst_seconds)
        self._principals = Rates(memory, "principal", told.principal_per_second, told.burst_seconds)
        self._desk = _Desk(door.settings.lake.statements)
        super().__init__(location, tls_certificates=certificates, middleware={"token": _Headers()})

    def end(self) -> None:
        """End what runs, and take no more calls."""
        self._desk.end_all()
        self.shutdown()

    def get_flight_info(self, context: Any, descriptor: flight.FlightDescriptor) -> flight.FlightInfo:
        """A ticket for a statement, which is not run before that is fetched."""
        with _told():
            caller = self._caller(context)
            key = self._desk.give(caller, _question(descriptor.command))
            return flight.FlightInfo(None, descriptor, [flight.FlightEndpoint(key, [])])

    def do_get(self, context: Any, ticket: flight.Ticket) -> flight.GeneratorStream:
        """Run the statement of a ticket."""
        with _told():
            caller = self._caller(context)
            question = self._desk.take(caller, ticket.ticket)
            stop = Stop(context.is_cancelled)
            stream = self._stream(caller, question, stop)
            return flight.GeneratorStream(next(stream), stream)

    def list_flights(self, context: Any, criteria: bytes) -> Iterator[flight.FlightInfo]:
        """Nothing is listed: each statement is a flight."""
        with _told():
            self._caller(context)
            return iter(())

    def _stream(self, caller: Caller, question: Question, stop: Stop) -> Iterator[pa.Schema | pa.RecordBatch]:
        self._desk.begin(caller, stop)
        try:
            with _told():
                yield from rows_of(self._door, caller, question, stop, batch_rows=_BATCH_ROWS)
        finally:
            self._desk.end(stop)

    def _caller(self, context: Any) -> Caller:
        """Who calls; a refusal is on the trail, but for those of a lock that the trail tells of already."""
        source = source_of(_host(context.peer()))
        _wait(self._sources.wait(source), "from this address")
        token = context.get_middleware("token").token
        try:
            if not token:
                message = "This needs an access token in the header authorization, as `Bearer TOKEN`."
                raise Unauthenticated("flight.no_token", message)
            caller = self._door.identity.bearer(token, source)
        except Unauthenticated as error:
            if error.code != _LOCKED:
                nobody = self._door.identity.nobody()
                self._door.gate.refuse(nobody, ACTION, TARGET, "production", error)
            raise
        _wait(self._principals.wait(caller.principal.name), "of this principal")
        return caller


@contextmanager
def open_door(door: Door, host: str, port: int, started: Callable[[str], None]) -> Iterator[FlightDoor]:
    """Serve while the block runs.

    Args:
        port: 0 takes a free one.
        started: told the address.

    Raises:
        Unsupported: ``http.loopback_only``. Invalid: ``http.tls``. Unavailable: ``http.port``.
    """
    told = door.settings.serve
    check_host(host, told)
    certificates = _certificates(told)
    scheme = "grpc+tls" if certificates else "grpc"
    shown = f"[{host}]" if ":" in host else host
    try:
        server = FlightDoor(door, f"{scheme}://{shown}:{port}", certificates)
    except (pa.ArrowException, OSError):
        raise no_port() from None
    try:
        started(f"{scheme}://{shown}:{server.port}")
        yield server
    finally:
        server.end()


def _certificates(told: ServeSettings) -> list[tuple[bytes, bytes]]:
    if context_of(told) is None:  # which says what is wrong with them
        return []
    return [(Path(told.tls_certificate).read_bytes(), Path(told.tls_key).read_bytes())]


def _question(command: bytes | None) -> Question:
    if not command:
        raise Unsupported("flight.descriptor", "Expected a command: JSON with a statement (docs/asking.md), no path.")
    try:
        if len(command) > _MOST_COMMAND:
            raise ValueError
        return msgspec.json.decode(command, type=decodable(Question))
    except (ValueError, RecursionError):  # msgspec's own text can quote the command
        message = "The command is not JSON with a statement, as docs/asking.md has it."
        raise Invalid("flight.command", message) from None


def _same(one: Caller, other: Caller) -> bool:
    told = (one.principal.name, one.purpose, one.account)
    return told == (other.principal.name, other.purpose, other.account)


def _wait(seconds: float, what: str) -> None:
    if seconds:
        raise Unavailable("http.too_many", f"Too many requests {what}; try again in {int(seconds) + 1} s.")


def _host(peer: str) -> str:
    """The address of ``ipv4:127.0.0.1:5000`` or ``ipv6:[::1]:5000``; ipv6 may be percent-encoded."""
    kind, _, rest = peer.partition(":")
    if kind not in ("ipv4", "ipv6"):
        return peer
    return rest.rpartition(":")[0].replace("%5B", "[").replace("%5D", "]").strip("[]")
