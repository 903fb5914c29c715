"""Endpoints: approved model versions under a name, that answer with reasons, capture every answer, and roll back.

Behind it `config` and `rollout` say who answers, `scoring` what, `answering` keeps it, `deploying` changes it, and
`guard` watches it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
from sqlalchemy import Connection

from carelake.audit.nouns import Nouns
from carelake.core.errors import CarelakeError, Conflict, Invalid
from carelake.core.nouns import Noun
from carelake.core.permit import Permit
from carelake.events.outbox import Outbox
from carelake.models.registry import Registry
from carelake.serving import capture, feedback, formats, ledger, rollout, writeback
from carelake.serving.answering import Answering, Prepared, no_endpoint
from carelake.serving.deploying import IN_SERVICE, OUT_OF_SERVICE, UPDATING, Deploying
from carelake.serving.guard import Guard, Watch, Watcher
from carelake.serving.loaded import Loaded
from carelake.serving.predictions import Prediction
from carelake.serving.scoring import Endpoint, of_table
from carelake.serving.status import comparison, described
from carelake.vault.workspace import Vault

__all__ = ["IN_SERVICE", "OUT_OF_SERVICE", "UPDATING", "Endpoint", "Endpoints"]

_GIVES_WAY = ("serving.out_of_service", "serving.not_approved")
_MOST_ROWS = 100_000
_QUIET = timedelta(seconds=0.1)


class Endpoints:
    """The endpoints of a workspace. A noun's body: ``name``, ``model``, ``model_name``, ``model_version``."""

    def __init__(
        self,
        vault: Vault,
        nouns: Nouns,
        outbox: Outbox,
        registry: Registry,
        keep: capture.Keeper,
        watcher: Watcher | None = None,
    ) -> None:
        """Make them.

        Args:
            watcher: gives permits to look after rollouts; without, only `guard` does.
        """
        self._vault = vault
        self._nouns = nouns
        self._registry = registry
        self._keep = keep
        self._loaded = Loaded(vault, registry)
        self._answering = Answering(vault, nouns, self._loaded, keep)
        self._deploying = Deploying(vault, nouns, outbox, registry, self._loaded)
        self._guard = Guard(vault, self._answering, self._deploying, watcher)
        self._watcher = watcher
        self._last: datetime | None = None

    # -- what serves ----------------------------------------------------------------------------------------------

    def deploy(
        self,
        permit: Permit,
        name: str,
        model: str = "",
        policy: Mapping[str, Any] | None = None,
        *,
        variants: Sequence[Mapping[str, Any]] = (),
        shadows: Sequence[Mapping[str, Any]] = (),
        sandbox: bool | None = None,
    ) -> Noun:
        """Put an approved model version behind a name; traffic moves to it as the policy says.

        Args:
            policy: SageMaker's DeploymentConfig; without, all traffic moves at once. The first deployment of a name,
                and one that changes shadows alone, is at once whatever the policy says.
            variants: ``ProductionVariants`` (VariantName, ModelName: a model's ref, InitialVariantWeight) instead of
                one model. shadows: ``ShadowProductionVariants``, which score along and are never answered.
            sandbox: whether they are scored in attested sandboxes (docs/sandbox.md); None: as what serves now.

        Needs the grants ``models:read``, ``rows:read``, ``rows:write``.

        Raises:
            Conflict: ``serving.not_approved``, ``serving.updating`` while a rollout is under way.
            NotFound: ``models.no_such_version``, in another account, too.
            Invalid: ``serving.deployment_config``, ``serving.variants``.
            Unavailable: ``serving.sandbox_unavailable``. Refused: ``serving.sandbox_always``.
        """
        return self._deploying.deploy(permit, name, model, policy, variants, shadows, sandbox)

    def rollback(self, permit: Permit, name: str) -> dict[str, Any]:
        """All traffic back: to what served before the rollout that is under way, or to the version before.

        A version is come back to when it is Approved, its record of that is signed, and its files are those.

        Needs ``models:read``, ``rows:read``, ``rows:write``. Answers as `status`.

        Raises:
            Conflict: ``serving.no_previous``.
        """
        self._deploying.rollback(permit, name)
        return self.status(permit, name, alarms=False)

    def redeploy_previous(self, permit: Permit, model_name: str) -> list[str]:
        """After a version of that model was rejected: what serves it serves the version before, or nothing, and where
        it was a shadow it is one no more.

        Answers the names of the endpoints that changed. Needs ``models:read``, ``rows:read``, ``rows:write``. Where
        this is not done after a rejection, the guard does it when it looks next.
        """
        return self._deploying.redeploy_previous(permit, model_name)

    def delete(self, permit: Permit, name: str) -> None:
        """Take an endpoint out; what it captured stays. Needs ``rows:read``, ``rows:write``."""
        self._deploying.delete(permit, name)

    def find(self, permit: Permit, named: str) -> Noun:
        """A variant by ref, or what serves under a name. Needs ``rows:read``.

        Raises:
            NotFound: ``serving.no_such_endpoint``; in another account, too.
        """
        with self._vault.database.reading(permit) as tx:
            name = self._name(tx, permit, named)
            routing = rollout.routing(tx, permit.account, name, self._vault.clock.now())
            if named == name and (routing is None or rollout.is_out(routing)):
                raise no_endpoint()
            ref = routing.main.told.variants[0].endpoint if named == name and routing else named
            return self._nouns.get(tx, ref)

    def _name(self, tx: Connection, permit: Permit, named: str) -> str:
        if not named.startswith("endpoint:"):
            return named
        found = [one for one in self._nouns.find(tx, "endpoint", permit.account) if one.ref == named]
        if not found:
            raise no_endpoint()
        return str(found[0].body["name"])

    def load(self, permit: Permit, named: str, subject: str = "") -> Endpoint:
        """An endpoint with its model, read and checked. Needs ``models:read``, ``rows:read``.

        Args:
            named: a ref, or a name: then the variant that answers for the subject, without one what serves.
        """
        noun = self.find(permit, named)
        if subject and noun.ref != named:
            variant = self._answering.routing(permit, named).variant(subject)
            if variant.endpoint != noun.ref:
                with self._vault.database.reading(permit) as tx:
                    noun = self._nouns.get(tx, variant.endpoint)
        return Endpoint(noun, self._loaded.named(permit, noun.ref, str(noun.body["model"])))

    def split(self, permit: Permit, name: str, subjects: Sequence[str]) -> list[tuple[Endpoint, list[int]]]:
        """Who answers for which of these subjects, by their numbers. Needs ``models:read``, ``rows:read``."""
        loaded: dict[str, tuple[Endpoint, list[int]]] = {}
        for number, subject in enumerate(subjects):
            one = self.load(permit, name, subject)
            loaded.setdefault(one.ref, (one, []))[1].append(number)
        return list(loaded.values())

    # -- answers --------------------------------------------------------------------------------------------------

    def predict(
        self,
        permit: Permit,
        endpoint: Endpoint,
        rows: pa.Table,
        *,
        made_from: Mapping[str, Sequence[str]] | None = None,
        basis: Mapping[str, Sequence[str]] | None = None,
        along: Callable[[Connection, Sequence[Prediction]], None] = lambda tx, answers: None,
        begun: datetime | None = None,
    ) -> list[Prediction]:
        """Risks with reasons, in the order of ``rows``, captured before they are returned.

        Args:
            rows: ``encounter_id``, ``subject_id``, ``prediction_time``, the model's features, and scores if known.
            made_from: refs of what informed it, by subject id: the resource versions, or the lake's snapshot.
            basis: relative references per encounter id that informed that one, for the RiskAssessment.
            along: keeps more about the answers, in the transaction that captures them.
            begun: when the request came: the time until its answer counts from there.

        Needs ``models:read``, ``clinical:write``, ``rows:read``, ``rows:write``.

        Raises:
            Invalid: ``serving.too_many``, ``models.feature_missing`` and others of `models.matrix.features`.
            Conflict: ``serving.out_of_service``, ``serving.not_approved`` when it has changed since.
        """
        if rows.num_rows > _MOST_ROWS:
            raise Invalid("serving.too_many", f"At most {_MOST_ROWS} rows are scored in a call; split them.")
        if not rows.num_rows:
            of_table(endpoint, rows)  # a missing feature is an error all the same
            return []
        keys = [str(one) for one in rows.column("subject_id").to_pylist()]
        prepared = self._answering.prepare(
            permit,
            endpoint.name,
            lambda one: of_table(one, rows),
            keys,
            endpoint=endpoint,
            made_from=made_from or {},
            basis=basis or {},
            along=along,
            begun=begun,
        )
        with self._vault.database.transaction(permit) as tx:
            self._answering.keep(permit, tx, prepared)
        self.answered(permit.account, prepared)
        return list(prepared.answers)

    def invoke(
        self,
        permit: Permit,
        name: str,
        body: bytes,
        content_type: str = formats.JSON,
        accept: str = formats.JSON,
        target_variant: str | None = None,
        *,
        inference_id: str = "",
    ) -> tuple[bytes, str, str]:
        """SageMaker's InvokeEndpoint: a body of rows to a body of risks, its content type, and the variant's name.

        What names a subject and an encounter becomes a RiskAssessment in the record within a second; without a
        subject a row is sealed under the account's clinical key. Needs the grants of `predict`.

        Raises:
            Invalid, Unsupported: as `formats`. NotFound: ``serving.no_such_endpoint``, ``serving.no_such_variant``.
            Conflict: as `predict`.
        """
        prepared = self.prepared(permit, name, body, content_type, target_variant, inference_id)
        said = formats.answer(prepared.answers, accept)
        for last in (False, True):
            try:
                self._vault.database.grouped(permit, self.keeping(permit, prepared))
                break
            except Conflict as error:
                if last or not self.again(permit.account, name, error):
                    raise
                prepared = self.prepared(permit, name, body, content_type, target_variant, inference_id)
                said = formats.answer(prepared.answers, accept)
        self.answered(permit.account, prepared)
        return *said, self.variant_name(prepared)

    def batch(self, permit: Permit, name: str, rows: Sequence[Mapping[str, Any]], at: datetime) -> list[Prediction]:
        """Answers to a page of named rows, captured in one transaction; for batch transform. Needs as `predict`.

        Args:
            at: prediction time of rows that have none.
        """
        asked = formats.Body([dict(row) for row in rows], at, loose=True)
        _refuse_outside(permit, asked.keys)
        event = permit.act
        keys = [subject or f"{event}:{number}" for number, subject in enumerate(asked.keys)]
        prepared = self._answering.prepare(permit, name, asked.asked, keys, event=event, later=True)
        with self._vault.database.transaction(permit) as tx:
            self._answering.keep(permit, tx, prepared)
        self.answered(permit.account, prepared)
        return list(prepared.answers)

    def prepared(
        self,
        permit: Permit,
        name: str,
        body: bytes,
        content_type: str,
        target_variant: str | None = None,
        inference_id: str = "",
    ) -> Prepared:
        """The first half of `invoke`: scored, and kept by nobody yet."""
        asked = formats.parse(body, content_type, self._vault.clock.now())
        _refuse_outside(permit, asked.keys)
        event = ledger.event_of(permit, self._vault.keyring, name, inference_id) if inference_id else permit.act
        keys = [subject or f"{event}:{number}" for number, subject in enumerate(asked.keys)]
        return self._answering.prepare(
            permit, name, asked.asked, keys, target=target_variant, event=event, later=True
        )

    def keeping(self, permit: Permit, prepared: Prepared) -> Callable[[Connection], int]:
        """The write of the second half; what it raises is not answered."""
        return lambda tx: self._answering.keep(permit, tx, prepared)

    @staticmethod
    def body(prepared: Prepared | None, accept: str) -> tuple[bytes, str]:
        """The body of an answer and its content type; of None only whether there is such a type."""
        return formats.answer(prepared.answers if prepared is not None else (), accept)

    def answered(self, account: str, prepared: Prepared) -> None:
        """Count the time of a request whose captures are committed, and look after a rollout that is under way."""
        self._last = self._vault.clock.now()
        seconds = (self._last - prepared.begun).total_seconds()
        self._answering.late.answered(account, prepared.variant, max(0.0, seconds))
        if prepared.moving:
            self._guard.asked(account, prepared.name)

    def again(self, account: str, name: str, error: CarelakeError) -> bool:
        """Whether a request that met this error is to be asked of whoever answers now: the rollout went on, or the
        version was turned down, and gives way at the latest now."""
        if error.code == "serving.not_approved":
            self._guard.asked(account, name)
        return error.code in _GIVES_WAY

    def failed(self, permit: Permit, name: str, status: int) -> None:
        """Count a request that failed, for the alarm: during a rollout as that of the new version."""
        with self._vault.database.reading(permit) as tx:
            routing = rollout.routing(tx, permit.account, name, self._vault.clock.now())
        if routing is not None:
            one = (routing.newest if routing.newest.under_way else routing.main).told.variants[0]
            self._answering.late.failed(permit.account, one.endpoint, status)

    def settle(self, permit: Permit, name: str) -> None:
        """Do what is due of a rollout, as a server's ticker does: for whoever looks where no server runs."""
        self._answering.routing(permit, name)
        self._guard.asked(permit.account, name)

    @staticmethod
    def variant_name(prepared: Prepared) -> str:
        """SageMaker's InvokedProductionVariant."""
        chosen = next(part.endpoint for part in prepared.parts if part.endpoint.ref == prepared.variant)
        return str(chosen.noun.body["variant"])

    # -- what is known of it --------------------------------------------------------------------------------------

    def status(self, permit: Permit, name: str, *, alarms: bool = True) -> dict[str, Any]:
        """What SageMaker's DescribeEndpoint tells, with the stage, the shares of traffic and the alarms with figures.

        Needs ``rows:read``, for alarms ``models:read``.
        """
        seen = self._guard.watch(permit, name) if alarms else Watch(self._answering.routing(permit, name), ())
        with self._vault.database.reading(permit) as tx:
            said = described(tx, self._nouns, seen, self._vault.clock.now())
        every = (*(variant for variant, _ in seen.routing.shares()), *seen.routing.shadows)
        boxes = self._loaded.boxes
        told = {one.endpoint: boxes.told(permit, one.endpoint, one.model) for one in every if one.sandbox}
        return {**said, "sandbox": told or None}

    def attest(self, permit: Permit, name: str, model: str, nonce: bytes) -> tuple[dict[str, str], bytes]:
        """What a sandbox of a version would be measured as here, and the document of it; nothing is released.

        Needs ``models:read``, ``rows:read``.
        """
        return self._loaded.boxes.attest(permit, self._deploying.ref(permit, name, model), model, nonce)

    def listed(self, permit: Permit) -> list[dict[str, Any]]:
        """Every endpoint of the account, as `status` without alarms."""
        with self._vault.database.reading(permit) as tx:
            names = rollout.every(tx, permit.account)
        return [self.status(permit, name, alarms=False) for _, name in names]

    def shadow_report(self, permit: Permit, name: str) -> list[dict[str, Any]]:
        """How the scores of each shadow lie beside what was answered to the same rows. Needs ``rows:read``."""
        with self._vault.database.reading(permit) as tx:
            routing = self._answering.routing(permit, name)
            return comparison(tx, permit.account, routing, self._vault.clock.now())

    def verify_captures(self, permit: Permit, name: str) -> ledger.Verified:
        """Whether every request of an endpoint is captured, and every capture there. Needs ``rows:read``."""
        with self._vault.database.reading(permit) as tx:
            found = self._nouns.find(tx, "endpoint", permit.account, name=name)
            if not found:
                raise no_endpoint()
            return ledger.verify(tx, permit.account, name, [one.ref for one in found])

    # -- what goes on by itself -----------------------------------------------------------------------------------

    def guard(self, permit: Permit, name: str) -> Watch:
        """Look at a rollout's alarms and do what follows. Needs ``models:read``, ``rows:read``, ``rows:write``."""
        return self._guard.step(permit, name)

    def write_back(self, permit: Permit, most: int = 500) -> int:
        """Write RiskAssessments that are due into the record; answers how many. Needs what `predict` needs."""
        own, written = (self._vault, self._nouns, self._loaded), self._deploying.written
        return writeback.write_due(permit, *own, self._keep, written, most)

    def tick(self) -> int:
        """A server's turn: rollouts, and counts that no request took along; answers how much was done."""
        if self._watcher is None:
            return 0
        flushed = writeback.flush(self._vault, self._watcher, self._answering.late)
        return flushed + self._guard.tick()

    def catch_up(self) -> int:
        """Write some of the RiskAssessments that are due, a few while requests come; answers how many are left."""
        if self._watcher is None:
            return 0
        quiet = self._last is None or self._vault.clock.now() - self._last > _QUIET
        return writeback.catch_up(self._vault, self._watcher, self.write_back, quiet=quiet)


def _refuse_outside(permit: Permit, subjects: Sequence[str]) -> None:
    if not all(feedback.reaches(permit, subject) for subject in set(subjects) - {""}):
        raise Invalid("serving.outside_scope", "A row is of a patient whom the caller does not see.")
