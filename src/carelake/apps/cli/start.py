"""``init``, ``status``, ``synth``: a workspace, where it stands, and a hospital to fill it."""

from __future__ import annotations

import os
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

from carelake.access.identity import Caller
from carelake.apps.cli.session import Options, Session, answer, note
from carelake.apps.cli.tables import progress, show
from carelake.apps.http.state import state_of
from carelake.apps.wiring import Workspace, key_folder
from carelake.core.errors import Invalid

__all__ = ["init", "status", "synth"]


def init(
    options: Options,
    *,
    json_out: bool,
    folder: Path,
    root: str | None,
    kms_key: str | None,
    database: str | None = None,
    password_file: Path | None = None,
) -> None:
    """Make a workspace."""
    environment = dict(os.environ)
    if database is not None:
        environment["CARELAKE_DATABASE__URL"] = database
    if password_file is not None:
        environment["CARELAKE_DATABASE__PASSWORD_FILE"] = str(password_file.absolute())
    workspace = Workspace.create(folder.absolute(), environment, provider=root, kms_key=kms_key)
    provider = workspace.vault.keyring.current().file.root.provider
    workspace.close()
    keys = key_folder(os.environ)
    said = {"workspace": str(folder), "id": workspace.settings.workspace, "keys": str(keys), "root": provider}
    if json_out:
        answer(said)
    else:
        where = (
            str(keys) if provider == "file" else {"kms": "AWS KMS", "keyring": "your keyring"}.get(provider, provider)
        )
        note(f"Made a workspace in {folder}. Its root key is in {where}: without it the workspace cannot be read,")
        note("so keep a copy of it apart from copies of the workspace.")


def status(session: Session, *, json_out: bool) -> None:
    """Show where the loop stands."""
    said = _state(session.workspace, session.caller())
    if json_out:
        answer(said)
        return
    note(f"Account {said['account']}: {said['acts']} acts, {said['sealed']} sealed in {said['segments']} segments.")
    show(["what", "count"], [{"what": k, "count": n} for k, n in said["chain"].items()])
    if said["runs"]:
        show(["recipe", "state", "started", "ended"], said["runs"])


def _state(workspace: Workspace, caller: Caller) -> dict[str, Any]:
    with workspace.enter(caller, "status:read", "workspace") as permit:
        state = state_of(workspace, permit)
    return {"workspace": workspace.settings.workspace, **asdict(state), "chain": dict(state.chain)}


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
    vitals: bool = False,
) -> None:
    """Make a synthetic hospital. It is made up, holds no one's data, and so passes no gate."""
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
            vitals=vitals,
            progress=lambda n: bars.update(task, completed=n),
            **window,
        )
    said = {
        "patients": made.patients,
        "resources": made.resources,
        "counts": made.counts,
        "admissions": made.admissions,
        "eligible": made.eligible,
        "readmissions": made.readmissions,
        "files": [str(f) for f in made.files],
        "bytes": made.size,
        "truth": {name: str(f) for name, f in made.truth.items()},
    }
    if json_out:
        answer(said)
    else:
        note(
            f"Made {made.resources:,} resources of {patients} patients in {out}/fhir; their truth is in {out}/truth."
        )
