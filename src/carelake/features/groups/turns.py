"""States of the online stores that have copies elsewhere, and what changed from each to the next.

A state has a number and a word by chance, so that no two states of any copy of the workspace are called the same: a
copy that says which state it holds says exactly what it holds. What is changed is named by HMACs, as the copies are.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable
from typing import NamedTuple

from sqlalchemy import Connection

from carelake.core.permit import Permit
from carelake.features.groups.definition import Group
from carelake.features.groups.log import teller
from carelake.vault.database import bulk, rows_of, scope_of
from carelake.vault.workspace import Vault

__all__ = ["State", "changed", "forget", "since", "state_of"]

_KEPT = 1_000
"""States that are remembered: a copy that is further behind begins anew."""
_MANY = 500
_ANY = b""


class State(NamedTuple):
    """Which state an online store is in; of number 0 nothing is remembered."""

    number: int
    word: str


def changed(permit: Permit, tx: Connection, vault: Vault, group: Group, records: Collection[str]) -> None:
    """Note in the transaction of a write that these records of the online store are others now."""
    if group.copied and records:
        tell = teller(permit, vault, group.id)
        _turn(tx, permit.account, group, [tell(one) for one in records] if len(records) <= _MANY else [_ANY])


def forget(tx: Connection, account: str, group: Group) -> None:
    """Make all that is remembered nobody's: every copy begins anew."""
    if group.copied:
        bulk(tx, "DELETE FROM feature_change WHERE grp = ?", [(group.id,)])
        _turn(tx, account, group, [_ANY])


def _turn(tx: Connection, account: str, group: Group, keys: Iterable[bytes]) -> None:
    word = secrets.token_hex(16)
    bulk(tx, "UPDATE feature_group SET turn = turn + 1, word = ? WHERE id = ?", [(word, group.id)])
    number = state_of(tx, group).number
    rows = [(group.id, number, one, account, word) for one in dict.fromkeys(keys)]
    bulk(tx, "INSERT INTO feature_change (grp, turn, record, account, word) VALUES (?, ?, ?, ?, ?)", rows)
    bulk(tx, "DELETE FROM feature_change WHERE grp = ? AND turn <= ?", [(group.id, number - _KEPT)])


def state_of(tx: Connection, group: Group) -> State:
    """As this snapshot sees it."""
    scope = scope_of(tx)
    known = None if scope.writing else scope.memo.get(("features.state", group.id))
    return State(*(known or rows_of(tx, "SELECT turn, word FROM feature_group WHERE id = ?", group.id)[0]))


def since(tx: Connection, group: Group, state: State) -> list[bytes] | None:
    """What changed after a state, by HMAC; None where that is not known of each, so that anything may have."""
    known = "SELECT 1 FROM feature_change WHERE grp = ? AND turn = ? AND word = ? LIMIT 1"
    if not rows_of(tx, known, group.id, state.number, state.word):
        return None
    later = "SELECT DISTINCT record FROM feature_change WHERE grp = ? AND turn > ?"
    found = [bytes(row[0]) for row in rows_of(tx, later, group.id, state.number)]
    return None if _ANY in found else found
