"""``$everything``: one patient's or one encounter's record, by pages (https://hl7.org/fhir/R4/patient-operation-everything.html).

First the one asked for, then what is in its compartment, by ``seq``, then what that refers to and is in no
compartment. A page begins after the last ``seq`` of the one before, so nothing is missed or told twice while others
write: what is changed meanwhile comes again, at the end, in its new version.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import msgspec
from sqlalchemy import Connection

from carelake.core.errors import Invalid
from carelake.core.permit import Permit
from carelake.core.shapes import decodable
from carelake.fhir.compartment import compartment_codes, compartment_types
from carelake.fhir.query import Query
from carelake.fhir.references import target
from carelake.fhir.search import SearchParameter, Use, parameters
from carelake.fhir.terminology import SHIPPED, LocalTerminology
from carelake.store.read import Readings
from carelake.store.search import SearchResult
from carelake.store.search.building import Build, Row, every, prepare, restore
from carelake.store.search.compiling import Compiler
from carelake.store.search.nodes import union
from carelake.store.search.searches import MAX_COUNT, Searches
from carelake.store.symbols import Symbols, patients_of
from carelake.vault.database import scope_of
from carelake.vault.slips import Slips
from carelake.vault.workspace import Vault

__all__ = ["ALONG", "BESIDE", "CARE_DATES", "STANDING", "Asked", "Everything", "kinds"]

ALONG = (
    "Device",
    "HealthcareService",
    "Location",
    "Medication",
    "Organization",
    "Practitioner",
    "PractitionerRole",
    "Substance",
)
"""What comes along where the record refers to it."""

BESIDE = {"Patient": ("Contract", "Device", "GuidanceResponse", "Task"), "Encounter": ("Patient",)}
"""Types in no compartment of R4 that come too: what tells of one patient; an encounter's patient."""

CARE_DATES = {
    "AdverseEvent": ("date",),
    "Appointment": ("date",),
    "CarePlan": ("date",),
    "CareTeam": ("date",),
    "ChargeItem": ("occurrence",),
    "Claim": ("created",),
    "ClaimResponse": ("created",),
    "ClinicalImpression": ("date",),
    "Communication": ("sent", "received"),
    "CommunicationRequest": ("occurrence", "authored"),
    "Composition": ("date", "period"),
    "Consent": ("date",),
    "DetectedIssue": ("identified",),
    "DeviceRequest": ("event-date", "authored-on"),
    "DiagnosticReport": ("date",),
    "DocumentManifest": ("created",),
    "DocumentReference": ("date", "period"),
    "Encounter": ("date",),
    "EpisodeOfCare": ("date",),
    "ExplanationOfBenefit": ("created",),
    "Flag": ("date",),
    "Goal": ("start-date", "target-date"),
    "ImagingStudy": ("started",),
    "Immunization": ("date",),
    "ImmunizationEvaluation": ("date",),
    "Invoice": ("date",),
    "List": ("date",),
    "MeasureReport": ("period",),
    "Media": ("created",),
    "MedicationAdministration": ("effective-time",),
    "MedicationDispense": ("whenhandedover", "whenprepared"),
    "MedicationRequest": ("authoredon", "date"),
    "MedicationStatement": ("effective",),
    "NutritionOrder": ("datetime",),
    "Observation": ("date",),
    "Procedure": ("date",),
    "QuestionnaireResponse": ("authored",),
    "RequestGroup": ("authored",),
    "RiskAssessment": ("date",),
    "ServiceRequest": ("occurrence", "authored"),
    "Specimen": ("collected",),
    "SupplyRequest": ("date",),
    "VisionPrescription": ("datewritten",),
}
"""Search parameters that tell when care was given; ``start`` and ``end`` are about these. What has none is in."""

STANDING = {
    "AllergyIntolerance": ("date", "onset"),
    "Condition": ("onset-date", "recorded-date"),
    "FamilyMemberHistory": ("date",),
}
"""What goes on once it is known: care after its date concerns it too, so ``end`` alone is about these."""

_ROUNDS = 4
"""How far references among what comes along are followed: a location, its organisation, and that one's parent."""
_MERGED = 50
"""Patients whose records one other patient may have taken over."""
_CHUNK = 1000


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked for.

    Attributes:
        kind, id: ``Patient`` or ``Encounter``, and which.
        types: only these; empty for all.
        since: only what changed from then on, in microseconds since 1970.
        start, end: only care in ``[start, end)``, in microseconds since 1970; None for no bound.
        count: size of a page, 0 for the largest.
    """

    kind: str
    id: str
    types: tuple[str, ...] = ()
    since: int | None = None
    start: int | None = None
    end: int | None = None
    count: int = 0


class _Place(msgspec.Struct, array_like=True, frozen=True):
    """Where a page ended: among the record (0) or what comes along (1), its last seq, and what was told first."""

    phase: int
    seq: int
    lead: int


def kinds(asked: Asked) -> tuple[str, ...]:
    """Types that the answer may hold: each must be allowed to the caller."""
    if asked.types:
        return asked.types
    return tuple(sorted({*compartment_types(asked.kind), *BESIDE[asked.kind], *ALONG}))


class Everything:
    """Answers ``$everything``."""

    def __init__(self, vault: Vault, symbols: Symbols, readings: Readings, searches: Searches) -> None:
        self._vault, self._symbols = vault, symbols
        self._readings, self._searches = readings, searches

    def page(self, permit: Permit, tx: Connection, asked: Asked, page: str = "") -> SearchResult:
        """One page; its total counts what is in the compartment, not what comes along.

        Args:
            page: ``next`` of the page before, of the same request.

        Raises:
            NotFound: ``store.no_such_resource``. Gone: ``store.deleted``, ``vault.erased``.
            Invalid: ``store.page``.
        """
        first = self._readings.read(permit, tx, asked.kind, asked.id)
        ids = self._merged(permit, tx, first) if asked.kind == "Patient" else [asked.id]
        prepare(tx)
        work = _Work(Compiler(permit, tx, self._symbols, LocalTerminology(SHIPPED)), asked, ids, first)
        found = self._page(permit, tx, work, page)
        if scope_of(tx).writing:
            restore(tx)
        return found

    def _page(self, permit: Permit, tx: Connection, work: _Work, page: str) -> SearchResult:
        asked = work.asked
        slips = Slips(permit, self._vault.keyring, "everything", _bound(permit, asked))
        size = min(asked.count or MAX_COUNT, MAX_COUNT)
        record = work.record()
        place = _place(slips, page) if page else _Place(0, 0, work.lead(record))
        here = [seq for seq in record if seq > place.seq and seq != place.lead] if place.phase == 0 else []
        if not page and place.lead:
            here.insert(0, place.lead)
        found, along, after = here[:size], list[int](), place.seq if place.phase else 0
        more = len(here) > size
        if not more:
            rest = [seq for seq in work.along(record) if seq > after]
            along = rest[: size - len(found)]
            more = len(rest) > len(along)
        following = ""
        if more:
            last = (along or [after]) if len(found) == len(here) else [seq for seq in found if seq != place.lead]
            end = _Place(int(len(found) == len(here)), last[-1] if last else 0, place.lead)
            following = slips.give(msgspec.msgpack.encode(end))
        permit.log.count(searched=1)
        opened = self._searches.opened(permit, tx, [*found, *along], Query((asked.kind,)))
        return SearchResult(
            len(record),
            tuple(opened[seq] for seq in found if seq in opened),
            tuple(opened[seq] for seq in along if seq in opened),
            following,
        )

    def _merged(self, permit: Permit, tx: Connection, first: dict[str, Any]) -> list[str]:
        """The patient, and those whose records it has taken over (``Patient.link`` of type ``replaces``)."""
        found = {str(first["id"]): first}
        todo = [first]
        while todo and len(found) < _MERGED:
            for key in _replaced(todo.pop()):
                if key not in found and self._readings.there(permit, tx, "Patient", key):
                    found[key] = self._readings.read(permit, tx, "Patient", key)
                    todo.append(found[key])
        return list(found)


class _Work:
    """One request: numbers of versions; nothing is opened here."""

    def __init__(self, compiler: Compiler, asked: Asked, ids: Sequence[str], first: dict[str, Any]) -> None:
        self._compiler, self.asked, self._ids, self._first = compiler, asked, ids, first
        compiler.prime((*compartment_types(asked.kind), *BESIDE[asked.kind], *ALONG))

    # -- the record -----------------------------------------------------------------------------------------------

    def record(self) -> list[int]:
        """What is in the compartment and meets what is asked, by seq."""
        build = Build(self._compiler.dialect)
        members = list(self._members(build))
        if not members:
            return []
        tests = every(("NOT v.deleted", *self._bounds(build)))
        sql = (
            f"SELECT DISTINCT v.seq FROM ({union(build, members)}) u CROSS JOIN resource_version v "
            f"WHERE v.seq = u.seq AND {tests} ORDER BY 1"
        )
        return [int(seq) for (seq,) in build.run(self._compiler.tx, sql)]

    def lead(self, record: Sequence[int]) -> int:
        """The one asked for, if it is among them, else 0."""
        build = Build(self._compiler.dialect)
        sql = self._named(build, self._compiler.kind(self.asked.kind), self._ids[:1])
        return min({int(seq) for (seq,) in build.run(self._compiler.tx, sql)} & set(record), default=0)

    def _members(self, build: Build) -> Iterator[str]:
        """One statement for each way that a type can be in the compartment."""
        asked = self.asked
        for name in (*compartment_types(asked.kind), *BESIDE[asked.kind]):
            kind = self._compiler.kind(name)
            if kind < 0 or (asked.types and name not in asked.types):
                continue
            if name == asked.kind:
                yield self._named(build, kind, self._ids)
            yield from self._pointing(build, name, kind)
            if asked.kind == "Patient":
                yield self._owned(build, kind)
            elif name in BESIDE[asked.kind]:
                yield self._named(build, kind, _patients(self._first))

    def _named(self, build: Build, kind: int, ids: Sequence[str]) -> str:
        scope = (node.holds(build, Row("r.seq", "r.id")) for node in self._compiler.scope(kind))
        told = every((f"r.kind = {build(kind)} AND NOT r.deleted", build.among("r.id", ids), *scope))
        return f"SELECT r.seq AS seq FROM resource r WHERE {told}"

    def _pointing(self, build: Build, name: str, kind: int) -> Iterator[str]:
        asked, compiler = self.asked, self._compiler
        codes = compartment_codes(asked.kind, name)
        uses = [use for code in codes for use in self._uses(name, code) if use.target in ("", asked.kind)]
        params = sorted(set(compiler.params(kind, [use.source for use in uses]).values()))
        if not params:
            return
        tests = every(
            (
                build.numbers("l.param", params),
                build.among("l.target", self._ids),
                f"l.type = {build(compiler.term(asked.kind))}",
                *(node.holds(build, Row("l.seq")) for node in compiler.scope(kind)),
            )
        )
        yield f"SELECT l.seq AS seq FROM ix_reference l WHERE {tests}"

    def _owned(self, build: Build, kind: int) -> str:
        compiler = self._compiler
        space = patients_of(compiler.permit.account)
        keys = [compiler.symbols.key(compiler.tx, space, key) for key in self._ids]
        scope = (node.holds(build, Row("o.seq")) for node in compiler.scope(kind))
        tests = every((build.within("o.owner", keys), f"o.kind = {build(kind)}", *scope))
        return f"SELECT o.seq AS seq FROM ix_owner o WHERE {tests}"

    @staticmethod
    def _uses(name: str, code: str) -> tuple[Use, ...]:
        found: SearchParameter | None = parameters(name).get(code)
        return found.uses if found is not None else ()

    def _bounds(self, build: Build) -> Iterator[str]:
        asked = self.asked
        if asked.since is not None:
            yield f"v.updated >= {build(asked.since)}"
        begun = f"d.low < {build(asked.end)}" if asked.end is not None else ""
        lasting = f"d.high > {build(asked.start)}" if asked.start is not None else ""
        for table, test in ((CARE_DATES, every((begun, lasting))), (STANDING, begun)):
            dates = self._dates(table) if test else []
            if dates:
                row = f"SELECT 1 FROM ix_date d WHERE d.seq = v.seq AND {build.numbers('d.param', dates)}"
                yield f"(NOT EXISTS ({row}{build.alone}) OR EXISTS ({row} AND {test}{build.alone}))"

    def _dates(self, table: Mapping[str, Sequence[str]]) -> list[int]:
        """Symbols of the sources of such dates."""
        found: set[int] = set()
        for name, codes in table.items():
            kind = self._compiler.kind(name)
            if kind >= 0:
                uses = [use for code in codes for use in self._uses(name, code)]
                sources = [source for use in uses for source in (use.source, *use.source.spans)]
                found.update(self._compiler.params(kind, sources).values())
        return sorted(found)

    # -- what comes along -----------------------------------------------------------------------------------------

    def along(self, record: Sequence[int]) -> list[int]:
        """What the record refers to and is not part of it, by seq."""
        wanted = [name for name in ALONG if not self.asked.types or name in self.asked.types]
        known = set(record)
        found: set[int] = set()
        fresh = list(record)
        for _ in range(_ROUNDS):
            more = {seq for name, ids in self._pointed(fresh).items() for seq in self._there(name, ids)}
            fresh = sorted(more - known - found)
            found.update(fresh)
            if not fresh:
                break
        return self._only(sorted(found), wanted)

    def _pointed(self, seqs: Sequence[int]) -> dict[str, list[str]]:
        terms = {self._compiler.term(name): name for name in ALONG}
        found: dict[str, dict[str, None]] = {}
        for start in range(0, len(seqs), _CHUNK):
            build = Build(self._compiler.dialect)
            told = every(
                (build.within("l.seq", seqs[start : start + _CHUNK]), build.numbers("l.type", sorted(terms)))
            )
            rows = build.run(self._compiler.tx, f"SELECT DISTINCT l.type, l.target FROM ix_reference l WHERE {told}")
            for term, key in rows:
                found.setdefault(terms[term], {})[str(key)] = None
        return {name: list(ids) for name, ids in found.items()}

    def _there(self, name: str, ids: Sequence[str]) -> Iterator[int]:
        kind = self._compiler.kind(name)
        for start in range(0, len(ids) if kind >= 0 else 0, _CHUNK):
            build = Build(self._compiler.dialect)
            sql = self._named(build, kind, ids[start : start + _CHUNK])
            yield from (int(seq) for (seq,) in build.run(self._compiler.tx, sql))

    def _only(self, seqs: list[int], wanted: Sequence[str]) -> list[int]:
        """Those of the types asked for: others were on the way to them."""
        if len(wanted) == len(ALONG) or not seqs:
            return seqs
        build = Build(self._compiler.dialect)
        symbols = [self._compiler.kind(name) for name in wanted] or [-1]
        told = every((build.within("v.seq", seqs), build.numbers("v.kind", symbols)))
        rows = build.run(self._compiler.tx, f"SELECT v.seq FROM resource_version v WHERE {told} ORDER BY 1")
        return [int(seq) for (seq,) in rows]


def _place(slips: Slips, page: str) -> _Place:
    try:
        return msgspec.msgpack.decode(slips.take(page), type=decodable(_Place))
    except (Invalid, msgspec.MsgspecError):
        raise Invalid(
            "store.page", "This is not a page of this request; take the next link of the page before it."
        ) from None


def _bound(permit: Permit, asked: Asked) -> bytes:
    told = (permit.account, permit.scope, asked.kind, asked.id, asked.types, asked.since, asked.start, asked.end)
    return sha256(msgspec.msgpack.encode(told)).digest()


def _replaced(patient: dict[str, Any]) -> list[str]:
    found = (target(one.get("other", {}).get("reference", "#")) for one in _links(patient, "replaces"))
    return [one[1] for one in found if one is not None and one[0] == "Patient"]


def _links(patient: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [one for one in patient.get("link", ()) if one.get("type") == kind]


def _patients(encounter: dict[str, Any]) -> list[str]:
    pointed = target(encounter.get("subject", {}).get("reference", "#"))
    return [pointed[1]] if pointed is not None and pointed[0] == "Patient" else []
