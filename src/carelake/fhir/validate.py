"""Validation of R4 resources (https://hl7.org/fhir/R4/validation.html) in three modes, as HealthLake has them.

``minimal``: a resource of a known type, with an id where it has one in the right form. ``structure``: names, types,
cardinality, formats, required codes (`structure`). ``strict``: also constraints, bindings, types of references, and
the profiles that the resource claims or the caller names (`base_rules`, `profiles`). What could not be checked is
said, as information.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, Literal

from carelake.core.errors import NotFound
from carelake.fhir import base_rules
from carelake.fhir.issues import Issue
from carelake.fhir.profiles.registry import Registry, shipped
from carelake.fhir.profiles.walk import walk
from carelake.fhir.structure import MAX_DEPTH, MAX_ISSUES, check, issues

__all__ = ["MAX_DEPTH", "MAX_ISSUES", "Issue", "Mode", "check", "validate"]

Mode = Literal["strict", "structure", "minimal"]


def validate(
    resource: Any,
    profile: str | None = None,
    *,
    mode: Mode = "strict",
    registry: Registry | None = None,
    max_depth: int = MAX_DEPTH,
) -> list[Issue]:
    """The issues of a resource, at most `MAX_ISSUES`; without one of severity ``error`` it is valid.

    Args:
        resource: parsed JSON, as `core.canonical.load` gives it.
        profile: url of a profile that it must follow, beside those in its ``meta.profile`` that are loaded.
        registry: the profiles that are known; those that are shipped, where none is given.

    Raises:
        NotFound: ``fhir.profile``, when the ``profile`` asked for is not loaded.
    """
    known = registry or shipped() if profile is not None else registry
    if profile is not None and known is not None:
        known.profile(profile)
    found = _least(resource) if mode == "minimal" else issues(resource, max_depth=max_depth)
    if found or mode != "strict":
        return found  # rules are written for resources of the right structure
    return list(islice(_strict(resource, profile, known or shipped()), MAX_ISSUES))


def _least(resource: Any) -> list[Issue]:
    first = check(resource) if not isinstance(resource, dict) or not resource.get("resourceType") else None
    if first is None:
        found = issues({k: v for k, v in resource.items() if k in ("resourceType", "id")})
        return [issue for issue in found if issue.code != "required" or "." not in issue.expression]
    return [first]


def _strict(resource: dict[str, Any], profile: str | None, known: Registry) -> Iterator[Issue]:
    yield from base_rules.walk(resource)
    claimed = resource.get("meta", {}).get("profile", ())
    wanted = dict.fromkeys([*([profile] if profile is not None else ()), *claimed])
    for url in wanted:
        try:
            yield from walk(resource, url, known)
        except NotFound:
            at = f"{resource['resourceType']}.meta.profile"
            said = "A profile that the resource claims is not loaded; the resource was not checked against it."
            yield Issue("information", "not-supported", at, said)
