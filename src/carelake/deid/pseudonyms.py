"""Who is who without saying who: keyed names for ids, and each patient's number of days.

Both are HMAC-SHA256 under the account's reference key, which the key ring holds (decisions D1 and D4): the same id
has the same pseudonym in every table and at every time, and nobody makes it without the key. Another account has
others.
"""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

from carelake.core.permit import Permit
from carelake.vault.keyring import Keyring

__all__ = ["DAYS", "Pseudonyms", "pseudonyms"]

DAYS = 365
"""Dates are shifted by 1 to so many days."""

_LETTERS = 32
Mac = Callable[[bytes], bytes]


class Pseudonyms:
    """Makes pseudonyms and shifts; knows no key, only what is made with one."""

    def __init__(self, naming: Mac, shifting: Mac) -> None:
        """Make it of two HMACs that have nothing to do with each other."""
        self._naming = naming
        self._shifting = shifting
        self._known: dict[tuple[str, str], str] = {}

    def name(self, kind: str, id_: str) -> str:
        """The pseudonym of a resource: 32 letters that FHIR takes for an id."""
        known = self._known.get((kind, id_))
        if known is None:
            made = self._naming(f"{kind}/{id_}".encode()).hex()[:_LETTERS]
            known = self._known[kind, id_] = made
        return known

    def days(self, patient: str) -> int:
        """By how many days the dates of a patient are shifted: -365 to -1, always the same."""
        return -(1 + int.from_bytes(self._shifting(patient.encode())[:8]) % DAYS)

    def named(self, kind: str, ids: pa.Array) -> pa.Array:
        """The pseudonyms of ids, null for null."""
        found = ids.dictionary_encode()
        made = [None if one is None else self.name(kind, one) for one in found.dictionary.to_pylist()]
        return pa.array(made, pa.string()).take(found.indices)

    def shifts(self, patients: pa.Array) -> pa.Array:
        """The days of patients as 32-bit numbers, null for null."""
        found = patients.dictionary_encode()
        made = [None if one is None else self.days(one) for one in found.dictionary.to_pylist()]
        return pa.array(made, pa.int32()).take(found.indices)


def pseudonyms(permit: Permit, keyring: Keyring) -> Pseudonyms:
    """Those of the permit's account; not to be kept beyond what the permit is for."""
    return Pseudonyms(keyring.referrer(permit, "pseudonym"), keyring.referrer(permit, "dateshift"))
