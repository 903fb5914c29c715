"""How a plan is written as SQL, whatever the engine: each has its words, its names and its lambdas."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from carelake.lake.schema import TEXT_OF, Leaf, Listed, Node
from carelake.lake.views.paths import parts_of
from carelake.lake.views.plan import (
    Case,
    Const,
    Each,
    Expr,
    Extend,
    Fail,
    Get,
    Keep,
    Let,
    Null,
    Op,
    Plan,
    ReadJson,
    Ref,
    Rel,
    Source,
    UnionAll,
    Unnest,
)

__all__ = ["Dialect", "call", "infix", "template"]


def template(text: str) -> Callable[..., str]:
    """A word that is written as the text with its arguments put in."""
    return lambda *args: text.format(*args)


def infix(sign: str) -> Callable[..., str]:
    """A word that is written between its arguments."""
    return lambda *args: "(" + f" {sign} ".join(args) + ")"


def call(name: str) -> Callable[..., str]:
    """A word that is a function of the engine."""
    return lambda *args: f"{name}({', '.join(args)})"


class Dialect(ABC):
    """Writes a plan as one SELECT over the relation ``resources``."""

    words: ClassVar[Mapping[str, Callable[..., str]]]
    types: ClassVar[Mapping[str, str]]
    error: ClassVar[str]
    """The engine's function that ends a query with a message."""

    @abstractmethod
    def name(self, name: str) -> str:
        """A name in quotes."""

    @abstractmethod
    def text(self, value: str) -> str:
        """A text in quotes."""

    @abstractmethod
    def listed(self, item: str) -> str:
        """The type of a list."""

    @abstractmethod
    def structured(self, parts: Sequence[tuple[str, str]]) -> str:
        """The type of a struct of names in quotes and types."""

    @abstractmethod
    def each(self, source: str, var: str, body: str, index: str) -> str:
        """`plan.Each`."""

    @abstractmethod
    def keep(self, source: str, var: str, test: str, index: str) -> str:
        """`plan.Keep`."""

    @abstractmethod
    def let(self, var: str, value: str, body: str) -> str:
        """`plan.Let`."""

    @abstractmethod
    def read_json(self, source: str, node: Node) -> str:
        """`plan.ReadJson`."""

    @abstractmethod
    def unnest(self, rel: Unnest, base: str, source: str) -> str:
        """The SELECT of `plan.Unnest`."""

    def kind(self, node: Node) -> str:
        """The engine's type; a decimal in a struct has its digits beside it."""
        if isinstance(node, Leaf):
            return self.types[node.kind]
        if isinstance(node, Listed):
            return self.listed(self.kind(node.item))
        parts = []
        for name, part in node.fields.items():
            parts.append((self.name(name), self.kind(part)))
            if part == Leaf("decimal"):
                parts.append((self.name(name + TEXT_OF), self.types["text"]))
        return self.structured(parts)

    def get(self, source: str, key: str) -> str:
        """`plan.Get`."""
        return f"({source}).{self.name(key)}"

    def fail(self, fail: Fail) -> str:
        """`plan.Fail`; the message is ``carelake``, the code and the place, with a space between."""
        return f"{self.error}({self.text(f'carelake {fail.code} {fail.at}')})"

    def expr(self, expr: Expr) -> str:
        """A scalar expression."""
        match expr:
            case Ref(name=name):
                return self.name(name)
            case Get(source=source, key=key):
                return self.get(self.expr(source), key)
            case Const(value=value):
                return self.const(value)
            case Null(kind=kind):
                return f"CAST(NULL AS {self.kind(kind)})"
            case Op(word=word, args=args):
                return self.words[word](*(self.expr(arg) for arg in args))
            case Each(source=source, var=var, body=body, index=index):
                return self.each(self.expr(source), var, self.expr(body), index)
            case Keep(source=source, var=var, test=test, index=index):
                return self.keep(self.expr(source), var, self.expr(test), index)
            case Let(var=var, value=value, body=body):
                return self.let(var, self.expr(value), self.expr(body))
            case Case():
                return self._case(expr)
            case ReadJson(source=source, kind=kind):
                return self.read_json(self.expr(source), kind)
            case Fail():
                return self.fail(expr)
        raise TypeError(expr)

    def const(self, value: str | int | bool | float) -> str:
        """A value of the view."""
        if isinstance(value, bool):
            return "TRUE" if value else "FALSE"
        if isinstance(value, str):
            return self.text(value)
        return (
            f"CAST({self.text(repr(value))} AS {self.kind_of_number(value)})"
            if isinstance(value, float)
            else str(value)
        )

    def kind_of_number(self, value: float) -> str:
        """The type of a decimal."""
        return "DOUBLE"

    def kept(self, rel: Unnest, source: str, there: str, one_null: str) -> str:
        """``_list`` of what a row is made for, and ``alive``: rows without elements get one null where they stay.

        Args:
            there: SQL of whether the list has elements.
            one_null: a list of one null.
        """
        if not rel.alive:
            return f"{source} AS _list"
        outer = [self.name(rel.outer)] if rel.outer else []
        alive = " AND ".join([*outer, *([there] if rel.keeps else [])])
        kept = f"CASE WHEN {alive} THEN {source} ELSE {one_null} END"
        return f"{kept} AS _list, {alive} AS {self.name(rel.alive)}"

    def _case(self, expr: Case) -> str:
        test, then = self.expr(expr.test), self.expr(expr.then)
        # A null without a type takes the other's.
        otherwise = "" if isinstance(expr.otherwise, Null) else f" ELSE {self.expr(expr.otherwise)}"
        if isinstance(expr.then, Null):
            then = "NULL"
        return f"(CASE WHEN {test} THEN {then}{otherwise} END)"

    # --- relations ---

    def select(self, plan: Plan, *, shown: bool = False, ordered: bool = False, table: str = "resources") -> str:
        """The statement of a plan; its columns are ``c0``, ``c1``, ... in the order of ``plan.outputs``.

        Args:
            shown: with the columns that order the rows, those of ``plan.order`` and ``_n``.
            ordered: in this order: of the resources, and of the specification within one.
            table: name of the relation ``resources``.
        """
        steps: dict[int, str] = {}
        written: list[str] = []
        written.append(f"resources_ AS (SELECT * FROM {table})")
        top = self._step(plan.rel, steps, written)
        columns, order = [], ["_n"]
        for n, output in enumerate(plan.outputs):
            if output.name not in plan.order or shown:
                columns.append(f"CAST({self.expr(output.expr)} AS {self.kind(output.kind)}) AS c{n}")
            if output.name in plan.order:
                order.append(f"c{n}")
        tail = f" ORDER BY {', '.join(order)}" if ordered else ""
        return f"WITH {', '.join(written)} SELECT {', '.join(columns)}{', _n' if shown else ''} FROM {top}{tail}"

    def _step(self, rel: Rel, steps: dict[int, str], written: list[str]) -> str:
        """The name of a relation, written down once."""
        if id(rel) in steps:
            return steps[id(rel)]
        sql = self._relation(rel, steps, written)
        name = steps[id(rel)] = f"s{len(steps)}"
        written.append(f"{name} AS ({sql})")
        return name

    def _relation(self, rel: Rel, steps: dict[int, str], written: list[str]) -> str:
        match rel:
            case Source(tests=tests):
                names = ", ".join(self.name(name) for name in rel.names)
                return f"SELECT {names} FROM resources_{self._where(tests)}"
            case Extend(base=base, name=name, expr=expr):
                return f"SELECT *, {self.expr(expr)} AS {self.name(name)} FROM {self._step(base, steps, written)}"
            case Unnest(base=base, source=source):
                return self.unnest(rel, self._step(base, steps, written), self.expr(source))
            case UnionAll():
                return self._union(rel, steps, written)
        raise TypeError(rel)

    def _where(self, tests: Sequence[Expr]) -> str:
        """All of them, in their order: one that can fail is not looked at where one before it is not true.

        AND leaves the order to the engine, and with it whether there is an error.
        """
        if not tests:
            return ""
        if len(tests) == 1 or not any(map(_can_fail, tests)):
            return f" WHERE {' AND '.join(self.expr(test) for test in tests)}"
        *before, last = (self.expr(test) for test in tests)
        text = last
        for test in reversed(before):
            text = f"CASE WHEN {test} THEN {text} END"
        return f" WHERE {text}"

    def _union(self, rel: UnionAll, steps: dict[int, str], written: list[str]) -> str:
        branches = []
        for (inner, exprs), test in zip(rel.branches, rel.tests, strict=True):
            base = self._step(inner, steps, written)
            names = ", ".join(self.name(name) for name in rel.base.names)
            columns = ", ".join(
                f"{self.expr(expr)} AS {self.name(name)}" for expr, name in zip(exprs, rel.outputs, strict=True)
            )
            where = "" if test is None else f" WHERE {self.expr(test)}"
            branches.append(f"SELECT {names}, {columns} FROM {base}{where}")
        return " UNION ALL ".join(branches)


def _can_fail(expr: object) -> bool:
    """Whether a `Fail` is in it; a part that is there often is looked at once."""
    seen: set[int] = set()
    stack = [expr]
    while stack:
        one = stack.pop()
        if isinstance(one, Fail):
            return True
        if id(one) not in seen:
            seen.add(id(one))
            stack.extend(parts_of(one))
    return False
