"""What FHIR R4 adds to FHIRPath (https://hl7.org/fhir/R4/fhirpath.html#functions), and SQL on FHIR's two keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from carelake.fhir.path.context import Env
from carelake.fhir.path.errors import argument_error, name_error, service_error
from carelake.fhir.path.functions.references import reference_text, referred
from carelake.fhir.path.model import is_type, node, type_named
from carelake.fhir.path.navigation import member
from carelake.fhir.path.registry import Applied, Made, eager, function, maker
from carelake.fhir.path.syntax import Literal, Member
from carelake.fhir.path.values import Item, Items, string_of, system, unwrap
from carelake.fhir.path.xhtml import is_safe

__all__: list[str] = []

_BASE = "http://hl7.org/fhir/StructureDefinition/"


@eager("extension", 1)
def _extension(items: Items, env: Env, at: int, url: Items) -> Items:
    wanted = string_of(url, at, "extension()")
    if wanted is None:
        return []
    found = member("extension", at)([item for item in items if item.__class__ is tuple], env)
    return [item for item in found if item[0].__class__ is dict and item[0].get("url") == wanted]


def _has_value(item: Item) -> bool:
    return item.__class__ is not tuple or (item[1].primitive and item[0] is not None)


@function("hasValue")
def _has(items: Items, env: Env, at: int) -> Items:
    return [len(items) == 1 and _has_value(items[0])]


@function("getValue")
def _get(items: Items, env: Env, at: int) -> Items:
    if len(items) != 1 or not _has_value(items[0]):
        return []
    return [system(items[0])]


@function("htmlChecks")
def _html_checks(items: Items, env: Env, at: int) -> Items:
    if len(items) != 1:
        return []
    value = system(items[0])
    return [is_safe(value)] if value.__class__ is str else []


@maker("checkModifiers", 1, 50)
def _check_modifiers(made: Made) -> Applied:
    at = made.at
    step = member("modifierExtension", at)

    def check(items: Items, focus: Items, env: Env) -> Items:
        known = {string_of(argument(focus, env), at, "checkModifiers()") for argument in made.arguments}
        found = step([item for item in items if item.__class__ is tuple], env)
        if any(item[0].get("url") not in known for item in found):
            raise argument_error(at, "an element has a modifier extension that the expression does not know.")
        return items

    return check


# --- definitions ---


@eager("conformsTo", 1)
def _conforms_to(items: Items, env: Env, at: int, structure: Items) -> Items:
    url = string_of(structure, at, "conformsTo()")
    if url is None or len(items) != 1:
        return []
    answer = env.services.conforms(unwrap(items[0]), url) if env.services.conforms is not None else None
    if answer is not None:
        return [answer]
    name = url.removeprefix(_BASE)
    if url.startswith(_BASE) and is_type(name):
        return [items[0].__class__ is tuple and name in items[0][1].names]
    if env.services.conforms is None and url.startswith(_BASE):
        raise service_error(at, "conformsTo() of a profile", "conforms")
    raise name_error(at, "conformsTo() got a structure that is not known.")


@function("elementDefinition")
def _element_definition(items: Items, env: Env, at: int) -> Items:
    if env.services.elements is None:
        raise service_error(at, "elementDefinition()", "elements")
    found = [env.services.elements(unwrap(item), item[1].path) for item in items if item.__class__ is tuple]
    return [node(value, type_named("ElementDefinition")) for value in found if value is not None]


@eager("slice", 2)
def _slice(items: Items, env: Env, at: int, structure: Items, name: Items) -> Items:
    url, wanted = string_of(structure, at, "slice()"), string_of(name, at, "slice()")
    if env.services.slices is None:
        raise service_error(at, "slice()", "slices")
    chosen = env.services.slices([unwrap(item) for item in items], url or "", wanted or "")
    return [item for item in items if any(unwrap(item) is value for value in chosen)]


# --- terminology ---


def _terminology(env: Env, at: int, name: str) -> Any:
    if env.services.terminology is None:
        raise service_error(at, name, "terminology")
    return env.services.terminology


@eager("memberOf", 1)
def _member_of(items: Items, env: Env, at: int, value_set: Items) -> Items:
    url = string_of(value_set, at, "memberOf()")
    if url is None or len(items) != 1:
        return []
    answer = _terminology(env, at, "memberOf()").member_of(unwrap(items[0]), url)
    return [] if answer is None else [answer]


def _subsumption(name: str, turned: bool) -> None:
    @eager(name, 1)
    def work(items: Items, env: Env, at: int, other: Items) -> Items:
        if len(items) != 1 or len(other) != 1:
            return []
        pair = [unwrap(items[0]), unwrap(other[0])]
        answer = _terminology(env, at, f"{name}()").subsumes(*(reversed(pair) if turned else pair))
        return [] if answer is None else [answer]


_subsumption("subsumes", False)
_subsumption("subsumedBy", True)

_SERVICE = {
    "expand": "expand",
    "lookup": "lookup",
    "validateVS": "validate_vs",
    "validateCS": "validate_cs",
    "translate": "translate",
}


def _service_call(name: str, method: str) -> None:
    """``%terminologies.expand(...)``: the service's own method with plain values."""

    @maker(name, 1, 4)
    def make(made: Made) -> Applied:
        at, arguments = made.at, made.arguments

        def call(items: Items, focus: Items, env: Env) -> Items:
            work: Callable[..., Any] | None = getattr(_terminology(env, at, f"{name}()"), method, None)
            if work is None:
                raise service_error(at, f"{name}()", "terminology")
            values = [[unwrap(item) for item in argument(focus, env)] for argument in arguments]
            found = work(*(value[0] if len(value) == 1 else value or None for value in values))
            return [] if found is None else [node(found)]

        return call


for _name, _method in _SERVICE.items():
    _service_call(_name, _method)


# --- keys of SQL on FHIR ---


@function("getResourceKey")
def _resource_key(items: Items, env: Env, at: int) -> Items:
    return [item[0]["id"] for item in items if item.__class__ is tuple and "id" in item[0]]


@maker("getReferenceKey", 0, 1)
def _reference_key(made: Made) -> Applied:
    wanted = ""
    if made.parts:
        part = made.parts[0]
        if isinstance(part, Member):
            wanted = part.name
        elif isinstance(part, Literal) and part.items and isinstance(part.items[0], str):
            wanted = part.items[0]
        if not is_type(wanted):
            raise name_error(made.at, "getReferenceKey() takes the name of a resource type.")
        wanted = "" if wanted in ("Resource", "DomainResource") else wanted

    def key_of(items: Items, focus: Items, env: Env) -> Items:
        found = []
        for item in items:
            text, kind = reference_text(item).partition("/_history/")[0], referred(item)
            if text and not text.startswith("#") and (not wanted or kind == wanted):
                found.append(text.rsplit("/", 1)[-1].removeprefix("urn:uuid:"))
        return found

    return key_of
