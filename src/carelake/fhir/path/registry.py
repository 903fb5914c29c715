"""The table of functions, and the three ways to declare one."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from carelake.fhir.path.context import Closure, Env
from carelake.fhir.path.syntax import Part
from carelake.fhir.path.values import Items

__all__ = ["FUNCTIONS", "Applied", "Made", "eager", "function", "maker"]

Applied = Callable[[Items, Items, Env], Items]
"""A function with its arguments: (input, focus of the caller, environment) to its result."""


class Made(NamedTuple):
    """A call: name, character it is at, its arguments compiled and as parsed."""

    name: str
    at: int
    arguments: tuple[Closure, ...]
    parts: tuple[Part, ...]


FUNCTIONS: dict[str, tuple[int, int, Callable[[Made], Applied]]] = {}
"""Name to (least, most arguments, maker)."""


def maker(
    name: str, least: int = 0, most: int | None = None
) -> Callable[[Callable[[Made], Applied]], Callable[[Made], Applied]]:
    """Declare a function that evaluates its arguments itself (it sets ``$this``, or may leave one out)."""

    def declare(make: Callable[[Made], Applied]) -> Callable[[Made], Applied]:
        FUNCTIONS[name] = (least, least if most is None else most, make)
        return make

    return declare


def function(name: str) -> Callable[[Callable[[Items, Env, int], Items]], Callable[[Items, Env, int], Items]]:
    """Declare a function without arguments: (input, environment, at) to its result."""

    def declare(work: Callable[[Items, Env, int], Items]) -> Callable[[Items, Env, int], Items]:
        def make(made: Made) -> Applied:
            at = made.at
            return lambda items, focus, env: work(items, env, at)

        FUNCTIONS[name] = (0, 0, make)
        return work

    return declare


def eager(name: str, least: int, most: int | None = None) -> Callable[[Callable[..., Items]], Callable[..., Items]]:
    """Declare a function whose arguments are evaluated first, on the focus of the caller.

    The work gets (input, environment, at, *arguments), one collection for each argument that was written.
    """

    def declare(work: Callable[..., Items]) -> Callable[..., Items]:
        def make(made: Made) -> Applied:
            at, arguments = made.at, made.arguments
            if len(arguments) == 1:
                only = arguments[0]
                return lambda items, focus, env: work(items, env, at, only(focus, env))
            return lambda items, focus, env: work(items, env, at, *[argument(focus, env) for argument in arguments])

        FUNCTIONS[name] = (least, least if most is None else most, make)
        return work

    return declare
