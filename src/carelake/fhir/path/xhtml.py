"""`htmlChecks()`: whether a narrative is the XHTML that FHIR allows (https://hl7.org/fhir/R4/narrative.html#xhtml).

Read with one pass of a pattern, so that no text takes longer than its length, and no entity is ever expanded.
"""

from __future__ import annotations

import re

__all__ = ["is_safe"]

_ELEMENTS_WORDS = """
a abbr acronym address b bdo big blockquote br caption center cite code col colgroup dd del dfn div dl dt em
font h1 h2 h3 h4 h5 h6 hr i img ins kbd li map area ol p pre q s samp small span strike strong sub sup table
tbody td tfoot th thead tr tt u ul var
"""
_ELEMENTS = frozenset(_ELEMENTS_WORDS.split())
_ATTRIBUTES_WORDS = """
abbr accesskey align alt axis bgcolor border cellhalign cellpadding cellspacing cellvalign char charoff charset
cite class color colspan compact coords dir face frame headers height href hreflang hspace id lang longdesc name
nowrap rel rev rowspan rules scope shape size span src start style summary tabindex title type usemap valign
value vspace width xml:lang xml:space xmlns
"""
_ATTRIBUTES = frozenset(_ATTRIBUTES_WORDS.split())
_ENTITY = re.compile(r"&(?:#\d{1,7}|#x[0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{0,31});")
_ATTRIBUTE = re.compile(r"""\s+([A-Za-z_:][\w:.-]*)\s*=\s*("[^"<]*"|'[^'<]*')""")
_PIECE = re.compile(
    r"""<!--(?P<comment>(?:[^-]|-(?!-))*+)-->
      | <(?P<open>[A-Za-z][\w:.-]*)(?P<attributes>(?:[^<>"']|"[^"]*"|'[^']*')*+)>
      | </(?P<close>[A-Za-z][\w:.-]*)\s*+>
      | (?P<text>[^<]++)""",
    re.VERBOSE,
)


def is_safe(text: str) -> bool:
    """One ``div`` of allowed elements and attributes, well nested, with something to read in it."""
    text = text.strip()
    if not text.startswith("<div"):
        return False
    return _walk(text)


def _walk(text: str) -> bool:
    stack: list[str] = []
    at, something = 0, False
    while at < len(text):
        piece = _PIECE.match(text, at)
        if piece is None or (at and not stack):
            return False
        at = piece.end()
        if piece["open"]:
            closed = piece["attributes"].endswith("/")
            name = piece["open"]
            if name not in _ELEMENTS or not _attributes(piece["attributes"].removesuffix("/")):
                return False
            something = something or name == "img"
            if not closed:
                stack.append(name)
        elif piece["close"]:
            if not stack or stack.pop() != piece["close"]:
                return False
        elif piece["text"]:
            if "&" in _ENTITY.sub("", piece["text"]):
                return False
            something = something or not piece["text"].isspace()
    return something and not stack


def _attributes(text: str) -> bool:
    at = 0
    text = text.rstrip()
    while at < len(text):
        found = _ATTRIBUTE.match(text, at)
        if found is None:
            return False
        name = found[1].lower()
        if (name not in _ATTRIBUTES and not name.startswith("xmlns:")) or "javascript:" in found[2].lower():
            return False
        at = found.end()
    return True
