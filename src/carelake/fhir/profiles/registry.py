"""The profiles that are known: those of the core package and of US Core 6.1.0, and what callers load."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import msgspec

from carelake.core.errors import NotFound
from carelake.fhir.profiles.tree import Node, Profile, tree
from carelake.fhir.rules import ValueSet, listed, read

__all__ = ["Registry", "shipped"]

_SHIPPED = ("r4-profiles", "us-core-6.1.0")


class _File(msgspec.Struct, frozen=True, array_like=True):
    profiles: list[Profile]
    value_sets: list[tuple[str, list[tuple[str, list[str]]]]]


class Registry:
    """Profiles by url; a tree is made when it is first asked for."""

    def __init__(
        self, profiles: dict[str, Profile], value_sets: dict[str, ValueSet], bare: frozenset[str] = frozenset()
    ) -> None:
        self._profiles = profiles
        self._value_sets = value_sets
        self._bare = bare
        self._trees: dict[str, Node] = {}

    def profile(self, url: str) -> Profile:
        """A profile by its canonical url, with or without ``|version``.

        Raises:
            NotFound: ``fhir.profile``.
        """
        bare, _, version = url.partition("|")
        found = self._profiles.get(bare)
        if found is None and bare in self._bare:
            raise NotFound(
                "fhir.profile", "The profile came without a snapshot, so it cannot be used; make one first."
            )
        if found is None or (version and version != found.version):
            raise NotFound(
                "fhir.profile",
                "The profile is not loaded; known are those of FHIR R4 and of US Core 6.1.0. Load its package first.",
            )
        return found

    def root(self, url: str) -> Node | None:
        """The tree of a profile, or None where it is not loaded."""
        bare = url.partition("|")[0]
        if bare not in self._trees:
            found = self._profiles.get(bare)
            if found is None:
                return None
            self._trees[bare] = tree(found.elements, self._value_sets)
        return self._trees[bare]

    def urls(self) -> tuple[str, ...]:
        """Every profile, sorted."""
        return tuple(sorted(self._profiles))

    def type_of(self, url: str) -> str:
        """The type that a profile is of; for one that is not loaded, the last step of a core type's url, or ""."""
        bare = url.partition("|")[0]
        found = self._profiles.get(bare)
        if found is not None:
            return found.type
        head, _, tail = bare.rpartition("/")
        return tail if head == "http://hl7.org/fhir/StructureDefinition" else ""

    def joined(self, profiles: list[Profile], value_sets: dict[str, ValueSet], bare: Iterable[str] = ()) -> Registry:
        """A registry that knows more; of two with one url the new one counts. ``bare`` are without a snapshot."""
        known = {**self._profiles, **{p.url: p for p in profiles}}
        return Registry(known, {**self._value_sets, **value_sets}, self._bare.union(bare))


@cache
def shipped() -> Registry:
    """What is in the package; read at the first call."""
    files = [read(name, _File) for name in _SHIPPED]
    value_sets = {url: codes for file in files for url, codes in listed(file.value_sets).items()}
    return Registry({p.url: p for file in files for p in file.profiles}, value_sets)
