"""Use of keys as the trail tells it: every act names the keys that it used."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import Connection, select

from carelake.audit.acts import ActHeader, write
from carelake.audit.tables import act
from carelake.core.clock import Clock, instant, iso
from carelake.core.shapes import decodable
from carelake.vault.key_listing import KeyInfo

if TYPE_CHECKING:
    from carelake.vault.workspace import Vault

__all__ = ["KeyUse", "stale", "tell", "use_report"]

_NAMED = '%"keys":[%'
_USED_IN_ACTS = frozenset({"zone", "patient", "reference"})
"""Kinds whose every use is on an act; accounts, the root and the database are used at each opening."""


@dataclass(slots=True)
class KeyUse:
    """How a version of a key was used.

    Attributes:
        first, last: FHIR instants of the acts; "" when there was none.
        uses: acts that named it. Those that manage keys do not count.
    """

    first: str = ""
    last: str = ""
    uses: int = 0
    by_action: dict[str, int] = field(default_factory=dict)


class _Facts(msgspec.Struct):
    keys: list[str] = []


def use_report(connection: Connection) -> dict[str, KeyUse]:
    """Uses by label, ``production/clinical/v1``; one pass over the acts that name keys."""
    decode = msgspec.json.Decoder(decodable(_Facts)).decode
    found: dict[str, KeyUse] = {}
    query = select(act.c.at, act.c.action, act.c.facts).where(act.c.facts.like(_NAMED)).order_by(act.c.seq)
    for at, action, facts in connection.execution_options(yield_per=10_000).execute(query):
        if action.startswith("key:"):
            continue
        for label in decode(facts).keys:
            use = found.get(label)
            if use is None:
                use = found[label] = KeyUse(first=at)
            use.last = max(use.last, at)
            use.uses += 1
            use.by_action[action] = use.by_action.get(action, 0) + 1
    return found


def stale(key: KeyInfo, use: KeyUse | None, clock: Clock, *, unused_days: int) -> list[str]:
    """Why a key is stale: nobody used it for so long, or it is older than its kind may be; empty when it is not."""
    why: list[str] = []
    if key.state != "active":
        return why
    if key.due:
        why.append("older than its maximum age")
    last = (use.last if use else "") or key.created
    counted = bool(unused_days and last) and key.kind in _USED_IN_ACTS
    if counted and instant(last) + timedelta(days=unused_days) <= clock.now():
        why.append(f"unused for {unused_days} days")
    return why


def tell(vault: Vault) -> int:
    """Write an act for each thing that opening the vault found or did by itself; answers how many."""
    told = vault.keyring.take_notices()
    if not told:
        return 0
    at = iso(vault.clock.now())
    with vault.database.ledger() as connection:
        for notice in told:
            header = ActHeader(vault.ids.new(), "vault", "security", "HSYSADMIN", f"key:{notice.kind}", "keys")
            facts = {name: value for name, value in msgspec.to_builtins(notice).items() if value and name != "kind"}
            write(connection, header, "done", vault.clock, {"found_at": at, **facts})
    return len(told)
