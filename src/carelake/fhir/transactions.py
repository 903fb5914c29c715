"""Transactions and batches as data: what each entry asks, in which order, and which links are to be rewritten.

https://hl7.org/fhir/R4/http.html#transaction, https://hl7.org/fhir/R4/bundle.html#references
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape, unescape
from typing import Any

from carelake.core.errors import CarelakeError, Invalid
from carelake.fhir.bundle import Entry
from carelake.fhir.definitions import is_resource
from carelake.fhir.path.model import Type, type_named

__all__ = [
    "Step",
    "at_entry",
    "conditional_references",
    "each_step",
    "in_order",
    "links_of",
    "no_overlap",
    "rewrite_links",
    "steps",
]

_ORDER = {"DELETE": 0, "POST": 1, "PUT": 2, "PATCH": 2, "GET": 3, "HEAD": 3}
_WITH_RESOURCE = frozenset({"POST", "PUT", "PATCH"})
_HEADERS = ("ifNoneMatch", "ifModifiedSince", "ifMatch", "ifNoneExist")
_RESTFUL = re.compile(r"(https?://.+)/([A-Z][A-Za-z]+)/([A-Za-z0-9\-.]{1,64})").fullmatch
_RELATIVE = re.compile(r"[A-Z][A-Za-z]+/[A-Za-z0-9\-.]{1,64}").fullmatch
_CONDITIONAL = re.compile(r"([A-Z][A-Za-z]+)\?.+", re.DOTALL).fullmatch
_LINK = re.compile(r"""(\s(?:href|src)\s*=\s*)("[^"]*"|'[^']*')""", re.IGNORECASE)
_URIS = frozenset({"uri", "url", "oid", "uuid"})
_MAX_URL = 16_384


@dataclass(frozen=True, slots=True)
class Step:
    """What one entry asks.

    Attributes:
        position: 0-based number in the bundle.
        path: the url's parts between slashes: ``("Patient", "1")``.
        query: what follows ``?`` in the url, percent-encoded.
        headers: ``ifMatch``, ``ifNoneExist`` and so on, those that were given.
    """

    position: int
    method: str
    path: tuple[str, ...]
    query: str
    full_url: str
    resource: dict[str, Any] | None
    headers: Mapping[str, str]

    @property
    def type(self) -> str:
        """The resource type that the url begins with, "" where it has none."""
        return self.path[0] if self.path and is_resource(self.path[0]) else ""

    @property
    def id(self) -> str:
        """The id that follows the type in the url, "" where there is none."""
        return self.path[1] if len(self.path) > 1 else ""

    @property
    def writes(self) -> bool:
        """Whether it may change the record."""
        return self.method not in ("GET", "HEAD")

    @property
    def criteria(self) -> str:
        """The condition that chooses the resource, "" where there is none."""
        return self.headers.get("ifNoneExist", "") if self.method == "POST" else self.query if self.writes else ""


def at_entry(position: int, error: CarelakeError) -> CarelakeError:
    """The error as one of an entry: its message says which, and so does ``facts["expression"]``."""
    where = f"Bundle.entry[{position}]"
    told = str(error.facts.get("expression", ""))
    below = f"{where}.resource{told[told.find('.') :] if '.' in told else ''}" if told else where
    # What is said of another entry stands; one that is nested in another says so once.
    if told.startswith("Bundle.entry["):
        return error
    facts = {name: value for name, value in error.facts.items() if name != "expression"}
    return type(error)(error.code, f"{where}: {error.message}", **facts, expression=below)


def steps(bundle: Mapping[str, Any], most: int, *, bases: Sequence[str] = ()) -> list[Step]:
    """The entries of a transaction, each understood; none is looked at twice for what it asks.

    Args:
        most: entries it may have.
        bases: addresses of this server; urls that begin with one are as good as relative ones.

    Raises:
        Invalid: ``fhir.bundle``, ``fhir.bundle_entry``; ``facts["expression"]`` names the entry.
    """
    found: list[Step] = []
    for one in each_step(bundle, most, bases=bases):
        if isinstance(one, Invalid):
            raise one
        found.append(one)
    return found


def each_step(bundle: Mapping[str, Any], most: int, *, bases: Sequence[str] = ()) -> Iterator[Step | Invalid]:
    """As `steps`, of a batch: what is wrong with an entry stands in its place.

    Raises:
        Invalid: ``fhir.bundle``: there is no list of entries, or it is too long.
    """
    listed = bundle.get("entry", [])
    if not isinstance(listed, list):
        raise Invalid("fhir.bundle", "Bundle.entry is a list.", expression="Bundle.entry")
    if len(listed) > most:
        raise Invalid(
            "fhir.bundle", f"The Bundle has more than {most} entries; send fewer at once.", expression="Bundle.entry"
        )
    for position, entry in enumerate(listed):
        try:
            if not isinstance(entry, dict):
                raise _wrong(position, "an entry is an object.")
            asked = Entry(position, entry.get("fullUrl", ""), entry.get("resource"), entry.get("request", {}))
            yield _step(asked, bases)
        except Invalid as error:
            yield error


def _step(entry: Entry, bases: Sequence[str]) -> Step:
    at, asked = entry.position, entry.request
    if not isinstance(asked, dict) or not isinstance(asked.get("url"), str):
        raise _wrong(at, "it has no request with method and url.")
    method = asked.get("method")
    if not isinstance(method, str) or method not in _ORDER:
        raise _wrong(at, f"request.method is one of {', '.join(_ORDER)}.")
    headers = {name: asked[name] for name in _HEADERS if name in asked}
    if not isinstance(entry.full_url, str) or not all(isinstance(value, str) for value in headers.values()):
        raise _wrong(at, "fullUrl and what request holds are texts.")
    if "ifNoneExist" in headers:
        headers["ifNoneExist"] = _below(headers["ifNoneExist"], bases).lstrip("/")
    path, query = _address(at, str(asked["url"]), bases)
    bare = entry.resource is None and method == "POST" and path[-1:] and path[-1].startswith("$")  # an operation
    if (method in _WITH_RESOURCE) != isinstance(entry.resource, dict) and not bare:
        raise _wrong(at, f"{method} {'needs a' if method in _WITH_RESOURCE else 'takes no'} resource.")
    return Step(at, method, path, query, entry.full_url, entry.resource, headers)


def _address(at: int, url: str, bases: Sequence[str]) -> tuple[tuple[str, ...], str]:
    if len(url) > _MAX_URL or "#" in url:
        raise _wrong(at, f"request.url has at most {_MAX_URL} characters and no #.")
    url = _below(url, bases)
    if "://" in url.partition("?")[0]:
        raise _wrong(at, "request.url is relative to this server: Patient/1, Patient?identifier=x.")
    path, _, query = url.partition("?")
    return tuple(part for part in path.strip("/").split("/") if part), query


def _below(url: str, bases: Sequence[str]) -> str:
    """An address of this server as a relative one; any other as it is."""
    for base in bases:
        if base and (url == base or url.startswith((base + "/", base + "?"))):
            url = url[len(base) :]
    return url


def in_order(listed: Iterable[Step]) -> list[Step]:
    """DELETE, POST, PUT and PATCH, then GET and HEAD; each in the order of the bundle."""
    return sorted(listed, key=lambda step: (_ORDER[step.method], step.position))


def no_overlap(named: Iterable[tuple[int, str]]) -> None:
    """Refuse what two entries change.

    Args:
        named: position of an entry and what it changes, ``Patient/1`` or a condition.

    Raises:
        Invalid: ``fhir.bundle_overlap``.
    """
    seen: dict[str, int] = {}
    for position, name in named:
        first = seen.setdefault(name, position)
        if first != position:
            raise Invalid(
                "fhir.bundle_overlap",
                f"Bundle.entry[{position}] and Bundle.entry[{first}] are for the same resource; a transaction "
                "changes each once.",
                expression=f"Bundle.entry[{position}]",
            )


def links_of(targets: Iterable[tuple[Step, str]]) -> dict[str, str]:
    """Full urls to what they come to be, ``Patient/1``.

    Raises:
        Invalid: ``fhir.bundle_entry``: a full url twice.
    """
    links: dict[str, str] = {}
    for step, target in targets:
        if not step.full_url:
            continue
        if step.full_url in links:
            raise _wrong(step.position, "its fullUrl is that of another entry.")
        links[step.full_url] = target
    return links


def rewrite_links(
    resource: dict[str, Any],
    links: Mapping[str, str],
    full_url: str = "",
    conditions: Mapping[str, str] | None = None,
) -> None:
    """Replace links to entries, in place and by the types of elements.

    References, elements of type uri, url, oid and uuid, and ``href`` and ``src`` of narratives; never a canonical.
    A full url that is no ``urn:`` is left alone in a uri, where it may be the name of a definition.

    Args:
        links: as `links_of` makes them.
        full_url: of the entry, that relative references are looked up by.
        conditions: ``Patient?identifier=x`` to what it found.
    """
    found = _RESTFUL(full_url)
    base = found[1] if found is not None else ""
    given = conditions or {}

    def of_reference(text: str) -> str:
        if text in links:
            return links[text]
        if base and _RELATIVE(text):
            return links.get(f"{base}/{text}", text)
        return given.get(text, text)

    for holder, key, kind in _texts(resource):
        text = holder[key]
        if kind == "reference":
            holder[key] = of_reference(text)
        elif kind == "xhtml":
            holder[key] = _LINK.sub(lambda match: _linked(match, of_reference), text)
        elif kind == "url" or text[:4].lower() == "urn:":
            holder[key] = links.get(text, text)


def _linked(match: re.Match[str], of_reference: Callable[[str], str]) -> str:
    quote, text = match[2][0], unescape(match[2][1:-1])
    made = of_reference(text)
    return match[0] if made == text else f"{match[1]}{quote}{escape(made)}{quote}"


def conditional_references(resource: dict[str, Any]) -> list[tuple[str, str]]:
    """(type, text) of references that are searches, ``Patient?identifier=x``, each once."""
    found: dict[str, str] = {}
    for holder, key, kind in _texts(resource):
        match = _CONDITIONAL(holder[key]) if kind == "reference" else None
        if match is not None and is_resource(match[1]):
            found[match[0]] = match[1]
    return [(kind, text) for text, kind in found.items()]


def _texts(resource: dict[str, Any]) -> Iterator[tuple[Any, Any, str]]:
    """(holder, key, what it is) of each text that may be a link: ``reference``, ``xhtml``, or a primitive's name."""
    todo: list[tuple[dict[str, Any], Type]] = [(resource, _type_of(resource))]
    while todo:
        node, kind = todo.pop()
        for key, value in list(node.items()):
            known = kind.keys.get(key)
            if known is None:
                if key[:1] == "_" and key[1:] in kind.keys:
                    todo += [(one, type_named("Element")) for one in _objects(value)]
                continue
            inner = known[1]
            if not inner.primitive:
                todo += [(one, _type_of(one) if inner.resolves else inner) for one in _objects(value)]
                continue
            what = "reference" if key == "reference" and kind.path == "Reference" else inner.path
            if what in _URIS or what in ("reference", "xhtml"):
                yield from _of(node, key, value, what)


def _of(node: dict[str, Any], key: str, value: Any, what: str) -> Iterator[tuple[Any, Any, str]]:
    if isinstance(value, str):
        yield node, key, what
    elif isinstance(value, list):
        yield from ((value, index, what) for index, one in enumerate(value) if isinstance(one, str))


def _objects(value: Any) -> list[dict[str, Any]]:
    return [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, dict)]


def _type_of(resource: dict[str, Any]) -> Type:
    told = resource.get("resourceType")
    return type_named(told if isinstance(told, str) else "")


def _wrong(position: int, message: str) -> Invalid:
    where = f"Bundle.entry[{position}]"
    return Invalid("fhir.bundle_entry", f"{where}: {message}", expression=where)
