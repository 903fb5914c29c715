"""A trigger starts the definition that it was added to, and no other that somebody put under the same name since.

Whoever may define pipelines could give another's trigger a version that works with that one's rights otherwise. The
digest of the definition is kept with the bounds of whoever added the trigger; one from before that is held to the
version that was the newest when it was added.
"""

from __future__ import annotations

import hashlib
from typing import Any

from sqlalchemy import Connection, select

from carelake.core import canonical
from carelake.core.permit import Permit
from carelake.events.outbox import Outbox
from carelake.pipelines.execution.rows import Rows
from carelake.pipelines.tables import trigger

__all__ = ["CHANGED", "GONE", "digest", "held", "pinned", "tell", "unpinned"]

CHANGED, GONE = "pipelines.trigger_changed", "pipelines.no_such_pipeline"

_PIN = "definition"


def digest(definition: str) -> str:
    """What a definition is pinned by."""
    return hashlib.sha256(definition.encode()).hexdigest()


def pinned(bounds: str | None, definition: str) -> str:
    """Bounds as a trigger keeps them: with the digest of what it starts."""
    return canonical.dump({**_read(bounds), _PIN: digest(definition)}).decode()


def unpinned(bounds: str | None) -> str | None:
    """The bounds alone, as an execution keeps them."""
    told = {name: value for name, value in _read(bounds).items() if name != _PIN}
    return canonical.dump(told).decode() if told else None


def held(tx: Connection, row: Any) -> str:
    """Why a trigger starts nothing, "" where it does: `CHANGED`, or `GONE`."""
    rows = Rows(tx, row.account)
    now = rows.find_pipeline(row.pipeline)
    if now is None:
        return GONE
    pin = _read(row.bounds).get(_PIN)
    if pin is None:
        same = rows.version_at(row.pipeline, row.created) == now.version
    else:
        same = digest(rows.definition(row.pipeline, now.version).definition) == pin
    return "" if same else CHANGED


def tell(permit: Permit, tx: Connection, outbox: Outbox, pipeline: str) -> None:
    """At a new definition: note and publish which triggers wait for it to be confirmed."""
    own = (trigger.c.account == permit.account) & (trigger.c.pipeline == pipeline)
    every = tx.execute(select(trigger).where(own).order_by(trigger.c.name)).all()
    names = [str(row.name) for row in every if held(tx, row)]
    if names:
        permit.log.note(held=names)
        said = {"pipeline": pipeline, "triggers": names, "reason": CHANGED}
        outbox.publish(tx, permit.account, "pipeline.trigger", f"pipeline:{pipeline}", said)


def _read(bounds: str | None) -> dict[str, Any]:
    return dict(canonical.load(bounds)) if bounds else {}
