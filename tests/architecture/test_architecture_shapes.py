"""What is told to msgspec as a type goes through `core.shapes.decodable`: it is not safe with threads by itself."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Sequence
from typing import Any

# What holds no Struct has nothing that threads could see half done.
PLAIN = {
    "str",
    "bytes",
    "int",
    "float",
    "bool",
    "list",
    "dict",
    "tuple",
    "frozenset",
    "Any",
    "msgspec",
    "Raw",
    "None",
}
CODECS = ("msgspec.json", "msgspec.msgpack", "msgspec.toml", "msgspec.yaml")


def _told(call: ast.Call, name: str) -> Iterator[ast.expr]:
    """The type of one call to msgspec."""
    yield from (one.value for one in call.keywords if one.arg == "type")
    if name.endswith(".Decoder"):
        yield from call.args[:1]
    elif name == "msgspec.convert":
        yield from call.args[1:2]


def _plain(kind: ast.expr) -> bool:
    names = {node.id for node in ast.walk(kind) if isinstance(node, ast.Name)}
    return names <= PLAIN


def test_types_are_worked_out_by_one_thread(sources: Sequence[Any], name_of: Callable[[ast.AST], str]) -> None:
    calls = {"msgspec.convert", *(f"{one}.{what}" for one in CODECS for what in ("decode", "Decoder"))}
    found, seen = [], 0
    for source in sources:
        for call in source.calls():
            if (name := name_of(call.func)) not in calls or source.name == "core/shapes.py":
                continue
            for kind in _told(call, name):
                safe = isinstance(kind, ast.Call) and name_of(kind.func) == "decodable"
                seen += safe
                if not safe and not _plain(kind):
                    found.append(f"{source.name}:{call.lineno} decodes to {ast.unparse(kind)} without decodable()")
            if not call.keywords and name == "msgspec.convert" and len(call.args) < 2:
                found.append(f"{source.name}:{call.lineno}")
    assert not found
    assert seen > 30
