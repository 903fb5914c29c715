"""List operations: filtered, sorted and cut into pages as SageMaker's are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from carelake.core.errors import Invalid
from carelake.core.permit import Permit
from carelake.vault.keyring import Keyring
from carelake.vault.paging import paged

__all__ = ["page"]

_MOST = 100


def page(
    permit: Permit, keyring: Keyring, found: Sequence[dict[str, Any]], request: Mapping[str, Any], kind: str
) -> dict[str, Any]:
    """One page of summaries, as ``{KIND}SummaryList`` with ``NextToken`` where there are more.

    Args:
        request: NameContains, CreationTimeAfter, CreationTimeBefore, SortBy, SortOrder, MaxResults, NextToken.
        kind: ``ModelPackage`` or ``ModelPackageGroup``.

    Raises:
        Invalid: ``models.next_token``, ``models.max_results``.
    """
    named = request.get("NameContains")
    after, before = _moment(request.get("CreationTimeAfter")), _moment(request.get("CreationTimeBefore"))
    kept = [
        one
        for one in found
        if (not named or str(named).lower() in _name(one, kind).lower())
        and (after is None or one["CreationTime"] > after)
        and (before is None or one["CreationTime"] < before)
    ]
    by_name = request.get("SortBy", "CreationTime") == "Name"

    def key(one: dict[str, Any]) -> Any:
        last = one.get("ModelPackageVersion", 0)
        return (_name(one, kind), last) if by_name else (one["CreationTime"], _name(one, kind), last)

    kept.sort(key=key, reverse=request.get("SortOrder", "Ascending") == "Descending")
    most = request.get("MaxResults") or _MOST
    if not isinstance(most, int) or not 1 <= most <= _MOST:
        raise Invalid("models.max_results", f"MaxResults is 1 to {_MOST}.")
    try:
        shown, more = paged(permit, keyring, kind, request, kept, most)
    except Invalid:
        raise Invalid("models.next_token", "The NextToken is none of ours; ask again from the first page.") from None
    return {f"{kind}SummaryList": shown, **more}


def _name(one: Mapping[str, Any], kind: str) -> str:
    return str(one.get(f"{kind}Name") or one.get("ModelPackageGroupName"))


def _moment(value: Any) -> datetime | None:
    if value is None:
        return None
    if isinstance(value, int | float):
        return datetime.fromtimestamp(value, UTC)
    if not isinstance(value, datetime):
        raise Invalid("models.created", "CreationTimeAfter and CreationTimeBefore are moments.")
    return value if value.tzinfo else value.replace(tzinfo=UTC)
