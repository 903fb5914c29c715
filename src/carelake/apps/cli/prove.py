"""``lineage``, ``nouns``, ``audit verify``: what was made from what, and whether the evidence is whole."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from carelake.apps.cli.session import Options, Session, answer, note
from carelake.apps.cli.tables import progress, show
from carelake.audit.nouns import LIMIT
from carelake.audit.trail import Problem, Verdict
from carelake.core.errors import Corrupt, Unavailable
from carelake.core.nouns import Noun, kind_of

if TYPE_CHECKING:
    from carelake.access.identity import Caller
    from carelake.apps.wiring import Workspace

__all__ = ["lineage", "noun_json", "nouns", "verify", "verify_all", "verify_workspace"]

_NOT_INTACT = 6


def verify(options: Options, *, json_out: bool, trail_only: bool, since: str | None = None) -> int:
    """Verify the trail and every object; exit code 6 when something is not intact.

    A workspace that cannot even be opened since a part of it is damaged or gone gets a verdict too.
    """
    found = None
    try:
        with contextlib.closing(Session(options)) as session:
            found = verify_workspace(session.workspace, session.caller(), trail_only=trail_only, since=since or "")
    except (Corrupt, Unavailable) as error:
        if isinstance(error, Unavailable) and error.code != "vault.no_workspace":
            raise
        # Closing seals; what forbids that is in a verdict on what is not intact already.
        if found is None or found["intact"]:
            found = _verdict(Verdict(0, 0, 0, (Problem("workspace", error.code, error.message),), 0))
    if json_out:
        answer(found)
    elif found["intact"]:
        note(f"Intact: {found['acts']} acts, {found['segments']} segments, {found['objects']} objects.")
        if since:
            note(f"Compared: {found['verified']} acts sealed since then; the chain before them is taken on trust.")
        for finding in found["findings"]:
            note(f"Worth a look: {finding['name']}: {finding['reason']}.")
    else:
        note("NOT INTACT:")
        show(["kind", "name", "reason"], found["problems"])
    return 0 if found["intact"] else _NOT_INTACT


def verify_all(session: Session, *, trail_only: bool = False) -> dict[str, Any]:
    """Seal what is pending, then verify; ``first_bad`` names the first thing that does not verify."""
    return verify_workspace(session.workspace, session.caller(), trail_only=trail_only)


def verify_workspace(
    workspace: Workspace, caller: Caller, *, trail_only: bool = False, since: str = ""
) -> dict[str, Any]:
    """As `verify_all`, for a workspace that no session opened."""
    with contextlib.suppress(Corrupt):
        # A trail that cannot be sealed any more is what the verdict below tells of.
        workspace.trail.seal(workspace.gate.sealing())
    with workspace.enter(caller, "audit:verify", "workspace") as permit:
        damage = "" if trail_only else workspace.vault.database.damage(permit)
        if damage:
            # What else is not as it was cannot be told from rows that cannot be read.
            permit.log.count(problems=1)
            return _verdict(Verdict(0, 0, 0, (Problem("database", "carelake.db", damage),), 0))
        with progress() as bars:
            task = bars.add_task("Acts verified", total=None)
            verdict = workspace.trail.verify(
                workspace.gate.sealing(),
                since=since,
                progress=lambda done, total: bars.update(task, completed=done, total=total),
            )
            bars.update(task, completed=verdict.acts, total=verdict.acts)
        problems = [] if trail_only else [asdict(f) for f in workspace.vault.objects.verify(permit)]
        with workspace.vault.database.reading(permit) as connection:
            objects = connection.exec_driver_sql("SELECT count(*) FROM object_version").scalar_one()
        permit.log.count(acts=verdict.acts, problems=len(verdict.problems) + len(problems))
    found = _verdict(verdict, problems, objects=0 if trail_only else objects)
    found["findings"] += [{"kind": "settings", "name": one.name, "reason": one.reason} for one in workspace.changed]
    return found


def _verdict(verdict: Verdict, more: Sequence[Mapping[str, Any]] = (), *, objects: int = 0) -> dict[str, Any]:
    problems = [
        {k: found[k] for k in ("kind", "name", "reason")} for found in (*map(asdict, verdict.problems), *more)
    ]
    return {
        "acts": verdict.acts,
        "intact": not problems,
        "first_bad": problems[0] if problems else None,
        "sealed": verdict.sealed,
        "segments": verdict.segments,
        "objects": objects,
        "unfinished": verdict.unfinished,
        "verified": verdict.verified,
        "findings": [asdict(one) for one in verdict.findings],
        "problems": problems,
    }


def nouns(session: Session, *, json_out: bool, kind: str | None) -> None:
    """List nouns of the account."""
    workspace, caller = session.workspace, session.caller()
    kinds = [kind] if kind else [k for k in _kinds() if k != "resource"]
    with (
        workspace.enter(caller, "status:read", "nouns") as permit,
        workspace.vault.database.reading(permit) as connection,
    ):
        found = [noun_json(n) for k in kinds for n in workspace.nouns.find(connection, k, caller.account)]
    if json_out:
        answer(found)
    else:
        show(["ref", "state"], found)


def lineage(
    session: Session, *, json_out: bool, ref: str, forward: bool, depth: int | None = None, limit: int = LIMIT
) -> None:
    """Follow a noun back to its bytes, or forward."""
    workspace = session.workspace
    kind_of(ref)
    with (
        workspace.enter(session.caller(), "lineage:read", ref) as permit,
        workspace.vault.database.reading(permit) as connection,
    ):
        kin = {"resource": workspace.resources.resolver(permit)}
        walk = workspace.nouns.lineage if not forward else workspace.nouns.descendants
        found = walk(connection, ref, kin=kin, account=permit.account, depth=depth, limit=limit)
    if json_out:
        answer([noun_json(n) for n in found])
    else:
        show(["ref", "state", "what"], [{**noun_json(n), "what": _words(n)} for n in found])


def noun_json(noun: Noun) -> dict[str, Any]:
    """A noun as a JSON object."""
    return {
        "ref": noun.ref,
        "kind": noun.kind,
        "account": noun.account,
        "state": noun.state,
        "made_by": noun.made_by,
        "made_from": list(noun.made_from),
        **({"body": dict(noun.body)} if noun.body else {}),
    }


def _kinds() -> tuple[str, ...]:
    from carelake.core.nouns import KINDS

    return KINDS


def _words(noun: Noun) -> str:
    body = noun.body
    if noun.kind == "resource":
        return f"{body.get('type')} v{body.get('version')}, bytes {body.get('offset')}+{body.get('length')}"
    return ", ".join(f"{k} {v}" for k, v in body.items() if isinstance(v, str | int) and k != "object")[:100]
