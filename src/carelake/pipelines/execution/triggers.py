"""What starts pipelines by itself: schedules, and events of the outbox that durable consumers follow.

An event starts at most one execution of a trigger: it is entered in the transaction that settles the event. Where one
of the trigger's executions has not begun yet, another event of its kind adds none: it will see what both told of.
A trigger whose pipeline has another definition than it was added to starts nothing until somebody confirms it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from carelake.core import canonical
from carelake.core.clock import Clock, instant, iso
from carelake.core.errors import Conflict, Invalid, NotFound
from carelake.core.ids import Ids
from carelake.core.permit import Permit
from carelake.events.drivers.local import Handler
from carelake.events.envelopes import Event
from carelake.events.filters import Filter, Start
from carelake.events.subscriptions import Subscriptions
from carelake.pipelines.definition.document import parse
from carelake.pipelines.definition.parameters import values
from carelake.pipelines.execution import pinning
from carelake.pipelines.execution.bounds import bounds_of
from carelake.pipelines.execution.rows import ACTIVE, Execution, Rows
from carelake.pipelines.execution.schedule import next_after
from carelake.pipelines.tables import trigger
from carelake.vault.workspace import Vault

__all__ = ["Handlers", "Triggers"]

_PREFIX = "pipeline-trigger:"


class Triggers:
    """The triggers of a workspace."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    def add(
        self,
        permit: Permit,
        name: str,
        pipeline: str,
        *,
        schedule: str = "",
        event: str = "",
        wanted: Mapping[str, str] | None = None,
        parameters: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Add one; it starts its pipeline as whoever added it, as that is defined now.

        Args:
            event: type, or its first words, for example ``monitor.alarm``.
            wanted: what the event's data must have, by name.

        Raises:
            Invalid: ``pipelines.trigger``, ``pipelines.schedule``, ``pipelines.parameter``, ``events.filter``.
            Conflict: ``pipelines.trigger_exists``. NotFound: ``pipelines.no_such_pipeline``.
        """
        if bool(schedule) == bool(event):
            raise Invalid("pipelines.trigger", "A trigger has either a schedule or a type of event.")
        if not name or len(name) > 48:
            raise Invalid("pipelines.trigger", "A trigger's name is 1 to 48 lower-case letters, digits and dashes.")
        now = self._vault.clock.now()
        due = next_after(schedule, now) if schedule else None
        with self._vault.database.transaction(permit) as tx:
            rows = Rows(tx, permit.account)
            found = rows.pipeline(pipeline)
            definition = rows.definition(pipeline, found.version).definition
            values(parse(definition).parameters, parameters or {})
            if self._find(tx, permit.account, name) is not None:
                raise Conflict("pipelines.trigger_exists", "There is a trigger of this name; remove it first.")
            said = {"account": permit.account, "name": name, "pipeline": pipeline, "schedule": schedule}
            said |= {"event": event, "wanted": _json(wanted), "parameters": _json(parameters), "state": "ENABLED"}
            said |= {"principal": permit.principal, "purpose": permit.purpose, "created": iso(now), "last": ""}
            said |= {"due": iso(due) if due else "", "bounds": pinning.pinned(bounds_of(permit), definition)}
            tx.execute(insert(trigger).values(**said))
            if event:
                consumers = Subscriptions(tx, self._vault.clock, self._vault.sealer)
                target = {"handler": _PREFIX + name}
                consumers.add(permit, _consumer(name), "local", Filter.of((event,), (), ()), target, Start("now"))
            permit.log.note(change="add-trigger")
        return self.get(permit, name)

    def get(self, permit: Permit, name: str) -> dict[str, Any]:
        """One trigger; `NotFound` ``pipelines.no_such_trigger``."""
        with self._vault.database.reading(permit) as tx:
            return _told(tx, self._required(tx, permit.account, name))

    def all(self, permit: Permit) -> list[dict[str, Any]]:
        """Every trigger of the account, by name."""
        query = select(trigger).where(trigger.c.account == permit.account).order_by(trigger.c.name)
        with self._vault.database.reading(permit) as tx:
            return [_told(tx, row) for row in tx.execute(query).all()]

    def remove(self, permit: Permit, name: str) -> None:
        """Remove one."""
        with self._vault.database.transaction(permit) as tx:
            row = self._required(tx, permit.account, name)
            tx.execute(delete(trigger).where(trigger.c.account == permit.account, trigger.c.name == name))
            if row.event:
                Subscriptions(tx, self._vault.clock, self._vault.sealer).remove(_consumer(name))
            permit.log.note(change="remove-trigger")

    def set_state(self, permit: Permit, name: str, state: str) -> dict[str, Any]:
        """``ENABLED`` or ``DISABLED``; a schedule that is enabled again goes on from now."""
        with self._vault.database.transaction(permit) as tx:
            row = self._required(tx, permit.account, name)
            due = next_after(row.schedule, self._vault.clock.now()) if row.schedule else None
            own = (trigger.c.account == permit.account) & (trigger.c.name == name)
            tx.execute(update(trigger).where(own).values(state=state, due=iso(due) if due else ""))
            permit.log.note(change="trigger-state", state=state)
        return self.get(permit, name)

    def confirm(self, permit: Permit, name: str, version: int | None = None) -> dict[str, Any]:
        """Let it start its pipeline as that is defined now, and as whoever says so: it lends nobody else's rights.

        Args:
            version: that was looked at.

        Raises:
            Conflict: ``pipelines.trigger_changed``: its pipeline has another version by now.
            Invalid: ``pipelines.parameter``: its parameters do not fit. NotFound: ``pipelines.no_such_trigger``.
        """
        with self._vault.database.transaction(permit) as tx:
            row, rows = self._required(tx, permit.account, name), Rows(tx, permit.account)
            now = rows.pipeline(row.pipeline).version
            if version not in (None, now):
                raise Conflict(
                    "pipelines.trigger_changed",
                    f"The pipeline of this trigger has version {now} by now; look at that one before you confirm it.",
                )
            definition = rows.definition(row.pipeline, now).definition
            values(parse(definition).parameters, canonical.load(row.parameters))
            said = {"principal": permit.principal, "purpose": permit.purpose}
            said |= {"bounds": pinning.pinned(bounds_of(permit), definition)}
            own = (trigger.c.account == permit.account) & (trigger.c.name == name)
            tx.execute(update(trigger).where(own).values(**said))
            permit.log.note(change="confirm-trigger", trigger=name, definition=pinning.digest(definition))
        return self.get(permit, name)

    def due(self, tx: Connection, account: str) -> bool:
        """Whether a schedule of the account is due."""
        return self._next_due(tx, account) is not None

    def fire(self, permit: Permit) -> int:
        """Start what is due; a time that was missed while nobody looked is made up for once."""
        count = 0
        while True:
            with self._vault.database.transaction(permit) as tx:
                row = self._next_due(tx, permit.account)
                if row is None:
                    return count
                now = self._vault.clock.now()
                after = _after(row.schedule, instant(row.due), now)
                own = (trigger.c.account == row.account) & (trigger.c.name == row.name)
                why = pinning.held(tx, row)
                last = row.last if why else iso(now)
                tx.execute(update(trigger).where(own).values(due=iso(after) if after else "", last=last))
                if why:
                    permit.log.note(held=row.name, reason=why)
                    continue
                count += _enter(tx, row, f"{row.name}@{row.due}", self._vault.ids, self._vault.clock)
                permit.log.count(triggered=1)

    def _next_due(self, tx: Connection, account: str) -> Row[Any] | None:
        now = iso(self._vault.clock.now())
        own = (trigger.c.account == account) & (trigger.c.state == "ENABLED") & (trigger.c.due != "")
        return tx.execute(select(trigger).where(own, trigger.c.due <= now).order_by(trigger.c.due).limit(1)).first()

    @staticmethod
    def _find(tx: Connection, account: str, name: str) -> Row[Any] | None:
        return tx.execute(select(trigger).where(trigger.c.account == account, trigger.c.name == name)).first()

    def _required(self, tx: Connection, account: str, name: str) -> Row[Any]:
        found = self._find(tx, account, name)
        if found is None:
            raise NotFound(
                "pipelines.no_such_trigger", "No such trigger; `carelake pipelines trigger list` shows them."
            )
        return found


class Handlers(Mapping[str, Handler]):
    """The function of each trigger's consumer, for `events.drivers.choice.Choice`; triggers come and go meanwhile."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    def __getitem__(self, name: str) -> Handler:
        if not name.startswith(_PREFIX):
            raise KeyError(name)
        return lambda tx, event: self._happened(tx, event, name.removeprefix(_PREFIX))

    def __iter__(self) -> Iterator[str]:
        return iter((_PREFIX,))

    def __len__(self) -> int:
        return 1

    def _happened(self, tx: Connection, event: Event, name: str) -> None:
        row = tx.execute(select(trigger).where(trigger.c.account == event.account, trigger.c.name == name)).first()
        if row is None or row.state != "ENABLED":
            return
        wanted = canonical.load(row.wanted)
        if any(str(event.data.get(key)) != value for key, value in wanted.items()) or pinning.held(tx, row):
            return
        own = (trigger.c.account == row.account) & (trigger.c.name == row.name)
        tx.execute(update(trigger).where(own).values(last=iso(self._vault.clock.now())))
        _enter(tx, row, f"{name}@{event.id}", self._vault.ids, self._vault.clock)


def _enter(tx: Connection, row: Any, token: str, ids: Ids, clock: Clock) -> int:
    """Enter an execution, unless one of this trigger's has not begun yet; answers how many."""
    rows = Rows(tx, row.account)
    version = rows.pipeline(row.pipeline).version
    waiting = rows.executions(row.pipeline, status=ACTIVE)
    if any(one.cause == row.name and not one.process and not rows.steps(one.id) for one in waiting):
        return 0
    if rows.of_token(row.pipeline, token) is not None:
        return 0
    now = iso(clock.now())
    made = Execution(
        id=ids.new(),
        account=row.account,
        pipeline=row.pipeline,
        version=version,
        status="Executing",
        display="",
        description="",
        parameters=canonical.load(row.parameters),
        parallel=0,
        source="",
        selected=(),
        token=token,
        reason="",
        process="",
        principal=row.principal,
        purpose=row.purpose,
        local=False,
        cause=row.name,
        created=now,
        modified=now,
        bounds=pinning.unpinned(row.bounds),
    )
    rows.add_execution(made)
    return 1


def _after(schedule: str, due: datetime, now: datetime) -> datetime | None:
    """The next time that lies ahead; a rate keeps its beat."""
    if not schedule.startswith("rate("):
        return next_after(schedule, max(due, now))
    found = next_after(schedule, due)
    while found is not None and found <= now:
        later = next_after(schedule, found)
        if later is not None:
            beat = later - found
            later = found + beat * max(1, -(-(now - found) // beat))
            later = later + beat if later <= now else later
        found = later
    return found


def _consumer(name: str) -> str:
    return f"pipeline-{name}"


def _json(said: Mapping[str, str] | None) -> str:
    return canonical.dump(dict(said or {})).decode()


def _told(tx: Connection, row: Any) -> dict[str, Any]:
    named = ("name", "pipeline", "schedule", "event", "state", "principal", "created", "due", "last")
    found = {key: getattr(row, key) or None for key in named}
    found |= {"where": canonical.load(row.wanted), "parameters": canonical.load(row.parameters)}
    now = Rows(tx, row.account).find_pipeline(row.pipeline)
    return {**found, "version": now.version if now is not None else None, "held": pinning.held(tx, row) or None}
