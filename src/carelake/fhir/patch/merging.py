"""JSON Merge Patch (RFC 7396), which some clients send when they save a part of a resource.

https://www.rfc-editor.org/rfc/rfc7396
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from carelake.core.errors import Invalid
from carelake.fhir.patch.bounds import MAX_BYTES, Budget, copied

__all__ = ["merge_patch"]


def merge_patch(resource: dict[str, Any], change: Mapping[str, Any], *, most: int = MAX_BYTES) -> dict[str, Any]:
    """A new resource: with what ``change`` says, and without what it says is null; lists are replaced whole.

    Args:
        most: bytes of JSON that the patch may add, and that may come out.

    Raises:
        Invalid: ``fhir.patch``, ``fhir.patch_limit``.
    """
    if not isinstance(change, Mapping):
        raise Invalid("fhir.patch", "A JSON Merge Patch of a resource is an object.")
    budget = Budget(most)
    merged: dict[str, Any] = copied(resource)
    todo: list[tuple[dict[str, Any], Mapping[str, Any]]] = [(merged, budget.take(0, dict(change)))]
    while todo:
        target, said = todo.pop()
        for name, value in said.items():
            if value is None:
                target.pop(name, None)
            elif isinstance(value, dict):
                inner = target.get(name)
                if not isinstance(inner, dict):
                    inner = target[name] = {}
                todo.append((inner, value))
            else:
                target[name] = value
    budget.settle(merged, 1)
    return merged
