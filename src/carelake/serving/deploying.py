"""Deploy, roll back, take out: what changes who answers. Each step is in the trail and an event of the outbox."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from sqlalchemy import Connection, delete

from carelake.audit.nouns import Nouns
from carelake.core import canonical, nouns
from carelake.core.errors import Conflict, Invalid, Refused
from carelake.core.nouns import Noun
from carelake.core.permit import Permit
from carelake.events.outbox import Outbox
from carelake.models.registry import APPROVED, Registry
from carelake.serving import config, fit, keyed, rollout
from carelake.serving.answering import no_endpoint
from carelake.serving.config import Revised, Variant
from carelake.serving.loaded import Loaded
from carelake.serving.rollout import COMPLETED, ROLLED_BACK, Revision, Routing
from carelake.serving.tables import alarm as alarms
from carelake.vault.workspace import Vault

__all__ = ["IN_SERVICE", "OUT_OF_SERVICE", "UPDATING", "Deploying"]

IN_SERVICE, OUT_OF_SERVICE, UPDATING = "InService", "OutOfService", "Updating"
_ALL_TRAFFIC = "AllTraffic"
_REJECTED = "rejected"
_Allow = Callable[[Connection], None]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,62}")


class Deploying:
    """Changes what the endpoints of a workspace serve."""

    def __init__(self, vault: Vault, things: Nouns, outbox: Outbox, registry: Registry, loaded: Loaded) -> None:
        self._vault = vault
        self._nouns = things
        self._outbox = outbox
        self._registry = registry
        self._loaded = loaded

    def deploy(
        self,
        permit: Permit,
        name: str,
        model: str,
        policy: Mapping[str, Any] | None = None,
        variants: Sequence[Mapping[str, Any]] = (),
        shadows: Sequence[Mapping[str, Any]] = (),
        sandbox: bool | None = None,
    ) -> Noun:
        """As `Endpoints.deploy`."""
        if not _NAME.fullmatch(name):
            raise Invalid("serving.name", "An endpoint's name is 1 to 63 letters, digits and dashes, no dash first.")
        moving = config.policy_of(policy)
        wanted = config.variants_of(variants, "variant") if variants else [(_ALL_TRAFFIC, model, 1.0)]
        beside = config.variants_of(shadows, "shadow")
        models = list(dict.fromkeys(one for _, one, _ in wanted + beside))
        boxed = self._boxed(permit, name, sandbox)
        ready = self._read(permit, name, models, boxed=boxed)
        with ready as allow, self._vault.database.transaction(permit) as tx:
            for one in models:
                self.approved(tx, permit, one)
                self._registry.released(permit, one, closed=boxed)  # as it was approved, to the byte
            made = {one: self._noun(tx, permit, name, one) for one in models}
            told = Revised(_variants(wanted, made, boxed), _variants(beside, made, boxed), moving)
            self._begin(tx, permit, name, told, made)
            allow(tx)
            self._close_others(tx, permit, [name])
        return made[wanted[0][1]]

    def _boxed(self, permit: Permit, name: str, sandbox: bool | None) -> bool:
        """Whether it is scored in a sandbox: as is asked, as settings want, or as what serves under the name is."""
        always = self._vault.settings.serving.sandbox == "always"
        if always and sandbox is False:
            raise Refused(
                "serving.sandbox_always",
                "The settings want every endpoint in a sandbox: leave --no-sandbox out, or change serving.sandbox.",
            )
        if always or sandbox is not None:
            return True if always else bool(sandbox)
        with self._vault.database.reading(permit) as tx:
            routing = rollout.routing(tx, permit.account, name, self._vault.clock.now())
        return routing is not None and any(one.sandbox for one in routing.main.told.variants)

    def _read(
        self, permit: Permit, name: str, models: Sequence[str], *, boxed: bool
    ) -> AbstractContextManager[_Allow]:
        """Read and verify versions before anything is changed: here, or in sandboxes, whose measurements count from
        when what it gives is done in the deployment's transaction.
        """
        if not boxed:
            for one in models:
                self._loaded.files(permit, one)
            return nullcontext(lambda tx: None)
        with self._vault.database.reading(permit) as tx:
            for one in models:
                self.approved(tx, permit, one)
        for one in models:
            self._registry.released(permit, one, closed=True)
        return self._loaded.boxes.admitting(permit, {_ref(permit, name, one): one for one in models})

    def _close_others(self, tx: Connection, permit: Permit, names: Sequence[str]) -> None:
        keyed.close_others(permit, tx, self._nouns, self._loaded.boxes, names)

    def written(self, permit: Permit, tx: Connection, names: Sequence[str]) -> None:
        """RiskAssessments of endpoints are written: what kept its keys for these alone is given none any more."""
        self._close_others(tx, permit, names)

    @staticmethod
    def ref(permit: Permit, name: str, model: str) -> str:
        """The ref that a version has under a name, deployed or not."""
        return _ref(permit, name, model)

    def _noun(self, tx: Connection, permit: Permit, name: str, model: str) -> Noun:
        version, ref = self.approved(tx, permit, model), _ref(permit, name, model)
        said = {"model_name": version.body["name"], "model_version": version.body["version"]}
        body = {"name": name, "model": model, **said}
        return Noun(ref, permit.account, IN_SERVICE, permit.act, (model,), body)

    def approved(self, tx: Connection, permit: Permit, model: str) -> Noun:
        """The noun of a model version that may answer.

        Raises:
            Conflict: ``serving.not_approved``.
        """
        version = self._nouns.get(tx, model)
        if version.state != APPROVED or version.account != permit.account:
            raise Conflict(
                "serving.not_approved",
                f"The model version is {version.state}; only an Approved one is deployed and answers.",
                model=model,
            )
        return version

    def _begin(self, tx: Connection, permit: Permit, name: str, told: Revised, made: Mapping[str, Noun]) -> None:
        now = self._vault.clock.now()
        routing = rollout.routing(tx, permit.account, name, now)
        if routing is not None and routing.newest.under_way:
            raise Conflict(
                "serving.updating",
                "The endpoint is Updating: its last rollout has not ended. Wait for it, or roll it back.",
            )
        before = routing.main if routing is not None and _serves(routing) else None
        self._nouns.write_all(tx, list(made.values()))
        permit.log.wrote(*(noun.ref for noun in made.values()))
        if before is not None and (before.told.variants, before.told.shadows) == (told.variants, told.shadows):
            return  # it is there already
        at_once = before is None or told.policy.ends == 0 or before.told.variants == told.variants
        one = rollout.begin(permit, tx, name, told, before.number if before else 0, now, at_once=at_once)
        tx.execute(delete(alarms).where(alarms.c.account == permit.account, alarms.c.name == name))
        said = {"share": _percent(1.0 if at_once else told.policy.share(0))}
        if told.variants[0].sandbox or (before is not None and before.told.variants[0].sandbox):
            said["sandbox"] = "on" if told.variants[0].sandbox else "off"
        self._tell(tx, permit, one, "deploy", **said)
        if at_once:
            self._complete(tx, permit, one)
        else:
            self._states(tx, permit, one.told.variants, UPDATING)
            self._announce(tx, permit, one, UPDATING)

    def complete(self, tx: Connection, permit: Permit, one: Revision) -> None:
        """End a rollout that nothing was wrong with; what served before goes out of service."""
        if rollout.end(tx, one, COMPLETED, "", self._vault.clock.now()):
            self._tell(tx, permit, one, "complete", share=_percent(1.0))
            self._complete(tx, permit, one)
            self._close_others(tx, permit, [one.name])

    def _complete(self, tx: Connection, permit: Permit, one: Revision) -> None:
        for noun in self._nouns.find(tx, "endpoint", permit.account, name=one.name):
            if noun.state in (IN_SERVICE, UPDATING):
                self._nouns.set_state(tx, noun.ref, OUT_OF_SERVICE)
        self._states(tx, permit, (*one.told.variants, *fit.approved(tx, one.told.shadows)), IN_SERVICE)
        self._announce(tx, permit, one, IN_SERVICE)

    def shift(self, tx: Connection, permit: Permit, one: Revision, step: int) -> None:
        """Tell of a step that the clock has come to."""
        if rollout.told(tx, one, step):
            share = one.told.policy.steps[step][1]
            self._tell(tx, permit, one, "shift", share=_percent(share))

    def roll_back(self, tx: Connection, permit: Permit, one: Revision, old: Revision | None, reason: str) -> None:
        """All traffic back to what served before, in one transaction with what tells of it.

        Where that was turned down since, or its approval does not hold, it goes to the version before that one, or
        nothing serves.
        """
        self._roll_back(tx, permit, one, old, reason)
        self._close_others(tx, permit, [one.name])

    def _roll_back(self, tx: Connection, permit: Permit, one: Revision, old: Revision | None, reason: str) -> None:
        if not rollout.end(tx, one, ROLLED_BACK, reason, self._vault.clock.now()):
            return
        self._announce(tx, permit, one, "RollingBack")
        self._tell(tx, permit, one, "rollback", share=_percent(0.0), reason=reason)
        self._states(tx, permit, (*one.told.variants, *one.told.shadows), OUT_OF_SERVICE)
        if old is None:
            self._announce(tx, permit, one, OUT_OF_SERVICE)
            return
        if not self._on_record(permit, old):
            routing = rollout.routing(tx, permit.account, one.name, self._vault.clock.now())
            assert routing is not None  # its newest revision was ended just now
            self._earlier_or_out(tx, permit, routing, reason)
            return
        self._states(tx, permit, (*old.told.variants, *fit.approved(tx, old.told.shadows)), IN_SERVICE)
        self._announce(tx, permit, old, IN_SERVICE)

    def rollback(self, permit: Permit, name: str, reason: str = "asked") -> Routing:
        """As `Endpoints.rollback`."""
        with self._vault.database.transaction(permit) as tx:
            now = self._vault.clock.now()
            routing = rollout.routing(tx, permit.account, name, now)
            if routing is None:
                raise no_endpoint()
            if routing.newest.under_way:
                self.roll_back(tx, permit, routing.newest, routing.old, reason)
            else:
                self.back_to(tx, permit, name, self._earlier(tx, permit, routing), reason)
            found = rollout.routing(tx, permit.account, name, now)
        assert found is not None  # it was there a moment ago
        return found

    def back_to(self, tx: Connection, permit: Permit, name: str, earlier: Revision, reason: str) -> None:
        """Serve at once what an earlier revision served, as a new one: of models that `_earlier` found good."""
        told = Revised(earlier.told.variants, fit.approved(tx, earlier.told.shadows))
        now = self._vault.clock.now()
        one = rollout.begin(permit, tx, name, told, earlier.number, now, at_once=True, reason=reason)
        self._tell(tx, permit, one, "rollback", share=_percent(1.0), reason=reason)
        self._complete(tx, permit, one)

    def _earlier(self, tx: Connection, permit: Permit, routing: Routing) -> Revision:
        """The newest revision that served before, of models that are Approved now and whose signed record holds.

        Raises:
            Conflict: ``serving.no_previous``.
        """
        now_serving = {variant.model for variant in routing.main.told.variants}
        number = routing.main.base or routing.main.number - 1
        while number > 0:
            one = rollout.numbered(tx, permit.account, routing.newest.name, number)
            if one is None:
                break
            models = {variant.model for variant in one.told.variants}
            served = one.outcome == COMPLETED and models != now_serving
            if served and self._on_record(permit, one):
                return one
            number = number - 1
        raise Conflict("serving.no_previous", "No version that served before is Approved; deploy one.")

    def _on_record(self, permit: Permit, one: Revision) -> bool:
        return fit.on_record(permit, self._registry, self._loaded.boxes, one.told.variants)

    def redeploy_previous(self, permit: Permit, model_name: str) -> list[str]:
        """As `Endpoints.redeploy_previous`."""
        with self._vault.database.transaction(permit) as tx:
            names = [name for _, name in rollout.every(tx, permit.account)]
            changed = [name for name in names if self._put_right(tx, permit, name, model_name)]
            self._close_others(tx, permit, names)
            return changed

    def put_right(self, tx: Connection, permit: Permit, name: str) -> bool:
        """Take what is not Approved any more out of an endpoint: shadows go, what answers yields to the one before.

        Answers whether that changed anything; what is out of service already stays so.
        """
        changed = self._put_right(tx, permit, name)
        self._close_others(tx, permit, [name])
        return changed

    def _put_right(self, tx: Connection, permit: Permit, name: str, model_name: str = "") -> bool:
        now = self._vault.clock.now()
        routing = rollout.routing(tx, permit.account, name, now)
        if routing is None or not (bad := fit.unfit(tx, self._nouns, routing, model_name)):
            return False
        for one in dict.fromkeys([routing.newest.number, routing.main.number]) if bad.shadows else ():
            revision = routing.newest if one == routing.newest.number else routing.main
            kept = tuple(shadow for shadow in revision.told.shadows if shadow not in bad.shadows)
            rollout.reshadow(tx, revision, kept)
        for shadow in bad.shadows:
            self._states(tx, permit, [shadow], OUT_OF_SERVICE)
            self._tell(tx, permit, routing.newest, "out", shadow=shadow.endpoint, reason=_REJECTED)
        if bad.answering and routing.newest.under_way:
            self._roll_back(tx, permit, routing.newest, routing.old, _REJECTED)
            return True
        out = all(self._nouns.get(tx, one.endpoint).state == OUT_OF_SERVICE for one in routing.main.told.variants)
        if bad.answering and not out:
            self._earlier_or_out(tx, permit, routing, _REJECTED)
        return bool(bad.shadows) or (bad.answering and not out)

    def unfit(self, tx: Connection, permit: Permit, routing: Routing) -> bool:
        """Whether there is something that `put_right` would look at."""
        if fit.unfit(tx, self._nouns, routing):
            return True
        return keyed.stale(permit, tx, self._nouns, self._loaded.boxes, routing.newest.name)

    def _earlier_or_out(self, tx: Connection, permit: Permit, routing: Routing, reason: str) -> None:
        try:
            self.back_to(tx, permit, routing.newest.name, self._earlier(tx, permit, routing), reason)
        except Conflict:
            self._out(tx, permit, routing.main, reason)

    def _out(self, tx: Connection, permit: Permit, one: Revision, reason: str) -> None:
        self._states(tx, permit, one.told.variants, OUT_OF_SERVICE)
        self._tell(tx, permit, one, "out", reason=reason)
        self._announce(tx, permit, one, OUT_OF_SERVICE)

    def delete(self, permit: Permit, name: str) -> None:
        """As `Endpoints.delete`."""
        with self._vault.database.transaction(permit) as tx:
            routing = rollout.routing(tx, permit.account, name, self._vault.clock.now())
            if routing is None:
                raise no_endpoint()
            for noun in self._nouns.find(tx, "endpoint", permit.account, name=name):
                if noun.state != OUT_OF_SERVICE:
                    self._nouns.set_state(tx, noun.ref, OUT_OF_SERVICE)
                    permit.log.wrote(noun.ref)
            self._tell(tx, permit, routing.newest, "delete")
            self._announce(tx, permit, routing.main, OUT_OF_SERVICE)
            rollout.forget(tx, permit.account, name)
            self._close_others(tx, permit, [name])

    def alarm(self, tx: Connection, permit: Permit, one: Revision, alarm: str, state: str) -> None:
        """Tell that an alarm began to ring, or ceased to."""
        self._tell(tx, permit, one, "alarm", alarm=alarm, state=state)

    def _states(self, tx: Connection, permit: Permit, variants: Sequence[Variant], state: str) -> None:
        for variant in variants:
            self._nouns.set_state(tx, variant.endpoint, state)
            permit.log.wrote(variant.endpoint)

    def _tell(self, tx: Connection, permit: Permit, one: Revision, step: str, **said: str) -> None:
        permit.log.note(endpoint=one.told.variants[0].endpoint, revision=str(one.number), step=step, **said)
        told = {"name": one.name, "revision": one.number, "step": step, **said}
        self._outbox.publish(tx, permit.account, f"endpoint.{step}", one.told.variants[0].endpoint, told)

    def _announce(self, tx: Connection, permit: Permit, one: Revision, state: str) -> None:
        said = {"name": one.name, "state": state}
        self._outbox.publish(tx, permit.account, "endpoint.state", one.told.variants[0].endpoint, said)


def _serves(routing: Routing) -> bool:
    return routing.newest.outcome != ROLLED_BACK or routing.old is not None


def _ref(permit: Permit, name: str, model: str) -> str:
    return nouns.ref("endpoint", canonical.dump({"name": name, "account": permit.account, "model": model}))


def _variants(wanted: Sequence[tuple[str, str, float]], made: Mapping[str, Noun], boxed: bool) -> tuple[Variant, ...]:
    return tuple(Variant(name, made[model].ref, model, weight, boxed) for name, model, weight in wanted)


def _percent(share: float) -> str:
    return f"{100 * share:g}"
