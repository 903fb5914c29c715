"""The same searches on PostgreSQL: a sample of every kind, against the same oracle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.store.conftest import Record
from tests.store.search_oracle import World, hospital
from tests.store.test_store_search import check

from carelake.core.clock import FixedClock
from carelake.core.ids import SequenceIds
from carelake.core.permit import Permit
from carelake.core.settings import DatabaseSettings, Settings
from carelake.vault.workspace import Vault

pytestmark = pytest.mark.slow

SEARCHES = [
    "Observation?code=a",
    "Observation?code=http://loinc.org|a,b&status=final",
    "Observation?code:not=a&subject=Patient/1",
    "Observation?code=urn:x|",
    "Observation?code:text=heart",
    "Observation?date=ge2020&date=lt2021-01-02",
    "Observation?date=ne2020-02-29",
    "Observation?value-quantity=gt1|http://unitsofmeasure.org|mg",
    "Observation?component-code-value-quantity=a$gt0",
    "Observation?combo-code-value-quantity=b$le100",
    "Observation?subject:Patient.family=smith&status=final",
    "Observation?encounter.patient._has:Observation:patient:status=final",
    "Observation?has-member.status=amended",
    "Observation?_list=l",
    "Observation?subject:missing=true",
    "Observation?_id=o1,o2,o3",
    "Patient?family:contains=mith",
    "Patient?name:exact=Smith",
    "Patient?phonetic=smyth",
    "Patient?identifier:of-type=http://t|MR|m1",
    "Patient?organization:identifier=urn:o|1",
    "Patient?_has:Encounter:patient:_has:Observation:encounter:code=a",
    "Patient?general-practitioner:Organization.partof:Organization.name=house 1",
    "ValueSet?url:below=http://a/b",
    "ValueSet?url:above=http://a/b/c",
    "ValueSet?_text=bone",
    "QuestionnaireResponse?questionnaire.title=form 1",
    "Questionnaire?_has:QuestionnaireResponse:questionnaire:status=completed",
    "Location?near=42.2|-83.4|40|km",
]
ORDERS = [
    "Observation?_sort=-date",
    "Observation?_sort=code,-date&subject:missing=false",
    "Observation?_sort=subject,-_id",
    "Patient?_sort=family,-birthdate",
    "Patient?_sort=-_lastUpdated",
    "ValueSet?_sort=-url",
    "Observation?_sort=-value-quantity,status",
]


@pytest.fixture(scope="module")
def filled(postgres_server: Any, tmp_path_factory: Any) -> Iterator[tuple[Record, World]]:
    folder: Path = tmp_path_factory.mktemp("postgres-search")
    secret = folder / "password"
    secret.write_text(postgres_server.password)
    with postgres_server.connect() as connection:
        connection.execute(
            "CREATE DATABASE searched TEMPLATE template0 LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8'"
        )
    from datetime import UTC, datetime, timedelta

    from tests.conftest import SilentLog

    from carelake.core.permit import mint

    clock = FixedClock(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))

    def permit_for(*grants: str, account: str = "production", **other: Any) -> Permit:
        said: dict[str, Any] = {
            "act": "a" * 32, "principal": "tester", "purpose": "TREAT", "action": "test:act", "target": "test",
            "scope": (), "expires": clock.now() + timedelta(hours=1), "log": SilentLog(),
        }  # fmt: skip
        return mint(account=account, grants=grants, **{**said, **other})

    made: Callable[..., Permit] = permit_for
    database = DatabaseSettings(url=postgres_server.url("searched"), password_file=str(secret))
    settings = Settings(workspace="b" * 32, database=database)
    with Vault.create(folder / "w", settings=settings, key_dir=folder / "k", clock=clock, ids=SequenceIds()) as vault:
        record = Record(vault, clock, made)
        resources = hospital(5)
        record.keep(*[{**one, "language": "de"} for one in resources])
        record.keep(*resources)
        yield record, World(resources)
    with postgres_server.connect() as connection:
        connection.execute("DROP DATABASE searched WITH (FORCE)")


def pairs(text: str) -> tuple[str, list[tuple[str, str]]]:
    kind, _, rest = text.partition("?")
    return kind, [(name, value) for name, _, value in (pair.partition("=") for pair in rest.split("&"))]


@pytest.mark.parametrize("text", SEARCHES)
def test_found_as_the_oracle_finds_them(filled: Any, planned: str, text: str) -> None:
    check(filled, *pairs(text))


@pytest.mark.parametrize("text", ORDERS)
def test_ordered_and_paged(filled: Any, planned: str, text: str) -> None:
    record, _ = filled
    check(filled, *pairs(text))
    whole = record.ids(f"{text}&_count=1000")
    paged: list[str] = []
    page = ""
    while True:
        result = record.search(f"{text}&_count=3", page)
        paged += [one["id"] for one in result.matches]
        page = result.next
        if not page:
            break
    assert paged == whole


@pytest.mark.parametrize(
    "text",
    [
        "Observation?_include=*&_include:iterate=*",
        "Patient?_revinclude=*&_revinclude:iterate=Observation:encounter",
        "Organization?partof:below=Organization/1&_include=Organization:partof",
        "Organization?partof:above=Organization/2",
    ],
)
def test_includes_and_hierarchies(filled: Any, text: str) -> None:
    record, world = filled
    result = record.search(text)
    assert result.matches
    assert all((one["resourceType"], one["id"]) in world.resources for one in result.included)


def test_scoped(filled: Any, planned: str) -> None:
    record, _ = filled
    permit = record.permit_for(*record.permit.grants, scope=("account", "patient:2"))
    found = record.search("Observation?_sort=-date&_include=*&subject:Patient._id=2", permit=permit)
    assert {one["subject"]["reference"] for one in found.matches} == {"Patient/2"}
    assert {one["id"] for one in found.included if one["resourceType"] == "Patient"} == {"2"}
