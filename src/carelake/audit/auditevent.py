"""Acts as FHIR R4 AuditEvents after IHE Basic Audit Log Patterns (BALP) 1.1.

https://hl7.org/fhir/R4/auditevent.html, https://profiles.ihe.net/ITI/BALP/

A read, create, update, delete or search of the record that succeeded claims its BALP profile, the patient variant
when a patient is known, and then there is one event per patient. Everything else is an AuditEvent without a profile.
Patients are named by their HMAC, principals by their name; what was searched for is not on the trail, since it can
be PHI, so a Query's ``query`` holds the type alone.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from carelake.core.ids import derived_uuid
from carelake.fhir.definitions import is_resource

__all__ = ["events"]

_BALP = "https://profiles.ihe.net/ITI/BALP/StructureDefinition/IHE.BasicAudit."
_DCM = "http://dicom.nema.org/resources/ontology/DCM"
_ENTITY = "http://terminology.hl7.org/CodeSystem/audit-entity-type"
_ROLE = "http://terminology.hl7.org/CodeSystem/object-role"
_REST = {"system": "http://terminology.hl7.org/CodeSystem/audit-event-type", "code": "rest"}
_OTHER = {"system": _DCM, "code": "110100", "display": "Application Activity"}
_ACTION = "urn:carelake:action"


class _Kind(NamedTuple):
    """How an action is told.

    Attributes:
        source: is the client the source of what flows (it writes or asks), or its destination (it reads)?
        user: what the user is, of v3-ParticipationType.
    """

    action: str
    interaction: str
    profile: str
    source: bool
    user: str


_READ = _Kind("R", "read", "Read", False, "IRCP")
_KINDS = {
    "record:read": _READ,
    "record:search": _Kind("E", "search-type", "Query", True, "IRCP"),
    "record:create": _Kind("C", "create", "Create", True, "AUT"),
    "record:update": _Kind("U", "update", "Update", True, "AUT"),
    "record:delete": _Kind("D", "delete", "Delete", True, "CST"),
}
_LETTERS = {"ingest": "C", "deploy": "U", "manage": "U", "approve": "U", "issue": "C", "run": "E", "invoke": "E"}
_LETTERS |= {"read": "R", "list": "R", "search": "R", "explain": "R", "write": "U", "destroy": "D", "export": "R"}


def events(act: Mapping[str, Any], *, workspace: str, segment: int) -> Iterator[dict[str, Any]]:
    """The AuditEvents of a sealed act: one, or one per patient where BALP asks for that."""
    patients: list[str] = list(act.get("patients", ()))
    kind = _KINDS.get(act["action"]) if is_resource(act["target"]) else None
    if kind is not None and len(patients) > 1:
        yield from (_event(act, kind, [one], workspace, segment) for one in patients)
    else:
        yield _event(act, kind, patients, workspace, segment)


def _event(
    act: Mapping[str, Any], kind: _Kind | None, patients: list[str], workspace: str, segment: int
) -> dict[str, Any]:
    done = act["phase"] == "done"
    event: dict[str, Any] = {
        "resourceType": "AuditEvent",
        "id": derived_uuid("audit-event", workspace, str(act["seq"]), *patients),
        "type": _REST if kind else _OTHER,
        "subtype": [{"system": _ACTION, "code": act["action"]}],
        "action": kind.action if kind else _LETTERS.get(act["action"].partition(":")[2], "E"),
        "recorded": act["at"],
        "outcome": "0" if act["phase"] in ("done", "start", "page") else "8" if act["phase"] == "refused" else "4",
        "outcomeDesc": _said(act),
        "agent": _agents(act, kind or _READ, workspace),
        "source": {
            "site": workspace,
            "observer": _named("urn:carelake:workspace", workspace),
            "type": [
                {"system": "http://terminology.hl7.org/CodeSystem/security-source-type", "code": "4"},
            ],
        },
        "entity": _entities(act, kind, patients, segment),
    }
    if kind:
        event["subtype"].insert(0, {"system": "http://hl7.org/fhir/restful-interaction", "code": kind.interaction})
        if done:
            event["meta"] = {"profile": [_BALP + ("Patient" if len(patients) == 1 else "") + kind.profile]}
    if act["purpose"] and act["purpose"] != "(other)":
        event["purposeOfEvent"] = [{"coding": [_purpose(act)]}]
    return event


def _said(act: Mapping[str, Any]) -> str:
    return "; ".join([act["phase"], *filter(None, [act.get("error", "")]), *act.get("reasons", ())])


def _purpose(act: Mapping[str, Any]) -> dict[str, str]:
    return {"system": "http://terminology.hl7.org/CodeSystem/v3-ActReason", "code": act["purpose"]}


def _agents(act: Mapping[str, Any], kind: _Kind, workspace: str) -> list[dict[str, Any]]:
    source, destination = ("110153", "Source Role ID"), ("110152", "Destination Role ID")
    client, server = (source, destination) if kind.source else (destination, source)
    user = {
        "type": {
            "coding": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ParticipationType", "code": kind.user}]
        },
        "who": _named("urn:carelake:principal", act["principal"]),
        "requestor": True,
        "policy": [f"urn:carelake:policy:{act['policy']}"] if act.get("policy") else [],
        "purposeOfUse": [{"coding": [_purpose(act)]}] if act["purpose"] not in ("", "(other)") else [],
    }
    return [
        _machine(client, "urn:carelake:door", act.get("via") or "cli"),
        _machine(server, "urn:carelake:workspace", workspace),
        {name: value for name, value in user.items() if value},
    ]


def _machine(role: tuple[str, str], system: str, name: str) -> dict[str, Any]:
    return {
        "type": {"coding": [{"system": _DCM, "code": role[0], "display": role[1]}]},
        "who": _named(system, name),
        "requestor": False,
        "network": {"address": "localhost", "type": "1"},
    }


def _named(system: str, value: str) -> dict[str, Any]:
    return {"identifier": {"system": system, "value": value}}


def _entities(act: Mapping[str, Any], kind: _Kind | None, patients: list[str], segment: int) -> list[dict[str, Any]]:
    request = {"system": "https://profiles.ihe.net/ITI/BALP/CodeSystem/BasicAuditEntityType", "code": "XrequestId"}
    found: list[dict[str, Any]] = [{"type": request, "what": _named("urn:carelake:act", act["correlation"])}]
    thing = {"system": _ENTITY, "code": "2", "display": "System Object"}
    if kind and kind.profile == "Query":
        role = {"system": _ROLE, "code": "24", "display": "Query"}
        found.append({"type": thing, "role": role, "query": b64encode(act["target"].encode()).decode()})
    else:
        role = {"system": _ROLE, "code": "4", "display": "Domain Resource"}
        refs = [*act.get("read", ()), *act.get("wrote", ())]
        what = _named("urn:carelake:ref", refs[0]) if len(refs) == 1 else {"display": act["target"] or act["action"]}
        found.append({"type": thing, "role": role, "what": what, "detail": _details(act, segment)})
    found += (_patient(one) for one in patients)
    return found


def _patient(ref: str) -> dict[str, Any]:
    return {
        "type": {"system": _ENTITY, "code": "1", "display": "Person"},
        "role": {"system": _ROLE, "code": "1", "display": "Patient"},
        "what": {"type": "Patient", **_named("urn:carelake:patient", ref)},
    }


def _details(act: Mapping[str, Any], segment: int) -> list[dict[str, str]]:
    told = {"account": act["account"], "phase": act["phase"], "seq": act["seq"], "segment": segment}
    told |= {name: act[name] for name in ("patients_count", "patients_digest") if name in act}
    told |= {f"count:{name}": number for name, number in act.get("counts", {}).items()}
    return [{"type": name, "valueString": str(value)} for name, value in told.items()]
