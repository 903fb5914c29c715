"""The editor: one SELECT, its rows, a chart of them, and files of either."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from starlette.responses import Response

from carelake.apps import asking
from carelake.apps.asking import values_of
from carelake.apps.errors import message_of
from carelake.apps.http.calls import Call
from carelake.apps.http.console import charts, pages
from carelake.apps.http.console.charts import Chart
from carelake.apps.http.console.turns import turn
from carelake.apps.http.console.visits import visit
from carelake.apps.http.sql.forms import apart
from carelake.core.errors import CarelakeError, Invalid, Unavailable
from carelake.core.permit import Permit
from carelake.lake import asof
from carelake.lake.statements.cursor import Answer, Stop
from carelake.lake.statements.questions import Question, Questions
from carelake.lake.views.formats import write

__all__ = ["answer", "asked_of", "edit", "export", "kept"]

_SHOWN = 200
_DIGITS = 5
"""Of the number of a page."""
_FILES = {
    "csv": "text/csv; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
    "png": "image/png",
}
_FORMULA = (r"^([=+\-@\t\r\n])", r"'\1")
"""How a text begins that is a formula to a spreadsheet, and what it is replaced by."""
_CHART = ("kind", "x", "y", "by")
_FIELDS = ("statement", "as_of", "kind", "x", "y", "by", "page", "name", "id", "format")


@dataclass(frozen=True)
class Asked:
    """The form.

    Attributes:
        id: of the saved question that it came from, "".
    """

    statement: str = ""
    as_of: str = ""
    kind: str = ""
    x: str = ""
    y: str = ""
    by: str = ""
    page: int = 1
    name: str = ""
    id: str = ""
    format: str = ""

    @property
    def chart(self) -> Chart | None:
        return Chart(self.kind, self.x, self.y, self.by) if self.kind else None


@visit
def edit(call: Call) -> Response:
    """An empty editor, one with a saved question (``id``), or one that begins with a table (``of``)."""
    call.only("id", "of")
    with call.enter("lake:query", "lake") as permit:
        asked = Asked()
        if name := call.one("id"):
            found = Questions(call.door.vault).get(permit, name)
            drawn: dict[str, Any] = {one: found.chart.get(one, "") for one in _CHART}
            asked = replace(Asked(found.statement, name=found.name, id=name), **drawn)
        elif (table := call.one("of")) and table.isidentifier():
            asked = Asked(f'SELECT *\nFROM "{table}"\nLIMIT 100')
    return pages.render("editor.html", kinds=charts.KINDS, asked=asked, result=None)


@visit
def answer(call: Call) -> Response:
    """Run what the form says; a statement that fails is shown again with what is wrong."""
    asked = asked_of(call)
    try:
        with turn(call):
            told, head = _shown(call, asked)
            picture, wrong = _drawn(asked, head)
    except (Invalid, Unavailable) as error:
        return pages.render(
            "editor.html", status=422, kinds=charts.KINDS, asked=asked, result=None, wrong=message_of(error)
        )
    return pages.render(
        "editor.html", kinds=charts.KINDS, asked=asked, result=told, picture=picture, no_picture=wrong
    )


def _shown(call: Call, asked: Asked) -> tuple[dict[str, Any], pa.Table]:
    """What the page says, and the first rows, for a chart; of all the others none is held, they are counted."""
    first = (asked.page - 1) * _SHOWN
    rows: list[tuple[Any, ...]] = []
    head: list[pa.RecordBatch] = []
    with _asked(call, asked, "lake:query") as (answer, snapshot):
        wanted = [n for n, name in enumerate(answer.schema.names) if name in (asked.x, asked.y, asked.by)]
        for batch in answer:
            before = answer.rows - batch.num_rows
            if asked.chart is not None and before <= charts.MOST_POINTS:
                head.append(batch.select(wanted))
            if before < first + _SHOWN and answer.rows > first:
                begin = max(first - before, 0)
                rows += values_of(batch.slice(begin, first + _SHOWN - before - begin))
    told = {
        "columns": answer.schema.names,
        "rows": rows,
        "count": answer.rows,
        "first": first,
        "pages": -(-answer.rows // _SHOWN),
        "snapshot": snapshot,
    }
    return told, pa.Table.from_batches(head, pa.schema([answer.schema.field(n) for n in wanted]))


def _drawn(asked: Asked, head: pa.Table) -> tuple[str, str]:
    """The chart, or what is wrong with it."""
    if asked.chart is None:
        return "", ""
    try:
        return pages.picture(charts.draw(head, asked.chart)), ""
    except CarelakeError as error:
        return "", message_of(error)


@visit
def export(call: Call) -> Response:
    """The rows as CSV or Parquet, or the chart as PNG."""
    asked = asked_of(call)
    if asked.format not in _FILES:
        raise Invalid("http.format", f"A file is one of {', '.join(_FILES)}.")
    with turn(call):
        with _asked(call, asked, "lake:export") as (answer, _):
            found = pa.Table.from_batches(answer, answer.schema)
        data = _file(found, asked)
    told = {"Content-Disposition": f'attachment; filename="carelake.{asked.format}"'}
    return Response(data, 200, told, _FILES[asked.format])


def _file(found: pa.Table, asked: Asked) -> bytes:
    if asked.format == "png":
        if asked.chart is None:
            raise Invalid("http.chart", "Choose a chart first.")
        return charts.draw(found, asked.chart, "png")
    if asked.format == "csv":
        found = _unarmed(found)
    made = io.BytesIO()
    try:
        write(found.rename_columns(apart(found.column_names)), asked.format, made)
    except (ValueError, OverflowError, pa.ArrowException):
        message = "The result has a value that such a file cannot hold; cast it to text, or take another form."
        raise Invalid("http.format", message) from None
    return made.getvalue()


def _unarmed(found: pa.Table) -> pa.Table:
    """With an apostrophe before each text that a spreadsheet would take for a formula: this file is made for one.

    https://owasp.org/www-community/attacks/CSV_Injection
    """
    columns = []
    for column in found.columns:
        kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        columns.append(pc.replace_substring_regex(column.cast(kind), *_FORMULA) if text else column)
    names = pc.replace_substring_regex(pa.array(found.column_names, pa.string()), *_FORMULA).to_pylist()
    return pa.table(columns, names=names)


def asked_of(call: Call) -> Asked:
    """The form; raises Invalid for what it cannot hold."""
    call.only(*_FIELDS)
    said: dict[str, Any] = {name: (call.one(name) or "").strip() for name in _FIELDS}
    page = said.pop("page") or "1"
    if not (page.isdecimal() and len(page) <= _DIGITS and int(page)):
        raise Invalid("http.page", "A page is a number from 1.")
    return replace(Asked(page=int(page)), **said)


@contextmanager
def _asked(call: Call, asked: Asked, action: str) -> Iterator[tuple[Answer, str]]:
    """The rows of what was asked, to be read inside the block, and the snapshot's ref."""
    if not asked.statement:
        raise Invalid("lake.sql", "Expected one SELECT.")
    with call.enter(action, "lake") as permit:
        snapshot = _snapshot(call, permit, asked)
        question = asking.Question(statement=asked.statement, as_of=snapshot)
        with asking.answered(call.door, permit, question, _while_waited_for(call)) as answer:
            yield answer, snapshot


def _while_waited_for(call: Call) -> Stop:
    """Ends a statement when the server has given up waiting for the page, so that its thread is free again."""
    until = monotonic() + call.door.settings.serve.answer_seconds
    return Stop(lambda: monotonic() >= until)


def _snapshot(call: Call, permit: Permit, asked: Asked) -> str:
    return asof.as_of(permit, call.door.vault, call.door.nouns, asked.as_of or None).ref


def kept(asked: Asked) -> Question:
    """The form as a question to save."""
    return Question(asked.name, asked.statement, asked.chart.as_json() if asked.chart else {})
