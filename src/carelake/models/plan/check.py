"""The verdict: a version held against a change plan, bound by bound. Pure; a thing that cannot be told is outside.

Each line says which part of the protocol asks for it, for which modifications, in what evidence it was looked for,
what the bound is, and what was found: FDA's traceability, as a table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from carelake.core import canonical
from carelake.models.evidence import leaks_of
from carelake.models.plan.shape import Change, MetricBound, Plan, Span

__all__ = ["Facts", "Line", "Verdict", "differences", "verdict"]

_TINY = 1e-12
_SECTIONS = "description_of_modifications"


@dataclass(frozen=True)
class Facts:
    """What is compared of a version.

    Attributes:
        data: body of the noun of its training set; empty where it is not kept any more.
        calibration: whatever the model's description says of its recalibration.
    """

    ref: str
    training_set: str
    metrics: Mapping[str, Any]
    intended_uses: Mapping[str, Any]
    features: tuple[str, ...]
    hyperparameters: Mapping[str, Any]
    threshold: float
    calibration: Any
    libraries: Mapping[str, Any]
    data: Mapping[str, Any]


@dataclass(frozen=True)
class Line:
    """One line of the traceability table.

    Attributes:
        modifications: ids of those that this bounds.
        verdict: ``inside``, ``outside``, or ``not judged`` with the reason in ``found``; that one counts as inside.
    """

    part: str
    check: str
    modifications: tuple[str, ...]
    evidence: str
    bound: str
    found: str
    verdict: str


@dataclass(frozen=True)
class Verdict:
    """In or out of plan, and why.

    Attributes:
        differences: what differs from the deployed version.
        automatic: whether the plan lets this one out by itself.
    """

    inside: bool
    automatic: bool
    differences: tuple[str, ...]
    lines: tuple[Line, ...]

    def body(self) -> dict[str, Any]:
        """As JSON."""
        told = asdict(self)
        return {**told, "differences": list(self.differences), "lines": [_plain(line) for line in told["lines"]]}


def _plain(line: Mapping[str, Any]) -> dict[str, Any]:
    return {**line, "modifications": list(line["modifications"])}


def verdict(plan: Plan, new: Facts, deployed: Facts | None, now: datetime) -> Verdict:
    """Hold a version against a plan.

    Args:
        deployed: the version that is approved now; None for the first one, which nothing modifies: then what is
            relative to it is not judged, and it does not go out by itself.
    """
    changed = differences(new, deployed) if deployed is not None else ()
    told = _Told(plan, new, deployed, changed)
    lines = (*told.modifications(), *told.data(now), *told.training(), *told.performance(), *told.groups())
    inside = all(line.verdict != "outside" for line in lines)
    named = [one for one in plan.description_of_modifications if set(one.changes) & set(changed)]
    by_itself = plan.modification_protocol.update_procedures.approval == "automatic"
    free = by_itself and deployed is not None and all(one.automatic for one in named)
    return Verdict(inside, inside and free, changed, lines)


def differences(new: Facts, old: Facts) -> tuple[Change, ...]:
    """What differs between two versions, in the plan's words."""
    pairs: tuple[tuple[Change, object, object], ...] = (
        ("training data", new.training_set, old.training_set),
        ("features", set(new.features), set(old.features)),
        ("hyperparameters", _text(new.hyperparameters), _text(old.hyperparameters)),
        ("threshold", new.threshold, old.threshold),
        ("calibration", _text(new.calibration), _text(old.calibration)),
        ("libraries", _text(new.libraries), _text(old.libraries)),
    )
    return tuple(name for name, left, right in pairs if left != right)


def _text(value: Any) -> bytes:
    return canonical.dump(value)


class _Told:
    """Lines, part by part."""

    def __init__(self, plan: Plan, new: Facts, deployed: Facts | None, changed: Sequence[Change]) -> None:
        self._plan, self._new, self._old, self._changed = plan, new, deployed, changed
        self._protocol = plan.modification_protocol

    def _line(self, part: str, check: str, evidence: str, bound: str, found: str, good: bool | None) -> Line:
        ids = tuple(m.id for m in self._plan.description_of_modifications if part in m.protocol)
        return Line(part, check, ids, evidence, bound, found, _WORDS[good])

    def modifications(self) -> Iterator[Line]:
        """Each difference is named by a modification."""
        for change in self._changed:
            ids = tuple(m.id for m in self._plan.description_of_modifications if change in m.changes)
            bound, good = ("a planned modification", bool(ids))
            found = f"planned as {', '.join(ids)}" if ids else "no modification names it"
            yield Line(_SECTIONS, f"{change} differ", ids, "model.json, card.json", bound, found, _WORDS[good])

    def data(self, now: datetime) -> Iterator[Line]:
        """Data management."""
        asked, part, metrics = self._protocol.data_management, "data_management", self._new.metrics
        yield self._least(part, "test rows", "metrics.json n", metrics.get("n"), asked.minimum_rows)
        yield self._least(part, "test events", "metrics.json events", metrics.get("events"), asked.minimum_events)
        evidence = self._new.training_set
        yield self._least(part, "training rows", evidence, self._new.data.get("rows"), asked.minimum_training_rows)
        if asked.newest_within_days is not None:
            age = _age(self._new.data.get("data_end"), now)
            good = age is not None and -1 <= age <= asked.newest_within_days
            found = "not told" if age is None else f"{age:.0f} days"
            yield self._line(
                part, "age of the newest data", evidence, f"<= {asked.newest_within_days} days", found, good
            )
        if (leaks := self._new.data.get("leaks")) is not None:
            certain, suspect = leaks_of(leaks)
            found = f"{certain} leaks, {suspect} to look at"
            yield self._line(part, "leak report", evidence, "no leaks", found, not certain)
        yield from self._features()

    def _features(self) -> Iterator[Line]:
        asked, part = self._protocol.data_management.features, "data_management"
        have = set(self._new.features)
        lacking = sorted(set(asked.must_have) - have)
        if asked.must_have:
            found = f"lacks {', '.join(lacking)}" if lacking else "all there"
            yield self._line(
                part, "features that must be", "model.json", ", ".join(asked.must_have), found, not lacking
            )
        if self._old is None:
            return
        before = set(self._old.features)
        for word, moved, may in (("added", have - before, asked.may_add), ("dropped", before - have, asked.may_drop)):
            bad = sorted(moved - set(may))
            bound = f"among {', '.join(may)}" if may else "none"
            found = f"{len(moved)}" + (f", not planned: {', '.join(bad)}" if bad else "")
            yield self._line(part, f"features {word}", "model.json", bound, found, not bad)

    def training(self) -> Iterator[Line]:
        """Re-training practices."""
        asked, part, old, new = self._protocol.retraining, "retraining", self._old, self._new
        for name, span in sorted(asked.hyperparameters.items()):
            value = new.hyperparameters.get(name)
            found = _said(value)
            yield self._line(part, f"hyperparameter {name}", "card.json", _span(span), found, _within(value, span))
        if old is None:
            return
        other = [
            name
            for name in sorted({*new.hyperparameters, *old.hyperparameters} - set(asked.hyperparameters))
            if new.hyperparameters.get(name) != old.hyperparameters.get(name)
        ]
        found = f"changed: {', '.join(other)}" if other else "as deployed"
        yield self._line(part, "other hyperparameters", "card.json", "as deployed", found, not other)
        same = _text(new.intended_uses) == _text(old.intended_uses)
        found = "unchanged" if same else "changed"
        yield self._line(part, "intended use", "card.json intended_uses", "as deployed", found, same)
        if asked.libraries == "same":
            same = _text(new.libraries) == _text(old.libraries)
            yield self._line(
                part, "libraries", "model.json versions", "as deployed", "same" if same else "others", same
            )

    def performance(self) -> Iterator[Line]:
        """Acceptance criteria on the whole test set."""
        asked, before = self._protocol.performance_evaluation.metrics, self._old.metrics if self._old else None
        for name, bound in sorted(asked.items()):
            yield from self._bound(name, bound, self._new.metrics.get(name), before.get(name) if before else None)

    def groups(self) -> Iterator[Line]:
        """Acceptance criteria in each subgroup."""
        asked, part = self._protocol.performance_evaluation.subgroups, "performance_evaluation"
        found = [one for one in self._new.metrics.get("subgroups") or () if isinstance(one, Mapping)]
        before = {
            (one.get("group"), one.get("value")): one
            for one in (self._old.metrics.get("subgroups") or () if self._old else ())
            if isinstance(one, Mapping)
        }
        for group in asked.by:
            parts = [one for one in found if one.get("group") == group]
            yield self._line(part, f"subgroups by {group}", "metrics.json", "reported", f"{len(parts)}", bool(parts))
            for one in parts:
                yield from self._subgroup(one, before.get((group, one.get("value"))))

    def _subgroup(self, one: Mapping[str, Any], before: Mapping[str, Any] | None) -> Iterator[Line]:
        asked, part = self._protocol.performance_evaluation.subgroups, "performance_evaluation"
        name = f"{one.get('group')}={one.get('value')}"
        events = one.get("events")
        # A count that is withheld beside another's (`models.cells`) is of a group with figures: these are judged.
        withheld = events is None and bool(one.get("withheld")) and not one.get("reason")
        if not withheld and (not isinstance(events, int) or events < asked.minimum_events):
            bound = f">= {asked.minimum_events} events"
            yield self._line(part, name, "metrics.json", bound, f"{_said(events)}, too few to judge", None)
            return
        for figure, bound_of in sorted(asked.metrics.items()):
            was = before.get(figure) if before else None
            yield from self._bound(figure, bound_of, one.get(figure), was, name)
        for figure, gap in sorted(asked.gap_at_most.items()):
            whole, value = self._new.metrics.get(figure), one.get(figure)
            known = _number(whole) and _number(value)
            below = float(whole) - float(value) if known else 0.0  # type: ignore[arg-type]
            found = f"{below:.4f}" if known else "not told"
            good = known and below <= gap + _TINY
            yield self._line(part, f"{figure} of {name} below all", "metrics.json", f"<= {gap:g}", found, good)

    def _least(self, part: str, check: str, evidence: str, value: Any, least: int) -> Line:
        good = _number(value) and value >= least
        return self._line(part, check, evidence, f">= {least}", _said(value), good)

    def _bound(self, name: str, bound: MetricBound, value: Any, was: Any, group: str = "") -> Iterator[Line]:
        part, where = "performance_evaluation", f" of {group}" if group else ""
        known = _number(value)
        if bound.at_least is not None or bound.at_most is not None:
            span = Span(bound.at_least, bound.at_most)
            yield self._line(part, name + where, "metrics.json", _span(span), _said(value), _within(value, span))
        for word, most, sign in (("drop", bound.drop_at_most, -1.0), ("rise", bound.rise_at_most, 1.0)):
            if most is None:
                continue
            check, limit = f"{word} of {name}{where}", f"<= {most:g} against the deployed"
            if self._old is None or (group and was is None):
                yield self._line(part, check, "metrics.json", limit, "nothing is deployed to compare with", None)
                continue
            good = known and _number(was)
            moved = sign * (float(value) - float(was)) if good else 0.0
            found = f"{moved:+.4f} ({_said(was)} to {_said(value)})" if good else "not told"
            yield self._line(part, check, "metrics.json", limit, found, good and moved <= most + _TINY)


_WORDS = {True: "inside", False: "outside", None: "not judged"}


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def _within(value: Any, span: Span) -> bool:
    if not _number(value):
        return False
    low = span.at_least is None or value >= span.at_least - _TINY
    return bool(low and (span.at_most is None or value <= span.at_most + _TINY))


def _span(span: Span) -> str:
    if span.at_least is not None and span.at_most is not None:
        return f"{span.at_least:g} to {span.at_most:g}"
    return f">= {span.at_least:g}" if span.at_least is not None else f"<= {span.at_most:g}"


def _said(value: Any) -> str:
    if value is None:
        return "not told"
    return f"{value:.4f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def _age(text: Any, now: datetime) -> float | None:
    """In days; a moment without a zone is UTC, as a data set tells its end."""
    try:
        at = datetime.fromisoformat(str(text)) if text else None
    except ValueError:
        return None
    if at is None:
        return None
    return (now - (at if at.tzinfo else at.replace(tzinfo=UTC))).total_seconds() / 86_400
