"""The steps of the readmission recipe, each in its own act, by the principal whose work it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from carelake.access.identity import Caller
from carelake.core.errors import Refused
from carelake.core.nouns import Noun
from carelake.core.permit import Permit
from carelake.features import featureset, readmission, trainingset
from carelake.lake import asof, query, results
from carelake.models import artifact, matrix
from carelake.models.card import About, card, html
from carelake.models.evaluate import evaluate, insufficient, nothing
from carelake.models.registry import APPROVED
from carelake.models.train import Plan, train
from carelake.monitor.baseline import of_model
from carelake.pipelines.platform import Platform
from carelake.pipelines.runs import Outputs, StepFunction

__all__ = ["ENDPOINT", "Readmission"]

ENDPOINT = "readmission"
_TRAINER = "pipeline"
_EMPTY = "The record is empty, so there is nothing to learn from; read data with `carelake ingest` first."
_PAST = "A run as of then ends with its training set: what is released is made of the newest data."
_WAITING = "The model version waits for approval: `carelake model approve REF --as REVIEWER`, then run again."


@dataclass(frozen=True)
class Readmission:
    """Steps over one platform on behalf of a caller.

    Attributes:
        approve_as: the principal who is asked for approval.
        approves: whether a local principal may approve within the run (decision D14).
        as_of: a snapshot, a tag or a moment (`asof.as_of`) to make the training set of; "" for the newest data.
    """

    platform: Platform
    caller: Caller
    approve_as: str
    approves: bool = True
    as_of: str = ""

    def functions(self) -> Mapping[str, StepFunction]:
        """What each ``does`` of the recipe means."""
        return {
            "lake.sync": self.sync,
            "features.feature_set": self.features,
            "features.training_set": self.training_set,
            "models.train": self.train,
            "models.approve": self.approve,
            "serving.deploy": self.deploy,
        }

    def sync(self, _: Outputs) -> dict[str, Any]:
        """Bring the lake up to the record, or find the snapshot of then; it names the data of this run."""
        if self.as_of:
            with self.platform.acting(_TRAINER, self.caller, "features:build", ENDPOINT) as permit:
                found = asof.as_of(permit, self.platform.vault, self.platform.nouns, self.as_of)
            return {"snapshot": found.ref, "behind": 0}
        with self.platform.acting(_TRAINER, self.caller, "lake:sync", "lake", job=True) as permit:
            done = self.platform.sync(permit)
        if not done.snapshot_ref:
            return {"snapshot": None, "behind": 0, "metrics": nothing(None, _EMPTY), "stop": _EMPTY}
        return {"snapshot": done.snapshot_ref, "behind": done.behind_before}

    def features(self, outputs: Outputs) -> dict[str, Any]:
        """Run the flat views over the snapshot; cohort, labels and features as of discharge."""
        vault, nouns = self.platform.vault, self.platform.nouns
        with self.platform.acting(_TRAINER, self.caller, "features:build", ENDPOINT) as permit:
            snapshot = query.snapshot_of(permit, vault, nouns, outputs["sync"]["snapshot"])
            tables = query.views(permit, vault, snapshot)
            views = results.note(permit, vault, nouns, snapshot, tables)
            made = featureset.create(permit, vault, nouns, views, tables).noun
        return {"feature_set": made.ref, **{name: made.body[name] for name in ("rows", "attrition", "data_end")}}

    def training_set(self, outputs: Outputs) -> dict[str, Any]:
        """Share the labelled rows out, by patient and time."""
        vault, nouns = self.platform.vault, self.platform.nouns
        with self.platform.acting(_TRAINER, self.caller, "features:build", ENDPOINT) as permit:
            features = featureset.load(permit, vault, self._noun(permit, outputs["features"]["feature_set"]))
            made = trainingset.create(permit, vault, nouns, features).noun
        told = {"training_set": made.ref, **{name: made.body[name] for name in ("rows", "attrition", "split")}}
        return {**told, "stop": _PAST} if self.as_of else told

    def train(self, outputs: Outputs) -> dict[str, Any]:
        """Train, calibrate, evaluate and register; with too few cases it says so and makes no model."""
        ref = outputs["dataset"]["training_set"]
        plan = Plan(name=ENDPOINT)
        with self.platform.acting(_TRAINER, self.caller, "model:train", ENDPOINT) as permit:
            rows = self._rows(permit, ref)
            reason = insufficient(rows, plan)
            if reason is not None:
                return {"model_version": None, "metrics": nothing(rows, reason), "stop": reason}
            scorer = train(rows, plan, training_set=ref, words=_words())
            metrics = evaluate(rows, scorer, plan)
            about = About(ref, permit.principal, attrition=tuple(outputs["dataset"]["attrition"].items()))
            said = card(scorer, metrics, plan, about)
            files = artifact.pack(scorer, metrics, said, html(said, _words()), of_model(rows, scorer).to_bytes())
            version = self.platform.registry.register(permit, plan.name, ref, files)
        return {"model_version": version.ref, "metrics": metrics}

    def _noun(self, permit: Permit, ref: str) -> Noun:
        with self.platform.vault.database.reading(permit) as connection:
            return self.platform.nouns.get(connection, ref, account=permit.account)

    def _rows(self, permit: Permit, ref: str) -> matrix.Rows:
        made = trainingset.load(permit, self.platform.vault, self._noun(permit, ref))
        return matrix.rows(made.table, made.features)

    def approve(self, outputs: Outputs) -> dict[str, Any]:
        """Ask the second principal, unless they have decided; without one the run ends here, pending.

        Only the operator of a local workspace may speak for that principal; anyone else's run waits for them.
        """
        ref = outputs["train"]["model_version"]
        with self.platform.acting(_TRAINER, self.caller, "model:read", ref) as permit:
            state = self.platform.registry.get(permit, ref).state
        if state == APPROVED:
            return {"state": state}
        if not self.approves:
            return {"state": state, "stop": _WAITING}
        if "operator" not in self.caller.principal.roles:
            return {"state": state, "stop": _WAITING}
        with self.platform.acting(self.approve_as, self.caller, "model:approve", ref) as permit:
            if self.approve_as == _TRAINER:
                raise Refused("models.self_approval", "Whoever trains a model may not approve it; name a reviewer.")
            version = self.platform.registry.approve(permit, ref)
        return {"state": version.state, "approved_by": self.approve_as}

    def deploy(self, outputs: Outputs) -> dict[str, Any]:
        """Put the approved version behind the endpoint."""
        ref = outputs["train"]["model_version"]
        with self.platform.acting(_TRAINER, self.caller, "endpoint:deploy", ENDPOINT) as permit:
            endpoint = self.platform.endpoints.deploy(permit, ENDPOINT, ref)
        return {"endpoint": endpoint.ref, "name": ENDPOINT}


def _words() -> dict[str, str]:
    return {feature.name: feature.description for feature in readmission.features()}
