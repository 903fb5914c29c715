"""RFC 6962: roots, inclusion and consistency proofs, against the definitions written out."""

from __future__ import annotations

import hashlib

from hypothesis import given, settings
from hypothesis import strategies as st

from carelake.audit import merkle

LEAVES = st.lists(st.binary(max_size=6), max_size=50)


def by_definition(leaves: list[bytes]) -> bytes:
    # Section 2.1, as written there: split at the largest power of two below n.
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    k = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha256(b"\x01" + by_definition(leaves[:k]) + by_definition(leaves[k:])).digest()


def path_by_definition(index: int, leaves: list[bytes]) -> list[bytes]:
    if len(leaves) <= 1:
        return []
    k = 1 << (len(leaves) - 1).bit_length() - 1
    if index < k:
        return [*path_by_definition(index, leaves[:k]), by_definition(leaves[k:])]
    return [*path_by_definition(index - k, leaves[k:]), by_definition(leaves[:k])]


@settings(deadline=None)
@given(LEAVES)
def test_root_and_frontier(leaves: list[bytes]) -> None:
    frontier = merkle.Frontier()
    for leaf in leaves:
        frontier.append(leaf)
        frontier = merkle.Frontier(frontier.text())
    assert merkle.root(leaves) == by_definition(leaves) == frontier.root()


@settings(deadline=None)
@given(LEAVES.filter(bool), st.data())
def test_inclusion(leaves: list[bytes], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(leaves) - 1))
    path, root = merkle.inclusion(leaves, index), merkle.root(leaves)
    assert path == path_by_definition(index, leaves)
    assert merkle.included(leaves[index], index, len(leaves), path, root)
    assert not merkle.included(leaves[index] + b"x", index, len(leaves), path, root)
    assert not merkle.included(leaves[index], index, len(leaves), [*path, root], root)
    assert not merkle.included(leaves[index], len(leaves), len(leaves), path, root)
    for cut in range(len(path)):
        assert not merkle.included(leaves[index], index, len(leaves), path[:cut], root)


@settings(deadline=None)
@given(LEAVES, st.data())
def test_consistency(leaves: list[bytes], data: st.DataObject) -> None:
    old = data.draw(st.integers(0, len(leaves)))
    proof, root, before = merkle.consistency(leaves, old), merkle.root(leaves), merkle.root(leaves[:old])
    assert merkle.consistent(old, before, len(leaves), root, proof)
    if 0 < old < len(leaves):
        assert not merkle.consistent(old, root[::-1], len(leaves), root, proof)
        assert not merkle.consistent(old, before, len(leaves), root[::-1], proof)
        assert not merkle.consistent(old, before, len(leaves), root, [*proof, root])
        assert not merkle.consistent(old, before, len(leaves), root, proof[:-1])
    assert not merkle.consistent(len(leaves) + 1, before, len(leaves), root, proof)


def test_the_examples_of_rfc_6962_section_2_1_3() -> None:
    """Seven leaves, as drawn there: which nodes the proofs are made of."""
    leaves = [bytes([n]) for n in range(7)]

    def node(*numbers: int) -> bytes:
        return by_definition([leaves[n] for n in numbers])

    assert merkle.inclusion(leaves, 0) == [node(1), node(2, 3), node(4, 5, 6)]
    assert merkle.inclusion(leaves, 3) == [node(2), node(0, 1), node(4, 5, 6)]
    assert merkle.inclusion(leaves, 4) == [node(5), node(6), node(0, 1, 2, 3)]
    assert merkle.inclusion(leaves, 6) == [node(4, 5), node(0, 1, 2, 3)]
    assert merkle.consistency(leaves, 3) == [node(2), node(3), node(0, 1), node(4, 5, 6)]
    assert merkle.consistency(leaves, 4) == [node(4, 5, 6)]
    assert merkle.consistency(leaves, 6) == [node(4, 5), node(6), node(0, 1, 2, 3)]
