"""ISO 8601 durations as SageMaker takes them: ``P30D``, ``P4DT12H``, ``T12H``."""

from __future__ import annotations

import re
from datetime import timedelta

__all__ = ["duration"]

_FORM = re.compile(
    r"P?(?:(\d{1,4})W)?(?:(\d{1,5})D)?(?:T(?:(\d{1,6})H)?(?:(\d{1,7})M)?(?:(\d{1,9})S)?)?", re.IGNORECASE
)


def duration(text: str) -> timedelta | None:
    """The length of time, None when the text is none; years and months have no fixed length and are none."""
    found = _FORM.fullmatch(text)
    if found is None or not any(found.groups()):
        return None
    weeks, days, hours, minutes, seconds = (int(one or 0) for one in found.groups())
    return timedelta(weeks=weeks, days=days, hours=hours, minutes=minutes, seconds=seconds)
