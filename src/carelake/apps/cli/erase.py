"""``erase``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from carelake.apps.cli.session import Session, answer, existing, note
from carelake.apps.cli.tables import progress, show
from carelake.core.errors import Invalid

__all__ = ["erase"]

_ACTION = "record:erase"
_MOST_BYTES = 64 << 20


def erase(
    session: Session,
    *,
    json_out: bool,
    patient: list[str],
    patients: Path | None,
    reason: str,
    resume: bool,
    listed: bool,
) -> int:
    """Erase, go on with what was broken off, or list."""
    workspace, caller = session.workspace, session.caller()
    if listed:
        with workspace.enter(caller, _ACTION, "record") as permit:
            found = workspace.erasures.list(permit)
        if json_out:
            answer(found)
        else:
            show(["id", "state", "proof", "started", "ended"], found)
        return 0
    wanted = [*patient, *(_ids(patients) if patients is not None else [])]
    if not resume and not wanted:
        raise Invalid("apps.erase_whom", "Say who is erased: --patient ID, --patients FILE, or --resume.")
    with _bar() as shown, workspace.enter(caller, _ACTION, "record", job=True) as permit:
        erasures = workspace.erasures
        if resume:
            proofs = erasures.resume(permit, progress=shown)
        else:
            proofs = [erasures.erase(permit, wanted, reason, progress=shown)]
    if json_out:
        answer(proofs if resume else proofs[0])
    else:
        for proof in proofs:
            _tell(proof)
    return int(any(not proof["complete"] for proof in proofs))


def _ids(path: Path) -> list[str]:
    if existing(path).stat().st_size > _MOST_BYTES:
        raise Invalid("apps.erase_whom", "The file of ids is larger than 64 MiB; erase in several goes.")
    return [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]


@contextmanager
def _bar() -> Iterator[Callable[[str, int, int], None]]:
    with progress() as bars:
        tasks: dict[str, Any] = {}

        def shown(step: str, done: int, of: int) -> None:
            if step not in tasks:
                tasks[step] = bars.add_task(step.capitalize(), total=None)
            bars.update(tasks[step], completed=done, total=max(done, of))

        yield shown


def _tell(proof: dict[str, Any]) -> None:
    counts = [{"what": name.replace("_", " "), "number": number} for name, number in proof["counts"].items()]
    show(["what", "number"], counts)
    left = {name: number for name, number in proof["residue"].items() if number}
    if left:
        note(f"Something is left: {', '.join(f'{number} in {name}' for name, number in left.items())}.")
    else:
        note("Everything was read again: nothing is left.")
    note(f"Proof: {proof['ref']}")
