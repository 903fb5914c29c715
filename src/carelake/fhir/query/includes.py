"""``_include`` and ``_revinclude`` (https://hl7.org/fhir/R4/search.html#include)."""

from __future__ import annotations

from collections.abc import Sequence

from carelake.fhir.definitions import is_resource
from carelake.fhir.query.conditions import Conditions
from carelake.fhir.query.errors import bad_value, unknown_modifier
from carelake.fhir.query.model import Include, pointed_types

__all__ = ["INCLUDES", "read_include"]

INCLUDES = frozenset({"_include", "_revinclude"})
_FORM = "Type:reference, Type:reference:Target, Type:* or *"


def read_include(conditions: Conditions, types: Sequence[str], name: str, value: str) -> Include:
    """Read ``_include:iterate=Observation:subject:Patient``.

    Raises:
        Invalid: ``search.unknown_modifier``, ``search.unknown_parameter``, ``search.bad_value``.
    """
    stem, colon, modifier = name.partition(":")
    if colon and modifier not in ("iterate", "recurse"):
        raise unknown_modifier(stem, "takes the modifier :iterate only.")
    iterate = bool(colon)
    if value == "*":
        return Include("", None, "", iterate)
    parts = value.split(":")
    if not 2 <= len(parts) <= 3 or not all(parts):
        raise bad_value(name, _FORM)
    source, code, target = parts[0], parts[1], parts[2] if len(parts) == 3 else ""
    if not is_resource(source) or (target and not is_resource(target)):
        raise bad_value(name, f"{_FORM}, with resource types of FHIR R4")
    if stem == "_include" and not iterate and source not in types:
        raise bad_value(name, f"a reference of {' or '.join(types[:5])}; of what is included, ask _include:iterate")
    if code == "*":
        wild = [one for one in conditions.references(source) if not target or target in pointed_types(one)]
        return Include(source, None, target, iterate, tuple(wild))
    parameter = conditions.reference(source, code, stem)
    pointed = pointed_types(parameter)
    if target and target not in pointed:
        raise bad_value(name, f"a target that {code} of {source} can point to")
    if stem == "_revinclude" and not iterate and not ({target} if target else set(pointed)).intersection(types):
        raise bad_value(
            name, f"a reference to {' or '.join(types[:5])}; to what is included, ask _revinclude:iterate"
        )
    return Include(source, parameter, target, iterate)
