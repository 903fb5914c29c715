"""Packages of other guides: what they may hold, what is not read, and slicing that the shipped profiles have not."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from typing import Any

import pytest

from carelake.core.errors import Invalid, NotFound
from carelake.fhir.profiles import packages
from carelake.fhir.profiles.registry import Registry, shipped
from carelake.fhir.profiles.tree import Profile, Row, Slicing, TypeOf
from carelake.fhir.validate import validate

Resource = dict[str, Any]
URL = "http://profiles.test/p"


def definition(**more: Any) -> Resource:
    rows = [
        {"id": "Patient", "path": "Patient", "min": 0, "max": "*"},
        {"id": "Patient.birthDate", "path": "Patient.birthDate", "min": 1, "max": "1", "type": [{"code": "date"}]},
    ]
    made = {"resourceType": "StructureDefinition", "url": URL, "type": "Patient", "kind": "resource"}
    return {**made, "derivation": "constraint", "snapshot": {"element": rows}, **more}


def package(*members: tuple[str, bytes | tarfile.TarInfo], end: bytes = b"") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in members:
            info = data if isinstance(data, tarfile.TarInfo) else tarfile.TarInfo(name)
            if isinstance(data, bytes):
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
            else:
                archive.addfile(info)
    return gzip.compress(out.getvalue() + end, 1)


def text(value: Any) -> bytes:
    return json.dumps(value).encode()


def link(name: str, kind: bytes) -> tuple[str, tarfile.TarInfo]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "/etc/passwd"
    return name, info


GOOD = ("package/StructureDefinition-p.json", text(definition()))


def test_names_and_links_lead_nowhere() -> None:
    tricks = package(
        ("../../../etc/StructureDefinition-x.json", text(definition(url=f"{URL}/up"))),
        ("/etc/StructureDefinition-y.json", text(definition(url=f"{URL}/root"))),
        link("package/StructureDefinition-l.json", tarfile.SYMTYPE),
        link("package/StructureDefinition-h.json", tarfile.LNKTYPE),
        link("package/StructureDefinition-d.json", tarfile.CHRTYPE),
        ("package/notes.json", b"no json at all"),
        ("package/example/StructureDefinition-e.json", text(definition(url=f"{URL}/example"))),
        GOOD,
    )
    known = set(packages.load(tricks, shipped()).urls()) - set(shipped().urls())
    assert known == {URL, f"{URL}/up", f"{URL}/root"}  # a name is a name: nothing is written


def test_what_a_profile_may_be() -> None:
    old = packages.load(package((GOOD[0], text(definition(fhirVersion="4.0.0")))), shipped())
    assert [i.expression for i in validate({"resourceType": "Patient"}, URL, registry=old)] == ["Patient.birthDate"]
    with pytest.raises(Invalid, match="another version of FHIR"):
        packages.load(package((GOOD[0], text(definition(fhirVersion="5.0.0")))), shipped())
    bare = definition()
    del bare["snapshot"]
    registry = packages.load(package((GOOD[0], text(bare))), shipped())
    with pytest.raises(NotFound, match="without a snapshot"):
        validate({"resourceType": "Patient"}, URL, registry=registry)
    claimed = {"resourceType": "Patient", "meta": {"profile": [URL]}}
    assert [(i.severity, i.code) for i in validate(claimed, registry=registry)] == [("information", "not-supported")]


def _pax_bomb() -> bytes:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 1 << 32
    return gzip.compress(info.tobuf(tarfile.USTAR_FORMAT) + bytes(9 << 20), 9)


def _large_file() -> bytes:
    return package(("package/StructureDefinition-l.json", b" " * (3 << 20)))


def _large_gap() -> bytes:
    return package(GOOD, ("package/image.bin", bytes(9 << 20)))


BOMBS: dict[str, Callable[[], bytes]] = {
    "a header that says four gibibytes": _pax_bomb,
    "one large file": _large_file,
    "a large file that is not read": _large_gap,
    "files without end": lambda: package(*((f"package/{n}", b"") for n in range(2100))),
    "cut short": lambda: package(GOOD)[:-20],
    "no gzip": lambda: gzip.decompress(package(GOOD)),
    "no tar": lambda: gzip.compress(b"x" * 10_000),
    "no json": lambda: package((GOOD[0], b"{")),
    "deep json": lambda: package((GOOD[0], b"[" * 100_000)),
    "long number": lambda: package((GOOD[0], b"[" + b"1" * 100_000 + b"]")),
    "odd definition": lambda: package((GOOD[0], text(definition(snapshot={"element": [5]})))),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_what_is_not_read(bomb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, limit in (("_MAX_BYTES", 8 << 20), ("_MAX_FILE", 2 << 20), ("_MAX_FILES", 2000)):
        monkeypatch.setattr(packages, name, limit)
    with pytest.raises(Invalid) as refused:
        packages.load(BOMBS[bomb](), shipped())
    assert refused.value.code == "fhir.package"


def test_odd_definitions_are_passed_over() -> None:
    odd = [definition(url=["x"]), {"resourceType": "StructureDefinition", "url": "x", "kind": 5}, {"url": URL}, []]
    members = [(f"package/StructureDefinition-{n}.json", text(one)) for n, one in enumerate(odd)]
    assert packages.load(package(*members), shipped()).urls() == shipped().urls()


def test_a_package_that_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "MAX_PACKAGE", 100)
    with pytest.raises(Invalid, match="larger than"):
        packages.load(package(GOOD), shipped())


# --- slicing --------------------------------------------------------------------------------------------------------


def sliced(by: tuple[str, str], *slices: Row, rules: str = "open", ordered: bool = False, at: str = "") -> Registry:
    kind, _, name = (at or "Bundle.entry").partition(".")
    rows = (Row(kind, kind), Row(at or f"{kind}.{name}", f"{kind}.{name}", slicing=Slicing(rules, ordered, (by,))))
    return shipped().joined([Profile(URL, kind, (*rows, *slices))], {})


def entry(name: str, kind: str, **more: Any) -> tuple[Row, ...]:
    at = f"Bundle.entry:{name}"
    own = Row(at, "Bundle.entry", slice_name=name, **more)
    return own, Row(f"{at}.resource", "Bundle.entry.resource", min=1, max="1", type=(TypeOf(*kind.split("|")[:1]),))


def bundle(*resources: Resource) -> Resource:
    return {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": one} for one in resources]}


PATIENT: Resource = {"resourceType": "Patient"}
GROUP: Resource = {"resourceType": "Group", "type": "person", "actual": True}
BASIC: Resource = {"resourceType": "Basic", "code": {"text": "x"}}


def told(resource: Resource, registry: Registry) -> list[tuple[str, str]]:
    return [(i.severity, i.expression) for i in validate(resource, URL, registry=registry)]


def test_slices_by_type_in_order() -> None:
    rows = (*entry("who", "Patient", min=1, max="1"), *entry("all", "Group"))
    both = sliced(("type", "resource"), *rows, ordered=True, rules="openAtEnd")
    assert told(bundle(PATIENT, GROUP, BASIC), both) == []
    assert told(bundle(GROUP), both) == [("error", "Bundle.entry:who")]
    assert told(bundle(GROUP, PATIENT), both) == [("error", "Bundle.entry[1]")]
    assert told(bundle(PATIENT, BASIC, GROUP), both) == [("error", "Bundle.entry[1]")]
    assert told(bundle(PATIENT, PATIENT), both) == [("error", "Bundle.entry:who")]
    assert told(bundle(PATIENT, BASIC), sliced(("type", "resource"), *rows, rules="closed")) == [
        ("error", "Bundle.entry[1]")
    ]


def test_slices_by_profile() -> None:
    core = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-patient"
    own = Row("Bundle.entry:us", "Bundle.entry", slice_name="us", min=1)
    of = Row("Bundle.entry:us.resource", "Bundle.entry.resource", min=1, max="1", type=(TypeOf("Patient", (core,)),))
    registry = sliced(("profile", "resource"), own, of)
    good = {**PATIENT, "identifier": [{"system": "http://x.test", "value": "1"}], "name": [{"family": "x"}]}
    assert told(bundle(PATIENT, {**good, "gender": "male"}), registry) == []
    assert told(bundle(PATIENT, good), registry) == [("error", "Bundle.entry:us")]


def test_slices_by_the_type_of_a_choice() -> None:
    at = "Observation.component"
    own = Row(f"{at}:n", at, slice_name="n", max="1")
    system = Row(f"{at}:n.value[x]", f"{at}.value[x]", type=(TypeOf("Quantity"),))
    code = Row(f"{at}:n.value[x].code", f"{at}.value[x].code", is_="mg")
    registry = sliced(("value", "value.ofType(Quantity).code"), own, system, code, at=at)
    part = {"code": {"text": "x"}, "valueQuantity": {"value": 1, "system": "http://unitsofmeasure.org", "code": "mg"}}
    seen = {"resourceType": "Observation", "status": "final", "code": {"text": "x"}}
    assert told({**seen, "component": [part, {"code": {"text": "x"}, "valueString": "x"}]}, registry) == []
    assert told({**seen, "component": [part, part]}, registry) == [("error", f"{at}:n")]


@pytest.mark.parametrize(
    "path", ["resource.subject.resolve().code", "resource.extension('http://x.y/z').value", "a b"]
)
def test_slices_that_cannot_be_told_apart_are_said_to_be_unchecked(path: str) -> None:
    registry = sliced(("value", path), *entry("who", "Patient", min=1))
    assert told(bundle(PATIENT), registry) == [("information", "Bundle.entry")]
