"""One thing that is wrong with a resource."""

from __future__ import annotations

import msgspec

__all__ = ["Issue"]


class Issue(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that is wrong.

    Attributes:
        severity: ``fatal`` (it is no JSON), ``error``, ``warning`` or ``information``; FHIR's IssueSeverity.
        code: FHIR's IssueType: ``structure``, ``required``, ``value``, ``code-invalid``, ``invariant``,
            ``not-found`` or ``not-supported``.
        expression: where: ``Patient.contact[0].gender``.
        message: what is wrong and what was expected, never the value.
        line, column: where in the text, from 1, columns in characters; 0 where no text was given.
    """

    severity: str
    code: str
    expression: str
    message: str
    line: int = 0
    column: int = 0

    @property
    def bad(self) -> bool:
        """Whether a resource with this issue is invalid."""
        return self.severity in ("error", "fatal")
