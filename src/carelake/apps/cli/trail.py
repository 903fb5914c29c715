"""``audit list``, ``show`` and ``export``: what happened, one act with its proof, and all of it for others."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from carelake.access.identity import Caller
from carelake.apps.cli.session import Session, answer, note
from carelake.apps.cli.tables import progress, show
from carelake.apps.wiring import Workspace
from carelake.audit import patients
from carelake.audit.evidence import Evidence
from carelake.audit.export import FORMATS, Exporter, Format
from carelake.audit.readings import Acts, Filter
from carelake.core.errors import Invalid
from carelake.core.permit import Permit
from carelake.vault.outside import export_folder

__all__ = ["acts", "export", "show_act"]

_COLUMNS = ["seq", "at", "principal", "account", "purpose", "action", "target", "phase"]


def acts(session: Session, *, json_out: bool, limit: int, **wanted: str | None) -> None:
    """List acts."""
    workspace, caller = session.workspace, session.caller()
    with (
        workspace.enter(caller, "audit:read", "trail") as permit,
        workspace.vault.database.reading(permit) as connection,
    ):
        found = Acts(connection).find(_filter(workspace, caller, permit, wanted), limit=limit)
    if json_out:
        answer(found)
    else:
        show(_COLUMNS, found)


def show_act(session: Session, *, json_out: bool, act: str) -> None:
    """Show one act: all of its rows, what it made and touched, and the proof that it is sealed."""
    workspace, caller = session.workspace, session.caller()
    workspace.trail.seal(workspace.gate.sealing())
    with workspace.enter(caller, "audit:read", "trail") as permit:
        account = "" if caller.everywhere else permit.account
        found = Evidence(workspace.vault, workspace.nouns, workspace.gate.sealing()).of(act, account)
    if json_out:
        answer(found)
        return
    show([*_COLUMNS, "segment"], found["rows"])
    rows = [{"what": name, "told": value} for row in found["rows"] for name, value in _rest(row)]
    show(["what", "told"], [*rows, *({"what": "made", "told": ref} for ref in found["nouns"])])


def _rest(row: dict[str, Any]) -> list[tuple[str, Any]]:
    """What an act says beside its columns, for people."""
    hidden = {*_COLUMNS, "segment", "proof", "header", "signature", "line", "correlation"}
    return [(f"{row['seq']}: {name}", value) for name, value in row.items() if name not in hidden]


def export(session: Session, *, json_out: bool, format_: str, out: Path, **wanted: str | None) -> None:
    """Export the sealed trail into a new folder."""
    workspace, caller = session.workspace, session.caller()
    if format_ not in FORMATS:
        raise Invalid("audit.format", f"There is no such format; expected one of {', '.join(FORMATS)}.")
    known: Format = format_
    workspace.trail.seal(workspace.gate.sealing())
    with workspace.enter(caller, "audit:export", "trail") as permit, progress() as bars:
        task = bars.add_task("Acts exported", total=None)
        chosen = _filter(workspace, caller, permit, wanted)
        exporter = Exporter(
            workspace.vault,
            workspace.trail.heads,
            workspace.gate.sealing(),
            chosen,
            lambda done, total: bars.update(task, completed=done, total=total),
        )
        with export_folder(out) as folder:
            told = exporter.write(folder, known)
        bars.update(task, completed=told.acts, total=told.acts)
        permit.log.count(acts=told.acts, segments=told.segments)
    if json_out:
        answer({**asdict(told), "out": str(out)})
        return
    note(f"Exported {told.acts} acts of {told.segments} segments as {format_} to {out}.")
    if told.unsealed:
        note(f"{told.unsealed} acts are not sealed yet and not in it; export again in a second.")
    if known == "jsonl":
        note(f"Check it anywhere: python {out / 'verify.py'} {out}")


def _filter(workspace: Workspace, caller: Caller, permit: Permit, wanted: dict[str, str | None]) -> Filter:
    """The filter of the options, within the permit's account unless the whole trail is the caller's.

    A patient's id is told as its HMAC in the account, and goes nowhere else.
    """
    said = {name: value for name, value in wanted.items() if value is not None}
    patient = said.get("patient", "")
    if patient and not patient.startswith(f"{patients.KIND}:"):
        said["patient"] = patients.ref(permit, workspace.vault.keyring, patient)
    asked = Filter(**said)
    return asked if caller.everywhere else asked.within(permit.account)
