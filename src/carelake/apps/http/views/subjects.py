"""Which view or query is meant: sent with the call, saved in the lake, or a Library of the record.

A reference is ``ViewDefinition/ID``, ``Library/ID`` or the address of one on this server; a canonical is looked for
among what was sent, then the saved views, then the Libraries of the record. Nothing is fetched from elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from carelake.apps.http.calls import Call
from carelake.apps.http.fhir.asking import is_id
from carelake.apps.http.views.asking import Ask, Given
from carelake.apps.searching import find
from carelake.core.errors import Invalid
from carelake.core.permit import Permit
from carelake.fhir.query import parse
from carelake.lake.views import saved
from carelake.lake.views.build import build
from carelake.lake.views.definition import read
from carelake.lake.views.queries import Node, none_such, query_of, resolved

__all__ = ["Subjects", "name_of"]

_TYPES = {"view": "ViewDefinition", "query": "Library"}


class Subjects:
    """Finds what one call names.

    Args:
        permit: for the lake; a Library is read by a permit of its own, for the record.
    """

    def __init__(self, call: Call, permit: Permit, ask: Ask, given: Given) -> None:
        self._call, self._permit, self._ask = call, permit, ask
        self._saved = saved.all_of(permit, call.door.vault)
        self._sent = _by_url(ask, given)
        self._used: set[str] = set()

    def found(self, of: Given, key: str | None = None) -> tuple[str, Node]:
        """The subject that some parameters name, or that the address does: its own name, and all that it needs.

        Raises:
            Invalid: ``http.parameter``, ``lake.query``, ``lake.query_parameter``, and what is wrong with a view.
            NotFound: ``lake.no_such_view``.
        """
        artifact = self._artifact(of, key)
        kind = artifact.get("resourceType")
        values = of.one("parameters")
        if kind == "ViewDefinition" and self._ask.of_views:
            if values is not None:
                raise Invalid("http.parameter", "A view takes no parameters.", expression="parameters")
            definition = read(artifact)
            build(definition)
            return definition.name, {"view": artifact}
        if kind != "Library" or not self._ask.of_queries:
            raise Invalid("lake.query", f"Expected {self._expected()}.", expression=self._ask.named)
        query = query_of(artifact)
        return query.name, resolved(query, _values(values), self._canonical)

    def used(self) -> None:
        """All that was sent beside the subjects is something that they read; else `Invalid` ``http.parameter``."""
        if self._sent.keys() - self._used:
            name = self._ask.context
            message = f"A {name} is sent that no subject reads, by its url."
            raise Invalid("http.parameter", message, expression=name)

    def _expected(self) -> str:
        return {"view": "a ViewDefinition", "query": "a SQLQuery Library"}.get(
            self._ask.named, "a ViewDefinition, or a SQLQuery or SQLView Library"
        )

    def _artifact(self, of: Given, key: str | None) -> Mapping[str, Any]:
        if key is not None:
            return self._referred(f"{_TYPES[self._ask.named]}/{key}")
        names = [f"{self._ask.named}{how}" for how in ("Resource", "Canonical", "Reference")]
        told = [(how, of.one(name)) for how, name in enumerate(names) if name in of]
        if len(told) != 1:
            raise Invalid(
                "http.parameter", f"Expected exactly one of {', '.join(names)}.", expression=self._ask.named
            )
        ((how, value),) = told
        if how:
            return (self._canonical, self._referred)[how - 1](str(value))
        assert isinstance(value, Mapping)
        return value

    def _referred(self, said: str) -> Mapping[str, Any]:
        kind, _, key = said.removeprefix(f"{self._call.base}/fhir/").partition("/")
        if kind == "ViewDefinition":
            for one in self._saved:
                if key.lower() in one.known_as:
                    return shown(one)
        elif kind == "Library" and is_id(key):
            with self._call.enter("record:read", "Library") as permit:
                found: Mapping[str, Any] = self._call.door.resources.read(permit, "Library", key)
            return found
        else:
            return self._canonical(said)  # clients give canonicals as references too
        raise none_such()

    def _canonical(self, said: str) -> Mapping[str, Any]:
        url, _, version = said.partition("|")
        sent = self._sent.get(url)
        if sent is not None and version in ("", sent.get("version")):
            self._used.add(url)
            return sent
        for one in self._saved:
            if one.view.get("url") == url and version in ("", one.view.get("version")):
                return shown(one)
        if url.startswith("ViewDefinition/"):
            return self._referred(url)
        return self._library(url, version)

    def _library(self, url: str, version: str) -> Mapping[str, Any]:
        pairs = [("url", url), *([("version", version)] if version else [])]
        with self._call.enter("record:search", "Library") as permit:
            found = find(self._call.door, permit, lambda registry: parse("Library", pairs, registry=registry))
            listed = found.result.matches
        if not listed:
            raise none_such()
        newest: Mapping[str, Any] = max(listed, key=lambda one: str(one.get("version", "")))
        return newest


def shown(one: saved.Saved) -> dict[str, Any]:
    """A saved view as a resource."""
    return {"resourceType": "ViewDefinition", **dict(one.view), "id": one.id}


def name_of(wanted: str | None, own: str, number: int) -> str:
    """What an output is called: as was asked for, else as the subject calls itself, else by its number."""
    return wanted or own or f"output-{number}"


def _by_url(ask: Ask, given: Given) -> dict[str, Mapping[str, Any]]:
    found: dict[str, Mapping[str, Any]] = {}
    for one in given.all(ask.context) if ask.context else ():
        url = one.get("url")
        if not isinstance(url, str) or not url or url in found:
            raise Invalid("http.parameter", f"Each {ask.context} has a url of its own.", expression=ask.context)
        found[url] = one
    return found


def _values(parameters: Mapping[str, Any] | None) -> dict[str, tuple[str, Any]]:
    """Name -> FHIR type and value, of a Parameters resource."""
    found: dict[str, tuple[str, Any]] = {}
    for one in (parameters or {}).get("parameter", ()):
        told = [key for key in one if key.startswith("value")]
        name = str(one.get("name", ""))
        if len(told) != 1 or name in found or isinstance(one[told[0]], dict | list):
            raise Invalid("lake.query_parameter", "Each parameter has one primitive value.", expression="parameters")
        kind = told[0].removeprefix("value")
        found[name] = (kind[0].lower() + kind[1:], one[told[0]])
    return found
