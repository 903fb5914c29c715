"""A secret that the settings name a file for."""

from __future__ import annotations

from pathlib import Path

from carelake.core.errors import Unavailable

__all__ = ["secret_in"]


def secret_in(path: str, code: str, setting: str) -> str:
    """What the file holds, without white space around it.

    Args:
        code: of the error. setting: that names the file.

    Raises:
        Unavailable: ``code``: it cannot be read.
    """
    try:
        return Path(path).expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise Unavailable(code, f"The file that {setting} names cannot be read.") from None
