"""What an operation is asked with: a query, or a body of Parameters (https://hl7.org/fhir/R4/operations.html#request)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from carelake.apps.http.calls import Call
from carelake.core import canonical
from carelake.core.errors import Invalid
from carelake.fhir.definitions import is_resource
from carelake.fhir.issues import Issue
from carelake.fhir.primitives import predicates
from carelake.fhir.validate import readable, validate

__all__ = ["PARAMETERS", "Given", "Takes", "asked_with", "boolean", "code", "parameters", "string", "texts", "uri"]

Takes = Mapping[str, str]
"""Name of a parameter -> its FHIR type; ``*`` after it where it may be given again and again, ``parts`` for parts."""

PARAMETERS: Mapping[str, Any] = {
    "type": "object",
    "description": "Parameters, or the one resource that is asked about",
}
"""Schema of a body for `routes.Operation`."""

_BESIDE = frozenset({"_format", "_pretty"})
_MOST = 1000
_PARTS = "parts"
_TEXTS = frozenset({"uri", "url", "canonical", "oid", "uuid", "string", "code", "id", "markdown"})
_LIKE: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(_TEXTS, _TEXTS),
    "boolean": frozenset({"boolean"}),
    "integer": frozenset({"integer", "unsignedInt", "positiveInt"}),
    "dateTime": frozenset({"dateTime", "date", "instant", "string"}),
    "date": frozenset({"date", "dateTime", "string"}),
    "instant": frozenset({"instant", "dateTime", "string"}),
    "decimal": frozenset({"decimal", "integer"}),
}
"""What a parameter of a primitive type may be sent as: clients take uri, canonical and string for one another."""


class Given:
    """The parameters that were given, by name, each checked to be of its type."""

    def __init__(self, values: Mapping[str, list[Any]]) -> None:
        self._values = values

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def all(self, name: str) -> list[Any]:
        """Every value of a parameter, in the order given."""
        return list(self._values.get(name, ()))

    def one(self, name: str) -> Any | None:
        """The value of a parameter: a resource, a Coding, a number; None where it is not given."""
        return next(iter(self._values.get(name, ())), None)

    def text(self, name: str) -> str:
        """A text, "" where it is not given."""
        return str(self.one(name) or "")

    def flag(self, name: str, default: bool = False) -> bool:
        """A boolean."""
        found = self.one(name)
        return default if found is None else bool(found)

    def number(self, name: str) -> int | None:
        """An integer."""
        found = self.one(name)
        return None if found is None else int(found)


def asked_with(call: Call, takes: Takes) -> Given:
    """The parameters of a call: of its query, and with POST of its body.

    Only primitives fit into a query. A body that is no Parameters is the one resource that the operation takes.

    Raises:
        Invalid: ``http.body``: no JSON; ``http.invalid_parameters`` (422): no valid Parameters;
            ``http.unknown_parameter``, ``http.repeated_parameter``, ``http.parameter``: by name, never by value.
    """
    found: dict[str, list[Any]] = {}
    for name, text in call.pairs:
        if name not in _BESIDE:
            _add(found, takes, name, _read(name, _kind(takes, name), text))
    if call.method == "POST" and call.body.strip():
        for name, value in _sent(_loaded(call.body), takes):
            _add(found, takes, name, value)
    return Given(found)


def texts(call: Call) -> list[tuple[str, str]]:
    """The parameters of a body as a query has them, whatever their names: for what takes those of a search.

    Raises:
        Invalid: ``http.body``, ``http.invalid_parameters``; ``http.parameter``: one is no primitive.
    """
    if call.method != "POST" or not call.body.strip():
        return []
    whole = _loaded(call.body)
    if whole["resourceType"] != "Parameters":
        raise Invalid("http.parameter", "The body must be Parameters.")
    found = []
    for one in whole.get("parameter", ()):
        values = [value for key, value in one.items() if key.startswith("value")]
        if len(values) != 1 or isinstance(values[0], dict | list):
            raise Invalid("http.parameter", "A parameter of a search is one text, number or date.")
        value = values[0]
        found.append((str(one["name"]), str(value).lower() if isinstance(value, bool) else str(value)))
    return found


def _add(found: dict[str, list[Any]], takes: Takes, name: str, value: Any) -> None:
    listed = found.setdefault(name, [])
    listed.append(value)
    if len(listed) > (_MOST if takes[name].endswith("*") else 1):
        raise Invalid("http.repeated_parameter", f"The parameter {name} is given more than once, or too often.")


def _kind(takes: Takes, name: str) -> str:
    if name not in takes:
        known = ", ".join(takes) or "none"
        raise Invalid("http.unknown_parameter", f"An unknown parameter; this operation takes {known}.")
    return takes[name].removesuffix("*")


def _read(name: str, kind: str, text: str) -> Any:
    """A primitive out of a query."""
    if kind not in _LIKE:
        raise Invalid("http.parameter", f"The parameter {name} is a {kind}, so it is sent by POST, in Parameters.")
    value: Any = text
    if kind == "boolean":
        value = {"true": True, "false": False}.get(text)
    elif kind in ("integer", "decimal"):
        value = _digits(text)
    elif kind in ("instant", "dateTime"):
        value = text.replace(" ", "+")  # a "+" in a query is a blank once it is decoded
    return _checked(name, kind, value)


def _digits(text: str) -> Any:
    """A number as JSON has it, None where it is none: so no more digits are read than there as well."""
    try:
        return canonical.load(text) if len(text) <= 40 else None
    except Invalid:
        return None


def _checked(name: str, kind: str, value: Any) -> Any:
    if not predicates()[kind](value):
        raise Invalid("http.parameter", f"The parameter {name} is no valid {kind}.")
    return value


def _loaded(body: bytes) -> dict[str, Any]:
    whole = readable(body)
    if isinstance(whole, Issue) or not isinstance(whole, dict):
        raise Invalid("http.body", "The body is no JSON object; send Parameters as application/fhir+json.")
    wrong = [issue for issue in validate(whole, mode="structure") if issue.bad]
    if wrong:
        where = wrong[0].expression
        raise Invalid(
            "http.invalid_parameters",
            f"The body is not a valid FHIR R4 resource: {wrong[0].message} ({where}; {len(wrong)} issues in all).",
        )
    return whole


def _sent(whole: dict[str, Any], takes: Takes) -> Iterator[tuple[str, Any]]:
    if whole["resourceType"] != "Parameters":
        resources = [name for name, kind in takes.items() if _fits(kind.removesuffix("*"), whole)]
        if len(resources) != 1:
            raise Invalid("http.parameter", "The body must be Parameters.")
        yield resources[0], whole
        return
    for one in whole.get("parameter", ()):
        name = one.get("name", "")  # valid without, where an extension stands in for it
        yield name, _value(name, _kind(takes, name), one)


def _fits(kind: str, resource: Mapping[str, Any]) -> bool:
    return kind == "Resource" or (is_resource(kind) and kind == resource["resourceType"])


def _value(name: str, kind: str, one: Mapping[str, Any]) -> Any:
    if kind == _PARTS:
        return one.get("part", [])
    if kind == "Resource" or is_resource(kind):
        if "resource" in one and _fits(kind, one["resource"]):
            return one["resource"]
        raise Invalid("http.parameter", f"The parameter {name} has no resource of type {kind}.")
    told = [key for key in one if key.startswith("value")]
    if len(told) != 1:
        raise Invalid("http.parameter", f"The parameter {name} has no value, or more than one; expected a {kind}.")
    sent = told[0].removeprefix("value")
    if kind not in _LIKE:
        if sent != kind:
            raise Invalid("http.parameter", f"The parameter {name} has a value of another type than {kind}.")
        return one[told[0]]
    if sent[0].lower() + sent[1:] not in _LIKE[kind]:
        raise Invalid("http.parameter", f"The parameter {name} has a value of another type than {kind}.")
    return _checked(name, kind, one[told[0]])


# -- answers -----------------------------------------------------------------------------------------------------


def parameters(*listed: Mapping[str, Any]) -> dict[str, Any]:
    """A Parameters resource."""
    return {"resourceType": "Parameters", "parameter": list(listed)}


def boolean(name: str, value: bool) -> dict[str, Any]:
    """One parameter of it."""
    return {"name": name, "valueBoolean": value}


def string(name: str, value: str) -> dict[str, Any]:
    """One parameter of it."""
    return {"name": name, "valueString": value}


def code(name: str, value: str) -> dict[str, Any]:
    """One parameter of it."""
    return {"name": name, "valueCode": value}


def uri(name: str, value: str) -> dict[str, Any]:
    """One parameter of it."""
    return {"name": name, "valueUri": value}
