"""What CDS clients send: calls of a hook, and feedback (https://cds-hooks.hl7.org/2.0/).

Members that are not known are left alone, as extensions are allowed anywhere. ``fhirServer`` and
``fhirAuthorization`` are not used: nothing is fetched from anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

import msgspec

from carelake.apps.http.fhir.asking import is_id
from carelake.core import canonical
from carelake.core.clock import instant
from carelake.core.errors import Invalid
from carelake.core.shapes import decodable
from carelake.fhir.validate import check
from carelake.serving.cards import OVERRIDE_SYSTEM, OVERRIDES
from carelake.serving.feedback import OVERRIDDEN, Told

__all__ = ["Hook", "hook", "outcomes", "resources"]

_MOST_OUTCOMES = 100
_LONGEST = 4000
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_AHEAD = timedelta(minutes=5)
"""How far the clock of a client may be before ours."""


class _Context(msgspec.Struct, rename="camel"):
    patient_id: str
    user_id: str
    encounter_id: str = ""


class _Call(msgspec.Struct, rename="camel"):
    hook: str
    hook_instance: str
    context: _Context


class _Reason(msgspec.Struct):
    code: str = ""
    system: str = ""
    display: str = ""


class _Override(msgspec.Struct, rename="camel"):
    reason: _Reason | None = None
    user_comment: str = ""


class _Suggestion(msgspec.Struct):
    id: str


class _Outcome(msgspec.Struct, rename="camel"):
    card: str
    outcome: Literal["accepted", "overridden"]
    outcome_timestamp: str
    accepted_suggestions: list[_Suggestion] = []
    override_reason: _Override | None = None


class _Feedback(msgspec.Struct):
    feedback: list[_Outcome]


class Hook(msgspec.Struct, frozen=True):
    """A call of a hook.

    Attributes:
        encounter: "" where the context has none.
        prefetch: what came with it, as it came.
    """

    name: str
    patient: str
    encounter: str
    prefetch: Mapping[str, Any]


def hook(body: bytes) -> Hook:
    """A call of a hook.

    Raises:
        Invalid: ``http.cds_request``.
    """
    whole = _loaded(body)
    try:
        told = msgspec.convert(whole, decodable(_Call))
    except msgspec.ValidationError:
        raise _not_a_request("hook, hookInstance, and a context with userId and patientId") from None
    patient, encounter = told.context.patient_id, told.context.encounter_id
    if not _UUID.fullmatch(told.hook_instance) or not is_id(patient) or not (encounter == "" or is_id(encounter)):
        raise _not_a_request("a hookInstance that is a UUID, and ids as FHIR has them, without a type before them")
    prefetch = whole.get("prefetch") or {}
    if not isinstance(prefetch, dict):
        raise _not_a_request("a prefetch that is an object")
    return Hook(told.hook, patient, encounter, prefetch)


def _loaded(body: bytes) -> dict[str, Any]:
    try:
        whole = canonical.load(body)
    except Invalid:
        whole = None
    if not isinstance(whole, dict):
        raise _not_a_request("a JSON object")
    return whole


def _not_a_request(expected: str) -> Invalid:
    return Invalid("http.cds_request", f"The body is not what CDS Hooks 2.0 asks for; expected {expected}.")


def resources(prefetch: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The resources of a prefetch, of its Bundles each entry; none where it is not whole, or not valid FHIR R4.

    What the client could not fill (null, an OperationOutcome), or has in part only, makes all of it not whole. What
    comes more than once counts once.
    """
    found: list[dict[str, Any]] = []
    for value in prefetch.values():
        if not isinstance(value, dict) or check(value) is not None:
            return []
        if value["resourceType"] != "Bundle":
            found.append(value)
        elif _goes_on(value):
            return []
        else:
            found += [entry["resource"] for entry in value.get("entry", ()) if _matched(entry)]
    if any(one["resourceType"] == "OperationOutcome" or "id" not in one for one in found):
        return []
    return list({(one["resourceType"], one["id"]): one for one in found}.values())


def _goes_on(bundle: Mapping[str, Any]) -> bool:
    return any(link.get("relation") == "next" for link in bundle.get("link", ()))


def _matched(entry: Mapping[str, Any]) -> bool:
    return "resource" in entry and entry.get("search", {}).get("mode") != "outcome"


def outcomes(body: bytes, now: datetime) -> list[Told]:
    """The outcomes of a feedback.

    Raises:
        Invalid: ``http.cds_feedback``.
    """
    try:
        told = msgspec.convert(_loaded(body), decodable(_Feedback)).feedback
    except msgspec.ValidationError:
        raise _not_feedback("a list of card, outcome (accepted, overridden) and outcomeTimestamp") from None
    if not 0 < len(told) <= _MOST_OUTCOMES:
        raise _not_feedback(f"1 to {_MOST_OUTCOMES} outcomes")
    return [_told(one, now) for one in told]


def _not_feedback(expected: str) -> Invalid:
    return Invalid("http.cds_feedback", f"The body is not feedback as CDS Hooks 2.0 has it; expected {expected}.")


def _told(one: _Outcome, now: datetime) -> Told:
    try:
        at = instant(one.outcome_timestamp)
    except ValueError:
        raise _not_feedback("an outcomeTimestamp that is an ISO 8601 instant") from None
    if at > now + _AHEAD or not _UUID.fullmatch(one.card):
        raise _not_feedback("an outcomeTimestamp that is not to come, and a card named by its uuid")
    reason = one.override_reason.reason if one.override_reason and one.override_reason.reason else None
    beside = dict(_beside(one, reason))
    if len(canonical.dump(beside)) > _LONGEST:
        raise _not_feedback(f"a comment of at most {_LONGEST} bytes")
    return Told(str(UUID(one.card)), one.outcome, at, _code(one, reason), beside)


def _code(one: _Outcome, reason: _Reason | None) -> str:
    """Our code of an override; codes of others are counted as ``other``, since they may be anything."""
    if one.outcome != OVERRIDDEN or one.override_reason is None:
        return ""
    ours = reason is not None and reason.system == OVERRIDE_SYSTEM and reason.code in OVERRIDES
    return reason.code if ours and reason is not None else "other"


def _beside(one: _Outcome, reason: _Reason | None) -> Iterator[tuple[str, Any]]:
    if one.override_reason is not None and one.override_reason.user_comment:
        yield "userComment", one.override_reason.user_comment
    if reason is not None and (reason.system != OVERRIDE_SYSTEM or reason.code not in OVERRIDES):
        yield "reason", {"code": reason.code, "system": reason.system, "display": reason.display}
    if one.accepted_suggestions:
        yield "acceptedSuggestions", [suggestion.id for suggestion in one.accepted_suggestions]
