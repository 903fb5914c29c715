"""The rules over Arrow columns: what a column is for whoever may not know whose it is.

Pure: the same columns, rules and pseudonyms give the same answer. A value that a rule does not know how to make safe
is null, never itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from carelake.core import canonical
from carelake.core.errors import Invalid
from carelake.deid.dates import moments, moments_since, shifted, since, years
from carelake.deid.pseudonyms import Pseudonyms
from carelake.deid.rules import Tree, is_code, required_codes, rules
from carelake.fhir import definitions

__all__ = ["Rows", "known_codings", "masked"]

_DIGITS = "_text"
"""A decimal ``value`` has a neighbour ``value_text`` with its digits."""

_REFERENCE = r"^(?:.*/)?(?P<kind>[A-Z][A-Za-z]{1,63})/(?P<id>[A-Za-z0-9.-]{1,64})(?:/_history/[^/]*)?$"
_BETWEEN = "\x1f"
_OMB = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-"


@dataclass(frozen=True)
class Rows:
    """What is known of the rows that a column is of.

    Attributes:
        names: pseudonyms of the account.
        days: by how many days dates are shifted, null where a row is about no one patient.
        year: the year by which ages are counted.
    """

    names: Pseudonyms
    days: pa.Array
    year: int

    @property
    def oldest(self) -> int:
        """The first year that is told: of whoever was born in it or before the age is not."""
        return self.year - 90

    def moments(self, times: pa.Array) -> pa.Array:
        """Timestamps as dates are shown."""
        return moments_since(moments(times, self.days), self.oldest)

    def at(self, indices: pa.Array) -> Rows:
        """Of other rows, by their places in these."""
        return replace(self, days=self.days.take(indices))


def masked(array: pa.Array, rule: Tree | str, rows: Rows, type_name: str, name: str) -> pa.Array:
    """A column as its rule leaves it, in the same Arrow type.

    Args:
        array: one value for each of the rows, with the parts that the rule leaves and no others.
        type_name: FHIR type that the element is of, and its JSON name there: of these R4 knows the codes.
    """
    if pa.types.is_list(array.type):
        inner = masked(array.flatten(), rule, rows.at(pc.list_parent_indices(array)), type_name, name)
        return pa.ListArray.from_arrays(_offsets(array), inner, type=array.type, mask=_mask(array))
    if isinstance(rule, str):
        return _RULES[rule](array, rows, (type_name, name))
    inner_type = _type_of(type_name, name)
    found = dict(zip((field.name for field in array.type), array.flatten(), strict=True))
    made = [_part(found[field.name], field.name, rule, rows, inner_type) for field in array.type]
    return pa.StructArray.from_arrays(made, fields=list(array.type), mask=_mask(array))


def _part(array: pa.Array, name: str, tree: Tree, rows: Rows, type_name: str) -> pa.Array:
    rule = tree.get(name)
    if rule is None and name.endswith(_DIGITS):
        rule = "digits" if tree.get(name.removesuffix(_DIGITS)) == "keep" else None
    if rule is None:
        return pa.nulls(len(array), array.type)
    return masked(array, rule, rows, type_name, name)


def _type_of(type_name: str, name: str) -> str:
    for element in definitions.element(type_name).values():
        if name in element.keys:
            return element.keys[name]
    return type_name


def _offsets(array: pa.Array) -> pa.Array:
    lengths = pc.fill_null(pc.list_value_length(array), 0)
    total = pc.cumulative_sum(pc.cast(lengths, pa.int32()))
    return pa.concat_arrays([pa.array([0], pa.int32()), total])


def _mask(array: pa.Array) -> pa.Array | None:
    return array.is_null() if array.null_count else None


def _null_unless(condition: pa.Array, array: pa.Array) -> pa.Array:
    return pc.if_else(pc.fill_null(condition, False), array, pa.scalar(None, array.type))


# -- one rule each --------------------------------------------------------------------------------------------------

Place = tuple[str, str]


def _keep(array: pa.Array, rows: Rows, place: Place) -> pa.Array:
    if pa.types.is_string(array.type):
        return pa.nulls(len(array), array.type)  # text is never kept as it is
    return array


def _digits(array: pa.Array, rows: Rows, place: Place) -> pa.Array:
    return _null_unless(pc.match_substring_regex(array, r"^-?[0-9][0-9.eE+-]{0,63}$"), array)


def _code(array: pa.Array, rows: Rows, place: Place) -> pa.Array:
    return _one_of(array, required_codes(*place))


def _one_of(array: pa.Array, wanted: frozenset[str]) -> pa.Array:
    return _null_unless(pc.is_in(array, pa.array(sorted(wanted), pa.string())), array)


def known_codings(systems: pa.Array, codes: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Systems and codes, null where the system is not one of the rules' or the code is none of it by its form."""
    pairs = pc.binary_join_element_wise(systems, codes, _BETWEEN).dictionary_encode()
    known = [one is not None and is_code(*one.split(_BETWEEN, 1)) for one in pairs.dictionary.to_pylist()]
    fits = pa.array(known, pa.bool_()).take(pairs.indices)
    return _null_unless(fits, systems), _null_unless(fits, codes)


def _coding(array: pa.Array, rows: Rows, place: Place) -> pa.Array:
    found = dict(zip((field.name for field in array.type), array.flatten(), strict=True))
    found["system"], found["code"] = known_codings(found["system"], found["code"])
    return _again(array, found)


def _quantity(array: pa.Array, rows: Rows, place: Place) -> pa.Array:
    found = dict(zip((field.name for field in array.type), array.flatten(), strict=True))
    found["system"], found["code"] = known_codings(found["system"], found["code"])
    found["comparator"] = _one_of(found["comparator"], required_codes("Quantity", "comparator"))
    found["value_text"] = _digits(found["value_text"], rows, place)
    return _again(array, found)


def _again(array: pa.Array, found: Mapping[str, pa.Array]) -> pa.Array:
    fields = list(array.type)
    return pa.StructArray.from_arrays([found[field.name] for field in fields], fields=fields, mask=_mask(array))


def _reference(array: pa.Array, rows: Rows, place: Place) -> pa.Array:
    told = array.flatten()[array.type.get_field_index("reference")].dictionary_encode()
    parts = pc.extract_regex(told.dictionary, _REFERENCE)
    made = [
        None if one is None or not definitions.is_resource(one["kind"]) else _to(rows.names, one["kind"], one["id"])
        for one in parts.to_pylist()
    ]
    return _again(array, {"reference": pa.array(made, pa.string()).take(told.indices)})


def _to(names: Pseudonyms, kind: str, id_: str) -> str:
    return f"{kind}/{names.name(kind, id_)}"


def _date(array: pa.Array, rows: Rows, place: Place) -> pa.Array:
    return since(shifted(array, rows.days), rows.oldest)


def _birth(array: pa.Array, rows: Rows, place: Place) -> pa.Array:
    return years(array, rows.oldest)


def _zip3(array: pa.Array, rows: Rows, place: Place) -> pa.Array:
    found = _null_unless(pc.match_substring_regex(array, r"^[0-9]{5}(?:-?[0-9]{4})?$"), array)
    three = pc.utf8_slice_codeunits(found, 0, 3)
    rare = pc.is_in(three, pa.array(sorted(rules().zip3_rare), pa.string()))
    return pc.if_else(rare, pa.scalar("000"), three)


def _state(array: pa.Array, rows: Rows, place: Place) -> pa.Array:
    return _one_of(array, rules().states)


def _letters(array: pa.Array, rows: Rows, place: Place) -> pa.Array:
    return _null_unless(pc.match_substring_regex(array, r"^[A-Z]{2,3}$"), array)


def _omb(array: pa.Array, rows: Rows, place: Place) -> pa.Array:
    found = array.dictionary_encode()
    made = [None if one is None else _categories(one) for one in found.dictionary.to_pylist()]
    return pa.array(made, pa.string()).take(found.indices)


def _categories(text: str) -> str | None:
    """The extensions of US Core race and ethnicity, with their OMB categories by code alone."""
    try:
        said = canonical.load(text)
    except Invalid:
        return None
    listed = said if isinstance(said, list) else []
    kept = [made for one in listed if isinstance(one, dict) and (made := _category(one))]
    return canonical.dump(kept).decode() if kept else None


_CATEGORIES = {
    "race": {
        "1002-5": "American Indian or Alaska Native",
        "2028-9": "Asian",
        "2054-5": "Black or African American",
        "2076-8": "Native Hawaiian or Other Pacific Islander",
        "2106-3": "White",
        "2131-1": "Other Race",
    },
    "ethnicity": {"2135-2": "Hispanic or Latino", "2186-5": "Non Hispanic or Latino"},
}


def _category(one: Mapping[str, object]) -> dict[str, object] | None:
    url, inner = one.get("url"), one.get("extension")
    which = _CATEGORIES.get(url.removeprefix(_OMB)) if isinstance(url, str) and url.startswith(_OMB) else None
    if which is None or not isinstance(inner, list):
        return None
    codes = [
        value["code"]
        for part in inner
        if isinstance(part, dict) and part.get("url") == "ombCategory"
        if isinstance(value := part.get("valueCoding"), dict) and value.get("code") in which
    ]
    system = "urn:oid:2.16.840.1.113883.6.238"
    told = [
        {"url": "ombCategory", "valueCoding": {"system": system, "code": code, "display": which[code]}}
        for code in codes
    ]
    return {"url": url, "extension": told} if told else None


_RULES: Mapping[str, Callable[[pa.Array, Rows, Place], pa.Array]] = {
    "birth": _birth,
    "code": _code,
    "coding": _coding,
    "date": _date,
    "digits": _digits,
    "keep": _keep,
    "letters": _letters,
    "omb": _omb,
    "quantity": _quantity,
    "reference": _reference,
    "state": _state,
    "zip3": _zip3,
}
