"""Validation of R4 resources (https://hl7.org/fhir/R4/validation.html) at three levels, as HealthLake has them.

``minimal``: a resource of a known type, with an id where it has one in the right form. ``structure``: names, types,
cardinality, formats, required codes (`structure`). ``strict``: also constraints, bindings, types of references, and
the profiles that the resource claims or the caller names (`base_rules`, `profiles`). What could not be checked is
said, as information.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Any, Literal

from carelake.core import canonical
from carelake.core.errors import Invalid, NotFound
from carelake.fhir import base_rules
from carelake.fhir.constraints import Exists
from carelake.fhir.definitions import is_resource
from carelake.fhir.issues import Issue
from carelake.fhir.lines import located, place, repeated
from carelake.fhir.profiles.registry import Registry, shipped
from carelake.fhir.profiles.walk import walk
from carelake.fhir.structure import MAX_DEPTH, MAX_ISSUES, check, issues, too_deep

__all__ = [
    "LEVELS",
    "MAX_DEPTH",
    "MAX_ISSUES",
    "Exists",
    "Issue",
    "Mode",
    "check",
    "checker",
    "in_text",
    "readable",
    "validate",
    "validate_text",
]

Mode = Literal["strict", "structure", "minimal"]
_CORE = "http://hl7.org/fhir/StructureDefinition/"
_NOT_DOMAIN = ("Binary", "Bundle", "Parameters")
LEVELS: tuple[Mode, ...] = ("strict", "structure", "minimal")


def validate(
    resource: Any,
    profile: str | None = None,
    *,
    mode: Mode = "strict",
    registry: Registry | None = None,
    exists: Exists | None = None,
    max_depth: int = MAX_DEPTH,
) -> list[Issue]:
    """The issues of a resource, at most `MAX_ISSUES`; without one that is `bad` it is valid.

    Args:
        resource: parsed JSON, as `core.canonical.load` gives it.
        profile: url of a profile that it must follow, beside those in its ``meta.profile`` that are loaded.
        registry: the profiles that are known; those that are shipped, where none is given.
        exists: ``(type, id)`` to whether there is such a resource; what is referred to is not looked for without it.

    Raises:
        NotFound: ``fhir.profile``, when the ``profile`` asked for is not loaded.
    """
    known = registry or shipped() if profile is not None else registry
    if profile is not None and known is not None and not _core_type(profile):
        known.profile(profile)
    found = _least(resource, max_depth) if mode == "minimal" else issues(resource, max_depth=max_depth)
    if found or mode == "minimal" or (mode == "structure" and exists is None):
        return found  # rules are written for resources of the right structure
    try:
        return _first(_further(resource, profile, mode, known, exists))
    except RecursionError:  # a limit set beyond what Python can follow
        return [too_deep()]


def validate_text(
    data: bytes | str,
    profile: str | None = None,
    *,
    mode: Mode = "strict",
    registry: Registry | None = None,
    exists: Exists | None = None,
    max_depth: int = MAX_DEPTH,
) -> list[Issue]:
    """As `validate`, of a JSON text: issues have lines and columns, and what is no JSON or repeats a key is one."""
    resource = readable(data)
    if isinstance(resource, Issue):
        return [resource]
    found = validate(resource, profile, mode=mode, registry=registry, exists=exists, max_depth=max_depth)
    return in_text(data, resource, found)


def readable(data: bytes | str) -> Any | Issue:
    """What a JSON text holds, or the issue that it is none, with its place."""
    try:
        return canonical.load(data)
    except Invalid as error:
        return _unreadable(data, error)


def in_text(data: bytes | str, whole: Any, found: list[Issue], inside: str = "") -> list[Issue]:
    """Issues with lines and columns, those of keys that the text repeats before them.

    Args:
        whole: what was read of the text.
        inside: where in the whole the validated resource stands: ``Parameters.parameter[0].resource``.
    """
    told = located(data, found, inside)
    if _may_repeat(data, whole):
        told = [*islice(_repetitions(data, whole), MAX_ISSUES), *told]
    return told[:MAX_ISSUES]


def _first(found: Iterator[Issue]) -> list[Issue]:
    """At most `MAX_ISSUES`, in order; advice never takes the place of an error, however much there is before it."""
    bad: list[tuple[int, Issue]] = []
    other: list[tuple[int, Issue]] = []
    for numbered in enumerate(found):
        kept = bad if numbered[1].bad else other
        if len(kept) < MAX_ISSUES:
            kept.append(numbered)
        elif kept is bad:
            break
    return [issue for _, issue in sorted([*bad, *other[: MAX_ISSUES - len(bad)]], key=lambda one: one[0])]


def checker(
    mode: Mode = "structure",
    *,
    registry: Registry | None = None,
    exists: Exists | None = None,
    max_depth: int = MAX_DEPTH,
) -> Callable[[Any], Issue | None]:
    """The first issue that makes a resource invalid at a level, or None: asked of each resource that is kept."""
    if mode == "structure" and exists is None:
        return partial(check, max_depth=max_depth)
    if mode == "minimal":
        return lambda resource: next(iter(_least(resource, max_depth)), None)

    def further(resource: Any) -> Issue | None:
        found = check(resource, max_depth=max_depth)
        if found is not None:
            return found
        try:
            return next((one for one in _further(resource, None, mode, registry, exists) if one.bad), None)
        except RecursionError:
            return too_deep()

    return further


def _least(resource: Any, max_depth: int) -> list[Issue]:
    first = check(resource) if not isinstance(resource, dict) or not resource.get("resourceType") else None
    if first is None:
        if _deeper(resource, max_depth):
            return [too_deep()]
        found = issues({k: v for k, v in resource.items() if k in ("resourceType", "id")})
        return [issue for issue in found if issue.code != "required" or "." not in issue.expression]
    return [first]


def _deeper(resource: Any, most: int) -> bool:
    """Whether there are more levels of objects and arrays than ``most``, the resource itself included."""
    level = [resource]
    for _ in range(most):
        held = (child for one in level for child in (one.values() if isinstance(one, dict) else one))
        level = [child for child in held if isinstance(child, (dict, list))]
        if not level:
            return False
    return True


def _further(
    resource: dict[str, Any], profile: str | None, mode: Mode, registry: Registry | None, exists: Exists | None
) -> Iterator[Issue]:
    """What is asked beyond structure; at that level that references lead somewhere, if asked."""
    if mode == "structure":
        yield from (issue for issue in base_rules.walk(resource, exists) if issue.code == "not-found")
        return
    yield from base_rules.walk(resource, exists)
    claimed = resource.get("meta", {}).get("profile", ())
    wanted = dict.fromkeys(
        [*([profile] if profile is not None else ()), *(one for one in claimed if one is not None)]
    )
    for url in wanted:
        try:
            yield from walk(resource, url, registry or shipped())
        except NotFound:
            kind, core = resource["resourceType"], _core_type(url)
            if core and core not in (kind, "Resource", "" if kind in _NOT_DOMAIN else "DomainResource"):
                yield Issue("error", "structure", kind, f"The profile is of {core}, the resource is not.")
            if core:
                continue  # what the type itself demands was asked before
            at = f"{kind}.meta.profile"
            said = "A profile that the resource claims is not loaded; the resource was not checked against it."
            yield Issue("information", "not-supported", at, said)


def _core_type(url: str) -> str:
    """The type whose own definition a url names, ``http://hl7.org/fhir/StructureDefinition/Patient``; else ""."""
    bare, _, version = url.partition("|")
    name = bare.removeprefix(_CORE)
    known = name != bare and (is_resource(name) or name in ("Resource", "DomainResource"))
    return name if known and version in ("", "4.0", "4.0.1") else ""


_BYTE = re.compile(r"\(byte (\d+)\)")


def _unreadable(data: bytes | str, error: Invalid) -> Issue:
    told = _BYTE.search(error.message)
    at = told[1] if told else None
    if isinstance(data, bytes):
        try:
            data.decode()
        except UnicodeDecodeError as wrong:
            at = str(wrong.start)
    # A text that ends too early, or nests too deeply, has no place of its own in the message.
    ends = "truncated" in error.message
    line, column = place(data, int(at)) if at is not None else place(data, len(data)) if ends else (1, 1)
    return Issue("fatal", "structure", "", error.message, line, column)


def _may_repeat(data: bytes | str, resource: Any) -> bool:
    """Whether a text has more quotes than what was read of it: what a repeated key held is gone, quotes and all."""
    data = data.encode() if isinstance(data, str) else data
    return data.count(b'"') + data.count(b"\\u0022") != canonical.dump(resource).count(b'"')


def _repetitions(data: bytes | str, resource: Any) -> Iterator[Issue]:
    kind = resource.get("resourceType") if isinstance(resource, dict) else None
    name = kind if isinstance(kind, str) and kind.isidentifier() else ""
    said = "The object names this key twice; expected each once, so that nothing is lost."
    for steps, line, column in repeated(data):
        yield Issue("error", "structure", (name + steps).lstrip("."), said, line, column)
