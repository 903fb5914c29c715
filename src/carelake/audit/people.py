"""The patients beside the acts, in step with them: the act names its patients, or counts and digests them."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Connection, select

from carelake.audit.tables import act_patient
from carelake.core import canonical
from carelake.core.errors import CarelakeError

__all__ = ["People"]

_ROWS = 5_000


class People:
    """Rows of ``act_patient`` in order."""

    def __init__(self, connection: Connection, first: int) -> None:
        query = select(act_patient.c.seq, act_patient.c.patient).where(act_patient.c.seq >= first)
        query = query.order_by(act_patient.c.seq, act_patient.c.patient)
        self._rows = iter(connection.execute(query, execution_options={"yield_per": _ROWS}))
        self._next = next(self._rows, None)

    def check(self, seq: int, facts: str) -> str:
        """What is wrong with the patients of act ``seq``, in words; "" for nothing."""
        told = '"patients' in facts
        if not told and (self._next is None or self._next[0] > seq):
            return ""
        beside = self._of(seq)
        try:
            said = canonical.load(facts) if told else {}
        except CarelakeError:
            said = {}
        if "patients_digest" in said:
            right = len(beside) == said.get("patients_count") and canonical.digest(beside) == said["patients_digest"]
        else:
            right = beside == said.get("patients", [])
        return "" if right else "the patients beside it are not those that it was written with"

    def __iter__(self) -> Iterator[int]:
        """Acts of the rows that are left over, each once."""
        while self._next is not None:
            seq = self._next[0]
            self._of(seq)
            yield seq

    def _of(self, seq: int) -> list[str]:
        found = []
        while self._next is not None and self._next[0] <= seq:
            # A row of an act that was passed over counts to this one, and so shows.
            found.append(f"patient:{bytes(self._next[1]).hex()}")
            self._next = next(self._rows, None)
        return found
