"""Dates and times, shifted by whole days or cut to the year.

A FHIR date may be partial: a year, or a year and a month. It is shifted from its middle and stays as partial, so that
it goes with the whole dates of the same patient. The time of day and its zone stay: days are all that is shifted.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["moments", "moments_since", "shifted", "since", "years"]

_WHOLE = 10
_DATE = (
    r"^[0-9]{4}(?:-(?:0[1-9]|1[0-2])(?:-(?:0[1-9]|[12][0-9]|3[01])(?:T[0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:[.][0-9]{1,9})?)?"
    r"(?:Z|[+-][0-9]{2}:[0-9]{2})?)?)?)?$"
)
_MIDDLES = {4: "-07-02", 7: "-16"}


def shifted(texts: pa.Array, days: pa.Array) -> pa.Array:
    """Dates as FHIR writes them, moved by so many days; null where one is no date or there is no number of days."""
    texts = _dates(texts)
    found = pc.utf8_slice_codeunits(texts, 0, _WHOLE).dictionary_encode()
    when = _days_of(found.dictionary).take(found.indices)
    moved = pc.add(when, days).dictionary_encode()
    said = _as_text(moved.dictionary).take(moved.indices)
    size = pc.utf8_length(pc.utf8_slice_codeunits(texts, 0, _WHOLE))
    for letters in _MIDDLES:
        said = pc.if_else(pc.equal(size, letters), pc.utf8_slice_codeunits(said, 0, letters), said)
    return pc.binary_join_element_wise(said, pc.utf8_slice_codeunits(texts, _WHOLE), "")


def _dates(texts: pa.Array) -> pa.Array:
    fits = pc.fill_null(pc.match_substring_regex(texts, _DATE), False)
    return pc.if_else(fits, texts, pa.scalar(None, pa.string()))


def _days_of(dates: pa.Array) -> pa.Array:
    """Days since 1970 of dates of 4, 7 or 10 letters."""
    whole = [None if one is None else one + _MIDDLES.get(len(one), "") for one in dates.to_pylist()]
    parsed = pc.strptime(pa.array(whole, pa.string()), format="%Y-%m-%d", unit="s", error_is_null=True)
    return parsed.cast(pa.date32()).cast(pa.int32())


def _as_text(days: pa.Array) -> pa.Array:
    return days.cast(pa.date32()).cast(pa.string())


def moments(times: pa.Array, days: pa.Array) -> pa.Array:
    """Timestamps in microseconds moved by so many days, null where there is no number of days."""
    step = pc.multiply(pc.cast(days, pa.int64()), 86_400_000_000).cast(pa.duration("us"))
    return pc.add(times, step)


def since(texts: pa.Array, oldest: int) -> pa.Array:
    """Dates as FHIR writes them, null before a year: one of long ago tells of an age that years of birth do not."""
    return pc.if_else(pc.less(texts, f"{oldest:04d}"), pa.scalar(None, pa.string()), texts)


def moments_since(times: pa.Array, oldest: int) -> pa.Array:
    """The same of timestamps."""
    return pc.if_else(pc.less(pc.year(times), oldest), pa.scalar(None, times.type), times)


def years(texts: pa.Array, oldest: int) -> pa.Array:
    """The years of dates as FHIR writes them; ``oldest`` for every year before it."""
    said = pc.utf8_slice_codeunits(_dates(texts), 0, 4)
    return pc.if_else(pc.less(said, f"{oldest:04d}"), pa.scalar(f"{oldest:04d}"), said)
