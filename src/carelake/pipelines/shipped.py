"""Recipes that come with carelake as definitions under ``recipes/``, entered as pipelines when first run."""

from __future__ import annotations

from functools import cache
from importlib import resources

from carelake.core.errors import NotFound
from carelake.pipelines.definition.document import Definition, parse

__all__ = ["TARGETS", "definition", "shipped"]

TARGETS = frozenset({"deterioration", "mortality", "pipelines", "readmission", "uci-readmission", "utilisation"})
"""Words by which the trail may tell of pipelines; names that people gave are not shown there."""


@cache
def shipped() -> dict[str, str]:
    """The definition of every recipe, by name."""
    folder = resources.files(__package__).joinpath("recipes")
    files = (one for one in folder.iterdir() if one.name.endswith(".json"))
    return {one.name.removesuffix(".json"): one.read_text(encoding="utf-8") for one in files}


def definition(name: str) -> Definition:
    """One recipe; `NotFound` ``pipelines.no_such_recipe``."""
    known = shipped()
    if name not in known:
        raise NotFound("pipelines.no_such_recipe", f"There is no such recipe; there are: {', '.join(sorted(known))}.")
    return parse(known[name])
