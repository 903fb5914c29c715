"""Results that are used again, from the cache or from the execution that a selective one names: each is asked for.

A result rests on what its step asked leave for. Whoever starts an execution is asked the same before they are given
it, with what they came with: who may not read what went in gets nothing that came out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from carelake.access.proofs import caller_of
from carelake.core.clock import iso
from carelake.core.errors import NotFound
from carelake.core.permit import Permit
from carelake.pipelines.definition.document import Step
from carelake.pipelines.execution.bounds import bounded
from carelake.pipelines.execution.cache import key_of
from carelake.pipelines.execution.rows import Execution, Rows, StepRow
from carelake.pipelines.execution.scope import ExecutionScope
from carelake.pipelines.execution.standing import standing
from carelake.pipelines.jobs.catalogue import Job

if TYPE_CHECKING:
    from carelake.pipelines.execution.executor import Executor

__all__ = ["INLINE", "cached", "key", "lent", "unlent"]

_FIRST = timedelta(days=36500)
INLINE = ("Condition", "Fail", "Model", "Callback")
"""Types of steps that are done where the execution is carried out, and ask leave for nothing."""


def key(
    by: Executor,
    permit: Permit,
    one: Execution,
    scope: ExecutionScope,
    kind: str,
    job: Job,
    request: Mapping[str, Any],
) -> str:
    """The key of a step's result."""
    context = {"account": one.account, "purpose": one.purpose, "policies": by.policies}
    with by.vault.database.reading(permit) as tx:
        context |= standing(tx, one.account, request)
    return key_of(kind, job.does, request, context, scope.noun, local=one.local)


def cached(
    by: Executor, permit: Permit, one: Execution, scope: ExecutionScope, step: Step, row: StepRow
) -> StepRow | None:
    """The row with a result of the cache whose outputs are all still there, and which its starter may be given."""
    since = "" if step.expires is None else iso(by.vault.clock.now() - min(step.expires, _FIRST))
    with by.vault.database.reading(permit) as tx:
        found = Rows(tx, one.account).cached(one.pipeline, row.key, since)
    if found is None or not scope.there(found[1].output.get("outputs", {}).values()):
        return None
    if not lent(by, permit, one, found[1]):
        return None  # the step is done instead, and refused where it asks
    permit.log.count(hits=1)
    now = iso(by.vault.clock.now())
    return replace(row, status="Succeeded", attempts=0, output=found[1].output, hit=found[0], started=now, ended=now)


def unlent(by: Executor, permit: Permit, one: Execution, steps: Mapping[str, StepRow]) -> str:
    """A step whose result came from another execution and is not its starter's to have, "" where there is none."""
    taken = (row for row in steps.values() if row.source and row.type not in INLINE)
    return next((row.name for row in taken if not lent(by, permit, one, row)), "")


def lent(by: Executor, permit: Permit, one: Execution, row: StepRow) -> bool:
    """Whether whoever started an execution may be given a result; not one of which nobody knows what it asked."""
    asked = row.output.get("asked")
    speaker = caller_of(permit)
    if asked is None or speaker is None:
        return False
    try:
        who = speaker if speaker.name == one.principal else by.identity.named(one.principal, speaker)
    except NotFound:
        return False
    who = bounded(who, one.bounds)
    return all(by.gate.explain(who, str(action), one.account, one.purpose).allowed for action in asked)
