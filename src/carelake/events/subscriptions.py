"""Durable consumers: their names, what they follow, where to, and where they stand."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, delete, func, insert, or_, select, update

from carelake.core.clock import Clock, iso
from carelake.core.errors import Conflict, Invalid, NotFound, Refused
from carelake.core.permit import Permit
from carelake.core.shapes import decodable
from carelake.events.addresses import masked
from carelake.events.filters import Filter, Start
from carelake.events.outbox import known_streams
from carelake.events.signing import new_secret
from carelake.events.tables import cursor, dead, event, settled, stream, subscription
from carelake.vault.sealing import Sealer

__all__ = ["DRIVERS", "Subscription", "Subscriptions"]

DRIVERS = ("local", "pull", "webhook", "eventbridge")
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_OVERLAP = timedelta(days=1)
_S = subscription.c


@dataclass(frozen=True, slots=True)
class Subscription:
    """One consumer.

    Attributes:
        account: whose permit it is delivered under. It follows that account's events; one of `security` may follow
            those of others.
        driver: ``local`` (a function in this process), ``pull`` (read by a command), ``webhook``, ``eventbridge``.
        target: where to; a webhook's URL is masked, see `Subscriptions.opened`.
        sealed: its signing secrets and a webhook's URL, sealed.
    """

    name: str
    account: str
    driver: str
    state: str
    filter: Filter
    target: Mapping[str, Any]
    created: str
    sealed: bytes | None = field(default=None, repr=False)


class _Secret(msgspec.Struct, frozen=True):
    """A signing secret; ``until`` is "" for the newest, and the end of its time for the one before it.

    Beside the newest is the URL: its path and query are often as secret.
    """

    secret: str
    until: str = ""
    url: str = ""


class Subscriptions:
    """The table of consumers, in the caller's transaction."""

    def __init__(self, tx: Connection, clock: Clock, sealer: Sealer) -> None:
        self._tx = tx
        self._clock = clock
        self._sealer = sealer

    def add(
        self, permit: Permit, name: str, driver: str, wanted: Filter, target: Mapping[str, Any], start: Start
    ) -> str | None:
        """Add a consumer; answers its signing secret where the driver signs. It is shown this once.

        Raises:
            Invalid: ``events.name``, ``events.driver``, ``events.start``.
            Refused: ``events.account``, when it would follow another account's events.
            Conflict: ``events.exists``.
            Gone: ``events.trimmed``.
        """
        if not _NAME.fullmatch(name):
            raise Invalid("events.name", "A consumer's name is 1 to 64 lower-case letters, digits and dashes.")
        if driver not in DRIVERS:
            raise Invalid("events.driver", f"Unknown driver; expected one of {', '.join(DRIVERS)}.")
        wanted = _within(permit, wanted)
        if self._tx.execute(select(_S.name).where(_S.name == name)).first():
            raise Conflict("events.exists", "There is a consumer of this name already; remove it, or take another.")
        secret = new_secret() if driver == "webhook" else None
        url = str(target.get("url", ""))
        self._tx.execute(
            insert(subscription).values(
                name=name,
                account=permit.account,
                driver=driver,
                state="active",
                filter=msgspec.json.encode(wanted).decode(),
                target=_shown(target),
                secret=self._seal(permit, name, [_Secret(secret, url=url)]) if secret else None,
                created=iso(self._clock.now()),
                owner="",
                fence=0,
                until="",
            )
        )
        known_streams(self._tx)
        self._place(name, wanted, start)
        return secret

    def get(self, name: str, account: str | None = None) -> Subscription:
        """The consumer of that name.

        Raises:
            NotFound: ``events.no_such_consumer``; also for one of another account.
        """
        row = self._tx.execute(select(subscription).where(_S.name == name)).first()
        if row is None or account not in (None, row.account):
            raise NotFound("events.no_such_consumer", "No such consumer; `carelake events list` shows them.")
        return _subscription(row)

    def all(self, account: str | None = None) -> list[Subscription]:
        """Every consumer, or an account's, by name."""
        query = select(subscription).order_by(_S.name)
        if account is not None:
            query = query.where(_S.account == account)
        return [_subscription(row) for row in self._tx.execute(query)]

    def remove(self, name: str) -> None:
        """Remove a consumer with all that is kept of it; who delivers to it is stopped at its next settlement."""
        for table in (cursor, settled, dead):
            self._tx.execute(delete(table).where(table.c.consumer == name))
        self._tx.execute(delete(subscription).where(_S.name == name))

    def set_state(self, name: str, state: str) -> None:
        """``active`` or ``paused``; what is on its way when it is paused is still settled."""
        self._tx.execute(update(subscription).where(_S.name == name).values(state=state))

    def replay(self, name: str, start: Start) -> int:
        """Move a consumer back to a start, never on; answers how many events lie ahead of it now.

        Doing it twice is doing it once. Whoever delivers now loses the lease, so that nothing settled under the old
        place moves the new one.

        Raises:
            Gone: ``events.trimmed``. Invalid: ``events.start``.
        """
        # The row first: it is locked from here on, and no settlement comes between.
        self._tx.execute(update(subscription).where(_S.name == name).values(fence=_S.fence + 1, owner="", until=""))
        told = self.get(name)
        places = self._places(name)
        for row in self._streams(told.filter):
            before = start.before(self._tx, row)
            if before < places.get((row.account, row.type), 0):
                self._set_place(name, row, before)
                self._forget_after(told, row, before)
        return sum(self.ahead(told).values())

    def ahead(self, told: Subscription) -> dict[tuple[str, str], int]:
        """How many events each of its streams has after its cursor; streams without any are left out."""
        places = self._places(told.name)
        found = {}
        for row in self._streams(told.filter):
            key = (row.account, row.type)
            own = (event.c.account == row.account) & (event.c.type == row.type)
            query = select(func.count()).select_from(event).where(own, event.c.seq > places.get(key, 0))
            number = self._tx.execute(_of_kinds(query, told.filter)).scalar_one()
            if number:
                found[key] = int(number)
        return found

    def rotate(self, permit: Permit, name: str) -> str:
        """A new signing secret, shown this once; the one before it signs beside it for a day.

        Raises:
            Invalid: ``events.no_secret``.
        """
        told = self.get(name, permit.account)
        secrets = self._secrets(permit, told)
        if not secrets:
            raise Invalid("events.no_secret", "This consumer's driver does not sign; only webhooks do.")
        made = new_secret()
        before = _Secret(secrets[0].secret, iso(self._clock.now() + _OVERLAP))
        url = secrets[0].url or str(told.target.get("url", ""))
        sealed = self._seal(permit, name, [_Secret(made, url=url), before])
        said = {"secret": sealed, "target": _shown(told.target)}
        self._tx.execute(update(subscription).where(_S.name == name).values(said))
        return made

    def signing(self, permit: Permit, told: Subscription) -> list[str]:
        """The secrets that are good now, the newest first."""
        now = iso(self._clock.now())
        return [one.secret for one in self._secrets(permit, told) if not one.until or now < one.until]

    def opened(self, permit: Permit, told: Subscription) -> Subscription:
        """The same consumer with the whole of its URL, for whoever calls it."""
        url = next((one.url for one in self._secrets(permit, told)), "")
        return replace(told, target={**told.target, "url": url}) if url else told

    # -- inside ---------------------------------------------------------------------------------------------------

    def _place(self, name: str, wanted: Filter, start: Start) -> None:
        newest = self._tx.execute(select(func.max(event.c.seq))).scalar() or 0
        if isinstance(start.at, int) and start.at > newest + 1:
            raise Invalid("events.start", f"There is no such sequence yet; the newest event has {newest}.")
        for row in self._streams(wanted):
            before = start.before(self._tx, row)
            if before:
                self._set_place(name, row, before)

    def _set_place(self, name: str, row: Any, seq: int) -> None:
        key = (cursor.c.consumer == name) & (cursor.c.account == row.account) & (cursor.c.type == row.type)
        self._tx.execute(delete(cursor).where(key))
        said = {"consumer": name, "account": row.account, "type": row.type, "seq": seq}
        self._tx.execute(insert(cursor).values(**said, attempts=0, due="", reason=""))

    def _forget_after(self, told: Subscription, row: Any, before: int) -> None:
        """What comes again is neither a dead letter any more nor sent already.

        A local consumer's effects stay known: it shall have none twice.
        """
        own = (dead.c.account == row.account) & (dead.c.type == row.type)
        self._tx.execute(delete(dead).where(dead.c.consumer == told.name, own, dead.c.seq > before))
        if told.driver != "local":
            ids = select(event.c.id).where(event.c.account == row.account, event.c.type == row.type)
            past = (settled.c.consumer == told.name) & (settled.c.seq > before)
            self._tx.execute(delete(settled).where(past, settled.c.id.in_(ids)))

    def _places(self, name: str) -> dict[tuple[str, str], int]:
        rows = self._tx.execute(select(cursor).where(cursor.c.consumer == name))
        return {(row.account, row.type): row.seq for row in rows}

    def _streams(self, wanted: Filter) -> list[Row[Any]]:
        query = select(stream).where(wanted.streams()).order_by(stream.c.account, stream.c.type)
        return list(self._tx.execute(query))

    def _secrets(self, permit: Permit, told: Subscription) -> list[_Secret]:
        if told.sealed is None:
            return []
        said = self._sealer.open(permit, self._tx, "", _context(told.name), told.sealed)
        return msgspec.json.decode(said, type=decodable(list[_Secret]))

    def _seal(self, permit: Permit, name: str, secrets: list[_Secret]) -> bytes:
        return self._sealer.seal(permit, self._tx, "", _context(name), msgspec.json.encode(secrets))


def _within(permit: Permit, wanted: Filter) -> Filter:
    """The filter, bounded to the permit's account where the account is not the one that watches over the others."""
    if permit.account != "security" and set(wanted.accounts) - {permit.account}:
        raise Refused("events.account", "Only a consumer of the account security follows another account's events.")
    if permit.account != "security":
        return msgspec.structs.replace(wanted, accounts=(permit.account,))
    return wanted


def _of_kinds(query: Any, wanted: Filter) -> Any:
    if not wanted.kinds:
        return query
    return query.where(or_(*(event.c.subject.startswith(kind + ":", autoescape=True) for kind in wanted.kinds)))


def _context(name: str) -> bytes:
    return b"carelake-event-secret-1\x1f" + name.encode()


def _shown(target: Mapping[str, Any]) -> str:
    return msgspec.json.encode({k: masked(v) if k == "url" else v for k, v in target.items()}).decode()


def _subscription(row: Row[Any]) -> Subscription:
    wanted = msgspec.json.decode(row.filter, type=decodable(Filter))
    target = msgspec.json.decode(row.target)
    return Subscription(row.name, row.account, row.driver, row.state, wanted, target, row.created, row.secret)
