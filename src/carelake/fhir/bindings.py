"""Required bindings whose codes the packages list (https://hl7.org/fhir/R4/terminologies.html#required)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from carelake.fhir.rules import ValueSet

__all__ = ["holds"]


def holds(value: Any, kind: str, codes: ValueSet) -> bool:
    """Whether a value of type ``kind`` has a code of the value set; text alone has none."""
    if kind in ("code", "string", "uri"):
        return any(value in known for known in codes.values())
    return any(code in codes.get(system, ()) for system, code in _coded(value, kind))


def _coded(value: Any, kind: str) -> Iterator[tuple[str, str]]:
    if not isinstance(value, dict):
        return
    for coding in value.get("coding", ()) if kind == "CodeableConcept" else (value,):
        if isinstance(coding, dict) and isinstance(coding.get("code"), str):
            yield str(coding.get("system", "")), coding["code"]
