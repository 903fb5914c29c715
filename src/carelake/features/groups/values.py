"""Values as they travel (texts, all of them), event times, and times to live.

https://docs.aws.amazon.com/sagemaker/latest/dg/feature-store-quotas.html
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from carelake.core.errors import Invalid
from carelake.features.groups.definition import Feature, Group
from carelake.features.groups.shapes import invalid

__all__ = [
    "RECORD_BYTES",
    "Values",
    "as_record",
    "canonical",
    "check_identifier",
    "event_micros",
    "event_text",
    "expiry",
    "micros",
    "moment",
    "record_values",
    "until",
    "zulu",
]

RECORD_BYTES = 358_400
IDENTIFIER_BYTES = 2048

Values = list[str | list[str] | None]
"""One record: a text, a list of texts or None for each feature, in the order of the definitions."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ISO = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{3}))?Z", re.ASCII)
_WHOLE = re.compile(r"[+-]?\d{1,19}", re.ASCII)
_DOUBLE = re.compile(r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|NaN|Infinity)", re.ASCII)
_SECONDS = {"Seconds": 1, "Minutes": 60, "Hours": 3_600, "Days": 86_400, "Weeks": 604_800}
_NO_NUMBER = frozenset({"inf", "-inf", "nan", "-0.0"})
_MOST_MICROS = 253_402_300_800 * 1_000_000


def micros(at: datetime) -> int:
    """Microseconds since 1970 UTC."""
    return (at - _EPOCH) // timedelta(microseconds=1)


def moment(number: int) -> datetime:
    """The moment of `micros`."""
    return _EPOCH + timedelta(microseconds=number)


def zulu(number: int) -> str:
    """As an event time is written: ``2026-01-02T03:04:05Z``, with milliseconds where there are any."""
    text = moment(number).isoformat(timespec="milliseconds")[:23]
    return text.removesuffix(".000") + "Z"


def event_micros(text: str, kind: str) -> int:
    """An event time, of a feature of type String or Fractional.

    Raises:
        Invalid: ``features.validation``.
    """
    if kind == "Fractional":
        number = float(text) if _DOUBLE.fullmatch(text) else math.nan
        if not 0 <= number * 1e6 < _MOST_MICROS:
            raise invalid("EventTime is not a number of seconds since 1970.")
        return round(number * 1_000) * 1_000
    found = _ISO.fullmatch(text)
    try:
        if found is None:
            raise ValueError
        *parts, thousandths = found.groups()
        return micros(datetime(*map(int, parts), int(thousandths or 0) * 1_000, tzinfo=UTC))  # type: ignore[misc,arg-type]
    except ValueError:
        raise invalid("EventTime is not as yyyy-MM-dd'T'HH:mm:ssZ or yyyy-MM-dd'T'HH:mm:ss.SSSZ.") from None


def event_text(number: int, kind: str) -> str:
    """An event time as the group's feature has it."""
    return zulu(number) if kind == "String" else repr(number / 1_000_000)


def expiry(event: int, ttl: Mapping[str, Any] | None) -> int | None:
    """ExpiresAt = EventTime + TtlDuration, in microseconds, by the end of the year 9999; None for no TTL."""
    if not ttl or ttl.get("Unit") is None or ttl.get("Value") is None:
        return None
    return until(event + int(ttl["Value"]) * _SECONDS[ttl["Unit"]] * 1_000_000)


def until(number: int) -> int:
    """A moment that can be told: the last second of the year 9999 for a later one."""
    return min(number, _MOST_MICROS - 1_000_000)


def record_values(group: Group, record: Sequence[Mapping[str, Any]]) -> Values:
    """A record in the order of the definitions, every value in its type.

    Raises:
        Invalid: ``features.validation``: a feature that the group has not, twice the same one, a value that is not
            of its type, no record identifier or no event time, or more than 350 KB; an identifier that has another
            text as well.
    """
    values: Values = [None] * len(group.features)
    size = 0
    for given in record:
        number = group.index.get(given["FeatureName"])
        if number is None:
            raise invalid("The record has a feature that the feature group does not define.")
        if values[number] is not None:
            raise invalid(f"The record has {given['FeatureName']} twice.")
        value = _value(group.features[number], given)
        values[number] = value
        size += len(given["FeatureName"]) + _size(value)
    for name in (group.record, group.event):
        if not values[group.index[name]]:
            raise invalid(f"The record lacks {name}.")
    for name in {group.record, group.said.subject} & group.index.keys():
        if isinstance(said := values[group.index[name]], str) and not canonical(
            group.features[group.index[name]], said
        ):
            raise _another_text(name)
    if _size(values[group.index[group.record]]) > IDENTIFIER_BYTES:
        raise invalid("The record identifier has more than 2 KB.")
    if size > RECORD_BYTES:
        raise invalid("The record has more than 350 KB.")
    return values


def canonical(feature: Feature, text: str) -> bool:
    """Whether a text is the one that a number has as an identifier: offline 1, 01 and +1 are one number.

    Of an Integral that is the one without zeros before it and without a plus, of a Fractional the shortest one that
    Python and JSON write (``1.0``); a String is its own.
    """
    if feature.kind == "String":
        return True
    try:
        own = str(int(text)) if feature.kind == "Integral" else repr(float(text))
    except ValueError:
        return False
    return text == own and text not in _NO_NUMBER


def check_identifier(group: Group, text: str) -> None:
    """Let pass a record identifier that is asked for.

    Raises:
        Invalid: ``features.validation``.
    """
    feature = group.features[group.index[group.record]]
    if not canonical(feature, text):
        raise _another_text(feature.name)


def _another_text(name: str) -> Invalid:
    return invalid(
        f"{name} is a number that names a record or a patient: it is written in one way, an Integral without a "
        "plus and without zeros before it, a Fractional as 1.0."
    )


def _size(value: str | list[str] | None) -> int:
    if isinstance(value, list):
        return sum(map(_size, value))
    return len(value.encode()) if value else 0


def _value(feature: Feature, given: Mapping[str, Any]) -> str | list[str]:
    text, several = given.get("ValueAsString"), given.get("ValueAsStringList")
    if (text is None) == (several is None):
        raise invalid(f"{feature.name} needs one of ValueAsString and ValueAsStringList.")
    if feature.collection:
        if several is None:
            raise invalid(f"{feature.name} is a {feature.collection}: it needs ValueAsStringList.")
        return _several(feature, several)
    if text is None:
        raise invalid(f"{feature.name} is no collection: it needs ValueAsString.")
    _typed(feature, text)
    return str(text)


def _several(feature: Feature, texts: Sequence[str]) -> list[str]:
    for text in texts:
        _typed(feature, text)
    if feature.collection == "Vector" and len(texts) != feature.dimension:
        raise invalid(f"{feature.name} is a Vector of {feature.dimension} numbers.")
    return list(dict.fromkeys(texts)) if feature.collection == "Set" else list(texts)


def _typed(feature: Feature, text: str) -> None:
    if feature.kind == "Integral":
        if not _WHOLE.fullmatch(text) or not -(2**63) <= int(text) < 2**63:
            raise invalid(f"A value of {feature.name} is not an Integral, a whole number of 64 bits.")
    elif feature.kind == "Fractional" and not _DOUBLE.fullmatch(text):
        raise invalid(f"A value of {feature.name} is not a Fractional, a double.")


def as_record(group: Group, values: Values, wanted: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """The features that have a value, as FeatureValues, in the order of the definitions.

    Raises:
        Invalid: ``features.validation``: a wanted feature that the group has not.
    """
    if wanted is None:
        names: Sequence[str] = group.names
        chosen: Sequence[str | list[str] | None] = values
    else:
        if not set(wanted) <= group.index.keys():
            raise invalid("FeatureNames has one that the feature group does not define.")
        names = [name for name in group.names if name in set(wanted)]
        chosen = [values[at] if (at := group.index[name]) < len(values) else None for name in names]
    return [
        {"FeatureName": name, "ValueAsString": value}
        if isinstance(value, str)
        else {"FeatureName": name, "ValueAsStringList": value}
        for name, value in zip(names, chosen, strict=False)
        if value is not None
    ]
