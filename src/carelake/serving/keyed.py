"""Whose sandboxes are given keys: of versions that answer or score along, that a way back may come to, or that have
RiskAssessments to be written yet. A version that was turned down, or whose name was taken out, is given none.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, select

from carelake.audit.nouns import Nouns
from carelake.core.permit import Permit
from carelake.serving import fit, rollout
from carelake.serving.config import Variant
from carelake.serving.sandbox.boxes import Boxes
from carelake.serving.tables import due, prediction

__all__ = ["close_others", "stale"]


@dataclass(frozen=True)
class _Others:
    """Of an endpoint's variants of which something is said to the key ring: those of which it is to say no more.

    Attributes:
        plain: they serve without a sandbox.
        gone: they serve no more.
        waiting: so do these, and have RiskAssessments to be written.
    """

    plain: set[str]
    gone: set[str]
    waiting: set[str]


def stale(permit: Permit, tx: Connection, nouns: Nouns, boxes: Boxes, name: str) -> bool:
    """Whether there is something that `close_others` would do."""
    found = _others(permit, tx, nouns, boxes, name)
    return bool(found.plain or found.gone)


def close_others(permit: Permit, tx: Connection, nouns: Nouns, boxes: Boxes, names: Iterable[str]) -> None:
    """Let nothing be released any more to the other sandboxes of some endpoints; in the transaction that made it so.

    What has RiskAssessments to be written keeps its keys until they are, and the act tells that, too.
    """
    found = [_others(permit, tx, nouns, boxes, name) for name in names]
    boxes.withdraw(permit, tx, sorted(ref for one in found for ref in one.plain))
    boxes.close(permit, tx, sorted(ref for one in found for ref in one.gone))
    if kept := sorted(ref for one in found for ref in one.waiting):
        permit.log.note(kept=kept)


def _others(permit: Permit, tx: Connection, nouns: Nouns, boxes: Boxes, name: str) -> _Others:
    every = {one.ref for one in nouns.find(tx, "endpoint", permit.account, name=name)}
    there = boxes.known(tx, permit.account, every)
    if not there:
        return _Others(set(), set(), set())
    boxed, plain = _standing(tx, permit.account, name)
    gone = {ref for ref in there - plain - boxed if not boxes.closed(permit, ref)}
    waiting = _waiting(tx, permit.account, gone)
    return _Others(there & plain, gone - waiting, waiting)


def _standing(tx: Connection, account: str, name: str) -> tuple[set[str], set[str]]:
    """Refs of approved variants that serve from a sandbox, or would where the endpoint is taken back to them; and of
    those that serve, or would, without one.
    """
    boxed: dict[str, Variant] = {}
    plain: set[str] = set()
    decided: set[str] = set()
    for one in rollout.history(tx, account, name):
        if one.outcome == rollout.ROLLED_BACK:
            continue
        every = [variant for variant in (*one.told.variants, *one.told.shadows) if variant.endpoint not in decided]
        boxed |= {variant.endpoint: variant for variant in every if variant.sandbox}
        plain |= {variant.endpoint for variant in every if not variant.sandbox}
        if not one.under_way:
            decided |= {variant.endpoint for variant in every}
    return {variant.endpoint for variant in fit.approved(tx, list(boxed.values()))}, plain - boxed.keys()


def _waiting(tx: Connection, account: str, endpoints: set[str]) -> set[str]:
    query = select(prediction.c.endpoint).distinct().join_from(due, prediction, prediction.c.ref == due.c.ref)
    return set(tx.scalars(query.where(due.c.account == account, prediction.c.endpoint.in_(sorted(endpoints)))))
