"""Text (https://hl7.org/fhirpath/N1/#string-manipulation); positions count characters."""

from __future__ import annotations

import base64
import binascii
import html
import json
from collections.abc import Callable
from typing import Any

from carelake.fhir.path import regexes
from carelake.fhir.path.context import Env
from carelake.fhir.path.errors import argument_error
from carelake.fhir.path.registry import eager, function
from carelake.fhir.path.values import Items, integer_of, string_of

__all__: list[str] = []

_SPACE = " \t\r\n"


def _limited(text: str, env: Env, at: int) -> Items:
    env.write(len(text), at)
    return [text]


def _of_text(name: str, work: Callable[[str], Any]) -> None:
    """A function of a text alone."""

    @function(name)
    def apply(items: Items, env: Env, at: int) -> Items:
        text = string_of(items, at, f"{name}()")
        if text is None:
            return []
        found = work(text)
        return found if found.__class__ is list else [found]


_of_text("length", len)
_of_text("upper", str.upper)
_of_text("lower", str.lower)
_of_text("trim", lambda text: text.strip(_SPACE))
_of_text("toChars", lambda text: list(text))


def _of_two(name: str, work: Callable[[str, str], Any]) -> None:
    """A function of a text and another; empty where one is."""

    @eager(name, 1)
    def apply(items: Items, env: Env, at: int, argument: Items) -> Items:
        text, other = string_of(items, at, f"{name}()"), string_of(argument, at, f"{name}()")
        if text is None or other is None:
            return []
        found = work(text, other)
        return found if found.__class__ is list else [found]


_of_two("indexOf", str.find)
_of_two("lastIndexOf", str.rfind)
_of_two("startsWith", str.startswith)
_of_two("endsWith", str.endswith)
_of_two("contains", lambda text, other: other in text)
_of_two("split", lambda text, by: text.split(by) if by else list(text))


@eager("substring", 1, 2)
def _substring(items: Items, env: Env, at: int, start: Items, length: Items | None = None) -> Items:
    text, begin = string_of(items, at, "substring()"), integer_of(start, at, "substring()")
    count = None if length is None else integer_of(length, at, "substring()")
    if text is None or begin is None or not 0 <= begin < len(text):
        return []
    return [text[begin:] if count is None else text[begin : begin + max(0, count)]]


@eager("replace", 2)
def _replace(items: Items, env: Env, at: int, pattern: Items, substitution: Items) -> Items:
    text = string_of(items, at, "replace()")
    old, new = string_of(pattern, at, "replace()"), string_of(substitution, at, "replace()")
    if text is None or old is None or new is None:
        return []
    env.write((text.count(old) if old else len(text) + 1) * len(new) + len(text), at)
    return [text.replace(old, new)]


@eager("join", 0, 1)
def _join(items: Items, env: Env, at: int, separator: Items | None = None) -> Items:
    between = "" if separator is None else string_of(separator, at, "join()") or ""
    texts = [string_of([item], at, "join()") or "" for item in items]
    env.write(sum(map(len, texts)) + len(between) * len(texts), at)
    return [between.join(texts)] if items else []


# --- regular expressions ---


def _flags(flags: Items | None, at: int, name: str) -> str:
    told = "" if flags is None else string_of(flags, at, name) or ""
    if set(told) - set("im"):
        raise argument_error(at, f"{name} takes the flags i and m.")
    return told


@eager("matches", 1, 2)
def _matches(items: Items, env: Env, at: int, pattern: Items, flags: Items | None = None) -> Items:
    text, regex = string_of(items, at, "matches()"), string_of(pattern, at, "matches()")
    if text is None or regex is None:
        return []
    return [regexes.search(regex, text, _flags(flags, at, "matches()"), env, at)]


@eager("matchesFull", 1, 2)
def _matches_full(items: Items, env: Env, at: int, pattern: Items, flags: Items | None = None) -> Items:
    text, regex = string_of(items, at, "matchesFull()"), string_of(pattern, at, "matchesFull()")
    if text is None or regex is None:
        return []
    return [regexes.fullmatch(regex, text, _flags(flags, at, "matchesFull()"), env, at)]


@eager("replaceMatches", 2, 3)
def _replace_matches(
    items: Items, env: Env, at: int, pattern: Items, substitution: Items, flags: Items | None = None
) -> Items:
    name = "replaceMatches()"
    text, regex = string_of(items, at, name), string_of(pattern, at, name)
    new = string_of(substitution, at, name)
    if text is None or regex is None or new is None:
        return []
    if not regex:
        return [text]
    return _limited(regexes.replace(regex, new, text, _flags(flags, at, name), env, at), env, at)


# --- encodings ---


def _base64(text: str) -> str:
    return base64.b64encode(text.encode("utf-8", "surrogatepass")).decode()


_ENCODERS: dict[str, Callable[[str], str]] = {
    "hex": lambda text: text.encode("utf-8", "surrogatepass").hex(),
    "base64": _base64,
    "urlbase64": lambda text: _base64(text).translate(str.maketrans("+/", "-_")),
    "ascii": lambda text: text.encode("ascii", "replace").decode(),
}
_DECODERS: dict[str, Callable[[str], bytes]] = {
    "hex": bytes.fromhex,
    "base64": lambda text: base64.b64decode(text, validate=True),
    "urlbase64": lambda text: base64.b64decode(text, altchars=b"-_", validate=True),
}
_ESCAPERS: dict[str, Callable[[str], str]] = {
    "html": lambda text: html.escape(text, quote=True).replace("&#x27;", "&#39;"),
    "json": lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
}


def _decode(kind: str, text: str) -> str | None:
    try:
        return _DECODERS[kind](text).decode("utf-8")
    except (ValueError, binascii.Error):
        return None


def _unescape_json(text: str) -> str | None:
    try:
        # Quotes that are plain already stay as they are.
        found = json.loads('"' + text.replace('\\"', '"').replace('"', '\\"') + '"', strict=False)
    except ValueError:
        return None
    return str(found)


_UNESCAPERS: dict[str, Callable[[str], str | None]] = {"html": html.unescape, "json": _unescape_json}


def _coded(name: str, known: Any, work: Callable[[str, str], str | None]) -> None:
    @eager(name, 1)
    def apply(items: Items, env: Env, at: int, form: Items) -> Items:
        text, kind = string_of(items, at, f"{name}()"), string_of(form, at, f"{name}()")
        if text is None or kind is None:
            return []
        if kind not in known:
            raise argument_error(at, f"{name}() takes one of {', '.join(known)}.")
        found = work(kind, text)
        return [] if found is None else _limited(found, env, at)


_coded("encode", _ENCODERS, lambda kind, text: _ENCODERS[kind](text))
_coded("decode", _DECODERS, _decode)
_coded("escape", _ESCAPERS, lambda kind, text: _ESCAPERS[kind](text))
_coded("unescape", _UNESCAPERS, lambda kind, text: _UNESCAPERS[kind](text))
