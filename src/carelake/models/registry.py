"""The register of model versions: who made one, how far it got, and who let it through (decision D14).

States are SageMaker's ModelApprovalStatus: PendingManualApproval -> Approved | Rejected, Rejected -> Approved,
Approved -> Rejected. Only Approved deploys.
https://docs.aws.amazon.com/sagemaker/latest/dg/model-registry-approve.html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection

from carelake.audit.nouns import Nouns
from carelake.core.errors import Conflict, NotFound, Refused
from carelake.core.nouns import Noun
from carelake.core.permit import Permit
from carelake.events.outbox import Outbox
from carelake.models import artifact
from carelake.vault.workspace import Vault

__all__ = ["APPROVED", "PENDING", "REJECTED", "Registry"]

PENDING, APPROVED, REJECTED = "PendingManualApproval", "Approved", "Rejected"


class Registry:
    """Model versions of a workspace; each is kept as a noun of kind ``model``.

    The noun's body: ``name``, ``version`` (1, 2, ... in that name), ``author`` (the principal that registered it).
    """

    def __init__(self, vault: Vault, nouns: Nouns, outbox: Outbox) -> None:
        self._vault = vault
        self._nouns = nouns
        self._outbox = outbox

    def register(
        self, permit: Permit, name: str, training_set: str, files: Mapping[str, bytes], made_from: Sequence[str] = ()
    ) -> Noun:
        """Store, sign and enter a model version, pending approval. The same files are one version, entered once.

        Needs the grants ``models:read``, ``models:write``, ``rows:write``.
        """
        ref = artifact.write(permit, self._vault, name, training_set, files)
        with self._vault.database.transaction(permit) as tx:
            earlier = self._nouns.find(tx, "model", permit.account, name=name)
            for known in earlier:
                if known.ref == ref:
                    return known
            body = {"name": name, "version": len(earlier) + 1, "author": permit.principal}
            sources = tuple(dict.fromkeys([training_set, *made_from]))
            noun = Noun(ref, permit.account, PENDING, permit.act, sources, body)
            self._nouns.write(tx, noun)
            self._announce(tx, permit, noun, PENDING)
        return noun

    def approve(self, permit: Permit, ref: str) -> Noun:
        """Let a version through. Needs the grants ``models:read``, ``rows:write``.

        Raises:
            Refused: ``models.self_approval`` when the approver is its author; ``models.evidence`` when it has no
                figures or no card; whatever `artifact.load` refuses.
        """
        noun = self.get(permit, ref)
        if noun.body["author"] == permit.principal:
            raise Refused(
                "models.self_approval",
                "Whoever trained a model may not approve it; ask another principal with the role of a reviewer.",
                model=ref,
            )
        files = self.files(permit, ref)
        if files.metrics.get("reason") or files.metrics.get("auroc") is None or not files.card:
            raise Refused("models.evidence", "The version lacks figures or a card, so there is nothing to approve.")
        return self._move(permit, ref, APPROVED, {PENDING, REJECTED})

    def reject(self, permit: Permit, ref: str) -> Noun:
        """Turn a version down, or take an approval back. Needs the grant ``rows:write``."""
        return self._move(permit, ref, REJECTED, {PENDING, APPROVED})

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
            return self._nouns.find(tx, "model", permit.account, **equal)

    def files(self, permit: Permit, ref: str) -> artifact.ModelFiles:
        """A version's files, checked. Needs the grants ``models:read``, ``rows:read``."""
        noun = self.get(permit, ref)
        permit.log.read(ref)
        return artifact.load(permit, self._vault, str(noun.body["name"]), ref)

    def _get(self, tx: Connection, permit: Permit, ref: str) -> Noun:
        missing = NotFound("models.no_such_version", "No model version with this ref is in this account.", model=ref)
        try:
            noun = self._nouns.get(tx, ref)
        except NotFound:
            raise missing from None
        if noun.kind != "model" or noun.account != permit.account:
            raise missing
        return noun

    def _move(self, permit: Permit, ref: str, state: str, allowed: set[str]) -> Noun:
        with self._vault.database.transaction(permit) as tx:
            noun = self._get(tx, permit, ref)
            if noun.state == state:
                return noun
            if noun.state not in allowed:
                raise Conflict("models.state", f"A version that is {noun.state} cannot become {state}.", model=ref)
            self._nouns.set_state(tx, ref, state)
            self._announce(tx, permit, noun, state)
        return Noun(noun.ref, noun.account, state, noun.made_by, noun.made_from, noun.body)

    def _announce(self, tx: Connection, permit: Permit, noun: Noun, state: str) -> None:
        permit.log.wrote(noun.ref)
        permit.log.note(state=state)
        said = {"name": noun.body["name"], "version": noun.body["version"], "state": state, "by": permit.principal}
        self._outbox.publish(tx, permit.account, "model.state", noun.ref, said)
