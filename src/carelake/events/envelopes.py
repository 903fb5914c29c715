"""One event, and its form on the way out: CloudEvents 1.0, structured JSON.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md, with the extensions ``sequence`` and
``partitionkey`` (the stream, whose order is kept) and ``account``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row

from carelake.core import canonical

__all__ = ["MEDIA_TYPE", "Event", "event_of"]

MEDIA_TYPE = "application/cloudevents+json"


@dataclass(frozen=True, slots=True)
class Event:
    """One row of the outbox.

    Attributes:
        seq: its place among all events; grows within a stream in the order of commits.
        subject: the ref that it is about, ``KIND:DIGEST``.
        data: counts, words and refs; never a clinical value.
    """

    seq: int
    id: str
    type: str
    account: str
    subject: str
    time: str
    data: Mapping[str, Any]

    @property
    def stream(self) -> tuple[str, str]:
        """Account and type: within these, events are delivered in order."""
        return self.account, self.type

    @property
    def kind(self) -> str:
        """The kind of its subject, for example ``model``."""
        return self.subject.partition(":")[0]

    def cloudevent(self, source: str) -> dict[str, Any]:
        """The CloudEvents JSON object."""
        return {
            "specversion": "1.0",
            "id": self.id,
            "source": source,
            "type": self.type,
            "subject": self.subject,
            "time": self.time,
            "datacontenttype": "application/json",
            "data": self.data,
            "account": self.account,
            "sequence": str(self.seq),
            "sequencetype": "Integer",
            "partitionkey": f"{self.account}/{self.type}",
        }


def event_of(row: Row[Any]) -> Event:
    """The event of a row of the table."""
    return Event(row.seq, row.id, row.type, row.account, row.subject, row.time, canonical.load(row.data))
