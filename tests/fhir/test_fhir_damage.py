"""Damage of many kinds, made from the definitions, done to every official example: at least 99 of 100 are found.

A sample runs with the other tests; all examples, and more places in each, in the soak. Where the place of the damage
is known, the issue must name it.
"""

from __future__ import annotations

import copy
import random
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from carelake.fhir.definitions import Element, codes, element, is_primitive, is_resource, resource_types
from carelake.fhir.primitives import json_kind
from carelake.fhir.rules import bound
from carelake.fhir.validate import validate

Resource = dict[str, Any]
GAPS = Path(__file__).resolve().parents[1] / "conformance" / "fhir_examples_strict_gaps.toml"
SAMPLE, PLACES, SOAK_PLACES = 100, 1, 4


class Site(NamedTuple):
    """One value in a resource: what it lies in, its key (and number in a list), its definition and its path."""

    host: Resource
    key: str
    number: int | None
    item: Element
    kind: str
    owner: str
    at: str

    @property
    def value(self) -> Any:
        return self.host[self.key] if self.number is None else self.host[self.key][self.number]

    def put(self, value: Any) -> None:
        if self.number is None:
            self.host[self.key] = value
        else:
            self.host[self.key][self.number] = value


def sites(host: Resource, kind: str, at: str) -> Iterator[Site]:
    """Every value that the definitions know."""
    known = {key: (item, of) for item in element(kind).values() for key, of in item.keys.items()}
    for key in list(host):
        if key not in known:
            continue
        item, of = known[key]
        many = isinstance(host[key], list)
        for n in range(len(host[key])) if many else [None]:
            value = host[key] if n is None else host[key][n]
            if value is None:
                continue
            own = str(value["resourceType"]) if of == "Resource" else of
            site = Site(host, key, n, item, own, kind, f"{at}.{key}" if n is None else f"{at}.{key}[{n}]")
            yield site
            if not is_primitive(own):
                yield from sites(value, own, site.at)


Harm = Callable[[Site, random.Random], Any]
"""Does damage; True where the issue is at the site, a text where it is elsewhere ("" unknown), None for none done."""

WRONG: dict[str, list[Any]] = {
    "base64Binary": ["A", "äöü=", "====", "a?b="],
    "boolean": ["true", 1, "yes"],
    "canonical": ["a b", "http://x y"],
    "code": ["a  b", " a", "a ", "a\tb\n"],
    "date": ["2021-02-30", "2021-13-01", "21-01-01", "2021-1-1", "2021-01-01T00:00:00Z", "01/02/2021", "today"],
    "dateTime": ["2021-02-30", "2021-02-03T10:00:00", "2021-02-03T25:00:00Z", "2021-02-03 10:00:00Z", "20210203"],
    "decimal": ["1.5", "1", True],
    "id": ["a b", "x" * 65, "a/b", "ä", "a_b"],
    "instant": ["2021-02-03", "2021-02-03T10:00:00", "2021-02-30T10:00:00Z", "2021-02-03T10:00Z"],
    "integer": [1.5, "1", 2**31, True],
    "markdown": ["a\x00b", 5, False],
    "oid": ["1.2.3", "urn:oid:9.1", "urn:oid:1.02"],
    "positiveInt": [0, -1, "1", 2**31],
    "string": ["a\x01b", 5, True],
    "time": ["25:00:00", "10:00", "10:61:00", "noon"],
    "unsignedInt": [-1, "0", 2**31],
    "uri": ["a b", "\thttp://x", "http://x y"],
    "url": ["a b", "http://x y"],
    "uuid": ["urn:uuid:x", "c757873d-ec9a-4326-a141-556f43239520", "urn:uuid:C757873D"],
}


def bad_format(site: Site, rng: random.Random) -> Any:
    if site.kind not in WRONG:
        return None
    site.put(rng.choice(WRONG[site.kind]))
    return True


def wrong_json_type(site: Site, rng: random.Random) -> Any:
    if not is_primitive(site.kind):
        site.put(rng.choice(["text", 1, True, [site.value]]))
    else:
        other = {"boolean": ["true", 0], "number": ["1", True], "string": [1, True]}[json_kind(site.kind)]
        site.put(rng.choice([*other, {"value": site.value}]))
    return True


def unknown_element(site: Site, rng: random.Random) -> Any:
    if is_primitive(site.kind):
        return None
    name = rng.choice(["notAnElement", "Status", "valueNothing", "_notAnElement", "resourcetype"])
    site.value[name] = "x"
    return f"{site.at}.{name}" if name[0] in "nrv" else site.at  # a name that is no element's is not shown


def wrong_case(site: Site, rng: random.Random) -> Any:
    if site.key.lower() == site.key:
        return None
    site.host[site.key.lower()] = site.host.pop(site.key)
    return f"{site.at.rpartition('.')[0]}.{site.key.lower()}"


def missing_required(site: Site, rng: random.Random) -> Any:
    if not site.item.min or len(site.host) == 1:
        return None
    del site.host[site.key]
    site.host.pop("_" + site.key, None)
    return f"{site.at.rpartition('.')[0]}.{site.item.name}"


def repeated(site: Site, rng: random.Random) -> Any:
    if site.number is not None:
        return None
    site.host[site.key] = [site.value, site.value]
    return True


def single(site: Site, rng: random.Random) -> Any:
    if site.number is None:
        return None
    site.host[site.key] = site.value
    return site.at.rpartition("[")[0]


def two_choices(site: Site, rng: random.Random) -> Any:
    others = [key for key in site.item.keys if key not in site.host]
    if not site.item.choice or not others:
        return None
    key = rng.choice(others)
    site.host[key] = {"boolean": True, "number": 1}.get(json_kind(site.item.keys[key]), "2020-01-01")
    if not is_primitive(site.item.keys[key]):
        site.host[key] = {"id": "x", "extension": [{"url": "http://x.test", "valueBoolean": True}]}
    return f"{site.at.rpartition('.')[0]}.{site.item.name}"


def wrong_reference(site: Site, rng: random.Random) -> Any:
    if site.kind != "Reference" or not site.item.targets or "Resource" in site.item.targets:
        return None
    other = rng.choice(sorted(resource_types() - set(site.item.targets)))
    start = rng.choice(["", "http://server.test/fhir/"])
    site.put({"reference": f"{start}{other}/1{rng.choice(['', '/_history/2'])}"})
    return True


def required_binding(site: Site, rng: random.Random) -> Any:
    if site.item.codes:
        listed = codes(site.item.codes).codes
        site.put(rng.choice([c for c in ("nonsense", listed[0].upper() + "X", "unknown-code") if c not in listed]))
        return True
    if bound(f"{site.owner}.{site.item.name}") is None:
        return None
    site.put(
        {"coding": [{"system": "http://codes.test", "code": "x"}]}
        if site.kind == "CodeableConcept"
        else {"code": "x", "system": "http://codes.test"}
    )
    return True


def _period(value: Resource) -> None:
    value.update(start="2020-02-01", end="2020-01-01")


def _only(**members: Any) -> Callable[[Resource], None]:
    def change(value: Resource) -> None:
        value.clear()
        value.update(members)

    return change


AMOUNT = {"value": 5, "system": "http://unitsofmeasure.org", "code": "mg"}
INVARIANTS: dict[str, list[Callable[[Resource], None]]] = {
    "Attachment": [_only(data="AAAA")],
    "CodeSystem": [lambda v: v.update(concept=[{"code": "a"}, {"code": "a"}])],
    "ContactPoint": [_only(value="555")],
    "ElementDefinition": [lambda v: v.update(sliceName="a b!")],
    "Money": [],
    "Observation": [lambda v: v.update(dataAbsentReason={"text": "x"}, valueBoolean=True) or _one_value(v)],
    "Observation.referenceRange": [_only(appliesTo=[{"text": "x"}])],
    "Patient.contact": [_only(gender="male")],
    "Period": [_period],
    "Quantity": [_only(value=1, code="mg")],
    "Range": [_only(low=AMOUNT, high={**AMOUNT, "value": 1})],
    "Ratio": [_only(numerator=AMOUNT)],
    "Reference": [_only(reference="#no-such-resource")],
    "Timing.repeat": [
        _only(duration=5),
        _only(period=5),
        _only(periodMax=5),
        _only(timeOfDay=["10:00:00"], when=["AC"]),
    ],
    "Bundle.entry": [
        _only(search={"mode": "match"}),
        lambda v: v.update(fullUrl="http://x.test/Patient/1/_history/1"),
    ],
    "Questionnaire.item": [
        lambda v: v.update(type="display", required=True),
        lambda v: v.update(type="group", initial=[{"valueBoolean": True}]),
    ],
    "ValueSet.compose.include": [
        _only(concept=[{"code": "x"}]),
        lambda v: v.update(
            system="http://x.test", concept=[{"code": "x"}], filter=[{"property": "a", "op": "=", "value": "b"}]
        ),
    ],
    "CapabilityStatement": [lambda v: v.update(kind="instance") or v.pop("implementation", None)],
    "SearchParameter": [lambda v: v.update(xpath="x") or v.pop("xpathUsage", None)],
    "Parameters.parameter": [
        lambda v: v.update(name="x") or v.update(part=[{"name": "y", "valueBoolean": True}], valueString="x")
    ],
}


def _one_value(value: Resource) -> None:
    for key in [k for k in value if k.startswith("value") and k != "valueBoolean"]:
        del value[key]


def invariant(site: Site, rng: random.Random) -> Any:
    options = INVARIANTS.get(site.kind)
    if not options:
        return None
    rng.choice(options)(site.value)
    return ""


def empty(site: Site, rng: random.Random) -> Any:
    if is_primitive(site.kind):
        site.put(rng.choice(["", [], {}]))
    elif rng.random() < 0.5 or site.number is None:
        site.put({})
    else:
        site.host[site.key] = []
        return site.at.rpartition("[")[0]
    return True


def null(site: Site, rng: random.Random) -> Any:
    if site.number is not None and rng.random() < 0.5:
        site.host[site.key].append(None)
        site.host.pop("_" + site.key, None)
        return f"{site.at.rpartition('[')[0]}[{len(site.host[site.key]) - 1}]"
    if "_" + site.key in site.host:
        return None
    site.put(None)
    return True


def extension(site: Site, rng: random.Random) -> Any:
    if is_primitive(site.kind) or is_resource(site.kind) or site.kind == "Extension":
        return None
    inner = {"url": "http://x.test/inner", "valueBoolean": True}
    wrong: list[Resource] = [
        {"url": "http://x.test"},
        {"valueString": "x"},
        {"url": "http://x.test", "valueString": "x", "extension": [inner]},
        {"url": "http://x.test", "valueString": "x", "valueCode": "x"},
        {"url": "http://x.test", "valueNothing": "x"},
        {"url": 5, "valueString": "x"},
        {"url": "http://x.test", "value": "x"},
        {"url": "http://x.test", "valueString": "x", "_url": {"id": "a"}},
    ]
    site.value["extension"] = [rng.choice(wrong)]
    return ""


def primitive_extension(site: Site, rng: random.Random) -> Any:
    if not is_primitive(site.kind) or site.number is not None or "_" + site.key in site.host:
        return None
    wrong: list[Any] = [
        {},
        [],
        "x",
        None,
        {"extension": []},
        {"extension": [{"url": "http://x.test"}]},
        {"value": "x"},
    ]
    site.host["_" + site.key] = rng.choice(wrong)
    return ""


def white_space(site: Site, rng: random.Random) -> Any:
    if site.kind not in ("string", "markdown", "code", "uri", "id", "canonical", "url"):
        return None
    site.put(rng.choice([" ", "   ", "\t", "\n ", " "]))
    return True


def xhtml(site: Site, rng: random.Random) -> Any:
    if site.kind != "xhtml":
        return None
    wrong = [
        "<script>x()</script>",
        "<p onclick='x()'>x</p>",
        "<p>x",
        "",
        " ",
        "<iframe src='x'/>",
        "<form>x</form>",
        "a & b",
        "<p>x</b>",
    ]
    outer = rng.random() < 0.2
    site.put("<p>x</p>" if outer else f'<div xmlns="http://www.w3.org/1999/xhtml">{rng.choice(wrong)}</div>')
    return True


def _contained(site: Site) -> bool:
    return site.item.name == "contained"


def contained(site: Site, rng: random.Random) -> Any:
    if not _contained(site):
        return None
    value = site.value
    value.update(
        rng.choice(
            [
                {"id": "nobody-refers-to-this"},
                {"meta": {"versionId": "1"}},
                {"meta": {"lastUpdated": "2020-01-01T00:00:00Z"}},
                {"meta": {"security": [{"code": "R"}]}},
                {"contained": [{"resourceType": "Basic", "id": "b", "code": {"text": "x"}}]},
                {"resourceType": "Nothing"},
                {"resourceType": 5},
            ]
        )
    )
    return ""


def resource_type(site: Site, rng: random.Random) -> Any:
    if not is_resource(site.kind):
        return None
    site.value["resourceType"] = rng.choice(
        ["Nothing", "", site.kind.lower(), site.kind + " ", "Element", "Resource", "HumanName", None, 5]
    )
    return ""


HARMS: list[Harm] = [
    bad_format, wrong_json_type, unknown_element, wrong_case, missing_required, repeated, single, two_choices,
    wrong_reference, required_binding, invariant, empty, null, extension, primitive_extension, white_space, xhtml,
    contained, resource_type,
]  # fmt: skip


_WHOLE = Element("", (), 0, "1", False, "", "", (), False, False)


def damaged(
    resource: Resource, harm: Harm, rng: random.Random, places: int
) -> Iterator[tuple[Resource, str, str | None]]:
    """Damaged copies, what was damaged, and where the issue must be."""
    name = resource["resourceType"]
    order: list[int] | None = None
    done = 0
    while done < places:
        made = copy.deepcopy(resource)
        root = Site(
            {"": made}, "", None, Element("", (name,), 0, "1", False, "", "", (), False, False), name, "", name
        )
        every = [*sites(made, name, name), root]
        order = order if order is not None else rng.sample(range(len(every)), len(every))
        told = None
        while order and told is None:
            site = every[order.pop()]
            told = harm(site, rng)  # that does nothing where it gives None
        if told is None:
            return
        if made != resource:
            done += 1
            yield made, f"{site.kind} {site.at}", site.at if told is True else told or None


def fits(found: str, wanted: str) -> bool:
    """Whether an issue is where the damage is; or below it."""
    return found.startswith(wanted)


class Tally:
    def __init__(self) -> None:
        self.done = self.found = self.placed = self.known_place = 0
        self.missed: list[str] = []

    def add(self, resource: Resource, what: str, place: str | None) -> None:
        issues = [issue for issue in validate(resource) if issue.bad]
        self.done += 1
        self.found += bool(issues)
        if not issues:
            self.missed.append(what)
        elif place is not None:
            self.known_place += 1
            self.placed += any(fits(issue.expression, place) for issue in issues)
            if not any(fits(issue.expression, place) for issue in issues):
                self.missed.append(f"{place} but {[i.expression for i in issues][:3]}")


def tally(examples: list[Resource], harm: Harm, seed: str, places: int) -> Tally:
    told = Tally()
    rng = random.Random(f"{harm.__name__} {seed}")
    for resource in examples:
        for made, what, place in damaged(resource, harm, rng, places):
            told.add(made, f"{resource['resourceType']}/{resource.get('id')}: {what}", place)
    return told


def check(told: Tally, least: int) -> None:
    assert told.done >= least
    assert told.found >= 0.99 * told.done, (told.found, told.done, told.missed[:20])
    assert told.placed >= 0.99 * told.known_place, (told.placed, told.known_place, told.missed[:20])


@pytest.fixture(scope="module")
def good(examples: list[Resource]) -> list[Resource]:
    gaps = tomllib.loads(GAPS.read_text())
    return [r for r in examples if f"{r['resourceType']}/{r.get('id', '')}" not in gaps]


@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
def test_damage_is_found_and_placed(good: list[Resource], harm: Harm) -> None:
    has = {contained: "contained", xhtml: "text"}.get(harm, "resourceType")
    few = [r for r in good if has in r and len(str(r)) < 20_000]
    some = random.Random(harm.__name__).sample(few, len(few))
    check(tally(some[: SAMPLE * (3 if harm is invariant else 1)], harm, "sample", PLACES), 20)


@pytest.mark.soak
@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
def test_all_damage_is_found_and_placed(good: list[Resource], us_core: list[Resource], harm: Harm) -> None:
    told = tally([*good, *us_core], harm, "soak", SOAK_PLACES)
    print(f"{harm.__name__:22} {told.done:6} damaged, found {told.found}, placed {told.placed} of {told.known_place}")
    check(told, 50)
