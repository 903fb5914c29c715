"""The official FHIRPath suite for R4: every case passes, but for the known gaps."""

from __future__ import annotations

import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree as ET

import pytest

from carelake.core.canonical import load
from carelake.core.clock import FixedClock, instant
from carelake.core.errors import CarelakeError
from carelake.fhir.path import Services, compile
from carelake.fhir.path.model import Type, type_named
from carelake.fhir.path.quantity import Quantity
from carelake.fhir.path.temporal import Temporal
from carelake.fhir.path.values import system

GAPS = Path(__file__).resolve().parents[1] / "conformance" / "fhirpath_r4_gaps.toml"
XHTML = "{http://www.w3.org/1999/xhtml}"


def local(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]


def primitive_json(element: ET.Element, kind: Type) -> tuple[Any, Any]:
    """(value, what is beside it) of a primitive."""
    text = element.get("value")
    value: Any = text
    if text is not None and kind.system == "Boolean":
        value = text == "true"
    elif text is not None and kind.system in ("Integer", "Decimal"):
        value = load(text)
    extra = complex_json(element, type_named("Element"))
    return value, extra or None


def complex_json(element: ET.Element, kind: Type) -> dict[str, Any]:
    """The JSON form of an element in XML (https://hl7.org/fhir/R4/json.html)."""
    made: dict[str, Any] = {"id": element.get("id")} if element.get("id") else {}
    if "url" in kind.fields and element.get("url"):
        made["url"] = element.get("url")
    for child in element:
        name = local(child)
        field, inner = kind.keys[name]
        if child.tag == XHTML + "div":
            ET.register_namespace("", "http://www.w3.org/1999/xhtml")
            value, extra = ET.tostring(child, encoding="unicode"), None
        elif inner.resolves:
            value, extra = resource_json(child[0]), None
        elif inner.primitive:
            value, extra = primitive_json(child, inner)
        else:
            value, extra = complex_json(child, inner), None
        if not field.many:
            made.update({name: value} if value is not None else {}, **({"_" + name: extra} if extra else {}))
            continue
        made.setdefault(name, []).append(value)
        if extra or "_" + name in made:
            beside = made.setdefault("_" + name, [])
            beside += [None] * (len(made[name]) - len(beside) - 1) + [extra]
    return made


def resource_json(element: ET.Element) -> dict[str, Any]:
    kind = local(element)
    return {"resourceType": kind, **complex_json(element, type_named(kind))}


def parsed(text: str) -> ET.Element:
    assert "<!DOCTYPE" not in text  # nothing that a parser would fetch or expand
    assert "<!ENTITY" not in text
    return ET.fromstring(text)


class Case(NamedTuple):
    name: str
    file: str
    expression: str
    outputs: list[tuple[str, str]]
    invalid: str
    strict: bool
    predicate: bool
    ordered: bool


def read_cases(folder: Path) -> list[Case]:
    found: list[Case] = []
    seen: dict[str, int] = {}
    for test in parsed((folder / "fhirpath" / "tests-fhir-r4.xml").read_text(encoding="utf-8")).iter("test"):
        expression = test.find("expression")
        name = test.get("name", "")
        seen[name] = seen.get(name, 0) + 1
        found.append(
            Case(
                name if seen[name] == 1 else f"{name}#{seen[name]}",
                test.get("inputfile", ""),
                expression.text or "",
                [(output.get("type", ""), output.text or "") for output in test.findall("output")],
                expression.get("invalid", ""),
                "strict" in (test.get("mode"), expression.get("mode")) or test.get("checkOrderedFunctions") == "true",
                test.get("predicate") == "true",
                test.get("ordered") != "false",
            )
        )
    return found


def shown(item: Any) -> str:
    """An item in the suite's own notation."""
    value = system(item)
    if isinstance(value, Temporal):
        return ("@T" if value.kind == "Time" else "@") + value.text
    if isinstance(value, Quantity):
        return value.text
    if isinstance(value, bool):
        return "true" if value else "false"
    return format(value, "f") if isinstance(value, Decimal) else str(value)


def same(found: str, wanted: str, kind: str) -> bool:
    if kind == "decimal":
        return Decimal(found) == Decimal(wanted)
    return found == wanted


def verdict(case: Case, resource: Any) -> str:
    """ "" where the case passes, or what is wrong."""
    services = Services(clock=FixedClock(instant("2026-01-02T03:04:05.678Z")))
    try:
        items = compile(case.expression).items(resource, services=services, strict=case.strict)
    except CarelakeError as error:
        return "" if case.invalid else f"{error.code}: {error.message}"
    if case.invalid and not case.outputs:
        return "no error"
    if case.predicate:
        items = [bool(items)]
    texts = [shown(item) for item in items]
    wanted = case.outputs
    if not case.ordered:
        texts, wanted = sorted(texts), sorted(wanted, key=lambda output: output[1])
    if len(texts) != len(wanted) or not all(
        same(found, text, kind) for found, (kind, text) in zip(texts, wanted, strict=True)
    ):
        return f"got {texts}"
    return ""


def read_inputs(folder: Path) -> dict[str, Any]:
    """The resources by file name; XML is brought into the form of JSON by the definitions."""
    found = {file.name: load(file.read_bytes()) for file in (folder / "inputs").glob("*.json")}
    for file in (folder / "inputs").glob("*.xml"):
        found[file.name] = resource_json(parsed(file.read_text(encoding="utf-8")))
    return found


@pytest.fixture(scope="module")
def suite(shared_data: Path) -> dict[str, str]:
    """Name of each case to what is wrong with it."""
    folder = shared_data / "fhir-test-cases-r4"
    if not folder.is_dir():
        pytest.skip("the official FHIRPath cases are not here")
    inputs = read_inputs(folder)
    return {case.name: verdict(case, inputs.get(case.file)) for case in read_cases(folder)}


def test_official_cases_pass_but_for_known_gaps(suite: dict[str, str]) -> None:
    gaps = tomllib.loads(GAPS.read_text())
    failed = {name: why for name, why in suite.items() if why}
    assert {name: why for name, why in failed.items() if name not in gaps} == {}
    assert sorted(set(gaps) - set(failed)) == [], "fixed: take it off the list"
    assert all(gap["why"] for gap in gaps.values())


def test_no_official_case_is_lost(suite: dict[str, str]) -> None:
    assert len(suite) >= 935
    assert len([name for name, why in suite.items() if not why]) >= 925
