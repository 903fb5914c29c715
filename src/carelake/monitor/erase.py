"""What monitors keep that a patient's predictions went into, at an erasure."""

from __future__ import annotations

from sqlalchemy import Connection, delete, func, select

from carelake.monitor.tables import profile
from carelake.serving.tables import prediction

__all__ = ["forget"]


def forget(tx: Connection, account: str, owner: str) -> int:
    """Delete the days on which something was predicted for a patient; call it while the predictions are there."""
    days = (
        select(prediction.c.endpoint, func.substr(prediction.c.at, 1, 10).label("day"))
        .where(prediction.c.account == account, prediction.c.owner == owner)
        .distinct()
    )
    gone = 0
    for row in tx.execute(days).all():
        own = (profile.c.account == account) & (profile.c.endpoint == row.endpoint) & (profile.c.day == row.day)
        gone += tx.execute(delete(profile).where(own)).rowcount
    return gone
