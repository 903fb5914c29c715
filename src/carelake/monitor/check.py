"""The check of an endpoint: what it was asked and answered since a time, against its model's baseline.

A finding is written whatever comes of it: drift, none, or too few rows to tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from carelake.audit.nouns import Nouns
from carelake.core import canonical, nouns
from carelake.core.clock import iso
from carelake.core.nouns import Noun
from carelake.core.permit import Permit
from carelake.events.outbox import Outbox
from carelake.monitor.baseline import Baseline
from carelake.monitor.drift import Bounds, Check, compare
from carelake.serving import capture, feedback
from carelake.serving.endpoint import Endpoint
from carelake.serving.feedback import Rate
from carelake.vault.workspace import Vault

__all__ = ["STATES", "Checked", "Monitor", "report"]

STATES = {"Completed": "ok", "CompletedWithViolations": "drift", "NotEnoughRows": "unknown"}
"""The state of a finding by the status of its check."""


@dataclass(frozen=True)
class Checked:
    """A check and the finding that was written for it.

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
        ``carelake.monitor.drift``, ``carelake.monitor.ok`` or ``carelake.monitor.unknown``.

        Needs the grants ``rows:read``, ``rows:write``.
        """
        end = until or self._vault.clock.now()
        with self._vault.database.reading(permit) as tx:
            seen = capture.replay(permit, tx, self._vault, endpoint.ref, since, end)
            cards = tuple(feedback.rates(tx, permit.account, endpoint.name, since, end))
        baseline = Baseline.from_json(endpoint.files.baseline)
        patients = len(set(seen.owner.tolist()))
        found = compare(baseline, seen.x, seen.p, endpoint.files.scorer.names, patients=patients, bounds=bounds)
        permit.log.read(endpoint.ref)
        permit.log.count(predictions=len(seen.p))
        return Checked(self._write(permit, endpoint, found, cards, since, end), found, seen.erased, cards)

    def _write(
        self,
        permit: Permit,
        endpoint: Endpoint,
        found: Check,
        cards: Sequence[Rate],
        since: datetime,
        end: datetime,
    ) -> Noun:
        body: dict[str, Any] = {
            "endpoint": endpoint.ref,
            "model": endpoint.files.ref,
            "check": "drift",
            "since": iso(since),
            "until": iso(end),
            **found.as_json(),
            **({"cards": [one.as_json() for one in cards]} if cards else {}),
        }
        ref = nouns.ref("finding", canonical.dump({"account": permit.account, **body}))
        noun = Noun(ref, permit.account, STATES[found.status], permit.act, (endpoint.ref, endpoint.files.ref), body)
        with self._vault.database.transaction(permit) as tx:
            self._nouns.write(tx, noun)
            permit.log.wrote(ref)
            said = {"endpoint": endpoint.ref, "rows": found.rows, "violations": len(found.violations)}
            self._outbox.publish(tx, permit.account, f"monitor.{noun.state}", ref, said)
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
