"""Small writes that are committed together: each is whole or not at all by itself, and none is before the commit."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection

from carelake.core.errors import Conflict, Invalid, Unavailable


def together(record: Any, *works: Callable[[Connection], Any]) -> list[Any]:
    """Answers or errors of works that were all waiting when a group began."""
    database = record.vault.database
    found: list[Any] = [None] * len(works)
    begun, waiting = threading.Event(), threading.Event()

    def hold(tx: Connection) -> None:
        begun.set()
        assert waiting.wait(20)

    def run(number: int) -> None:
        try:
            found[number] = database.grouped(record.permit, works[number])
        except BaseException as error:
            found[number] = error

    first = threading.Thread(target=lambda: database.grouped(record.permit, hold))
    first.start()
    assert begun.wait(20)
    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(works))]
    for number, thread in enumerate(threads, 1):
        thread.start()
        while len(database._groups._queue) < number:
            pass
    before = database._groups.groups
    waiting.set()
    for thread in (first, *threads):
        thread.join(20)
    assert database._groups.groups == before + 2
    return found


def patient(key: str, **more: Any) -> dict[str, Any]:
    return {"resourceType": "Patient", "id": key, **more}


def test_each_is_whole_or_not_at_all(record_on_each: Any) -> None:
    record = record_on_each
    put = record.resources.update

    def fails(tx: Connection) -> None:
        # A patient's key, symbols of a type and of a system, rows of every table: all are undone.
        put(record.permit, tx, patient("gone", identifier=[{"system": "urn:new", "value": "1"}]))
        put(record.permit, tx, {"resourceType": "Basic", "id": "gone", "code": {"text": "x"}})
        raise Invalid("test.fails", "It fails.")

    kept, failed, later = together(
        record,
        lambda tx: put(record.permit, tx, patient("a")),
        fails,
        lambda tx: put(record.permit, tx, patient("b", identifier=[{"system": "urn:new", "value": "2"}])),
    )
    assert (kept.version, later.version) == (1, 1)
    assert isinstance(failed, Invalid)
    assert sorted(one.id for one in record.resources.history(record.permit).versions) == ["a", "b"]
    assert record.ids("Patient?identifier=urn:new|2") == ["b"]
    assert record.ids("Patient?identifier=urn:new|1") == []
    # What was made in the part that was undone is made anew, and is not remembered.
    with record.vault.database.transaction(record.permit) as tx:
        put(record.permit, tx, {"resourceType": "Basic", "id": "now", "code": {"text": "x"}})
        put(record.permit, tx, patient("gone", identifier=[{"system": "urn:new", "value": "1"}]))
    assert record.ids("Patient?identifier=urn:new|1") == ["gone"]
    assert record.resources.read(record.permit, "Patient", "gone")
    assert record.ids("Basic") == ["now"]
    assert record.resources.verify_index(record.permit).differences == []


def test_each_sees_what_was_done_before_it(record: Any) -> None:
    put = record.resources.update
    record.keep(patient("a"))
    one, other, third = together(
        record,
        lambda tx: put(record.permit, tx, patient("a", active=True), expected=1),
        lambda tx: put(record.permit, tx, patient("a", active=False), expected=1),
        lambda tx: put(record.permit, tx, patient("a", gender="male"), expected=2),
    )
    assert (one.version, third.version) == (2, 3)
    assert isinstance(other, Conflict)


def test_hooks_of_what_was_undone_are_not_called(record: Any) -> None:
    from carelake.vault.database import scope_of

    called: list[str] = []

    def work(name: str, fails: bool) -> Callable[[Connection], None]:
        def done(tx: Connection) -> None:
            scope_of(tx).after.append(lambda: called.append(f"after {name}"))
            scope_of(tx).undo.append(lambda: called.append(f"undo {name}"))
            if fails:
                raise Invalid("test.fails", "It fails.")

        return done

    together(record, work("a", False), work("b", True), work("c", False))
    assert called == ["undo b", "after a", "after c"]


def test_a_commit_that_fails_fails_all(record: Any) -> None:
    put = record.resources.update

    def breaks(tx: Connection) -> None:
        driver: Any = tx.connection.driver_connection
        driver.execute("ROLLBACK").close()  # as SQLite does when the disk is full

    kept, broken, later = together(
        record,
        lambda tx: put(record.permit, tx, patient("a")),
        breaks,
        lambda tx: put(record.permit, tx, patient("b")),
    )
    assert all(isinstance(one, Exception) for one in (kept, broken, later))
    # The one whose thread did the work has the error as it was.
    assert [one.code for one in (kept, broken, later) if isinstance(one, Unavailable)] == ["vault.not_committed"] * 2
    assert record.resources.history(record.permit).versions == ()
    assert record.vault.database.grouped(record.permit, lambda tx: put(record.permit, tx, patient("a"))).version == 1


def test_one_cannot_be_begun_inside_of_another(record: Any) -> None:
    def nested(tx: Connection) -> None:
        record.vault.database.grouped(record.permit, lambda tx: None)

    with pytest.raises(Conflict, match="wait for itself"):
        record.vault.database.grouped(record.permit, nested)
    with record.vault.database.transaction(record.permit), pytest.raises(Conflict):
        record.vault.database.grouped(record.permit, lambda tx: None)
