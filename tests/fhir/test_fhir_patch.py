"""JSON Patch and FHIRPath Patch beyond the official cases: laws, FHIR's own shapes, and hostile patches."""

from __future__ import annotations

import json
import time
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from carelake.core.canonical import dump, dump_as_given, load
from carelake.core.errors import Invalid
from carelake.fhir.patch import fhirpath_patch, json_patch, merge_patch
from carelake.fhir.patch.bounds import MAX_OPERATIONS

Json = dict[str, Any]


def of(*parts: tuple[str, Any]) -> Json:
    """One operation: the names of its parts with their value[x], or whole."""
    keys = {"type": "valueCode", "path": "valueString", "name": "valueString"}
    keys |= dict.fromkeys(("index", "source", "destination"), "valueInteger")
    listed = [{"name": name, **(told if isinstance(told, dict) else {keys[name]: told})} for name, told in parts]
    return {"name": "operation", "part": listed}


def parameters(*operations: Json) -> Json:
    return {"resourceType": "Parameters", "parameter": list(operations)}


def path(resource: Json, *operations: Json, **more: Any) -> Json:
    return fhirpath_patch(resource, parameters(*operations), **more)


def add(where: str, name: str, **value: Any) -> Json:
    return of(("type", "add"), ("path", where), ("name", name), ("value", value))


def replace(where: str, **value: Any) -> Json:
    return of(("type", "replace"), ("path", where), ("value", value))


def delete(where: str) -> Json:
    return of(("type", "delete"), ("path", where))


def code_of(error: pytest.ExceptionInfo[Invalid]) -> str:
    return error.value.code


# -- JSON Patch ------------------------------------------------------------------------------------------------------


def test_test_tells_true_from_one_and_takes_numbers_by_value() -> None:
    for value, other in ((True, 1), (False, 0), (1, True), ("1", 1), (None, 0), ([], {}), (None, False)):
        with pytest.raises(Invalid) as error:
            json_patch({"a": value}, [{"op": "test", "path": "/a", "value": other}])
        assert code_of(error) == "fhir.patch_test"
    same: list[tuple[Any, Any]] = [(1, Decimal("1.0")), (Decimal("1.10"), Decimal("1.1")), (None, None), ([1], [1])]
    for value, other in same:
        assert json_patch({"a": value}, [{"op": "test", "path": "/a", "value": other}]) == {"a": value}


def test_digits_and_order_are_kept() -> None:
    text = b'{"z":1.10,"a":{"y":1e2,"b":0.00}}'
    made = json_patch(load(text), [{"op": "copy", "from": "/a", "path": "/c"}])
    assert dump_as_given(made) == b'{"z":1.10,"a":{"y":1e2,"b":0.00},"c":{"y":1e2,"b":0.00}}'


@pytest.mark.parametrize(
    "operation",
    [
        1,
        {},
        {"op": "add"},
        {"op": "add", "path": "/a"},
        {"op": ["add"], "path": "/a", "value": 1},
        {"op": "addd", "path": "/a", "value": 1},
        {"op": "add", "path": "a", "value": 1},
        {"op": "add", "path": 7, "value": 1},
        {"op": "add", "path": "/a~2", "value": 1},
        {"op": "add", "path": "/a~", "value": 1},
        {"op": "move", "path": "/a"},
        {"op": "copy", "path": "/a", "from": "l"},
        {"op": "move", "from": "/o", "path": "/o/in"},
        {"op": "remove", "path": ""},
        {"op": "test", "path": "/a"},
    ],
)
def test_what_is_no_operation_is_refused(operation: Any) -> None:
    with pytest.raises(Invalid) as error:
        json_patch({"a": 1, "o": {"in": 1}}, [{"op": "test", "path": "/a", "value": 1}, operation])
    assert code_of(error) == "fhir.patch"
    assert error.value.facts["operation"] == 1


@pytest.mark.parametrize("place", ["-1", "01", "3", "1e0", "٣", "+1", " 1", "99999999999999999999", "9" * 5000, ""])
def test_places_in_lists_are_plain_numbers_in_range(place: str) -> None:
    for operation in ({"op": "remove"}, {"op": "add", "value": 1}, {"op": "replace", "value": 1}):
        with pytest.raises(Invalid) as error:
            json_patch({"l": [1, 2]}, [{**operation, "path": f"/l/{place}"}])
        assert code_of(error) == "fhir.patch_path"


def test_the_whole_is_replaced_by_an_object_only() -> None:
    assert json_patch({"a": 1}, [{"op": "replace", "path": "", "value": {"b": 2}}]) == {"b": 2}
    with pytest.raises(Invalid) as error:
        json_patch({"a": 1}, [{"op": "add", "path": "", "value": [1]}])
    assert code_of(error) == "fhir.patch_value"


def test_what_a_removal_emptied_is_left_out_when_tidy() -> None:
    resource: Json = {"resourceType": "Patient", "name": [{"given": ["a"]}], "contact": [{}, {"name": {"text": "t"}}]}
    gone = [{"op": "remove", "path": "/name/0/given/0"}]
    assert json_patch(resource, gone, tidy=True) == {"resourceType": "Patient", "contact": resource["contact"]}
    assert json_patch(resource, gone)["name"] == [{"given": []}]
    again = [*gone, {"op": "add", "path": "/name/0/given/-", "value": "b"}]
    assert json_patch(resource, again, tidy=True)["name"] == [{"given": ["b"]}]
    inner = [{"op": "remove", "path": "/contact/1/name/text"}]
    assert json_patch(resource, inner, tidy=True)["contact"] == [{}]


def test_a_copy_bomb_ends_at_the_bound() -> None:
    doubling = [{"op": "copy", "from": "", "path": "/a"} for _ in range(200)]
    began = time.perf_counter()
    with pytest.raises(Invalid) as error:
        json_patch({"x": "y" * 1000}, doubling, most=1 << 20)
    assert code_of(error) == "fhir.patch_limit"
    assert time.perf_counter() - began < 2


def test_hostile_sizes_and_depths() -> None:
    deep: Any = {}
    for _ in range(400):
        deep = {"a": deep}
    nested = [{"op": "add", "path": "/a" * n, "value": deep} for n in range(1, 999, 400)]
    with pytest.raises(Invalid):
        json_patch({}, [*nested, *([{"op": "copy", "from": "", "path": "/a" * 300 + "/b"}] * 20)], most=1 << 20)
    with pytest.raises(Invalid) as error:
        json_patch({}, [{"op": "test", "path": "", "value": {}}] * (MAX_OPERATIONS + 1))
    assert code_of(error) == "fhir.patch_limit"
    with pytest.raises(Invalid) as error:
        json_patch({"a": 1}, [{"op": "test", "path": "/a" * 500_000, "value": {}}])
    assert code_of(error) == "fhir.patch_path"
    with pytest.raises(Invalid) as error:
        json_patch({}, [{"op": "add", "path": "/a", "value": "x" * 2000}], most=1000)
    assert code_of(error) == "fhir.patch_limit"


_names = st.sampled_from(["a", "b", "~", "/", "0", ""])
_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_names, inner, max_size=3),
    max_leaves=6,
)
_paths = st.lists(_names | st.sampled_from(["0", "1", "2", "-"]), max_size=3).map(
    lambda names: "".join("/" + name.replace("~", "~0").replace("/", "~1") for name in names)
)
_operations = st.one_of(
    st.fixed_dictionaries({"op": st.sampled_from(["add", "replace", "test"]), "path": _paths, "value": _values}),
    st.fixed_dictionaries({"op": st.just("remove"), "path": _paths}),
    st.fixed_dictionaries({"op": st.sampled_from(["move", "copy"]), "path": _paths, "from": _paths}),
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(_names, _values, max_size=3), st.lists(_operations, max_size=4))
def test_agrees_with_another_implementation(document: Json, operations: list[Json]) -> None:
    jsonpatch = pytest.importorskip("jsonpatch")
    # Known of it: `test` holds true equal to 1; what it does with the whole is its own.
    assume(not any(one["op"] == "test" or one["path"] == "" or one.get("from") == "" for one in operations))
    before = dump(document)
    try:
        theirs = jsonpatch.apply_patch(document, operations)
    except Exception:
        theirs = None
    try:
        ours = json_patch(document, operations)
    except Invalid:
        ours = None
    assert dump(document) == before
    assert json.dumps(ours, sort_keys=True) == json.dumps(theirs, sort_keys=True)


# -- JSON Merge Patch ------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(_names, _values, max_size=3), st.dictionaries(_names, _values, max_size=3))
def test_a_merge_says_the_last_word(document: Json, change: Json) -> None:
    before = dump(document)
    made = merge_patch(document, change)
    assert dump(document) == before
    assert made == merged(document, change)


def test_hostile_merges_are_bounded() -> None:
    deep: Any = 1
    for _ in range(100_000):
        deep = {"a": deep}
    for change, most in (({"a": "x" * 100}, 50), (deep, 1 << 20)):
        with pytest.raises(Invalid) as error:
            merge_patch({}, change, most=most)
        assert code_of(error) == "fhir.patch_limit"


def merged(target: Any, change: Any) -> Any:
    """The pseudocode of RFC 7396 section 2."""
    if not isinstance(change, dict):
        return change
    made = dict(target) if isinstance(target, dict) else {}
    for name, value in change.items():
        if value is None:
            made.pop(name, None)
        else:
            made[name] = merged(made.get(name), value)
    return made


# -- FHIRPath Patch --------------------------------------------------------------------------------------------------

PATIENT: Json = {
    "resourceType": "Patient",
    "id": "p",
    "name": [
        {"use": "official", "family": "F", "given": ["A", "B"], "_given": [None, {"id": "b"}]},
        {"use": "usual", "given": ["C"]},
    ],
    "birthDate": "1970-01-01",
    "deceasedBoolean": False,
}
EXTENSION = {"url": "http://x", "valueString": "v"}


def test_a_choice_is_named_by_its_stem() -> None:
    made = path(PATIENT, replace("Patient.deceased", valueDateTime="2020-01-01"))
    assert made["deceasedDateTime"] == "2020-01-01"
    assert "deceasedBoolean" not in made
    with pytest.raises(Invalid) as error:
        path(PATIENT, add("Patient", "deceased", valueDateTime="2020-01-01"))
    assert code_of(error) == "fhir.patch_path"
    whole = path({"resourceType": "Observation"}, add("Observation", "value", valueQuantity={"value": 1}))
    assert whole["valueQuantity"] == {"value": 1}
    assert path(whole, delete("Observation.value.ofType(Quantity)")) == {"resourceType": "Observation"}


def test_what_stands_beside_primitives_stays_with_them() -> None:
    made = path(PATIENT, of(("type", "move"), ("path", "Patient.name[0].given"), ("source", 1), ("destination", 0)))
    assert (made["name"][0]["given"], made["name"][0]["_given"]) == (["B", "A"], [{"id": "b"}, None])
    made = path(made, delete("Patient.name[0].given[0]"))
    assert made["name"][0]["given"] == ["A"]
    assert "_given" not in made["name"][0]
    parts = [{"name": "url", "valueUri": "http://x"}, {"name": "value", "valueString": "v"}]
    dated = path(PATIENT, add("Patient.birthDate", "extension", part=parts))
    assert dated["_birthDate"] == {"extension": [EXTENSION]}
    assert path(dated, delete("Patient.birthDate.extension('http://x')")) == PATIENT
    replaced = path(dated, replace("Patient.birthDate", valueDate="1980-01-01"))
    assert replaced["birthDate"] == "1980-01-01"
    assert "_birthDate" not in replaced


def test_a_primitive_in_a_list_is_found_by_a_condition() -> None:
    made = path(PATIENT, replace("name.where(use = 'official').given.where($this = 'B')", valueString="X"))
    assert made["name"][0]["given"] == ["A", "X"]
    made = path(PATIENT, delete("Patient.name.last().given.first()"), delete("Patient.name[1]"))
    assert [one["use"] for one in made["name"]] == ["official"]


def test_anonymous_values_nest() -> None:
    parts = [
        {"name": "code", "valueCodeableConcept": {"text": "c"}},
        {"name": "value", "valueQuantity": {"value": Decimal("1.10")}},
        {"name": "interpretation", "valueCodeableConcept": {"text": "i"}},
        {"name": "interpretation", "valueCodeableConcept": {"text": "j"}},
        {"name": "referenceRange", "part": [{"name": "text", "valueString": "r"}]},
    ]
    made = path({"resourceType": "Observation"}, add("Observation", "component", part=parts))
    assert dump(made["component"]) == dump(
        [
            {
                "code": {"text": "c"},
                "valueQuantity": {"value": Decimal("1.10")},
                "interpretation": [{"text": "i"}, {"text": "j"}],
                "referenceRange": [{"text": "r"}],
            }
        ]
    )


def test_contained_resources_are_added_and_reached() -> None:
    inner = {"resourceType": "Organization", "id": "o", "name": "n"}
    made = path(PATIENT, add("Patient", "contained", resource=inner))
    made = path(made, replace("Patient.contained.where(id = 'o').name", valueString="m"))
    assert made["contained"] == [{**inner, "name": "m"}]


@pytest.mark.parametrize(
    ("operation", "reason"),
    [
        (replace("Patient.name", valueHumanName={"text": "x"}), "path"),  # two
        (delete("Patient.name"), "path"),
        (replace("Patient.gender", valueCode="male"), "path"),  # none
        (replace("Patient", resource={"resourceType": "Patient"}), "path"),
        (delete("Patient"), "path"),
        (delete("Patient.nosuch"), "path"),
        (delete("Observation.status"), "path"),
        (delete("Patient.managingOrganization.resolve()"), "path"),
        (delete("Patient.descendants()"), "path"),
        (delete("Patient.name.given | Patient.name.family"), "path"),
        (delete("Patient.name.select(given)"), "path"),
        (delete("'x'"), "path"),
        (delete("Patient.name["), "path"),
        (delete("%resource.name[0]"), "path"),
        (add("Patient", "nosuch", valueString="x"), "path"),
        (add("Patient", "resourceType", valueString="Observation"), "path"),
        (add("Patient", "birthDate", valueDate="1980"), "path"),  # there already
        (add("Patient.birthDate", "value", valueDate="1980"), "path"),
        (add("Patient", "active", valueString="true"), "value"),
        (add("Patient", "gender", valueInteger=1), "value"),
        (add("Patient", "maritalStatus", valueCoding={"code": "M"}), "value"),
        (add("Patient", "contact", valueString="x"), "value"),
        (add("Patient", "gender", valueCode="male", valueString="male"), "value"),
        (add("Patient", "gender"), "value"),
        (add("Patient", "gender", valueNosuch="x"), "value"),
        (add("Patient", "contact", part=[{"name": "nosuch", "valueString": "x"}]), "value"),
        (add("Patient", "contact", part=[{"name": "gender", "valueCode": "male"}] * 2), "value"),
        (add("Patient", "contact", part="x"), "value"),
        (of(("type", "insert"), ("path", "Patient.name"), ("index", 3), ("value", {"valueHumanName": {}})), "path"),
        (of(("type", "insert"), ("path", "Patient.name"), ("index", -1), ("value", {"valueHumanName": {}})), "path"),
        (of(("type", "insert"), ("path", "Patient.birthDate"), ("index", 0), ("value", {"valueDate": "1"})), "path"),
        (
            of(("type", "insert"), ("path", "Patient.name[0]"), ("index", 0), ("value", {"valueHumanName": {}})),
            "path",
        ),
        (of(("type", "move"), ("path", "Patient.name"), ("source", 2), ("destination", 0)), "path"),
        (of(("type", "move"), ("path", "Patient.name"), ("source", 0), ("destination", 10**30)), "path"),
        (of(("type", "move"), ("path", "Patient.name"), ("source", 0)), ""),
        (of(("type", "nosuch"), ("path", "Patient")), ""),
        (of(("path", "Patient")), ""),
        (of(("type", "delete")), ""),
        (of(("type", "delete"), ("path", "Patient.name[0]"), ("index", 0)), ""),
        (of(("type", "delete"), ("path", "Patient.name[0]"), ("path", "Patient.name[1]")), ""),
        ({"name": "operation"}, ""),
        ({"name": "other", "part": []}, ""),
        ({"name": "operation", "part": [1]}, ""),
        ({"name": "operation", "part": [{"name": ["type"]}]}, ""),
    ],
)
def test_what_cannot_be_done_is_refused(operation: Json, reason: str) -> None:
    before = dump(PATIENT)
    with pytest.raises(Invalid) as error:
        path(PATIENT, replace("Patient.birthDate", valueDate="1960-01-01"), operation)
    assert code_of(error) == (f"fhir.patch_{reason}" if reason else "fhir.patch")
    assert error.value.facts["operation"] == 1
    assert dump(PATIENT) == before


def test_what_is_no_parameters_is_refused() -> None:
    for wrong in ({"resourceType": "Patient"}, {}, {"resourceType": "Parameters", "parameter": {}}):
        with pytest.raises(Invalid) as error:
            fhirpath_patch(PATIENT, wrong)
        assert code_of(error) == "fhir.patch"


def test_hostile_paths_are_bounded() -> None:
    many = {**PATIENT, "name": [{"text": "x"}] * 3000}
    began = time.perf_counter()
    for hostile in (
        "Patient" + ".name" * 20_000,
        "(" * 5000,
        "Patient.name.where(" * 300 + "true" + ")" * 300,
        "Patient.name.where(Patient.name.name.name.given.matches('(a+)+$'))",
        "Patient.name.where(%resource.name.where(%resource.name.where(%resource.name.text = 'y').exists()).exists())",
        "Patient.name.where(text.matches('^(x+x+)+y$'))[0]",
        "Patient.name[999999999999999999999]" * 2,
    ):
        with pytest.raises(Invalid) as error:
            path(many, replace(hostile, valueString="x"))
        assert code_of(error).startswith("fhir.patch")
    assert time.perf_counter() - began < 20
    nested: Any = {"name": "contact", "valueString": "x"}
    for _ in range(200):
        nested = {"name": "contact", "part": [nested]}
    with pytest.raises(Invalid):
        path(PATIENT, add("Patient", "contact", part=nested["part"]))
    with pytest.raises(Invalid) as error:
        path(PATIENT, *[delete("Patient.photo")] * (MAX_OPERATIONS + 1))
    assert code_of(error) == "fhir.patch_limit"
    with pytest.raises(Invalid) as error:
        path(PATIENT, *[add("Patient", "name", valueHumanName={"text": "x" * 900})] * 9, most=5000)
    assert code_of(error) == "fhir.patch_limit"


def test_data_that_is_not_valid_is_an_error_and_no_fault() -> None:
    broken: list[Json] = [
        {"resourceType": "Patient", "name": "x"},
        {"resourceType": "Patient", "name": [[1], None, 7]},
        {"resourceType": "Patient", "birthDate": {"a": 1}, "_birthDate": 3},
        {"resourceType": ["Patient"]},
        {},
    ]
    for resource in broken:
        for operation in (
            add("Patient.name", "given", valueString="x"),
            add("Patient.name[0]", "given", valueString="x"),
            add("Patient.birthDate", "id", valueString="x"),
            replace("Patient.name[0].family", valueString="x"),
            delete("Patient.name.where(given = 'x').family"),
            of(("type", "move"), ("path", "Patient.name"), ("source", 0), ("destination", 1)),
        ):
            assert ended(resource, operation).startswith("fhir.patch")


def ended(resource: Json, operation: Json) -> str:
    try:
        path(resource, operation)
    except Invalid as error:
        return error.code
    return "fhir.patched"


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 99), min_size=1, max_size=6), st.data())
def test_moves_inserts_and_deletes_are_those_of_a_list(numbers: list[int], data: st.DataObject) -> None:
    model = [str(one) for one in numbers]
    resource: Json = {"resourceType": "Patient", "name": [{"given": list(model)}]}
    where = "Patient.name[0].given"
    for _ in range(5):
        kind = data.draw(st.sampled_from(["insert", "move", "replace", "add", "delete"]))
        at = data.draw(st.integers(0, len(model) - (kind != "insert")))
        if kind == "insert":
            operation = of(("type", kind), ("path", where), ("index", at), ("value", {"valueString": "new"}))
            model.insert(at, "new")
        elif kind == "move":
            to = data.draw(st.integers(0, len(model) - 1))
            operation = of(("type", kind), ("path", where), ("source", at), ("destination", to))
            model.insert(to, model.pop(at))
        elif kind == "replace":
            operation = replace(f"{where}[{at}]", valueString="other")
            model[at] = "other"
        elif kind == "add":
            operation = add("Patient.name[0]", "given", valueString="last")
            model.append("last")
        elif len(model) > 1:
            operation = delete(f"{where}[{at}]")
            del model[at]
        else:
            continue
        resource = path(resource, operation)
        assert resource["name"][0]["given"] == model
