"""An open record, and pages of resources to put into it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import carelake.store.tables  # noqa: F401
from carelake.core.clock import FixedClock
from carelake.core.ids import SequenceIds
from carelake.core.permit import Permit
from carelake.core.settings import DatabaseSettings, Settings
from carelake.fhir.query import parse_text
from carelake.store import Kept, Resources, SearchResult
from carelake.store.search import plan
from carelake.store.write import parsed
from carelake.vault.workspace import Vault

GRANTS = ("clinical:read", "clinical:write", "rows:read", "rows:write")


class Record:
    """A record with one permit."""

    def __init__(self, vault: Vault, clock: FixedClock, permit_for: Callable[..., Permit]) -> None:
        self.vault, self.clock = vault, clock
        self.resources = Resources(vault)
        self.permit_for = permit_for
        self.permit = permit_for(*GRANTS)

    def keep(
        self,
        *resources: dict[str, Any],
        landing: str = "landing:1",
        permit: Permit | None = None,
        again: bool = False,
        offsets: int = 0,
    ) -> Kept:
        permit = permit or self.permit
        page = [parsed(one) for one in resources]
        for number, one in enumerate(page):
            one.offset = offsets + number
        with self.vault.database.transaction(permit) as tx:
            return self.resources.keep(permit, tx, landing, page, again=again)

    def search(self, text: str, page: str = "", permit: Permit | None = None) -> SearchResult:
        return self.resources.search(permit or self.permit, parse_text(text), page)

    def ids(self, text: str, **other: Any) -> list[str]:
        return [one["id"] for one in self.search(text, **other).matches]

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        with self.vault.database.reading(self.permit) as tx:
            return [tuple(row) for row in tx.exec_driver_sql(sql)]


@pytest.fixture
def record(tmp_path: Path, clock: FixedClock, permit_for: Callable[..., Permit]) -> Iterator[Record]:
    settings = Settings(workspace="b" * 32)
    with Vault.create(
        tmp_path / "w", settings=settings, key_dir=tmp_path / "k", clock=clock, ids=SequenceIds()
    ) as vault:
        yield Record(vault, clock, permit_for)


@pytest.fixture(params=["gathered", "walked"])
def planned(request: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """Small numbers are gathered; with the bounds at nothing they are walked, as large ones are."""
    if request.param == "walked":
        monkeypatch.setattr(plan, "FEW", 1)
        monkeypatch.setattr(plan, "_LEAST_ROOM", 1)
        monkeypatch.setattr(plan, "_root", lambda number: 1)
    return str(request.param)


@pytest.fixture(params=["sqlcipher", pytest.param("postgres", marks=pytest.mark.slow)])
def record_on_each(
    request: pytest.FixtureRequest, tmp_path: Path, clock: FixedClock, permit_for: Callable[..., Permit]
) -> Iterator[Record]:
    """A record on each database."""
    database = request.getfixturevalue("postgres") if request.param == "postgres" else DatabaseSettings()
    settings = Settings(workspace="b" * 32, database=database)
    with Vault.create(
        tmp_path / "w", settings=settings, key_dir=tmp_path / "k", clock=clock, ids=SequenceIds()
    ) as vault:
        yield Record(vault, clock, permit_for)
