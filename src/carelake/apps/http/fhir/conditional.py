"""Create, update and delete with their conditions, each inside an open transaction of one act.

Single requests and the entries of transactions are the same here. A condition is a search: it is for whom that search
is allowed, and sees what the permit sees.

https://hl7.org/fhir/R4/http.html#ccreate, #cond-update, #3.1.0.7.1, #concurrency
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection

from carelake.access.identity import Caller
from carelake.apps.http.fhir.conditional_tags import ANY, tags
from carelake.apps.http.ports import Door
from carelake.core.errors import Conflict, Invalid, Refused
from carelake.core.permit import Permit
from carelake.fhir.query import Query
from carelake.fhir.validate import Exists
from carelake.store import Written

__all__ = ["Writing", "expecting"]


class Writing:
    """The writes of one act, in its transaction; every method is one interaction.

    All raise as `Resources.create`, `update` and `delete`, and:
        Conflict: ``store.version_conflict``, ``http.precondition``, ``http.several_matches`` (412);
            ``http.id_taken`` (409).
        Refused: ``access.denied``: a condition that the caller may not search by.
        Invalid: ``store.criteria``, ``search.*``, ``http.etag``, ``http.id``.
    """

    def __init__(
        self, door: Door, caller: Caller, permit: Permit, tx: Connection, *, exists: Exists | None = None
    ) -> None:
        """Args: exists: what is asked of references where ``validation.references`` is on."""
        self._door, self._caller, self._permit, self._tx = door, caller, permit, tx
        self._record, self._exists = door.resources, exists

    def create(self, resource: dict[str, Any], *, if_none_exist: str | None = None, valid: bool = False) -> Written:
        """A new resource; with a condition that one matches, that one as it is (``changed`` and ``created`` False).

        Its ``resource`` is None where the caller may not read it.
        """
        kind = str(resource.get("resourceType"))
        if if_none_exist is not None:
            known = self.one(kind, if_none_exist)
            if known:
                return self._as_it_is(kind, known)
        return self._record.create(self._permit, self._tx, resource, exists=self._exists, valid=valid)

    def update(
        self, resource: dict[str, Any], *, if_match: str = "", if_none_match: str = "", valid: bool = False
    ) -> Written:
        """A resource under its id; ``if_match`` and ``if_none_match`` are the headers' texts."""
        kind, key = str(resource.get("resourceType")), str(resource.get("id"))
        expected = self._expected(kind, key, if_match)
        self._unless(kind, key, if_none_match)
        return self._record.update(
            self._permit, self._tx, resource, expected=expected, exists=self._exists, valid=valid
        )

    def update_where(
        self,
        kind: str,
        criteria: str,
        resource: dict[str, Any],
        *,
        if_match: str = "",
        if_none_match: str = "",
        valid: bool = False,
    ) -> Written:
        """The one resource that matches; a new one where none does."""
        known, told = self.one(kind, criteria), resource.get("id")
        if known:
            if told not in (None, known):
                raise Invalid("http.id", "The resource has another id than the one that matches the condition.")
            return self.update({**resource, "id": known}, if_match=if_match, if_none_match=if_none_match, valid=valid)
        if if_match.strip():
            raise _conflict()
        if told is None:
            return self.create(resource, valid=valid)
        if self._record.version(self._permit, self._tx, kind, str(told)):
            raise Conflict(
                "http.id_taken", "No resource matches the condition, and the id is that of one which does not match."
            )
        return self.update(resource, valid=valid)

    def delete(self, kind: str, key: str, *, if_match: str = "") -> Written | None:
        """Delete; None where there is none."""
        expected = self._expected(kind, key, if_match)
        return self._record.delete(self._permit, self._tx, kind, key, expected=expected)

    def delete_where(self, kind: str, criteria: str, *, if_match: str = "") -> Written | None:
        """Delete the one resource that matches; None where none does."""
        known = self.one(kind, criteria)
        if not known and if_match.strip():
            raise _conflict()
        return self.delete(kind, known, if_match=if_match) if known else None

    def one(self, kind: str, criteria: str) -> str:
        """Id of the one resource that matches, "" for none."""
        return self.match(kind, self.condition(kind, criteria))

    def condition(self, kind: str, criteria: str) -> Query:
        """A condition as a search, once it is decided that the caller may search so."""
        query = self._record.criteria(self._permit, self._tx, kind, criteria)
        self._allow("record:search", sorted(query.kinds()))
        return query

    def match(self, kind: str, query: Query) -> str:
        """As `one`, of a `condition`."""
        found = self._record.found(self._permit, self._tx, kind, query)
        if len(found) > 1:
            raise Conflict(
                "http.several_matches", "Several resources match the condition; make it match one, or none."
            )
        return found[0] if found else ""

    def at_version(self, kind: str, key: str, if_match: str) -> None:
        """Refuse a change that was made for another version than the current one (If-Match)."""
        self._expected(kind, key, if_match)

    def reads(self, kind: str) -> bool:
        """Whether the caller may be shown what there was already of this type, in the sight of the permit."""
        return self._may("record:read", [kind]) is None

    def _as_it_is(self, kind: str, key: str) -> Written:
        version = self._record.version(self._permit, self._tx, kind, key)
        return self._record.written(self._permit, self._tx, kind, key, shown=self.reads(kind) and bool(version))

    def _expected(self, kind: str, key: str, if_match: str) -> int | None:
        """The version that must be the current one."""
        asked = tags(if_match)
        if not asked:
            return None
        now = self._record.version(self._permit, self._tx, kind, key)
        _at(now, asked)
        return now

    def _unless(self, kind: str, key: str, if_none_match: str) -> None:
        asked = tags(if_none_match)
        if asked:
            _not_at(self._record.version(self._permit, self._tx, kind, key), asked)

    def _allow(self, action: str, kinds: list[str]) -> None:
        reasons = self._may(action, kinds)
        if reasons is not None:
            who, words = self._caller.principal.name, action.partition(":")[2]
            raise Refused(
                "access.denied",
                f"The condition is a search, and {who} may not {words} by it: {'; '.join(reasons)}.",
                action=action,
                reasons=reasons,
            )

    def _may(self, action: str, kinds: list[str]) -> list[str] | None:
        """None where it is allowed, else why not."""
        who = self._caller
        decided = self._door.gate.explain(who.principal, action, who.account, who.purpose, kinds)
        if not decided.allowed:
            return list(decided.reasons)
        narrower = set(decided.scope) - set(self._permit.scope)
        return ["it would see less than the write does"] if narrower else None


def expecting(if_match: str = "", if_none_match: str = "") -> Callable[[int], None]:
    """What a write at a version asks of the current one's number, 0 for none; it raises as `Writing.update`."""
    wanted, unwanted = tags(if_match), tags(if_none_match)

    def check(now: int) -> None:
        if wanted:
            _at(now, wanted)
        if unwanted:
            _not_at(now, unwanted)

    return check


def _at(now: int, asked: Sequence[str]) -> None:
    if not now or not (ANY in asked or str(now) in asked):
        raise _conflict()


def _not_at(now: int, asked: Sequence[str]) -> None:
    if now and (ANY in asked or str(now) in asked):
        raise Conflict(
            "http.precondition", "There is such a resource, and the write was made for there being none (412)."
        )


def _conflict() -> Conflict:
    return Conflict(
        "store.version_conflict",
        "The resource is not at the version that the write was made for; read it again and redo the change.",
    )
