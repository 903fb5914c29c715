"""Terminology as pure functions: expansions, checks, look-ups, translations; and that work on them is bounded."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carelake.core.errors import CarelakeError, Invalid, NotFound, Unsupported
from carelake.fhir.terminology import SHIPPED, LocalTerminology, ResourceLibrary, value_set
from carelake.fhir.terminology.checking import Coded, in_system, in_value_set
from carelake.fhir.terminology.expanding import MAX_PAGE, Expanding, compose, expand
from carelake.fhir.terminology.expansion import MAX_CODES
from carelake.fhir.terminology.looking import find, lookup, subsumes
from carelake.fhir.terminology.maps import concept_map
from carelake.fhir.terminology.model import code_system
from carelake.fhir.terminology.shipped import _load, _terms
from carelake.fhir.terminology.translating import Asked, translate
from carelake.fhir.validate import check

NOT_SHIPPED = ("http://snomed.info/sct", "http://loinc.org", "http://www.ama-assn.org/go/cpt")


def cs(url: str, concept: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {"resourceType": "CodeSystem", "url": url, "status": "active", "content": "complete", "concept": concept,
            **more}  # fmt: skip


def vs(url: str, *include: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"resourceType": "ValueSet", "url": url, "status": "active", "compose": {"include": list(include), **more}}


def over(*resources: dict[str, Any]) -> LocalTerminology:
    kept: dict[tuple[str, str], dict[str, Any]] = {}
    for one in resources:
        kept.setdefault((one["resourceType"], one["url"]), one)
        kept[one["resourceType"], f"{one['url']}|{one.get('version', '')}"] = one
    return LocalTerminology(ResourceLibrary(lambda kind, url: kept.get((kind, url))), SHIPPED, most_listed=MAX_CODES)


def codes(known: LocalTerminology, resource: dict[str, Any], **asked: Any) -> list[str]:
    found = expand(known, value_set(resource), Expanding(**asked))
    return [one["code"] for one in found.get("contains", [])]


NUMBERS = cs(
    "http://n",
    [
        {"code": f"n{n}", "display": f"Number {n}", "property": [{"code": "even", "valueBoolean": n % 2 == 0}]}
        for n in range(10)
    ],
)


# -- expansions ------------------------------------------------------------------------------------------------------


@given(st.integers(0, 12), st.integers(0, 12))
def test_pages_are_the_whole(offset: int, count: int) -> None:
    whole = codes(over(NUMBERS), vs("http://v", {"system": "http://n"}))
    assert (
        codes(over(NUMBERS), vs("http://v", {"system": "http://n"}), offset=offset, count=count)
        == (whole[offset : offset + count])
    )


def test_a_large_expansion_needs_pages() -> None:
    big = cs("http://big", [{"code": str(n)} for n in range(MAX_PAGE + 1)])
    told = vs("http://v", {"system": "http://big"})
    with pytest.raises(Invalid) as caught:
        codes(over(big), told)
    assert caught.value.code == "terminology.too_costly"
    assert len(codes(over(big), told, count=10**9)) == MAX_PAGE
    assert codes(over(big), told, offset=MAX_PAGE) == [str(MAX_PAGE)]
    assert expand(over(big), value_set(told), Expanding(count=0))["total"] == MAX_PAGE + 1


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"property": "even", "op": "=", "value": "true"}, [0, 2, 4, 6, 8]),
        ({"property": "even", "op": "in", "value": "true,false"}, list(range(10))),
        ({"property": "even", "op": "not-in", "value": "true"}, [1, 3, 5, 7, 9]),
        ({"property": "even", "op": "exists", "value": "true"}, list(range(10))),
        ({"property": "odd", "op": "exists", "value": "true"}, []),
    ],
)
def test_filters_of_properties(told: dict[str, str], expected: list[int]) -> None:
    assert codes(over(NUMBERS), vs("http://v", {"system": "http://n", "filter": [told]})) == [
        f"n{n}" for n in expected
    ]


def test_parents_and_children() -> None:
    tree = cs("http://t", [{"code": "a", "concept": [{"code": "b", "concept": [{"code": "c"}]}]}])

    def of(name: str, value: str) -> list[str]:
        told = [{"property": name, "op": "=", "value": value}]
        return codes(over(tree), vs("http://v", {"system": "http://t", "filter": told}))

    assert (of("parent", "a"), of("child", "c")) == (["b"], ["b"])
    with pytest.raises(Invalid):
        of("parent", "z")


def test_versions_of_systems() -> None:
    old, new = cs("http://n", [{"code": "old"}], version="1"), cs("http://n", [{"code": "new"}], version="2")
    known = over(new, old)
    assert codes(known, vs("http://v", {"system": "http://n"})) == ["new"]
    assert codes(known, vs("http://v", {"system": "http://n", "version": "1"})) == ["old"]
    with pytest.raises(Unsupported):
        codes(known, vs("http://v", {"system": "http://n", "version": "3"}))


def test_definitions_come_back_unless_they_may_not() -> None:
    told = vs("http://v", {"system": "http://n", "concept": [{"code": "n1", "display": "One"}]},
              {"system": "http://n", "filter": [{"property": "even", "op": "=", "value": "true"}]},
              {"valueSet": ["http://w"]}, exclude=[{"system": "http://n", "version": "1"}])  # fmt: skip
    assert compose(value_set(told)) == told["compose"]
    withheld = next(one for one in _load()[1].values() if any(part.withheld for part in one.include))
    with pytest.raises(Unsupported) as caught:
        compose(withheld)
    assert caught.value.code == "terminology.withheld"


# -- bounds ----------------------------------------------------------------------------------------------------------


def test_value_sets_of_value_sets_of_value_sets() -> None:
    """Each is named twice by the next: 2 ** 18 ways, each walked once."""
    chain = [vs("http://v0", {"system": "http://n"})]
    chain += [vs(f"http://v{n}", *[{"valueSet": [f"http://v{n - 1}"]}] * 2) for n in range(1, 19)]
    began = time.process_time()
    assert len(codes(over(NUMBERS, *chain), chain[-1])) == 10
    assert in_value_set(over(NUMBERS, *chain), value_set(chain[-1]), Coded("n1", "http://n")).result
    assert time.process_time() - began < 5


def test_a_circle_of_value_sets() -> None:
    one, two = vs("http://1", {"valueSet": ["http://2"]}), vs("http://2", {"valueSet": ["http://1"]})
    for ask in (
        lambda: codes(over(one, two), one),
        lambda: in_value_set(over(one, two), value_set(one), Coded("a", "http://n")),
    ):
        with pytest.raises(Unsupported) as caught:
            ask()
        assert caught.value.code == "terminology.too_deep"


def test_too_many_parts() -> None:
    roles = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
    told = vs("http://v", *[{"system": roles, "filter": [{"property": "code", "op": "in", "value": "A"}]}] * 10_000)
    began = time.process_time()
    with pytest.raises(Invalid) as caught:
        codes(over(), told)
    assert caught.value.code == "terminology.too_many"
    assert time.process_time() - began < 20


# -- checks ----------------------------------------------------------------------------------------------------------


def test_a_system_without_case() -> None:
    caseless = cs("http://c", [{"code": "Ab", "display": "AB"}], caseSensitive=False)
    assert in_system(over(caseless), Coded("aB", "http://c")).display == "AB"
    assert not in_system(over(cs("http://c", [{"code": "Ab"}])), Coded("aB", "http://c")).result


def test_a_fragment_does_not_say_no() -> None:
    part = cs("http://c", [{"code": "a"}], content="fragment")
    assert "not all" in in_system(over(part), Coded("b", "http://c")).message
    told = value_set(vs("http://v", {"system": "http://c"}))
    assert in_value_set(over(part), told, Coded("a", "http://c")).result
    assert "cannot be told" in in_value_set(over(part), told, Coded("b", "http://c")).message


def test_what_is_excluded_is_out() -> None:
    told = value_set(vs("http://v", {"system": "http://n"}, exclude=[{"system": "http://n",
                                                                     "concept": [{"code": "n1"}]}]))  # fmt: skip
    assert not in_value_set(over(NUMBERS), told, Coded("n1", "http://n")).result
    assert in_value_set(over(NUMBERS), told, Coded("n2", "http://n", "", "number  2")).result


def test_expansion_and_check_agree_on_what_ships() -> None:
    known, urls = over(), sorted(_load()[1])[::12]
    asked = 0
    for url in urls:
        told = known.value_set(url)
        try:
            members = over().members(told)
        except CarelakeError:
            continue
        for system, code in sorted(members, key=str)[:3]:
            if code is not None:
                assert in_value_set(known, told, Coded(code, system), abstract=True).result, url
                assert not in_value_set(known, told, Coded(code + "?", system), abstract=True).result
                asked += 1
    assert asked > 100


# -- what ships ------------------------------------------------------------------------------------------------------


def test_nothing_ships_that_may_not() -> None:
    lexicons, maps = _terms()
    assert not set(NOT_SHIPPED) & set(lexicons)
    assert set(lexicons) == set(_load()[0])
    assert not {end for one in maps.values() for group in one.groups for end in (group.source, group.target)} & set(
        NOT_SHIPPED
    )
    for url in ("http://dicom.nema.org/resources/ontology/DCM", "urn:iso-astm:E1762-95:2013"):
        assert not [text for one in lexicons[url].concepts for text in (*one.texts(), one.definition) if text]
    for one in _load()[1].values():
        assert not [part for part in one.include if part.system in NOT_SHIPPED and (part.codes or part.displays)]


def test_codes_and_texts_stand_beside_each_other() -> None:
    for url, system in _load()[0].items():
        assert len(system.codes) == len(_terms()[0][url].concepts)
    found = find(over(), "http://hl7.org/fhir/administrative-gender", "female")
    assert lookup(found)[2] == {"name": "display", "valueString": "Female"}


def test_hierarchies_that_mean_something_else() -> None:
    parts = cs("http://p", [{"code": "arm", "concept": [{"code": "hand"}]}], hierarchyMeaning="part-of")
    both = [find(over(parts), "http://p", code) for code in ("arm", "hand")]
    with pytest.raises(Unsupported) as caught:
        subsumes(*both)
    assert caught.value.code == "terminology.not_is_a"
    with pytest.raises(NotFound):
        find(over(parts), "http://p", "leg")
    empty = {**cs("http://e", []), "content": "not-present"}
    with pytest.raises(Unsupported):
        find(over(empty), "http://e", "leg")


# -- maps ------------------------------------------------------------------------------------------------------------


def cm(url: str, elements: list[dict[str, Any]], **group: Any) -> Any:
    held = {"source": "http://a", "target": "http://b", "element": elements, **group}
    return concept_map({"resourceType": "ConceptMap", "url": url, "status": "active", "group": [held]})


def mapped(one: Any, code: str, chain: Any = lambda url: None, **more: Any) -> list[tuple[str, str]]:
    found, _ = translate([one], Asked(more.pop("system", "http://a"), code, **more), chain)
    return [(match.equivalence, match.code) for match in found]


def test_what_no_element_names() -> None:
    same = cm("http://m", [{"code": "z"}], unmapped={"mode": "provided"})
    fixed = cm("http://m", [{"code": "z"}], unmapped={"mode": "fixed", "code": "other"})
    onward = cm("http://m", [{"code": "z"}], unmapped={"mode": "other-map", "url": "http://o"})
    other = cm("http://o", [{"code": "x", "target": [{"code": "y", "equivalence": "equivalent"}]}])
    assert mapped(same, "x") == [("equal", "x")]
    assert mapped(fixed, "x") == [("inexact", "other")]
    assert mapped(onward, "x", {"http://o": other}.get) == [("equivalent", "y")]
    assert mapped(onward, "x", {"http://o": onward}.get) == []
    assert mapped(onward, "z", {"http://o": other}.get) == []


def test_mappings_that_depend_on_others() -> None:
    depends = [{"property": "http://sex", "system": "http://s", "value": "f"}]
    one = cm("http://m", [{"code": "x", "target": [{"code": "y", "equivalence": "equal", "dependsOn": depends}]}])
    assert translate([one], Asked("http://a", "x")) == ([], True)
    known = {("http://sex", "http://s", "f")}
    found, hidden = translate([one], Asked("http://a", "x", depends=known))
    assert ([match.code for match in found], hidden) == (["y"], False)


def test_a_map_that_hands_over_in_every_group_ends() -> None:
    group = {"source": "http://a", "target": "http://b", "element": [{"code": "z"}],
             "unmapped": {"mode": "other-map", "url": "http://m"}}  # fmt: skip
    circle = concept_map({"resourceType": "ConceptMap", "url": "http://m", "group": [group] * 1000})
    began = time.process_time()
    assert mapped(circle, "x", {"http://m": circle}.get) == []
    assert time.process_time() - began < 5


def test_a_code_that_is_mapped_to_too_many() -> None:
    many = [{"code": "x", "target": [{"code": str(n), "equivalence": "wider"} for n in range(2000)]}]
    with pytest.raises(Invalid):
        mapped(cm("http://m", many), "x")


def test_duplicate_codes_keep_their_texts() -> None:
    twice = cs("http://d", [{"code": "a", "display": "first"}, {"code": "b"}, {"code": "a", "display": "second"}])
    assert len(code_system(twice).codes) == 2
    assert find(over(twice), "http://d", "a").concept.display == "first"


# -- elements that extensions stand in for ---------------------------------------------------------------------------

ABSENT = {"extension": [{"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason", "valueCode": "masked"}]}


def test_what_is_valid_without_its_value_is_no_fault() -> None:
    inner = {"_code": ABSENT, "concept": [{"code": "b"}]}
    held = {
        "code": "a",
        "concept": [inner],
        "designation": [{"_value": ABSENT}],
        "property": [{"_code": ABSENT, "valueCode": "x"}],
    }
    system = cs("http://s", [held])
    sets = [
        vs("http://v", {"system": "http://s", "concept": [{"_code": ABSENT}, {"code": "b", "display": "B"}]}),
        vs("http://w", {"valueSet": [None], "_valueSet": [ABSENT]}),
        vs("http://x", {"system": "http://s", "filter": [{"_property": ABSENT, "op": "=", "_value": ABSENT}]}),
    ]
    broken = {"resourceType": "ConceptMap", "url": "http://m", "status": "active", "group": [
        {"source": "http://s", "element": [{"_code": ABSENT}, {"code": "a", "target": [{"_equivalence": ABSENT}]}]},
        {"source": "http://s", "_element": [ABSENT], "element": []},
    ]}  # fmt: skip
    assert not [issue for one in (system, *sets) for issue in [check(one)] if issue]
    known = over(system, *sets)
    assert codes(known, sets[0]) == ["b"]
    assert subsumes(find(known, "http://s", "a"), find(known, "http://s", "b")) == "subsumes"
    assert lookup(find(known, "http://s", "a"))
    with pytest.raises(Unsupported):
        codes(known, sets[1])
    assert not in_value_set(known, value_set(sets[1]), Coded("b", "http://s")).result
    assert codes(known, sets[2]) == []
    assert translate([concept_map(broken)], Asked("http://s", "a")) == ([], False)


def test_a_filter_that_starts_nowhere_cannot_be_told() -> None:
    told = vs("http://v", {"system": "http://n", "filter": [{"property": "concept", "op": "is-a", "value": "no"}]})
    assert "cannot be told" in in_value_set(over(NUMBERS), value_set(told), Coded("n1", "http://n")).message


def test_many_systems_and_sets_are_not_all_looked_for() -> None:
    many = vs("http://v", *[{"system": f"http://s{n}", "concept": [{"code": "a"}]} for n in range(20_000)])
    named = vs("http://w", *[{"valueSet": [f"http://v{n}"]} for n in range(20_000)])
    began = time.process_time()
    for ask in (
        lambda: codes(over(), many),
        lambda: codes(over(*[vs(f"http://v{n}") for n in range(20_000)]), named),
        lambda: in_value_set(over(), value_set(named), Coded("a", "http://n")),
    ):
        with pytest.raises(Invalid) as caught:
            ask()
        assert caught.value.code == "terminology.too_many"
    assert time.process_time() - began < 10
