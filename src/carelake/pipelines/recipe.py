"""Recipes: plans as data, one TOML file each under ``recipes/``."""

from __future__ import annotations

import tomllib
from importlib import resources

import msgspec

from carelake.core.errors import NotFound
from carelake.core.shapes import decodable

__all__ = ["Recipe", "Step", "recipe", "recipes"]


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One step: its name, the function that does it, and what people are told meanwhile."""

    name: str
    does: str
    title: str


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A plan: steps in order, each taking the outputs of those before it."""

    name: str
    title: str
    steps: tuple[Step, ...]


def recipes() -> dict[str, Recipe]:
    """Every recipe by name."""
    folder = resources.files(__package__).joinpath("recipes")
    files = (f for f in folder.iterdir() if f.name.endswith(".toml"))
    read = (msgspec.convert(tomllib.loads(f.read_text(encoding="utf-8")), decodable(Recipe)) for f in files)
    return {r.name: r for r in read}


def recipe(name: str) -> Recipe:
    """One recipe.

    Raises:
        NotFound: ``pipelines.no_such_recipe``.
    """
    known = recipes()
    if name not in known:
        raise NotFound("pipelines.no_such_recipe", f"There is no such recipe; there are: {', '.join(sorted(known))}.")
    return known[name]
