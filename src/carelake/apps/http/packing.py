"""gzip of answers and of request bodies (RFC 9110 section 8.4.1.3).

Why compressing answers is no leak here (BREACH): that attack needs a browser that sends a victim's credentials with
requests which the attacker made up. There are no such: this server has no cookies and no password of the browser's,
a token is in a header that a page of another site cannot set, and nobody gets an answer for the address they come
from but the start page, which is not compressed. See docs/serving.md.
"""

from __future__ import annotations

import re
import zlib

from starlette.responses import Response

from carelake.core.errors import Invalid, Unsupported

__all__ = ["LEAST", "packed", "takes_gzip", "unpacked"]

LEAST = 1400
"""Bytes of an answer that are worth it: fewer go in one packet anyway."""

_LEVEL = 3
_RATIO = 200
_SMALL = 64 * 1024
_GZIP = 31  # zlib's window bits with gzip's head and check
_REFUSED = re.compile(r"q=0(\.0{0,3})?")


def takes_gzip(accepted: str) -> bool:
    """Whether ``Accept-Encoding`` names gzip, and not to refuse it."""
    for one in accepted.lower().split(","):
        name, _, rest = one.partition(";")
        if name.strip() in ("gzip", "x-gzip"):
            return not _REFUSED.fullmatch(rest.replace(" ", ""))
    return False


def packed(answer: Response, accepted: str) -> Response:
    """The answer, compressed where that is asked for and is worth it."""
    body = bytes(getattr(answer, "body", b""))  # what is streamed is packed by who streams it
    if len(body) < LEAST or "content-encoding" in answer.headers:
        return answer
    answer.headers.append("Vary", "Accept-Encoding")
    if takes_gzip(accepted):
        packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
        answer.body = packer.compress(body) + packer.flush()
        answer.headers["Content-Encoding"] = "gzip"
        answer.headers["Content-Length"] = str(len(answer.body))
    return answer


def unpacked(body: bytes, encoding: str, most: int) -> bytes:
    """A request's body without its ``Content-Encoding``.

    Raises:
        Unsupported: ``http.content_encoding``, another one than gzip.
        Invalid: ``http.gzip``: broken, or larger than any text of that many bytes. ``http.body_too_large``.
    """
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "x-gzip"):
        raise Unsupported("http.content_encoding", "A body is sent as it is, or with Content-Encoding: gzip.")
    opener = zlib.decompressobj(_GZIP)
    bound = min(most, max(_SMALL, _RATIO * len(body)))
    try:
        text = opener.decompress(body, bound + 1)
    except zlib.error:
        raise _broken() from None
    if len(text) > most:
        raise Invalid(
            "http.body_too_large", f"The body is larger than serve.max_body_bytes ({most}); send less at once."
        )
    if len(text) > bound or not opener.eof or opener.unused_data:
        raise _broken()
    return text


def _broken() -> Invalid:
    return Invalid(
        "http.gzip", f"The body is not whole gzip of one member, or is larger than {_RATIO} times what was sent."
    )
