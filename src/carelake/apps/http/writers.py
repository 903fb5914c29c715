"""Small writes that are done together: all of a group of a `workers.Lane` are one transaction (decision 0038).

A handler of these is in steps: what it does before the transaction, the write, what it does after. Of a group the
first steps are done one after another with one snapshot, then all writes, then the answers.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

from starlette.responses import Response

from carelake.apps.http.workers import Outcome
from carelake.vault.groups import Work

__all__ = ["Steps", "alone", "writings"]

Steps = Generator[Work[Any], Any, Response]
"""Yields its one write, is sent what came of it (or has its error thrown into it), and returns the answer."""

Grouped = Callable[[Sequence[Work[Any]]], list[Any]]
"""Does writes together: what each answers, or its error."""


def alone(steps: Steps, grouped: Grouped) -> Response:
    """The answer of one handler, in this thread."""
    (found,), _ = _done([steps], nullcontext, grouped)
    if isinstance(found, BaseException):
        raise found
    return found


def writings(
    gathering: Callable[[], AbstractContextManager[Callable[[], None]]],
    snapshot: Callable[[], AbstractContextManager[None]],
    grouped: Grouped,
) -> Callable[[Sequence[Steps]], Sequence[Outcome]]:
    """What a lane does with handlers in steps.

    Args:
        gathering: keeps the acts that stand alone; what it gives commits them, before any answer leaves.
        snapshot: surrounds the first steps.
    """

    def do(all_steps: Sequence[Steps]) -> Sequence[Outcome]:
        found: list[Outcome] = []
        written: frozenset[int] = frozenset()
        try:
            with gathering() as settle:
                found, written = _done(all_steps, snapshot, grouped)
            settle()
        except BaseException as error:
            # What was written is committed, its act with it: whoever were told otherwise would send it again.
            return [found[number] if number in written else error for number in range(len(all_steps))]
        return found

    return do


def _done(
    all_steps: Sequence[Steps], snapshot: Callable[[], AbstractContextManager[None]], grouped: Grouped
) -> tuple[list[Outcome], frozenset[int]]:
    """The answers of several handlers, or their errors; and which of them have written, with their acts."""
    found: list[Any] = []  # works of those that wait; answers and errors of those that are done
    try:
        with snapshot():
            found += (_step(steps.__next__) for steps in all_steps)
        waiting = [number for number, one in enumerate(found) if isinstance(one, Work)]
        made = grouped([found[number] for number in waiting])
    except Exception as error:
        found += [error] * (len(all_steps) - len(found))
        waiting = [number for number, one in enumerate(found) if isinstance(one, Work)]
        made = [error] * len(waiting)
    written = [number for number, answer in zip(waiting, made, strict=True) if not isinstance(answer, BaseException)]
    for number, answer in zip(waiting, made, strict=True):
        steps = all_steps[number]
        go_on = steps.throw if isinstance(answer, BaseException) else steps.send
        found[number] = _step(partial(go_on, answer))
    return found, frozenset(written)


def _step(go_on: Callable[[], Work[Any]]) -> Any:
    try:
        return go_on()
    except StopIteration as end:
        return end.value
    except Exception as error:
        return error
