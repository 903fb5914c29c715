"""The guard of rollouts: looks at alarms, tells of steps, ends what is over, and takes traffic back by itself.

Requests call it while a rollout is under way, and so does a server's ticker; whoever comes first does it, once. What
it does is decided by the deployment's own configuration, and is accounted to the vault.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import Lock
from typing import Protocol

from sqlalchemy import Connection, insert, select, update

from carelake.core.clock import iso
from carelake.core.errors import CarelakeError, Conflict, Corrupt, NotFound, Refused, Unavailable
from carelake.core.permit import Permit
from carelake.serving import rollout, windows
from carelake.serving.alarms import ALARM, OK, Alarm, Profile, evaluate
from carelake.serving.answering import Answering
from carelake.serving.config import ALARMS
from carelake.serving.deploying import Deploying
from carelake.serving.rollout import COMPLETED, Routing
from carelake.serving.tables import alarm as table
from carelake.vault.places import ACCOUNTS
from carelake.vault.workspace import Vault

__all__ = ["Guard", "Watch", "Watcher"]

_EVERY = timedelta(seconds=1)
_BESIDE = timedelta(minutes=1)


class Watcher(Protocol):
    """Gives permits for what nobody asks for; the gate is one."""

    def watching(self, account: str) -> Permit:
        """To look: it writes no act."""
        ...

    def guarding(self, account: str) -> AbstractContextManager[Permit]:
        """To act: what is noted becomes an act of the vault; of nothing there is none."""
        ...


@dataclass(frozen=True)
class Watch:
    """What was seen of an endpoint.

    Attributes:
        alarms: of what is being deployed, else of what serves; by the variant's name.
    """

    routing: Routing
    alarms: Sequence[tuple[str, Alarm]]

    @property
    def ringing(self) -> Alarm | None:
        """The first alarm that rings."""
        return next((one for _, one in self.alarms if one.state == ALARM), None)


class Guard:
    """Guards the endpoints of a workspace."""

    def __init__(self, vault: Vault, answering: Answering, deploying: Deploying, watcher: Watcher | None) -> None:
        self._vault = vault
        self._answering = answering
        self._deploying = deploying
        self._watcher = watcher
        self._lock = Lock()
        self._looked: dict[tuple[str, str], datetime] = {}

    def watch(self, permit: Permit, name: str, *, lenient: bool = False) -> Watch:
        """Look at the alarms. Needs ``models:read``, ``rows:read``.

        Args:
            lenient: a variant whose files do not load is judged by what needs none of them, and is no error here.
        """
        now, bounds = self._vault.clock.now(), self._vault.settings.serving
        with self._vault.database.reading(permit) as tx:
            routing = self._answering.routing(permit, name)
            under_way = routing.newest.under_way
            since = routing.newest.begun if under_way else now - timedelta(minutes=bounds.watch_minutes)
            variants = routing.newest.told.variants if under_way else routing.main.told.variants
            counted = windows.sums(tx, permit.account, [one.endpoint for one in variants], since, now)
        which = routing.newest.told.policy.alarms if under_way else ALARMS
        found = []
        for one in variants:
            names: Sequence[str] = ()
            metrics, profile = counted[one.endpoint], Profile()
            try:
                files = self._answering.endpoint(permit, name, one).files
                names, profile = files.scorer.names, Profile.of(files.baseline)
            except (Corrupt, NotFound, Refused, Unavailable):
                if not lenient:
                    raise
            rung = evaluate(metrics, names, profile, bounds, which, paired=under_way)
            found += [(one.name, alarm) for alarm in rung]
        return Watch(routing, found)

    def step(self, permit: Permit, name: str) -> Watch:
        """Look, and do what is to be done. Needs ``models:read``, ``rows:read``, ``rows:write``."""
        seen = self.watch(permit, name, lenient=True)
        return self._act(permit, seen) if self._todo(permit, seen) else seen

    def _todo(self, permit: Permit, seen: Watch) -> bool:
        """Whether something is to be told or done: without a write, so that looking costs none."""
        newest, now = seen.routing.newest, self._vault.clock.now()
        if newest.under_way:
            policy, gone = newest.told.policy, newest.seconds(now)
            if seen.ringing or gone >= policy.ends or policy.step(gone) > newest.step:
                return True
        if self._goes_back(seen):
            return True
        with self._vault.database.reading(permit) as tx:
            return bool(self._changed(tx, seen)) or self._deploying.unfit(tx, permit, seen.routing)

    def _goes_back(self, seen: Watch) -> bool:
        """Whether an alarm after the bake takes traffic back.

        What serves by a way back is not taken back again: where every version rings, the hospital has changed.
        """
        newest, after = seen.routing.newest, self._vault.settings.serving.after_bake
        served = newest.outcome == COMPLETED and newest.base > 0 and not newest.reason
        return served and after == "rollback" and seen.ringing is not None

    def _changed(self, tx: Connection, seen: Watch) -> dict[str, str]:
        """Alarms whose state is not the one that was told."""
        newest = seen.routing.newest
        query = select(table.c.alarm, table.c.state)
        query = query.where(table.c.account == newest.account, table.c.name == newest.name)
        known = {row.alarm: row.state for row in tx.execute(query)}
        worst: dict[str, str] = {}
        for _, one in seen.alarms:
            if one.state != "INSUFFICIENT_DATA" and worst.get(one.name) != ALARM:
                worst[one.name] = one.state
        return {name: state for name, state in worst.items() if known.get(name, OK) != state}

    def _act(self, permit: Permit, seen: Watch) -> Watch:
        database, deploying = self._vault.database, self._deploying
        newest, old = seen.routing.newest, seen.routing.old
        # Whoever was killed between a rejection and what follows from it left that to be done.
        with database.transaction(permit) as tx:
            if deploying.put_right(tx, permit, newest.name):
                return Watch(self._answering.routing(permit, newest.name), seen.alarms)
        # The alarm and what it leads to are two acts, in this order.
        with database.reading(permit) as tx:
            changed = self._changed(tx, seen)
        for alarm, state in changed.items():
            with database.transaction(permit) as tx:
                if self._set(tx, newest.account, newest.name, alarm, state):
                    deploying.alarm(tx, permit, newest, alarm, state)
        now = self._vault.clock.now()
        policy, gone = newest.told.policy, newest.seconds(now)
        if not newest.under_way:
            if seen.ringing is not None and self._goes_back(seen):
                with suppress(Conflict):  # there may be no version before that is Approved
                    deploying.rollback(permit, newest.name, seen.ringing.name)
        elif seen.ringing is not None or (policy.timeout and gone > policy.timeout):
            reason = seen.ringing.name if seen.ringing else "timeout"
            with database.transaction(permit) as tx:
                deploying.roll_back(tx, permit, newest, old, reason)
        else:
            for step in range(newest.step + 1, policy.step(gone) + 1):
                with database.transaction(permit) as tx:
                    deploying.shift(tx, permit, newest, step)
            if gone >= policy.ends:
                with database.transaction(permit) as tx:
                    deploying.complete(tx, permit, newest)
        return Watch(self._answering.routing(permit, newest.name), seen.alarms)

    def _set(self, tx: Connection, account: str, name: str, alarm: str, state: str) -> bool:
        own = (table.c.account == account, table.c.name == name, table.c.alarm == alarm)
        since = iso(self._vault.clock.now())
        known = tx.scalar(select(table.c.state).where(*own))
        if known == state:
            return False
        if known is None:
            tx.execute(insert(table).values(account=account, name=name, alarm=alarm, state=state, since=since))
            return state != OK
        tx.execute(update(table).where(*own).values(state=state, since=since))
        return True

    def asked(self, account: str, name: str) -> None:
        """A request was answered: look after the rollout that is under way, at most once a second here."""
        if self._watcher is None or not self._turn(account, name, _EVERY):
            return
        try:
            self._look(self._watcher, account, name)
        except CarelakeError:
            return  # a busy database, perhaps: the request was answered, and the next one looks again

    def tick(self) -> int:
        """A server's turn: rollouts that are under way each time, other endpoints once a minute; answers how many.

        What hinders one endpoint keeps nobody from the others; the first such error is raised in the end.
        """
        if self._watcher is None:
            return 0
        done = 0
        hindered: CarelakeError | None = None
        for account in ACCOUNTS:
            permit = self._watcher.watching(account)
            with self._vault.database.reading(permit) as tx:
                moving = rollout.every(tx, account, under_way=True)
                names = rollout.every(tx, account)
                self._answering.tidy(permit)
            for _, name in names:
                if self._turn(account, name, _EVERY if (account, name) in moving else _BESIDE):
                    try:
                        self._look(self._watcher, account, name)
                        done += 1
                    except CarelakeError as error:
                        hindered = hindered or error
        if hindered is not None:
            raise hindered
        return done

    def _look(self, watcher: Watcher, account: str, name: str) -> None:
        if self._answering.asleep(watcher.watching(account), name):
            with suppress(CarelakeError), watcher.guarding(account) as permit:  # what it was refused, its act tells
                self._answering.wake(permit, name)
        seen = self.watch(watcher.watching(account), name, lenient=True)
        if self._todo(watcher.watching(account), seen):
            with watcher.guarding(account) as permit:
                self._act(permit, seen)

    def _turn(self, account: str, name: str, every: timedelta) -> bool:
        now = self._vault.clock.now()
        with self._lock:
            last = self._looked.get((account, name))
            if last is not None and timedelta(0) <= now - last < every:
                return False
            self._looked[account, name] = now
        return True
