"""The checks of an endpoint: what it was asked and answered in a window of time, against its model's baseline.

Four kinds, as SageMaker has them: data quality, model quality, bias and explainability. A finding is written whatever
comes of one: a violation, none, or too few rows to tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pyarrow as pa

from carelake.audit.nouns import Nouns
from carelake.core import canonical, nouns
from carelake.core.clock import iso
from carelake.core.errors import Invalid
from carelake.core.nouns import Noun
from carelake.core.permit import Permit
from carelake.events.outbox import Outbox
from carelake.monitor import kinds, outcomes
from carelake.monitor.baseline import PREDICTION, Baseline
from carelake.monitor.drift import Bounds, Check, judge
from carelake.monitor.kinds import COMPLETED, TOO_FEW, VIOLATIONS, Found
from carelake.monitor.profiles import Window, window
from carelake.monitor.statistics import statistics
from carelake.monitor.withheld import least_of, without_small_cells
from carelake.serving import capture, feedback
from carelake.serving.endpoint import Endpoint
from carelake.serving.feedback import Rate
from carelake.vault.workspace import Vault

__all__ = ["KINDS", "STATES", "Checked", "Monitor", "Ran", "report"]

KINDS = {
    "DataQuality": "drift",
    "ModelQuality": "quality",
    "ModelBias": "bias",
    "ModelExplainability": "explainability",
}
"""What a finding calls each of SageMaker's monitoring types."""

STATES = {COMPLETED: "ok", VIOLATIONS: "drift", TOO_FEW: "unknown"}
"""The state of a finding by the status of its check."""


@dataclass(frozen=True)
class Checked:
    """A check of data quality and the finding that was written for it.

    Attributes:
        erased: predictions that could not be read, since their patients were erased.
        cards: how the endpoint's cards of that time were taken, by model version.
    """

    finding: Noun
    check: Check
    erased: int
    cards: tuple[Rate, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """``constraint_violations.json`` with the finding's ref."""
        return {
            "finding": self.finding.ref,
            "state": self.finding.state,
            **self.check.as_json(),
            "erased": self.erased,
            "cards": [one.as_json() for one in self.cards],
        }


@dataclass(frozen=True)
class Ran:
    """A check of any kind.

    Attributes:
        kind: SageMaker's ``MonitoringType``.
        files: SageMaker's files by name, as JSON values.
        told: what people look at beside them; for data quality the distances.
    """

    kind: str
    finding: Noun
    status: str
    reason: str
    violations: Sequence[Mapping[str, str]]
    files: Mapping[str, Any]
    told: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The finding, its status and violations."""
        return {
            "finding": self.finding.ref,
            "state": self.finding.state,
            "kind": self.kind,
            "status": self.status,
            "reason": self.reason or None,
            "violations": list(self.violations),
            **dict(self.told),
        }


class Monitor:
    """Checks the endpoints of a workspace. A finding's body: ``endpoint``, ``model``, the window, ``violations``."""

    def __init__(self, vault: Vault, nouns: Nouns, outbox: Outbox) -> None:
        self._vault = vault
        self._nouns = nouns
        self._outbox = outbox

    def check(
        self,
        permit: Permit,
        endpoint: Endpoint,
        since: datetime,
        until: datetime | None = None,
        *,
        bounds: Bounds | None = None,
    ) -> Checked:
        """Compare predictions captured in [since, until) with the baseline; write the finding, publish
        ``carelake.monitor.drift``, ``carelake.monitor.ok`` or ``carelake.monitor.unknown``, and
        ``carelake.monitor.finding``; on a violation ``carelake.monitor.alarm``.

        Needs the grants ``rows:read``, ``rows:write``.
        """
        end = until or self._vault.clock.now()
        checked, _, _ = self._data(permit, endpoint, since, end, bounds)
        return checked

    def run(
        self,
        permit: Permit,
        endpoint: Endpoint,
        kind: str,
        since: datetime,
        until: datetime | None = None,
        *,
        labels: pa.Table | None = None,
    ) -> Ran:
        """A check of one of `KINDS` over predictions captured in [since, until).

        Args:
            labels: outcomes by stay, as `outcomes.join` takes them, beside those that serving has joined.

        Needs the grants ``models:read``, ``rows:read``, ``rows:write``.

        Raises:
            Invalid: ``monitor.kind``.
        """
        if kind not in KINDS:
            raise Invalid("monitor.kind", f"Unknown kind of monitor; expected one of {', '.join(KINDS)}.")
        end = until or self._vault.clock.now()
        if kind == "DataQuality":
            checked, seen, baseline = self._data(permit, endpoint, since, end, None)
            files = {
                "statistics.json": statistics(baseline.spread, seen.seen, seen.rows),
                "constraints.json": baseline.constraints,
            }
            check = checked.check
            if not check.reason:  # a file without violations would say that all is well
                files["constraint_violations.json"] = {"violations": check.violations}
            told = {"rows": check.rows, "patients": check.patients, "erased": checked.erased, "merged": seen.merged}
            return Ran(kind, checked.finding, check.status, check.reason, check.violations, files, told)
        with self._vault.database.reading(permit) as tx:
            captured = capture.replay(permit, tx, self._vault, endpoint.ref, since, end)
        baseline = Baseline.from_json(endpoint.files.baseline)
        permit.log.read(endpoint.ref)
        permit.log.count(predictions=len(captured.p))
        if kind == "ModelExplainability":
            found = kinds.explained(endpoint, captured, baseline)
        elif kind == "ModelQuality" and len(captured.p) and captured.p.max() > 1.0:
            found = kinds.forecast(captured, baseline)
        else:
            threshold = endpoint.files.scorer.threshold
            joined = outcomes.join(captured, labels, threshold)
            judged = kinds.qualified if kind == "ModelQuality" else kinds.biased
            found = judged(joined, baseline, threshold)
        finding = self._write(permit, endpoint, kind, found, since, end)
        return Ran(kind, finding, found.status, found.reason, found.violations, found.files, found.told)

    def window(self, permit: Permit, endpoint: Endpoint, since: datetime, until: datetime) -> Window:
        """The counts of a window of time, from days that are known where there are any."""
        names = endpoint.files.scorer.names
        baseline = Baseline.from_json(endpoint.files.baseline)
        return window(permit, self._vault, endpoint.ref, baseline, names, since, until)

    def findings(self, permit: Permit, endpoint: str) -> list[Noun]:
        """The findings about an endpoint (ref), the newest first. Needs ``rows:read``."""
        with self._vault.database.reading(permit) as tx:
            return self._nouns.find(tx, "finding", permit.account, endpoint=endpoint)

    # -- inside ---------------------------------------------------------------------------------------------------

    def _data(
        self, permit: Permit, endpoint: Endpoint, since: datetime, end: datetime, bounds: Bounds | None
    ) -> tuple[Checked, Window, Baseline]:
        seen = self.window(permit, endpoint, since, end)
        with self._vault.database.reading(permit) as tx:
            cards = tuple(feedback.rates(tx, permit.account, endpoint.name, since, end))
        baseline = Baseline.from_json(endpoint.files.baseline)
        columns = (*endpoint.files.scorer.names, PREDICTION)
        check = judge(baseline, seen.seen, seen.rows, patients=seen.patients, columns=columns, bounds=bounds)
        permit.log.read(endpoint.ref)
        permit.log.count(predictions=seen.rows)
        more = {"cards": [one.as_json() for one in cards]} if cards else {}
        found = Found(check.status, check.reason, check.violations, {}, {**check.as_json(), **more})
        finding = self._write(permit, endpoint, "DataQuality", found, since, end)
        return Checked(finding, check, seen.erased, cards), seen, baseline

    def _write(
        self, permit: Permit, endpoint: Endpoint, kind: str, found: Found, since: datetime, end: datetime
    ) -> Noun:
        told = without_small_cells(found.told, least_of(self._vault.settings.lake.k))
        body: dict[str, Any] = {
            "endpoint": endpoint.ref,
            "model": endpoint.files.ref,
            "check": KINDS[kind],
            "kind": kind,
            "since": iso(since),
            "until": iso(end),
            "status": found.status,
            "reason": found.reason or None,
            "violations": list(found.violations),
            **told,
        }
        ref = nouns.ref("finding", canonical.dump({"account": permit.account, **body}))
        noun = Noun(ref, permit.account, STATES[found.status], permit.act, (endpoint.ref, endpoint.files.ref), body)
        said = {
            "endpoint": endpoint.ref,
            "name": endpoint.name,
            "model": endpoint.files.ref,
            "kind": kind,
            "state": noun.state,
            "rows": told.get("rows", 0),
            "violations": len(found.violations),
        }
        with self._vault.database.transaction(permit) as tx:
            self._nouns.write(tx, noun)
            permit.log.wrote(ref)
            for event in (noun.state, "finding", *(("alarm",) if noun.state == "drift" else ())):
                self._outbox.publish(tx, permit.account, f"monitor.{event}", ref, said)
        return noun


def report(checked: Checked, most: int = 10) -> str:
    """The check as a few lines of text, the furthest columns first, and how cards were taken."""
    return "\n".join([*_drifted(checked.check, most), *map(_taken, checked.cards)])


def _drifted(check: Check, most: int) -> list[str]:
    if check.reason:
        return [check.reason]
    off = sorted((d for d in check.distances if d.kinds), key=lambda d: -d.linf)
    head = (
        f"{check.rows} predictions of {check.patients} patients: "
        f"{len(off)} of {len(check.distances)} columns differ from the baseline."
    )
    return [head, *(f"  {d.name}: linf {d.linf:.2f}, PSI {d.psi:.2f} ({', '.join(d.kinds)})" for d in off[:most])]


def _taken(rate: Rate) -> str:
    answered = rate.accepted + rate.overridden
    said = f"Cards of model version {rate.version}: {rate.cards} shown, "
    if not answered:
        return f"{said}no feedback yet."
    why = ", ".join(f"{reason} {number}" for reason, number in rate.reasons.items())
    return (
        f"{said}{rate.accepted} accepted ({rate.accepted / answered:.0%}), {rate.overridden} overridden "
        f"({rate.overridden / answered:.0%}{': ' + why if why else ''}), {rate.unanswered} without feedback."
    )
