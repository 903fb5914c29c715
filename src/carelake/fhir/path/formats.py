"""Dates in forms other than ISO's: the format codes of ``toDate(format)`` (FHIRPath 3, for trial use).

Numeric codes only (``yyyy yy MM M dd d HH H hh h mm m ss s S a Z``); names of months and zones are left out.
"""

from __future__ import annotations

import re
from functools import lru_cache

from carelake.fhir.path.temporal import Temporal, parse_date, parse_datetime

__all__ = ["parse_with"]

_CODES = {
    "yyyy": r"(?P<year>\d{4})",
    "yy": r"(?P<short>\d{2})",
    "MM": r"(?P<month>\d{2})",
    "M": r"(?P<month>\d{1,2})",
    "dd": r"(?P<day>\d{2})",
    "DD": r"(?P<day>\d{2})",
    "d": r"(?P<day>\d{1,2})",
    "HH": r"(?P<hour>\d{2})",
    "H": r"(?P<hour>\d{1,2})",
    "hh": r"(?P<half>\d{2})",
    "h": r"(?P<half>\d{1,2})",
    "mm": r"(?P<minute>\d{2})",
    "m": r"(?P<minute>\d{1,2})",
    "ss": r"(?P<second>\d{2})",
    "s": r"(?P<second>\d{1,2})",
    "a": r"(?P<noon>[AaPp][Mm]?)",
    "Z": r"(?P<zone>Z|[+-]\d{2}:?\d{2})",
}
_CODE = re.compile(r"yyyy|yy|MM|M|dd|DD|d|HH|H|hh|h|mm|m|ss|s|S+|a|Z")
_MAX_FORM = 64


@lru_cache(256)
def _pattern(form: str) -> re.Pattern[str] | None:
    if len(form) > _MAX_FORM:
        return None
    made, at = "", 0
    for match in _CODE.finditer(form):
        code = match[0]
        made += re.escape(form[at : match.start()])
        made += rf"(?P<fraction>\d{{{len(code)}}})" if code[0] == "S" else _CODES[code]
        at = match.end()
    try:
        return re.compile(made + re.escape(form[at:]), re.ASCII)
    except re.error:  # a code given twice
        return None


def parse_with(text: str, form: str, kind: str) -> Temporal | None:
    """A Date or DateTime of a text in that form; None where it does not fit."""
    pattern = _pattern(form)
    match = None if pattern is None else pattern.fullmatch(text)
    if match is None:
        return None
    parts = {name: value for name, value in match.groupdict().items() if value is not None}
    iso = _day(parts)
    if kind == "Date":
        return parse_date(iso)
    clock = _clock(parts)
    return parse_datetime(iso + clock if len(iso) == 10 else iso)


def _day(parts: dict[str, str]) -> str:
    year = parts.get("year", "")
    if "short" in parts:
        year = ("20" if int(parts["short"]) < 50 else "19") + parts["short"]
    text = year
    for name in ("month", "day"):
        if name not in parts:
            break
        text += "-" + parts[name].zfill(2)
    return text


def _clock(parts: dict[str, str]) -> str:
    hour = parts.get("hour")
    if "half" in parts:
        late = parts.get("noon", "a")[0] in "Pp"
        hour = str(int(parts["half"]) % 12 + (12 if late else 0))
    if hour is None:
        return ""
    text = "T" + hour.zfill(2)
    for name in ("minute", "second"):
        if name not in parts:
            return text
        text += ":" + parts[name].zfill(2)
    if "fraction" in parts:
        text += "." + parts["fraction"]
    zone = parts.get("zone", "")
    return text + (zone if ":" in zone or len(zone) < 2 else zone[:3] + ":" + zone[3:])
