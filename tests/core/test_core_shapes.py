"""Types that several threads decode to for the first time at once."""

from __future__ import annotations

import subprocess
import sys

CHILD = """
import sys
from threading import Barrier, Thread
import msgspec
from carelake.core.shapes import decodable

sys.setswitchinterval(1e-6)
data = msgspec.msgpack.encode([[[1, "b"]] * 3, [1, "c"], {"k": [1, "d"]}])

def made():
    class Inner(msgspec.Struct, array_like=True):
        number: int
        text: str
    class Outer(msgspec.Struct, array_like=True):
        many: list[Inner]
        one: Inner | None
        named: dict[str, Inner]
    return Outer

def decode(outer, start):
    start.wait()
    assert msgspec.msgpack.decode(data, type=%s).one.text == "c"

for _ in range(300):
    outer, start = made(), Barrier(4)
    threads = [Thread(target=decode, args=(outer, start)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
"""


def run(kind: str) -> int:
    return subprocess.run(
        [sys.executable, "-c", CHILD % kind], capture_output=True, check=False, timeout=120
    ).returncode


def test_threads_that_decode_to_a_new_type_at_once() -> None:
    """In a process of its own: without `decodable` it ends with SIGSEGV, which a worker of the server did."""
    assert run("decodable(outer)") == 0
