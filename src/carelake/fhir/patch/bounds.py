"""How far a patch may go: its operations, the bytes it adds, the size of what comes out; and how it may fail."""

from __future__ import annotations

import time
from typing import Any

from carelake.core import canonical
from carelake.core.errors import CarelakeError, Invalid
from carelake.core.settings import MIB
from carelake.fhir.path.context import Env, Services
from carelake.fhir.path.errors import limit_error
from carelake.fhir.path.values import Items

__all__ = ["MAX_BYTES", "MAX_OPERATIONS", "MAX_SECONDS", "Budget", "TimedEnv", "copied", "patch_error"]

MAX_OPERATIONS = 1000
"""Operations of one patch; who changes more sends the whole resource."""
MAX_BYTES = 16 * MIB
"""JSON that one patch may add, and that may come out of it, where the caller has no other bound."""
MAX_SECONDS = 1.0
"""Time that the paths of one patch may take together: a writer whose patch it is lets the others wait."""


def patch_error(reason: str, number: int, message: str) -> Invalid:
    """What is wrong with an operation, by its number from 0; never a value.

    Args:
        reason: "" where the operation itself is none; ``path``, ``value``, ``test`` or ``limit``.
    """
    return Invalid(
        {
            "": "fhir.patch",
            "limit": "fhir.patch_limit",
            "path": "fhir.patch_path",
            "test": "fhir.patch_test",
            "value": "fhir.patch_value",
        }[reason],
        f"Operation [{number}] of the patch: {message}",
        operation=number,
    )


class Budget:
    """What a patch may still add.

    What a `copy` makes twice counts each time, so that doubling a document comes to its end at once.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._left = most

    def take(self, number: int, value: Any) -> Any:
        """A copy of a value, counted.

        Raises:
            Invalid: ``fhir.patch_limit``.
        """
        try:
            made, size = _copied(value)
        except CarelakeError:
            raise patch_error("limit", number, "its value is nested too deeply.") from None
        self._left -= size
        if self._left < 0:
            raise patch_error("limit", number, f"the patch adds more than {self.most} bytes. Send less at once.")
        return made

    def settle(self, patched: Any, operations: int) -> None:
        """Refuse what came out too large or too deep."""
        try:
            fits = len(canonical.dump_as_given(patched)) <= self.most
        except RecursionError:
            fits = False
        if not fits:
            raise patch_error(
                "limit", max(operations - 1, 0), f"the result is over {self.most} bytes, or nested too deeply."
            )


class TimedEnv(Env):
    """An evaluation that ends after a time.

    Items are counted where functions loop over them; what a condition looks at anew from ``%resource`` for each item
    is not, and multiplies. So the time is asked wherever one of these begins.
    """

    __slots__ = ("_until",)

    def __init__(self, start: Items, seconds: float) -> None:
        super().__init__(start, {}, Services())
        self._until = time.monotonic() + seconds

    def spend(self, items: int, at: int) -> None:
        """As in any evaluation, and see to the time."""
        self._see(at)
        super().spend(items, at)

    def variable(self, name: str, at: int) -> Items:
        """As in any evaluation, and see to the time."""
        self._see(at)
        return super().variable(name, at)

    def _see(self, at: int) -> None:
        if time.monotonic() > self._until:
            raise limit_error(at, "it took too long. Name elements by plain paths.")


def copied(value: Any) -> Any:
    """A copy of a JSON value that shares nothing with it; digits of decimals are kept.

    Raises:
        Invalid: ``core.depth``.
    """
    return _copied(value)[0]


def _copied(value: Any) -> tuple[Any, int]:
    if not isinstance(value, dict | list):
        return value, len(value) if isinstance(value, str) else 8
    try:
        text = canonical.dump_as_given(value)
    except RecursionError:
        raise Invalid("core.depth", "The JSON is nested too deeply to be a clinical document.") from None
    return canonical.load(text), len(text)
