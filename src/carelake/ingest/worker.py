"""The loop of one worker process: batches in, outcomes out, until the pipe closes."""

from __future__ import annotations

import gc
import queue
import signal
import threading
from multiprocessing.connection import Connection

import msgspec

from carelake.ingest.batches import Batch
from carelake.ingest.parse import Parser

__all__ = ["work"]


def work(connection: Connection, max_depth: int) -> None:
    """Serve one connection. The parent ends it by closing its side, or by dying.

    A thread takes batches off the pipe at once, so that the parent never waits to send while this process waits to
    send to the parent.
    """
    # Ctrl-C goes to the whole group of processes; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.freeze()
    gc.disable()
    waiting: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    threading.Thread(target=_take, args=(connection, waiting), daemon=True).start()
    parser = Parser(max_depth)
    decode = msgspec.msgpack.Decoder(Batch).decode
    encode = msgspec.msgpack.Encoder().encode
    while (data := waiting.get()) is not None:
        try:
            connection.send_bytes(encode(parser.parse(decode(data))))
        except OSError:
            return


def _take(connection: Connection, waiting: queue.SimpleQueue[bytes | None]) -> None:
    try:
        while True:
            waiting.put(connection.recv_bytes())
    except (EOFError, OSError):
        waiting.put(None)
