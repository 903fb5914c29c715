"""While the server runs, it carries out the bulk jobs that wait: one at a time in each of its processes.

A job is carried out in the name of who asked for it, by the rights that they have at each of its files. An erasure
that was broken off is brought to its end, whoever began it.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import anyio.to_thread

from carelake.access.identity import Caller
from carelake.apps.errors import code_of
from carelake.apps.http.ports import Door
from carelake.apps.http.sql.running import ACTION as ASK
from carelake.core.errors import Conflict, NotFound, Refused, Unsupported
from carelake.core.permit import Permit
from carelake.pipelines import view_export
from carelake.pipelines.export import ACTION as EXPORT
from carelake.pipelines.export import VaultSink, carry_out
from carelake.pipelines.imports import ACTION as IMPORT
from carelake.pipelines.imports import Importer
from carelake.pipelines.imports_manifest import Inputs, read_manifest
from carelake.store.jobs import Job, Jobs, Waiting

__all__ = ["WAKE", "keep_working"]

WAKE = Event()
"""Set when there is a new job: the next look need not wait."""

_KINDS = ("export", "import", "sql", view_export.KIND)
_ACTIONS = {"export": EXPORT, "import": IMPORT, "sql": ASK, view_export.KIND: view_export.ACTION}
_DENIED = frozenset({"access.denied", "access.no_such_principal", "access.withdrawn"})
_REST_SECONDS = 60.0


@asynccontextmanager
async def keep_working(door: Door, log: Any) -> AsyncIterator[None]:
    """Look for jobs while the block runs; a job that is at work when it ends is for whoever comes next."""
    work = _Work(door, log)
    thread = Thread(target=work.run, name="bulk", daemon=True)
    thread.start()
    try:
        yield
    finally:
        work.ending.set()
        WAKE.set()
        await anyio.to_thread.run_sync(thread.join)


class _Ending(Exception):
    """The server ends while it works."""


class _Work:
    """One process's looking and doing."""

    def __init__(self, door: Door, log: Any) -> None:
        self.ending = Event()
        self._door, self._log = door, log
        self._jobs = Jobs(door.vault)
        self._resting: dict[str, float] = {}

    def run(self) -> None:
        while not self.ending.is_set():
            try:
                self._look()
            except Exception as error:  # a busy database must not end the server; the next look tries again
                self._log.error("no jobs", code=code_of(error))
            WAKE.wait(self._door.settings.bulk.poll_seconds)
            WAKE.clear()

    def _look(self) -> None:
        with self._door.vault.database.reading(self._door.gate.polling()) as tx:
            waiting = self._jobs.waiting(tx, _KINDS)
        for one in waiting:
            if self.ending.is_set():
                return
            if self._resting.get(one.id, 0.0) < time.monotonic():
                self._guarded(one)
        for account in self._door.erasures.broken_off(self._door.gate.polling()):
            if not self.ending.is_set() and self._resting.get(account, 0.0) < time.monotonic():
                self._erase(account)

    def _erase(self, account: str) -> None:
        """Bring to its end what was broken off; one process at a time takes it up."""
        try:
            with self._door.gate.resuming(account) as permit:
                proofs = self._door.erasures.resume(permit, progress=self._unless_ending)
            self._log.info("erasures brought to their end", number=len(proofs))
        except _Ending:
            return
        except Exception as error:
            self._resting[account] = time.monotonic() + _REST_SECONDS
            if not isinstance(error, Conflict):
                self._log.error("erasure", code=code_of(error))

    def _unless_ending(self, _step: str, _done: int, _of: int) -> None:
        """The server ends: whoever comes next goes on at this step."""
        if self.ending.is_set():
            raise _Ending

    def _guarded(self, one: Waiting) -> None:
        """A job whose error ends with it: its row and its act tell of it."""
        try:
            try:
                self._do(one)
            except (Refused, NotFound) as error:
                if error.code in _DENIED:
                    self._clear(one, error.code)
                raise
        except Exception as error:
            if not isinstance(error, Conflict):
                self._resting[one.id] = time.monotonic() + _REST_SECONDS
                self._log.error("job", kind=one.kind, code=code_of(error))

    def _clear(self, one: Waiting, error: str) -> None:
        """End what its owner may not do any more, or they would be refused again and again, and files would stay."""
        action = ASK if one.kind == "sql" else EXPORT
        clearing = self._door.gate.clearing(one.account, action)
        with clearing as permit, self._door.vault.database.transaction(permit) as tx:
            if one.over:
                self._jobs.drop(permit, tx, one.id, "expired")
            else:
                self._jobs.end(tx, one.id, seconds=self._door.settings.bulk.keep_seconds, error=error)
                permit.log.note(job=one.id, change=error)

    def _do(self, one: Waiting) -> None:
        door, vault, caller = self._door, self._door.vault, self._caller(one)
        action = _ACTIONS[one.kind]

        def enter(target: str = "record", *, job: bool = False) -> AbstractContextManager[Permit]:
            return door.enter(caller, action, target, job=job)

        if one.over:
            with enter() as permit, vault.database.transaction(permit) as tx:
                self._jobs.drop(permit, tx, one.id, "expired")
        elif one.kind == "sql":  # its process is gone, and nobody else has the question
            with enter() as permit, vault.database.transaction(permit) as tx:
                self._jobs.end(tx, one.id, seconds=door.settings.lake.keep_seconds, error="lake.interrupted")
        elif one.kind == "export":
            carry_out(vault, enter, door.resources, one.id, VaultSink(vault), stop=self.ending.is_set)
        elif one.kind == view_export.KIND:
            view_export.carry_out(vault, enter, door.nouns, one.id, VaultSink(vault), stop=self.ending.is_set)
        else:
            importer = Importer(vault, door.resources, door.nouns, door.platform.outbox, stop=self.ending.is_set)
            importer.carry_out(lambda: enter(job=True), one.id, self._inputs)

    def _inputs(self, job: Job) -> Inputs:
        if not self._door.settings.bulk.import_folder:
            raise Unsupported("http.import_off", "Nothing is imported over HTTP until bulk.import_folder is set.")
        return read_manifest(job.asked["manifest"], Path(self._door.settings.bulk.import_folder))

    def _caller(self, one: Waiting) -> Caller:
        standing = self._door.identity.register.standing(one.principal)
        if standing is None:
            raise NotFound("access.no_such_principal", "Who asked for the job is no principal any more.")
        return Caller(standing.principal, one.purpose, one.account)
