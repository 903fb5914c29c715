"""What whoever started an execution held when they did: its steps work with no more, whatever they hold by then.

A key or a token may carry fewer roles than its principal has. The execution outlives it, and is carried out by
another process, so what it carried is kept with the execution; what was taken from the principal since is gone too.
"""

from __future__ import annotations

from dataclasses import replace

from carelake.access.principals import Principal
from carelake.access.proofs import caller_of
from carelake.core import canonical
from carelake.core.permit import Permit

__all__ = ["bounded", "bounds_of"]


def bounds_of(permit: Permit) -> str | None:
    """What the holder of a permit came with, as it is kept; None for a permit of no gate."""
    who = caller_of(permit)
    if who is None:
        return None
    narrowed = None if who.narrowed is None else list(who.narrowed)
    return canonical.dump({"roles": sorted(who.roles), "narrowed": narrowed}).decode()


def bounded(who: Principal, bounds: str | None) -> Principal:
    """A principal with what is left of it within bounds; None bounds nothing, as executions before schema 0007."""
    if not bounds:
        return who
    told = canonical.load(bounds)
    narrowed = who.narrowed
    if told["narrowed"] is not None:
        narrowed = tuple(one for one in told["narrowed"] if narrowed is None or one in narrowed)
    return replace(who, roles=tuple(role for role in who.roles if role in told["roles"]), narrowed=narrowed)
