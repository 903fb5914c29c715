"""The outer wall, where there is one: bubblewrap gives the process namespaces of its own before it begins.

It has no network, sees no other process, and of the disk only what it is made of, to read. The walls that it puts up
itself (`walls`) do not rest on it. https://github.com/containers/bubblewrap
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path

from carelake.core.errors import Unavailable

__all__ = ["BUBBLEWRAP", "FLAGS", "NONE", "command", "wanted"]

NONE, BUBBLEWRAP = "none", "bubblewrap"
FLAGS = ("--unshare-all", "--unshare-user", "--as-pid-1", "--new-session", "--cap-drop", "ALL", "--clearenv")
_PROGRAMS = ("/usr/bin/bwrap", "/usr/local/bin/bwrap")
_SYSTEM = ("/usr", "/lib", "/lib64", "/lib32", "/bin", "/etc/ld.so.cache")


@cache
def _program() -> str:
    return next((one for one in _PROGRAMS if Path(one).exists()), "")


@cache
def _works() -> bool:
    """Whether it does here: many containers do not let it make namespaces."""
    if not _program():
        return False
    tried = [_program(), *FLAGS, *_seen(), "--", sys.executable, "-I", "-S", "-c", "pass"]
    try:
        done = subprocess.run(tried, capture_output=True, timeout=10, check=False)  # noqa: S603 - our own words
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def wanted(said: str) -> str:
    """The outer wall by the setting ``serving.sandbox_outer``: ``auto`` is bubblewrap where it works.

    Raises:
        Unavailable: ``serving.sandbox_unavailable``.
    """
    if said == NONE:
        return NONE
    if _works():
        return BUBBLEWRAP
    if said == BUBBLEWRAP:
        raise Unavailable(
            "serving.sandbox_unavailable",
            "serving.sandbox_outer asks for bubblewrap, which is not installed or may make no namespaces here; "
            "install it, or set it to none.",
        )
    return NONE


def command(inner: list[str], environment: Mapping[str, str], told: int) -> list[str]:
    """The command within bubblewrap.

    Args:
        told: descriptor on which it says the process's id.
    """
    given = [word for name, value in environment.items() for word in ("--setenv", name, value)]
    return [_program(), *FLAGS, *_seen(), *given, "--info-fd", str(told), "--", *inner]


@cache
def _seen() -> tuple[str, ...]:
    """What of the disk it sees: the system's libraries, Python, its packages, and carelake itself."""
    places = [*_SYSTEM, sys.base_prefix, sys.prefix, sysconfig.get_path("stdlib"), str(resources.files("carelake"))]
    bound = [word for place in dict.fromkeys(places) if Path(place).exists() for word in ("--ro-bind", place, place)]
    return (*bound, "--proc", "/proc", "--dev", "/dev")
