"""The register of model versions: who made one, how far it got, and who let it through (decisions D14, 0054).

States are SageMaker's ModelApprovalStatus: PendingManualApproval -> Approved | Rejected, Rejected -> Approved,
Approved -> Rejected. Only Approved deploys. Each move is announced as ``model.state``; whoever turns down a version
that was approved puts the one before it back (`serving.endpoint.Endpoints.redeploy_previous`).
https://docs.aws.amazon.com/sagemaker/latest/dg/model-registry-approve.html
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection

from carelake.access.proofs import Proof
from carelake.audit.nouns import Nouns
from carelake.core.clock import iso
from carelake.core.errors import Conflict, Corrupt, NotFound, Refused
from carelake.core.nouns import Noun
from carelake.core.permit import Permit
from carelake.events.outbox import Outbox
from carelake.models import approval, artifact
from carelake.models.evidence import Evidence, gather
from carelake.models.packages import rows
from carelake.models.packages.described import described
from carelake.models.plan.plans import Plans
from carelake.models.scorer import read
from carelake.vault.workspace import Vault

__all__ = ["APPROVED", "DELETED", "PENDING", "REJECTED", "Registry"]

PENDING, APPROVED, REJECTED = "PendingManualApproval", "Approved", "Rejected"
DELETED = "Deleted"


class Registry:
    """Model versions of a workspace; each is kept as a noun of kind ``model``.

    The noun's body: ``name``, ``version`` (1, 2, ... in that name), ``author`` (the principal that registered it).

    Attributes:
        plans: change plans of the groups.
    """

    def __init__(self, vault: Vault, nouns: Nouns, outbox: Outbox) -> None:
        self._vault = vault
        self._nouns = nouns
        self._outbox = outbox
        self.plans = Plans(vault, nouns, outbox)

    def register(
        self,
        permit: Permit,
        name: str,
        training_set: str,
        files: Mapping[str, bytes],
        made_from: Sequence[str] = (),
        said: Mapping[str, Any] | None = None,
    ) -> Noun:
        """Store, sign and enter a model version, pending approval. The same files are one version, entered once.

        Needs the grants ``models:read``, ``models:write``, ``rows:read``, ``rows:write``.

        Args:
            said: fields of CreateModelPackage, beside those that are worked out of the files.

        Raises:
            as `artifact.write`, `scorer.read`; Refused ``models.parity`` where ``model.onnx`` says something else.
        """
        model = {file: data for file, data in files.items() if file.startswith("model") and file != "model.onnx"}
        for file, data in files.items():
            artifact.refuse_unsafe(file, data)
        scorer = read(model) if set(artifact.REQUIRED) <= set(files) else None
        if "model.onnx" in files and scorer is not None:
            from carelake.models.onnx.parity import refuse_unequal

            refuse_unequal(scorer, files["model.onnx"], files.get("parity.json", b""))
        with self._vault.database.transaction(permit) as tx:
            ref = artifact.write(permit, self._vault, name, training_set, files)
            known = rows.find(tx, permit.account, ref)
            if known is not None:
                return self._again(tx, permit, known)
            told = described(permit.account, name, ref, files, training_set, said or {})
            noun = self.enter(tx, permit, name, ref, told, (training_set, *made_from))
        self.plans.check_new(permit, noun, lambda: artifact.load(permit, self._vault, name, ref))
        return noun

    def enter(
        self,
        tx: Connection,
        permit: Permit,
        name: str,
        ref: str,
        said: Mapping[str, Any],
        made_from: Sequence[str] = (),
        token: str = "",
    ) -> Noun:
        """Enter a version in its group, which is made where there is none."""
        at = iso(self._vault.clock.now())
        if rows.find_group(tx, permit.account, name) is None:
            rows.add_group(tx, rows.Group(permit.account, name, "", (), at, permit.principal))
        version = rows.next_version(tx, permit.account, name)
        body = {"name": name, "version": version, "author": permit.principal}
        noun = Noun(ref, permit.account, PENDING, permit.act, tuple(dict.fromkeys(made_from)), body)
        self._nouns.write(tx, noun)
        who = (at, permit.principal, at, permit.principal, approval.started_by(permit))
        rows.add(tx, rows.Package(ref, permit.account, name, version, *who, said, PENDING, token))
        self._announce(tx, permit, noun, PENDING)
        return noun

    def approve(self, permit: Permit, ref: str, *, description: str = "", proof: Proof | None = None) -> Noun:
        """Let a version through, with a signed record. Needs ``models:read``, ``models:approve``, ``rows:*``.

        Raises:
            Refused: ``models.self_approval``, ``models.spoken_for``; ``models.evidence``, saying what lacks;
                ``models.out_of_plan``; whatever `artifact.load` refuses.
            Unauthenticated: ``models.reauthenticate``.
        """
        package = self._package(permit, ref)
        now = self._vault.clock.now()
        shown = approval.may_decide(permit, self._vault.settings.approval, package.makers, proof, now)
        return self._approve(permit, package, {"by": "person", **shown, "description": description[:1024]})

    def approve_in_plan(self, permit: Permit, ref: str) -> Noun | None:
        """Let a version through as the group's change plan says, without a person; None where it does not say so.

        That is: a plan in force, approved by a second person, which lets in-plan versions out by themselves; and
        every verdict on this version was in-plan. Needs the grants of `approve`.
        """
        package = self._package(permit, ref)
        if package.state == APPROVED:
            return self.get(permit, ref)
        if package.state != PENDING or not self.plans.admits(permit, package.name, ref):
            return None
        return self._approve(permit, package, {"by": "plan", "description": "in plan"})

    def reject(self, permit: Permit, ref: str, *, description: str = "", proof: Proof | None = None) -> Noun:
        """Turn a version down, or take an approval back. Needs the grants of `approve`.

        Anyone with the role may, the author too: to stop a model needs no second person.
        """
        package = self._package(permit, ref)
        said = {"decision": REJECTED, "subject": ref, "by": "person", "description": description[:1024]}
        return self._move(permit, package, REJECTED, {PENDING, APPROVED}, said)

    def get(self, permit: Permit, ref: str) -> Noun:
        """The noun of a version. Needs the grant ``rows:read``.

        Raises:
            NotFound: ``models.no_such_version``; in another account, too.
        """
        with self._vault.database.reading(permit) as tx:
            return self._get(tx, permit, ref)

    def versions(self, permit: Permit, name: str | None = None) -> list[Noun]:
        """All versions of the account, or those of one name; newest first."""
        with self._vault.database.reading(permit) as tx:
            equal = {"name": name} if name else {}
            return [one for one in self._nouns.find(tx, "model", permit.account, **equal) if one.state != DELETED]

    def has_files(self, permit: Permit, ref: str) -> bool:
        """Whether a version was trained here: one that was only described has no source, and no files."""
        return bool(self.get(permit, ref).made_from)

    def files(
        self, permit: Permit, ref: str, *, boxed: Callable[[Mapping[str, str]], Any] | None = None
    ) -> artifact.ModelFiles:
        """A version's files, checked. Needs the grants ``models:read``, ``rows:read``.

        Args:
            boxed: as `artifact.load`.
        """
        noun = self.get(permit, ref)
        permit.log.read(ref)
        return artifact.load(permit, self._vault, str(noun.body["name"]), ref, boxed=boxed)

    def released(self, permit: Permit, ref: str, *, closed: bool = False) -> artifact.ModelFiles:
        """A version's files, when they are what was approved; for whoever deploys. Needs the grants of `files`.

        Args:
            closed: leave the model itself unread: it is for a sandbox, which holds it to its digests.

        Raises:
            Conflict: ``models.not_approved``: it is not Approved, or no record says that it was.
            Corrupt: ``models.approval_altered``: the record, or a file since.
        """
        files = self.files(permit, ref, boxed=(lambda found: artifact.unopened({}, found)) if closed else None)
        with self._vault.database.reading(permit) as tx:
            noun = self._get(tx, permit, ref)
            decided = approval.latest(tx, self._nouns, permit.account, ref)
        if noun.state != APPROVED or decided is None:
            raise Conflict(
                "models.not_approved",
                f"The model version is {noun.state}; only what has a record of its approval is deployed: approve it.",
                model=ref,
            )
        said = approval.opened(self._vault.keyring, decided)
        if said["decision"] != APPROVED or said["subject"] != ref or said["files"] != files.manifest.files:
            raise approval.altered(decided.ref)
        return files

    def decided(self, permit: Permit, ref: str) -> dict[str, Any] | None:
        """The record of the decision that counts, its signature checked; None while nothing is decided."""
        with self._vault.database.reading(permit) as tx:
            self._get(tx, permit, ref)
            found = approval.latest(tx, self._nouns, permit.account, ref)
        return {"ref": found.ref, **approval.opened(self._vault.keyring, found)} if found is not None else None

    def evidence(self, permit: Permit, ref: str) -> list[Evidence]:
        """What approval asks for, and what of it is there. Needs the grants of `files`."""
        if not self.has_files(permit, ref):
            return [Evidence("files", False, "none: it was described by CreateModelPackage, and not trained here")]
        files = self.files(permit, ref)
        with self._vault.database.reading(permit) as tx:
            noun = self._get(tx, permit, ref)
            try:
                source = self._nouns.get(tx, files.manifest.training_set, account=permit.account)
            except NotFound:
                source = None
            plan = self.plans.in_force(tx, permit.account, str(noun.body["name"]))
            verdict = self.plans.verdict_on(tx, permit.account, ref, plan) if plan is not None else None
        return gather(files, source, verdict, plan is not None)

    def _again(self, tx: Connection, permit: Permit, known: rows.Package) -> Noun:
        """The version of files that were entered before; one that was deleted since waits for approval again, and
        whoever registers it is one of those who made it."""
        noun = self._nouns.get(tx, known.ref)
        if not known.deleted:
            return noun
        who = (permit.principal, approval.started_by(permit))
        rows.change(tx, known, at=iso(self._vault.clock.now()), by=permit.principal, again=who)
        self._nouns.set_state(tx, known.ref, PENDING)
        self._announce(tx, permit, noun, PENDING, DELETED)
        return self._nouns.get(tx, known.ref)

    # -- inside ---------------------------------------------------------------------------------------------------

    def _approve(self, permit: Permit, package: rows.Package, said: Mapping[str, Any]) -> Noun:
        ref = package.ref
        found = self.evidence(permit, ref)
        lacking = [one for one in found if not one.ok]
        if any(one.name == "change plan" for one in lacking):
            raise Refused(
                "models.out_of_plan",
                "The version is not inside the change plan of its group; a new version of the plan, approved by a "
                "second person, would have to admit it.",
                model=ref,
            )
        if lacking:
            raise Refused(
                "models.evidence",
                f"The version cannot be approved: {'; '.join(f'{one.name}: {one.found}' for one in lacking)}.",
                lacking=[one.name for one in lacking],
            )
        files = self.files(permit, ref)
        told = {"decision": APPROVED, "subject": ref, "name": package.name, "version": package.version, **said}
        evidence = {"files": files.manifest.files, "evidence": [one.body() for one in found]}
        with self._vault.database.reading(permit) as tx:
            plan = self.plans.in_force(tx, permit.account, package.name)
            verdict = self.plans.verdict_on(tx, permit.account, ref, plan) if plan is not None else None
        bound = {"plan": plan.ref, "verdict": verdict.ref} if plan is not None and verdict is not None else {}
        return self._move(permit, package, APPROVED, {PENDING, REJECTED, APPROVED}, {**told, **evidence, **bound})

    def _package(self, permit: Permit, ref: str) -> rows.Package:
        with self._vault.database.reading(permit) as tx:
            self._get(tx, permit, ref)
            found = rows.find(tx, permit.account, ref)
        if found is None or found.deleted:
            raise _missing(ref)
        return found

    def _get(self, tx: Connection, permit: Permit, ref: str) -> Noun:
        try:
            noun = self._nouns.get(tx, ref)
        except NotFound:
            raise _missing(ref) from None
        if noun.kind != "model" or noun.account != permit.account or noun.state == DELETED:
            raise _missing(ref)
        return noun

    def _move(
        self, permit: Permit, package: rows.Package, state: str, allowed: set[str], said: Mapping[str, Any]
    ) -> Noun:
        ref = package.ref
        with self._vault.database.transaction(permit) as tx:
            noun = self._get(tx, permit, ref)
            if noun.state == state and self._stands(tx, permit, ref, said):
                return noun
            if noun.state not in allowed | {state}:
                raise Conflict("models.state", f"A version that is {noun.state} cannot become {state}.", model=ref)
            at = iso(self._vault.clock.now())
            approval.record(permit, self._vault.keyring, tx, self._nouns, said, at)
            changes: dict[str, Any] = {"ApprovalDescription": said.get("description") or None}
            if state == APPROVED and (card := package.said.get("ModelCard")):
                changes["ModelCard"] = {**card, "ModelCardStatus": "Approved"}
            rows.change(tx, package, at=at, by=permit.principal, **changes)
            self._nouns.set_state(tx, ref, state)
            self._announce(tx, permit, noun, state, noun.state)
        return Noun(noun.ref, noun.account, state, noun.made_by, noun.made_from, noun.body)

    def _stands(self, tx: Connection, permit: Permit, ref: str, said: Mapping[str, Any]) -> bool:
        """Whether a decision of this kind, on these files, is on record already."""
        decided = approval.latest(tx, self._nouns, permit.account, ref)
        if decided is None:
            return False
        try:
            before = approval.opened(self._vault.keyring, decided)
        except Corrupt:
            return False
        return bool(before["decision"] == said["decision"] and before.get("files") == said.get("files"))

    def _announce(self, tx: Connection, permit: Permit, noun: Noun, state: str, before: str = "") -> None:
        permit.log.wrote(noun.ref)
        permit.log.note(state=state)
        said = {"name": noun.body["name"], "version": noun.body["version"], "state": state, "by": permit.principal}
        self._outbox.publish(
            tx, permit.account, "model.state", noun.ref, {**said, **({"was": before} if before else {})}
        )


def _missing(ref: str) -> NotFound:
    return NotFound("models.no_such_version", "No model version with this ref is in this account.", model=ref)
