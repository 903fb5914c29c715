"""Backend services' clients: which service principal signs by which keys, and what it may ask for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from carelake.access.jwks import is_web, matching, read_keys
from carelake.access.principals import Principal, Principals, within
from carelake.access.scopes import read_scopes
from carelake.access.tables import access_client as table
from carelake.core.clock import instant, iso
from carelake.core.errors import Conflict, Invalid, NotFound, Refused

__all__ = ["ALGORITHMS", "Client", "Clients", "told_as"]

ALGORITHMS = ("RS384", "ES384")
"""What assertions may be signed by (https://hl7.org/fhir/smart-app-launch/STU2.2/client-confidential-asymmetric.html)."""

_LONGEST_URL = 1000
_LONGEST_KEYS = 65_536
_IS_ID = re.compile(r"[A-Za-z0-9_-]{4,64}").fullmatch
_SECRET = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


@dataclass(frozen=True, slots=True)
class Client:
    """One client.

    Attributes:
        purpose: what its tokens are for, in `account`; an assertion has no place to say so.
        scopes: SMART scopes that it may ask for.
        keys_url: where its key set is fetched from; "" when `keys` has it.
    """

    id: str
    principal: str
    account: str
    purpose: str
    scopes: str
    keys_url: str
    keys: str
    created: datetime
    disabled: bool = False

    @property
    def digest(self) -> str:
        """What acts tell of its scopes and keys."""
        return told_as(self.scopes, self.keys_url, self.keys)


def told_as(scopes: str, keys_url: str, keys: str) -> str:
    """The digest of what a client may ask for, and signs by."""
    return sha256("\x1f".join((scopes, keys_url, keys)).encode()).hexdigest()


class Clients:
    """The table of clients, within one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, client: Client, *, by: Principal | None) -> Client:
        """Register a client.

        Raises:
            Invalid: ``access.client``, ``access.client_keys``, ``access.scope``, ``access.jwks``.
            Refused: ``access.client`` for a person, ``access.not_your_account``.
            Conflict: ``access.client_exists``.
        """
        if not _IS_ID(client.id):
            raise Invalid("access.client", "A client's id has 4 to 64 letters, digits, - and _.")
        who = Principals(self._connection).get(client.principal)
        within(who, by)
        if who.kind != "service":
            raise Refused(
                "access.client", "Only a service is a client; `carelake principal add NAME --kind service`."
            )
        if client.account not in who.accounts:
            raise Invalid(
                "access.client", "The principal does not belong to that account; say one of its with --account."
            )
        _check_scopes(client.scopes)
        _check_keys(client)
        if self._row(client.id) is not None:
            raise Conflict("access.client_exists", "A client of this id exists already; choose another.")
        values = {name: getattr(client, name) for name in Client.__slots__}
        self._connection.execute(insert(table).values({**values, "created": iso(client.created)}))
        return self.get(client.id)

    def disable(self, name: str, *, by: Principal | None) -> Client:
        """End a client; it gets no token from now on, and those it has end in minutes."""
        found = self.get(name)
        within(Principals(self._connection).get(found.principal), by)
        self._connection.execute(update(table).where(table.c.id == name).values(disabled=True))
        return self.get(name)

    def get(self, name: str) -> Client:
        """One client; `NotFound` ``access.no_such_client``."""
        found = self._row(name)
        if found is None:
            raise NotFound(
                "access.no_such_client", "There is no such client; `carelake principal client list` has all."
            )
        return found

    def find(self, name: str) -> Client | None:
        """The client of an id that somebody claims."""
        return self._row(name) if _IS_ID(name) else None

    def all(self) -> list[Client]:
        """Every client, the oldest first."""
        return [_client(row) for row in self._connection.execute(select(table).order_by(table.c.created, table.c.id))]

    def _row(self, name: str) -> Client | None:
        row = self._connection.execute(select(table).where(table.c.id == name)).first()
        return _client(row) if row else None


def _check_scopes(text: str) -> None:
    said = read_scopes(text)
    if not said.resources or said.unknown or any(one.level != "system" for one in said.resources):
        raise Invalid(
            "access.scope", "A client's scopes are system scopes, for example system/Patient.rs system/*.read."
        )


def _check_keys(client: Client) -> None:
    if bool(client.keys_url) == bool(client.keys):
        raise Invalid("access.client_keys", "Say where the client's keys are: one address, or one key set.")
    if client.keys_url:
        if len(client.keys_url) > _LONGEST_URL or not is_web(client.keys_url):
            raise Invalid("access.client_keys", "A client's key set is at an https address (http on loopback only).")
        return
    if len(client.keys) > _LONGEST_KEYS:
        raise Invalid("access.client_keys", f"A client's key set has at most {_LONGEST_KEYS} bytes.")
    keys = read_keys(client.keys)
    if any(not _SECRET.isdisjoint(key) for key in keys):
        raise Invalid("access.client_keys", "The key set holds a private key, which nobody but the client may have.")
    kids = [key.get("kid") for key in keys]
    if len(set(map(str, kids))) < len(kids) or not all(isinstance(kid, str) and kid for kid in kids):
        raise Invalid("access.client_keys", "Each key of the set has a kid of its own.")
    if not any(matching(keys, str(kid), algorithm) for kid in kids for algorithm in ALGORITHMS):
        raise Invalid(
            "access.client_keys", f"The set has no key for {' or '.join(ALGORITHMS)}: RSA of 2048 bits, P-384."
        )


def _client(row: Row[Any]) -> Client:
    said = {**row._mapping, "created": instant(row.created), "disabled": bool(row.disabled)}
    return Client(**{name: said[name] for name in Client.__slots__})
