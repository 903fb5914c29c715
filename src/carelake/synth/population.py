"""Who lives around the hospital: one person with a body, a name, long-lasting conditions and habits of coming."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import timedelta

from carelake.synth import tables
from carelake.synth.calendar import YEAR, Calendar
from carelake.synth.draw import Stream, expit, logit

__all__ = ["Illness", "Person", "Rates", "World", "born"]

_NEEDS = {"diabetes_complicated": "diabetes", "metastatic": "cancer"}
_FRAILTY = 0.35


@dataclass(frozen=True, slots=True)
class World:
    """Everything that is the same for all patients of one run."""

    calendar: Calendar
    shift: tables.Shift
    codes: tables.Codes
    model: tables.Model
    people: tables.People
    phrases: tables.Phrases


@dataclass(slots=True)
class Illness:
    """A chronic condition of a person: from when, and whether the hospital has recorded it yet."""

    chronic: tables.Chronic
    code: tuple[str, str, str]
    onset: int
    recorded: bool = False


@dataclass(frozen=True, slots=True)
class Rates:
    """How often a person comes, per year. ``emergency`` is what age and conditions predict, ``emergency_latent`` its
    multiplier that nobody records."""

    urgent: float
    elective: float
    ambulatory: float
    emergency: float
    emergency_latent: float


@dataclass(slots=True)
class Person:
    """One synthetic patient. Times in minutes since the record begins; ``birth`` is midnight of the birth date.

    ``hb``, ``cr`` and ``alb`` are usual values: g/dL, log mg/dL, g/dL. ``frailty`` is latent, a standard normal.
    """

    id: str
    mrn: str
    male: bool
    birth: int
    birth_date: str
    race: tuple[str, str]
    hispanic: bool
    given: str
    family: str
    street: str
    town: tuple[str, str]
    phone: str
    insurer: str
    frailty: float
    illnesses: list[Illness]
    hb: float
    cr: float
    alb: float
    rates: Rates = field(default_factory=lambda: Rates(0, 0, 0, 0, 1))

    def age(self, minute: int) -> float:
        """Years since birth."""
        return (minute - self.birth) / YEAR

    def has(self, minute: int) -> frozenset[str]:
        """Names of the conditions present at a moment, recorded or not."""
        return frozenset(i.chronic.name for i in self.illnesses if i.onset <= minute)


def _age(draw: Stream, world: World) -> float:
    if draw.chance(world.model.population.under_50):
        return 18.0 + 32.0 * draw.random()
    age = 50.0 + 47.0 * draw.betavariate(1.25, 1.9)
    return min(age + world.shift.age, 99.0)


def _illnesses(draw: Stream, world: World, age: float, frailty: float, male: bool) -> list[Illness]:
    closes = world.calendar.closes
    years = closes / YEAR
    found: list[Illness] = []
    present: set[str] = set()
    for chronic in world.codes.chronic:
        odds = logit(chronic.at60) + chronic.per_decade * (age - 60) / 10 + chronic.frailty * frailty
        prevalence = expit(odds + world.shift.sicker)
        needs = _NEEDS.get(chronic.name)
        if needs:
            prevalence = min(prevalence * 4.0, 0.7) if needs in present else 0.0
        u, when = draw.random(), draw.random()
        later = prevalence * world.model.population.onset_per_year * years
        if u < prevalence:
            onset = -int((0.5 + 9.0 * when) * YEAR)
        elif u < prevalence + later:
            onset = int(when * closes)
        else:
            draw.random()
            continue
        found.append(Illness(chronic, _code(draw, chronic, male), onset))
        present.add(chronic.name)
    return found


def _code(draw: Stream, chronic: tables.Chronic, male: bool) -> tuple[str, str, str]:
    wrong = "C50.919" if male else "C61"
    return draw.pick([code for code in chronic.codes if code[0] != wrong])


def _creatinine(draw: Stream, illnesses: list[Illness], male: bool) -> float:
    """Log of the usual creatinine in mg/dL, by stage of kidney disease."""
    stages = {"N18.30": 1.6, "N18.4": 2.7, "N18.6": 5.2}
    usual = [stages[illness.code[0]] for illness in illnesses if illness.code[0] in stages and illness.onset < 0]
    return math.log(usual[0] if usual else 0.95 if male else 0.80) + draw.normal(0.0, 0.14)


def _rates(draw: Stream, world: World, person: Person) -> Rates:
    arrivals, shift = world.model.arrivals, world.shift
    decades = (person.age(0) - 60.0) / 10.0
    now = [i.chronic for i in person.illnesses if i.onset <= world.calendar.opens]
    urgent = math.exp(
        arrivals.urgent_per_decade * decades
        + arrivals.urgent_frailty * person.frailty
        + sum(chronic.admission for chronic in now)
    )
    emergency = math.exp(arrivals.emergency_per_decade * decades + sum(chronic.ed for chronic in now))
    shapes = arrivals.urgent_shape, arrivals.emergency_shape
    return Rates(
        urgent=arrivals.urgent * shift.urgent * urgent * draw.gammavariate(shapes[0], 1.0 / shapes[0]),
        elective=arrivals.elective * (0.5 if person.age(0) < 45 else 1.0),
        ambulatory=arrivals.ambulatory * (0.7 + 0.2 * len(now)),
        emergency=arrivals.emergency * shift.emergency * emergency,
        emergency_latent=draw.gammavariate(shapes[1], 1.0 / shapes[1]),
    )


def born(draw: Stream, ids: Stream, world: World, mrn: str) -> Person:
    """Draw one person."""
    people = world.people
    age, male = _age(draw, world), draw.chance(world.model.population.male)
    birth = world.calendar.date(-int(age * YEAR))
    race = people.races[draw.weighted([float(race[0]) for race in people.races])]
    frailty = draw.gauss(0.0, 1.0)
    illnesses = _illnesses(draw, world, age, frailty, male)
    present = {illness.chronic.name for illness in illnesses if illness.onset < 0}
    person = Person(
        id=ids.uuid(),
        mrn=mrn,
        male=male,
        birth=(birth - world.calendar.epoch) // timedelta(minutes=1),
        birth_date=birth.isoformat(),
        race=(race[1], race[2]),
        hispanic=draw.chance(float(race[3])),
        given=draw.pick(people.male if male else people.female),
        family=draw.pick(people.family),
        street=f"{1 + int(draw.random() * 980)} {draw.pick(people.streets)}",
        town=draw.pick(people.towns),
        phone=f"{draw.pick(people.area_codes)}-555-{100 + int(draw.random() * 100):04d}",
        insurer=people.insurers[0 if age >= 65 else 1 + draw.weighted((0.25, 0.65, 0.10))],
        frailty=frailty,
        illnesses=illnesses,
        hb=draw.normal(14.4 if male else 13.2, 1.1) - 1.3 * ("ckd" in present) - 1.0 * ("cancer" in present),
        cr=_creatinine(draw, illnesses, male),
        alb=draw.normal(4.1, 0.25) - _FRAILTY * 0.4 * max(frailty, 0.0) - 0.5 * ("liver" in present),
    )
    person.rates = _rates(draw, world, person)
    return person
