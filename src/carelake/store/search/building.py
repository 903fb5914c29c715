"""One SQL statement under construction: its texts are ours, its values are bound.

Placeholders are numbered, so that fragments may stand in any order and more than once. The text depends on the form
of a search alone, so the same form is prepared once for a connection.

What differs between the databases is here. SQLite keeps no statistics, so it is told by ``CROSS JOIN`` and by hidden
columns (a plus before the name keeps an index from being used) which table leads. PostgreSQL has the heads of texts
in its indexes; its statistics take columns for independent that are not, so it too is held to the plan that was
chosen by counting: see `prepare`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection

from carelake.core.errors import Invalid
from carelake.store.tables import HEAD

if TYPE_CHECKING:
    from carelake.store.search.nodes import Costs

__all__ = ["LAST", "Build", "Row", "every", "prepare", "restore", "some"]

LAST = chr(0x10FFFF)
_WIDE = 50
_VALUES, _LENGTH = 30_000, 900_000
"""Bounds of a statement: SQLite takes 32,766 values and a million characters, PostgreSQL 65,535 values."""


@dataclass(frozen=True, slots=True)
class Row:
    """A version that conditions are about, as SQL: its ``seq``, and its id where the statement has it at hand."""

    seq: str
    id: str = ""


class Build:
    """Gathers the values of a statement.

    Attributes:
        costs: what the statement's nested searches are led by.
        alone: at the end of a subselect, has it answered for each row by itself.
    """

    def __init__(self, dialect: str, costs: Costs | None = None) -> None:
        self.costs = costs
        self.sqlite = dialect == "sqlite"
        # PostgreSQL would make a join of the test, and find all that meet it before the page is full.
        self.alone = "" if self.sqlite else " OFFSET 0"
        self._values: list[Any] = []
        self._known: dict[tuple[type, Any], str] = {}
        self._aliases = 0

    def __call__(self, value: Any) -> str:
        """The placeholder of a value."""
        key = (type(value), value)
        found = self._known.get(key)
        if found is None:
            self._values.append(value)
            number = len(self._values)
            found = self._known[key] = f"?{number}" if self.sqlite else f"%(p{number})s"
        return found

    def alias(self) -> str:
        """A name for a table of the statement."""
        self._aliases += 1
        return f"t{self._aliases}"

    def run(self, tx: Connection, text: str) -> Sequence[tuple[Any, ...]]:
        """The statement's rows.

        Raises:
            Invalid: ``store.search_too_wide``: no database would take the statement.
        """
        if len(self._values) > _VALUES or len(text) > _LENGTH:
            raise Invalid(
                "store.search_too_wide",
                "The search has too many alternatives for one statement; give fewer values, or say which types its "
                "references point to.",
            )
        if self.sqlite:
            rows: Any = tx.exec_driver_sql(text, tuple(self._values))
        else:
            rows = tx.exec_driver_sql(text, {f"p{i}": value for i, value in enumerate(self._values, 1)})
        return rows.all()  # type: ignore[no-any-return]  # rows are tuples

    # -- fragments ------------------------------------------------------------------------------------------------

    def hidden(self, column: str) -> str:
        """A column that no index is to be looked up by: the table it is compared with follows, and does not lead."""
        return f"+{column}" if self.sqlite else column

    def by(self, index: str) -> str:
        """Have a table read by this index; without statistics SQLite takes a worse one that holds all columns."""
        return f" INDEXED BY {index}" if self.sqlite else ""

    def same(self, column: str, text: str) -> str:
        """A text column equals a text."""
        if self.sqlite:
            return f"{column} = {self(text)}"
        head = f"left({column}, {HEAD}) = {self(text[:HEAD])}"
        return head if len(text) < HEAD else f"{head} AND {column} = {self(text)}"

    def like(self, column: str, other: str) -> str:
        """A text column equals a column of ids, which are shorter than a head."""
        return f"{column} = {other}" if self.sqlite else f"left({column}, {HEAD}) = {other}"

    def equal(self, column: str, other: str) -> str:
        """A text column equals another one."""
        test = f"{column} = {other}"
        return test if self.sqlite else f"left({column}, {HEAD}) = left({other}, {HEAD}) AND {test}"

    def starts(self, column: str, text: str) -> str:
        """A text column starts with a text."""
        test = f"{column} >= {self(text)} AND {column} < {self(text + LAST)}"
        if self.sqlite:
            return test
        head = text[:HEAD]
        return f"left({column}, {HEAD}) >= {self(head)} AND left({column}, {HEAD}) <= {self(head + LAST)} AND {test}"

    def contains(self, column: str, text: str) -> str:
        """A text column holds a text."""
        return f"{'instr' if self.sqlite else 'strpos'}({column}, {self(text)}) > 0"

    def within(self, column: str, values: Iterable[Any]) -> str:
        """A column is one of many values; for a few, or for lists without bound."""
        listed = list(values)
        if len(listed) == 1:
            return f"{column} = {self(listed[0])}"
        if self.sqlite:
            return f"{column} IN (SELECT value FROM json_each({self(json.dumps(listed))}))"
        return f"{column} = ANY({self(_Listed(listed))})"

    def texts(self, column: str, values: Sequence[str]) -> str:
        """A text column is one of some texts."""
        test = self.within(column, values)
        if self.sqlite:
            return test
        return f"{self.within(f'left({column}, {HEAD})', [value[:HEAD] for value in values])} AND {test}"

    def among(self, column: str, ids: Iterable[Any]) -> str:
        """A text column is one of some ids, which are shorter than a head."""
        return self.within(column if self.sqlite else f"left({column}, {HEAD})", ids)

    def numbers(self, column: str, values: Sequence[int]) -> str:
        """A column is one of a few numbers, which are part of the text: symbols, whose number varies little."""
        return (
            f"{column} = {self(values[0])}" if len(values) == 1 else f"{column} IN ({', '.join(map(self, values))})"
        )


class _Listed(list[Any]):
    """A list as one bound value."""

    def __hash__(self) -> int:  # type: ignore[override]
        return id(self)


_NESTED = ("enable_bitmapscan", "enable_hashjoin", "enable_mergejoin", "enable_seqscan", "jit")
_PREPARE = "SELECT " + ", ".join(f"set_config('{name}', 'off', true)" for name in _NESTED)

_RESTORE = (
    "SELECT set_config(name, reset_val, true) FROM pg_settings "
    f"WHERE name IN ({', '.join(repr(name) for name in _NESTED)})"
)


def prepare(tx: Connection) -> None:
    """Before the first statement of a search: on PostgreSQL, rows are read in the order of indexes from here on.

    A page needs few rows of many; plans that gather all of them first are off until the transaction ends.
    """
    if tx.dialect.name == "postgresql":
        tx.exec_driver_sql(_PREPARE)


def restore(tx: Connection) -> None:
    """After a search that shares the transaction of a writer: the plans are as they were before `prepare`."""
    if tx.dialect.name == "postgresql":
        tx.exec_driver_sql(_RESTORE)


def every(tests: Iterable[str]) -> str:
    """All of them; "" for none."""
    return " AND ".join(test for test in tests if test)


def some(tests: Sequence[str]) -> str:
    """One of them; as a balanced tree, since SQLite bounds the depth of one."""
    if len(tests) == 1:
        return tests[0]
    if len(tests) > _WIDE:
        half = len(tests) // 2
        return some([some(tests[:half]), some(tests[half:])])
    return "(" + " OR ".join(f"({test})" for test in tests) + ")"
