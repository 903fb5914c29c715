"""JSON Patch (https://www.rfc-editor.org/rfc/rfc6902) over JSON Pointers (RFC 6901).

Written here and not taken from `jsonpatch`: its ``test`` holds ``true`` equal to 1, its messages quote values, and
it lets a few copies double a document until memory ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from itertools import pairwise
from typing import Any

from carelake.core.errors import Invalid
from carelake.fhir.patch.bounds import MAX_BYTES, MAX_OPERATIONS, Budget, copied, patch_error

__all__ = ["json_patch"]

_MAX_DIGITS = 9
_NUMBERS = (int, float, Decimal)


def json_patch(
    resource: dict[str, Any], operations: Sequence[Any], *, most: int = MAX_BYTES, tidy: bool = False
) -> dict[str, Any]:
    """A new resource, patched; all operations or none.

    Args:
        operations: parsed JSON of the patch: a list of objects.
        most: bytes of JSON that the patch may add, and that may come out.
        tidy: leave out lists and objects that a removal has emptied in the end, as FHIR's JSON has none.

    Raises:
        Invalid: ``fhir.patch`` for what is no patch; ``fhir.patch_path``, ``fhir.patch_test``, ``fhir.patch_value``
            and ``fhir.patch_limit`` for what cannot be done. ``facts["operation"]`` is its number from 0.
    """
    if not isinstance(operations, list):
        raise Invalid("fhir.patch", "A JSON Patch is a list of operations, each with op and path.")
    if len(operations) > MAX_OPERATIONS:
        raise patch_error("limit", MAX_OPERATIONS, f"a patch has at most {MAX_OPERATIONS}. Send the resource (PUT).")
    work = _Work(copied(resource), Budget(most))
    for number, operation in enumerate(operations):
        work.number = number
        work.apply(operation)
    if not isinstance(work.document, dict):
        raise patch_error("value", len(operations) - 1, "the whole came out as no object.")
    work.budget.settle(work.document, len(operations))
    if tidy:
        _tidy(work.document, work.emptied)
    return work.document


class _Work:
    """A document on its way.

    Attributes:
        number: of the operation at hand.
        emptied: containers that a removal left empty, by identity.
    """

    def __init__(self, document: Any, budget: Budget) -> None:
        self.document = document
        self.budget = budget
        self.number = 0
        self.emptied: dict[int, Any] = {}

    def apply(self, operation: Any) -> None:
        if not isinstance(operation, dict):
            raise self._wrong("an operation is an object with op and path.")
        done = _OPERATIONS.get(operation["op"]) if isinstance(operation.get("op"), str) else None
        if done is None:
            raise self._wrong(f"op is one of {', '.join(_OPERATIONS)}.")
        done(self, operation)

    def add(self, operation: dict[str, Any]) -> None:
        self._put(self._pointer(operation, "path"), self._value(operation))

    def remove(self, operation: dict[str, Any]) -> None:
        self._take(self._pointer(operation, "path"))

    def replace(self, operation: dict[str, Any]) -> None:
        path, value = self._pointer(operation, "path"), self._value(operation)
        if not path:
            self.document = value
            return
        holder = self._at(path[:-1])
        self._child(holder, path[-1])
        holder[path[-1] if isinstance(holder, dict) else int(path[-1])] = value

    def move(self, operation: dict[str, Any]) -> None:
        source, path = self._pointer(operation, "from"), self._pointer(operation, "path")
        if path[: len(source)] == source and len(path) > len(source):
            raise self._wrong("a value cannot be moved into itself.")
        if path == source:
            self._at(path)
            return
        self._put(path, self._take(source))

    def copy(self, operation: dict[str, Any]) -> None:
        value = self._at(self._pointer(operation, "from"))
        self._put(self._pointer(operation, "path"), self.budget.take(self.number, value))

    def test(self, operation: dict[str, Any]) -> None:
        if "value" not in operation:
            raise self._wrong("it has no value.")
        if not _equal(self._at(self._pointer(operation, "path")), operation["value"]):
            raise patch_error("test", self.number, "the test failed: another value is there. Read it again.")

    def _put(self, path: list[str], value: Any) -> None:
        if not path:
            self.document = value
            return
        holder, name = self._at(path[:-1]), path[-1]
        if isinstance(holder, dict):
            holder[name] = value
        elif isinstance(holder, list):
            holder.insert(len(holder) if name == "-" else self._index(name, len(holder) + 1), value)
        else:
            raise self._nowhere()

    def _take(self, path: list[str]) -> Any:
        if not path:
            raise self._wrong("the whole cannot be taken away.")
        holder = self._at(path[:-1])
        value = self._child(holder, path[-1])
        del holder[path[-1] if isinstance(holder, dict) else int(path[-1])]
        if not holder:
            self.emptied[id(holder)] = holder
        return value

    def _at(self, path: list[str]) -> Any:
        node = self.document
        for name in path:
            node = self._child(node, name)
        return node

    def _child(self, holder: Any, name: str) -> Any:
        if isinstance(holder, list):
            return holder[self._index(name, len(holder))]
        if isinstance(holder, dict) and name in holder:
            return holder[name]
        raise self._nowhere()

    def _index(self, name: str, end: int) -> int:
        digits = name.isascii() and name.isdigit() and len(name) <= _MAX_DIGITS
        if not digits or (name[0] == "0" and len(name) > 1) or int(name) >= end:
            raise patch_error("path", self.number, "there is no such place in the list; places count from 0.")
        return int(name)

    def _pointer(self, operation: dict[str, Any], name: str) -> list[str]:
        text = operation.get(name)
        if not isinstance(text, str) or (text and text[0] != "/") or _bad_escape(text):
            raise self._wrong(f"{name} is a JSON Pointer: empty, or /name/0 with ~0 for ~ and ~1 for /.")
        return [part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:]]

    def _value(self, operation: dict[str, Any]) -> Any:
        if "value" not in operation:
            raise self._wrong("it has no value.")
        return self.budget.take(self.number, operation["value"])

    def _wrong(self, message: str) -> Invalid:
        return patch_error("", self.number, message)

    def _nowhere(self) -> Invalid:
        return patch_error("path", self.number, "nothing is at its path; what is missing on the way is not made.")


_OPERATIONS: dict[str, Callable[[_Work, dict[str, Any]], None]] = {
    "add": _Work.add,
    "remove": _Work.remove,
    "replace": _Work.replace,
    "move": _Work.move,
    "copy": _Work.copy,
    "test": _Work.test,
}


def _bad_escape(text: str) -> bool:
    return any(one == "~" and after not in "01" for one, after in pairwise(text + "."))


def _equal(one: Any, other: Any) -> bool:
    """Equal as JSON values (RFC 6902 section 4.6): numbers by value, and ``true`` is no number."""
    todo = [(one, other)]
    while todo:
        left, right = todo.pop()
        if isinstance(left, dict) and isinstance(right, dict):
            if left.keys() != right.keys():
                return False
            todo += [(value, right[name]) for name, value in left.items()]
        elif isinstance(left, list) and isinstance(right, list):
            if len(left) != len(right):
                return False
            todo += zip(left, right, strict=True)
        elif not _same(left, right):
            return False
    return True


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, _NUMBERS) and isinstance(right, _NUMBERS):
        return left == right
    return left.__class__ is right.__class__ and bool(left == right)


def _tidy(document: dict[str, Any], emptied: dict[int, Any]) -> None:
    """Take out what was emptied and still is, and what that empties above it."""
    order: list[tuple[Any, Any, Any]] = []
    todo: list[Any] = [document]
    while todo:
        node = todo.pop()
        for key, inner in node.items() if isinstance(node, dict) else enumerate(node):
            if isinstance(inner, dict | list):
                order.append((node, key, inner))
                todo.append(inner)
    gone: set[tuple[int, Any]] = set()
    for holder, key, inner in reversed(order):
        if not inner and (id(inner) in emptied):
            gone.add((id(holder), key))
            emptied[id(holder)] = holder
            if isinstance(holder, dict):
                del holder[key]
            else:
                holder[key] = _GONE
                if all(one is _GONE for one in holder):
                    holder.clear()
    for holder in {id(holder): holder for holder, key, _ in order if (id(holder), key) in gone}.values():
        if isinstance(holder, list):
            holder[:] = [one for one in holder if one is not _GONE]


_GONE = object()
