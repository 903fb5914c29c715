"""A transaction: all of its entries or none, in one database transaction and one act.

What is asked is understood, decided and validated before the database transaction begins, since writers wait for one
another. Inside of it: deletions, then the conditions, whose answers name the resources that links are rewritten to,
then the writes, then the readings (https://hl7.org/fhir/R4/http.html#trules). Conditions are all asked of the same
state, before anything is made, and once more at the end: so the order of entries never decides what comes out.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlencode

from msgspec import structs
from sqlalchemy import Connection

from carelake.apps.errors import Rejected
from carelake.apps.http.calls import Call
from carelake.apps.http.fhir.asking import is_id
from carelake.apps.http.fhir.conditional import Writing
from carelake.apps.http.fhir.patching import change_of, patch_body, patched
from carelake.apps.http.fhir.transacting_reads import Reads
from carelake.apps.http.fhir.writing_checks import exists_for, verified
from carelake.core.errors import CarelakeError, Conflict, Invalid, NotFound, Unavailable
from carelake.core.permit import Permit
from carelake.fhir.lines import located
from carelake.fhir.patch.bounds import copied
from carelake.fhir.query import Query
from carelake.fhir.transactions import (
    Step,
    at_entry,
    conditional_references,
    in_order,
    links_of,
    no_overlap,
    rewrite_links,
)
from carelake.fhir.validate import Exists
from carelake.store import Written

__all__ = ["Outcome", "transact"]

_ACTION = "record:write"
_MAX_CONDITIONS = 1000
_MAX_ROUNDS = 8
_PATCH_SECONDS = 4.0
_LEAST_SECONDS = 0.05
_WRITTEN = ("POST", "PUT", "PATCH")

Outcome = Written | dict[str, Any] | None
"""What came of an entry: a write, a response entry of a reading, or None for a deletion of what was not there."""


def transact(call: Call, listed: list[Step]) -> dict[int, Outcome]:
    """Do all of it, or nothing: what came of each entry, by position.

    Raises:
        CarelakeError: of the first entry that cannot be done, told of that entry (``facts["expression"]``).
    """
    for step in listed:
        with telling(step):
            _check(step)
    kinds = list(dict.fromkeys(step.type for step in listed if step.writes))
    if not kinds:
        return _only_reads(call, listed)
    caller = call.caller(_ACTION, kinds[0])
    with call.enter(_ACTION, kinds[0]) as permit:
        permit = call.door.gate.widen(permit, kinds)
        permit.log.count(entries=len(listed))
        reads = Reads(call, permit, [step for step in listed if not step.writes])
        work = _Work(call, permit, listed)
        work.verify()
        with call.door.vault.database.transaction(permit) as tx:
            work.exists = work.with_planned(exists_for(call.door, permit, tx))
            writing = Writing(call.door, caller, permit, tx, exists=work.exists)
            return {**work.run(tx, writing), **reads.run()}


def _only_reads(call: Call, listed: list[Step]) -> dict[int, Outcome]:
    target = next((step.type for step in listed if step.type), "record")
    with call.enter("record:search", target) as permit:
        reads = Reads(call, permit, listed)
        permit.log.count(entries=len(listed))
        with call.door.vault.database.reading(permit):
            return dict(reads.run())


@contextmanager
def telling(step: Step) -> Iterator[None]:
    """Errors inside are told as this entry's."""
    try:
        yield
    except Rejected as error:
        where = f"Bundle.entry[{step.position}]"
        told = [structs.replace(one, expression=_inside(where, one.expression)) for one in error.issues]
        raise Rejected(error.code, f"{where}: {error.message}", told) from None
    except CarelakeError as error:
        raise at_entry(step.position, error) from None


def _inside(where: str, expression: str) -> str:
    if expression.startswith("Bundle."):
        return expression
    _, dot, rest = expression.partition(".")
    return f"{where}.resource{dot}{rest}"


def _check(step: Step) -> None:
    """Refuse what no entry of a transaction can ask."""
    if not step.writes:
        return
    if not step.type:
        raise Invalid("fhir.bundle_entry", "request.url begins with a FHIR R4 resource type: Patient/1.")
    if len(step.path) > (1 if step.method == "POST" else 2):
        raise Invalid("fhir.bundle_entry", "request.url is one of a resource or type; operations go into a batch.")
    if step.id and not is_id(step.id):
        raise Invalid("fhir.bundle_entry", "The id in request.url is 1 to 64 letters, digits, - and .")
    if step.method == "POST" and step.query:
        raise Invalid("fhir.bundle_entry", "A POST takes no query; its condition goes into request.ifNoneExist.")
    if step.method != "POST" and bool(step.id) == bool(step.query):
        raise Invalid("fhir.bundle_entry", "request.url has an id, or a condition: Patient/1, Patient?identifier=x.")
    if "ifNoneExist" in step.headers and (step.method != "POST" or not step.headers["ifNoneExist"].strip()):
        raise Invalid("fhir.bundle_entry", "request.ifNoneExist is a condition, and goes with POST.")
    told = step.resource.get("resourceType") if step.resource else None
    if step.method in ("POST", "PUT") and told != step.type:
        raise Invalid("fhir.bundle_entry", "The resource is not of the type that request.url says.")
    if step.method == "PUT" and step.id and step.resource and step.resource.get("id") != step.id:
        raise Invalid("fhir.bundle_entry", "The resource's id must be there, and be the one in request.url.")


class _Work:
    """The writes of one transaction."""

    def __init__(self, call: Call, permit: Permit, listed: list[Step]) -> None:
        self._call, self._permit = call, permit
        self._steps = [step for step in in_order(listed) if step.writes]
        self._written = [step for step in self._steps if step.method in _WRITTEN]
        self._new = {step.position: call.door.resources.new_id() for step in self._written}
        self._targets = {step.position: self._likely(step) for step in self._written}
        self._as_they_are: set[int] = set()  # entries that create what is there already
        self._changes = {step.position: self._change(step) for step in self._written if step.method == "PATCH"}
        conditions = [step for step in self._steps if step.criteria and step.method != "POST"]
        no_overlap((step.position, f"{step.type}?{step.criteria}") for step in conditions)
        self._name()
        self.exists: Exists | None = None
        self._asked = {step.position: conditional_references(step.resource or {}) for step in self._written}
        self._queries: dict[tuple[str, str], Query] = {}
        self._until = time.monotonic() + call.door.settings.serve.answer_seconds

    def _likely(self, step: Step) -> str:
        """What an entry will be for, unless its condition says otherwise."""
        told = (step.resource or {}).get("id") if step.method == "PUT" else None
        return step.id or (told if isinstance(told, str) else self._new[step.position])

    def _change(self, step: Step) -> Any:
        with telling(step):
            media_type, body = patch_body(step.resource or {})
            most = self._call.door.settings.serve.max_body_bytes
            return change_of(media_type, body, most, max(_LEAST_SECONDS, _PATCH_SECONDS / len(self._written)))

    def _name(self) -> None:
        """Say what each entry is for, as far as that is known."""
        named = [(step, f"{step.type}/{self._targets[step.position]}") for step in self._written]
        self._links = links_of(named)
        self._planned = frozenset(name for _, name in named)

    def with_planned(self, there: Exists | None) -> Exists | None:
        """What is there, and what will be when all is done."""
        if there is None:
            return None
        return lambda kind, key: f"{kind}/{key}" in self._planned or there(kind, key)

    def verify(self) -> None:
        """Validate what is sent, its links as they will likely be."""
        for step in self._written:
            if step.method == "PATCH" or step.resource is None:
                continue
            links = {text: found for _, text in conditional_references(step.resource) if (found := _any_of(text))}
            made = copied(step.resource)
            rewrite_links(made, self._links, step.full_url, links)
            with telling(step):
                self._verified(step, made)

    def _verified(self, step: Step, made: dict[str, Any]) -> None:
        door, permit = self._call.door, self._permit
        try:
            verified(door, permit, made, step.type, references=False)
        except Rejected as error:
            # Places in the text are looked for now alone: each look reads the text from its beginning.
            issues = located(self._call.body, error.issues, f"Bundle.entry[{step.position}].resource")
            raise Rejected(error.code, error.message, issues) from None

    def run(self, tx: Connection, writing: Writing) -> dict[int, Outcome]:
        """Write all of it."""
        self._decide(writing)
        deletions = [(step, self._deleted(writing, step)) for step in self._steps if step.method == "DELETE"]
        gone = [(step.position, f"{step.type}/{key}") for step, key in deletions if key]
        no_overlap(gone)
        done: dict[int, Outcome] = {}
        for step, key in deletions:
            with telling(step):
                match = step.headers.get("ifMatch", "")
                done[step.position] = writing.delete(step.type, key, if_match=match) if key else None
        self._resolve(tx, writing)
        changed = [step for step in self._written if step.position not in self._as_they_are]
        no_overlap([*gone, *((step.position, f"{step.type}/{self._targets[step.position]}") for step in changed)])
        self._name()
        done |= self._write(tx, writing)
        self._still(writing)
        return done

    def _decide(self, writing: Writing) -> None:
        """Read all conditions, and have it decided that the caller may ask them, before any is asked."""
        if len({text for one in self._asked.values() for _, text in one}) > _MAX_CONDITIONS:
            said = f"The transaction has more than {_MAX_CONDITIONS} conditional references."
            raise Invalid("fhir.bundle", said, expression="Bundle.entry")
        for step in self._steps:
            own = [(step.type, step.criteria)] if step.criteria else []
            with telling(step):
                for kind, text in own + self._asked.get(step.position, []):
                    if (kind, text) not in self._queries:
                        self._see()
                        self._queries[kind, text] = writing.condition(kind, text)

    def _ask(self, writing: Writing, kind: str, criteria: str) -> str:
        """Id of what a condition matches, "" for none."""
        self._see()
        return writing.match(kind, self._queries[kind, criteria])

    def _see(self) -> None:
        """End what nobody waits for any more: the writers behind it do wait."""
        if time.monotonic() > self._until:
            said = "The transaction took too long, and nothing of it was kept. Send fewer entries or conditions."
            raise Unavailable("http.too_slow", said)

    def _deleted(self, writing: Writing, step: Step) -> str:
        """Id of what is to be deleted, "" for none; all are found before one is gone."""
        with telling(step):
            key = step.id or self._ask(writing, step.type, step.criteria)
            if not key and step.headers.get("ifMatch", "").strip():
                writing.at_version(step.type, self._call.door.resources.new_id(), step.headers["ifMatch"])
        return key

    def _resolve(self, tx: Connection, writing: Writing) -> None:
        """Ask the conditions, all of the state that is there after the deletions."""
        for step in (step for step in self._written if step.criteria):
            with telling(step):
                known = self._ask(writing, step.type, step.criteria)
                if not known:
                    self._unmet(tx, writing, step)
                    continue
                told = (step.resource or {}).get("id") if step.method == "PUT" else None
                if told not in (None, known):
                    raise Invalid("http.id", "The resource has another id than the one that matches the condition.")
                self._targets[step.position] = known
                if step.method == "POST":
                    self._as_they_are.add(step.position)
        unmet = [step for step in self._written if step.criteria and step.position not in self._as_they_are]
        no_overlap((step.position, self._wanted(step)) for step in unmet)

    def _wanted(self, step: Step) -> str:
        """The condition, however it was written: after ``Patient?``, escaped, in another order."""
        return f"{step.type}?{urlencode(sorted(self._queries[step.type, step.criteria].pairs))}"

    def _unmet(self, tx: Connection, writing: Writing, step: Step) -> None:
        if step.method == "PATCH":
            raise NotFound("http.no_match", "No resource matches the condition; a patch changes one that is there.")
        if step.headers.get("ifMatch", "").strip():
            writing.at_version(step.type, self._new[step.position], step.headers["ifMatch"])
        key = self._targets[step.position]
        if step.method == "PUT" and self._call.door.resources.version(self._permit, tx, step.type, key):
            said = "No resource matches the condition, and the id is that of one which does not match."
            raise Conflict("http.id_taken", said)

    def _write(self, tx: Connection, writing: Writing) -> dict[int, Outcome]:
        """The writes; those that refer by a condition after the others, as those may be what is meant."""
        done: dict[int, Outcome] = {}
        found: dict[str, str] = {}
        waiting = list(self._written)
        for rounds in range(_MAX_ROUNDS + 1):
            if rounds == _MAX_ROUNDS:
                with telling(waiting[0]):
                    said = f"Conditional references lead through more than {_MAX_ROUNDS} entries; use full urls."
                    raise Invalid("fhir.bundle_entry", said)
            ready = [step for step in waiting if all(text in found for _, text in self._asked[step.position])]
            for step in ready:
                with telling(step):
                    done[step.position] = self._one(tx, writing, step, found)
            waiting = [step for step in waiting if step.position not in done]
            if not waiting:
                break
            self._refer(writing, waiting, found, bool(ready))
        self._same(writing, found)
        return done

    def _refer(self, writing: Writing, waiting: list[Step], found: dict[str, str], moved: bool) -> None:
        """Look for what is referred to, as far as it is there by now."""
        before = len(found)
        for step in waiting:
            with telling(step):
                for kind, text in self._asked[step.position]:
                    key = "" if text in found else self._ask(writing, kind, text)
                    if key:
                        found[text] = f"{kind}/{key}"
        if len(found) == before and not moved:
            with telling(waiting[0]):
                said = "A reference is a condition that no resource matches."
                raise Conflict("http.unresolved", said)

    def _same(self, writing: Writing, found: Mapping[str, str]) -> None:
        """That a reference still means what it meant, now that all is written."""
        checked: set[str] = set()
        for step in self._written:
            for kind, text in self._asked[step.position]:
                if text not in checked:
                    checked.add(text)
                    with telling(step):
                        _agree(f"{kind}/{self._ask(writing, kind, text)}", found[text])

    def _still(self, writing: Writing) -> None:
        """That no condition of a write has come to match another resource, or several."""
        for step in self._written:
            if step.criteria:
                with telling(step):
                    key = self._ask(writing, step.type, step.criteria)
                    _agree(key or self._targets[step.position], self._targets[step.position])

    def _one(self, tx: Connection, writing: Writing, step: Step, found: Mapping[str, str]) -> Written:
        key, match = self._targets[step.position], step.headers.get("ifMatch", "")
        record = self._call.door.resources
        self._see()

        def linked(resource: dict[str, Any]) -> dict[str, Any]:
            # What was there before a patch was not written relative to this entry.
            rewrite_links(resource, self._links, "" if step.method == "PATCH" else step.full_url, found)
            return resource

        if step.method == "PATCH":
            change = self._changes[step.position]
            changed = patched(self._call, self._permit, writing, step.type, key, change, match, last=linked)
            return changed if writing.reads(step.type) else changed._replace(resource=None)
        if step.position in self._as_they_are:
            shown = writing.reads(step.type)
            return record.written(self._permit, tx, step.type, key, shown=shown)
        made = linked({**(step.resource or {}), "id": key})
        made_here = key == self._new[step.position]
        if made_here:
            return record.create(self._permit, tx, made, exists=self.exists, valid=True, key=key)
        if_none = step.headers.get("ifNoneMatch", "")
        return writing.update(made, if_match=match, if_none_match=if_none, valid=True)


def _agree(now: str, then: str) -> None:
    if now != then:
        said = "A condition matches another resource once the transaction is done; write what it names by its id."
        raise Conflict("http.several_matches", said)


def _any_of(text: str) -> str:
    """Some reference of the type that a condition names, to validate by."""
    return f"{text.partition('?')[0]}/any"
