"""TLS of the HTTP door: version 1.2 or later, ciphers with forward secrecy and authenticated encryption only.

As RFC 9325 (BCP 195) recommends. Certificate and key are read once, at the start.
"""

from __future__ import annotations

import ssl

from carelake.core.errors import Invalid
from carelake.core.settings import ServeSettings

__all__ = ["HANDSHAKE_SECONDS", "context_of"]

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
