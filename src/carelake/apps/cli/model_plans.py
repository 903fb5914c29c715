"""``model plan``: change plans, and verdicts under them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from carelake.apps.cli.models import proof_of
from carelake.apps.cli.prove import noun_json
from carelake.apps.cli.session import Options, Session, answer, existing, note
from carelake.apps.cli.tables import show
from carelake.core.errors import NotFound
from carelake.core.nouns import Noun

__all__ = ["plan_check", "plan_decide", "plan_read", "plan_set", "plan_show"]


def plan_set(session: Session, *, json_out: bool, group: str, file: Path) -> None:
    """Write a plan."""
    workspace = session.workspace
    data = existing(file).read_bytes()
    with workspace.enter(session.caller(), "model:manage", "models") as permit:
        noun = workspace.platform.registry.plans.write(permit, group, data)
    _tell(json_out, noun)


def plan_show(session: Session, *, json_out: bool, group: str) -> None:
    """Show the plans of a group."""
    workspace = session.workspace
    with workspace.enter(session.caller(), "model:read", "models") as permit:
        plans = workspace.platform.registry.plans
        found = plans.versions(permit, group)
        decided = {one.ref: plans.decisions(permit, one.ref) for one in found}
    if not found:
        raise NotFound("models.no_such_plan", "The group has no change plan; `carelake model plan set` writes one.")
    if json_out:
        answer([{**noun_json(one), "decisions": decided[one.ref]} for one in found])
        return
    show(["version", "state", "author", "ref"], [{"state": one.state, "ref": one.ref, **one.body} for one in found])
    for one in found:
        for each in decided[one.ref]:
            note(f"v{one.body['version']}: {_decision(each)}")
    plan = found[0].body["plan"]
    rows = [{**one, "changes": ", ".join(one["changes"])} for one in plan["description_of_modifications"]]
    show(["id", "title", "changes", "automatic"], rows)


def _decision(said: Mapping[str, Any]) -> str:
    if said.get("altered"):
        return f"a record that is not what was signed: {said['ref']}"
    successor = f", for {said['successor']}" if said.get("successor") else ""
    return f"{said['decision']} by {said['approver']} at {said['at']}{successor}"


def plan_decide(
    session: Session, *, json_out: bool, group: str, version: int | None, approve: bool, reauth: bool
) -> None:
    """Put a plan in force, or turn it down."""
    workspace = session.workspace
    plans = workspace.platform.registry.plans
    proof = proof_of(session, reauth)
    with workspace.enter(session.caller(), "model:approve", "models") as permit:
        found = plans.versions(permit, group)
        wanted = next((one for one in found if version in (None, one.body["version"])), None)
        if wanted is None:
            raise NotFound("models.no_such_plan", "The group has no such change plan; `carelake model plan show`.")
        noun = plans.decide(permit, wanted.ref, approve=approve, proof=proof)
    _tell(json_out, noun)


def plan_read(options: Options, *, json_out: bool, group: str, file: Path) -> None:
    """Say whether a file is a plan of this group."""
    from carelake.models.plan.reading import read

    plan = read(existing(file).read_bytes())
    if json_out:
        answer({"plan": plan.title, "group": plan.group, "fits": plan.group == group})
    else:
        note(f"{file} is a change plan of {plan.group}: {len(plan.description_of_modifications)} modifications.")


def plan_check(session: Session, *, json_out: bool, group: str, ref: str | None) -> int:
    """Hold a version against the plan in force."""
    workspace = session.workspace
    registry = workspace.platform.registry
    with workspace.enter(session.caller(), "model:manage", ref or "models") as permit:
        found = [one for one in registry.versions(permit, group) if ref in (None, one.ref)]
        if not found:
            raise NotFound("models.no_such_version", "The group has no such version; `carelake model list`.")
        verdict = registry.plans.check(permit, found[0], registry.files(permit, found[0].ref))
    if json_out:
        answer(noun_json(verdict))
    else:
        _table(verdict)
    return 0 if verdict.state == "InPlan" else 1


def _table(verdict: Noun) -> None:
    rows: list[dict[str, Any]] = [dict(line) for line in verdict.body["lines"]]
    show(["modifications", "part", "check", "evidence", "bound", "found", "verdict"], rows)
    free = "; it may go out by itself" if verdict.body["automatic"] else ""
    note(f"{verdict.body['name']} v{verdict.body['version']}: {verdict.state}{free}. {verdict.ref}")


def _tell(json_out: bool, noun: Noun) -> None:
    if json_out:
        answer(noun_json(noun))
    else:
        note(f"Change plan v{noun.body['version']} of {noun.body['group']} is {noun.state}. {noun.ref}")
