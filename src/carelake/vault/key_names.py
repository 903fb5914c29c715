"""What the keys are called, of which kind they are, and what of them can be asked for: ``production/clinical/v2``."""

from __future__ import annotations

import re
from typing import Literal

from carelake.core.errors import Invalid, NotFound, Refused
from carelake.vault.places import ACCOUNTS
from carelake.vault.ring import ROOT, Entry, RingFile, signing

__all__ = ["KEPT", "KeyKind", "account_of_key", "kind_of_key", "split", "usable", "versions_of"]

KeyKind = Literal["root", "account", "zone", "patient", "signing", "reference", "database"]
_NAME = re.compile(r"([a-z]+(?:/[a-z][a-z-]*)?)(?:/v([1-9][0-9]{0,8}))?")

KEPT = frozenset(
    {ROOT, "security"}
    | {f"security/{leaf}" for leaf in ("audit", "clinical", "database", "patient", "reference", "sign-trail")}
)
"""Without these the workspace does not open, its trail is not readable, or nobody can be identified."""


def split(text: str) -> tuple[str, int | None]:
    """Name and version, None for all of them.

    Raises:
        Invalid: ``vault.key_name``.
    """
    found = _NAME.fullmatch(text)
    if found is None:
        raise Invalid(
            "vault.key_name", "A key is called ACCOUNT, ACCOUNT/LEAF or ACCOUNT/LEAF/vN; `key list` shows them."
        )
    return found[1], int(found[2]) if found[2] else None


def account_of_key(name: str) -> str:
    """The account that a key belongs to; the root belongs to ``security``.

    Raises:
        NotFound: ``vault.no_such_key``.
    """
    account = "security" if name == ROOT else name.partition("/")[0]
    if account not in ACCOUNTS:
        raise NotFound("vault.no_such_key", "There is no such key; `carelake key list` shows them.")
    return account


def kind_of_key(name: str) -> KeyKind:
    """What a key is for."""
    if name == ROOT:
        return "root"
    leaf = name.partition("/")[2]
    if not leaf:
        return "account"
    if signing(name):
        return "signing"
    if leaf == "patient":
        return "patient"
    if leaf == "reference":
        return "reference"
    return "database" if leaf == "database" else "zone"


def versions_of(file: RingFile, name: str, version: int | None) -> list[Entry]:
    """The entries of a key, or the one of a version.

    Raises:
        NotFound: ``vault.no_such_key``.
    """
    found = [entry for entry in file.keys if entry.name == name and version in (None, entry.version)]
    if not found:
        raise NotFound("vault.no_such_key", "There is no such key or version; `carelake key list` shows them.")
    return found


def usable(file: RingFile, name: str) -> None:
    """Let pass a key that is not held back as a whole; `Refused` ``vault.key_disabled`` otherwise."""
    hold = file.holds.get(name)
    if hold is not None and (hold.disabled_at or (hold.destruction and hold.destruction.confirmed_at)):
        raise Refused(
            "vault.key_disabled", f"The key {name} is disabled or awaits its destruction; enable it first.", key=name
        )
