"""Reindexes a workspace and kills itself at a moment: ``python reindex_child.py ROOT MOMENT``."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import sqlalchemy
from ingest_child import workspace
from sqlalchemy import event

from carelake.store import Resources, reindex

left = int(sys.argv[2])


def moment(*_: Any, **__: Any) -> None:
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)


reindex._PAGE = 25
reindex._NEXT = reindex._NEXT.limit(None).limit(25)
vault, permit = workspace(Path(sys.argv[1]), 0)
event.listen(sqlalchemy.Engine, "before_cursor_execute", moment)
event.listen(sqlalchemy.Engine, "after_cursor_execute", moment)
event.listen(sqlalchemy.Engine, "commit", moment)
Resources(vault).reindex(permit)
vault.close()
