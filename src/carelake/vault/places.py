"""Accounts and zones: the closed sets of places where bytes may lie."""

from __future__ import annotations

from carelake.core.errors import Invalid

__all__ = ["ACCOUNTS", "LOCKED", "UNVERSIONED", "ZONES", "account_of", "zone_of"]

ACCOUNTS = ("security", "production", "research", "development")
ZONES = ("landing", "clinical", "deidentified", "lake", "features", "models", "audit")

LOCKED = frozenset({"audit"})
"""Zones whose objects are written once and never deleted."""

UNVERSIONED = frozenset({"lake"})
"""Zones where an overwrite replaces: Iceberg's snapshots version the lake (decision D4)."""


def account_of(name: str) -> str:
    """The name itself, if there is such an account; `Invalid` ``vault.account`` otherwise."""
    if name not in ACCOUNTS:
        raise Invalid("vault.account", f"There is no such account; expected one of {', '.join(ACCOUNTS)}.")
    return name


def zone_of(name: str) -> str:
    """The name itself, if there is such a zone; `Invalid` ``vault.zone`` otherwise."""
    if name not in ZONES:
        raise Invalid("vault.zone", f"There is no such zone; expected one of {', '.join(ZONES)}.")
    return name
