"""Change plans of a workspace: written, approved by another, and the verdicts under them.

A plan is a noun of kind ``plan``, a version a text; the one in force is the newest that is Approved, and whose signed
record of approval holds. A plan that another takes the place of stays, with a signed record of when, by whom, and for
which. A verdict is a noun of kind ``verdict`` made from a version of a model and a plan.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from sqlalchemy import Connection

from carelake.access.proofs import Proof
from carelake.audit.nouns import Nouns
from carelake.core import canonical, nouns
from carelake.core.clock import iso
from carelake.core.errors import Conflict, Invalid, NotFound
from carelake.core.nouns import Noun
from carelake.core.permit import Permit
from carelake.core.shapes import decodable
from carelake.events.outbox import Outbox
from carelake.models import approval, artifact
from carelake.models.packages import rows
from carelake.models.plan import check
from carelake.models.plan.reading import read
from carelake.models.plan.shape import Plan
from carelake.models.tables import model_package
from carelake.vault.workspace import Vault

__all__ = ["IN_PLAN", "OUT_OF_PLAN", "Plans"]

IN_PLAN, OUT_OF_PLAN = "InPlan", "OutOfPlan"
_PENDING, _APPROVED, _REJECTED, _SUPERSEDED = "PendingApproval", "Approved", "Rejected", "Superseded"


class Plans:
    """The plans of a workspace. A plan's body: ``group``, ``version``, ``author``, ``started_by``, ``plan``."""

    def __init__(self, vault: Vault, nouns: Nouns, outbox: Outbox) -> None:
        self._vault = vault
        self._nouns = nouns
        self._outbox = outbox

    def write(self, permit: Permit, group: str, data: bytes) -> Noun:
        """Keep a plan, to be approved by another. The same text again is the same plan. Needs ``rows:read|write``.

        Raises:
            Invalid: ``models.plan``.
        """
        plan = read(data)
        if plan.group != group:
            raise Invalid("models.plan", "This is no change plan of this group: its `group` names another.")
        said = msgspec.to_builtins(plan)
        with self._vault.database.transaction(permit) as tx:
            before = self._nouns.find(tx, "plan", permit.account, group=group)
            # By their text: what was kept has exact decimals.
            same = bool(before) and canonical.dump(before[0].body["plan"]) == canonical.dump(said)
            if same and before[0].state in (_PENDING, _APPROVED):
                return before[0]
            who = {"author": permit.principal, "started_by": approval.started_by(permit)}
            body = {"group": group, "version": len(before) + 1, **who, "plan": said}
            ref = nouns.ref("plan", canonical.dump({"account": permit.account, **body}))
            noun = Noun(ref, permit.account, _PENDING, permit.act, (), body)
            self._nouns.write(tx, noun)
            self._announce(tx, permit, noun, _PENDING)
        return noun

    def decide(self, permit: Permit, ref: str, *, approve: bool, proof: Proof | None = None) -> Noun:
        """Put a plan in force, or turn it down; as for a version, by a second person. Needs ``models:approve``.

        Raises:
            NotFound: ``models.no_such_plan``. Conflict: ``models.state``.
            as `approval.may_decide`.
        """
        now = self._vault.clock.now()
        settings = self._vault.settings.approval
        with self._vault.database.transaction(permit) as tx:
            noun = self._get(tx, permit, ref)
            shown: dict[str, str] = {}
            if approve:
                made_by = (str(noun.body["author"]), str(noun.body["started_by"]))
                shown = approval.may_decide(permit, settings, made_by, proof, now)
            state = _APPROVED if approve else _REJECTED
            if noun.state == state:
                return noun
            if noun.state not in (_PENDING, _APPROVED):
                raise Conflict("models.state", f"A plan that is {noun.state} cannot become {state}; write it again.")
            for other in self._nouns.find(tx, "plan", permit.account, group=noun.body["group"]):
                if approve and other.state == _APPROVED:
                    self._supersede(tx, permit, other, ref, iso(now))
            said = {"decision": state, "subject": ref, "by": "person", "name": noun.body["group"], **shown}
            version = {"version": noun.body["version"]}
            approval.record(permit, self._vault.keyring, tx, self._nouns, {**said, **version}, iso(now))
            self._nouns.set_state(tx, ref, state)
            self._announce(tx, permit, noun, state)
        return Noun(noun.ref, noun.account, state, noun.made_by, noun.made_from, noun.body)

    def versions(self, permit: Permit, group: str) -> list[Noun]:
        """All plans of a group, newest first. Needs ``rows:read``."""
        with self._vault.database.reading(permit) as tx:
            return self._nouns.find(tx, "plan", permit.account, group=group)

    def decisions(self, permit: Permit, ref: str) -> list[dict[str, Any]]:
        """What was decided on a plan, the oldest first: put in force, turned down, superseded. Needs ``rows:read``.

        Returns:
            Of each its signed record, opened; of one that does not hold ``ref`` and ``altered``.
        """
        with self._vault.database.reading(permit) as tx:
            self._get(tx, permit, ref)
            found = approval.decisions(tx, self._nouns, permit.account, ref)
        return [approval.shown(self._vault.keyring, one) for one in found]

    def in_force(self, tx: Connection, account: str, group: str) -> Noun | None:
        """The plan that counts; None where the group has none.

        Raises:
            Corrupt: ``models.approval_altered``: it is said to be approved, and its record does not hold.
        """
        found = [one for one in self._nouns.find(tx, "plan", account, group=group) if one.state == _APPROVED]
        if not found:
            return None
        noun = found[0]
        decided = approval.latest(tx, self._nouns, account, noun.ref)
        said = approval.opened(self._vault.keyring, decided) if decided is not None else {}
        named = nouns.ref("plan", canonical.dump({"account": account, **noun.body}))
        if said.get("decision") != _APPROVED or said.get("subject") != noun.ref or named != noun.ref:
            raise approval.altered(noun.ref)
        return noun

    def check_new(self, permit: Permit, noun: Noun, load: Callable[[], artifact.ModelFiles]) -> Noun | None:
        """The verdict on a version that was just entered; None where its group has no plan in force."""
        with self._vault.database.reading(permit) as tx:
            planned = self.in_force(tx, permit.account, str(noun.body["name"])) is not None
        return self.check(permit, noun, load()) if planned else None

    def check(self, permit: Permit, noun: Noun, files: artifact.ModelFiles) -> Noun:
        """Hold a version against the plan in force, and keep the verdict. Needs ``models:read``, ``rows:read|write``.

        Args:
            noun: the version. files: its files.

        Raises:
            NotFound: ``models.no_such_plan``.
        """
        group = str(noun.body["name"])
        with self._vault.database.reading(permit) as tx:
            plan = self.in_force(tx, permit.account, group)
            deployed = self._deployed(tx, permit.account, group, noun.ref)
            data = self._data(tx, permit.account, files)
        if plan is None:
            raise _no_plan()
        old = None
        if deployed is not None:
            loaded = artifact.load(permit, self._vault, group, deployed)
            with self._vault.database.reading(permit) as tx:
                old = facts(loaded, self._data(tx, permit.account, loaded))
        now = self._vault.clock.now()
        found = check.verdict(_plan(plan), facts(files, data), old, now)
        with self._vault.database.transaction(permit) as tx:
            return self._keep(tx, permit, noun, plan, deployed, found.body(), iso(now))

    def verdict_on(self, tx: Connection, account: str, model: str, plan: Noun) -> Noun | None:
        """The newest verdict under a plan on a version."""
        found = [one for one in self._verdicts(tx, account, model) if one.body["plan"] == plan.ref]
        return found[-1] if found else None

    def verdicts(self, permit: Permit, model: str) -> list[Noun]:
        """Every verdict on a version, the oldest first. Needs ``rows:read``."""
        with self._vault.database.reading(permit) as tx:
            return self._verdicts(tx, permit.account, model)

    def admits(self, permit: Permit, group: str, model: str) -> bool:
        """Whether the plan in force lets this version out by itself, and no verdict on it ever said otherwise."""
        with self._vault.database.reading(permit) as tx:
            plan = self.in_force(tx, permit.account, group)
            found = self._verdicts(tx, permit.account, model)
            deployed = self._deployed(tx, permit.account, group, model)
        if plan is None or not found:
            return False
        newest = found[-1].body
        current = newest["plan"] == plan.ref and newest["deployed"] == deployed
        return current and bool(newest["automatic"]) and all(one.state == IN_PLAN for one in found)

    # -- inside ---------------------------------------------------------------------------------------------------

    def _supersede(self, tx: Connection, permit: Permit, noun: Noun, successor: str, at: str) -> None:
        """Another plan takes the place of this one: on record, as what put it in force is."""
        told = {"name": noun.body["group"], "version": noun.body["version"], "successor": successor}
        said = {"decision": _SUPERSEDED, "subject": noun.ref, "by": "person", **told}
        approval.record(permit, self._vault.keyring, tx, self._nouns, said, at)
        self._nouns.set_state(tx, noun.ref, _SUPERSEDED)
        self._announce(tx, permit, noun, _SUPERSEDED)

    def _keep(
        self,
        tx: Connection,
        permit: Permit,
        noun: Noun,
        plan: Noun,
        deployed: str | None,
        said: dict[str, Any],
        at: str,
    ) -> Noun:
        number = len(self._verdicts(tx, permit.account, noun.ref)) + 1
        named = {"model": noun.ref, "name": noun.body["name"], "version": noun.body["version"], "number": number}
        body = {
            **named,
            "plan": plan.ref,
            "plan_version": plan.body["version"],
            "deployed": deployed,
            "at": at,
            **said,
        }
        ref = nouns.ref("verdict", canonical.dump({"account": permit.account, **body}))
        sources = (noun.ref, plan.ref, *((deployed,) if deployed else ()))
        made = Noun(ref, permit.account, IN_PLAN if said["inside"] else OUT_OF_PLAN, permit.act, sources, body)
        self._nouns.write(tx, made)
        permit.log.wrote(ref)
        told = {"model": noun.ref, "verdict": made.state, "automatic": said["automatic"]}
        self._outbox.publish(tx, permit.account, "model.verdict", ref, told)
        return made

    def _verdicts(self, tx: Connection, account: str, model: str) -> list[Noun]:
        made = self._nouns.descendants(tx, model, account=account, depth=1)
        found = [one for one in made if one.kind == "verdict" and one.body["model"] == model]
        return sorted(found, key=lambda one: int(one.body["number"]))

    @staticmethod
    def _deployed(tx: Connection, account: str, group: str, but: str) -> str | None:
        """The newest approved version of a group, beside this one."""
        found = rows.packages(tx, account, model_package.c.name == group, model_package.c.deleted == "")
        approved = [one for one in found if one.name == group and one.state == _APPROVED and one.ref != but]
        return max(approved, key=lambda one: one.version).ref if approved else None

    def _data(self, tx: Connection, account: str, files: artifact.ModelFiles) -> dict[str, Any]:
        try:
            return dict(self._nouns.get(tx, files.manifest.training_set, account=account).body)
        except NotFound:
            return {}

    def _get(self, tx: Connection, permit: Permit, ref: str) -> Noun:
        try:
            noun = self._nouns.get(tx, ref, account=permit.account)
        except NotFound:
            raise _no_plan() from None
        if noun.kind != "plan":
            raise _no_plan()
        return noun

    def _announce(self, tx: Connection, permit: Permit, noun: Noun, state: str) -> None:
        permit.log.wrote(noun.ref)
        permit.log.note(state=state)
        said = {"group": noun.body["group"], "version": noun.body["version"], "state": state, "by": permit.principal}
        self._outbox.publish(tx, permit.account, "plan.state", noun.ref, said)


def facts(files: artifact.ModelFiles, data: dict[str, Any]) -> check.Facts:
    """What a plan is held against, of a version's files."""
    details = files.card.get("training_details")
    job = details.get("training_job_details") if isinstance(details, dict) else None
    job = job if isinstance(job, dict) else {}
    model = msgspec.json.decode(files.raw["model.json"], type=dict[str, Any])
    return check.Facts(
        ref=files.ref,
        training_set=files.manifest.training_set,
        metrics=files.metrics,
        intended_uses=files.card.get("intended_uses") or {},
        features=tuple(files.scorer.names),
        hyperparameters=job.get("hyper_parameters") or {},
        threshold=float(getattr(files.scorer, "threshold", 0.0)),
        calibration={name: model.get(name) for name in ("platt", "calibration", "calibrator") if name in model},
        libraries=model.get("versions") or {},
        data=data,
    )


def _plan(noun: Noun) -> Plan:
    # Exact decimals of the noun's body become the plan's floats.
    return msgspec.json.decode(canonical.dump(noun.body["plan"]), type=decodable(Plan))


def _no_plan() -> NotFound:
    return NotFound("models.no_such_plan", "There is no such change plan here; `carelake model plan set` writes one.")
