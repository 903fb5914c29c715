"""An expression as tokens (https://hl7.org/fhirpath/N1/grammar.html, lexical rules)."""

from __future__ import annotations

import re
from typing import NamedTuple

from carelake.fhir.path.errors import limit_error, syntax_error

__all__ = ["MAX_LENGTH", "Token", "tokens", "unescape"]

MAX_LENGTH = 64 * 1024
"""Characters of an expression; the longest of the R4 definitions has under 4,000."""


class Token(NamedTuple):
    """``kind`` is the name of a group below, or ``end``."""

    kind: str
    text: str
    at: int


_DATE = r"\d{4}(?:-\d\d(?:-\d\d)?)?"
_TIME = r"\d\d(?::\d\d(?::\d\d(?:\.\d+)?)?)?"
_TOKEN = re.compile(
    rf"""
    (?P<space>(?:[ \r\n\t]+|//[^\r\n]*|/\*(?:[^*]|\*(?!/))*+\*/)+)
  | (?P<datetime>@{_DATE}T(?:{_TIME}(?:Z|[+-]\d\d:\d\d)?)?)
  | (?P<time>@T{_TIME})
  | (?P<date>@{_DATE})
  | (?P<long>\d+L(?!\w))
  | (?P<number>\d+(?:\.\d+)?)
  | (?P<string>'(?:[^'\\]|\\.)*+')
  | (?P<delimited>`(?:[^`\\]|\\.)*+`)
  | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
  | (?P<special>\$(?:this|index|total)(?!\w))
  | (?P<sign><=|>=|!=|!~|[-+*/&|=~<>()\[\]{{}}.,%:])
    """,
    re.VERBOSE | re.DOTALL | re.ASCII,
)
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_ESCAPES = {"f": "\f", "n": "\n", "r": "\r", "t": "\t", "/": "/", "\\": "\\", "'": "'", '"': '"', "`": "`"}


def tokens(text: str) -> list[Token]:
    """The tokens of an expression without white space and comments, closed by one of kind ``end``.

    Raises:
        Invalid: ``fhirpath.syntax``, ``fhirpath.limit``.
    """
    if len(text) > MAX_LENGTH:
        raise limit_error(MAX_LENGTH, f"it is longer than {MAX_LENGTH} characters. Split it.")
    found: list[Token] = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or (text.startswith("/*", at) and match.lastgroup != "space"):
            raise syntax_error(at, "no token starts here. Quotes and comments must be closed, and names be plain.")
        if match.lastgroup != "space":
            found.append(Token(str(match.lastgroup), match[0], at))
        at = match.end()
    found.append(Token("end", "", at))
    return found


def unescape(quoted: str) -> str:
    """The text between quotes with escapes replaced; one that is not defined stays (``\\s`` of a regex)."""
    inner = quoted[1:-1]
    if "\\" not in inner:
        return inner
    plain = _ESCAPE.sub(_escaped, inner)
    # A pair of \u escapes may stand for one character beyond the basic plane.
    return plain.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _escaped(match: re.Match[str]) -> str:
    if match[1]:
        return chr(int(match[1], 16))
    return _ESCAPES.get(match[2], match[0])
