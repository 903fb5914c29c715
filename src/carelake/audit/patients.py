"""Whom an act is about, without naming them: ``patient:HEX``, an HMAC under the account's reference key (D4)."""

from __future__ import annotations

from collections.abc import Iterable

from carelake.core.permit import Permit
from carelake.vault.keyring import Keyring

__all__ = ["KIND", "note", "ref"]

KIND = "patient"


def ref(permit: Permit, keyring: Keyring, patient: str) -> str:
    """The ref of a patient of the permit's account, by the patient's id."""
    return keyring.reference(permit, KIND, patient.encode())


def note(permit: Permit, keyring: Keyring, patients: Iterable[str]) -> None:
    """Note for the permit's act that it touches these patients; "" is nobody."""
    permit.log.patients(*(ref(permit, keyring, one) for one in set(patients) if one))
