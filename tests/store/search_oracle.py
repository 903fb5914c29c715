"""What a search must find, told by looking at every resource: the same typed conditions, over extracted values."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any

from carelake.core.records import IndexValues
from carelake.fhir.path.ucum import unit
from carelake.fhir.query import Condition, Query
from carelake.fhir.search import Use, extract, parameters

UCUM = "http://unitsofmeasure.org"
SYSTEMS = ["http://loinc.org", "urn:x", ""]
CODES = ["a", "b", "A|b"]
DATES = ["2020", "2020-02", "2020-02-29", "2020-02-29T10:00:00Z", "2021-01-01", "1999-12-31"]
NUMBERS = [1, 1.0, 1.5, 2, -3, 100, 1000, 0.001]
FAMILIES = ["Smith", "Smithers", "Śmith", "de la Cruz", "O'Neil"]
UNITS = ["mg", "g", "kg", "Cel"]


# -- a small hospital ------------------------------------------------------------------------------------------------


def coding(rng: random.Random) -> dict[str, str]:
    system, code = rng.choice(SYSTEMS), rng.choice(CODES)
    shown = {"display": f"Display of {code}"} if rng.random() < 0.5 else {}
    return {"code": code, **shown, **({"system": system} if system else {})}


def concept(rng: random.Random) -> dict[str, Any]:
    codings = [coding(rng) for _ in range(rng.randint(0, 2))]
    text = {"text": rng.choice(["Heart rate", "Other thing"])}
    return {**({"coding": codings} if codings else {}), **text}


def quantity(rng: random.Random) -> dict[str, Any]:
    code = rng.choice(UNITS)
    return {"value": rng.choice(NUMBERS), "unit": code, "system": rng.choice([UCUM, "urn:u"]), "code": code}


def maybe(rng: random.Random, name: str, value: Any, share: float = 0.7) -> dict[str, Any]:
    return {name: value} if rng.random() < share else {}


def period(rng: random.Random) -> dict[str, Any]:
    first, last = sorted(rng.choices(["2019-05-01", "2020-02-28", "2020-02-29", "2021-01-01", "2024-03-03"], k=2))
    return {**maybe(rng, "start", first, 0.9), **maybe(rng, "end", last, 0.7)} or {"start": first}


def observation(rng: random.Random, key: str) -> dict[str, Any]:
    parts = [{"code": concept(rng), "valueQuantity": quantity(rng)} for _ in range(rng.randint(0, 2))]
    return {
        "resourceType": "Observation",
        "id": key,
        "status": rng.choice(["final", "amended"]),
        "code": concept(rng),
        **maybe(rng, "subject", {"reference": f"{rng.choice(['Patient', 'Patient', 'Group'])}/{rng.choice('1234')}"}),
        **maybe(rng, "encounter", {"reference": f"Encounter/{rng.choice('123')}"}),
        **(rng.choice([{"effectiveDateTime": rng.choice(DATES)}, {"effectivePeriod": period(rng)}, {}])),
        **maybe(rng, "valueQuantity", quantity(rng)),
        **maybe(rng, "component", parts, 0.6 if parts else 0.0),
        **maybe(rng, "hasMember", [{"reference": f"Observation/o{rng.randint(0, 9)}"}], 0.3),
    }


def person(rng: random.Random, key: str) -> dict[str, Any]:
    names = [{"family": rng.choice(FAMILIES), "given": [rng.choice(["Ada", "Bo"])]} for _ in range(rng.randint(0, 2))]
    kind = {"coding": [{"system": "http://t", "code": "MR"}]}
    return {
        "resourceType": "Patient",
        "id": key,
        **maybe(rng, "gender", rng.choice(["male", "female"])),
        **maybe(rng, "birthDate", rng.choice(DATES[1:3])),
        **({"name": names} if names else {}),
        **maybe(rng, "identifier", [{"type": kind, "system": "urn:m", "value": f"m{key}"}]),
        **maybe(rng, "generalPractitioner", [{"reference": f"Organization/{rng.choice('123')}"}]),
        **maybe(rng, "managingOrganization", {"identifier": {"system": "urn:o", "value": rng.choice("12")}}),
    }


def hospital(seed: int) -> list[dict[str, Any]]:
    """About a hundred resources."""
    rng = random.Random(seed)
    organisations = [
        {
            "resourceType": "Organization",
            "id": str(n),
            "name": f"House {n}",
            **({"partOf": {"reference": f"Organization/{n - 1}"}} if n > 1 else {}),
        }
        for n in (1, 2, 3)
    ]
    encounters = [
        {
            "resourceType": "Encounter",
            "id": key,
            "status": "finished",
            "class": {"code": rng.choice(["AMB", "EMER"])},
            "subject": {"reference": f"Patient/{rng.choice('1234')}"},
            "period": period(rng),
            "serviceProvider": {"reference": f"Organization/{rng.choice('123')}"},
        }
        for key in "123"
    ]
    places = [
        {
            "resourceType": "Location",
            "id": str(n),
            "position": {"latitude": 42.0 + n / 10, "longitude": -83.0 - n / 5},
        }
        for n in range(5)
    ]
    lists = [
        {
            "resourceType": "List",
            "id": "l",
            "status": "current",
            "mode": "working",
            "entry": [{"item": {"reference": f"Observation/o{n}"}} for n in (1, 4, 40)],
        }
    ]
    told = "<div xmlns='http://www.w3.org/1999/xhtml'>{}</div>"
    sets = [
        {
            "resourceType": "ValueSet",
            "id": str(n),
            "status": "draft",
            "url": url,
            "text": {"status": "generated", "div": told.format(words)},
        }
        for n, (url, words) in enumerate(
            [("http://a/b", "bone marrow"), ("http://a/b/c", "liver bone"), ("http://a/bc", "liver"), ("urn:a", "x")]
        )
    ]
    forms = [
        {
            "resourceType": "Questionnaire",
            "id": f"{n}",
            "status": "active",
            "url": f"http://q/{n}",
            "title": f"Form {n}",
        }
        for n in (1, 2)
    ]
    answers = [
        {"resourceType": "QuestionnaireResponse", "id": str(n), "status": status, "questionnaire": f"http://q/{form}"}
        for n, status, form in ((1, "completed", "1|2.0"), (2, "amended", "2"), (3, "completed", "3"))
    ]
    people = [person(rng, key) for key in "1234"]
    return [
        *forms,
        *answers,
        *organisations,
        *people,
        *encounters,
        *places,
        *lists,
        *sets,
        *(observation(rng, f"o{n}") for n in range(60)),
    ]


# -- the oracle ------------------------------------------------------------------------------------------------------


class World:
    """Everything there is that the scope allows (None: all), with its index values."""

    def __init__(self, resources: Iterable[dict[str, Any]], seen: set[tuple[str, str]] | None = None) -> None:
        there = {(one["resourceType"], one["id"]): one for one in resources}
        self.resources = {key: one for key, one in there.items() if seen is None or key in seen}
        self.values: dict[tuple[str, str], IndexValues] = {key: extract(one) for key, one in self.resources.items()}

    def matches(self, query: Query) -> set[tuple[str, str]]:
        """Type and id of all matches."""
        return {
            key for part in query.each() for key in self.resources if key[0] == part.type and self.meets(key, part)
        }

    def meets(self, key: tuple[str, str], query: Query) -> bool:
        return all(self.holds(key, one) for one in query.conditions)

    def holds(self, key: tuple[str, str], one: Condition) -> bool:
        if one.any:
            return any(self.holds(key, each) for each in one.any)
        if one.has is not None:
            return any(
                other[0] == one.has.type
                and self.points(other, one.has.reference.uses, key)
                and self.meets(other, one.has.query)
                for other in self.resources
            )
        if one.param == "_id":
            return (key[1] in [v.code for v in one.values]) != (one.modifier == "not")
        if one.param == "_list":
            item = parameters("List")["item"].uses
            lists = [("List", v.code) for v in one.values]
            return any(each in self.resources and self.points(each, item, key) for each in lists)
        assert not isinstance(one.param, str)
        if one.modifier == "missing":
            return self.present(key, one.param) != one.missing
        if one.chain:
            return any(
                other[0] == inner.type and self.points(key, one.param.uses, other) and self.meets(other, inner)
                for inner in one.chain
                for other in self.resources
            )
        found = any(self.met(key, one, value) for value in one.values)
        return not found if one.modifier in ("not", "not-in") else found

    def points(self, key: tuple[str, str], uses: Sequence[Use], to: tuple[str, str]) -> bool:
        url = self.resources[to].get("url", "")
        return any(
            row[0] == use.source.name
            and use.target in ("", to[0])
            and (row[1:3] == to or (url and row[3] == url and "canonical" in use.source.kinds))
            for use in uses
            for row in self.values[key].references
        )

    def present(self, key: tuple[str, str], parameter: Any) -> bool:
        def filled(uses: Sequence[Use]) -> bool:
            return any(
                row[0] == use.source.name and (not use.target or row[1] == use.target)
                for use in uses
                for row in self.rows(key, use.source.type)
            )

        if not parameter.components:
            return filled(parameter.uses)
        root, parts = parameter.root, [[Use(source)] for source in parameter.parts]
        return (bool(root) and all(map(filled, root))) or (bool(parts) and all(map(filled, parts)))

    def rows(self, key: tuple[str, str], kind: str) -> Sequence[tuple[Any, ...]]:
        values = self.values[key]
        return {
            "token": values.tokens,
            "string": values.strings,
            "date": values.dates,
            "number": values.quantities,
            "quantity": values.quantities,
            "reference": values.references,
            "uri": values.uris,
            "near": values.positions,
            "words": values.words,
            "part": values.parts,
        }[kind]

    def met(self, key: tuple[str, str], one: Condition, value: Any) -> bool:
        parameter: Any = one.param
        if parameter.type == "composite":
            return self.together(key, parameter, value)
        uses = parameter.uses
        if one.modifier == "text":
            texts = [row for use in uses for row in self.values[key].strings if row[0] == f"{use.source.name}:text"]
            shown = {
                row[1:3]
                for values in self.values.values()
                for row in values.displays
                if value.folded and row[3].startswith(value.folded)
            }
            codes = {row[1:] for use in uses for row in self.values[key].tokens if row[0] == use.source.name}
            return bool(shown & codes) or any(string(row[1:], value, "") for row in texts)
        side = {"of-type": ":of-type", "identifier": ":identifier"}.get(one.modifier, "")
        for use in uses:
            kind = "token" if side else use.source.type
            mine = [row[1:] for row in self.rows(key, kind) if row[0] == use.source.name + side]
            if use.source.phonetic:
                heard = {row[0] for row in mine}
                if heard.issuperset(value.words):
                    return True
            elif kind == "words":
                if {row[0] for row in mine}.issuperset(value.words):
                    return True
            elif kind == "reference" and use.target:
                if any(link(row, value, one.modifier) for row in mine if row[0] == use.target):
                    return True
            elif any(test(row, value, one.modifier) for row in mine):
                return True
        return False

    def together(self, key: tuple[str, str], parameter: Any, value: Any) -> bool:
        if parameter.root and all(
            any(
                test(row[1:], part, "")
                for use in uses
                for row in self.rows(key, use.source.type)
                if row[0] == use.source.name
            )
            for uses, part in zip(parameter.root, value.parts, strict=True)
        ):
            return True
        items = {row[1] for row in self.values[key].parts}
        return bool(parameter.parts) and any(
            all(
                any(
                    component(row, part) for row in self.values[key].parts if row[0] == source.name and row[1] == item
                )
                for source, part in zip(parameter.parts, value.parts, strict=True)
            )
            for item in items
        )


def component(row: Any, value: Any) -> bool:
    _, _, text, low, high, system, code = row
    match type(value).__name__:
        case "TokenValue":
            return token((system, text), value, "")
        case "NumberValue":
            return number((low, high, system, code), value, "")
    raise TypeError(value)


def test(row: Any, value: Any, modifier: str) -> bool:
    return {
        "TokenValue": token,
        "StringValue": string,
        "DateValue": date,
        "NumberValue": number,
        "ReferenceValue": link,
        "UriValue": uri,
        "NearValue": near,
    }[type(value).__name__](row, value, modifier)


test.__test__ = False  # type: ignore[attr-defined]


def token(row: Any, value: Any, _: str) -> bool:
    return value.system in (None, row[0]) and value.code in (None, row[1])


def string(row: Any, value: Any, modifier: str) -> bool:
    if modifier == "exact":
        return bool(row[1] == value.text)
    if not value.folded:
        return False
    return value.folded in row[0] if modifier == "contains" else row[0].startswith(value.folded)


def date(row: Any, value: Any, _: str = "") -> bool:
    low, high = row
    inside = value.low <= low and high <= value.high
    return {
        "eq": inside,
        "ne": not inside,
        "gt": high > value.high,
        "lt": low < value.low,
        "ge": high > value.high or inside,
        "le": low < value.low or inside,
        "sa": low >= value.high,
        "eb": high <= value.low,
        "ap": low < value.high and value.low < high,
    }[value.prefix]


def exactly(number_: float) -> Fraction:
    """The decimal that a float was written as."""
    return Fraction(repr(number_))


def number(row: Any, value: Any, _: str) -> bool:
    low, high, system, code = row
    factor = Fraction(1)
    if value.system not in (None, system):
        return False
    if value.code not in (None, code):
        ours, theirs = (unit(each) if value.system == UCUM else None for each in (value.code, code))
        if ours is None or theirs is None or ours.special or theirs.special or ours.dimension != theirs.dimension:
            return False
        factor = ours.factor / theirs.factor
    least, most, exact = (exactly(each) * factor for each in (value.low, value.high, value.number))
    low, high = exactly(low), exactly(high)
    inside = least <= low and high < most
    return {
        "eq": inside,
        "ne": not inside,
        "gt": high > exact,
        "sa": low > exact,
        "lt": low < exact,
        "eb": high < exact,
        "ge": high >= exact,
        "le": low <= exact,
        "ap": low <= most and least <= high,
    }[value.prefix]


def link(row: Any, value: Any, modifier: str) -> bool:
    kind, key, url = row
    if value.url:
        return uri((url,), value, modifier)
    return key == value.id and value.type in ("", kind) and not url


def uri(row: Any, value: Any, modifier: str) -> bool:
    told = value.url if hasattr(value, "url") else value.value
    mine = row[0]
    if modifier == "below":
        return bool(mine == told or mine.startswith(told.rstrip("/") + "/"))
    if modifier == "above":
        return bool(mine == told or told.startswith(mine.rstrip("/") + "/") or told.rstrip("/") == mine.rstrip("/"))
    return bool(mine == told)


def near(row: Any, value: Any, _: str) -> bool:
    lat1, lon1, lat2, lon2 = map(math.radians, (value.latitude, value.longitude, *row))
    cosine = math.sin(lat1) * math.sin(lat2) + math.cos(lat1) * math.cos(lat2) * math.cos(lon1 - lon2)
    return bool(6371.0088 * math.acos(max(-1.0, min(1.0, cosine))) <= value.kilometres)
