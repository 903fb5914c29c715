"""The views that come with the package: they compile, agree with the oracle, and have what US Core must support."""

from __future__ import annotations

import io
import json
import re
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from carelake.core.errors import NotFound
from carelake.lake.ready.shelf import find, is_ready, names
from carelake.lake.views import run
from carelake.lake.views.build import build
from carelake.lake.views.definition import read
from carelake.lake.views.duckdb import DuckDb
from carelake.lake.views.over import over
from carelake.lake.views.spark import Spark

sys.path.append(str(Path(__file__).parent))

import ready_data
import views_data

_CALL = re.compile(r"(\w+)\(")
_NAME = re.compile(r"[A-Za-z]\w*")


def same(a: Any, b: Any) -> bool:
    """The oracle tells a decimal without a point as a whole number."""
    if isinstance(a, int | float) and isinstance(b, int | float) and not isinstance(a, bool):
        return abs(a - b) <= 1e-12 * max(1.0, abs(a))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[name], b[name]) for name in a)
    return views_data.same(a, b)


def differences(view: Any, resources: list[dict[str, Any]]) -> list[str]:
    mine = [one for one in resources if one["resourceType"] == view["resource"]]
    told, found = run(view, mine, engine="oracle"), run(view, mine)
    if len(told) != len(found):
        return [f"{view['name']}: {len(told)} rows and {len(found)}"]
    return [
        f"{view['name']}.{name}" for a, b in zip(told, found, strict=True) for name in a if not same(a[name], b[name])
    ]


def _some(resources: list[dict[str, Any]], most: int = 60) -> list[dict[str, Any]]:
    """So many of each type: the oracle takes its time."""
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for one in resources:
        by_kind.setdefault(one["resourceType"], []).append(one)
    return [one for of_kind in by_kind.values() for one in of_kind[:most]]


@pytest.mark.parametrize("name", names())
def test_a_view_compiles_for_both_engines(name: str) -> None:
    view = find(name)
    definition = read(view)
    plan = build(definition)
    assert DuckDb().select(plan)
    assert Spark().select(plan)
    assert (view["name"], view["status"]) == (name, "active")
    assert view["title"].endswith((".", "it."))
    assert definition.columns[0].name == "id"
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", column.name) for column in definition.columns)


def test_what_is_not_there_is_not_found() -> None:
    assert is_ready("patient")
    assert not is_ready("../patient")
    with pytest.raises(NotFound, match="no ready-made view"):
        find("../ready/shelf")


def test_views_agree_with_the_oracle_on_the_guides_examples(shared_data: Path) -> None:
    examples = ready_data.guide_examples(shared_data)
    assert len(examples) > 180
    assert [line for name in names() for line in differences(find(name), examples)] == []


def test_views_agree_with_the_oracle_on_a_synthetic_hospital_and_in_the_lake(tmp_path: Path) -> None:
    resources = _some(ready_data.synthetic(tmp_path / "synth", 8))
    kinds = {one["resourceType"] for one in resources}
    chosen = [name for name in names() if find(name)["resource"] in kinds]
    assert len(chosen) > 20
    assert [line for name in chosen for line in differences(find(name), resources)] == []
    with ready_data.place_of(tmp_path, resources) as place:
        for name in ("patient", "encounter_location", "blood_pressure", "observation_lab"):
            found = over(place.permit(), place.vault, place.snapshot, find(name))
            mine = [one for one in resources if one["resourceType"] == find(name)["resource"]]
            assert sorted(found.column("id").to_pylist()) == sorted(row["id"] for row in run(find(name), mine))
        one = next(r["id"] for r in resources if r["resourceType"] == "Patient")
        some = over(place.permit(), place.vault, place.snapshot, find("patient"), patient=frozenset({one, "nobody"}))
        assert some.column("id").to_pylist() == [one]
        none = over(place.permit(), place.vault, place.snapshot, find("patient"), patient=frozenset())
        assert len(none) == 0


# -- what US Core says must be supported -----------------------------------------------------------------------------


def touched(path: str, base: str) -> Iterator[str]:
    """Elements that a FHIRPath of the shipped views reads, as dotted names; conditions inside of it too."""
    here, at = base, 0
    while at < len(path):
        call, name = _CALL.match(path, at), _NAME.match(path, at)
        if path[at] == "(":
            inner, at = _inside(path, at)
            yield from touched(inner, here)
        elif call:
            inner, at = _inside(path, call.end() - 1)
            if call[1] in ("where", "exists"):
                yield from touched(inner, here)
            elif call[1] == "extension":
                here = f"{here}.extension"
                yield f"{here}:{inner.strip(chr(39)).rpartition('/')[2]}"
            elif call[1] == "getReferenceKey":
                yield f"{here}.reference"
        elif path[at] == "'":
            at = path.index("'", at + 1) + 1
        elif name and path[at - 1] != "%":
            here = f"{here}.{name[0]}" if at and path[at - 1] == "." else f"{base}.{name[0]}"
            at = name.end()
        elif path[at] == " ":
            here, at = base, at + 1
        else:
            at += 1
        yield here


def _inside(path: str, at: int) -> tuple[str, int]:
    depth, start = 0, at + 1
    while True:
        depth += {"(": 1, ")": -1}.get(path[at], 0)
        at += 1
        if not depth:
            return path[start : at - 1], at


def elements(selects: list[Any], base: str) -> Iterator[str]:
    for select in selects:
        each = [select[key] for key in ("forEach", "forEachOrNull") if key in select]
        inside = base
        for path in each:
            found = list(touched(path, base))
            yield from found
            inside = found[-1]
        bases = {inside}
        for _ in range(2 if "repeat" in select else 0):
            bases |= {one for path in select["repeat"] for above in bases for one in touched(path, above)}
        yield from bases
        for one in bases:
            for column in select.get("column", ()):
                yield from touched(column["path"], one)
            yield from elements(select.get("select", []), one)


def must_support(shared_data: Path) -> Iterator[tuple[str, str, str, list[str]]]:
    """Profile, its type, its base, and the elements that it must support, without slices and choices."""
    data = (shared_data / "us-core-6.1.0" / "us_core_610.tgz").read_bytes()
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive:
            if re.fullmatch(r"package/StructureDefinition-.*\.json", member.name):
                stream = archive.extractfile(member)
                assert stream is not None
                told = json.loads(stream.read())
                if told.get("derivation") != "constraint" or told["type"] in ("Extension", "Quantity"):
                    continue
                ids = [one["id"] for one in told["snapshot"]["element"] if one.get("mustSupport")]
                found = {re.sub(r":(?:(?!extension)[\w-])+|\[x\]", "", one.partition(".")[2]) for one in ids}
                yield told["url"], told["type"], told["baseDefinition"], sorted(found - {""})


def test_every_element_that_must_be_supported_is_in_a_view(shared_data: Path) -> None:
    by_profile: dict[str, set[str]] = {}
    for name in names():
        view = find(name)
        read_by = {one.lstrip(".") for one in elements(view["select"], "")}
        read_by |= {one.lstrip(".") for where in view.get("where", ()) for one in touched(where["path"], "")}
        for profile in view.get("profile", ()):
            by_profile.setdefault(profile, set()).update(read_by)
    missing, profiles = [], 0
    for url, _, base, wanted in must_support(shared_data):
        have = by_profile.get(url) or by_profile.get(base) or set()
        profiles += 1
        for element in wanted:
            if not any(one == element or one.startswith((f"{element}.", f"{element}:")) for one in have):
                missing.append(f"{url.rpartition('/')[2]}: {element}")
    assert profiles > 45
    assert missing == []


def test_race_ethnicity_and_birth_sex_are_columns() -> None:
    base = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-"

    def omb(name: str, code: str, display: str) -> dict[str, Any]:
        category = {"url": "ombCategory", "valueCoding": {"system": "urn:oid:x", "code": code, "display": display}}
        return {"url": base + name, "extension": [category, {"url": "text", "valueString": display}]}

    patient = {
        "resourceType": "Patient",
        "id": "a",
        "extension": [
            omb("race", "2106-3", "White"),
            omb("ethnicity", "2186-5", "Not Hispanic or Latino"),
            {"url": base + "birthsex", "valueCode": "F"},
            {"url": base + "sex", "valueCode": "248152002"},
        ],
    }
    [row] = run(find("patient"), [patient])
    told = [row[name] for name in ("race", "race_display", "race_text", "ethnicity", "birth_sex", "sex")]
    assert told == ["2106-3", "White", "White", "2186-5", "F", "248152002"]
