"""How a view shows a decimal: the double nearest to it, without the noise of binary arithmetic (decision D7)."""

from __future__ import annotations

from decimal import Decimal

__all__ = ["plain_number"]


def plain_number(value: Decimal | float) -> float:
    """The number with 15 significant digits, all that a double keeps: 0.1 + 0.2 is 0.3 on every engine."""
    return float(f"{float(value):.15g}")
