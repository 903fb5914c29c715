"""Damage that only a profile forbids, made from the profiles, done to the guide's examples: 99 of 100 are found."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec
import pytest

from carelake.fhir.definitions import element, is_primitive
from carelake.fhir.profiles.members import Member, members
from carelake.fhir.profiles.registry import shipped
from carelake.fhir.profiles.slicing import fits
from carelake.fhir.profiles.tree import Node, Profile, Row
from carelake.fhir.validate import validate

Resource = dict[str, Any]


class Spot(NamedTuple):
    """An element of a profile's tree, the object that it belongs to, and its values there."""

    node: Node
    owner: Resource
    kind: str
    found: list[Member]
    at: str

    @property
    def keys(self) -> list[str]:
        """Its JSON names that are there."""
        known = element(self.kind)[self.node.name].keys
        return [key for key in known if key in self.owner or "_" + key in self.owner]


def spots(node: Node, member: Member, told_by: tuple[str, ...] = ()) -> Iterator[Spot]:
    """Every element that a profile tells of, in a resource that follows it; without those that tell slices apart."""
    kind = "Element" if is_primitive(member.kind) else member.kind
    for child in node.children.values():
        if child.name in told_by or child.name not in element(kind) or not member.owner:
            continue
        found = members(member.owner, member.kind, child.name, member.at)
        yield Spot(child, member.owner, kind, found, f"{member.at}.{child.name}")
        for one in found:
            yield from spots(child, one)
        slicing = child.row.slicing
        if slicing is not None and slicing.discriminator:
            names = tuple(path.partition(".")[0] for _, path in slicing.discriminator)
            for slice_, one in ((s, m) for s in child.slices for m in found):
                if "$this" not in names and fits(slice_, one, slicing.discriminator, shipped().root):
                    yield from spots(slice_, one, names)
                if ("type", "$this") in slicing.discriminator and one.kind in slice_.types:
                    yield from spots(slice_, one)


Harm = Callable[[Spot, random.Random], str | None]
"""Does the damage and says where the issue is, "" where that is not told; None for none done."""


def without_what_must_be_there(spot: Spot, rng: random.Random) -> str | None:
    least = element(spot.kind)[spot.node.name].min or not spot.node.row.path.count(".")
    if not spot.node.row.min or least or not spot.keys:
        return None
    for key in spot.keys:
        spot.owner.pop(key, None)
        spot.owner.pop("_" + key, None)
    return spot.at if spot.owner else ""


def another_fixed_value(spot: Spot, rng: random.Random) -> str | None:
    value = spot.node.row.is_
    if value is msgspec.UNSET or not isinstance(value, str) or len(spot.keys) != 1 or len(spot.found) != 1:
        return None
    if isinstance(spot.owner[spot.keys[0]], list):
        return None
    spot.owner[spot.keys[0]] = "other" if spot.found[0].kind != "uri" else "http://other.test"
    return ""


def another_pattern(spot: Spot, rng: random.Random) -> str | None:
    if spot.node.row.like is msgspec.UNSET or len(spot.keys) != 1:
        return None
    (key,) = spot.keys
    if spot.found[0].kind == "CodeableConcept":
        wrong: Any = {"coding": [{"system": "http://codes.test", "code": "other"}]}
    elif spot.found[0].kind == "Coding":
        wrong = {"system": "http://codes.test", "code": "other"}
    else:
        return None
    spot.owner[key] = [wrong] if isinstance(spot.owner[key], list) else wrong
    return ""


def too_many(spot: Spot, rng: random.Random) -> str | None:
    if spot.node.most != 1 or element(spot.kind)[spot.node.name].max == "1" or not spot.found:
        return None
    (key,) = spot.keys
    spot.owner[key] = [*spot.owner[key], copy.deepcopy(spot.owner[key][0])]
    return spot.at


def too_many_in_a_slice(spot: Spot, rng: random.Random) -> str | None:
    slicing = spot.node.row.slicing
    if slicing is None or not slicing.discriminator or not spot.found:
        return None
    for slice_ in spot.node.slices:
        inside = [one for one in spot.found if fits(slice_, one, slicing.discriminator, shipped().root)]
        if inside and slice_.most == len(inside) and isinstance(spot.owner.get(spot.keys[0]), list):
            spot.owner[spot.keys[0]].append(copy.deepcopy(inside[0].value))
            return f"{spot.at}:{slice_.row.slice_name}"
    return None


def without_a_slice(spot: Spot, rng: random.Random) -> str | None:
    slicing = spot.node.row.slicing
    if slicing is None or not slicing.discriminator or not spot.found:
        return None
    for slice_ in spot.node.slices:
        values = spot.owner.get(spot.keys[0])
        if slice_.row.min and isinstance(values, list):
            inside = [one.value for one in spot.found if fits(slice_, one, slicing.discriminator, shipped().root)]
            values[:] = [one for one in values if one not in inside]
            if not values:
                del spot.owner[spot.keys[0]]
            return f"{spot.at}:{slice_.row.slice_name}" if values else ""
    return None


def another_type(spot: Spot, rng: random.Random) -> str | None:
    item = element(spot.kind)[spot.node.name]
    allowed = spot.node.types
    others = [key for key, of in item.keys.items() if of in ("string", "boolean", "dateTime") and of not in allowed]
    if not item.choice or not others or len(spot.keys) != 1:
        return None
    key = rng.choice(others)
    del spot.owner[spot.keys[0]]
    spot.owner[key] = True if item.keys[key] == "boolean" else "2020-01-01"
    return f"{spot.at.rpartition('.')[0]}.{key}"


def another_reference(spot: Spot, rng: random.Random) -> str | None:
    targets = {shipped().type_of(url) for kind in spot.node.row.type for url in kind.targets}
    allowed = set(element(spot.kind)[spot.node.name].targets)
    others = sorted(allowed - targets - {"Resource"})
    if not targets or "Resource" in targets or not others or [m.kind for m in spot.found[:1]] != ["Reference"]:
        return None
    (key,) = spot.keys
    wrong = {"reference": f"{rng.choice(others)}/1"}
    spot.owner[key] = [wrong] if isinstance(spot.owner[key], list) else wrong
    return spot.found[0].at


def a_code_that_is_not_bound(spot: Spot, rng: random.Random) -> str | None:
    if spot.node.codes is None or not spot.found:
        return None
    (key,) = spot.keys
    wrong = {
        "CodeableConcept": {"coding": [{"system": "http://codes.test", "code": "x"}]},
        "Coding": {"system": "http://codes.test", "code": "x"},
    }.get(spot.found[0].kind)
    if wrong is None:
        return None
    spot.owner[key] = [wrong] if isinstance(spot.owner[key], list) else wrong
    return spot.found[0].at


HARMS: list[Harm] = [
    without_what_must_be_there,
    another_fixed_value,
    another_pattern,
    too_many,
    too_many_in_a_slice,
    without_a_slice,
    another_type,
    another_reference,
    a_code_that_is_not_bound,
]
LEAST = {
    another_fixed_value: 10,
    another_pattern: 10,
    too_many: 1,
    another_type: 1,
    another_reference: 1,
    a_code_that_is_not_bound: 3,
}


def damaged(
    resource: Resource, url: str, harm: Harm, rng: random.Random, most: int
) -> Iterator[tuple[Resource, str]]:
    root, kind = shipped().root(url), resource["resourceType"]
    assert root is not None
    numbers = list(range(sum(1 for _ in spots(root, Member(resource, None, kind, kind)))))
    rng.shuffle(numbers)
    made = copy.deepcopy(resource)
    every = list(spots(root, Member(made, None, kind, kind)))
    for number in numbers:
        if most == 0:
            return
        place = harm(every[number], rng)
        if place is not None:
            most -= 1
            yield made, place
            made = copy.deepcopy(resource)
            every = list(spots(root, Member(made, None, kind, kind)))


def check(us_core: list[Resource], harm: Harm, most: int) -> tuple[int, int]:
    done, missed = 0, []
    rng = random.Random(harm.__name__)
    for resource in us_core:
        for url in resource.get("meta", {}).get("profile", []):
            if shipped().root(url) is None:
                continue
            for made, place in damaged(resource, url, harm, rng, most):
                done += 1
                found = [issue.expression for issue in validate(made) if issue.bad]
                if not any(one.startswith(place) for one in found):
                    missed.append((resource["id"], url.rpartition("/")[2], place, found))
    assert len(missed) <= 0.01 * done, (len(missed), done, missed[:10])
    assert done >= LEAST.get(harm, 20)
    return done, done - len(missed)


@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
def test_what_a_profile_forbids_is_found(us_core: list[Resource], harm: Harm) -> None:
    done, found = check(us_core, harm, 1000)
    print(f"{harm.__name__:28} {done:6} damaged, found and placed {found}")


def test_what_must_not_be_there_at_all() -> None:
    rows = (Row("Patient", "Patient"), Row("Patient.photo", "Patient.photo", max="0"))
    url = "http://profiles.test/no-photo"
    registry = shipped().joined([Profile(url, "Patient", rows)], {})
    patient = {"resourceType": "Patient", "meta": {"profile": [url]}, "photo": [{"title": "x"}, {"title": "y"}]}
    assert [i.expression for i in validate(patient, registry=registry)] == ["Patient.photo"]
    del patient["photo"]
    assert validate(patient, registry=registry) == []
