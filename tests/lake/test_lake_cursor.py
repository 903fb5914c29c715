"""A user's statement that runs: what is bound, where it ends, and who ends it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from typing import Any
from uuid import UUID

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carelake.audit.nouns import Nouns
from carelake.core.clock import FixedClock
from carelake.core.errors import CarelakeError, Conflict, Invalid, Refused
from carelake.core.nouns import Noun
from carelake.core.permit import Permit
from carelake.lake import query
from carelake.lake.engines.engine import connect
from carelake.lake.following import sync
from carelake.lake.statements.cursor import Stop, running
from carelake.vault.workspace import Vault

ENDLESS = "SELECT count(*) FROM range(1000000000000) WHERE sin(range) > 2"


@pytest.fixture
def snapshot(vault: Vault, permit: Permit, nouns: Nouns, feed: Any) -> Noun:
    for number in range(3):
        feed.put({"resourceType": "Patient", "id": f"p{number}", "gender": "female"}, owner=f"p{number}")
    sync.sync(permit, vault, feed, nouns)
    return query.snapshot_of(permit, vault, nouns)


@pytest.fixture
def ask(vault: Vault, permit: Permit, snapshot: Noun) -> Callable[..., list[dict[str, Any]]]:
    def asked(text: str, *parameters: Any, **more: Any) -> list[dict[str, Any]]:
        with running(permit, vault, snapshot, text, *parameters, **more) as answer:
            return pa.Table.from_batches(answer, answer.schema).to_pylist()

    return asked


def test_values_of_every_plain_kind_are_bound(ask: Callable[..., list[dict[str, Any]]]) -> None:
    values = [None, True, 7, 1.5, Decimal("1.10"), "x", b"x", date(2020, 1, 2), ["a", None], [], UUID(int=5)]
    (row,) = ask(f"SELECT {', '.join('?' * len(values))}", values)
    assert list(row.values())[:-1] == values[:-1]
    assert ask("SELECT id FROM Patient WHERE id = $who AND gender = $sex", {"who": "p1", "sex": "female"}) == [
        {"id": "p1"}
    ]
    assert ask("SELECT count(*) AS n FROM Patient WHERE id IN (SELECT unnest(?))", [["p1", "p2", "x"]]) == [{"n": 2}]


def test_any_text_comes_back_as_it_is() -> None:
    with connect() as connection:

        @settings(max_examples=60, deadline=None)
        @given(st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30))
        def check(text: str) -> None:
            said = connection.sql("SELECT $v AS v, count(*) AS n FROM range(1) WHERE $v = $v", params={"v": text})
            assert said.fetchall() == [(text, 1)]

        check()


def test_a_limit_ends_it_and_says_so(vault: Vault, permit: Permit, snapshot: Noun) -> None:
    for rows, limit, wanted, more in ((10, 4, 4, True), (10, 10, 10, False), (10, 0, 0, True), (0, 0, 0, False)):
        text = f"SELECT range FROM range({rows})"
        with running(permit, vault, snapshot, text, limit=limit, batch_rows=2) as answer:
            assert sum(len(one) for one in answer) == answer.rows == wanted
            assert answer.more is more
    with pytest.raises(Invalid, match="limit"), running(permit, vault, snapshot, "SELECT 1", limit=-1):
        pass


def test_it_is_run_for_when_it_is_read(vault: Vault, permit: Permit, snapshot: Noun) -> None:
    """The first batch of what would never end is there; leaving ends it."""
    with running(permit, vault, snapshot, "SELECT range AS n FROM range(1000000000000)") as answer:
        assert next(answer).column("n").to_pylist()[:2] == [0, 1]
    assert not [one for one in threading.enumerate() if one.name == "carelake-lake-stop"]


def test_it_ends_with_its_permit(
    vault: Vault, permit_for: Callable[..., Permit], snapshot: Noun, clock: FixedClock
) -> None:
    permit = permit_for("lake:read", "rows:read")
    with running(permit, vault, snapshot, "SELECT range FROM range(100000)") as answer:
        next(answer)
        clock.move(hours=2)
        with pytest.raises(Refused) as found:
            next(answer)
    assert found.value.code == "permit.expired"


@pytest.mark.parametrize("when", ["before", "planned", "between"])
def test_it_is_cancelled_wherever_it_stands(vault: Vault, permit: Permit, snapshot: Noun, when: str) -> None:
    stop = Stop()
    if when == "before":
        stop.cancel()
    if when == "planned":
        threading.Timer(0.2, stop.cancel).start()
    text = ENDLESS if when == "planned" else "SELECT range FROM range(1000000000)"

    def read() -> None:
        with running(permit, vault, snapshot, text, stop=stop) as answer:
            next(answer)
            stop.cancel()
            list(answer)

    with pytest.raises(Conflict) as found:
        read()
    assert found.value.code == "lake.cancelled"
    assert stop.asked


def test_it_ends_when_nobody_waits(vault: Vault, permit: Permit, snapshot: Noun) -> None:
    gone = threading.Event()
    threading.Timer(0.2, gone.set).start()
    with (
        pytest.raises(CarelakeError) as found,
        running(permit, vault, snapshot, ENDLESS, stop=Stop(gone.is_set)) as answer,
    ):
        next(answer)
    assert found.value.code == "lake.cancelled"
