"""``init``, ``status``, ``synth``: a workspace, where it stands, and a hospital to fill it."""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path
from typing import Any

from carelake.apps.cli.session import Options, Session, answer, note
from carelake.apps.cli.tables import progress, show
from carelake.core.errors import Invalid
from carelake.pipelines.runs import Runs

__all__ = ["init", "state_of", "status", "synth"]


def init(options: Options, *, json_out: bool, folder: Path) -> None:
    """Make a workspace."""
    from carelake.apps.wiring import Workspace, key_folder

    workspace = Workspace.create(folder.absolute(), os.environ)
    workspace.close()
    keys = key_folder(os.environ)
    said = {"workspace": str(folder), "id": workspace.settings.workspace, "keys": str(keys)}
    if json_out:
        answer(said)
    else:
        note(f"Made a workspace in {folder}. Its root key is in {keys}: without it the workspace cannot be read,")
        note("so keep a copy of it apart from copies of the workspace.")


def status(session: Session, *, json_out: bool) -> None:
    """Show where the loop stands."""
    said = state_of(session.workspace, session.caller())
    if json_out:
        answer(said)
        return
    note(f"Workspace {said['workspace']}, account {said['account']}: {said['acts']} acts")
    show(["kind", "count"], [{"kind": k, "count": n} for k, n in said["counts"].items()])
    show(["recipe", "state", "started", "ended"], said["runs"])


def state_of(workspace: Any, caller: Any) -> dict[str, Any]:
    """Counts and states of an account, without patient data."""
    with (
        workspace.enter(caller, "status:read", "workspace") as permit,
        workspace.vault.database.reading(permit) as connection,
    ):
        one = connection.exec_driver_sql
        resources = one("SELECT count(*) FROM resource WHERE account = ?", (caller.account,)).scalar_one()
        refused = one("SELECT count(*) FROM quarantine WHERE account = ?", (caller.account,)).scalar_one()
        counts = workspace.nouns.counts(connection, caller.account)
        return {
            "workspace": workspace.settings.workspace,
            "account": caller.account,
            "acts": one("SELECT count(*) FROM act").scalar_one(),
            "counts": {"resources": resources, "quarantined": refused, **counts},
            "runs": Runs(workspace.vault).recent(connection, caller.account),
        }


def synth(
    options: Options,
    *,
    json_out: bool,
    out: Path,
    patients: int,
    seed: int,
    shift: str | None,
    start: str | None,
    years: float | None,
    workers: int,
) -> None:
    """Make a synthetic hospital. It is made up, holds no one's data, and so passes no gate."""
    from dataclasses import asdict

    from carelake.synth import generate

    window: dict[str, Any] = {}
    if start is not None:
        try:
            window["start"] = date.fromisoformat(start)
        except ValueError:
            raise Invalid("apps.date", "--start is not a date; expected YYYY-MM-DD.") from None
    if years is not None:
        window["years"] = years
    with progress() as bars:
        task = bars.add_task("Synthetic patients", total=patients)
        made = generate(
            out,
            patients=patients,
            seed=seed,
            shift=shift,
            workers=workers,
            progress=lambda n: bars.advance(task, n),
            **window,
        )
    said = asdict(made)
    if json_out:
        answer({k: str(v) if isinstance(v, Path) else v for k, v in said.items()})
    else:
        note(f"Made {patients} patients in {out}: {said}")
