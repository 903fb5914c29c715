"""Key sets of those who answer slowly, or with more than they seem to: nobody waits long for them."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from carelake.access.jwks import KeySource
from carelake.core.clock import SystemClock
from carelake.core.errors import Unavailable
from carelake.core.settings import OidcSettings

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@contextmanager
def answering(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):
                there, _ = server.accept()
                with there:
                    there.recv(4096)
                    answer(there)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/keys"
        thread.join(10)
    assert not thread.is_alive()


def dripping(begin: bytes) -> Callable[[socket.socket], None]:
    def answer(there: socket.socket) -> None:
        there.sendall(begin)
        for _ in range(60):
            time.sleep(0.1)
            there.sendall(b" ")

    return answer


@pytest.mark.parametrize(
    "begin", [HEAD + b"Content-Length: 100000\r\n\r\n", HEAD + b"X-Slow: "], ids=["body", "head"]
)
def test_an_answer_that_comes_byte_by_byte_is_not_waited_for(begin: bytes) -> None:
    with answering(dripping(begin)) as url:
        source = KeySource(url, OidcSettings(timeout_seconds=0.5), SystemClock())
        started = time.monotonic()
        with pytest.raises(Unavailable) as refused:
            source.candidates("k", "ES384")
        assert time.monotonic() - started < 3
    assert refused.value.code == "access.jwks"


def test_an_answer_that_is_packed_is_not_unpacked() -> None:
    body = gzip.compress(b'{"keys": []}' + b" " * 1000)

    def answer(there: socket.socket) -> None:
        there.sendall(HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    with answering(answer) as url, pytest.raises(Unavailable):
        KeySource(url, OidcSettings(), SystemClock()).candidates("k", "ES384")
