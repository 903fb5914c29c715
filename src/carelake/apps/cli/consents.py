"""``access consents``: what patients' consents come to, in numbers; projected anew, and compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from carelake.access.projection import counted
from carelake.apps.cli.session import Session, answer, note
from carelake.apps.cli.tables import progress, show
from carelake.store.reproject import Compared, Consents

__all__ = ["consents", "project_all"]


def consents(session: Session, *, json_out: bool, rebuild: bool, verify: bool) -> int:
    """Count, after projecting anew or comparing; 1 where a comparison found a difference."""
    workspace, caller = session.workspace, session.caller()
    compared = project_all(session, caller) if rebuild else _verified(session) if verify else None
    with (
        workspace.enter(caller, "status:read", "consents") as permit,
        workspace.vault.database.reading(permit) as connection,
    ):
        found = counted(connection, permit.account)
    if json_out:
        answer({**found, **(msgspec.to_builtins(compared) if compared is not None else {})})
    else:
        _tell(found, compared, rebuild=rebuild)
    return int(verify and compared is not None and not compared.same)


def project_all(session: Session, caller: Any, *, unless_done: bool = False) -> Compared:
    """Project an account's consents, with a progress bar.

    Args:
        unless_done: not where they are all projected.
    """
    workspace = session.workspace
    with (
        _bar("Consents projected") as shown,
        workspace.enter(caller, "record:reindex", "consents", job=True) as permit,
    ):
        if unless_done:
            with workspace.vault.database.reading(permit) as connection:
                if counted(connection, permit.account)["projected"]:
                    return Compared()
        return Consents(workspace.vault).rebuild(permit, shown)


def _verified(session: Session) -> Compared:
    workspace = session.workspace
    with (
        _bar("Consents compared") as shown,
        workspace.enter(session.caller(), "record:reindex", "consents", job=True) as permit,
    ):
        return Consents(workspace.vault).verify(permit, shown)


@contextmanager
def _bar(title: str) -> Iterator[Callable[[int], None]]:
    with progress() as bars:
        task = bars.add_task(title, total=None)
        yield lambda done: bars.update(task, completed=done)


def _tell(found: dict[str, Any], compared: Compared | None, *, rebuild: bool) -> None:
    if compared is not None:
        done = "were put right" if rebuild else "are wrong"
        note(f"Compared {compared.consents} consents: {compared.missing + compared.extra} rows {done}.")
    if not found["projected"]:
        note("Older consents are not projected yet: `carelake access consents --rebuild`.")
    show(["consents that", "count"], [{"consents that": word, "count": many} for word, many in _lines(found)])


def _lines(found: dict[str, Any]) -> Iterator[tuple[str, int]]:
    words = found["words"]
    yield "are in force, with rules", words["rules"]
    yield "are not active", words["not active"]
    yield "are about something else than data", words["other scope"]
    yield "do not say whether they permit or deny", words["unclear"]
    yield "are of no patient that is known", words["no patient"]
    yield "cannot be read, and deny everything", words["unreadable"]
    yield "their patients", found["patients"]
    yield "their denials; wider than they say", found["widened"]
    yield "their permissions; not understood", found["dropped"]
