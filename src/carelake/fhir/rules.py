"""Rules beyond structure: constraints of the R4 types, and the bindings whose codes the core package lists.

Compiled by ``tools/compile_rules.py`` (decision D16); the file is read when a rule is first asked for.
https://hl7.org/fhir/R4/conformance-rules.html#constraints
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

import msgspec
import zstandard

from carelake.core.shapes import decodable

__all__ = ["Rule", "ValueSet", "bound", "listed", "read", "rules"]


class Rule(msgspec.Struct, frozen=True, array_like=True):
    """A constraint: its key, ``error`` or ``warning``, the standard's own sentence, and a FHIRPath expression."""

    key: str
    severity: str
    human: str
    expression: str


ValueSet = Mapping[str, frozenset[str]]
"""Codes by code system."""


class _File(msgspec.Struct, frozen=True, array_like=True):
    rules: list[tuple[str, tuple[Rule, ...]]]
    bound: list[tuple[str, str]]
    value_sets: list[tuple[str, list[tuple[str, list[str]]]]]


class _Rules:
    def __init__(self, file: _File) -> None:
        self.rules = dict(file.rules)
        self.value_sets = listed(file.value_sets)
        self.bound = dict(file.bound)


def listed(rows: list[tuple[str, list[tuple[str, list[str]]]]]) -> dict[str, ValueSet]:
    """Value sets by url."""
    return {url: {system: frozenset(codes) for system, codes in systems} for url, systems in rows}


def read(name: str, kind: Any) -> Any:
    """A compiled file of this folder as ``kind``."""
    packed = resources.files("carelake.fhir").joinpath(f"{name}.msgpack.zst").read_bytes()
    return msgspec.msgpack.decode(zstandard.decompress(packed), type=decodable(kind))


@cache
def _load() -> _Rules:
    return _Rules(read("r4-rules", _File))


def rules(path: str) -> tuple[Rule, ...]:
    """Constraints of a type (``Period``, ``Patient.contact``) or of an element (``Bundle.link``)."""
    return _load().rules.get(path, ())


def bound(path: str) -> ValueSet | None:
    """The codes that a CodeableConcept, Coding or Quantity must be one of; None where none are listed."""
    url = _load().bound.get(path)
    return _load().value_sets[url] if url is not None else None
