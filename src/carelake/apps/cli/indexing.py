"""``reindex``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from carelake.apps.cli.session import Session, answer, note
from carelake.apps.cli.tables import progress, show
from carelake.store import ReindexReport

__all__ = ["build", "reindex"]


def reindex(session: Session, *, json_out: bool, param: str, verify: bool) -> int:
    """Build the index, or compare it."""
    report = _verified(session, param) if verify else build(session, session.caller(), param)
    if json_out:
        answer({**msgspec.to_builtins(report), "intact": not report.differences})
    else:
        _tell(report, verify=verify)
    return int(bool(report.differences))


def build(session: Session, caller: Any, param: str = "") -> ReindexReport:
    """Build, with a progress bar."""
    workspace = session.workspace
    with (
        _bar("Resources indexed") as shown,
        workspace.enter(caller, "record:reindex", param or "record", job=True) as permit,
    ):
        return workspace.resources.reindex(permit, param, shown)


def _verified(session: Session, param: str) -> ReindexReport:
    workspace = session.workspace
    with (
        _bar("Resources compared") as shown,
        workspace.enter(session.caller(), "record:reindex", param or "record", job=True) as permit,
    ):
        return workspace.resources.verify_index(permit, param, shown)


@contextmanager
def _bar(title: str) -> Iterator[Callable[[int, int], None]]:
    with progress() as bars:
        task = bars.add_task(title, total=None)
        yield lambda done, of: bars.update(task, completed=done, total=max(done, of))


def _tell(report: ReindexReport, *, verify: bool) -> None:
    for url, reason in report.refused.items():
        note(f"Not registered: {url}: {reason}")
    if not verify:
        note(f"Built {report.sources} sources over {report.resources} resources.")
    elif report.differences:
        show(["type", "source", "missing", "extra"], [msgspec.to_builtins(one) for one in report.differences])
        note("`carelake reindex --param TYPE.CODE` builds a parameter of that source anew.")
    else:
        note(f"Every row of {report.sources} sources is there, and no other; {report.resources} resources compared.")
