"""What is due is run: each schedule once a due time, with an execution that says how it went."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import insert, select, update

from carelake.audit.nouns import Nouns
from carelake.core.clock import instant, iso
from carelake.core.errors import CarelakeError
from carelake.core.permit import Permit
from carelake.monitor import cron, outcomes
from carelake.monitor.check import Monitor, Ran
from carelake.monitor.kinds import TOO_FEW
from carelake.monitor.listing import LONGEST
from carelake.monitor.schedules import window_of
from carelake.monitor.tables import execution, schedule
from carelake.serving.endpoint import Endpoint, Endpoints
from carelake.vault.workspace import Vault

__all__ = ["Enter", "Executions"]

Enter = Callable[[str], AbstractContextManager[Permit]]
"""Opens a permit for ``monitor:check`` of an endpoint, by name."""

_S = schedule.c
_FEATURELESS = ("ModelQuality", "ModelBias")


class Executions:
    """Runs checks, those that are due and those that are asked for."""

    def __init__(self, vault: Vault, nouns: Nouns, monitor: Monitor, endpoints: Endpoints) -> None:
        self._vault = vault
        self._nouns = nouns
        self._monitor = monitor
        self._endpoints = endpoints

    def now(
        self, permit: Permit, named: str, kind: str, since: datetime, until: datetime | None = None
    ) -> tuple[Ran, Endpoint]:
        """Check an endpoint (name or ref), with outcomes from the lake where a kind needs them.

        Needs the grants ``lake:read``, ``models:read``, ``rows:read``, ``rows:write``.
        """
        endpoint = self._endpoints.load(permit, named)
        labels = None
        if kind in _FEATURELESS:
            model = str(endpoint.noun.body["model_name"])
            labels, _ = outcomes.of_lake(permit, self._vault, self._nouns, model)
        return self._monitor.run(permit, endpoint, kind, since, until, labels=labels), endpoint

    def run_due(self, enter: Enter) -> list[dict[str, Any]]:
        """Run every schedule that is due; answers ``schedule``, ``scheduled``, ``status`` and ``finding`` of each.

        A check that fails is an execution that failed, with its reason, and the next one is run.
        """
        with enter("schedules") as permit:
            self._give_up(permit)
            moment = iso(self._vault.clock.now())
            due = (_S.account == permit.account) & (_S.due != "") & (_S.due <= moment) & (_S.status == "Scheduled")
            with self._vault.database.reading(permit) as tx:
                rows = tx.execute(select(schedule).where(due).order_by(_S.due, _S.name)).all()
        return [told for row in rows if (told := self._run(enter, row))]

    def _run(self, enter: Enter, row: Any) -> dict[str, Any] | None:
        config = msgspec.json.decode(row.config)
        with enter(row.endpoint) as permit:
            if not self._claimed(permit, row, config):
                return None
            try:
                since, until = window_of(config, instant(row.due))
                ran, _ = self.now(permit, row.endpoint, row.kind, since, until)
            except CarelakeError as error:
                return self._end(permit, row, "Failed", "", f"{error.code}: {error.message}")
            # SageMaker's executions know no third verdict: what could not be told has failed, and says why.
            status = "Failed" if ran.status == TOO_FEW else ran.status
            return self._end(permit, row, status, ran.finding.ref, ran.reason)

    def _claimed(self, permit: Permit, row: Any, config: dict[str, Any]) -> bool:
        expression = str((config.get("ScheduleConfig") or {}).get("ScheduleExpression", "cron(0 0 ? * * *)"))
        now = self._vault.clock.now()
        after = "" if expression == cron.NOW else iso(cron.next_after(expression, now))
        own = (_S.account == row.account) & (_S.name == row.name) & (_S.due == row.due)
        with self._vault.database.transaction(permit) as tx:
            if tx.execute(update(schedule).where(own).values(due=after)).rowcount != 1:
                return False
            begun = {
                "account": row.account,
                "schedule": row.name,
                "scheduled": row.due,
                "endpoint": row.endpoint,
                "kind": row.kind,
                "status": "InProgress",
                "finding": "",
                "failure": "",
                "created": iso(now),
                "modified": iso(now),
                "act": permit.act,
            }
            tx.execute(insert(execution).values(begun))
        return True

    def _end(self, permit: Permit, row: Any, status: str, finding: str, failure: str) -> dict[str, Any]:
        own = (execution.c.account == row.account) & (execution.c.schedule == row.name)
        own &= execution.c.scheduled == row.due
        now = iso(self._vault.clock.now())
        told = {"status": status, "finding": finding, "failure": failure[:1024], "modified": now}
        with self._vault.database.transaction(permit) as tx:
            tx.execute(update(execution).where(own).values(told))
        permit.log.count(executions=1)
        return {"schedule": row.name, "scheduled": row.due, "status": status, "finding": finding or None}

    def _give_up(self, permit: Permit) -> None:
        """Executions whose process ended in the middle have failed."""
        before = iso(self._vault.clock.now() - LONGEST)
        left = (execution.c.account == permit.account) & (execution.c.status == "InProgress")
        left &= execution.c.created < before
        why = "monitor.interrupted: The process that ran it ended; the next due time runs it again."
        with self._vault.database.transaction(permit) as tx:
            ended = tx.execute(select(execution.c.schedule).where(left)).scalars().all()
            tx.execute(update(execution).where(left).values(status="Failed", failure=why))
            # A schedule of NOW has no next due time; it was to run once, and has not.
            again = (_S.account == permit.account) & _S.name.in_(ended) & (_S.due == "") & (_S.status == "Scheduled")
            tx.execute(update(schedule).where(again).values(due=iso(self._vault.clock.now())))
