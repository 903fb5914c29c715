"""Requests to answers: who answers by the routing, what shadows and the old version say of the same rows, and the one
transaction that keeps all of it before anything is answered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
from sqlalchemy import Connection

from carelake.audit.nouns import Nouns
from carelake.core.errors import CarelakeError, Conflict, Invalid, NotFound
from carelake.core.nouns import Noun
from carelake.core.permit import Permit
from carelake.models.matrix import Floats
from carelake.models.registry import APPROVED
from carelake.serving import capture, fit, ledger, rollout, windows
from carelake.serving.config import Variant
from carelake.serving.loaded import Loaded
from carelake.serving.predictions import Prediction, risk_assessment
from carelake.serving.rollout import Routing
from carelake.serving.scoring import Answered, Asked, Endpoint, answers
from carelake.vault.database import bulk, rows_of, scope_of
from carelake.vault.workspace import Vault

__all__ = ["Answering", "Prepared", "Source"]

Source = Callable[[Endpoint], Asked]
"""The rows of a request, as a model takes them: variants may have other features than each other."""

_STATES = "SELECT account, state FROM noun WHERE ref = ?"
_DUE = "INSERT INTO prediction_due (ref, account) VALUES (?, ?) ON CONFLICT (ref) DO NOTHING"
_Along = Callable[[Connection, Sequence[Prediction]], None]


def _nothing(_tx: Connection, _answers: Sequence[Prediction]) -> None:
    """Nothing more is kept."""


@dataclass(frozen=True)
class _Part:
    """What one variant answers of a request."""

    endpoint: Endpoint
    answered: Sequence[Answered]
    shadowed: Sequence[tuple[Endpoint, Sequence[Answered]]] = ()


@dataclass(frozen=True)
class Prepared:
    """A request that is scored, and is to be kept.

    Attributes:
        answers: in the order of the rows.
        counts: of `windows`.
        later: RiskAssessments are written a moment later (`writeback`).
        moving: a rollout is under way.
    """

    name: str
    parts: Sequence[_Part]
    answers: Sequence[Prediction]
    counts: windows.Counts
    event: str
    begun: datetime
    made_from: Mapping[str, Sequence[str]] = field(default_factory=dict)
    basis: Mapping[str, Sequence[str]] = field(default_factory=dict)
    along: _Along = _nothing
    later: bool = False
    moving: bool = False

    @property
    def variant(self) -> str:
        """Ref of the variant that answered most."""
        return max(self.parts, key=lambda part: len(part.answered)).endpoint.ref if self.parts else ""


class Answering:
    """Answers the requests of a workspace's endpoints."""

    def __init__(self, vault: Vault, nouns: Nouns, loaded: Loaded, keep: capture.Keeper) -> None:
        self._vault = vault
        self._nouns = nouns
        self._loaded = loaded
        self._keep = keep
        self.late = windows.Late()

    def routing(self, permit: Permit, name: str) -> Routing:
        """Who answers under a name now. Needs ``rows:read``.

        Raises:
            NotFound: ``serving.no_such_endpoint``; in another account, too.
        """
        with self._vault.database.reading(permit) as tx:
            found = rollout.routing(tx, permit.account, name, self._vault.clock.now())
        if found is None:
            raise no_endpoint()
        return found

    def endpoint(self, permit: Permit, name: str, variant: Variant) -> Endpoint:
        """A variant, loaded. Needs ``models:read``, ``rows:read``."""
        files = self._loaded.of(permit, variant)
        body = {"name": name, "model": variant.model, "model_name": files.manifest.name, "variant": variant.name}
        return Endpoint(Noun(variant.endpoint, permit.account, "", "", (variant.model,), body), files)

    def asleep(self, permit: Permit, name: str) -> list[Variant]:
        """Variants whose sandbox would have to be begun. Needs ``rows:read``."""
        routing = self.routing(permit, name)
        if rollout.is_out(routing):
            return []
        every = (*(variant for variant, _ in routing.shares()), *routing.shadows)
        boxes, account = self._loaded.boxes, permit.account
        asleep = [one for one in every if one.sandbox and boxes.sleeps(account, one.endpoint, one.model)]
        return [one for one in asleep if not boxes.closed(permit, one.endpoint)]

    def wake(self, permit: Permit, name: str) -> None:
        """Begin them, so that no request has to wait for it. Needs ``models:read``, ``rows:read``."""
        for one in self.asleep(permit, name):
            self._loaded.of(permit, one)

    def tidy(self, permit: Permit) -> None:
        """End sandboxes here to which another process lets nothing be released any more. Needs ``rows:read``."""
        self._loaded.boxes.tidy(permit)

    def prepare(
        self,
        permit: Permit,
        name: str,
        source: Source,
        keys: Sequence[str],
        *,
        endpoint: Endpoint | None = None,
        target: str | None = None,
        event: str = "",
        begun: datetime | None = None,
        **more: Any,
    ) -> Prepared:
        """Score a request; nothing is kept yet.

        Args:
            keys: a word a row by which it is routed, its patient's id where that is known.
            endpoint: answers all of it, whatever the routing says.
            target: name of the variant that does.
            event: the caller's id of the request.
            begun: when the request came, where features were looked up for it; default: now.
        """
        begun = begun or self._vault.clock.now()
        try:
            routing = self.routing(permit, name)
        except NotFound:
            if endpoint is None:
                raise
            raise _out_of_service() from None
        counts: windows.Counts = Counter()
        found: list[Prediction | None] = [None] * len(keys)
        parts = []
        for one, numbers in self._split(permit, name, routing, keys, endpoint, target):
            try:
                asked = source(one)
            except Invalid:
                self._cannot(permit, routing, one, source)
                raise
            mine = asked if len(numbers) == len(keys) else asked.where(numbers)
            answered = answers(self._vault, permit, one, mine)
            for number, answer in zip(numbers, answered, strict=True):
                found[number] = answer.prediction
            _count(counts, one, mine.x, answered)
            self._beside(permit, routing, one, source, numbers, answered, counts)
            shadowed = self._shadows(permit, routing, name, source, numbers, answered, counts)
            parts.append(_Part(one, answered, shadowed))
        said = [one for one in found if one is not None]
        moving = routing.newest.under_way
        return Prepared(name, parts, said, counts, event or permit.act, begun, moving=moving, **more)

    def _split(
        self,
        permit: Permit,
        name: str,
        routing: Routing,
        keys: Sequence[str],
        endpoint: Endpoint | None,
        target: str | None,
    ) -> list[tuple[Endpoint, list[int]]]:
        if endpoint is not None:
            return [(endpoint, list(range(len(keys))))]
        chosen: dict[Variant, list[int]] = {}
        for number, key in enumerate(keys):
            chosen.setdefault(routing.variant(key, target), []).append(number)
        return [(self.endpoint(permit, name, one), numbers) for one, numbers in chosen.items()]

    def _cannot(self, permit: Permit, routing: Routing, one: Endpoint, source: Source) -> None:
        """Rows that a new version refuses and the old one takes: a failure of the new one, and not the caller's."""
        fresh = {variant.endpoint for variant in routing.newest.told.variants}
        if routing.old is None or not routing.newest.under_way or one.ref not in fresh:
            return
        try:
            source(self.endpoint(permit, one.name, routing.old.told.variants[0]))
        except CarelakeError:
            return
        self.late.failed(permit.account, one.ref, 500)

    def _beside(
        self,
        permit: Permit,
        routing: Routing,
        one: Endpoint,
        source: Source,
        numbers: Sequence[int],
        answered: Sequence[Answered],
        counts: windows.Counts,
    ) -> None:
        """During a rollout: what the old version would have said, counted and told nobody."""
        fresh = {variant.endpoint for variant in routing.newest.told.variants}
        if routing.old is None or not routing.newest.under_way or one.ref not in fresh:
            return
        try:
            old = self.endpoint(permit, one.name, routing.old.told.variants[0])
            said = old.files.scorer.risk(source(old).where(numbers).x)
        except CarelakeError:
            return  # the old version cannot be asked these rows: it has other features, or is no more
        for metric, bins in (("peer", windows.histogram(said)), ("paired", windows.histogram(_risks(answered)))):
            for at in bins:
                counts[one.ref, metric, at] += 1

    def _shadows(
        self,
        permit: Permit,
        routing: Routing,
        name: str,
        source: Source,
        numbers: Sequence[int],
        answered: Sequence[Answered],
        counts: windows.Counts,
    ) -> list[tuple[Endpoint, Sequence[Answered]]]:
        found: list[tuple[Endpoint, Sequence[Answered]]] = []
        if not routing.shadows:
            return found
        with self._vault.database.reading(permit) as tx:
            shadows = fit.approved(tx, routing.shadows)
        for variant in shadows:
            try:
                one = self.endpoint(permit, name, variant)
                told = answers(self._vault, permit, one, source(one).where(numbers), capture.SHADOW)
            except CarelakeError:
                counts[variant.endpoint, "error", 5] += 1  # a shadow's failure is nobody's but its own
                continue
            found.append((one, told))
            counts[one.ref, "rows", 0] += len(told)
            pairs = zip(windows.histogram(_risks(told)), windows.histogram(_risks(answered)), strict=True)
            for its, theirs in pairs:
                counts[one.ref, "shadow", its] += 1
                counts[one.ref, "shadowed", theirs] += 1
        return found

    def keep(self, permit: Permit, tx: Connection, prepared: Prepared) -> int:
        """Keep a request, or raise: then it is not to be answered. Answers its number, 0 of no rows.

        Raises:
            Conflict: ``serving.out_of_service``, ``serving.not_approved`` when it has changed since.
        """
        if not prepared.parts:
            return 0
        now = self._vault.clock.now()
        routing = rollout.routing(tx, permit.account, prepared.name, now)
        for part in prepared.parts:
            self._serving(tx, permit, routing, part.endpoint)
            rows = [(a.prediction, a.said, self._sources(prepared, a)) for a in part.answered]
            self._record(permit, tx, prepared, part.endpoint, [row[0] for row in rows])
            capture.capture(permit, tx, self._vault, self._nouns, rows)
            for shadow, said in part.shadowed:
                if not self._approved(tx, permit, shadow):
                    continue  # it was turned down a moment ago
                told = [(one.prediction, one.said, ()) for one in said]
                capture.capture(permit, tx, self._vault, self._nouns, told, capture.SHADOW)
        refs = [one.ref for one in prepared.answers]
        number = ledger.enter(permit, tx, prepared.name, prepared.variant, prepared.event, refs, now)
        windows.add(tx, permit.account, now, self._with_late(tx, permit.account, prepared.counts))
        prepared.along(tx, prepared.answers)
        return number

    @staticmethod
    def _sources(prepared: Prepared, answered: Answered) -> Sequence[str]:
        return prepared.made_from.get(answered.prediction.subject, ())

    def _record(
        self, permit: Permit, tx: Connection, prepared: Prepared, endpoint: Endpoint, told: Sequence[Prediction]
    ) -> None:
        """Write RiskAssessments into the record, or that they are due; not again what is there."""
        wanted = [one for one in told if one.resource]
        if not wanted:
            return
        there = capture.known(tx, [one.ref for one in wanted])
        fresh = list({one.ref: one for one in wanted if one.ref not in there}.values())
        if prepared.later:
            bulk(tx, _DUE, [(one.ref, permit.account) for one in fresh])
        elif fresh:
            name = f"{endpoint.noun.body['model_name']} v{endpoint.noun.body.get('model_version', '')}"
            basis = prepared.basis
            self._keep(permit, tx, [risk_assessment(one, name, basis.get(one.encounter, ())) for one in fresh])

    def _with_late(self, tx: Connection, account: str, counts: windows.Counts) -> windows.Counts:
        late = self.late.take(account)
        if not late:
            return counts
        scope_of(tx).undo.append(lambda: self.late.back(account, late))
        return counts + late

    @staticmethod
    def _state(tx: Connection, permit: Permit, endpoint: Endpoint) -> str:
        """The state of an endpoint's version, "" for one of another account."""
        found = rows_of(tx, _STATES, endpoint.files.ref)
        return str(found[0][1]) if found and found[0][0] == permit.account else ""

    def _approved(self, tx: Connection, permit: Permit, endpoint: Endpoint) -> bool:
        return self._state(tx, permit, endpoint) == APPROVED

    def _serving(self, tx: Connection, permit: Permit, routing: Routing | None, endpoint: Endpoint) -> None:
        state = self._state(tx, permit, endpoint)
        if state != APPROVED:
            raise Conflict(
                "serving.not_approved",
                f"The model version is {state}; only an Approved one is deployed and answers.",
                model=endpoint.files.ref,
            )
        if routing is None or endpoint.ref not in _answering(routing) or endpoint.noun.account != permit.account:
            raise _out_of_service()
        permit.log.read(endpoint.ref)


def no_endpoint() -> NotFound:
    """Of a name that is not here."""
    return NotFound("serving.no_such_endpoint", "No endpoint of that name or ref is in this account.")


def _out_of_service() -> Conflict:
    return Conflict("serving.out_of_service", "The endpoint is OutOfService; deploy a model to it.")


def _answering(routing: Routing) -> set[str]:
    """Refs of the variants whose answers are good: while a rollout is under way those of both sides."""
    both = [routing.newest, routing.old] if routing.newest.under_way else [routing.main]
    return {variant.endpoint for one in both if one is not None for variant in one.told.variants}


def _risks(answered: Sequence[Answered]) -> Floats:
    return np.asarray([one.prediction.probability for one in answered], dtype=np.float64)


def _count(counts: windows.Counts, one: Endpoint, x: Floats, answered: Sequence[Answered]) -> None:
    counts[one.ref, "rows", 0] += len(answered)
    for at in windows.histogram(_risks(answered)):
        counts[one.ref, "score", at] += 1
    for at, many in enumerate(np.isnan(x).sum(axis=0).tolist()):
        if many:
            counts[one.ref, "missing", at] += many
