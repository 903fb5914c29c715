"""The schedule expressions of SageMaker Model Monitor: hourly, daily, every so many hours; and offsets of windows.

https://docs.aws.amazon.com/sagemaker/latest/dg/model-monitor-schedule-expression.html
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from carelake.core.errors import Invalid

__all__ = ["NOW", "checked", "next_after", "offset", "period"]

NOW = "NOW"
_CRON = re.compile(r"cron\(0 (?:(\*)|(\d{1,2})(?:/(\d{1,2}))?) \? \* \* \*\)")
_OFFSET = re.compile(r"(-)?P(?:(\d{1,4})D)?(?:T(?:(\d{1,5})H)?(?:(\d{1,6})M)?)?")
_HOUR = timedelta(hours=1)


def checked(expression: str) -> str:
    """The expression itself.

    Raises:
        Invalid: ``monitor.schedule_expression``.
    """
    if expression != NOW:
        _hours(expression)
    return expression


def _hours(expression: str) -> frozenset[int]:
    """The hours of a day (UTC) at which it runs."""
    found = _CRON.fullmatch(expression)
    every, first, step = found.groups() if found else (None, None, None)
    if found and every:
        return frozenset(range(24))
    if found and first is not None and int(first) < 24 and (step is None or 1 <= int(step) <= 24):
        return frozenset((int(first) + at) % 24 for at in range(0, 24, int(step or 24)))
    raise Invalid(
        "monitor.schedule_expression",
        "Unknown schedule; expected NOW, cron(0 * ? * * *) for hourly, cron(0 H ? * * *) for daily at H o'clock UTC, "
        "or cron(0 H/N ? * * *) for every N hours from H o'clock on.",
    )


def next_after(expression: str, moment: datetime) -> datetime:
    """The first time after ``moment`` that a cron expression names."""
    hours = _hours(expression)
    at = moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0) + _HOUR
    while at.hour not in hours:
        at += _HOUR
    return at


def period(expression: str, moment: datetime) -> timedelta:
    """How long before ``moment``, which it names, it ran last."""
    hours = _hours(expression)
    back = _HOUR
    while (moment.astimezone(UTC) - back).hour not in hours:
        back += _HOUR
    return back


def offset(text: str) -> timedelta:
    """An ISO 8601 offset such as ``-PT1H`` or ``-P30D``.

    Raises:
        Invalid: ``monitor.offset``.
    """
    found = _OFFSET.fullmatch(text)
    if not found or not any(part is not None for part in found.groups()[1:]):
        raise Invalid("monitor.offset", "Not an offset of time; expected for example -PT1H, -P30D or PT0H.")
    minus, days, hours, minutes = found.groups()
    length = timedelta(days=int(days or 0), hours=int(hours or 0), minutes=int(minutes or 0))
    return -length if minus else length
