"""Turns come in the order in which they were asked for, and none is lost when somebody gives up."""

from __future__ import annotations

import threading
import time

from carelake.vault.sql.turns import Turns


def test_turns_come_in_order() -> None:
    turns, came = Turns(), list[int]()
    assert turns.acquire(1)

    def wait(number: int) -> None:
        assert turns.acquire(30)
        came.append(number)
        turns.release()

    threads = []
    for number in range(20):
        threads.append(threading.Thread(target=wait, args=(number,)))
        threads[-1].start()
        while len(turns._waiting) <= number:
            time.sleep(0.001)
    turns.release()
    for one in threads:
        one.join(30)
    assert came == list(range(20))
    assert turns.acquire(0)


def test_who_gives_up_keeps_nobody_waiting() -> None:
    turns = Turns()
    assert turns.acquire(1)
    assert not turns.acquire(0.01)
    got = threading.Event()
    other = threading.Thread(target=lambda: turns.acquire(30) and got.set())
    other.start()
    turns.release()
    other.join(30)
    assert got.is_set()
    turns.release()
    assert turns.acquire(0)
