"""The loop of one worker process: batches in, outcomes out, until the pipe closes."""

from __future__ import annotations

import gc
import os
import queue
import signal
import threading
from multiprocessing.connection import Connection

import msgspec

from carelake.core.shapes import decodable
from carelake.fhir.search import BASE, Registry, SearchDefinition
from carelake.fhir.validate import Mode
from carelake.ingest.batches import Batch
from carelake.ingest.parse import Parser

__all__ = ["Rules", "work"]


class Rules(msgspec.Struct, frozen=True, array_like=True):
    """What a worker parses by: plain data, packed, that it gets once.

    Attributes:
        max_depth, level: as of `Parser`.
        custom, content: as of `carelake.fhir.search.Registry`.
    """

    max_depth: int
    level: Mode = "structure"
    custom: tuple[SearchDefinition, ...] = ()
    content: bool = False

    def parser(self) -> Parser:
        """A parser of one's own."""
        plain = not self.custom and not self.content
        return Parser(self.max_depth, self.level, BASE if plain else Registry(self.custom, content=self.content))


def work(connection: Connection, rules: bytes) -> None:
    """Serve one connection, by packed `Rules`. The parent ends it by closing its side, or by dying.

    Threads take batches off the pipe at once and give outcomes back, so that neither side ever waits for the other:
    the parent does not read while it commits a page. How much is under way is the parent's to bound.
    """
    # Ctrl-C goes to the whole group of processes; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.freeze()
    gc.disable()
    waiting: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    done: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_take, args=(connection, waiting), daemon=True).start()
    threading.Thread(target=_give, args=(connection, done), daemon=True).start()
    parser = msgspec.msgpack.decode(rules, type=decodable(Rules)).parser()
    decode = msgspec.msgpack.Decoder(decodable(Batch)).decode
    encode = msgspec.msgpack.Encoder().encode
    while (data := waiting.get()) is not None:
        done.put(encode(parser.parse(decode(data))))


def _give(connection: Connection, done: queue.SimpleQueue[bytes]) -> None:
    try:
        while True:
            connection.send_bytes(done.get())
    except OSError:
        return  # the parent is gone, which the other thread sees too
    except BaseException:
        os._exit(1)  # out of memory, say: the parent would wait for ever for what is not given


def _take(connection: Connection, waiting: queue.SimpleQueue[bytes | None]) -> None:
    try:
        while True:
            waiting.put(connection.recv_bytes())
    except (EOFError, OSError):
        return
    finally:
        waiting.put(None)  # whatever ended this thread, the process ends, which the parent sees
