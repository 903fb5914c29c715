"""Every official example is found by every search parameter that applies to it: parameter x resource x modifier.

All of them in `make soak`; a seeded sample in `make test`.
"""

from __future__ import annotations

import gzip
import importlib.util
import io
import random
import sys
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from carelake.core.canonical import load
from carelake.core.clock import FixedClock
from carelake.core.errors import CarelakeError
from carelake.core.ids import SequenceIds
from carelake.core.permit import Permit, mint
from carelake.core.settings import Settings
from carelake.fhir.query import parse_text
from carelake.store import Resources
from carelake.store.write import parsed
from carelake.vault.workspace import Vault

_spec = importlib.util.spec_from_file_location("journeys_searching", Path(__file__).with_name("searching.py"))
assert _spec is not None
assert _spec.loader is not None
_searching: Any = importlib.util.module_from_spec(_spec)
sys.modules["journeys_searching"] = _searching
_spec.loader.exec_module(_searching)
asked = _searching.asked

GRANTS = ("clinical:read", "clinical:write", "rows:read", "rows:write")
SAMPLE = 80
Resource = dict[str, Any]


def official(folder: Path) -> Iterator[Resource]:
    with gzip.open(folder / "fhir-r4-examples" / "examples.ndjson.gz") as lines:
        for line in lines:
            yield load(line)


def us_core(folder: Path) -> Iterator[Resource]:
    with tarfile.open(folder / "us-core-6.1.0" / "us_core_610.tgz") as package:
        for member in sorted(package.getnames()):
            if "/example/" in member and member.endswith(".json") and "/." not in member:
                file = package.extractfile(member)
                assert file is not None
                resource = load(io.BytesIO(file.read()).getvalue())
                if "resourceType" in resource:
                    yield resource


class Kept:
    """All examples in one record. The same id in two sources: the later one is what is kept."""

    def __init__(self, vault: Vault, permit: Permit, examples: Iterator[Resource]) -> None:
        self.permit, self.record = permit, Resources(vault)
        self.resources: dict[tuple[str, str], Resource] = {}
        page = []
        for one in examples:
            page.append(parsed(one, "minimal"))  # a few examples break rules that they are to show
            self.resources[(one["resourceType"], page[-1].id)] = one
        for start in range(0, len(page), 500):
            with vault.database.transaction(permit) as tx:
                self.record.keep(permit, tx, "landing:1", page[start : start + 500])

    def finds(self, query: str, key: str) -> bool:
        """Whether a resource is on some page."""
        page = ""
        while True:
            result = self.record.search(self.permit, parse_text(query), page)
            if any(one["id"] == key for one in result.matches):
                return True
            page = result.next
            if not page:
                return False

    def wrong(self, resource: Resource, key: str, alone: random.Random) -> Iterator[str]:
        """Queries whose answer is not what it should be; most are narrowed to the resource, some are not."""
        kind = resource["resourceType"]
        for one in asked(resource):
            whole = alone.random() < 0.1
            query = f"{kind}?{one.text}" + ("&_count=1000" if whole else f"&_id={quote(key)}")
            try:
                if self.finds(query, key) != one.found:
                    yield f"{kind}/{key}: {query} should {'' if one.found else 'not '}find it"
            except CarelakeError as error:
                yield f"{kind}/{key}: {query}: {error.code}: {error.message}"


@pytest.fixture(scope="module")
def kept(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    from datetime import UTC, datetime, timedelta

    from carelake.apps.wiring import import_tables

    import_tables()
    folder = tmp_path_factory.mktemp("examples")
    clock = FixedClock(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    made = Vault.create(
        folder / "w", settings=Settings(workspace="e" * 32), key_dir=folder / "k", clock=clock, ids=SequenceIds()
    )
    permit = mint(
        act="a" * 32,
        principal="tester",
        account="production",
        purpose="TREAT",
        action="test:act",
        target="test",
        grants=GRANTS,
        scope=(),
        expires=clock.now() + timedelta(hours=9),
        log=_Silent(),
    )

    def examples() -> Iterator[Resource]:
        yield from official(shared_data)
        yield from us_core(shared_data)

    with made as vault:
        yield Kept(vault, permit, examples())


class _Silent:
    def __getattr__(self, name: str) -> Callable[..., None]:
        if name == "ended":
            raise AttributeError(name)
        return lambda *_, **__: None


def checked(kept: Kept, resources: list[tuple[tuple[str, str], Resource]], seed: int) -> None:
    alone = random.Random(seed)
    wrong = [text for (_, key), one in resources for text in kept.wrong(one, key, alone)]
    codes = Counter(text.partition("?")[2].partition("=")[0] for text in wrong)
    assert wrong == [], f"{len(wrong)} wrong: {codes.most_common(30)}\n" + "\n".join(wrong[:40])


@pytest.mark.slow
def test_a_sample_of_examples_is_found_by_every_parameter(kept: Kept) -> None:
    known = sorted(kept.resources.items())
    checked(kept, random.Random(4).sample(known, SAMPLE), 4)


@pytest.mark.soak
def test_every_example_is_found_by_every_parameter(kept: Kept) -> None:
    checked(kept, sorted(kept.resources.items()), 5)


def test_queries_are_made_for_most_parameters(shared_data: Path) -> None:
    """The test's own reach: what is asked of the examples covers most of the parameters that have values there."""
    names, whole = set(), set()
    for resource in official(shared_data):
        for one in asked(resource):
            names.add((resource["resourceType"], one.name))
            whole.add((resource["resourceType"], one.code))
    assert len(whole) > 800
    assert len(names) > 2500
