"""What a module shows: its docstring, its name and its list of exports."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any

BANNED = {"utils", "util", "common", "helpers", "helper", "manager", "managers", "base", "misc"}


def _exports(source: Any) -> list[str] | None:
    for node in source.tree.body:
        if isinstance(node, ast.Assign) and any(getattr(target, "id", "") == "__all__" for target in node.targets):
            return [str(name) for name in ast.literal_eval(node.value)]
    return None


def _rank(name: str) -> tuple[int, str]:
    """The order that ruff gives: constants, classes, functions."""
    return (0 if name.isupper() else 1 if name[:1].isupper() else 2), name


def _defined(source: Any) -> set[str]:
    """Names bound at the top of the module."""
    names: set[str] = set()
    for node in source.tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.TypeAlias if hasattr(ast, "TypeAlias") else ()):
            names.add(node.name.id)
        else:
            names |= {
                inner.id
                for inner in ast.walk(node)
                if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store)
            }
    return names


def test_every_module_has_a_docstring(sources: Sequence[Any]) -> None:
    assert not [source.name for source in sources if not ast.get_docstring(source.tree)]


def test_no_module_is_named_for_being_a_drawer(sources: Sequence[Any]) -> None:
    found = {source.name for source in sources for part in source.name[:-3].split("/") if part in BANNED}
    assert not found


def test_exports_are_sorted_and_true(sources: Sequence[Any]) -> None:
    wrong = []
    for source in sources:
        exports = _exports(source)
        if exports is None:
            continue
        if exports != sorted(exports, key=_rank) or len(exports) != len(set(exports)):
            wrong.append(f"{source.name}: __all__ is not sorted")
        wrong += [f"{source.name}: exports {name}, which it lacks" for name in set(exports) - _defined(source)]
    assert not wrong


def test_rooms_take_only_what_is_exported(sources: Sequence[Any]) -> None:
    """A name that is not in a module's list is for its own room."""
    exports = {"carelake." + source.name[:-3].replace("/", "."): _exports(source) for source in sources}
    wrong = [
        f"{source.name}:{line} takes {name} from {module}, which does not export it"
        for source in sources
        for module, name, line in source.imports()
        if module.startswith("carelake.") and module.split(".")[1] != source.room
        if name not in (exports.get(module) or [name])
    ]
    assert not wrong


def test_package_files_hold_no_logic(sources: Sequence[Any]) -> None:
    allowed = ast.Import | ast.ImportFrom | ast.Assign | ast.AnnAssign | ast.Expr
    wrong = [
        f"{source.name}:{node.lineno}"
        for source in sources
        if source.name.endswith("__init__.py")
        for node in source.tree.body
        if not isinstance(node, allowed)
    ]
    assert not wrong


def test_public_things_have_docstrings(sources: Sequence[Any]) -> None:
    """Classes and module-level functions that are exported say what they are."""
    wrong = []
    for source in sources:
        exports = set(_exports(source) or ())
        wrong += [
            f"{source.name}:{node.lineno} {node.name}"
            for node in source.tree.body
            if isinstance(node, ast.FunctionDef | ast.ClassDef)
            and node.name in exports
            and not ast.get_docstring(node)
        ]
    assert not wrong
