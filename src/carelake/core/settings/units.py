"""What numbers of settings are said in."""

from __future__ import annotations

__all__ = ["MIB"]

MIB = 1024 * 1024
