"""Which process does something, so that another one can tell later whether it still runs."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["alive", "elsewhere", "this_process"]


def this_process() -> dict[str, Any]:
    """Names this process (a pid alone is used again, and counts on its own machine only)."""
    return {"host": platform.node(), "pid": os.getpid(), "started": _start_ticks(os.getpid())}


def elsewhere(process: Mapping[str, Any]) -> bool:
    """Whether the process runs, or ran, on another machine, where we cannot look."""
    return bool(process.get("host", platform.node()) != platform.node())


def alive(process: Mapping[str, Any]) -> bool:
    """Whether the process that `this_process` named still runs on this machine."""
    pid = process.get("pid", 0)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return bool(_start_ticks(pid) == process.get("started", 0))


def _start_ticks(pid: int) -> int:
    # Field 22 of /proc/PID/stat (proc(5)); 0 where there is no /proc, and then the pid alone decides.
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    return int(stat.rpartition(")")[2].split()[19])
