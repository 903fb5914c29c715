"""OperationOutcome (https://hl7.org/fhir/R4/operationoutcome.html)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from carelake.fhir.issues import Issue

__all__ = ["error_outcome", "operation_outcome"]


_STANDARD = "http://hl7.org/fhir/StructureDefinition/operationoutcome-issue-"


def operation_outcome(issues: Iterable[Issue]) -> dict[str, Any]:
    """An OperationOutcome of validation issues; without any it says that all is well.

    Lines and columns are in the standard's extensions, ``operationoutcome-issue-line`` and ``-col``.
    """
    listed = [_issue(issue) for issue in issues]
    well = {"severity": "information", "code": "informational", "diagnostics": "No issues found."}
    return {"resourceType": "OperationOutcome", "issue": listed or [well]}


def error_outcome(code: str, message: str, *, reason: str = "", severity: str = "error") -> dict[str, Any]:
    """An OperationOutcome of one error.

    Args:
        code: FHIR's IssueType, for example ``not-found``.
        message: safe to show.
        reason: the stable code of `carelake.core.errors`, kept as the text of ``details``.
    """
    issue: dict[str, Any] = {"severity": severity, "code": code, "diagnostics": message}
    if reason:
        issue["details"] = {"text": reason}
    return {"resourceType": "OperationOutcome", "issue": [issue]}


def _issue(issue: Issue) -> dict[str, Any]:
    said: dict[str, Any] = {"severity": issue.severity, "code": issue.code, "diagnostics": issue.message}
    if issue.expression:
        said["expression"] = [issue.expression]
    if issue.line:
        places = (("line", issue.line), ("col", issue.column))
        said["extension"] = [{"url": _STANDARD + name, "valueInteger": number} for name, number in places]
    return said
