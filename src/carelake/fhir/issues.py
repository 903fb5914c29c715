"""One thing that is wrong with a resource."""

from __future__ import annotations

import msgspec

__all__ = ["Issue"]


class Issue(msgspec.Struct, frozen=True):
    """One thing that is wrong.

    Attributes:
        severity: ``error``, ``warning`` or ``information``; FHIR's IssueSeverity.
        code: FHIR's IssueType: ``structure``, ``required``, ``value``, ``code-invalid``, ``invariant`` or
            ``not-supported``.
        expression: where: ``Patient.contact[0].gender``.
        message: what is wrong and what was expected, never the value.
    """

    severity: str
    code: str
    expression: str
    message: str
