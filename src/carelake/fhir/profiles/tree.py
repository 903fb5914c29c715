"""A profile's snapshot as a tree of elements and slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import msgspec

from carelake.fhir.rules import Rule, ValueSet

__all__ = ["Node", "Profile", "Row", "Slicing", "TypeOf", "tree"]


class TypeOf(msgspec.Struct, frozen=True, omit_defaults=True):
    """A type that an element may have, the profiles it must follow then, and those of what it may refer to."""

    code: str
    profile: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()


class Slicing(msgspec.Struct, frozen=True, omit_defaults=True):
    """How the values of an element are told apart; ``discriminator`` holds (type, path)."""

    rules: str
    ordered: bool = False
    discriminator: tuple[tuple[str, str], ...] = ()


class Row(
    msgspec.Struct, frozen=True, omit_defaults=True, rename={"value_set": "valueSet", "slice_name": "sliceName"}
):
    """One element of a snapshot, as `tools/compile_rules.py` writes it and `packages` reads it from a guide.

    Attributes:
        is_: what it must equal (``fixed[x]``); like: what it must hold at least (``pattern[x]``).
    """

    id: str
    path: str
    min: int = 0
    max: str = "*"
    slice_name: str = ""
    type: tuple[TypeOf, ...] = ()
    slicing: Slicing | None = None
    is_: Any = msgspec.field(name="is", default=msgspec.UNSET)
    like: Any = msgspec.UNSET
    constraint: tuple[Rule, ...] = ()
    value_set: str = ""


class Profile(msgspec.Struct, frozen=True):
    """A profile as it is kept: rows in the snapshot's order, the first one for the type itself."""

    url: str
    type: str
    elements: tuple[Row, ...]
    version: str = ""
    base: str = ""


@dataclass
class Node:
    """An element or a slice, what lies below it, and its slices.

    Attributes:
        name: last step of the path without ``[x]``.
        codes: the codes of a required binding, where they are listed.
    """

    row: Row
    name: str
    codes: ValueSet | None = None
    children: dict[str, Node] = field(default_factory=dict)
    slices: list[Node] = field(default_factory=list)

    @cached_property
    def types(self) -> frozenset[str]:
        """The types that it may have; none for any."""
        return frozenset(kind.code for kind in self.row.type)

    @cached_property
    def demands(self) -> bool:
        """Whether something is wrong when it is not there."""
        return self.row.min > 0 or any(slice_.row.min for slice_ in self.slices)

    @property
    def most(self) -> float:
        """How many values it may have."""
        return float("inf") if self.row.max == "*" else int(self.row.max)


def tree(rows: Sequence[Row], value_sets: Mapping[str, ValueSet]) -> Node:
    """The root element; slices hang on the element that they slice, by the ids of the rows."""
    nodes: dict[str, Node] = {}
    for row in rows:
        made = Node(row, row.path.rpartition(".")[2].removesuffix("[x]"), value_sets.get(row.value_set))
        above, _, step = row.id.rpartition(".")
        if ":" in step and (sliced := nodes.get(f"{above}.{step.partition(':')[0]}")) is not None:
            sliced.slices.append(made)
        elif above in nodes:
            nodes[above].children[made.name] = made
        nodes[row.id] = made
    return nodes[rows[0].id]
