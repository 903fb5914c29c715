"""The source tree as the tests of the architecture see it: parsed once, never imported."""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Source:
    """One module of the package."""

    path: Path
    name: str
    """Path below ``src/carelake``, for example ``vault/objects.py``."""

    @property
    def room(self) -> str:
        return self.name.split("/")[0] if "/" in self.name else ""

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, filename=self.name)

    @cached_property
    def nodes(self) -> list[ast.AST]:
        return list(ast.walk(self.tree))

    def calls(self) -> Iterator[ast.Call]:
        return (node for node in self.nodes if isinstance(node, ast.Call))

    def imports(self) -> Iterator[tuple[str, str, int]]:
        """(module, name or "", line) of each import, wherever it stands."""
        for node in self.nodes:
            if isinstance(node, ast.Import):
                yield from ((alias.name, "", node.lineno) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield from ((node.module or "", alias.name, node.lineno) for alias in node.names)


def dotted(node: ast.AST) -> str:
    """``os.path.join`` for the expression of that name; "" for anything that is not a chain of names."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        left = dotted(node.value)
        return f"{left}.{node.attr}" if left else f"?.{node.attr}"
    return ""


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def sources() -> list[Source]:
    package = ROOT / "src" / "carelake"
    return [Source(path, path.relative_to(package).as_posix()) for path in sorted(package.rglob("*.py"))]


@pytest.fixture(scope="session")
def name_of() -> Callable[[ast.AST], str]:
    return dotted


@pytest.fixture(scope="session")
def tool() -> Callable[[str], ModuleType]:
    """``tool("write_errors")``: the module of that name in ``tools/``."""

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(f"carelake_tools_{name}", ROOT / "tools" / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        return module

    return load
