"""The one tree of errors.

    CarelakeError
    ├── Invalid          the input or the call is wrong               exit 2
    │   └── Unsupported  well-formed, but not offered here            exit 2
    ├── Refused          known caller, denied by policy or permit     exit 3
    │   └── Unauthenticated  the caller could not be identified       exit 3
    ├── NotFound         no such thing                                exit 4
    │   └── Gone         it was there and was deleted or erased       exit 4
    ├── Conflict         the state of things forbids it now           exit 5
    ├── Corrupt          stored bytes fail their integrity check      exit 6
    └── Unavailable      a needed part is missing, busy or locked     exit 7

Each error carries a stable ``code`` (``room.reason``), which is never reused for something else, and a message
that says what happened, what was expected and what to do. A message never holds a clinical value, a name or an
identifier of a patient: ``facts`` are counts, codes, refs and settings only. `apps.errors` turns the tree into exit
codes, HTTP answers and OperationOutcomes.
"""

from __future__ import annotations

__all__ = [
    "CarelakeError",
    "Conflict",
    "Corrupt",
    "Gone",
    "Invalid",
    "NotFound",
    "Refused",
    "Unauthenticated",
    "Unavailable",
    "Unsupported",
]

Fact = str | int | float | bool | None | list[str]


class CarelakeError(Exception):
    """Any error that carelake raises on purpose.

    Args:
        code: stable ``room.reason``, documented in ``docs/errors.md``.
        message: what happened, what was expected, what to do. Never a clinical value.
        facts: machine-readable context: counts, codes, refs.
    """

    def __init__(self, code: str, message: str, **facts: Fact) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.facts = facts

    def __reduce__(self) -> tuple[object, ...]:
        # Errors cross process borders (ingest workers); the default would lose the keyword facts.
        return (_rebuild, (type(self), self.code, self.message, self.facts))


def _rebuild(kind: type[CarelakeError], code: str, message: str, facts: dict[str, Fact]) -> CarelakeError:
    return kind(code, message, **facts)


class Invalid(CarelakeError):
    """The input or the call is wrong and will stay wrong."""


class Unsupported(Invalid):
    """Well-formed by its standard, but this version does not offer it."""


class Refused(CarelakeError):
    """The caller is known and may not do this; ``facts['reasons']`` says why."""


class Unauthenticated(Refused):
    """The caller could not be identified."""


class NotFound(CarelakeError):
    """There is no such thing, or none that the caller may know of."""


class Gone(NotFound):
    """It was there; it has been deleted or erased."""


class Conflict(CarelakeError):
    """The present state forbids it; reading again and retrying may help."""


class Corrupt(CarelakeError):
    """Stored bytes fail their integrity check, or belong to another place."""


class Unavailable(CarelakeError):
    """A part that is needed is missing, busy, locked or not configured."""
