"""Lists as SageMaker gives them: by a part of the name, by times, sorted, and in pages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from carelake.apps.http.aws.pages import page
from carelake.apps.http.aws.served import Asked

__all__ = ["listed"]


def listed(
    asked: Asked, operation: str, key: str, found: Iterable[Mapping[str, Any]], name: str, status: str = ""
) -> dict[str, Any]:
    """One page of summaries under ``key``.

    Args:
        name: the member that holds the name of one. status: and its status.
    """
    said = asked.said
    rows = [one for one in found if said.get("NameContains", "").lower() in one[name].lower() and _in_time(said, one)]
    if "StatusEquals" in said:
        rows = [one for one in rows if one[status] == said["StatusEquals"]]
    by = {"Name": name, "Status": status}.get(said.get("SortBy", ""), "CreationTime")
    rows.sort(key=lambda one: (one[by], one[name]), reverse=said.get("SortOrder", "Descending") == "Descending")
    shown, more = page(asked, operation, rows, 100)
    return {key: shown, **more}


def _in_time(said: Mapping[str, Any], one: Mapping[str, Any]) -> bool:
    for member in ("CreationTime", "LastModifiedTime"):
        before, after = said.get(f"{member}Before"), said.get(f"{member}After")
        if (before is not None and one[member] >= before) or (after is not None and one[member] <= after):
            return False
    return True
