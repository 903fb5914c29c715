"""What ``doctor`` looks at, from the machine up to the trail; each step is taken as far as the ones before allow."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import sys
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from carelake import __version__
from carelake.access.tables import principal
from carelake.apps.cli.session import Options, Session
from carelake.apps.errors import message_of
from carelake.apps.wiring import Workspace, key_folder, read_settings
from carelake.audit.processes import alive, elsewhere
from carelake.audit.readings import Acts
from carelake.audit.tables import act, segment
from carelake.core.clock import Clock, SystemClock, instant
from carelake.core.errors import CarelakeError
from carelake.core.settings import FORMAT, Settings
from carelake.vault import checkup
from carelake.vault.checkup import Check
from carelake.vault.keyring import read_root_settings
from carelake.vault.sql.checkup import database

__all__ = ["examine"]

_LIBRARIES = ("cryptography", "duckdb", "msgspec", "pyarrow", "pyiceberg", "sqlalchemy", "sqlcipher3")
_RELEASED = 2026
_LATE_SECONDS = 3600.0


def examine(root: Path, environment: Mapping[str, str], options: Options) -> list[Check]:
    """Every check, in order."""
    clock = SystemClock()
    found = list(_versions())
    settings = None
    try:
        settings = read_settings(root, environment)
    except CarelakeError as error:
        found.append(_failed("settings", error))
    else:
        found += _settings(settings)
    found += checkup.machine(root, settings)
    keys = key_folder(environment)
    if root.is_dir():
        found += checkup.files(root, keys, clock)
    if settings is None:
        return [*found, _skipped("keys, database, objects and trail", "the settings cannot be read")]
    try:
        found += checkup.keys(root, keys, settings, read_root_settings(root / "keyring.json"))
    except Exception as error:  # a fault of any kind is what this is here to tell of
        found.append(_failed("key ring", error))
    found.append(checkup.objects(root, settings))
    return [*found, *_opened(root, environment, options, clock)]


def _opened(root: Path, environment: Mapping[str, str], options: Options, clock: Clock) -> Iterator[Check]:
    """What can be told only with the keys."""
    try:
        workspace = Workspace.open(root, environment, upgrading=True)
    except Exception as error:
        yield _failed("opening", error)
        yield _skipped("database and trail", "the workspace cannot be opened")
        return
    with contextlib.closing(workspace.vault):
        yield Check("opening", "ok", "root key, key ring and database belong together")
        try:
            told = list(database(workspace.vault.database, workspace.settings))
        except Exception as error:
            told = [_failed("database", error)]
    yield from told
    if workspace.settings.format != FORMAT or any(
        one.check in ("schema", "database", "integrity") and one.state == "fail" for one in told
    ):
        yield _skipped("trail", "the database has to be put right first")
        return
    try:
        with contextlib.closing(Session(options)) as session:
            rows = _rows(session, clock)
        yield from rows
    except Exception as error:
        yield _failed("trail", error)


def _rows(session: Session, clock: Clock) -> list[Check]:
    """What the trail tells, under a permit; no account learns from it how busy another one is."""
    workspace, caller = session.workspace, session.caller()
    with (
        workspace.enter(caller, "workspace:doctor", "workspace") as permit,
        workspace.vault.database.reading(permit) as tx,
    ):
        now = clock.now()
        # Of all accounts, for who belongs to all of them; for anybody else of the one that the permit is for.
        seen = select(act.c.at, act.c.seq)
        acts = (seen if caller.everywhere else seen.where(act.c.account == permit.account)).subquery()
        last = tx.execute(select(func.max(acts.c.at))).scalar()
        sealed = tx.execute(select(func.coalesce(func.max(segment.c.last), 0))).scalar_one()
        waiting = tx.execute(select(func.count(), func.min(acts.c.at)).where(acts.c.seq > sealed)).one()
        unfinished = [one for one in Acts(tx).unfinished() if caller.everywhere or one["account"] == permit.account]
        people = tx.execute(
            select(func.count()).select_from(principal).where(principal.c.uid == os.getuid())
        ).scalar()
    head = workspace.vault.read_head()
    return [
        _clock(now, last),
        _unsealed(now, *waiting),
        _head(sealed, head),
        _jobs(unfinished),
        Check("principal", "ok", "the user who types is bound to a principal")
        if people
        else Check("principal", "warn", "the user who types is bound to no principal", "use --as, or a token"),
    ]


def _versions() -> Iterator[Check]:
    python = ".".join(map(str, sys.version_info[:3]))
    yield Check("python", "ok", f"{python}, carelake {__version__}")
    found, missing = [], []
    for name in _LIBRARIES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        yield Check("libraries", "fail", f"missing: {', '.join(missing)}", "install carelake again")
    else:
        yield Check("libraries", "ok", ", ".join(found))


def _settings(settings: Settings) -> Iterator[Check]:
    odd = []
    if settings.ingest.workers > (os.cpu_count() or 1):
        odd.append(f"[ingest] workers is {settings.ingest.workers}, the machine has {os.cpu_count()} processors")
    if settings.access.token_seconds > 86_400:
        odd.append("[access] token_seconds is more than a day")
    if settings.serve.seal_seconds > 60:
        odd.append("[serve] seal_seconds is more than a minute")
    if settings.format != FORMAT:
        yield Check(
            "settings",
            "fail",
            f"format {settings.format}, this carelake works with {FORMAT}",
            "back up, stop what uses the workspace, and run `carelake upgrade`",
        )
    elif odd:
        yield Check("settings", "warn", "; ".join(odd), "see docs/settings.md")
    else:
        yield Check("settings", "ok", f"workspace {settings.workspace}, format {settings.format}")


def _clock(now: datetime, last: str | None) -> Check:
    if now.year < _RELEASED:
        return Check("clock", "fail", f"it says {now.year}", "set the clock")
    if last is not None and (ahead := (instant(last) - now).total_seconds()) > 1:
        return Check(
            "clock",
            "fail",
            f"the newest act is {ahead:.0f} s ahead of it: it was set back, or another machine's is ahead",
            "synchronise the clocks; acts keep their order by number meanwhile",
        )
    return Check("clock", "ok", "not behind the newest act")


def _unsealed(now: datetime, count: int, oldest: str | None) -> Check:
    age = (now - instant(oldest)).total_seconds() if oldest else 0.0
    if age > _LATE_SECONDS:
        return Check(
            "sealing",
            "fail",
            f"{count} acts wait to be sealed, the oldest for {age:.0f} s",
            "see `carelake audit verify`",
        )
    return Check("sealing", "ok", f"{count} acts wait to be sealed")


def _head(sealed: int, head: bytes | None) -> Check:
    if sealed and head is None:
        return Check(
            "head",
            "fail",
            "the signed head beside the root key is missing",
            "see `carelake audit verify`; put it back",
        )
    return Check("head", "ok", "kept beside the root key" if head else "nothing is sealed yet")


def _jobs(unfinished: list[dict[str, Any]]) -> Check:
    running = [a for a in unfinished if elsewhere(a.get("process", {})) or alive(a.get("process", {}))]
    if len(running) < len(unfinished):
        return Check(
            "jobs", "warn", f"{len(unfinished) - len(running)} jobs were broken off", "run their commands again"
        )
    return Check("jobs", "ok", f"{len(running)} jobs run" if running else "none runs")


def _failed(check: str, error: Exception) -> Check:
    said = error.code if isinstance(error, CarelakeError) else type(error).__name__
    return Check(check, "fail", f"{message_of(error)} [{said}]", "as it says")


def _skipped(what: str, why: str) -> Check:
    return Check(what, "warn", f"not looked at: {why}", "put that right, and run this again")
