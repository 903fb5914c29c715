"""Order and pages: every match once, in the order asked for, whatever others write meanwhile."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.store.search_oracle import World, hospital

from carelake.core.errors import Invalid
from carelake.fhir.query import parse


@pytest.fixture
def filled(record: Any) -> tuple[Any, World]:
    resources = hospital(6)
    record.keep(*resources)
    return record, World(resources)


_many = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
_ROWS = {
    "date": "dates",
    "value-quantity": "quantities",
    "status": "tokens",
    "code": "tokens",
    "subject": "references",
}
keys = st.lists(
    st.tuples(st.sampled_from([*_ROWS, "_id", "_lastUpdated"]), st.booleans()),
    max_size=3,
    unique_by=lambda key: key[0],
)
limits = st.sampled_from([[], [("code", "a")], [("subject:missing", "false")], [("status:not", "final")]])


def value(world: World, key: tuple[str, str], code: str, *, down: bool) -> Any:
    """What a resource is sorted by: the first of its values, in the order; None for none."""
    if code == "_id":
        return (key[1],)
    if code == "_lastUpdated":
        return (0,)
    from carelake.fhir.search import parameters

    names = {use.source.name for use in parameters(key[0])[code].uses}
    rows = [row[1:] for row in getattr(world.values[key], _ROWS[code]) if row[0] in names]
    order = {"tokens": lambda row: (row[1], row[0]), "references": lambda row: (row[1] or row[2], row[0])}
    found = sorted((order.get(_ROWS[code], tuple)(row) for row in rows), reverse=down)
    if not found:
        return None
    # Of one code in several systems, which comes first is a matter of symbols, which the oracle does not know.
    several = {row[1] for row in found if row[0] == found[0][0]} if _ROWS[code] == "tokens" else set()
    return (found[0][0], object()) if len(several) > 1 else found[0]


def pages(record: Any, text: Any, count: int) -> list[str]:
    found: list[str] = []
    page = ""
    while True:
        result = record.resources.search(record.permit, text(count), page)
        found += [one["id"] for one in result.matches]
        page = result.next
        if not page:
            return found
        assert len(result.matches) == count


@given(order=keys, said=limits, count=st.integers(1, 9))
@_many
def test_pages_give_each_match_once_in_order(
    filled: Any, planned: str, order: list[tuple[str, bool]], said: list[tuple[str, str]], count: int
) -> None:
    record, world = filled
    sort = [("_sort", ",".join(("-" if down else "") + code for code, down in order))] if order else []

    def query(size: int) -> Any:
        return parse("Observation", [*said, *sort, ("_count", str(size))])

    wanted = {key for _, key in world.matches(query(1))}
    whole = pages(record, query, 1000)
    assert len(whole) == len(wanted)
    assert set(whole) == wanted
    paged = pages(record, query, count)
    # Without an order asked for it is ours, which may be another one for pages of another size.
    assert paged == whole if order else sorted(paged) == sorted(whole)
    for before, after in itertools.pairwise(whole):
        for code, down in order:
            one, other = (value(world, ("Observation", key), code, down=down) for key in (before, after))
            if one is None or other is None or one[0] != other[0]:
                assert one == other or other is None or (one is not None and (one[0] > other[0]) == down)
            if one != other:
                break  # rows of one code in several systems are in an order of their own


@pytest.mark.parametrize("sort", ["_id", "-_id", "_lastUpdated,-_id", "-_lastUpdated"])
def test_several_types_are_merged(filled: Any, planned: str, sort: str) -> None:
    record, world = filled

    def query(size: int) -> Any:
        return parse(["Patient", "Encounter", "Organization"], [("_sort", sort), ("_count", str(size))])

    whole = pages(record, query, 1000)
    assert len(whole) == len(world.matches(query(1)))
    assert pages(record, query, 3) == whole
    if sort == "_id":
        assert whole == sorted(whole)


@pytest.mark.parametrize(
    "sort", ["", "&_sort=-birthdate", "&_sort=gender,-family", "&_sort=-_lastUpdated", "&_sort=_id"]
)
def test_what_changes_meanwhile_skips_nothing(filled: Any, planned: str, sort: str) -> None:
    """The last match of a page is changed, deleted, and new ones come: each match that stays is seen."""
    record, _ = filled
    first = record.search(f"Patient?_count=2{sort}")
    record.clock.move(minutes=1)
    changed, gone = (one["id"] for one in first.matches)
    record.keep({**next(one for one in first.matches if one["id"] == changed), "active": True})
    with record.vault.database.transaction(record.permit) as tx:
        record.resources.delete(record.permit, tx, "Patient", gone)
    record.keep({"resourceType": "Patient", "id": "new"})
    rest: list[str] = []
    page = first.next
    while page:
        result = record.search(f"Patient?_count=1{sort}", page)
        rest += [one["id"] for one in result.matches]
        page = result.next
    assert set("1234") - {changed, gone} <= set(rest)
    assert gone not in rest
    assert len(rest) == len(set(rest))


steps = st.lists(
    st.tuples(st.sampled_from(["new", "touch", "delete", "none"]), st.integers(0, 19)), min_size=4, max_size=20
)


@given(
    steps=steps, count=st.integers(1, 6), sort=st.sampled_from(["", "birthdate", "-birthdate", "gender,-birthdate"])
)
@settings(_many, max_examples=15)
def test_writes_between_pages(record: Any, planned: str, steps: list[tuple[str, int]], count: int, sort: str) -> None:
    """What nobody writes is seen once; what is written without change of its keys is not missed."""

    def person(n: int, **other: Any) -> dict[str, Any]:
        years = {"birthDate": f"19{80 + n % 4}"} if n % 5 else {}
        return {"resourceType": "Patient", "id": f"p{n}", "gender": ["male", "female"][n % 2], **years, **other}

    with record.vault.database.transaction(record.permit) as tx:
        for one in record.resources.search(record.permit, parse("Patient", [("_count", "1000")])).matches:
            record.resources.delete(record.permit, tx, "Patient", one["id"])
    record.keep(*map(person, range(20)))
    query = parse("Patient", [("_count", str(count)), *([("_sort", sort)] if sort else [])])
    seen: list[str] = []
    written, gone, page = set(), set(), ""
    todo = list(enumerate(steps))
    while True:
        result = record.resources.search(record.permit, query, page)
        seen += [one["id"] for one in result.matches]
        page = result.next
        if not page:
            break
        if todo:
            turn, (what, n) = todo.pop()
            if what == "new":
                record.keep(person(100 + turn))
            elif what == "touch" and f"p{n}" not in gone:
                record.keep(person(n, active=bool(turn % 2), language=str(turn)))
                written.add(f"p{n}")
            elif what == "delete" and f"p{n}" not in gone:
                with record.vault.database.transaction(record.permit) as tx:
                    record.resources.delete(record.permit, tx, "Patient", f"p{n}")
                gone.add(f"p{n}")
    for n in range(20):
        key = f"p{n}"
        if key not in written and key not in gone:
            assert seen.count(key) == 1, key
        elif key not in gone:
            assert key in seen, key


def test_tokens_are_sealed_and_of_one_search(filled: Any) -> None:
    record, _ = filled
    first = record.search("Patient?_sort=family&_count=1")
    assert "smith" not in first.next.lower()
    again = record.search("Patient?_sort=family&_count=1")
    assert again.next != first.next
    one = record.search("Patient?_sort=family&_count=2", first.next)
    assert [each["id"] for each in one.matches] == [
        each["id"] for each in record.search("Patient?_sort=family&_count=3").matches
    ][1:]
    for text in ("Patient?_sort=-family", "Patient?_sort=family&gender=male", "Practitioner?_sort=family", "Patient"):
        with pytest.raises(Invalid, match="not a page"):
            record.search(text, first.next)
    other = record.permit_for(*record.permit.grants, account="research")
    with pytest.raises(Invalid, match="not a page"):
        record.search("Patient?_sort=family&_count=1", first.next, permit=other)
    for bad in ("x", "-1", "9" * 40, "ä", first.next[:-2], "A" + first.next[1:], "a" * 100_000):
        with pytest.raises(Invalid, match="not a page"):
            record.search("Patient?_sort=family&_count=1", bad)


def test_totals(filled: Any) -> None:
    record, _ = filled
    assert record.search("Observation?_count=20").total is None
    assert record.search("Observation?_count=20&_total=accurate").total == 60
    assert record.search("Observation?_count=20&_total=estimate").total == 60
    assert record.search("Observation?_total=none&_count=100").total is None
    assert record.search("Observation?_count=100").total == 60
    counted = record.search("Observation?_summary=count")
    assert (counted.total, counted.matches) == (60, [])
    first = record.search("Observation?_count=50")
    assert record.search("Observation?_count=50", first.next).total is None
    assert record.search("Device").total == 0
