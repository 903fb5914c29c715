"""Notes in the manner of a hospital, with gold spans for what identifies the patient and for what is clinical.

A note is put together from sentences of ``notes.toml``; whatever fills a slot leaves a span with its place in the
text, in characters (code points), so gold and text cannot disagree.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from carelake.synth.draw import Stream
from carelake.synth.history import Visit
from carelake.synth.population import Person, World
from carelake.synth.stay import Stay
from carelake.synth.tables import Cause

__all__ = ["Note", "Span", "Writer"]

_SLOT = re.compile(r"\{([-?~!]?)(\w+)\}")
_ASSERTIONS = {"": "present", "-": "absent", "?": "possible", "~": "family", "!": "hypothetical"}
_FULL_MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip


class Span(NamedTuple):
    """A gold span: ``start`` and ``end`` in characters, ``layer`` phi or entity; entities have code and assertion.

    Kinds of PHI are those of Amazon Comprehend Medical (NAME, DATE, AGE, ID, ADDRESS, PHONE_OR_FAX, EMAIL); kinds of
    entities are DX_NAME (ICD-10-CM), GENERIC_NAME (RxNorm), TEST_NAME (LOINC) and PROCEDURE_NAME (ICD-10-PCS).
    """

    start: int
    end: int
    layer: str
    kind: str
    code: str
    assertion: str


class Mention(NamedTuple):
    """What fills a slot; ``kind`` "" leaves no span."""

    text: str
    kind: str = ""
    code: str = ""


@dataclass(frozen=True, slots=True)
class Note:
    """A finished note."""

    text: str
    spans: list[Span]


_WHERE = {
    "home_health": "home with visiting nurses",
    "snf": "to a skilled nursing facility",
    "rehab": "to rehabilitation",
    "against_advice": "against advice",
    "hospice": "to hospice care",
}
_PHI = frozenset(["NAME", "DATE", "AGE", "ID", "ADDRESS", "PHONE_OR_FAX", "EMAIL"])


@lru_cache(maxsize=512)
def _pieces(template: str) -> tuple[tuple[str, str, str], ...]:
    """(text before, assertion sign, slot) for each slot, then (rest, "", "")."""
    out, at = [], 0
    for match in _SLOT.finditer(template):
        out.append((template[at : match.start()], match.group(1), match.group(2)))
        at = match.end()
    return (*out, (template[at:], "", ""))


class _Text:
    """A text that grows and remembers where its mentions stand."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.length = 0
        self.spans: list[Span] = []

    def say(self, text: str) -> None:
        self.parts.append(text)
        self.length += len(text)

    def mention(self, mention: Mention, sign: str = "") -> None:
        start = self.length
        self.say(mention.text)
        if mention.kind in _PHI:
            self.spans.append(Span(start, self.length, "phi", mention.kind, "", ""))
        elif mention.kind:
            assertion = _ASSERTIONS[sign]
            self.spans.append(Span(start, self.length, "entity", mention.kind, mention.code, assertion))

    def listing(self, mentions: Sequence[Mention]) -> None:
        for number, mention in enumerate(mentions):
            if number:
                self.say(" and " if number == len(mentions) - 1 else ", ")
            self.mention(mention)

    def fill(self, template: str, slots: Mapping[str, Mention | list[Mention]]) -> None:
        for before, sign, slot in _pieces(template):
            self.say(before)
            if not slot:
                continue
            filling = slots[slot]
            if isinstance(filling, list):
                self.listing(filling)
            else:
                self.mention(filling, sign)

    def note(self) -> Note:
        return Note("".join(self.parts), self.spans)


class Writer:
    """Writes the notes of one patient.

    Args:
        draw: the stream for wording; nothing of the course depends on it.
        staff: (id, given, family) of the practitioners.
    """

    def __init__(self, draw: Stream, world: World, person: Person, staff: Sequence[tuple[str, str, str]]) -> None:
        self.draw, self.world, self.person, self.staff = draw, world, person, staff

    def discharge(self, stay: Stay, doctor: tuple[str, str, str]) -> Note:
        """A discharge summary, or the summary of a stay that ended in death."""
        draw, says, text = self.draw, self.world.phrases.discharge, _Text()
        slots = self._slots(stay.admitted, doctor, stay.cause) | self._stay_slots(stay)
        story = says["story_urgent" if stay.urgent else "story_planned"]
        for sentences in (says["header"], says["complaint"]):
            text.fill(draw.pick(sentences) + "\n", slots)
        before, gap, after = draw.pick(story).partition("{In_ed}")
        text.fill(before, slots)
        if gap:
            text.fill(draw.pick(says["in_ed"]), slots)
        text.fill(after + "\n", slots)
        text.fill(draw.pick(says["relatives"]) + "\n", slots)
        self._course(text, stay, slots)
        self._results(text, stay)
        if not stay.died:
            text.say("\n" + draw.pick(says["medications"]))
            for name in stay.drugs:
                text.say("- ")
                text.mention(self._drug(name))
                text.say(f" {self.world.codes.drugs[name][1]}\n")
            text.fill("\n" + draw.pick(says["follow"]), slots)
        text.fill(draw.pick(says["signature"]), slots)
        return text.note()

    def emergency(self, visit: Visit, doctor: tuple[str, str, str]) -> Note:
        """The note of an emergency visit that ended at home."""
        draw, says, text = self.draw, self.world.phrases.emergency, _Text()
        cause = visit.cause
        assert cause is not None
        values = {reading.measure: f"{reading.value:.0f}" for reading in visit.readings}
        slots: dict[str, Mention | list[Mention]] = self._slots(visit.begins, doctor, cause)
        slots |= {
            "symptom": self._symptom(cause.symptom),
            "principal": Mention(cause.word, "DX_NAME", cause.code),
            "hr": Mention(values["hr"]),
            "spo2": Mention(values["spo2"]),
            "signed": self._date(visit.ends),
        }
        close = "close_without"
        if visit.drugs:
            slots["drug"], close = self._drug(visit.drugs[0]), "close"
        for sentences in (says["header"], says["story"], says["exam"], says[close]):
            text.fill(draw.pick(sentences), slots)
        return text.note()

    # --- parts ----------------------------------------------------------------------------------------------------

    def _course(self, text: _Text, stay: Stay, slots: Mapping[str, Mention | list[Mention]]) -> None:
        draw, says, slots = self.draw, self.world.phrases.discharge, dict(slots)
        text.say("HOSPITAL COURSE\n")
        for name, when in stay.procedures[:2]:
            code, display = self.world.codes.procedures[name]
            slots["procedure"] = Mention(display, "PROCEDURE_NAME", code)
            slots["procedure_day"] = self._date(when)
            text.fill(draw.pick(says["procedure"]) + " ", slots)
        if stay.worse:
            slots["worse_day"] = self._date(stay.worse)
            slots["crisis"] = Mention("acute respiratory distress", "DX_NAME", "R06.03")
            text.fill(draw.pick(says["worse"]) + " ", slots)
        end = "died" if stay.died else "recovered" if stay.worse else "quiet"
        text.fill(draw.pick(says[end]) + "\n\n", slots)

    def _results(self, text: _Text, stay: Stay) -> None:
        last = {r.measure: r for r in stay.readings if r.issued <= stay.discharged}
        tests = [last[name] for name in ("hb", "na", "cr", "alb") if name in last]
        if not tests:
            return
        before, _, after = self.draw.pick(self.world.phrases.discharge["results"]).partition("{labs}")
        text.say(before)
        for number, reading in enumerate(tests):
            measure = self.world.codes.measures[reading.measure]
            text.say(", " if number else "")
            text.mention(Mention(measure.display.lower(), "TEST_NAME", measure.loinc))
            text.say(f" {reading.value:.{measure.digits}f} {measure.unit}")
        text.say(after)

    def _stay_slots(self, stay: Stay) -> dict[str, Mention | list[Mention]]:
        draw, cause = self.draw, stay.cause
        symptom = self._symptom(cause.symptom)
        return {
            "discharged": self._date(stay.discharged),
            "symptom": symptom,
            "symptom_as_said": symptom._replace(text=symptom.text.capitalize()),
            "principal": Mention(cause.word, "DX_NAME", cause.code),
            "days": Mention(str(1 + int(draw.random() * 6))),
            "kin_phone": Mention(self._phone(), "PHONE_OR_FAX"),
            "follow_day": self._date(stay.discharged + draw.minutes(5, 20) * 1440),
            "signed": self._date(stay.discharged + draw.minutes(0, 1440)),
            "where": Mention(_WHERE.get(stay.disposition, "home")),
            "email": Mention(f"{_plain(self.person.given)}.{_plain(self.person.family)}@example.org", "EMAIL"),
        }

    def _slots(self, at: int, doctor: tuple[str, str, str], cause: Cause) -> dict[str, Mention | list[Mention]]:
        draw, person, lists = self.draw, self.person, self.world.phrases.lists
        other = draw.pick(self.staff)
        history = [i.code for i in person.illnesses if i.onset <= at][:5]
        findings = [row for row in lists.findings if row[0] != cause.symptom]
        first = findings.pop(int(draw.random() * len(findings)))
        return {
            "full": Mention(f"{person.given} {person.family}", "NAME"),
            "reversed": Mention(f"{person.family}, {person.given}", "NAME"),
            "family": Mention(person.family, "NAME"),
            "title": Mention("Mr." if person.male else "Ms."),
            "noun": Mention("man" if person.male else "woman"),
            "sex": Mention("M" if person.male else "F"),
            "he": Mention("he" if person.male else "she"),
            "He": Mention("He" if person.male else "She"),
            "age": Mention(str(int(person.age(at))), "AGE"),
            "mrn": Mention(person.mrn, "ID"),
            "born": self._date(person.birth),
            "admitted": self._date(at),
            "doctor": Mention(f"Dr. {doctor[1]} {doctor[2]}", "NAME"),
            "other_doctor": Mention(f"Dr. {other[2]}", "NAME"),
            "address": Mention(f"{person.street}, {person.town[0]}, MA {person.town[1]}", "ADDRESS"),
            "phone": Mention(person.phone, "PHONE_OR_FAX"),
            "clinic_phone": Mention(self._phone(), "PHONE_OR_FAX"),
            "history": [Mention(c[2], "DX_NAME", c[0]) for c in history] or [Mention("no chronic illness")],
            "other_1": _finding(first),
            "other_2": _finding(draw.pick(findings)),
            "unlikely": _finding(draw.pick([row for row in lists.unlikely if row[0] != cause.word])),
            "kin_illness": _finding(draw.pick(lists.kin_illness)),
            "signed": self._date(at),
        }

    def _symptom(self, word: str) -> Mention:
        code = self.world.codes.symptoms[word]
        return Mention(word, "DX_NAME" if code else "", code)

    def _drug(self, name: str) -> Mention:
        return Mention(name, "GENERIC_NAME", self.world.codes.drugs[name][0])

    def _phone(self) -> str:
        area, number = self.draw.pick(self.world.people.area_codes), 100 + int(self.draw.random() * 100)
        return self.draw.pick((f"{area}-555-{number:04d}", f"({area}) 555-{number:04d}", f"{area}.555.{number:04d}"))

    def _date(self, minute: int) -> Mention:
        day = self.world.calendar.date(minute)
        style = int(self.draw.random() * 4)
        month = _FULL_MONTHS[day.month - 1]
        text = (
            f"{day.month:02d}/{day.day:02d}/{day.year}",
            f"{month} {day.day}, {day.year}",
            day.isoformat(),
            f"{day.day} {month[:3]} {day.year}",
        )[style]
        return Mention(text, "DATE")


def _plain(name: str) -> str:
    """The name as it stands in an e-mail address: ASCII letters in lower case."""
    folded = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return folded.replace("'", "").lower()


def _finding(row: tuple[str, str]) -> Mention:
    return Mention(row[0], "DX_NAME", row[1])
