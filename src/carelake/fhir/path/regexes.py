"""Regular expressions that cannot run away: all of one evaluation share half a second.

The engine is `regex` (Perl's dialect with named groups and look-around); it watches the time inside of a match, so
that ``(a+)+$`` stops as an error. `re` of the standard library cannot be stopped, engines without backtracking know
no look-around, which profiles use.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from carelake.fhir.path.context import Env
from carelake.fhir.path.errors import regex_error

__all__ = ["fullmatch", "replace", "search"]

_MAX_PATTERN = 4096
_MAX_WEIGHT = 20_000
_PIECE = re.compile(
    r"""\\. | \[\^?\]?(?:\\.|[^\]\\])*+\] | \{(?P<least>\d{0,5000})(?:,(?P<most>\d{0,5000}))?\}
      | (?P<open>\() | (?P<close>\)) | .""",
    re.VERBOSE | re.DOTALL,
)


def _weight(pattern: str) -> int:
    """How many pieces the pattern has once its counted repetitions are written out, which engines do."""
    sums, last = [0], 0
    for piece in _PIECE.finditer(pattern):
        if piece["least"] is not None:
            told = max((piece["least"], piece["most"] or ""), key=len)
            count = max(int(piece["least"] or 0), int(piece["most"] or 0), 1) if len(told) < 7 else _MAX_WEIGHT + 1
            sums[-1] += last * (count - 1)
            last *= count
        elif piece["open"]:
            sums.append(0)
            last = 0
        elif piece["close"] and len(sums) > 1:
            last = sums.pop() + 1
            sums[-1] += last
        else:
            last = 1
            sums[-1] += 1
        if sums[-1] > _MAX_WEIGHT:
            break
    return max(sums)


@lru_cache(512)
def _compiled(pattern: str, flags: str) -> Any:
    import regex  # type: ignore[import-untyped]

    options = regex.VERSION0 | regex.DOTALL
    for flag in flags:
        options |= regex.IGNORECASE if flag == "i" else regex.MULTILINE
    return regex.compile(pattern, options)


def _pattern(pattern: str, flags: str, at: int) -> Any:
    if len(pattern) > _MAX_PATTERN:
        raise regex_error(at, f"it is longer than {_MAX_PATTERN} characters.")
    if _weight(pattern) > _MAX_WEIGHT:
        raise regex_error(at, "its counted repetitions are too large. Lower the numbers in braces.")
    try:
        return _compiled(pattern, flags)
    except Exception as error:  # the engine has errors of several kinds for a pattern that is wrong
        raise regex_error(at, f"it is not valid at its character {getattr(error, 'pos', 0)}.") from None


def _timed(work: Callable[[float], Any], env: Env, at: int) -> Any:
    if env.regex_left <= 0:
        raise regex_error(at, "the expressions of this evaluation took too long together.")
    began = time.monotonic()
    try:
        return work(env.regex_left)
    except TimeoutError:
        raise regex_error(at, "it took too long. Avoid repetitions inside of repetitions.") from None
    except MemoryError:
        raise regex_error(at, "it took too much memory.") from None
    finally:
        env.regex_left -= time.monotonic() - began


def search(pattern: str, text: str, flags: str, env: Env, at: int) -> bool:
    """Whether a part of the text matches; ``.`` takes line ends.

    Raises:
        Invalid: ``fhirpath.regex``.
    """
    found = _pattern(pattern, flags, at)
    return _timed(lambda left: found.search(text, timeout=left), env, at) is not None


def fullmatch(pattern: str, text: str, flags: str, env: Env, at: int) -> bool:
    """Whether the whole text matches."""
    found = _pattern(pattern, flags, at)
    return _timed(lambda left: found.fullmatch(text, timeout=left), env, at) is not None


def _expander(substitution: str, groups: dict[str, int], count: int) -> Callable[[Any], str]:
    """``$1``, ``${1}`` and ``${name}`` are groups, ``$$`` is a dollar sign; groups that are not there stay text."""
    import regex

    parts = regex.split(r"(\$\$|\$\d{1,2}|\$\{\w{1,64}\})", substitution)

    def expand(match: Any) -> str:
        made = []
        for part in parts:
            name = part[1:].strip("{}")
            if part == "$$":
                made.append("$")
            elif part[:1] == "$" and name and (name in groups or (name.isdecimal() and int(name) <= count)):
                made.append(match[int(name) if name.isdecimal() else name] or "")
            else:
                made.append(part)
        return "".join(made)

    return expand


def replace(pattern: str, substitution: str, text: str, flags: str, env: Env, at: int) -> str:
    """The text with each match replaced."""
    found = _pattern(pattern, flags, at)
    expand = _expander(substitution, found.groupindex, found.groups)
    return str(_timed(lambda left: found.sub(expand, text, timeout=left), env, at))
