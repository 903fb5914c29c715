"""Readings of the trail: acts by what they say, jobs without an end, and an act as the line that is sealed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Select, exists, func, literal_column, select

from carelake.audit.acts import ActHeader, write
from carelake.audit.processes import alive, elsewhere
from carelake.audit.runs import acts_of
from carelake.audit.tables import act, act_patient, noun
from carelake.core import canonical
from carelake.core.clock import Clock, instant, iso
from carelake.core.errors import Invalid, Refused

__all__ = ["COLUMNS", "Acts", "Filter", "as_json", "close_interrupted", "gone", "line_of", "moment_of"]

COLUMNS = tuple(column for column in act.c if column.name != "facts")
"""What every act has; `line_of` takes these and then the facts, in this order."""

_NAMES = tuple(column.name for column in COLUMNS)
_ENDED = ("done", "failed", "interrupted")
_NOT_DONE = act.c.phase != literal_column("'done'")
"""As a text that SQLite sees to be that of the index `act_phase`."""

_raw = msgspec.json.Decoder(dict[str, msgspec.Raw])
_sorted = msgspec.json.Encoder(order="sorted")


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Which acts. "" means any.

    Attributes:
        patient: ``patient:HEX``.
        ref: what it read, wrote or had as its target; or a noun that it made.
        since, until: instants; since is inclusive, until is not.
    """

    correlation: str = ""
    principal: str = ""
    action: str = ""
    target: str = ""
    phase: str = ""
    purpose: str = ""
    account: str = ""
    patient: str = ""
    ref: str = ""
    since: str = ""
    until: str = ""

    def all(self) -> bool:
        """Whether every act is meant."""
        return self == Filter()

    def told(self) -> dict[str, str]:
        """What is asked for, as JSON."""
        return {name: value for name, value in msgspec.to_builtins(self).items() if value}

    def within(self, account: str) -> Filter:
        """This filter, for one account alone.

        Raises:
            Refused: ``audit.other_account``.
        """
        if self.account not in ("", account):
            raise Refused(
                "audit.other_account",
                "The trail of another account is read with --account; that of all, by who belongs to all accounts.",
            )
        return msgspec.structs.replace(self, account=account)

    def apply(self, query: Select[Any]) -> Select[Any]:
        """The query with these conditions.

        Raises:
            Invalid: ``audit.time``, ``audit.patient``.
        """
        for test in self._tests():
            query = query.where(test)
        return query

    def _tests(self) -> Iterator[ColumnElement[bool]]:
        for name in ("correlation", "principal", "action", "target", "phase", "purpose", "account"):
            if value := getattr(self, name):
                yield act.c[name] == value
                if name == "phase" and value != "done":
                    yield _NOT_DONE
        if self.since:
            yield act.c.at >= moment_of(self.since)
        if self.until:
            yield act.c.at < moment_of(self.until)
        if self.patient:
            yield act.c.seq.in_(acts_of(_hmac(self.patient)))
        if self.ref:
            made = select(noun.c.act).where(noun.c.ref == self.ref)
            quoted = f'"{self.ref}"'
            yield (
                (act.c.target == self.ref)
                | act.c.correlation.in_(made)
                | act.c.facts.contains(quoted, autoescape=True)
            )


def moment_of(text: str) -> str:
    """An instant as acts write it. `Invalid` ``audit.time``."""
    try:
        return iso(instant(text))
    except ValueError:
        raise Invalid(
            "audit.time", "Not a time; expected for example 2026-11-22 or 2026-11-22T08:30:00+01:00."
        ) from None


def _hmac(ref: str) -> bytes:
    kind, _, digits = ref.partition(":")
    try:
        if kind == "patient" and len(digits) == 64:
            return bytes.fromhex(digits)
    except ValueError:
        pass
    raise Invalid("audit.patient", "Not a patient's ref; expected patient:HEX of 64 digits, or a patient's id.")


class Acts:
    """Readings of the trail on one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def count(self) -> int:
        """How many acts there are."""
        return int(self._connection.execute(select(func.count()).select_from(act)).scalar_one())

    def after(self, seq: int, limit: int = 100_000) -> Iterator[dict[str, Any]]:
        """Acts in order, as JSON objects: the form that is sealed and exported."""
        rows = self._connection.execute(select(act).where(act.c.seq > seq).order_by(act.c.seq).limit(limit))
        for row in rows.mappings():
            yield as_json(row)

    def find(self, wanted: Filter | None = None, *, limit: int = 100, **equal: str) -> list[dict[str, Any]]:
        """The newest acts that a filter lets through, or whose columns equal what is given; newest first."""
        query = (wanted or Filter(**equal)).apply(select(act)).order_by(act.c.seq.desc()).limit(limit)
        return [as_json(row) for row in self._connection.execute(query).mappings()]

    def of(self, correlation: str) -> list[dict[str, Any]]:
        """All rows of one act, in order."""
        query = select(act).where(act.c.correlation == correlation).order_by(act.c.seq)
        return [as_json(row) for row in self._connection.execute(query).mappings()]

    def patients(self, seq: int) -> list[str]:
        """Refs of the patients that an act touched."""
        query = select(act_patient.c.patient).where(act_patient.c.seq == seq).order_by(act_patient.c.patient)
        return [f"patient:{bytes(one).hex()}" for one in self._connection.execute(query).scalars()]

    def unfinished(self) -> list[dict[str, Any]]:
        """``start`` acts that have no end."""
        query = select(act).where(*_unfinished()).order_by(act.c.seq)
        return [as_json(row) for row in self._connection.execute(query).mappings()]

    def working_since(self, account: str, since: str, *, but: str) -> str | None:
        """When the oldest job of an account that began at ``since`` or later, and has no end, began.

        Args:
            but: an action whose jobs do not count.
        """
        mine = (act.c.account == account, act.c.action != but, act.c.at >= since)
        found: str | None = self._connection.execute(select(func.min(act.c.at)).where(*_unfinished(), *mine)).scalar()
        return found


def _unfinished() -> tuple[ColumnElement[bool], ...]:
    other = act.alias("other")
    ended = exists().where(other.c.correlation == act.c.correlation, other.c.phase.in_(_ENDED))
    return act.c.phase == "start", _NOT_DONE, ~ended


def as_json(row: Mapping[Any, Any]) -> dict[str, Any]:
    """One act row as the JSON object that is sealed."""
    return {**canonical.load(row["facts"]), **{k: v for k, v in row.items() if k != "facts"}}


def line_of(row: tuple[Any, ...]) -> bytes:
    """The line that is sealed, from `COLUMNS` and facts: ``canonical.dump(as_json(row))`` for less work.

    The values of ``facts`` are taken as they lie. They were written in canonical form, so what differs was altered.
    A text that is no JSON object gives b"", which is no act's line.
    """
    try:
        said: dict[str, Any] = _raw.decode(row[-1])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return b""
    said.update(zip(_NAMES, row, strict=False))
    return _sorted.encode(said)


def close_interrupted(connection: Connection, clock: Clock, gone: list[dict[str, Any]]) -> int:
    """Append ``interrupted`` for these jobs, but for those that ended meanwhile; answers how many."""
    open_ = {a["seq"] for a in Acts(connection).unfinished()}
    lost = [a for a in gone if a["seq"] in open_]
    for a in lost:
        header = ActHeader(a["correlation"], a["principal"], a["account"], a["purpose"], a["action"], a["target"])
        write(connection, header, "interrupted", clock, {})
    return len(lost)


def gone(found: list[dict[str, Any]], clock: Clock, permit_seconds: float) -> list[dict[str, Any]]:
    """Of jobs without an end those whose process is gone; on another machine: whose permit has run out."""
    oldest = clock.now() - timedelta(seconds=permit_seconds)
    return [
        a
        for a in found
        if (instant(a["at"]) < oldest if elsewhere(a.get("process", {})) else not alive(a.get("process", {})))
    ]
