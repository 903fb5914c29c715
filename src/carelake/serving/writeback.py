"""RiskAssessments that are due: what InvokeEndpoint answered goes into the record a moment later, from its capture.

The capture tells everything: the reasons are those of the same model over the same features. What is due is a row of
the transaction that captured it, so a process that is killed leaves it to the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from sqlalchemy import Connection, delete, func, select

from carelake.audit.nouns import Nouns
from carelake.core.clock import instant
from carelake.core.errors import CarelakeError
from carelake.core.nouns import Noun
from carelake.core.permit import Permit
from carelake.models.artifact import ModelFiles
from carelake.serving import capture, windows
from carelake.serving.guard import Watcher
from carelake.serving.loaded import Loaded
from carelake.serving.predictions import Prediction, risk_assessment
from carelake.serving.scoring import Asked, Endpoint, answers
from carelake.serving.tables import due, outcome, prediction
from carelake.vault.places import ACCOUNTS
from carelake.vault.workspace import Vault

__all__ = ["catch_up", "flush", "waiting", "write_due"]

_LITTLE, _MORE, _MUCH = 4, 50, 100
_BEHIND = 5_000


def write_due(permit: Permit, vault: Vault, nouns: Nouns, loaded: Loaded, keep: capture.Keeper, most: int) -> int:
    """Write some of what is due; one transaction, in which no model is read and no sandbox is begun.

    What waits for a model that cannot be had waits alone. Where there is nothing else, why is raised.
    """
    files = _models(permit, vault, loaded, most)
    if not files:
        return 0
    with vault.database.transaction(permit) as tx:
        page = _due(tx, permit.account, most, list(files))
        if not page:
            return 0
        resources = []
        for row, captured, _ in capture.opened(permit, tx, vault, page):
            if captured is not None:
                resources.append(_rebuilt(permit, tx, vault, nouns, files, row, captured))
        keep(permit, tx, resources)
        tx.execute(delete(due).where(due.c.ref.in_([row.ref for row in page])))
        permit.log.count(written_back=len(resources))
        return len(page)


def _models(permit: Permit, vault: Vault, loaded: Loaded, most: int) -> dict[str, ModelFiles]:
    """The models of the first that are due, by endpoint; of those that come after, where none of these can be had."""
    hindered: dict[str, CarelakeError] = {}
    while True:
        told = select(prediction.c.endpoint, prediction.c.model)
        own = (due.c.account == permit.account, prediction.c.endpoint.not_in(list(hindered)))
        with vault.database.reading(permit) as tx:
            named = told.join_from(due, prediction, prediction.c.ref == due.c.ref).where(*own)
            first = {row.endpoint: row.model for row in tx.execute(named.order_by(due.c.ref).limit(most))}
        found: dict[str, ModelFiles] = {}
        for endpoint, model in first.items():
            try:
                found[endpoint] = loaded.named(permit, endpoint, model)
            except CarelakeError as error:
                hindered[endpoint] = error
        if found or not hindered:
            return found
        if not first:
            raise next(iter(hindered.values()))


def _due(tx: Connection, account: str, most: int, endpoints: list[str]) -> list[Any]:
    query = (
        select(prediction.c.ref, prediction.c.owner, prediction.c.sealed, prediction.c.endpoint, prediction.c.model)
        .add_columns(outcome.c.sealed.label("outcome"))
        .join_from(due, prediction, prediction.c.ref == due.c.ref)
        .join(outcome, outcome.c.ref == due.c.ref, isouter=True)
        .where(due.c.account == account, prediction.c.endpoint.in_(endpoints))
        .order_by(due.c.ref)
        .limit(most)
    )
    return list(tx.execute(query))


def _rebuilt(
    permit: Permit,
    tx: Connection,
    vault: Vault,
    nouns: Nouns,
    files: Mapping[str, ModelFiles],
    row: Any,
    captured: capture.Captured,
) -> dict[str, Any]:
    noun: Noun = nouns.get(tx, row.endpoint)
    endpoint = Endpoint(noun, files[row.endpoint])
    x = np.frombuffer(captured.features, dtype="<f8").reshape(1, -1).astype(np.float64)
    [said] = answers(vault, permit, endpoint, Asked(x, [row.owner], [captured.encounter], [instant(captured.at)]))
    one: Prediction = said.prediction
    return risk_assessment(one, f"{noun.body['model_name']} v{noun.body['model_version']}")


def waiting(vault: Vault, watcher: Watcher) -> dict[str, int]:
    """How many are due, by account."""
    with vault.database.reading(watcher.watching(ACCOUNTS[0])) as tx:
        query = select(due.c.account, func.count()).group_by(due.c.account)
        return {row[0]: int(row[1]) for row in tx.execute(query)}


def catch_up(vault: Vault, watcher: Watcher, write: Callable[[Permit, int], int], *, quiet: bool) -> int:
    """Write some of what is due by ``write``; answers how many are left.

    Args:
        quiet: nobody asks anything just now.
    """
    left = waiting(vault, watcher)
    for account, many in left.items():
        with watcher.guarding(account) as permit:
            left[account] -= write(permit, _MUCH if quiet else _LITTLE if many < _BEHIND else _MORE)
    return sum(left.values())


def flush(vault: Vault, watcher: Watcher, late: windows.Late) -> int:
    """Write counts that no request took along."""
    done = 0
    for account in late.accounts():
        with watcher.guarding(account) as permit:
            counts = late.take(account)
            try:
                with vault.database.transaction(permit) as tx:
                    windows.add(tx, account, vault.clock.now(), counts)
            except BaseException:
                late.back(account, counts)
                raise
        done += 1
    return done
