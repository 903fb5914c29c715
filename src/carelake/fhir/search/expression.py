"""The part of FHIRPath that R4's search parameters are written in, read into paths.

    union    = part ("|" part)*
    part     = "(" part " as " TYPE ")" rest | TYPE rest | path ".exists() and " path " != false"
    rest     = ("." step)*
    step     = NAME | "as(" TYPE ")" | "ofType(" TYPE ")" | "where(" test ")"
    test     = "resolve() is " TYPE | NAME "='" TEXT "'"

What does not fit raises `Misfit` with the reason, and its parameter is listed as not supported.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

__all__ = ["Equals", "Misfit", "NoElement", "Path", "Present", "Refers", "Step", "read", "read_part", "split"]


class Misfit(Exception):
    """The expression is outside of the grammar."""


class NoElement(Misfit):
    """The expression names an element that the type does not have."""


@dataclass(frozen=True, slots=True)
class Refers:
    """Keep references to this resource type only."""

    type: str


@dataclass(frozen=True, slots=True)
class Equals:
    """Keep objects whose element ``name`` has this value."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Present:
    """The answer itself, true or false: whether the element is there and is not ``false``."""


@dataclass(frozen=True, slots=True)
class Step:
    """One element: its name, the type chosen where it is a choice, and what it must satisfy."""

    name: str
    type: str = ""
    test: Refers | Equals | Present | None = None


@dataclass(frozen=True, slots=True)
class Path:
    """A path from a resource type (``Resource`` and ``DomainResource`` are any)."""

    root: str
    steps: tuple[Step, ...]


_TOKEN = re.compile(
    r"(?P<as>\.(?:as|ofType)\(\s*(?:FHIR\.)?(?P<type>\w+)\s*\))"
    r"|(?P<resolve>\.where\(\s*resolve\(\)\s+is\s+(?:FHIR\.)?(?P<target>\w+)\s*\))"
    r"|(?P<equal>\.where\(\s*(?P<name>[a-z]\w*)\s*=\s*'(?P<value>[^'\\]*)'\s*\))"
    r"|(?P<step>\.(?P<element>[a-z]\w*))(?![\w(\[])"
)
_QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'|`(?:[^`\\]|\\.)*`|\"(?:[^\"\\]|\\.)*\"|//[^\n]*|/\*.*?\*/", re.DOTALL)
_CAST = re.compile(r"\((?P<inner>[^()|]+?)\s+as\s+(?:FHIR\.)?(?P<type>\w+)\)(?P<rest>.*)")
_PRESENT = re.compile(r"(?P<path>[A-Z]\w+\.\w+)\.exists\(\) and (?P=path) != false")
_ROOT = re.compile(r"[A-Z]\w+")


def read(expression: str) -> list[Path]:
    """The paths of a union.

    Raises:
        Misfit: some part is outside of the grammar.
    """
    return [read_part(text) for text in split(expression)]


@lru_cache(4096)
def split(expression: str) -> tuple[str, ...]:
    """The parts of the outer union, each without the white space around it."""
    plain = _QUOTED.sub(lambda found: "x" * len(found[0]), expression)  # what is quoted has no signs
    parts, depth, start = [], 0, 0
    for n, sign in enumerate(plain):
        depth += (sign in "([{") - (sign in ")]}")
        if sign == "|" and depth == 0:
            parts.append(expression[start:n])
            start = n + 1
    return tuple(part.strip() for part in [*parts, expression[start:]])


@lru_cache(4096)
def read_part(text: str) -> Path:
    """The path of one part of a union; without a type in front it starts at ``Resource``.

    Raises:
        Misfit: it is outside of the grammar.
    """
    cast = _CAST.fullmatch(text)
    if cast is not None:
        text = f"{cast['inner']}.as({cast['type']}){cast['rest']}"
    elif text.startswith("(") and text.endswith(")"):
        text = text[1:-1]
    present = _PRESENT.fullmatch(text)
    if present is not None:
        root_name, name = present["path"].split(".")
        return Path(root_name, (Step(name, test=Present()),))
    if not text:
        raise Misfit("the standard gives no expression for it")
    root = _ROOT.match(text)
    if root is None:
        return read_part(f"Resource.{text}")
    steps: list[Step] = []
    at = root.end()
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise Misfit("the expression uses FHIRPath outside of paths, as, ofType, where and unions")
        steps = _grow(steps, found)
        at = found.end()
    return Path(root[0], tuple(steps))


def _grow(steps: list[Step], found: re.Match[str]) -> list[Step]:
    if found["step"]:
        return [*steps, Step(found["element"])]
    if not steps:
        raise Misfit("the expression tests the resource itself")
    last = steps[-1]
    if found["as"]:
        last = Step(last.name, found["type"], last.test)
    elif found["resolve"]:
        last = Step(last.name, last.type, Refers(found["target"]))
    else:
        last = Step(last.name, last.type, Equals(found["name"], found["value"]))
    return [*steps[:-1], last]
