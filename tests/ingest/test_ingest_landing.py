"""Landings: once for each content, resumed where they stopped, read again under other rules."""

from __future__ import annotations

import gzip
from typing import Any

import pytest

from carelake.core.errors import Conflict


def many(patient: Any, count: int) -> str:
    return "".join(patient(f"p{i}") + "\n" for i in range(count))


def objects(bench: Any) -> list[Any]:
    return list(bench.vault.objects.list(bench.permit, "landing"))


def test_the_same_content_is_read_once(bench: Any, patient: Any) -> None:
    text = many(patient, 3) + "bad\n"
    first = bench.read(bench.file("a.ndjson", text))
    assert (len(first.parsed), len(first.rejected), first.already) == (3, 1, 0)
    for name, content in (("a.ndjson", text), ("b.json", text), ("c.gz", gzip.compress(text.encode()))):
        again = bench.read(bench.file(name, content))
        assert (again.parsed, again.rejected, again.already) == ([], [], 4)
    assert len(objects(bench)) == 1
    assert len(bench.quarantine()) == 1


def test_the_same_content_twice_in_one_run(bench: Any, patient: Any) -> None:
    text = many(patient, 5)
    told = bench.read(bench.file("a.ndjson", text), bench.file("b.ndjson", text), bench.file("c.ndjson", text))
    assert (len(told.parsed), told.already) == (5, 10)


@pytest.mark.parametrize("kind", ["lines", "document"])
def test_a_broken_off_reading_goes_on(bench: Any, patient: Any, bundle: Any, kind: str) -> None:
    count = 6000
    resources = [{"resourceType": "Patient", "id": f"p{i}"} for i in range(count)]
    text = many(patient, count) if kind == "lines" else bundle(*resources)
    path = bench.file("a.json", text)
    first = bench.read(path, stop_after=1)
    assert 0 < len(first.parsed) < count
    second = bench.read(path)
    assert second.already == len(first.parsed)
    assert first.ids + second.ids == [f"Patient/p{i}" for i in range(count)]
    assert [p.position for p in first.parsed + second.parsed] == list(range(count))
    assert [p.line for p in second.parsed][-1] == text.rstrip("\n]}").count("\n") + 1 or kind == "document"
    assert len(objects(bench)) == 1
    assert bench.read(path).already == count


def test_duplicates_are_found_across_a_break(bench: Any, bundle: Any) -> None:
    resources = [{"resourceType": "Patient", "id": f"p{i}"} for i in range(6000)]
    text = bundle(*resources, {"resourceType": "Patient", "id": "p0", "active": True})
    path = bench.file("a.json", text)
    bench.read(path, stop_after=1)
    told = bench.read(path)
    assert [one.code for one in told.rejected] == ["ingest.duplicate_in_bundle"]


def test_other_rules_read_again(bench: Any, patient: Any) -> None:
    text = patient("p1") + "\n" + patient("p2", language="x" * 300) + "\n"
    bench.again(max_line_bytes=100)
    path = bench.file("a.ndjson", text)
    assert bench.read(path).reasons == [(2, "ingest.line_too_long")]
    bench.again()
    told = bench.read(path)
    assert told.already == 0
    assert told.parsed[0].id == "p1"
    assert "ingest.line_too_long" not in {one.code for one in bench.quarantine()}


def test_two_readers_of_one_landing_do_not_both_commit(bench: Any, patient: Any) -> None:
    from carelake.audit.nouns import Nouns
    from carelake.ingest import Reader, expand

    path = bench.file("a.ndjson", many(patient, 3))
    nouns = Nouns(bench.clock)
    with Reader(bench.vault, nouns) as one, Reader(bench.vault, nouns) as other:
        (first,) = one.pages(bench.permit, expand([path]))
        (second,) = other.pages(bench.permit, expand([path]))
        with bench.vault.database.transaction(bench.permit) as tx:
            one.commit(bench.permit, tx, first[0], stored=3, unchanged=0)
        with pytest.raises(Conflict) as caught, bench.vault.database.transaction(bench.permit) as tx:
            other.commit(bench.permit, tx, second[0], stored=3, unchanged=0)
    assert caught.value.code == "ingest.overtaken"


def test_the_noun_is_written_with_the_landing(bench: Any, patient: Any) -> None:
    from carelake.audit.nouns import Nouns

    bench.read(bench.file("Canary.ndjson", many(patient, 2)))
    with bench.vault.database.reading(bench.permit) as tx:
        (noun,) = Nouns(bench.clock).find(tx, "landing", "production")
    assert noun.state == "done"
    assert noun.body["format"] == "lines"
    assert "Canary" not in repr(noun)
    with bench.vault.objects.open(bench.permit, "landing", noun.body["object"]) as stream:
        assert stream.read().startswith(b"{")


@pytest.mark.parametrize("pack", [False, True])
def test_a_file_that_changes_while_it_is_landed(
    bench: Any, patient: Any, pack: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from carelake.ingest import landing

    hashed = landing._digest_of

    def then_changed(source: Any) -> bytes:
        digest = hashed(source)
        path.write_bytes(after)
        return digest

    packed = gzip.compress if pack else bytes
    before, after = (packed(many(patient, count).encode()) for count in (5, 2))
    path = bench.file("a.ndjson", before)
    monkeypatch.setattr(landing, "_digest_of", then_changed)
    assert len(bench.read(path).parsed) == 2
    monkeypatch.undo()
    # Neither content was lost, and neither is read twice.
    again = bench.read(bench.file("a.ndjson", before))
    assert (len(again.parsed), again.already) == (5, 0)
    for content, count in ((before, 5), (after, 2)):
        assert bench.read(bench.file("a.ndjson", content)).already == count


@pytest.mark.parametrize("kind", ["lines", "document"])
def test_refusals_of_earlier_readings_are_told_apart(bench: Any, patient: Any, bundle: Any, kind: str) -> None:
    count = 6000
    resources = [{"resourceType": "Patient", "id": f"p{i}" if i % 5 else "~"} for i in range(count)]
    lines = "\n".join(patient(one["id"]) for one in resources)
    path = bench.file("a.json", lines if kind == "lines" else bundle(*resources))

    def refused() -> tuple[int, int]:
        with Reader(bench.vault, Nouns(bench.clock)) as reader:
            parts = [part for page in reader.pages(bench.permit, expand([path, same])) for part in page]
        return sum(part.already for part in parts), sum(part.refused for part in parts)

    from carelake.audit.nouns import Nouns
    from carelake.ingest import Reader, expand

    same = bench.file("b.json", path.read_bytes())
    first = bench.read(path, stop_after=1)
    done, bad = len(first.parsed) + len(first.rejected), len(first.rejected)
    assert 0 < bad < done < count
    assert refused() == (done + count, bad + count // 5)
    bench.read(path)
    assert refused() == (2 * count, 2 * count // 5)
    assert len(bench.quarantine()) == count // 5


def test_sources_that_cannot_be_read_are_told_once_each(bench: Any, patient: Any) -> None:
    from carelake.audit.nouns import Nouns
    from carelake.ingest import Reader, expand

    paths = [bench.file(f"{i}.json", patient()) for i in range(3)]
    found = expand(paths)
    for path in paths:
        path.unlink()
    with Reader(bench.vault, Nouns(bench.clock)) as reader:
        parts = [part for page in reader.pages(bench.permit, found) for part in page]
    assert [(len(part.rejected), part.already, part.refused) for part in parts] == [(1, 0, 0)] * 3
