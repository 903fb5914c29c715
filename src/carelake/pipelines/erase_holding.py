"""Who carries an erasure out: a process, and until a time, where it is one of another machine."""

from __future__ import annotations

from datetime import datetime

from carelake.audit.processes import alive, elsewhere, this_process
from carelake.core import canonical
from carelake.core.clock import instant, iso
from carelake.core.permit import Permit

__all__ = ["holder", "mine", "over"]


def holder(permit: Permit) -> str:
    """This process, as its row has it."""
    return canonical.dump({**this_process(), "act": permit.act, "until": iso(permit.expires)}).decode()


def mine(process: str) -> bool:
    """Whether it is this process."""
    told = canonical.load(process)
    return all(told.get(name) == value for name, value in this_process().items())


def over(process: str, now: datetime) -> bool:
    """Whether a process that is not this one works on it no more."""
    told = canonical.load(process)
    if elsewhere(told):
        return now >= instant(told.get("until", "1970-01-01T00:00:00Z"))
    return not alive(told)
