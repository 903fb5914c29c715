"""What the operations of SQL on FHIR are asked with: one description of each, and what a request gives of it.

https://build.fhir.org/ig/HL7/sql-on-fhir/en/operations.html. The OperationDefinitions are made of the same
descriptions. A ViewDefinition is no resource of R4, so it is taken out before the rest is held to R4.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from carelake.apps.http.calls import Call
from carelake.core.clock import instant
from carelake.core.errors import Invalid, Unsupported
from carelake.fhir.issues import Issue
from carelake.fhir.primitives import predicates
from carelake.fhir.validate import readable, validate

__all__ = ["ASKS", "Ask", "Given", "Takes", "given"]

_BESIDE = frozenset({"_pretty"})
_MOST = 1000
_RESOURCES = frozenset({"ViewDefinition", "Library", "Resource", "Parameters", "Artifact"})
_TEXTS = ("String", "Uri", "Url", "Canonical", "Code", "Id")
_VALUES: Mapping[str, tuple[str, ...]] = {
    "string": _TEXTS,
    "code": _TEXTS,
    "canonical": _TEXTS,
    "Reference": ("Reference", *_TEXTS),
    "boolean": ("Boolean",),
    "integer": ("Integer", "PositiveInt", "UnsignedInt"),
    "instant": ("Instant", "DateTime", "String"),
}
_STAND_IN = {"resourceType": "Basic", "code": {"text": "ViewDefinition"}}


@dataclass(frozen=True)
class Takes:
    """A parameter.

    Attributes:
        type: of FHIR, or ``Artifact`` for a ViewDefinition or a Library; "" where it has parts.
        many: whether it may be given again and again.
        alone: whether it is of calls that name no subject in their address.
    """

    type: str
    says: str
    many: bool = False
    alone: bool = False
    parts: Mapping[str, Takes] = field(default_factory=dict)


@dataclass(frozen=True)
class Ask:
    """An operation.

    Attributes:
        named: what the names of its subject's parameters begin with: view, query or subject.
        context: the parameter of what a query reads and is not stored, "" where there is none.
        base: the definition in the guide that this one narrows.
    """

    code: str
    says: str
    named: str
    context: str
    exports: bool
    base: str

    @property
    def of_views(self) -> bool:
        """Whether it takes views."""
        return self.named != "query"

    @property
    def of_queries(self) -> bool:
        """Whether it takes queries."""
        return self.named != "view"

    @cached_property
    def takes(self) -> Mapping[str, Takes]:
        """Its parameters by name."""
        subject = self._subject()
        found: dict[str, Takes] = {}
        if self.exports:
            parts = {"name": Takes("string", "What its output is called."), **subject}
            found[self.named] = Takes(
                "", "What is exported; one output for each.", many=True, alone=True, parts=parts
            )
        else:
            found.update(subject)
        if self.context:
            found[self.context] = Takes("Artifact", "A view or query that one of the subjects reads.", many=True)
        found["_format"] = Takes(
            "code", "ndjson (default), json, csv, parquet, arrow" + ("." if self.exports else ", fhir.")
        )
        found["header"] = Takes("boolean", "Whether CSV begins with the names of the columns (true).")
        found["patient"] = Takes("Reference", "Only of these patients' compartments.", many=True)
        found["group"] = Takes("Reference", "Only of the members of these Groups.", many=True)
        found["_since"] = Takes("instant", "Only of resources that were written after it.")
        if self.exports:
            found["clientTrackingId"] = Takes("string", "Said again in the manifest.")
        else:
            if self.of_views:
                found["resource"] = Takes(
                    "Resource", "Resources to run over instead; Bundles are unpacked.", many=True
                )
            found["_limit"] = Takes("integer", "So many rows are enough.")
        return found

    def _subject(self) -> dict[str, Takes]:
        kind = {"view": "ViewDefinition", "query": "Library"}.get(self.named, "Artifact")
        found = {
            f"{self.named}Reference": Takes("Reference", "Where it is stored here.", alone=True),
            f"{self.named}Canonical": Takes("canonical", "Its canonical URL, with or without |version.", alone=True),
            f"{self.named}Resource": Takes(kind, "The thing itself.", alone=True),
        }
        if self.of_queries:
            found["parameters"] = Takes("Parameters", "Values of the query's parameters, by name.")
        return found


_GUIDE = "http://hl7.org/fhir/uv/sql-on-fhir/OperationDefinition/"
ASKS: Mapping[str, Ask] = {
    one.code: one
    for one in (
        Ask("viewdefinition-run", "The rows of a view", "view", "", False, f"{_GUIDE}ViewDefinitionRun"),
        Ask("sqlquery-run", "The rows of a query over views", "query", "view", False, f"{_GUIDE}SQLQueryRun"),
        Ask("sql-run", "The rows of a view or a query", "subject", "context", False, f"{_GUIDE}SQLRun"),
        Ask("viewdefinition-export", "Views as files", "view", "", True, f"{_GUIDE}ViewDefinitionExport"),
        Ask("sqlquery-export", "Queries as files", "query", "view", True, f"{_GUIDE}SQLQueryExport"),
        Ask("sql-export", "Views and queries as files", "subject", "context", True, f"{_GUIDE}SQLExport"),
    )
}
"""By code. ``ViewDefinition/$run`` is another name of ``$viewdefinition-run``."""


class Given:
    """What was given, by name: texts, true or false, numbers, resources; of parts, another `Given` each."""

    def __init__(self, values: Mapping[str, list[Any]]) -> None:
        self._values = values

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def all(self, name: str) -> list[Any]:
        """Every value of a parameter, in the order given."""
        return list(self._values.get(name, ()))

    def one(self, name: str) -> Any | None:
        """The value of a parameter, None where it is not given."""
        return next(iter(self._values.get(name, ())), None)


def given(call: Call, ask: Ask, *, inside: bool) -> Given:
    """The parameters of a call: of its query, and with POST of its body, `Parameters` or the subject itself.

    Args:
        inside: whether the address names the subject.

    Raises:
        Invalid: ``http.body``, ``http.invalid_parameters`` (422), ``http.unknown_parameter``,
            ``http.repeated_parameter``, ``http.parameter``. Unsupported: ``http.source``.
    """
    takes = {name: one for name, one in ask.takes.items() if not (inside and one.alone)}
    found: dict[str, list[Any]] = {}
    for name, text in call.pairs:
        if name not in _BESIDE:
            _add(found, takes, name, _of_query(name, _known(takes, name), text))
    if call.method == "POST" and call.body.strip():
        for one in _sent(_loaded(call.body), ask):
            name = str(one.get("name", ""))
            _add(found, takes, name, _value(name, _known(takes, name), one))
    return Given(found)


def _known(takes: Mapping[str, Takes], name: str) -> Takes:
    if name == "source":
        raise Unsupported("http.source", "Rows are of this server's own lake only.", expression="source")
    if name not in takes:
        raise Invalid("http.unknown_parameter", f"An unknown parameter; this operation takes {', '.join(takes)}.")
    return takes[name]


def _add(found: dict[str, list[Any]], takes: Mapping[str, Takes], name: str, value: Any) -> None:
    listed = found.setdefault(name, [])
    listed.append(value)
    if len(listed) > (_MOST if takes[name].many else 1):
        raise Invalid(
            "http.repeated_parameter", f"The parameter {name} is given more than once, or too often.", expression=name
        )


def _of_query(name: str, takes: Takes, text: str) -> Any:
    if takes.type in _RESOURCES or not takes.type:
        raise _unfit(name, "is sent by POST, in Parameters")
    if takes.type == "boolean":
        return _checked(name, takes.type, {"true": True, "false": False}.get(text))
    if takes.type == "integer":
        return _checked(name, takes.type, int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None)
    # A "+" in a query is a blank once it is decoded, and few clients write %2B.
    return _checked(name, takes.type, text.replace(" ", "+") if takes.type in ("code", "instant") else text)


def _value(name: str, takes: Takes, one: Mapping[str, Any]) -> Any:
    if not takes.type:
        parts: dict[str, list[Any]] = {}
        for part in _objects(one.get("part"), name):
            inner = str(part.get("name", ""))
            _add(parts, takes.parts, inner, _value(inner, _known(takes.parts, inner), part))
        return Given(parts)
    if takes.type in _RESOURCES:
        resource = one.get("resource")
        wanted = ("ViewDefinition", "Library") if takes.type == "Artifact" else (takes.type,)
        if not isinstance(resource, Mapping) or (
            takes.type != "Resource" and resource.get("resourceType") not in wanted
        ):
            raise _unfit(name, f"has no resource of type {' or '.join(wanted)}")
        return resource
    told = [key for key in one if key.startswith("value")]
    if len(told) != 1 or told[0].removeprefix("value") not in _VALUES[takes.type]:
        raise _unfit(name, f"has no value of the type {takes.type}")
    value = one[told[0]]
    if told[0] == "valueReference":
        value = value.get("reference") if isinstance(value, Mapping) else None
    return _checked(name, takes.type, value)


def _checked(name: str, kind: str, value: Any) -> Any:
    kind = {"Reference": "string", "code": "string"}.get(kind, kind)
    if value is None or not predicates()[kind](value):
        raise _unfit(name, f"is no valid {kind}")
    if kind == "integer" and value < 0:
        raise _unfit(name, "is 0 or more")
    if kind == "instant":
        try:
            instant(value)
        except ValueError:  # a leap second, a moment before the year 1
            raise _unfit(name, f"is no {kind} that can be told") from None
    return value


def _unfit(name: str, what: str) -> Invalid:
    return Invalid("http.parameter", f"The parameter {name} {what}.", expression=name)


def _objects(told: Any, name: str) -> Iterator[Mapping[str, Any]]:
    for one in told if isinstance(told, Sequence) and not isinstance(told, str) else ():
        if not isinstance(one, Mapping):
            raise _unfit(name, "has a part that is no object")
        yield one


def _loaded(body: bytes) -> dict[str, Any]:
    whole = readable(body)
    if isinstance(whole, Issue) or not isinstance(whole, dict):
        raise Invalid("http.body", "The body is no JSON object; send Parameters as application/fhir+json.")
    if whole.get("parameter") == []:
        del whole["parameter"]  # the guide's own examples have it
    wrong = [issue for issue in validate(_without_views(whole), mode="structure") if issue.bad]
    if wrong:
        where = wrong[0].expression
        raise Invalid(
            "http.invalid_parameters",
            f"The body is not a valid FHIR R4 resource: {wrong[0].message} ({where}; {len(wrong)} issues in all).",
        )
    return whole


def _without_views(told: Any) -> Any:
    """The same with something of R4 in the place of each ViewDefinition."""
    if isinstance(told, Mapping):
        if told.get("resourceType") == "ViewDefinition":
            return _STAND_IN
        if told.get("resourceType", "Parameters") == "Parameters":
            return {name: _without_views(inner) for name, inner in told.items()}
        return told
    return [_without_views(one) for one in told] if isinstance(told, list) else told


def _sent(whole: Mapping[str, Any], ask: Ask) -> Iterator[Mapping[str, Any]]:
    kind = whole.get("resourceType")
    if kind == "Parameters":
        yield from _objects(whole.get("parameter"), "parameter")
    elif (kind == "ViewDefinition" and ask.of_views) or (kind == "Library" and ask.of_queries):
        subject = {"name": f"{ask.named}Resource", "resource": whole}
        yield {"name": ask.named, "part": [subject]} if ask.exports else subject
    else:
        raise Invalid("http.parameter", "The body must be Parameters.")
