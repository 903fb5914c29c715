"""Questions to the lake, as every door asks them: one statement is one act, and its text is told by a reference."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
import pyarrow as pa

from carelake.access.identity import Caller
from carelake.apps.http.ports import Door
from carelake.core.errors import Invalid
from carelake.core.permit import Permit
from carelake.lake import asof
from carelake.lake.following.sync import sync
from carelake.lake.statements.cursor import BATCH_ROWS, Answer, Stop, running
from carelake.vault.workspace import Vault

__all__ = ["ACTION", "TARGET", "Question", "answered", "bring_up", "listed", "rows_of", "values_of"]

ACTION, TARGET = "lake:query", "lake"


class Question(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is asked.

    Attributes:
        statement: one SELECT.
        parameters: values of ``?`` and ``$1`` in order, or of ``$name`` by name.
        as_of: a snapshot's ref, a tag, a day or an instant; by default the newest snapshot.
        fresh: bring the lake up to the record before.
        limit: so many rows, and no more.
    """

    statement: str
    parameters: Sequence[Any] | Mapping[str, Any] | None = None
    as_of: str | None = None
    fresh: bool = False
    limit: int | None = None

    def __repr__(self) -> str:
        return "Question(...)"  # a statement and its parameters can hold what nobody is to read in a traceback


def bring_up(door: Door, caller: Caller) -> None:
    """Sync the lake, which is an act of its own."""
    with door.enter(caller, "lake:sync", TARGET, job=True) as permit:
        sync(permit, door.vault, door.resources, door.nouns)


@contextmanager
def answered(
    door: Door, permit: Permit, question: Question, stop: Stop | None = None, *, batch_rows: int = BATCH_ROWS
) -> Iterator[Answer]:
    """The rows of a question under a permit, which are read inside the block; `Answer.rows` goes to the act.

    Raises:
        As `lake.asof.as_of` and `lake.statements.cursor.running`.
    """
    permit.log.note(statement=_reference(permit, door.vault, question))
    snapshot = asof.as_of(permit, door.vault, door.nouns, question.as_of)
    with running(
        permit,
        door.vault,
        snapshot,
        question.statement,
        question.parameters,
        limit=question.limit,
        stop=stop,
        batch_rows=batch_rows,
    ) as answer:
        try:
            yield answer
        finally:
            permit.log.count(rows=answer.rows)


def rows_of(
    door: Door, caller: Caller, question: Question, stop: Stop | None = None, *, batch_rows: int = BATCH_ROWS
) -> Generator[pa.Schema | pa.RecordBatch, None, None]:
    """The schema, and then batches that are run for when they are asked for: all of it is one job of the caller.

    Rows leave while it runs, so its start is on the trail before; who stops early just closes the generator.
    """
    if question.fresh:
        bring_up(door, caller)
    with (
        door.enter(caller, ACTION, TARGET, job=True) as permit,
        answered(door, permit, question, stop, batch_rows=batch_rows) as answer,
    ):
        try:
            yield answer.schema
            yield from answer
        except GeneratorExit:
            permit.log.note(read="in part")


def values_of(batch: pa.RecordBatch) -> Iterator[tuple[Any, ...]]:
    """The rows of a batch, each column as `listed`."""
    return zip(*(listed(column) for column in batch.columns), strict=True)


def listed(column: pa.Array) -> list[Any]:
    """Python's values: what its moments have no digits for is left out of them; one beyond its years is text."""
    coarse = _as(column, _microseconds)
    try:
        return list(coarse.to_pylist())
    except (ValueError, OverflowError):  # some moment of it is none in Python
        texts = _as(column, _text)
        return [_told(one, texts[n]) for n, one in enumerate(coarse)]


def _told(value: pa.Scalar, text: pa.Scalar) -> Any:
    try:
        return value.as_py()
    except (ValueError, OverflowError):
        return text.as_py()


def _as(column: pa.Array, leaf: Callable[[pa.DataType], pa.DataType]) -> pa.Array:
    kind = _with(column.type, leaf)
    return column if kind.equals(column.type) else column.cast(kind, safe=False)


def _with(kind: pa.DataType, leaf: Callable[[pa.DataType], pa.DataType]) -> pa.DataType:
    """A type with its moments, wherever they stand in it, as another type."""
    told = pa.types
    if told.is_struct(kind):
        return pa.struct([one.with_type(_with(one.type, leaf)) for one in kind])
    if told.is_map(kind):
        return pa.map_(_with(kind.key_type, leaf), _with(kind.item_type, leaf))
    if told.is_list(kind) or told.is_fixed_size_list(kind):
        return pa.list_(kind.value_field.with_type(_with(kind.value_type, leaf)))
    return leaf(kind)


def _microseconds(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        return pa.timestamp("us", kind.tz)
    return pa.time64("us") if pa.types.is_time64(kind) else kind


def _text(kind: pa.DataType) -> pa.DataType:
    moment = pa.types.is_date(kind) or pa.types.is_time(kind) or pa.types.is_timestamp(kind)
    return pa.string() if moment else kind


def _reference(permit: Permit, vault: Vault, question: Question) -> str:
    """The same statement has the same name, which tells nothing of it: its text can hold values of patients."""
    try:
        text = question.statement.encode()
    except UnicodeEncodeError:
        raise Invalid("lake.sql", "The statement is not Unicode text.") from None
    return f"statement:{vault.keyring.referrer(permit, 'statement')(text).hex()}"
