"""What a window of time was like, put together of days that were counted before.

A day that is over is counted once, by the cells of the model's baseline, and kept sealed; counts add up, so a report
over a year opens no prediction of a day that is known. A kept day is used only while it has as many predictions as
when it was counted, by the same cells; otherwise it is counted again. Days with few patients are not kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import numpy as np
from sqlalchemy import Connection, delete, func, insert, select

from carelake.core.clock import iso
from carelake.core.permit import Permit
from carelake.core.shapes import decodable
from carelake.monitor.baseline import Baseline, counted
from carelake.monitor.spread import FEW, Counts
from carelake.monitor.tables import profile
from carelake.serving import capture
from carelake.serving.tables import prediction
from carelake.vault.workspace import Vault

__all__ = ["Window", "window"]

_SETTLED = timedelta(hours=1)
"""After its end a day waits so long for what was still being written."""


@dataclass(frozen=True)
class Window:
    """A window of time.

    Attributes:
        seen: counts by column.
        rows: predictions that were counted.
        patients: how many different patients they are of.
        erased: predictions that could not be read, since their patients were erased.
        merged: days that were known; the others were read.
        days: by day, its counts, for reports over time.
    """

    seen: dict[str, Counts]
    rows: int
    patients: int
    erased: int
    merged: int
    days: dict[str, dict[str, Counts]]


class _Kept(msgspec.Struct, frozen=True, array_like=True):
    cells: bytes
    missing: int
    total: float
    square: float
    broken: int
    negative: int


def window(
    permit: Permit,
    vault: Vault,
    endpoint: str,
    baseline: Baseline,
    names: Sequence[str],
    since: datetime,
    until: datetime,
) -> Window:
    """The counts of what an endpoint (ref) was asked and answered in [since, until).

    Needs the grants ``rows:read``, ``rows:write``: whole days that are over are kept.
    """
    digest = baseline.digest
    with vault.database.reading(permit) as tx:
        days = _days(tx, permit.account, endpoint, since, until)
        patients = _patients(tx, permit.account, endpoint, since, until)
        kept = _kept(permit, tx, vault, endpoint, digest, days)
    found: dict[str, dict[str, Counts]] = dict(kept)
    fresh: dict[str, dict[str, Counts]] = {}
    erased = 0
    for day, rows in days.items():
        if day in kept and _whole(day, since, until, vault.clock.now()):
            continue
        start, end = _bounds(day)
        with vault.database.reading(permit) as tx:
            seen = capture.replay(permit, tx, vault, endpoint, max(start, since), min(end, until), most=max(1, rows))
        erased += seen.erased
        found[day] = counted(baseline.spread, seen.x, seen.p, names) if len(seen.p) else {}
        several = len(np.unique(seen.owner)) >= FEW
        if several and not seen.erased and len(seen.p) == rows and _whole(day, since, until, vault.clock.now()):
            fresh[day] = found[day]
    if fresh:
        _keep(permit, vault, endpoint, digest, {day: (days[day], seen) for day, seen in fresh.items()})
    total: dict[str, Counts] = {}
    for one in found.values():
        for name, counts in one.items():
            total[name] = total[name] + counts if name in total else counts
    rows = max((counts.rows for counts in total.values()), default=0)
    known = sum(_whole(day, since, until, vault.clock.now()) for day in kept)
    return Window(total, rows, min(patients, rows), erased, known, dict(sorted(found.items())))


def _bounds(day: str) -> tuple[datetime, datetime]:
    start = datetime.fromisoformat(day).replace(tzinfo=UTC)
    return start, start + timedelta(days=1)


def _whole(day: str, since: datetime, until: datetime, now: datetime) -> bool:
    start, end = _bounds(day)
    return since <= start and end <= until and end + _SETTLED <= now


def _within(account: str, endpoint: str, since: datetime, until: datetime) -> Any:
    own = (prediction.c.account == account) & (prediction.c.endpoint == endpoint)
    own &= prediction.c.role == capture.PRODUCTION
    return own & (prediction.c.at >= iso(since)) & (prediction.c.at < iso(until))


def _days(tx: Connection, account: str, endpoint: str, since: datetime, until: datetime) -> dict[str, int]:
    day = func.substr(prediction.c.at, 1, 10)
    query = select(day, func.count()).where(_within(account, endpoint, since, until)).group_by(day).order_by(day)
    return {str(name): int(rows) for name, rows in tx.execute(query)}


def _patients(tx: Connection, account: str, endpoint: str, since: datetime, until: datetime) -> int:
    query = select(func.count(prediction.c.owner.distinct())).where(_within(account, endpoint, since, until))
    return int(tx.execute(query).scalar_one())


def _kept(
    permit: Permit, tx: Connection, vault: Vault, endpoint: str, digest: str, days: Mapping[str, int]
) -> dict[str, dict[str, Counts]]:
    own = (profile.c.account == permit.account) & (profile.c.endpoint == endpoint) & (profile.c.baseline == digest)
    rows = [row for row in tx.execute(select(profile).where(own)) if days.get(row.day) == row.rows]
    if not rows:
        return {}
    keys = vault.sealer.keys_for(permit, tx, [""], create=False)
    return {row.day: _read(keys.open("", _context(endpoint, row.day), row.sealed)) for row in rows}


def _keep(
    permit: Permit, vault: Vault, endpoint: str, digest: str, fresh: Mapping[str, tuple[int, dict[str, Counts]]]
) -> None:
    with vault.database.transaction(permit) as tx:
        keys = vault.sealer.keys_for(permit, tx, [""])
        own = (profile.c.account == permit.account) & (profile.c.endpoint == endpoint)
        tx.execute(delete(profile).where(own, profile.c.day.in_(list(fresh))))
        made = [
            {
                "account": permit.account,
                "endpoint": endpoint,
                "day": day,
                "baseline": digest,
                "rows": rows,
                "act": permit.act,
                "sealed": keys.seal("", _context(endpoint, day), _written(seen)),
            }
            for day, (rows, seen) in fresh.items()
        ]
        tx.execute(insert(profile), made)
        permit.log.count(profiles=len(made))


def _context(endpoint: str, day: str) -> bytes:
    return b"monitor-profile\x1f" + endpoint.encode() + b"\x1f" + day.encode()


def _written(seen: Mapping[str, Counts]) -> bytes:
    kept = {
        name: _Kept(c.cells.astype("<i8").tobytes(), c.missing, c.total, c.square, c.broken, c.negative)
        for name, c in seen.items()
    }
    return msgspec.msgpack.encode(kept)


def _read(data: bytes) -> dict[str, Counts]:
    kept = msgspec.msgpack.decode(data, type=decodable(dict[str, _Kept]))
    return {
        name: Counts(
            np.frombuffer(one.cells, dtype="<i8").astype(np.int64),
            one.missing,
            one.total,
            one.square,
            one.broken,
            one.negative,
        )
        for name, one in kept.items()
    }
