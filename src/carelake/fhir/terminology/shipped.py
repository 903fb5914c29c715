"""The code systems and value sets of the FHIR R4 core package, compiled by ``tools/compile_codes.py``.

Without the contents of SNOMED CT, LOINC and CPT (decision D16), and without examples. The file is read at first use.
"""

from __future__ import annotations

from functools import cache
from importlib import resources

import msgspec
import zstandard

from carelake.fhir.terminology.model import CodeSystem, ValueSet

__all__ = ["SHIPPED", "Shipped"]


class _File(msgspec.Struct, frozen=True, array_like=True):
    systems: tuple[CodeSystem, ...]
    sets: tuple[ValueSet, ...]


@cache
def _load() -> tuple[dict[str, CodeSystem], dict[str, ValueSet]]:
    packed = resources.files("carelake.fhir").joinpath("r4-codes.msgpack.zst").read_bytes()
    file = msgspec.msgpack.decode(zstandard.decompress(packed), type=_File)
    return {one.url: one for one in file.systems}, {one.url: one for one in file.sets}


class Shipped:
    """The library of what ships."""

    def code_system(self, url: str) -> CodeSystem | None:
        """A code system of the core package."""
        return _load()[0].get(url)

    def value_set(self, url: str) -> ValueSet | None:
        """A value set of the core package."""
        return _load()[1].get(url)


SHIPPED = Shipped()
