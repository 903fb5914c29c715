"""What is sent to be kept: read, compared with its address and validated, before a transaction is open.

400 where it is no JSON or no resource of FHIR, 422 where it breaks a rule or a profile
(https://hl7.org/fhir/R4/http.html#create); every issue with its expression, line and column.
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any

from sqlalchemy import Connection

from carelake.apps.errors import Rejected
from carelake.apps.http.ports import Door
from carelake.core.permit import Permit
from carelake.fhir.definitions import is_resource
from carelake.fhir.issues import Issue
from carelake.fhir.validate import Exists, checker, in_text, readable, validate

__all__ = ["NOT_KEPT", "exists_for", "sent", "verified"]

NOT_KEPT = ("OperationOutcome", "Parameters")
"""Types whose resources are answers alone."""


def sent(data: bytes) -> Any:
    """What a body holds.

    Raises:
        Rejected: ``http.not_fhir``: it is no JSON.
    """
    whole = readable(data)
    if isinstance(whole, Issue):
        raise Rejected("http.not_fhir", "The body is no JSON; send one FHIR resource.", [whole])
    return whole


def verified(
    door: Door,
    permit: Permit,
    whole: Any,
    kind: str,
    *,
    key: str | None = None,
    data: bytes = b"",
    inside: str = "",
    references: bool = True,
) -> dict[str, Any]:
    """A resource that may be kept at an address.

    Args:
        whole: what was sent, or the part of it at ``inside``; it is not changed.
        kind: the type that the address says.
        key: the id that the address says; None where it says none.
        data: the text it was sent as, for lines and columns; b"" for none.
        references: look for what it refers to, where that is asked; not yet, of what comes with others.

    Raises:
        Rejected: ``http.not_fhir`` (400), ``http.invalid_resource`` (422).
    """
    wrong = _misplaced(whole, kind, key)
    if wrong:
        raise Rejected("http.not_fhir", wrong[0].message, _placed(data, whole, wrong, inside))
    issues = _issues(door, permit, whole, references)
    found = _placed(data, whole, issues, inside)
    if any(issue.bad for issue in found):
        # Keys that are given twice are an issue of the text alone.
        is_fhir = any(issue.bad for issue in issues) and checker("structure")(whole) is None
        code = "http.invalid_resource" if is_fhir else "http.not_fhir"
        raise Rejected(code, "The resource is not valid, and was not kept; its issues are listed.", found)
    resource: dict[str, Any] = whole
    return resource


def exists_for(door: Door, permit: Permit, tx: Connection) -> Exists | None:
    """What is asked of references: whether they lead to what is there, to the caller. None where nothing is asked."""
    if door.settings.validation.references != "on":
        return None
    there = door.resources.exists(permit, tx)
    reaches = cache(partial(door.gate.reaches, permit, tx))
    return lambda kind, key: reaches(kind) and there(kind, key)


def _issues(door: Door, permit: Permit, whole: Any, references: bool) -> list[Issue]:
    mode = door.settings.validation.write
    if door.settings.validation.references != "on" or not references:
        return validate(whole, mode=mode)
    with door.vault.database.reading(permit) as tx:
        return validate(whole, mode=mode, exists=exists_for(door, permit, tx))


def _placed(data: bytes, whole: Any, issues: list[Issue], inside: str) -> list[Issue]:
    return in_text(data, whole, issues, inside) if data else issues


def _misplaced(whole: Any, kind: str, key: str | None) -> list[Issue]:
    """What the address and the resource do not agree on."""
    said = whole.get("resourceType") if isinstance(whole, dict) else None
    if not isinstance(said, str) or not is_resource(said):
        return []  # validation says so, and better
    if said != kind:
        return [Issue("error", "invalid", said, f"The resource is not a {kind}, as the address says.")]
    if kind in NOT_KEPT:
        return [Issue("error", "not-supported", kind, "A resource of this type is an answer, and is not kept.")]
    if key is not None and whole.get("id") != key:
        message = "The id must be there, and be the one in the address."
        return [Issue("error", "invalid", f"{kind}.id" if "id" in whole else kind, message)]
    return []
