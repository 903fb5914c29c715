"""The one table from errors to exit codes, HTTP answers and OperationOutcomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from carelake.core import errors
from carelake.fhir.issues import Issue
from carelake.fhir.outcome import operation_outcome

__all__ = ["Rejected", "code_of", "exit_code", "message_of", "outcome_of", "problem_of", "status_of"]


class Rejected(errors.Invalid):
    """A resource that was sent and must not be kept.

    Attributes:
        issues: what is wrong with it, with lines and columns where there was a text.
    """

    def __init__(self, code: str, message: str, issues: Sequence[Issue]) -> None:
        super().__init__(code, message)
        self.issues = tuple(issues)


@dataclass(frozen=True, slots=True)
class _Row:
    exit: int
    status: int
    issue: str  # http://hl7.org/fhir/R4/codesystem-issue-type.html


# The most special first: the first row whose class fits decides.
_TABLE: tuple[tuple[type[errors.CarelakeError], _Row], ...] = (
    (errors.Unauthenticated, _Row(3, 401, "login")),
    (errors.Refused, _Row(3, 403, "forbidden")),
    (errors.Gone, _Row(4, 410, "deleted")),
    (errors.NotFound, _Row(4, 404, "not-found")),
    (errors.Unsupported, _Row(2, 400, "not-supported")),
    (errors.Invalid, _Row(2, 400, "invalid")),
    (errors.Conflict, _Row(5, 409, "conflict")),
    (errors.Corrupt, _Row(6, 500, "exception")),
    (errors.Unavailable, _Row(7, 503, "transient")),
    (errors.CarelakeError, _Row(1, 500, "exception")),
)


_ISSUES = {
    "http.several_matches": "multiple-matches",
    "terminology.too_costly": "too-costly",
    "terminology.too_many": "too-costly",
}
"""Where FHIR has a more exact word for what went wrong."""


def _row(error: BaseException) -> _Row:
    return next((row for kind, row in _TABLE if isinstance(error, kind)), _Row(1, 500, "exception"))


def exit_code(error: BaseException) -> int:
    """The process's exit code; 130 for an interrupt from the keyboard."""
    return 130 if isinstance(error, KeyboardInterrupt) else _row(error).exit


def code_of(error: BaseException) -> str:
    """The code of an error; of one that is not ours the type alone, since its text may hold anything."""
    return error.code if isinstance(error, errors.CarelakeError) else f"fault.{type(error).__name__}"


def status_of(error: BaseException) -> int:
    """The HTTP status."""
    return _row(error).status


def outcome_of(error: BaseException) -> dict[str, Any]:
    """A FHIR OperationOutcome. An error that is not ours says nothing about itself: its text may hold anything."""
    if isinstance(error, Rejected):
        return operation_outcome(error.issues)
    ours = isinstance(error, errors.CarelakeError)
    issue: dict[str, Any] = {
        "severity": "error" if ours else "fatal",
        "code": _ISSUES.get(code_of(error)) or _row(error).issue,
        "details": {"text": error.code if isinstance(error, errors.CarelakeError) else "fault"},
        "diagnostics": message_of(error),
    }
    where = error.facts.get("expression") if isinstance(error, errors.CarelakeError) else None
    if isinstance(where, str) and where:
        issue["expression"] = [where]
    return {"resourceType": "OperationOutcome", "issue": [issue]}


def problem_of(error: BaseException) -> dict[str, Any]:
    """An RFC 9457 problem object."""
    known = isinstance(error, errors.CarelakeError)
    return {
        "type": "about:blank",
        "title": type(error).__name__ if known else "Fault",
        "status": status_of(error),
        "code": error.code if isinstance(error, errors.CarelakeError) else "fault",
        "detail": message_of(error),
    }


def message_of(error: BaseException) -> str:
    """What people are told."""
    if isinstance(error, errors.CarelakeError):
        return error.message
    return f"An unexpected fault ({type(error).__name__}). Nothing half-done was kept; please report it."
