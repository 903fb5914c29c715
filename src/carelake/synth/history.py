"""The course of one patient through the record: who comes when, and what follows from it.

Exogenous arrivals (check-ups, emergency visits, urgent and elective admissions) are Poisson; what a stay leads to is
drawn when it ends. The outcome holds exactly: a stay whose readmission was drawn gets one within 30 days, and after
any other discharge no unplanned admission begins for 30 days (such arrivals are dropped; planned ones may come).
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field

from carelake.synth import risk
from carelake.synth.calendar import DAY, HOUR, YEAR
from carelake.synth.draw import Stream, expit
from carelake.synth.population import Illness, Person, World
from carelake.synth.stay import Reading, Stay, admit, discharge_facts
from carelake.synth.tables import Cause

__all__ = ["History", "Visit", "live"]

QUIET = 30 * DAY  # after a discharge without readmission
_CHECKUP, _EMERGENCY, _URGENT, _ELECTIVE, _CHEMOTHERAPY, _RETURN = range(6)
_HOURS = {_CHECKUP: (8, 17), _ELECTIVE: (6, 11), _CHEMOTHERAPY: (6, 11)}
_LAST_DELAY_DAYS = 29.5


@dataclass(frozen=True, slots=True)
class Visit:
    """An ambulatory check-up (``cause`` None) or an emergency visit without admission."""

    id: str
    cause: Cause | None
    begins: int
    ends: int
    readings: list[Reading]
    drugs: list[str]


@dataclass(slots=True)
class History:
    """Everything that happened to one person, in order; ``died_at`` is a minute, or None."""

    person: Person
    stays: list[Stay] = field(default_factory=list)
    visits: list[Visit] = field(default_factory=list)
    died_at: int | None = None

    def emergencies(self, since: int, until: int) -> int:
        """Number of emergency visits begun in [since, until)."""
        return sum(1 for v in self.visits if v.cause is not None and since <= v.begins < until)

    def admissions(self, since: int, until: int) -> int:
        """Number of stays begun in [since, until)."""
        return sum(1 for stay in self.stays if since <= stay.admitted < until)


class _Course:
    """The state that carries from one event to the next."""

    def __init__(self, draw: Stream, ids: Stream, world: World, person: Person) -> None:
        self.draw, self.ids, self.world, self.person = draw, ids, world, person
        self.history = History(person)
        self.queue: list[tuple[int, int]] = []
        self.busy_until = -1  # in the hospital
        self.quiet_until = -1  # no unplanned admission before
        self.returns_at = -1  # a readmission that is already decided
        self.dies_at = math.inf

    def push(self, minute: float, kind: int) -> None:
        """Queue an event, moved to its hours of the day; what the record does not reach is dropped."""
        if minute >= self.world.calendar.closes:
            return
        at = int(minute)
        if kind in _HOURS:
            opens, closes = _HOURS[kind]
            at = at // DAY * DAY + self.draw.minutes(opens * HOUR, closes * HOUR)
        heapq.heappush(self.queue, (at, kind))

    def run(self) -> History:
        self.arrivals()
        while self.queue:
            at, kind = heapq.heappop(self.queue)
            if at >= self.dies_at:
                break
            if at < self.busy_until and kind != _RETURN:
                continue
            self.happen(at, kind)
        closes = self.world.calendar.closes
        self.history.died_at = int(self.dies_at) if self.dies_at < closes else None
        return self.history

    def happen(self, at: int, kind: int) -> None:
        if kind == _CHECKUP:
            self.history.visits.append(self.checkup(at))
        elif kind == _EMERGENCY:
            self.history.visits.append(self.emergency(at))
            self.busy_until = self.history.visits[-1].ends
        elif kind == _RETURN:
            self.stay(at, self.cause_of_return(), "readmission")
        elif kind == _URGENT:
            if at >= self.quiet_until and self.returns_at < at:
                self.stay(at, self.urgent_cause(), "base")
        else:
            self.planned(at, kind)

    # --- arrivals -------------------------------------------------------------------------------------------------

    def arrivals(self) -> None:
        rates, closes = self.person.rates, self.world.calendar.closes
        self.poisson(rates.ambulatory, _CHECKUP)
        self.poisson(rates.emergency * rates.emergency_latent, _EMERGENCY)
        self.poisson(rates.urgent, _URGENT)
        self.poisson(rates.elective, _ELECTIVE)
        onset = min((i.onset for i in self.person.illnesses if i.chronic.name == "cancer"), default=None)
        if onset is not None and self.draw.chance(self.world.model.arrivals.chemotherapy):
            first = max(onset, 0) + self.draw.minutes(10 * DAY, max(closes - max(onset, 0), 11 * DAY))
            for cycle in range(2 + int(4 * self.draw.random())):
                self.push(first + cycle * 21 * DAY + self.draw.minutes(0, DAY), _CHEMOTHERAPY)
        yearly = self.world.model.death.background * math.exp(0.085 * self.person.age(0))
        self.dies_at = self.draw.expovariate(yearly) * YEAR

    def poisson(self, per_year: float, kind: int) -> None:
        if per_year <= 0.0:
            return
        at = self.draw.expovariate(per_year) * YEAR
        while at < self.world.calendar.closes:
            self.push(at, kind)
            at += self.draw.expovariate(per_year) * YEAR

    # --- why ------------------------------------------------------------------------------------------------------

    def choose(self, causes: list[Cause]) -> Cause:
        has = self.person.has(self.world.calendar.closes)
        more = self.world.shift.respiratory
        weights = []
        for cause in causes:
            weight = cause.weight * (more if cause.group == "respiratory" else 1.0)
            for name, factor in cause.boosts.items():
                if name in has:
                    weight *= factor
            weights.append(weight)
        return causes[self.draw.weighted(weights)]

    def urgent_cause(self) -> Cause:
        return self.choose(self.world.codes.acute)

    def cause_of_return(self) -> Cause:
        last = self.history.stays[-1].cause
        same = last in self.world.codes.acute and self.draw.chance(0.45)
        return last if same else self.urgent_cause()

    def planned(self, at: int, kind: int) -> None:
        """An elective stay; it waits while a readmission is due, and for some days after a discharge."""
        gap = self.world.model.arrivals.planned_return_days * DAY
        if self.returns_at > at or at < self.busy_until + gap:
            self.push(max(at, self.returns_at) + 20 * DAY, kind)
            return
        causes = self.world.codes.planned
        chosen = causes[-1] if kind == _CHEMOTHERAPY else self.choose(causes)
        self.stay(at, chosen, "planned")

    # --- what happens ---------------------------------------------------------------------------------------------

    def checkup(self, at: int) -> Visit:
        draw, has = self.draw, self.person.has(at)
        readings = [Reading("sbp", at + 5, at + 6, float(round(draw.normal(131 + 6 * ("chf" in has), 15))))]
        if "diabetes" in has and draw.chance(0.6):
            taken = at + 10
            value = max(round(draw.normal(7.3, 1.1), 1), 4.6)
            readings.append(Reading("a1c", taken, taken + draw.minutes(20 * HOUR, 50 * HOUR), value))
        return Visit(self.ids.uuid(), None, at, at + draw.minutes(20, 50), readings, [])

    def emergency(self, at: int) -> Visit:
        draw, cause = self.draw, self.choose(self.world.codes.emergency)
        copd = "copd" in self.person.has(at)
        saturation = draw.normal(97.2 - 1.8 * copd, 1.4) + self.world.shift.saturation
        taken = at + draw.minutes(5, 30)
        readings = [
            Reading("hr", taken, taken + 2, float(round(min(max(draw.normal(86, 13), 44), 160)))),
            Reading("spo2", taken, taken + 2, float(round(min(max(saturation, 80.0), 100.0)))),
        ]
        drugs = [name for name in cause.drugs[:1] if draw.chance(0.6)]
        return Visit(self.ids.uuid(), cause, at, at + draw.minutes(100, 480), readings, drugs)

    def stay(self, at: int, cause: Cause, trigger: str) -> None:
        person = self.person
        stay = admit(self.draw, self.ids, self.world, person, cause, at, urgent=trigger != "planned")
        stay.trigger = trigger
        self.mark(cause, at)
        self.history.stays.append(stay)
        self.busy_until = stay.discharged
        if stay.died:
            self.dies_at = stay.discharged
            return
        if self.dies_at < stay.discharged:
            self.dies_at = math.inf
        self.decide(stay)
        self.late_results(stay)

    def mark(self, cause: Cause, at: int) -> None:
        """The cause's own code records its family of conditions from now on."""
        if cause.marks and cause.marks not in self.person.has(at):
            chronic = next(c for c in self.world.codes.chronic if c.name == cause.marks)
            code = (cause.code, cause.display, cause.word)
            self.person.illnesses.append(Illness(chronic, code, at, recorded=True))

    def decide(self, stay: Stay) -> None:
        """Draw the outcome of a discharge: readmission within 30 days, or quiet; then perhaps death at home."""
        c, draw = self.world.model.readmission, self.draw
        stay.facts = discharge_facts(
            stay,
            self.person.age(stay.discharged),
            self.history.admissions(stay.admitted - 365 * DAY, stay.admitted),
            self.history.emergencies(stay.admitted - 180 * DAY, stay.admitted),
        )
        log_odds = risk.readmission_logit(stay.facts, c) + self.world.shift.readmission
        stay.risk = risk.over_latent(log_odds, c.latent)
        stay.risk_full = expit(log_odds + draw.normal(0.0, c.latent))
        stay.readmitted = draw.chance(stay.risk_full)
        if stay.readmitted:
            self.return_of(stay)
        else:
            self.quiet_until = max(self.quiet_until, stay.discharged + QUIET + HOUR)
            self.die_at_home(stay)

    def return_of(self, stay: Stay) -> None:
        blocked = max(1.0, (self.quiet_until - stay.discharged) / DAY)
        mean = self.world.model.readmission.hazard_days
        delay = self.draw.exponential_between(mean, blocked, _LAST_DELAY_DAYS)
        stay.returns = stay.discharged + int(delay * DAY)
        self.returns_at = stay.returns
        self.push(stay.returns, _RETURN)
        if self.dies_at <= stay.returns:
            self.dies_at = math.inf

    def die_at_home(self, stay: Stay) -> None:
        death = self.world.model.death
        odds = death.after_discharge + death.age_decade * max(self.person.age(stay.discharged) - 60.0, 0.0) / 10.0
        odds += death.metastatic * ("metastatic" in stay.conditions) + 6.0 * (stay.disposition == "hospice")
        if self.draw.chance(expit(odds)):
            delay = self.draw.exponential_between(40.0, 0.5, 180.0)
            self.dies_at = min(self.dies_at, stay.discharged + delay * DAY)

    def late_results(self, stay: Stay) -> None:
        """The leak trap: a sample of the last hour whose result arrives after discharge and tells of the outcome."""
        if not self.draw.chance(0.12):
            return
        taken = stay.discharged - self.draw.minutes(60, 110)
        for name, worse in (("hb", -1.6), ("na", -5.0)):
            value = {"hb": self.person.hb, "na": 138.5}[name] + self.draw.normal(worse * stay.readmitted, 1.0)
            issued = stay.discharged + self.draw.minutes(2 * HOUR, 30 * HOUR)
            stay.readings.append(Reading(name, taken, issued, round(value, self.world.codes.measures[name].digits)))


def live(draw: Stream, ids: Stream, world: World, person: Person) -> History:
    """Let one person live through the record."""
    return _Course(draw, ids, world, person).run()
