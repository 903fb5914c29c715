"""``lake sync --follow``: the lake stays right behind the record until the command is ended."""

from __future__ import annotations

from dataclasses import asdict

from carelake.apps.cli.session import Session, answer, note
from carelake.apps.following import until_ended
from carelake.audit.background import sealing_beside

__all__ = ["follow"]


def follow(session: Session, *, json_out: bool) -> None:
    """Follow until SIGINT or SIGTERM."""
    workspace = session.workspace
    caller, told = session.caller(), workspace.settings
    with sealing_beside(workspace.trail, workspace.gate.sealing, told.serve.seal_seconds):
        note("Following; end with Ctrl-C.")
        done = until_ended(
            workspace,
            caller,
            told.lake.follow_seconds,
            lambda error: note(f"carelake: {error.code}; it is tried again."),
        )
    if json_out:
        answer(asdict(done))
    else:
        note(f"{done.synced} changes in {done.turns} flushes.")
