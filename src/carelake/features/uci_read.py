"""Reading the UCI file "Diabetes 130-US hospitals": columns in any order, faults told by line, never by value.

Copies of the file have been through spreadsheets and data frames: gzip, a byte order mark, other delimiters, further
columns, "1.0" for 1, and "None" lost from A1Cresult are read as what they were.
"""

from __future__ import annotations

import csv
import io
import tomllib
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from carelake.core.errors import Invalid

__all__ = ["Encounters", "needed", "read", "said"]

_MAX_BYTES = 1 << 30
_MAX_FIELD = 65_536
_SHOWN = 5
_IDS = ("encounter_id", "patient_nbr")


@cache
def said() -> dict[str, Any]:
    """What ``uci.toml`` says of the file."""
    return tomllib.loads(files("carelake.features").joinpath("uci.toml").read_text("utf-8"))


@dataclass(frozen=True)
class Encounters:
    """The rows that could be read, as columns of text.

    Attributes:
        columns: text by name of the column in lower case, without what only looks like a value (null).
        ids: ``encounter_id`` as the file writes it.
        unread: lines that are no encounter, with the reason.
    """

    columns: Mapping[str, pa.Array]
    ids: Sequence[str]
    unread: Sequence[tuple[int, str]]

    def __len__(self) -> int:
        return len(self.ids)

    def mapped(self, column: str, of: Callable[[str | None], float]) -> NDArray[np.float64]:
        """(n,) a number for each row; ``of`` is asked once for each different value."""
        coded = self.columns[column].dictionary_encode()
        known = [of(value) for value in coded.dictionary.to_pylist()]
        places = coded.indices.fill_null(len(known)).to_numpy(zero_copy_only=False)
        out: NDArray[np.float64] = np.asarray([*known, of(None)], dtype=np.float64)[places]
        return out


def needed() -> list[str]:
    """The columns that features are made of."""
    told = said()
    drugs = told["drugs"]
    return list(
        dict.fromkeys(
            [
                "race",
                "age",
                *(one["column"] for one in (*told["number"], *told["category"])),
                "diag_1",
                "diag_2",
                "diag_3",
                *drugs["single"],
                drugs["insulin"],
                *drugs["rare"],
            ]
        )
    )


def read(data: bytes, *, labelled: bool) -> Encounters:
    """Read a file.

    Args:
        data: CSV, also packed by gzip.
        labelled: for training: the label and the patient must be there, and a line that is no encounter is an error.
            Otherwise the label's column is not read, and such lines are told of in ``unread``.

    Raises:
        Invalid: ``features.uci_file`` (no text, or too long), ``features.uci_columns`` (names them),
            ``features.uci_rows`` (names lines).
    """
    lines = _rows(_text(data))
    header = next(lines, (0, []))[1]
    place = _places(header, labelled)
    found: list[list[str]] = []
    unread: list[tuple[int, str]] = []
    for line, row in lines:
        reason = _fault(row, len(header), place, labelled)
        if reason is None:
            found.append([row[at] for at in place.values()])
        else:
            unread.append((line, reason))
    if unread and (labelled or not found):
        raise _bad_rows(unread)
    if not found:
        raise Invalid("features.uci_rows", "The file holds no encounter under its header.")
    texts = dict(zip(place, zip(*found, strict=True), strict=True))
    missing = frozenset(said()["missing"])
    columns = {name: _column(values, missing) for name, values in texts.items()}
    return Encounters(columns, [value.strip() for value in texts["encounter_id"]], unread)


def _bad_rows(unread: Sequence[tuple[int, str]]) -> Invalid:
    shown = "; ".join(f"line {line}: {reason}" for line, reason in unread[:_SHOWN])
    more = f"; and {len(unread) - _SHOWN} more" if len(unread) > _SHOWN else ""
    return Invalid("features.uci_rows", f"Lines of the file are no encounters: {shown}{more}. Correct them.")


def _fault(row: Sequence[str], width: int, place: Mapping[str, int], labelled: bool) -> str | None:
    if len(row) != width:
        return f"{len(row)} fields, the header has {width}"
    missing = said()["missing"]
    for name in _IDS if labelled else _IDS[:1]:
        if row[place[name]].strip().lower() in missing:
            return f"no {name}"
    return None


def _text(data: bytes) -> str:
    if data[:2] == b"\x1f\x8b":
        data = _unpacked(data)
    if len(data) > _MAX_BYTES:
        raise _no_file("is longer than this reader takes (1 GiB)")
    try:
        return data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError:
        raise _no_file("is no UTF-8 text") from None


def _unpacked(data: bytes) -> bytes:
    opened = zlib.decompressobj(wbits=31)
    try:
        out = opened.decompress(data, _MAX_BYTES + 1)
    except zlib.error:
        raise _no_file("is packed by gzip and damaged") from None
    if not opened.eof and len(out) <= _MAX_BYTES:
        raise _no_file("is packed by gzip and ends before its end")
    return out


def _no_file(what: str) -> Invalid:
    return Invalid("features.uci_file", f"The file {what}; expected CSV with a header, in UTF-8 or packed by gzip.")


def _rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """Each line with its number, but empty ones.

    A quote that is not closed would take in the lines after it; where there are such, each is read by itself.
    """
    first = text[: text.find("\n")] if "\n" in text else text
    delimiter = max(",;\t", key=first.count)
    csv.field_size_limit(_MAX_FIELD)
    taken: list[tuple[int, str]] = []
    lines = enumerate(io.StringIO(text), 1)

    def feed() -> Iterator[str]:
        for one in lines:
            taken.append(one)
            yield one[1]

    reader, width = csv.reader(feed(), delimiter=delimiter), 0
    while True:
        taken.clear()
        try:
            row = next(reader, None)
        except csv.Error:
            if not width:
                at = taken[-1][0]
                raise Invalid("features.uci_rows", f"Line {at} of the file is no line of CSV; correct it.") from None
            row, reader = [], csv.reader(feed(), delimiter=delimiter)
        if row is None:
            return
        alone = [_alone(line, delimiter) for _, line in taken] if width and len(taken) > 1 else []
        if alone and (len(row) != width or any(len(one) == width for one in alone[1:])):
            yield from ((at, one) for (at, _), one in zip(taken, alone, strict=True) if any(map(str.strip, one)))
        elif not row or any(field.strip() for field in row):
            if row or taken[-1][1].strip():
                yield taken[-1][0], row
            width = width or len(row)


def _alone(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        return []


def _places(header: Sequence[str], labelled: bool) -> dict[str, int]:
    """Where each column that is read stands."""
    names = [name.strip().strip('"').lower() for name in header]
    wanted = [_IDS[0], *needed()]
    wanted += [_IDS[1], said()["label"]["column"]] if labelled else []
    absent = [name for name in wanted if name not in names]
    twice = sorted({name for name in wanted if names.count(name) > 1})
    if absent or twice:
        what = f"lacks the columns {', '.join(absent)}" if absent else f"has these twice: {', '.join(twice)}"
        raise Invalid("features.uci_columns", f"The file {what}; expected the columns of the UCI file, in any order.")
    return {name: names.index(name) for name in wanted}


def _column(values: Sequence[str], missing: frozenset[str]) -> pa.Array:
    """Lower case, without blanks, "1.0" as "1", null for what is missing."""
    coded = pa.array(values, pa.string()).dictionary_encode()
    plain = [_plain(value, missing) for value in coded.dictionary.to_pylist()]
    return pa.array(plain, pa.string()).take(coded.indices)


def _plain(value: str, missing: frozenset[str]) -> str | None:
    text = value.strip().lower()
    if text in missing:
        return None
    whole, point, rest = text.partition(".")
    return whole if point and whole.isdecimal() and rest.strip("0") == "" else text
