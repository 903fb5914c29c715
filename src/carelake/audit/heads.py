"""The signed head: where the trail ended, kept beside the root key and, by setting, at an anchor elsewhere.

    head  {"at","digest","key","last","number","signature","tree","workspace"}
    tree  Merkle root over the header lines of all segments, the named one included: two heads and a consistency
          proof (RFC 6962 section 2.1.2) show that the later trail begins with the earlier one

A trail whose tail was cut off, or an old database put back, does not contain the segment that a head names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

from carelake.audit.signing import TrailKey
from carelake.core import canonical
from carelake.core.errors import CarelakeError, Unavailable
from carelake.vault.outside import Anchor, anchor_at
from carelake.vault.workspace import Vault

__all__ = ["Heads"]


class Heads:
    """The heads of one workspace."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._key = TrailKey(vault.keyring)
        self.anchor_fault = ""

    @cached_property
    def anchor(self) -> Anchor | None:
        """The anchor of the settings; None where none is set. `Invalid` ``vault.anchor_inside``."""
        told = self._vault.settings.audit.anchor
        if not told:
            return None
        name = self._vault.settings.copy_name
        return anchor_at(told, name, forbidden=(self._vault.root, self._vault.head_folder))

    def read(self) -> dict[str, Any] | None:
        """The head beside the root key: None when it is missing, empty when it is not one that we signed."""
        data = self._vault.read_head()
        return None if data is None else self.opened(data)

    def opened(self, data: bytes, copy: str | None = None) -> dict[str, Any]:
        """A head from its bytes; empty when it is not one that this workspace signed.

        Args:
            copy: of the workspace; default this one.
        """
        wanted = self._vault.settings.copy if copy is None else copy
        try:
            head = canonical.load(data)
            signature = bytes.fromhex(head.pop("signature"))
            if (head["workspace"], head.get("copy", "")) != (self._vault.settings.workspace, wanted):
                return {}
            signed = self._key.verify(canonical.dump(head), signature, head.get("key", 1))
        except (CarelakeError, AttributeError, KeyError, TypeError, ValueError):
            return {}
        return dict(head) if signed else {}

    def anchored(self) -> Iterator[bytes]:
        """All heads at the anchor. `Unavailable` ``vault.anchor``."""
        if self.anchor is not None:
            yield from self.anchor.heads()

    def signed(self, row: Mapping[str, Any], tree: bytes) -> bytes:
        """The head that names this segment."""
        said = {
            "workspace": self._vault.settings.workspace,
            **({"copy": self._vault.settings.copy} if self._vault.settings.copy else {}),
            **{name: row[name] for name in ("number", "digest", "last", "at")},
            "tree": tree.hex(),
        }
        line, signature = self._key.sign_naming(lambda version: canonical.dump({**said, "key": version}))
        return canonical.dump({**canonical.load(line), "signature": signature.hex()})

    def advance(self, row: Mapping[str, Any], tree: bytes, *, anchor: bool) -> None:
        """Move the head on to this segment, and let the anchor know if it is time.

        A head that is gone or altered stays so: another one would hide from `verify` that the tail was cut. An anchor
        that cannot be reached does not stop the sealing; `verify` tells of it.
        """
        head = self.read()
        first = head is None and row["number"] == 1
        if not (first or (head and head["number"] < row["number"])):
            return
        made = self.signed(row, tree)
        self._vault.write_head(made)
        if anchor and self.anchor is not None:
            try:
                self.anchor.add(row["number"], made)
                self.anchor_fault = ""
            except Unavailable as error:
                self.anchor_fault = error.message
