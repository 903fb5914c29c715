"""What a module of PEP 249 has beside connections: its exceptions, type objects and constructors of values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, datetime, time

import pyarrow as pa

from carelake.core import errors

__all__ = [
    "BINARY",
    "DATETIME",
    "NUMBER",
    "ROWID",
    "STRING",
    "Binary",
    "DataError",
    "DatabaseError",
    "Date",
    "DateFromTicks",
    "Error",
    "IntegrityError",
    "InterfaceError",
    "InternalError",
    "NotSupportedError",
    "OperationalError",
    "ProgrammingError",
    "Time",
    "TimeFromTicks",
    "Timestamp",
    "TimestampFromTicks",
    "TypeObject",
    "Warning",
    "mapped",
]


class Warning(Exception):
    """Never raised here."""


class Error(Exception):
    """Any error of a statement or a connection.

    Attributes:
        code: stable ``room.reason`` (docs/errors.md), "" where the call itself was wrong.
    """

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class InterfaceError(Error):
    """The call is wrong: what is closed was used."""


class DatabaseError(Error):
    """What went wrong beyond the call itself."""


class DataError(DatabaseError):
    """A value does not fit; statements say so with `ProgrammingError`."""


class OperationalError(DatabaseError):
    """Refused, cancelled, over a limit, busy, or a part is missing."""


class IntegrityError(DatabaseError):
    """Never raised here: nothing is written."""


class InternalError(DatabaseError):
    """Stored bytes fail their integrity check."""


class ProgrammingError(DatabaseError):
    """The statement or its parameters are wrong, or what they name is not there."""


class NotSupportedError(DatabaseError):
    """Well-formed, but not offered here."""


_KINDS: tuple[tuple[type[errors.CarelakeError], type[Error]], ...] = (
    (errors.Unsupported, NotSupportedError),
    (errors.Invalid, ProgrammingError),
    (errors.NotFound, ProgrammingError),
    (errors.Corrupt, InternalError),
    (errors.CarelakeError, OperationalError),
)
"""The most special first."""


@contextmanager
def mapped() -> Iterator[None]:
    """Raise what the rooms raise as PEP 249 names it; the cause is the error itself."""
    try:
        yield
    except errors.CarelakeError as error:
        kind = next(kind for ours, kind in _KINDS if isinstance(error, ours))
        raise kind(error.message, error.code) from error


class TypeObject:
    """Equal to the type codes of a family of columns."""

    def __init__(self, fits: Callable[[pa.DataType], bool]) -> None:
        self._fits = fits

    def __eq__(self, other: object) -> bool:
        return self._fits(other) if isinstance(other, pa.DataType) else self is other

    def __hash__(self) -> int:
        return id(self)


def _number(kind: pa.DataType) -> bool:
    told = pa.types
    return bool(told.is_integer(kind) or told.is_floating(kind) or told.is_decimal(kind) or told.is_boolean(kind))


def _moment(kind: pa.DataType) -> bool:
    return bool(pa.types.is_temporal(kind))


def _text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


STRING, BINARY, NUMBER, DATETIME = (TypeObject(fits) for fits in (_text, _bytes, _number, _moment))
ROWID = TypeObject(lambda _kind: False)

Date, Time, Timestamp, Binary = date, time, datetime, bytes


def DateFromTicks(ticks: float) -> date:  # noqa: N802 - the name that PEP 249 has
    """The local date of seconds since 1970."""
    return date.fromtimestamp(ticks)  # noqa: DTZ012 - local, as PEP 249 has it


def TimeFromTicks(ticks: float) -> time:  # noqa: N802
    """The local time of seconds since 1970."""
    return TimestampFromTicks(ticks).time()


def TimestampFromTicks(ticks: float) -> datetime:  # noqa: N802
    """The local moment of seconds since 1970."""
    return datetime.fromtimestamp(ticks)  # noqa: DTZ006
