"""TLS of the HTTP door: version 1.2 or later, ciphers with forward secrecy and authenticated encryption only.

As RFC 9325 (BCP 195) recommends. Certificate and key are read again when their files change.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

from carelake.core.errors import Invalid
from carelake.core.settings import ServeSettings

__all__ = ["HANDSHAKE_SECONDS", "Renewal", "context_of"]

HANDSHAKE_SECONDS = 10.0
_TLS12 = "ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL:!kRSA"
"""TLS 1.3's own are all of that kind."""


def context_of(told: ServeSettings) -> ssl.SSLContext | None:
    """The server's side of TLS as the settings have it; None where they have none.

    Raises:
        Invalid: ``http.tls``: certificate and key cannot be read, or do not belong together.
    """
    if not told.tls_certificate:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_TLS12)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    try:
        # Without the empty password OpenSSL would ask for one at the terminal.
        context.load_cert_chain(told.tls_certificate, told.tls_key, password="")
    except (OSError, ValueError):  # ssl.SSLError is an OSError; its text names files and no more, but not helpfully
        raise Invalid(
            "http.tls",
            "serve.tls_certificate and serve.tls_key cannot be read, or do not belong together: expected two PEM "
            "files, a certificate with its chain, and its private key without a password.",
        ) from None
    return context


class Renewal:
    """Certificate and key of a server that runs, taken again when their files change."""

    def __init__(self, context: ssl.SSLContext, told: ServeSettings, log: Any) -> None:
        """Watch the files of ``context``.

        Args:
            log: told of each renewal (``info``), and once of files that cannot be used (``error``).
        """
        self._newest, self._told, self._log = context, told, log
        self._seen = self._stamps()
        context.sni_callback = self._choose

    def _choose(self, line: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        """Called at each handshake, whether the client names a server or not.

        Loaded into the context that there is, a certificate of another kind of key would stand beside the old one.
        """
        line.context = self._newest

    def look(self) -> None:
        """Take what is new; connections that there are go on with what they began with.

        Files that do not belong together, as while they are written one after the other, change nothing.
        """
        now = self._stamps()
        if now == self._seen:
            return
        self._seen = now
        try:
            self._newest = context_of(self._told) or self._newest
        except Invalid:
            self._log.error("certificate not renewed", code="http.tls")
        else:
            self._log.info("certificate renewed")

    def _stamps(self) -> list[tuple[int, ...]]:
        return [_stamp(Path(one)) for one in (self._told.tls_certificate, self._told.tls_key)]


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_ino, found.st_mtime_ns, found.st_size
