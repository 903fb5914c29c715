"""Walk a resource along the rules of its types: constraints, listed bindings, what is referred to, empty texts.

For each type a plan is made once: which of its elements need a look at all, and what is asked of each.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

from carelake.fhir.bindings import holds
from carelake.fhir.constraints import Context, Exists, broken
from carelake.fhir.definitions import Element, element, is_primitive, is_resource
from carelake.fhir.issues import Issue
from carelake.fhir.local_links import check_reference, unreferred
from carelake.fhir.profiles.members import inside
from carelake.fhir.references import target
from carelake.fhir.rules import Rule, ValueSet, bound, rules

__all__ = ["target_type", "walk"]

Issues = Iterator[Issue]
_LITERAL = re.compile(
    r"(?:https?://.{1,500}/)?([A-Z][A-Za-z]{2,40})/[A-Za-z0-9\-.]{1,64}(?:/_history/[A-Za-z0-9\-.]{1,64})?"
)
# What these forbid lies in contained resources, so there is nothing to look at without one.
_OF_CONTAINED = frozenset({"dom-2", "dom-4", "dom-5"})
# Done by `local_links`, in linear time: as FHIRPath each reference would go through all contained resources.
_DONE_HERE = frozenset({"dom-3", "ref-1"})
_TEXTS = frozenset({"string", "markdown"})
_URIS = frozenset({"canonical", "uri", "url"})


class _Step(NamedTuple):
    """What is asked of an element's values.

    Attributes:
        kind: type of the values.
        simple: its primitive type; "" for one with elements of its own.
        targets: what a Reference may be to; empty for anything.
    """

    item: Element
    kind: str
    simple: str
    own: tuple[Rule, ...]
    codes: ValueSet | None
    targets: frozenset[str]


class _Plan(NamedTuple):
    rules: tuple[Rule, ...]
    steps: Mapping[str, _Step]
    shadows: frozenset[str]


def walk(resource: dict[str, Any], exists: Exists | None = None) -> Issues:
    """Issues of a resource whose structure is right, in the order of its elements.

    Args:
        exists: asked of each reference to a resource on the same server.
    """
    kind = str(resource["resourceType"])
    yield from _resource(resource, kind, kind, Context(resource, exists=_or_in(resource, exists)))


def _or_in(bundle: dict[str, Any], exists: Exists | None) -> Exists | None:
    """What comes along in the same Bundle is there too."""
    if exists is None or bundle["resourceType"] != "Bundle":
        return exists
    given = [entry["resource"] for entry in bundle.get("entry", ()) if "resource" in entry]
    along = {(one["resourceType"], one.get("id", "")) for one in given}
    return lambda kind, key: (kind, key) in along or exists(kind, key)


def _resource(value: dict[str, Any], kind: str, at: str, context: Context) -> Issues:
    yield from _object(value, kind, at, context)
    if "contained" in value:
        yield from unreferred(value, at, context)


@cache
def _plan(kind: str) -> _Plan:
    found = {key: _step(kind, item, of) for item in element(kind).values() for key, of in item.keys.items()}
    shadows = frozenset("_" + key for key, step in found.items() if step.simple)
    return _Plan(_once(rules(kind)), {key: step for key, step in found.items() if _asks(step)}, shadows)


def _once(own: tuple[Rule, ...]) -> tuple[Rule, ...]:
    """Without those done elsewhere, those of the same expression as one (txt-1, txt-2)."""
    found: dict[str, Rule] = {}
    for rule in own:
        same = found.get(rule.expression)
        if same is not None:
            rule = Rule(f"{same.key}, {rule.key}", same.severity, f"{same.human}; {rule.human}", rule.expression)
        if rule.key not in _DONE_HERE:
            found[rule.expression] = rule
    return tuple(found.values())


def _step(owner: str, item: Element, of: str) -> _Step:
    path = f"{owner}.{item.name}"
    own = _once(rules(path)) if path != of else ()
    targets = frozenset() if "Resource" in item.targets or of != "Reference" else frozenset(item.targets)
    return _Step(item, of, of if is_primitive(of) else "", own, bound(path), targets)


def _asks(step: _Step) -> bool:
    return not step.simple or bool(step.own) or step.simple in _TEXTS or step.simple in _URIS


def _object(value: dict[str, Any], kind: str, at: str, context: Context) -> Issues:
    plan = _plan(kind)
    for rule in plan.rules:
        if rule.key not in _OF_CONTAINED or "contained" in value:
            yield from broken(rule, value, kind, at, context)
    steps = plan.steps
    for key, inner in value.items():
        step = steps.get(key)
        if step is not None:
            if step.simple:
                yield from _simple(inner, step, f"{at}.{key}", context)
            else:
                yield from _member(inner, step, f"{at}.{key}", context)
        elif key in plan.shadows:
            yield from _shadow(inner, f"{at}.{key[1:]}", context)


def _simple(value: Any, step: _Step, at: str, context: Context) -> Issues:
    many = isinstance(value, list)
    for n, one in enumerate(value if many else (value,)):
        if one is None:
            continue
        if step.simple in _TEXTS:
            if one.isspace():
                said = "The text is white space only; trimmed it is an empty one. Leave the element out."
                yield Issue("error", "value", f"{at}[{n}]" if many else at, said)
        elif context.local is not None and one[:1] == "#":
            context.local.add(one)
        for rule in step.own:
            yield from broken(rule, one, step.kind, f"{at}[{n}]" if many else at, context)


def _member(value: Any, step: _Step, at: str, context: Context) -> Issues:
    many = isinstance(value, list)
    for n, one in enumerate(value if many else (value,)):
        place = f"{at}[{n}]" if many else at
        for rule in step.own:
            yield from broken(rule, one, step.kind, place, context)
        if step.codes is not None and not holds(one, step.kind, step.codes):
            said = "No code of the value is one of the value set that is required here."
            yield Issue("error", "code-invalid", place, said)
        if step.kind == "Reference":
            yield from _referred(one, step.targets, place, context)
        if step.kind == "Resource":
            yield from _inner(one, step.item.name == "contained", place, context)
        else:
            yield from _object(one, step.kind, place, context)


def _inner(value: dict[str, Any], contained: bool, at: str, context: Context) -> Issues:
    """A resource inside of another: contained in it, or an entry's with a context of its own."""
    own = Context(value, context if contained else None, context.exists)
    yield from _resource(value, inside(value, "Resource"), at, own)
    if contained:
        context.take(own)


def _shadow(value: Any, at: str, context: Context) -> Issues:
    """What `_name` says of the values of a primitive element."""
    many = isinstance(value, list)
    for n, one in enumerate(value if many else (value,)):
        if one is not None:
            yield from _object(one, "Element", f"{at}[{n}]" if many else at, context)


def _referred(value: dict[str, Any], targets: frozenset[str], at: str, context: Context) -> Issues:
    yield from check_reference(value, at, context)
    found = target_type(value, context)
    if found and targets and found not in targets:
        said = f"The reference must be to {' or '.join(sorted(targets))}; it is to another type."
        yield Issue("error", "structure", at, said)
    said_type, text = value.get("type"), value.get("reference")
    if found and said_type and said_type != found and is_resource(str(said_type)):
        yield Issue("error", "structure", at, "The type that the reference names is not the one that it is to.")
    if context.exists is not None and isinstance(text, str):
        to = target(text)
        if to is not None and to[0] and not context.exists(to[0], to[1]):
            yield Issue("error", "not-found", f"{at}.reference", "There is no such resource here to refer to.")


def target_type(value: Any, context: Context) -> str:
    """The type of the resource that a Reference is to, as far as it says itself; else ""."""
    if not isinstance(value, dict):
        return ""
    text = value.get("reference")
    if isinstance(text, str) and text.startswith("#"):
        return context.contained_type(text[1:]) or ""
    found = _LITERAL.fullmatch(text) if isinstance(text, str) else None
    if found is not None and is_resource(found[1]):
        return found[1]
    said = value.get("type")
    return said if isinstance(said, str) and is_resource(said) else ""
