"""What crosses from reading bytes to keeping resources: one record per resource, or one quarantine per refusal.

Both are plain data, so that worker processes can make them and the one writer can take them. Index values are
tuples whose columns the index tables share; the first is the name of the source they come from
(`carelake.fhir.search.Source`), which several search parameters may use.
"""

from __future__ import annotations

import msgspec

__all__ = ["IndexValues", "Parsed", "Rejected"]


class IndexValues(msgspec.Struct, array_like=True):
    """Search index values of one resource, each row once.

    tokens:      (source, system, code)                  system "" where there is none
    strings:     (source, normalised, as_given)          normalised: lower case, accents and punctuation folded
    dates:       (source, low, high)                     microseconds since 1970 UTC, high exclusive
    quantities:  (source, low, high, system, code)       a number is low = high, a Range or a comparator is wider;
                                                         numbers have system "" code ""
    references:  (source, type, id, url)                 id "" where the target is an absolute url, type too where
                                                         neither the url nor the reference tells it
    uris:        (source, value)
    positions:   (source, latitude, longitude)           degrees
    words:       (source, word)                          folded, or the sound of a word
    parts:       (source, item, text, low, high, system, unit)
                                                         a component of a composite, of the item-th element:
                                                         token: text = code; string: folded text; number,
                                                         quantity: low, high, system, unit = code; date: low, high in
                                                         microseconds; reference: text = id or url, system = type;
                                                         uri: text
    displays:    (source, system, code, display)         the text of a code, folded; a row may come again
    """

    tokens: list[tuple[str, str, str]] = []
    strings: list[tuple[str, str, str]] = []
    dates: list[tuple[str, int, int]] = []
    quantities: list[tuple[str, float, float, str, str]] = []
    references: list[tuple[str, str, str, str]] = []
    uris: list[tuple[str, str]] = []
    positions: list[tuple[str, float, float]] = []
    words: list[tuple[str, str]] = []
    parts: list[tuple[str, int, str, float, float, str, str]] = []
    displays: list[tuple[str, str, str, str]] = []


class Parsed(msgspec.Struct, array_like=True):
    """One valid resource, ready to be kept.

    Attributes:
        owner: id of the one patient whose compartment it is in, or "" for none or several (decision D4).
        body: zstd-compressed canonical JSON, references resolved, ``meta.versionId`` and ``meta.lastUpdated`` as
            they came.
        digest: SHA-256 of the canonical JSON.
        offset, length: byte range of the resource in its landing object.
        line: 1-based line in the source.
        position: 0-based number of the entry in the source.
    """

    type: str
    id: str
    owner: str
    body: bytes
    digest: bytes
    index: IndexValues
    offset: int
    length: int
    line: int
    position: int


class Rejected(msgspec.Struct, array_like=True):
    """One input that was refused: it goes to quarantine with its line and a reason.

    Attributes:
        path: FHIRPath of the offending element, "" when the text as a whole is bad.
        code: stable reason, for example ``fhir.unknown_element``.
        message: what is wrong and what was expected, without the value.
    """

    offset: int
    length: int
    line: int
    position: int
    path: str
    code: str
    message: str
