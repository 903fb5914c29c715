"""The chart of one patient: the course turned into FHIR lines, as far as the record reaches, and into truth."""

from __future__ import annotations

from base64 import b64encode

from carelake.synth import hospital, resources, vitals
from carelake.synth.calendar import DAY, HOUR
from carelake.synth.draw import Stream
from carelake.synth.history import History, Visit
from carelake.synth.notes import Note, Writer
from carelake.synth.population import Illness, World
from carelake.synth.stay import Reading, Stay
from carelake.synth.truth import Truth

__all__ = ["Chart"]

_SUMMARY = ("18842-5", "Discharge summary")
_ED_NOTE = ("34111-5", "Emergency department note")


class Chart:
    """Writes one patient's resources, Patient first; what would be known only after the record closes is left out.

    Args:
        draw: the stream for ids, wording and administrative delays; the course itself is drawn already.
        watch: the stream for series of vital signs, None to write none.
    """

    def __init__(
        self, draw: Stream, world: World, history: History, truth: Truth, watch: Stream | None = None
    ) -> None:
        self.draw, self.world, self.history, self.truth = draw, world, history, truth
        self.watch = watch
        self.person = history.person
        self.calendar = world.calendar
        self.staff = hospital.staff(world.people)
        self.writer = Writer(draw, world, self.person, self.staff)
        self.out: list[str] = []

    def lines(self) -> list[str]:
        """All resources, in the order of the encounters."""
        died = self.history.died_at
        self.out.append(resources.patient(self.person, "" if died is None else self.moment(died)))
        self.truth.patient(self.history)
        encounters: list[tuple[int, Stay | Visit]] = [(stay.admitted, stay) for stay in self.history.stays]
        encounters += [(visit.begins, visit) for visit in self.history.visits]
        for _, encounter in sorted(encounters, key=lambda pair: pair[0]):
            if isinstance(encounter, Stay):
                self.stay(encounter)
            else:
                self.visit(encounter)
        return self.out

    def moment(self, minute: int) -> str:
        return self.calendar.moment(minute)

    def known(self, minute: int) -> bool:
        """Whether the record still reaches that far."""
        return minute < self.calendar.closes

    # --- inpatient ------------------------------------------------------------------------------------------------

    def stay(self, stay: Stay) -> None:
        ended = self.known(stay.discharged)
        doctor = self.draw.pick(self.staff)
        diagnosis = self.draw.uuid()
        diagnosed = stay.admitted + 3 * HOUR
        self.encounter(stay, doctor[0], diagnosis if self.known(diagnosed) else "", ended=ended)
        self.problems(stay.id, stay.admitted)
        cause = (stay.cause.code, stay.cause.display)
        self.condition(diagnosis, stay.id, cause, (stay.admitted - 2 * HOUR, diagnosed), over=ended)
        for reading in stay.readings:
            self.reading(stay.id, reading, self.draw)
        if self.watch is not None:
            for reading in vitals.series(self.watch, stay):
                self.reading(stay.id, reading, self.watch)
        for name, when in stay.procedures:
            if self.known(when):
                code = self.world.codes.procedures[name]
                self.out.append(
                    resources.procedure(self.draw.uuid(), self.person.id, stay.id, code, self.moment(when))
                )
        if ended:
            self.leaving(stay, doctor)
            self.truth.admission(self.history, stay)

    def encounter(self, stay: Stay, doctor: str, diagnosis: str, *, ended: bool) -> None:
        source = "hosp-trans" if stay.transferred else "emd" if stay.urgent else "outp"
        urgent = "UR" if stay.transferred or stay.severity < 0.0 else "EM"
        line = resources.encounter(
            stay.id,
            self.person.id,
            kind="IMP",
            kind_text="Hospital admission",
            priority=urgent if stay.urgent else "EL",
            begins=self.moment(stay.admitted),
            ends=self.moment(stay.discharged) if ended else "",
            reason=(stay.cause.code, stay.cause.display),
            diagnosis=diagnosis,
            service=self.world.codes.services[stay.service],
            source=source,
            disposition=stay.disposition if ended else "",
            places=self.places(stay, ended=ended),
            practitioner=doctor,
            organization=hospital.ORGANIZATION,
        )
        self.out.append(line)

    def places(self, stay: Stay, *, ended: bool) -> list[tuple[str, str, str]]:
        """The ward, and from a transfer on intensive care; what lies after the record's end is open."""
        left = self.moment(stay.discharged) if ended else ""
        if not stay.worse or not self.known(stay.worse):
            return [(hospital.WARD, self.moment(stay.admitted), left)]
        back = min(stay.worse + 2 * DAY, stay.discharged)
        first = (hospital.WARD, self.moment(stay.admitted), self.moment(stay.worse))
        return [first, (hospital.INTENSIVE, self.moment(stay.worse), self.moment(back) if self.known(back) else "")]

    def leaving(self, stay: Stay, doctor: tuple[str, str, str]) -> None:
        authored = stay.discharged - self.draw.minutes(30, 150)
        for name in stay.drugs:
            self.drug(stay.id, name, "discharge", authored, doctor[0])
        written = stay.discharged + self.draw.minutes(-60, 26 * HOUR)
        self.note(stay.id, _SUMMARY, self.writer.discharge(stay, doctor), written, doctor[0])
        days = (stay.discharged - stay.admitted) / DAY
        cost = 2900.0 + 2450.0 * days + 9000.0 * len(stay.procedures) + 14000.0 * bool(stay.worse)
        diagnoses = [(stay.cause.code, stay.cause.display)]
        present = [i.code[:2] for i in self.person.illnesses if i.onset <= stay.admitted]
        diagnoses += [code for code in present if code[0] != stay.cause.code][:5]
        self.claim(stay.id, (stay.admitted, stay.discharged), diagnoses, "Inpatient care", cost)

    # --- visits ---------------------------------------------------------------------------------------------------

    def visit(self, visit: Visit) -> None:
        if not self.known(visit.ends):
            return
        doctor, emergency = self.draw.pick(self.staff), visit.cause is not None
        diagnosis = self.draw.uuid() if emergency else ""
        reason = (visit.cause.code, visit.cause.display) if visit.cause else ("Z00.00", "General adult check-up")
        line = resources.encounter(
            visit.id,
            self.person.id,
            kind="EMER" if emergency else "AMB",
            kind_text="Emergency visit" if emergency else "Check-up",
            priority="EM" if emergency else "R",
            begins=self.moment(visit.begins),
            ends=self.moment(visit.ends),
            reason=reason,
            diagnosis=diagnosis,
            service=None,
            source="",
            disposition="home" if emergency else "",
            places=[(hospital.EMERGENCY, self.moment(visit.begins), self.moment(visit.ends))] if emergency else [],
            practitioner=doctor[0],
            organization=hospital.ORGANIZATION,
        )
        self.out.append(line)
        self.problems(visit.id, visit.begins)
        for reading in visit.readings:
            self.reading(visit.id, reading, self.draw)
        for name in visit.drugs:
            self.drug(visit.id, name, "outpatient", visit.ends - 10, doctor[0])
        if emergency:
            self.condition(diagnosis, visit.id, reason, (visit.begins - 3 * HOUR, visit.begins + 40), over=True)
            if self.draw.chance(0.7):
                self.note(visit.id, _ED_NOTE, self.writer.emergency(visit, doctor), visit.ends + 15, doctor[0])
            self.claim(visit.id, (visit.begins, visit.ends), [reason], "Emergency care", 1150.0)

    # --- parts ----------------------------------------------------------------------------------------------------

    def problems(self, encounter: str, at: int) -> None:
        """Chronic conditions that this encounter is the first to see go on the problem list."""
        for illness in self.person.illnesses:
            if not illness.recorded and illness.onset <= at:
                illness.recorded = True
                self.problem(encounter, illness, at)

    def problem(self, encounter: str, illness: Illness, at: int) -> None:
        recorded = at + 15 + int(30 * self.draw.random())
        if self.known(recorded):
            line = resources.condition(
                self.draw.uuid(), self.person.id, encounter, illness.code[:2], problem=True, active=True,
                onset=self.calendar.day(illness.onset), recorded=self.moment(recorded),
            )  # fmt: skip
            self.out.append(line)

    def condition(
        self, id: str, encounter: str, code: tuple[str, str], times: tuple[int, int], *, over: bool
    ) -> None:
        """The diagnosis of an encounter; ``times`` of onset and record."""
        onset, recorded = times
        if self.known(recorded):
            line = resources.condition(
                id, self.person.id, encounter, code, problem=False, active=not over,
                onset=self.calendar.day(onset), recorded=self.moment(recorded),
            )  # fmt: skip
            self.out.append(line)

    def reading(self, encounter: str, reading: Reading, draw: Stream) -> None:
        if not self.known(reading.issued):
            return
        times = self.moment(reading.taken), self.moment(reading.issued)
        if reading.measure == "sbp":
            systolic = int(reading.value)
            diastolic = round(systolic * 0.52 + 8 + 6 * draw.random())
            line = resources.pressure(draw.uuid(), self.person.id, encounter, systolic, diastolic, *times)
        else:
            value, unit = self.reported(reading)
            measure = self.world.codes.measures[reading.measure]
            line = resources.observation(draw.uuid(), self.person.id, encounter, measure, value, unit, *times)
        self.out.append(line)

    def reported(self, reading: Reading) -> tuple[str, str]:
        """The value as the laboratory reports it, in its unit; a shift may change both."""
        measure, shift = self.world.codes.measures[reading.measure], self.world.shift
        value = reading.value + shift.bias.get(reading.measure, 0.0)
        if reading.measure in shift.units:
            unit, factor, digits = shift.units[reading.measure]
            return f"{value * factor:.{digits}f}", unit
        return f"{value:.{measure.digits}f}", measure.unit

    def drug(self, encounter: str, name: str, category: str, authored: int, doctor: str) -> None:
        code, dose = self.world.codes.drugs[name]
        line = resources.medication_request(
            self.draw.uuid(), self.person.id, encounter, (code, name.capitalize()), dose,
            category=category, authored=self.moment(authored), practitioner=doctor,
        )  # fmt: skip
        self.out.append(line)

    def note(self, encounter: str, kind: tuple[str, str], note: Note, written: int, author: str) -> None:
        id = self.draw.uuid()
        if not self.known(written):
            return
        text = b64encode(note.text.encode()).decode()
        moment = self.moment(written)
        line = resources.document(
            id, self.person.id, encounter, kind, written=moment, author=author, text_base64=text
        )
        self.out.append(line)
        self.truth.note(id, note)

    def claim(
        self, encounter: str, period: tuple[int, int], diagnoses: list[tuple[str, str]], service: str, cost: float
    ) -> None:
        created, total = period[1] + self.draw.minutes(2 * DAY, 9 * DAY), cost * (0.9 + 0.2 * self.draw.random())
        id = self.draw.uuid()
        if self.known(created):
            line = resources.claim(
                id, self.person.id, encounter, begins=self.moment(period[0]), ends=self.moment(period[1]),
                created=self.moment(created), organization=hospital.ORGANIZATION, insurer=self.person.insurer,
                diagnoses=diagnoses, service=service, total=f"{total:.2f}",
            )  # fmt: skip
            self.out.append(line)
