"""Acts as OCSF API Activity events, class 6003 of category Application Activity (https://schema.ocsf.io, 1.5.0)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from carelake import __version__
from carelake.core.clock import instant

__all__ = ["events"]

_VERSION = "1.5.0"
_CATEGORY, _CLASS = 6, 6003
_CREATE, _READ, _UPDATE, _DELETE, _OTHER = 1, 2, 3, 4, 99
_ACTIVITIES = {_CREATE: "Create", _READ: "Read", _UPDATE: "Update", _DELETE: "Delete", _OTHER: "Other"}
_VERBS = {
    "add": _CREATE,
    "create": _CREATE,
    "ingest": _CREATE,
    "issue": _CREATE,
    "build": _CREATE,
    "train": _CREATE,
    "delete": _DELETE,
    "destroy": _DELETE,
    "erase": _DELETE,
    "approve": _UPDATE,
    "deploy": _UPDATE,
    "keep": _UPDATE,
    "manage": _UPDATE,
    "sync": _UPDATE,
    "update": _UPDATE,
    "write": _UPDATE,
    "explain": _READ,
    "export": _READ,
    "list": _READ,
    "query": _READ,
    "read": _READ,
    "report": _READ,
    "search": _READ,
    "verify": _READ,
}
_SUCCESS, _FAILURE = (1, "Success"), (2, "Failure")
_STATUS = {"done": _SUCCESS, "start": _SUCCESS, "page": _SUCCESS}
_INFORMATIONAL, _LOW, _MEDIUM = (1, "Informational"), (2, "Low"), (3, "Medium")
_SEVERITY = {"failed": _LOW, "interrupted": _LOW, "refused": _MEDIUM}
_KEPT: tuple[str, ...] = (
    "counts",
    "keys",
    "scope",
    "via",
    "after",
    "read_count",
    "read_digest",
    "wrote_count",
    "wrote_digest",
)
_KEPT += ("patients_count", "patients_digest")


def events(act: Mapping[str, Any], *, workspace: str, segment: int) -> Iterator[dict[str, Any]]:
    """The one event of a sealed act."""
    activity = _VERBS.get(act["action"].partition(":")[2].partition("@")[0], _OTHER)
    status = _STATUS.get(act["phase"], _FAILURE)
    severity = _SEVERITY.get(act["phase"], _INFORMATIONAL)
    event: dict[str, Any] = {
        "category_uid": _CATEGORY,
        "category_name": "Application Activity",
        "class_uid": _CLASS,
        "class_name": "API Activity",
        "activity_id": activity,
        "activity_name": _ACTIVITIES[activity],
        "type_uid": _CLASS * 100 + activity,
        "type_name": f"API Activity: {_ACTIVITIES[activity]}",
        "severity_id": severity[0],
        "severity": severity[1],
        "status_id": status[0],
        "status": status[1],
        "time": _millis(act["at"]),
        "message": f"{act['action']} on {act['target'] or 'nothing'}: {act['phase']}",
        "metadata": {
            "version": _VERSION,
            "uid": f"{workspace}-{act['seq']}",
            "sequence": act["seq"],
            "correlation_uid": act["correlation"],
            "log_name": "carelake.audit",
            "product": {"name": "carelake", "vendor_name": "carelake", "version": __version__, "uid": workspace},
        },
        "actor": {"user": {"name": act["principal"], "type_id": 99, "type": "Principal", "account": _account(act)}},
        "api": {"operation": act["action"], "service": {"name": "carelake"}, "request": {"uid": act["correlation"]}},
        "src_endpoint": {"name": act.get("via") or "local"},
        "resources": _resources(act),
        "unmapped": _unmapped(act, segment),
    }
    if act.get("error"):
        event["api"]["response"] = {"error": act["error"]}
        event["status_code"] = act["error"]
    if act.get("reasons"):
        event["status_detail"] = "; ".join(act["reasons"])
    yield event


def _account(act: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": act["account"], "type_id": 99, "type": "carelake account"}


def _resources(act: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = [{"name": act["target"], "type": "target"}] if act["target"] else []
    found += [{"uid": ref, "type": ref.partition(":")[0]} for ref in (*act.get("read", ()), *act.get("wrote", ()))]
    return found + [{"uid": ref, "type": "patient"} for ref in act.get("patients", ())]


def _unmapped(act: Mapping[str, Any], segment: int) -> dict[str, Any]:
    told = {"phase": act["phase"], "purpose": act["purpose"], "segment": segment, "policy": act.get("policy", "")}
    return {**told, **{name: act[name] for name in _KEPT if name in act}}


def _millis(at: str) -> int:
    return round(instant(at).timestamp() * 1000)
