"""Sealing beside other work: a thread that seals every second while a long job runs (decision D3)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from carelake.audit.trail import Trail
from carelake.core.permit import Permit

__all__ = ["sealing_beside"]


@contextmanager
def sealing_beside(trail: Trail, permit: Callable[[], Permit], seconds: float) -> Iterator[None]:
    """Seal every ``seconds`` while the block runs; one that takes less has no thread that ever woke.

    What hinders a round (a busy database, a full disk) hinders the job or the sealing at its end, too, and is told
    there; here the next round tries again.
    """
    over = threading.Event()

    def again() -> None:
        while not over.wait(seconds):
            with suppress(Exception):  # told at the end, where the caller can hear it
                trail.seal(permit())

    thread = threading.Thread(target=again, name="carelake-sealing", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
