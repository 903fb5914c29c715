"""Merkle trees, their inclusion proofs and consistency proofs, as in RFC 6962 sections 2.1 to 2.1.2.

Leaves are bytes, hashes are 32 bytes; proofs are lists of hashes, from the leaf upwards.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence

__all__ = ["Frontier", "consistency", "consistent", "included", "inclusion", "leaf_hash", "root", "root_of"]

_EMPTY = hashlib.sha256(b"").digest()
_SOME = 1024
"""Nodes between rests; an even number."""


def leaf_hash(leaf: bytes) -> bytes:
    """The hash of a leaf: SHA-256 of 0x00 and its bytes."""
    return hashlib.sha256(b"\x00" + leaf).digest()


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def root(leaves: Iterable[bytes]) -> bytes:
    """The hash of the tree (section 2.1)."""
    sha256 = hashlib.sha256
    level = [sha256(b"\x00" + leaf).digest() for leaf in leaves]
    return root_of(level)


def root_of(level: list[bytes], rest: Callable[[], None] = lambda: None) -> bytes:
    """The hash of the tree over leaves of which the hashes are given.

    Args:
        rest: called after each some hundred of hashes.
    """
    sha256 = hashlib.sha256
    while len(level) > 1:
        # RFC 6962 splits at powers of two; an odd last node moves up unchanged, which is the same tree.
        above: list[bytes] = []
        for start in range(0, len(level), _SOME):
            if start:
                rest()
            some = level[start : start + _SOME]
            above += [sha256(b"\x01" + a + b).digest() for a, b in zip(some[::2], some[1::2], strict=False)]
        level = above + ([level[-1]] if len(level) % 2 else [])
    return level[0] if level else _EMPTY


def inclusion(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """The audit path of leaf ``index`` (section 2.1.1)."""
    path, level = [], [leaf_hash(leaf) for leaf in leaves]
    while len(level) > 1:
        if index ^ 1 < len(level):
            path.append(level[index ^ 1])
        pairs = [_node(a, b) for a, b in zip(level[::2], level[1::2], strict=False)]
        level = pairs + ([level[-1]] if len(level) % 2 else [])
        index //= 2
    return path


def included(leaf: bytes, index: int, size: int, path: Sequence[bytes], tree: bytes) -> bool:
    """Does the path prove that ``leaf`` is leaf ``index`` of the tree of ``size`` leaves with this root?"""
    if not 0 <= index < size:
        return False
    at, last, found = index, size - 1, leaf_hash(leaf)
    steps = iter(path)
    while last:
        if at % 2 or at < last:
            step = next(steps, None)
            if step is None:
                return False
            found = _node(step, found) if at % 2 else _node(found, step)
        at, last = at // 2, last // 2
    return next(steps, None) is None and found == tree


def consistency(leaves: Sequence[bytes], old: int) -> list[bytes]:
    """The proof that the tree of the first ``old`` leaves is the beginning of the tree of all (section 2.1.2)."""
    hashes = [leaf_hash(leaf) for leaf in leaves]
    return _subproof(hashes, old, whole=True) if 0 < old < len(hashes) else []


def _subproof(hashes: list[bytes], old: int, *, whole: bool) -> list[bytes]:
    if old == len(hashes):
        return [] if whole else [root_of(hashes)]
    split = 1 << (len(hashes) - 1).bit_length() - 1
    if old <= split:
        return [*_subproof(hashes[:split], old, whole=whole), root_of(hashes[split:])]
    return [*_subproof(hashes[split:], old - split, whole=False), root_of(hashes[:split])]


def consistent(old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """Does the proof show that a tree of ``old`` leaves grew into one of ``new`` by appending alone?"""
    if not 0 <= old <= new:
        return False
    if old in (0, new):
        return not proof and (old == 0 or old_root == new_root)
    steps = list(proof)
    at, last = old - 1, new - 1
    while at % 2:
        at, last = at // 2, last // 2
    if at:
        if not steps:
            return False
        first = second = steps.pop(0)
    else:
        first = second = old_root
    while last:
        if at % 2 or at < last:
            if not steps:
                return False
            step = steps.pop(0)
            if at % 2:
                first, second = _node(step, first), _node(step, second)
            else:
                second = _node(second, step)
        at, last = at // 2, last // 2
    return not steps and first == old_root and second == new_root


class Frontier:
    """A tree that only grows, kept as the roots of its full subtrees: a leaf and the root cost log n hashes."""

    def __init__(self, text: str = "") -> None:
        self._peaks: list[tuple[int, bytes]] = []
        for one in text.split():
            size, _, digest = one.partition(":")
            self._peaks.append((int(size), bytes.fromhex(digest)))

    @classmethod
    def read(cls, text: str) -> Frontier | None:
        """As it was kept; None for what is none."""
        try:
            found = cls(text)
        except ValueError:
            return None
        return found if found.text() == text else None

    def append(self, leaf: bytes) -> None:
        """Add a leaf."""
        size, digest = 1, leaf_hash(leaf)
        while self._peaks and self._peaks[-1][0] == size:
            digest = _node(self._peaks.pop()[1], digest)
            size *= 2
        self._peaks.append((size, digest))

    def root(self) -> bytes:
        """The hash of the tree so far."""
        if not self._peaks:
            return _EMPTY
        found = self._peaks[-1][1]
        for _, digest in reversed(self._peaks[:-1]):
            found = _node(digest, found)
        return found

    def text(self) -> str:
        """To be kept, and given to a new `Frontier`."""
        return " ".join(f"{size}:{digest.hex()}" for size, digest in self._peaks)
