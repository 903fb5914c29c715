"""``access break-glass`` and ``access review``: emergency access and what another thinks of it."""

from __future__ import annotations

from typing import Any

from carelake.access.glass import BrokenGlass, Glasses
from carelake.apps.cli.reasons import bound, show_reasoned
from carelake.apps.cli.session import Session, answer, note
from carelake.apps.cli.tables import show
from carelake.apps.cli.who import changing, sight
from carelake.core.clock import iso
from carelake.core.errors import Refused

__all__ = ["begin", "close", "end", "review", "reviews"]


def begin(session: Session, *, json_out: bool, reason: str, minutes: int) -> None:
    """Begin an emergency access of the caller's."""
    workspace, caller = session.workspace, session.caller()
    vault, told = workspace.vault, workspace.settings.access
    with changing(session, caller, "access:break-glass", "access") as (permit, tx):
        glass = Glasses(tx).smash(
            caller.principal,
            name=vault.ids.new(),
            account=permit.account,
            purpose=permit.purpose,
            reason=reason,
            minutes=minutes,
            most_minutes=told.glass_max_minutes,
            review_days=told.review_days,
            now=vault.clock.now(),
            reference=lambda text: vault.keyring.reference(permit, "reason", text),
            seal=lambda name, text: vault.sealer.seal(permit, tx, "", bound("glass", name), text.encode()),
        )
        permit.log.wrote(f"glass:{glass.id}", glass.reason_ref)
        said = {"expires": iso(glass.expires), "review_by": iso(glass.review_by)}
        permit.log.note(change="break-glass", glass=glass.id, **said)
        workspace.outbox.publish(tx, glass.account, "access.glass_broken", f"glass:{glass.id}", said)
    _tell(
        session, json_out, glass, "EMERGENCY ACCESS: every act of yours is marked with it, and it will be reviewed."
    )


def end(session: Session, *, json_out: bool, glass: str) -> None:
    """End the caller's own."""
    workspace, caller = session.workspace, session.caller()
    with changing(session, caller, "access:break-glass", f"glass/{glass}") as (permit, tx):
        if Glasses(tx).get(glass).principal != permit.principal:
            raise Refused("access.not_yours", "Only who began an emergency access ends it; a review ends it too.")
        found = Glasses(tx).end(glass, now=workspace.vault.clock.now())
        permit.log.note(change="end-glass", ended=_ended(found))
        workspace.outbox.publish(tx, found.account, "access.glass_ended", f"glass:{found.id}", {})
    _tell(session, json_out, found, "Ended.")


def reviews(session: Session, *, json_out: bool, only_open: bool) -> None:
    """List emergency accesses, without their reasons."""
    with sight(session, "reviews") as (connection, seen):
        found = [_plain(session, one) for one in Glasses(connection).all() if one.account in seen.accounts]
    found = [one for one in found if one["state"] != "reviewed" or not only_open]
    if json_out:
        answer(found)
    else:
        show(["id", "principal", "account", "begun", "expires", "review_by", "state", "verdict"], found)


def review(session: Session, *, json_out: bool, glass: str) -> None:
    """Show one with its reason, to whoever may close it."""
    show_reasoned(session, "glass", glass, action="access:review", plain=_plain, json_out=json_out)


def close(session: Session, *, json_out: bool, glass: str, verdict: str) -> None:
    """Close a review."""
    workspace, caller = session.workspace, session.caller()
    with changing(session, caller, "access:review", f"glass/{glass}") as (permit, tx):
        now = workspace.vault.clock.now()
        found = Glasses(tx).close(glass, caller.principal, verdict, account=permit.account, now=now)
        permit.log.wrote(f"glass:{found.id}")
        permit.log.note(change="review-glass", verdict=verdict, ended=_ended(found))
        workspace.outbox.publish(
            tx, found.account, "access.glass_reviewed", f"glass:{found.id}", {"verdict": verdict}
        )
    _tell(session, json_out, found, "Reviewed.")


def _tell(session: Session, json_out: bool, glass: BrokenGlass, words: str) -> None:
    if json_out:
        answer(_plain(session, glass))
    else:
        note(f"{words} {glass.id}, until {iso(glass.ended or glass.expires)}")


def _ended(one: BrokenGlass) -> str:
    return iso(one.ended) if one.ended else ""


def _plain(session: Session, one: BrokenGlass) -> dict[str, Any]:
    return {
        "id": one.id,
        "principal": one.principal,
        "account": one.account,
        "purpose": one.purpose,
        "begun": iso(one.begun),
        "expires": iso(one.expires),
        "review_by": iso(one.review_by),
        "state": one.state(session.workspace.vault.clock.now()),
        "reviewed_by": one.reviewed_by,
        "verdict": one.verdict,
        "reason_ref": one.reason_ref,
    }
