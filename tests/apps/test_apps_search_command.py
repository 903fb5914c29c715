"""``carelake search``: one Bundle of all pages, tables for people, pages, limits and exit codes."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from carelake.apps.cli import tables
from carelake.audit.readings import Acts

_spec = importlib.util.spec_from_file_location("apps_objects", Path(__file__).with_name("test_apps_objects.py"))
assert _spec is not None
assert _spec.loader is not None
_objects: Any = importlib.util.module_from_spec(_spec)
sys.modules["apps_objects"] = _objects
_spec.loader.exec_module(_objects)

pytestmark = pytest.mark.slow
MANY = 1203


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("search")
    made = _objects.Home(folder)
    lines = []
    for n in range(MANY):
        name = "Peter" if n % 400 == 0 else "Ann"
        lines.append(
            {"resourceType": "Patient", "id": f"p{n}", "birthDate": "1950-01-01", "name": [{"given": [name]}]}
        )
    for n in range(5):
        code = {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]}
        seen = {"resourceType": "Observation", "id": f"o{n}", "status": "final", "code": code}
        lines.append({**seen, "subject": {"reference": "Patient/p400"}, "effectiveDateTime": f"2024-01-0{n + 1}"})
    (folder / "all.ndjson").write_text("".join(json.dumps(one) + "\n" for one in lines))
    made.json("ingest", str(folder / "all.ndjson"))
    return made


def ids(bundle: Any, mode: str = "match") -> list[str]:
    return [one["resource"]["id"] for one in bundle.get("entry", []) if one["search"]["mode"] == mode]


def test_all_pages_are_one_bundle(home: Any) -> None:
    bundle = home.json("search", "Patient?_sort=_id")
    assert (bundle["resourceType"], bundle["type"], bundle["total"]) == ("Bundle", "searchset", MANY)
    assert ids(bundle) == sorted(f"p{n}" for n in range(MANY))
    assert bundle["link"] == [{"relation": "self", "url": "Patient?_sort=_id"}]


def test_the_chain_of_the_help_text(home: Any) -> None:
    bundle = home.json("search", "Observation?subject:Patient.name=peter&_include=Observation:subject&_sort=-date")
    assert ids(bundle) == ["o4", "o3", "o2", "o1", "o0"]
    assert ids(bundle, "include") == ["p400"]
    assert bundle["total"] == 5


def test_a_count_is_a_page_with_a_link_to_the_next(home: Any) -> None:
    query, listed = "Observation?_count=2&_sort=date", []
    for _ in range(3):
        bundle = home.json("search", query)
        listed += ids(bundle)
        links = {one["relation"]: one["url"] for one in bundle["link"]}
        assert links["self"] == query
        query = links.get("next", "")
    assert listed == ["o0", "o1", "o2", "o3", "o4"]
    assert query == ""


def test_what_comes_along_is_told_once(home: Any) -> None:
    bundle = home.json("search", "Patient?_revinclude=Observation:subject&_id=p400,p0")
    assert sorted(ids(bundle, "include")) == [f"o{n}" for n in range(5)]


@pytest.mark.parametrize("limit", [1, 999, 1000, 1001, 1202])
def test_a_limit_is_kept(home: Any, limit: int) -> None:
    bundle = home.json("search", "Patient", "--limit", str(limit))
    assert len(ids(bundle)) == limit
    assert {one["relation"] for one in bundle["link"]} == {"self", "next"}


def test_for_people_references_are_enough(home: Any) -> None:
    done = home.run("search", "Patient?given=Peter", "--limit", "2")
    shown = done.stdout.decode()
    assert (done.returncode, shown.split()) == (0, ["resource", "Patient/p0", "Patient/p400"])
    assert "Peter" not in shown
    assert "2 matches" in done.stderr
    assert "_page=" in done.stderr


def test_columns_are_fhirpath(home: Any) -> None:
    done = home.run("search", "Patient?_id=p400", "--column", "name.given", "--column", "birthDate")
    assert done.stdout.decode().split() == [
        "resource",
        "name.given",
        "birthDate",
        "Patient/p400",
        "Peter",
        "1950-01-01",
    ]
    assert home.code("search", "Patient", "--column", "a b")[0] == 2


def test_lenient_says_what_it_left_out(home: Any) -> None:
    asked = "Patient?given=Peter&colour=red"
    assert home.code("search", asked) == (2, "search.unknown_parameter")
    bundle = home.json("search", asked, "--lenient")
    assert ids(bundle) == ["p0", "p400", "p800", "p1200"]
    assert "colour" in bundle["entry"][-1]["resource"]["issue"][0]["diagnostics"]
    assert bundle["link"][0]["url"] == "Patient?given=Peter"
    assert "colour" in home.run("search", asked, "--lenient").stderr


def test_counts_and_nothing(home: Any) -> None:
    assert home.json("search", "Patient?_summary=count")["total"] == MANY
    none = home.json("search", "Patient?_id=nobody")
    assert (none["total"], "entry" in none) == (0, False)
    assert f"{MANY} matches" in home.run("search", "Patient?_summary=count").stderr


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("Patience",), (2, "search.unknown_type")),
        (("Patient?name:fuzzy=x",), (2, "search.unknown_modifier")),
        (("Patient?_page=x",), (2, "store.page")),
        (("Patient?_page=x&_page=y",), (2, "apps.page")),
        (("Patient", "--as", "reviewer"), (3, "access.denied")),
    ],
)
def test_exit_codes(home: Any, words: tuple[str, ...], code: tuple[int, str]) -> None:
    assert home.code("search", *words) == code
    assert home.run("search", *words).stdout == b""


def test_levels(home: Any) -> None:
    assert ids(home.json("search", "?_type=Patient,Observation&_id=p1,o1")) == ["p1", "o1"]
    assert sorted(ids(home.json("search", "Patient/p400/*"))) == [*(f"o{n}" for n in range(5)), "p400"]
    assert ids(home.json("search", "Patient/p400/Observation?date=2024-01-02")) == ["o1"]


def test_everything_can_be_asked_for(home: Any) -> None:
    assert home.json("search", "?", "--limit", "3")["link"][0]["url"] == "?"
    assert home.code("search", "") == (2, "search.unknown_type")


def test_a_terminal_is_told_nothing_by_a_value() -> None:
    said = tables.plain("é\u200d\xa0\tx\n\x1b[2J\x9b\x7f\udcff")
    assert said == "é\u200d\xa0\tx\n\\x1b[2J\\x9b\\x7f\\udcff"


def test_each_page_is_an_act(home: Any) -> None:
    from carelake.apps.wiring import Workspace

    home.json("search", "Patient?birthdate=1950&_sort=-_id")
    opened = Workspace.open(home.workspace, {"CARELAKE_KEY_DIR": home.environment["CARELAKE_KEY_DIR"]})
    try:
        with opened.vault.database.ledger() as connection:
            acts = Acts(connection).find(limit=2, action="record:search")
    finally:
        opened.close()
    assert [(act["phase"], act["target"], act["read_count"]) for act in acts] == [
        ("done", "Patient", MANY - 1000),
        ("done", "Patient", 1000),
    ]
