"""Reads and searches among the entries of a transaction: last, so they see what it wrote."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from carelake.access.narrowed import ONLY
from carelake.apps.http.calls import Call
from carelake.apps.http.fhir.asking import is_id, strict
from carelake.apps.http.fhir.batching import MOST_BYTES, too_large
from carelake.apps.http.fhir.conditional_tags import unchanged, validators_of
from carelake.apps.http.fhir.paging import Asked, links
from carelake.apps.searching import Found, entries
from carelake.core import canonical
from carelake.core.errors import CarelakeError, Invalid, NotFound, Refused, Unavailable, Unsupported
from carelake.core.permit import Permit
from carelake.fhir.bundle import searchset
from carelake.fhir.query import Query, parse
from carelake.fhir.search.registry import Registry
from carelake.fhir.transactions import Step, at_entry

__all__ = ["Reads"]

_MAX_FIELDS = 1000
_Reading = Callable[[], dict[str, Any]]


class Reads:
    """The readings of one transaction, decided when this is made and done by `run`."""

    def __init__(self, call: Call, permit: Permit, steps: Iterable[Step]) -> None:
        """Understand them all, and ask whether the caller may.

        Raises:
            Refused: ``access.denied``; Unsupported, Invalid: as a search, ``fhir.bundle_entry``.
        """
        self._call, self._permit = call, permit
        listed = list(steps)
        self._registry: Registry | None = call.door.resources.registry(permit) if listed else None
        self._planned: list[tuple[Step, _Reading]] = []
        self._until = time.monotonic() + call.door.settings.serve.answer_seconds
        for step in listed:
            with _telling(step):
                self._planned.append((step, self._plan(step)))

    def run(self) -> dict[int, Any]:
        """What each answers, by position: an entry of the response."""
        done: dict[int, Any] = {}
        left = MOST_BYTES
        for step, reading in self._planned:
            with _telling(step):
                if time.monotonic() > self._until:  # writers may wait for it
                    said = "The transaction took too long, and nothing of it was kept. Send fewer entries."
                    raise Unavailable("http.too_slow", said)
                told = reading()
                if "resource" in told:
                    # As text, which is a fraction of what it is in parts.
                    told["resource"] = msgspec.Raw(canonical.dump_as_given(told["resource"]))
                    left -= len(bytes(told["resource"]))
                if left < 0:
                    raise too_large("The transaction")
            done[step.position] = {"response": told["response"]} if step.method == "HEAD" else told
        return done

    def _plan(self, step: Step) -> _Reading:
        path = step.path
        if len(path) == 2 and step.type and path[1][:1] not in "_$":
            return self._read(step, path[1], "")
        if len(path) == 4 and step.type and path[2] == "_history":
            return self._read(step, path[1], path[3])
        if not path or (len(path) == 1 and step.type):
            return self._search(step)
        raise Unsupported(
            "fhir.bundle_entry", "A transaction reads, reads versions and searches; all else goes into a batch."
        )

    def _read(self, step: Step, key: str, version: str) -> _Reading:
        if step.query or not is_id(key) or (version and not is_id(version)):
            raise NotFound("http.no_such_resource", "There is no such resource, or a read with a query.")
        self._allow("record:read", [step.type])
        record, permit = self._call.door.resources, self._permit

        def read() -> dict[str, Any]:
            whole = record.vread(permit, step.type, key, version) if version else None
            found = whole or record.read(permit, step.type, key)
            told = validators_of(found)
            said = {"etag": told["ETag"], "lastModified": found["meta"]["lastUpdated"]}
            asked = {"if-none-match": step.headers.get("ifNoneMatch", "")}
            if not version and unchanged(asked, told):
                return {"response": {"status": "304 Not Modified", **said}}
            at = f"{self._call.base}/fhir/{step.type}/{key}"
            return {"fullUrl": at, "resource": found, "response": {"status": "200 OK", **said}}

        return read

    def _search(self, step: Step) -> _Reading:
        call, root, kind = self._call, f"{self._call.base}/fhir", step.type
        query = self._query(step, root)
        self._allow("record:search", sorted(query.kinds()))

        def search() -> dict[str, Any]:
            result = call.door.resources.search(self._permit, query)
            linked = links(call, self._permit, kind, Asked(query.pairs, "", False), query.pairs, result.next)
            bundle = searchset(entries(Found(query, result), root), total=result.total, links=linked)
            return {"resource": bundle, "response": {"status": "200 OK"}}

        return search

    def _query(self, step: Step, root: str) -> Query:
        try:
            pairs = parse_qsl(step.query, keep_blank_values=True, errors="strict", max_num_fields=_MAX_FIELDS)
        except ValueError:
            raise Invalid("http.query", "The query is not UTF-8, percent-encoded, or has too many fields.") from None
        assert self._registry is not None
        types = (step.type,) if step.type else ()
        return parse(types, pairs, registry=self._registry, blank=not strict(self._call), base=root)

    def _allow(self, action: str, kinds: list[str]) -> None:
        """Ask as a request of its own would be; what it would see must be all of what the permit sees."""
        if any(name.startswith(ONLY) for name in self._permit.scope) and self._permit.action != action:
            raise Unsupported(
                "fhir.bundle_entry", "With this token's scopes a transaction only writes; read in a batch, or alone."
            )
        call = self._call
        who = call.caller(action, kinds[0] if kinds else "record")
        decided = call.door.gate.explain(who.principal, action, who.account, who.purpose, kinds)
        if not decided.allowed or set(decided.scope) - set(self._permit.scope):
            less = ["it would see less than the transaction does"]
            reasons = less if decided.allowed else list(decided.reasons)
            said = f"{who.principal.name} may not {action.partition(':')[2]} this: {'; '.join(reasons)}."
            raise Refused("access.denied", said, action=action, reasons=reasons)


@contextmanager
def _telling(step: Step) -> Iterator[None]:
    try:
        yield
    except CarelakeError as error:
        raise at_entry(step.position, error) from None
