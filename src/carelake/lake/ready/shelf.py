"""The ViewDefinitions that come with the package, by name: one JSON file each, made for US Core 6.1.0.

https://hl7.org/fhir/us/core/STU6.1/. Columns are named alike everywhere: ``id`` is the resource's, ``patient_id``
and ``encounter_id`` are ids of what it refers to, ``X``, ``X_system``, ``X_display`` and ``X_text`` are the first
coding and the text of a CodeableConcept. Moments are the text that was sent: they may be partial.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from carelake.core import canonical
from carelake.core.errors import NotFound

__all__ = ["find", "is_ready", "names"]

_FOLDER = "us_core"


@cache
def names() -> tuple[str, ...]:
    """The views there are, sorted."""
    there = files("carelake.lake.ready").joinpath(_FOLDER).iterdir()
    return tuple(sorted(one.name.removesuffix(".json") for one in there if one.name.endswith(".json")))


def is_ready(name: str) -> bool:
    """Whether there is a view of that name."""
    return name in names()


@cache
def _read(name: str) -> bytes:
    return files("carelake.lake.ready").joinpath(_FOLDER, f"{name}.json").read_bytes()


def find(name: str) -> Mapping[str, Any]:
    """The ViewDefinition of that name, parsed; the caller may change it.

    Raises:
        NotFound: ``lake.no_such_view``.
    """
    if not is_ready(name):
        raise NotFound("lake.no_such_view", "There is no ready-made view of that name; see `carelake view list`.")
    found: Mapping[str, Any] = canonical.load(_read(name))
    return found
