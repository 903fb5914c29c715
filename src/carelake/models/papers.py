"""The papers of a version: its card in each form, its checklist, and the folder that it is exported as."""

from __future__ import annotations

from typing import Any

from carelake.audit.nouns import Nouns
from carelake.core import canonical
from carelake.core.errors import NotFound
from carelake.core.permit import Permit
from carelake.models import bundle, chai, tripod
from carelake.models.artifact import ModelFiles, kind_of
from carelake.models.packages.packages import ModelPackages
from carelake.models.registry import Registry
from carelake.vault.workspace import Vault

__all__ = ["Papers"]


class Papers:
    """What is written about model versions; every answer is made of verified files."""

    def __init__(self, vault: Vault, nouns: Nouns, registry: Registry, packages: ModelPackages) -> None:
        self._vault = vault
        self._nouns = nouns
        self._registry = registry
        self._packages = packages

    def card(self, permit: Permit, ref: str, form: str) -> bytes:
        """The card as ``html``, ``xml``, ``json``, or the ``tripod`` checklist. Needs ``models:read``, ``rows:*``."""
        files = self._registry.files(permit, ref)
        if form == "html":
            return files.card_html.encode()
        if form == "json":
            return files.raw["card.json"]
        if form == "xml":
            return self._xml(permit, files)
        return canonical.dump_pretty(self._checklist(permit, files)).encode()

    def bundle(self, permit: Permit, ref: str, folder: str, *, onnx: bool = False) -> dict[str, bytes]:
        """The files of a signed folder of that name. Needs ``models:read``, ``models:write``, ``rows:read``.

        Args:
            onnx: with ``model.onnx`` and its parity report, made of the model now.

        Raises:
            as `models.onnx.parity.derived`.
        """
        files = self._registry.files(permit, ref)
        more = {
            "card.xml": self._xml(permit, files),
            "tripod-ai.json": canonical.dump(self._checklist(permit, files)),
        }
        if decided := self._registry.decided(permit, ref):
            more["approval.json"] = canonical.dump(decided)
        if onnx and "model.onnx" not in files.raw:
            from carelake.models.onnx.parity import derived

            more |= derived(files.scorer)
        permit.log.note(change="export-model")
        return bundle.signed(permit, self._vault, files, folder, more)

    def _xml(self, permit: Permit, files: ModelFiles) -> bytes:
        told = self._release(permit, files)
        release = chai.Release(
            told["name"], told["version"], told["created"], told["state"], told["stage"], told["ref"]
        )
        return chai.applied_model_card(files.card, files.metrics, release)

    def _release(self, permit: Permit, files: ModelFiles) -> dict[str, Any]:
        package = self._packages.find(permit, files.ref)
        verdicts = self._registry.plans.verdicts(permit, files.ref)
        stage = package.said.get("ModelLifeCycle") or {}
        return {
            "name": package.name,
            "version": package.version,
            "created": package.created,
            "state": package.state,
            "stage": str(stage.get("Stage", "")),
            "ref": files.ref,
            "plan": verdicts[-1].body["plan"] if verdicts else None,
            "verdict": f"{verdicts[-1].state}, {verdicts[-1].ref}" if verdicts else None,
        }

    def _checklist(self, permit: Permit, files: ModelFiles) -> dict[str, Any]:
        try:
            with self._vault.database.reading(permit) as tx:
                source = self._nouns.get(tx, files.manifest.training_set, account=permit.account).body
        except NotFound:
            source = {}
        release = self._release(permit, files)
        told = {
            "card": files.card,
            "metrics": files.metrics,
            "manifest": {"training_set": files.manifest.training_set},
            "model": {"kind": kind_of(files)},
            "training_set": source,
            "release": release,
        }
        found = tripod.checklist(told)
        states = [one["state"] for one in found]
        counts = {state: states.count(state) for state in ("answered", "in part", "open")}
        return {"model": files.ref, "checklist": "TRIPOD+AI, in our wording", "counts": counts, "items": found}
