"""Work that needs one patient's rows at a time, done by shards of patients, in as many processes as there are.

This process holds the permit: it reads a shard's rows, as far as the permit shows them, and hands them over a pipe;
a worker holds neither keys nor a permit and computes (decision D2). What comes of a shard depends on its rows alone,
so it is the same whatever the number of workers. As many shards are in memory as there are workers, and the one that
is being read.
"""

from __future__ import annotations

import importlib
import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from multiprocessing import connection as pipes
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple, cast

import msgspec
import pyarrow as pa

from carelake.core import canonical, errors
from carelake.core.errors import CarelakeError, Invalid, Unavailable
from carelake.core.nouns import Noun
from carelake.core.permit import Permit
from carelake.core.settings import LakeSettings
from carelake.lake.current import NOBODY
from carelake.lake.iceberg.layout import numbers
from carelake.lake.query import current
from carelake.lake.views.build import build
from carelake.lake.views.definition import read
from carelake.lake.views.execute import deepening, on_duckdb
from carelake.lake.views.formats import FORMATS
from carelake.lake.views.tables import named, of_lake, read_columns, result_schema
from carelake.vault.workspace import Vault

__all__ = ["ROWS", "Made", "Shard", "run", "shards", "view_shards"]

ROWS = 50_000
"""Of one shard, about; a patient's rows stay together."""
_PACKAGE = "carelake."
Whose = str | frozenset[str]
Work = Callable[[pa.Table, Mapping[str, Any]], bytes]


class Shard(NamedTuple):
    """Rows of some patients, or of nobody.

    Attributes:
        key: its number, as text. patients: ids, or `current.NOBODY`.
    """

    key: str
    patients: Whose


class Made(NamedTuple):
    """What came of a shard."""

    key: str
    rows: int
    data: bytes


def shards(permit: Permit, vault: Vault, snapshot: Noun, kind: str, *, rows: int = ROWS) -> list[Shard]:
    """The shards of a type's rows as of a snapshot: along the buckets of its files, about ``rows`` at most each."""
    found = current(permit, vault, snapshot, kind, columns=["patient"])
    if found is None or not len(found):
        return []
    counted = found.group_by("patient").aggregate([([], "count_all")])
    ids = counted.column("patient")
    keyed = pa.table(
        {"bucket": numbers(ids.cast(pa.string()), vault.settings.lake.buckets), "id": ids, "n": counted.column(1)}
    )
    made: list[Whose] = []
    held: set[str] = set()
    count, at = 0, None
    for row in keyed.sort_by([("bucket", "ascending"), ("id", "ascending")]).to_pylist():
        if row["id"] is None:
            continue
        # Buckets are not cut without need: each shard reads the files of its buckets.
        if held and (count + row["n"] > rows or (row["bucket"] != at and count > rows // 2)):
            made.append(frozenset(held))
            held, count = set(), 0
        held.add(row["id"])
        count, at = count + row["n"], row["bucket"]
    made += [frozenset(held)] if held else []
    made += [NOBODY] if ids.null_count else []
    return [Shard(f"{n:05d}", one) for n, one in enumerate(made, 1)]


def run(
    work: str,
    said: Mapping[str, Any],
    wanted: Iterable[Shard],
    rows_of: Callable[[Shard], pa.Table],
    *,
    workers: int = 1,
) -> Iterator[Made]:
    """What comes of each shard, as it is done, in any order.

    Args:
        work: ``MODULE:FUNCTION`` in this package, of a table and of ``said``; it gives bytes, and the same ones for
            the same arguments.
        said: plain JSON.
        rows_of: reads a shard; called here, one at a time, when a worker is free.
        workers: processes; with 1 all is done in this one.

    Raises:
        Invalid: ``lake.workers``. Unavailable: ``lake.worker_died``. What the work raises, if it is of `core.errors`.
    """
    if not 1 <= workers <= 64:
        raise Invalid("lake.workers", "Expected 1 to 64 workers.")
    if workers == 1:
        function = _function(work)
        for shard in wanted:
            table = rows_of(shard)
            yield Made(shard.key, len(table), function(table, said))
        return
    crew = _Crew(work, said, workers)
    try:
        yield from crew.run(wanted, rows_of)
    finally:
        crew.close()


class _Crew:
    def __init__(self, work: str, said: Mapping[str, Any], workers: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._idle: list[Connection] = []
        self._busy: dict[Connection, tuple[str, int]] = {}
        self._processes: list[BaseProcess] = []
        for number in range(workers):
            ours, theirs = context.Pipe(duplex=True)
            made = context.Process(
                target=_serve, args=(theirs, work, canonical.dump(said)), name=f"carelake-shard-{number}", daemon=True
            )
            made.start()
            theirs.close()  # or the end of the process would not close the pipe
            self._processes.append(made)
            self._idle.append(ours)

    def run(self, wanted: Iterable[Shard], rows_of: Callable[[Shard], pa.Table]) -> Iterator[Made]:
        """See `run`."""
        for shard in wanted:
            while not self._idle:
                yield from self._done()
            table = rows_of(shard)
            worker = self._idle.pop(0)
            self._busy[worker] = (shard.key, len(table))
            try:
                worker.send_bytes(memoryview(_packed(table)))
            except OSError:
                raise _died() from None
            del table
        while self._busy:
            yield from self._done()

    def _done(self) -> Iterator[Made]:
        """What is done now; waits for one."""
        for one in pipes.wait(list(self._busy)):
            worker = cast("Connection", one)
            key, rows = self._busy.pop(worker)
            try:
                answer = worker.recv_bytes()
            except (EOFError, OSError):
                raise _died() from None
            self._idle.append(worker)
            if answer[:1] != b"+":
                raise _raised(answer[1:])
            yield Made(key, rows, answer[1:])

    def close(self) -> None:
        """End all processes: closing the pipe is their signal; one that does not listen is stopped."""
        for worker in (*self._idle, *self._busy):
            worker.close()
        for process in self._processes:
            process.join(2.0)
            if process.is_alive():
                process.kill()
                process.join()
            process.close()


def _packed(table: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue()


def _serve(connection: Connection, work: str, said: bytes) -> None:
    """A worker: tables in, bytes out, until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the group; the parent decides
    function, told = _function(work), canonical.load(said)
    while True:
        try:
            data = connection.recv_bytes()
        except (EOFError, OSError):
            return
        with pa.ipc.open_stream(pa.py_buffer(data)) as stream:
            table = stream.read_all()
        try:
            answer = b"+" + function(table, told)
        except CarelakeError as error:
            answer = b"-" + msgspec.json.encode([type(error).__name__, error.code, error.message])
        connection.send_bytes(answer)


def _function(work: str) -> Work:
    module, _, name = work.partition(":")
    if not module.startswith(_PACKAGE):
        raise Invalid("lake.work", "Work is a function of this package, named MODULE:FUNCTION.")
    return cast("Work", getattr(importlib.import_module(module), name))


def _raised(told: bytes) -> CarelakeError:
    kind, code, message = msgspec.json.decode(told, type=tuple[str, str, str])
    found = getattr(errors, kind, Invalid)
    return cast("CarelakeError", found(code, message))


def _died() -> Unavailable:
    return Unavailable(
        "lake.worker_died",
        "A worker ended before its shard was done (out of memory, or killed); run the same command again to go on, "
        "with fewer workers if memory is short.",
    )


# --- views ---


def view_shards(
    permit: Permit,
    vault: Vault,
    snapshot: Noun,
    view: Mapping[str, Any],
    form: str,
    *,
    workers: int = 1,
    rows: int = ROWS,
    done: Callable[[str], bool] = lambda key: False,
) -> Iterator[Made]:
    """A view's rows by shards of patients, each written in a format (`formats.FORMATS`).

    Args:
        done: whether a shard is to be left out, by its key.

    Raises:
        As `over.over` and `run`.
    """
    definition = read(view)
    columns = read_columns(build(definition))

    def rows_of(shard: Shard) -> pa.Table:
        table = current(
            permit, vault, snapshot, definition.resource, columns=[*columns, "id"], patient=shard.patients
        )
        assert table is not None  # or it had no shards
        return table

    limits = vault.settings.lake
    said = {"view": view, "form": form, "seconds": str(limits.seconds), "result_bytes": limits.result_bytes}
    wanted = [one for one in shards(permit, vault, snapshot, definition.resource, rows=rows) if not done(one.key)]
    return run("carelake.lake.engines.sharded:view_part", said, wanted, rows_of, workers=workers)


def view_part(table: pa.Table, said: Mapping[str, Any]) -> bytes:
    """The rows of a view over a shard, written in a format; one thread, so that their order is always the same."""
    limits = LakeSettings(threads=1, seconds=float(said["seconds"]), result_bytes=said["result_bytes"])
    made = deepening(
        read(said["view"]),
        lambda plan: (
            named(plan, on_duckdb(plan, of_lake(plan, table), limits=limits))
            if len(table)
            else result_schema(plan).empty_table()
        ),
    )
    return b"".join(FORMATS[said["form"]](made, True))
