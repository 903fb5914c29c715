"""``events``: consumers of the outbox."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection

from carelake.apps.cli.session import Session, answer, note
from carelake.apps.cli.tables import show
from carelake.apps.courier import Courier
from carelake.core import canonical
from carelake.core.errors import Conflict, Invalid
from carelake.core.permit import Permit
from carelake.events.addresses import masked
from carelake.events.delivery import Report
from carelake.events.drivers.choice import target_of
from carelake.events.filters import Filter, start_of
from carelake.events.letters import Letters
from carelake.events.retention import trim as trim_events
from carelake.events.standing import standing
from carelake.events.subscriptions import Subscription, Subscriptions

__all__ = [
    "add",
    "consumers",
    "courier",
    "dead_drop",
    "dead_list",
    "dead_retry",
    "deliver",
    "read",
    "remove",
    "replay",
    "rotate",
    "set_state",
    "trim",
]


@contextmanager
def _managing(session: Session) -> Iterator[tuple[Permit, Connection, Subscriptions]]:
    workspace = session.workspace
    with (
        workspace.enter(session.caller(), "event:manage", "events") as permit,
        workspace.vault.database.transaction(permit) as tx,
    ):
        yield permit, tx, Subscriptions(tx, workspace.vault.clock, workspace.vault.sealer)


@contextmanager
def _looking(session: Session) -> Iterator[tuple[Permit, Connection, Subscriptions]]:
    workspace = session.workspace
    with (
        workspace.enter(session.caller(), "event:read", "events") as permit,
        workspace.vault.database.reading(permit) as tx,
    ):
        yield permit, tx, Subscriptions(tx, workspace.vault.clock, workspace.vault.sealer)


def _ref(session: Session, permit: Permit, name: str) -> str:
    """How the trail tells of a consumer: its name was typed freely."""
    return session.workspace.vault.keyring.reference(permit, "consumer", name.encode())


def consumers(session: Session, *, json_out: bool) -> None:
    """List consumers and where they stand."""
    clock = session.workspace.vault.clock
    with _looking(session) as (permit, tx, found):
        rows = [{**_plain(one), **asdict(standing(tx, found, one, clock))} for one in found.all(permit.account)]
    if json_out:
        answer(rows)
    else:
        show(["name", "driver", "state", "types", "offset", "lag", "oldest", "dead"], rows)


def add(
    session: Session,
    *,
    json_out: bool,
    name: str,
    types: list[str],
    kinds: list[str],
    accounts: list[str],
    start: str,
    url: str | None,
    bus: str | None,
    region: str | None,
    endpoint: str | None,
) -> None:
    """Add a consumer."""
    settings = session.workspace.settings.events
    with _managing(session) as (permit, _, found):
        driver, target = target_of(settings, url=url, bus=bus, region=region, endpoint=endpoint)
        wanted = Filter.of(tuple(types), tuple(accounts), tuple(kinds))
        secret = found.add(permit, name, driver, wanted, target, start_of(start))
        said = _plain(found.get(name))
        permit.log.note(change="add", driver=driver, consumer=_ref(session, permit, name))
    _told({**said, **({"secret": secret} if secret else {})}, f"Added {name} ({driver}).", secret, json_out=json_out)


def remove(session: Session, *, json_out: bool, name: str) -> None:
    """Remove a consumer."""
    with _managing(session) as (permit, _, found):
        found.get(name, permit.account)
        found.remove(name)
        permit.log.note(change="remove", consumer=_ref(session, permit, name))
    _told({"name": name, "removed": True}, f"Removed {name}.", json_out=json_out)


def set_state(session: Session, *, json_out: bool, name: str, state: str) -> None:
    """Pause or resume a consumer."""
    with _managing(session) as (permit, _, found):
        found.get(name, permit.account)
        found.set_state(name, state)
        permit.log.note(change=state, consumer=_ref(session, permit, name))
    _told({"name": name, "state": state}, f"{name} is {state}.", json_out=json_out)


def rotate(session: Session, *, json_out: bool, name: str) -> None:
    """Make a new signing secret."""
    with _managing(session) as (permit, _, found):
        secret = found.rotate(permit, name)
        permit.log.note(change="rotate", consumer=_ref(session, permit, name))
    _told({"name": name, "secret": secret}, f"{name} has a new secret.", secret, json_out=json_out)


def replay(session: Session, *, json_out: bool, name: str, start: str) -> None:
    """Move a consumer back."""
    if start == "now":
        raise Invalid("events.start", "A replay goes back; give beginning, a sequence, or an instant.")
    with _managing(session) as (permit, _, found):
        found.get(name, permit.account)
        ahead = found.replay(name, start_of(start))
    _told({"name": name, "ahead": ahead}, f"{ahead} events lie ahead of {name} now.", json_out=json_out)


def trim(session: Session, *, json_out: bool, days: int | None) -> None:
    """Delete old events of the account."""
    workspace = session.workspace
    kept = workspace.settings.events.keep_days if days is None else days
    with _managing(session) as (permit, tx, found):
        try:
            before = workspace.vault.clock.now() - timedelta(days=kept)
        except OverflowError:
            raise Invalid("events.days", "So many days ago there was no calendar; give fewer.") from None
        gone = trim_events(tx, found.all(), before, account=permit.account)
        permit.log.count(trimmed=gone)
    _told({"trimmed": gone, "before": before.isoformat()}, f"{gone} events were deleted.", json_out=json_out)


def courier(session: Session, **other: Any) -> Courier:
    """A worker on behalf of the one who types."""
    return Courier(session.workspace, session.caller(), **other)


def deliver(session: Session, *, json_out: bool, name: str | None) -> None:
    """Deliver what is due now, to one consumer or to all."""
    with courier(session) as worker:
        if name is None:
            reports = worker.round()
        else:
            with _looking(session) as (permit, _, found):
                told = found.get(name, permit.account)
            reports = [worker.turn(told)]
    rows = [_reported(one) for one in reports]
    if json_out:
        answer(rows)
    else:
        show(["name", "delivered", "retried", "dead", "held", "busy", "failed"], rows)


def read(session: Session, *, json_out: bool, name: str, limit: int) -> None:
    """Write the next events of a consumer to standard output, then move its place past them."""
    with _looking(session) as (permit, _, found):
        told = found.get(name, permit.account)
    if told.driver != "pull":
        raise Invalid("events.driver", "This consumer is delivered to; only one without an address is read.")
    worker = courier(session, write=_write_line)
    if worker.turn(told, most=limit).busy:
        raise Conflict("events.busy", "Another process reads as this consumer now, or it is paused.")


def _write_line(said: dict[str, Any]) -> None:
    sys.stdout.write(canonical.dump(said).decode() + "\n")
    # Before it counts as delivered: what fails to leave here is read again.
    sys.stdout.flush()


def dead_list(session: Session, *, json_out: bool, name: str) -> None:
    """List dead letters."""
    with _looking(session) as (permit, tx, found):
        found.get(name, permit.account)
        rows = [asdict(one) for one in Letters(tx, name).all()]
    if json_out:
        answer(rows)
    else:
        show(["sequence", "type", "at", "reason", "attempts", "state"], rows)


def dead_retry(session: Session, *, json_out: bool, name: str, sequences: list[int]) -> None:
    """Have dead letters delivered once more."""
    with _managing(session) as (permit, tx, found):
        found.get(name, permit.account)
        number = Letters(tx, name).again(sequences or None)
    _told({"name": name, "retried": number}, f"{number} will be delivered once more.", json_out=json_out)


def dead_drop(session: Session, *, json_out: bool, name: str, sequences: list[int]) -> None:
    """Give dead letters up."""
    with _managing(session) as (permit, tx, found):
        found.get(name, permit.account)
        number = Letters(tx, name).drop(sequences or None)
        permit.log.count(dropped=number)
    _told({"name": name, "dropped": number}, f"{number} were dropped.", json_out=json_out)


def _plain(told: Subscription) -> dict[str, Any]:
    named = ("name", "account", "driver", "state", "created")
    wanted = {name: list(getattr(told.filter, name)) for name in ("types", "accounts", "kinds")}
    target = {k: masked(str(v)) if k in ("url", "endpoint") else v for k, v in told.target.items()}
    return {**{name: getattr(told, name) for name in named}, **wanted, "target": target}


def _reported(one: Report) -> dict[str, Any]:
    return {"name": one.name, "busy": one.busy, "more": one.more, "failed": one.failed, **asdict(one.tally)}


def _told(said: dict[str, Any], words: str, secret: str | None = None, *, json_out: bool) -> None:
    if json_out:
        answer(said)
        return
    note(words)
    if secret:
        note("Its signing secret is shown this once; keep it where the receiver finds it:")
        sys.stdout.write(secret + "\n")
