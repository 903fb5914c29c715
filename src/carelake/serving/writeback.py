"""RiskAssessments that are due: what InvokeEndpoint answered goes into the record a moment later, from its capture.

The capture tells everything: the risk is the one that was answered, the reasons are those of the same model over the
same features. What is due is a row of the transaction that captured it, so a process that is killed leaves it to the
next one. Models are asked before the transaction that writes, and what is written is what that one still finds due,
captured as it was asked.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sqlalchemy import Column, Connection, delete, func, select

from carelake.audit.nouns import Nouns
from carelake.core.clock import instant
from carelake.core.errors import CarelakeError
from carelake.core.permit import Permit
from carelake.models.artifact import ModelFiles
from carelake.serving import capture, windows
from carelake.serving.deploying import OUT_OF_SERVICE
from carelake.serving.guard import Watcher
from carelake.serving.loaded import Loaded
from carelake.serving.predictions import risk_assessment
from carelake.serving.scoring import Asked, Endpoint, answers
from carelake.serving.tables import due, outcome, prediction
from carelake.vault.places import ACCOUNTS
from carelake.vault.workspace import Vault

__all__ = ["catch_up", "flush", "waiting", "write_due"]

_LITTLE, _MORE, _MUCH = 4, 50, 100
_BEHIND = 5_000


@dataclass(frozen=True)
class _Told:
    """What is to be written of one capture."""

    captured: capture.Captured
    resource: dict[str, Any]


def write_due(
    permit: Permit,
    vault: Vault,
    nouns: Nouns,
    loaded: Loaded,
    keep: capture.Keeper,
    written: Callable[[Permit, Connection, Sequence[str]], None],
    most: int,
) -> int:
    """Write some of what is due; one transaction, in which no model is read or asked and no sandbox is begun.

    What waits for a model that cannot be had, or asked, waits alone. Where there is nothing else, why is raised.

    Args:
        written: told of endpoints that are out of service and of which something was written, in that transaction.
    """
    endpoints, told, refs = _ready(permit, vault, nouns, loaded, most)
    if not refs:
        return 0
    with vault.database.transaction(permit) as tx:
        resources, done = [], list[str]()
        for row, captured, _ in capture.opened(permit, tx, vault, _due(tx, permit.account, due.c.ref, refs, most)):
            one = told.get(row.ref)
            if captured is not None and (one is None or one.captured != captured):
                continue  # it is another one by now: the next turn asks about that
            resources += [one.resource] if captured is not None and one is not None else []
            done.append(row.ref)
        keep(permit, tx, resources)
        tx.execute(delete(due).where(due.c.ref.in_(done)))
        now = [nouns.get(tx, one) for one in endpoints]
        written(permit, tx, sorted({str(one.body["name"]) for one in now if one.state == OUT_OF_SERVICE}))
        permit.log.count(written_back=len(resources))
        return len(done)


def _ready(
    permit: Permit, vault: Vault, nouns: Nouns, loaded: Loaded, most: int
) -> tuple[dict[str, Endpoint], dict[str, _Told], list[str]]:
    """The first that are due whose models can be had and asked: their endpoints, what is to be written, and refs."""
    hindered: dict[str, CarelakeError] = {}
    while files := _models(permit, vault, loaded, hindered, most):
        with vault.database.reading(permit) as tx:
            first = _due(tx, permit.account, prediction.c.endpoint, files, most)
            page = list(capture.opened(permit, tx, vault, first))
            endpoints = {one: Endpoint(nouns.get(tx, one), files[one]) for one in {row.endpoint for row, *_ in page}}
        told = _asked(permit, vault, endpoints, page, hindered)
        refs = [row.ref for row, captured, _ in page if captured is None or row.ref in told]
        if refs or not page:
            return endpoints, told, refs
    return {}, {}, []


def _asked(
    permit: Permit,
    vault: Vault,
    endpoints: Mapping[str, Endpoint],
    page: Sequence[tuple[Any, Any, float]],
    hindered: dict[str, CarelakeError],
) -> dict[str, _Told]:
    """What models say of captures, by the prediction's ref; in no transaction, since a sandbox takes its time."""
    told: dict[str, _Told] = {}
    for row, captured, _ in page:
        if captured is None or row.endpoint in hindered:
            continue
        try:
            told[row.ref] = _Told(captured, _rebuilt(permit, vault, endpoints[row.endpoint], row, captured))
        except CarelakeError as error:
            hindered[row.endpoint] = error
    return told


def _models(
    permit: Permit, vault: Vault, loaded: Loaded, hindered: dict[str, CarelakeError], most: int
) -> dict[str, ModelFiles]:
    """The models of the first that are due, by endpoint; of those that come after, where none of these can be had.

    Args:
        hindered: endpoints that are passed over; those whose models cannot be had are added.
    """
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


def _due(tx: Connection, account: str, column: Column[Any], wanted: Collection[str], most: int) -> list[Any]:
    query = (
        select(prediction.c.ref, prediction.c.owner, prediction.c.sealed, prediction.c.endpoint)
        .add_columns(outcome.c.sealed.label("outcome"))
        .join_from(due, prediction, prediction.c.ref == due.c.ref)
        .join(outcome, outcome.c.ref == due.c.ref, isouter=True)
        .where(due.c.account == account, column.in_(list(wanted)))
        .order_by(due.c.ref)
        .limit(most)
    )
    return list(tx.execute(query))


def _rebuilt(
    permit: Permit, vault: Vault, endpoint: Endpoint, row: Any, captured: capture.Captured
) -> dict[str, Any]:
    x = np.frombuffer(captured.features, dtype="<f8").reshape(1, -1).astype(np.float64)
    [said] = answers(vault, permit, endpoint, Asked(x, [row.owner], [captured.encounter], [instant(captured.at)]))
    risk, body = captured.probability, endpoint.noun.body
    one = replace(said.prediction, ref=row.ref, probability=risk, flagged=risk >= said.prediction.threshold)
    return risk_assessment(one, f"{body['model_name']} v{body['model_version']}")


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
    left, hindered = waiting(vault, watcher), list[CarelakeError]()
    for account, many in left.items():
        try:
            with watcher.guarding(account) as permit:
                left[account] -= write(permit, _MUCH if quiet else _LITTLE if many < _BEHIND else _MORE)
        except CarelakeError as error:  # what hinders one account keeps no other waiting
            hindered.append(error)
    if hindered:
        raise hindered[0]
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
