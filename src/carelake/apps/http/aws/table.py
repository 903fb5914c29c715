"""The table of what is served, by service and name."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from carelake.apps.http.aws.served import Served

__all__ = ["served", "served_as"]


@cache
def served() -> Mapping[tuple[str, str], Served]:
    """Every operation that is served."""
    # Learning's libraries are heavy: nothing of them is imported before the first request.
    from carelake.apps.http.aws import (
        endpoints,
        features,
        invoking,
        lineage,
        monitoring,
        packages,
        pipelines,
        searching,
        tagging,
    )

    rooms = (endpoints, features, invoking, lineage, monitoring, packages, pipelines, searching, tagging)
    found = [one for room in rooms for one in room.operations()]
    return {(one.service, one.name): one for one in found}


def served_as(service: str, name: str) -> Served | None:
    """One of them."""
    return served().get((service, name))
