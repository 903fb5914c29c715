"""Which variants may go on: a version that was turned down answers nobody, shadows nobody, and does not come back.

The state of a version's noun says what was decided; what traffic is moved to is held against the signed record, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from carelake.audit.nouns import Nouns
from carelake.core.errors import Conflict, Corrupt, NotFound, Refused
from carelake.core.permit import Permit
from carelake.models.registry import APPROVED, Registry
from carelake.serving.config import Variant
from carelake.serving.rollout import Routing
from carelake.serving.sandbox.boxes import Boxes
from carelake.vault.database import rows_of

__all__ = ["Unfit", "approved", "on_record", "unfit"]


@dataclass(frozen=True, slots=True)
class Unfit:
    """What of an endpoint is of versions that are not Approved any more.

    Attributes:
        answering: it answers, or would as traffic moves.
        shadows: these score along.
    """

    answering: bool
    shadows: tuple[Variant, ...]

    def __bool__(self) -> bool:
        return self.answering or bool(self.shadows)


def approved(tx: Connection, variants: Sequence[Variant]) -> tuple[Variant, ...]:
    """Those of them whose version is Approved now."""
    models = list(dict.fromkeys(one.model for one in variants))
    if not models:
        return ()
    query = f"SELECT ref FROM noun WHERE state = ? AND ref IN ({', '.join('?' * len(models))})"
    good = {ref for (ref,) in rows_of(tx, query, APPROVED, *models)}
    return tuple(one for one in variants if one.model in good)


def unfit(tx: Connection, nouns: Nouns, routing: Routing, model_name: str = "") -> Unfit:
    """What is not Approved any more of an endpoint.

    Args:
        model_name: only of versions of this model.
    """
    answering = [variant for variant, _ in routing.shares()]
    shadows = [*routing.newest.told.shadows, *routing.main.told.shadows]
    every = list(dict.fromkeys([*answering, *shadows]))
    good = approved(tx, every)
    bad = [one for one in every if one not in good]
    if model_name:
        bad = [one for one in bad if nouns.get(tx, one.model).body["name"] == model_name]
    return Unfit(any(one in answering for one in bad), tuple(one for one in bad if one in shadows))


def on_record(permit: Permit, registry: Registry, boxes: Boxes, variants: Sequence[Variant]) -> bool:
    """Whether each is Approved, its record of that is signed, and its files are those; and its sandbox, where it has
    one, would be given them: what was closed goes on without one as little. Needs ``models:read``, ``rows:read``.

    A record that does not hold is noted on the act.
    """
    for one in variants:
        try:
            registry.released(permit, one.model, closed=one.sandbox)
            if not boxes.returns(permit, one.endpoint, boxed=one.sandbox):
                return False
        except Corrupt as error:
            permit.log.note(altered=one.model, why=error.code)
            return False
        except (Conflict, NotFound, Refused):
            return False
    return True
