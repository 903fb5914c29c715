"""A small hospital with canaries in whatever some permit may not see."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
from sqlalchemy import insert

from carelake.access.consents import resolved
from carelake.access.tables import access_consent_rule
from carelake.apps.wiring import import_tables
from carelake.audit.nouns import Nouns
from carelake.core import canonical
from carelake.core.clock import FixedClock, instant
from carelake.core.errors import CarelakeError
from carelake.core.ids import RandomIds
from carelake.core.permit import Permit, mint
from carelake.core.settings import LakeSettings, Settings
from carelake.lake import query
from carelake.lake.following import sync
from carelake.store.feed import Change
from carelake.vault.workspace import Vault

__all__ = ["CANARIES", "PATIENTS", "RARE", "RARE_CODES", "WITHHELD", "Place", "places"]

LOINC, SNOMED = "http://loinc.org", "http://snomed.info/sct"
WITHHELD = frozenset({"p05", "p17"})
RARE = ("p03", "p04")
CANARIES = ("Q7canary", "Zz9other")
"""Of two states that differ in them alone."""
RARE_CODES = {"Q7canary": "91861009", "Zz9other": "363346000"}
PATIENTS = 30


class Silent:
    """An `ActLog` that forgets."""

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: None

    ended = False


class Feed:
    """A change feed over a list, with the methods of `store.Resources` that the lake follows."""

    def __init__(self) -> None:
        self.entries: list[Change] = []

    def put(self, resource: dict[str, Any], owner: str) -> None:
        seq = len(self.entries) + 1
        named = (seq, resource["resourceType"], resource["id"], 1, False, owner, "2025-01-01T00:00:00.000Z")
        self.entries.append(Change(*named, canonical.dump(resource), f"resource:{seq}", 0))

    def changes(self, permit: Permit, after: int, limit: int) -> Sequence[Change]:
        return self.entries[after : after + limit]

    def lag(self, permit: Permit, account: str, after: int) -> tuple[int, int | None]:
        waiting = self.entries[after:]
        oldest = int(instant(waiting[0].last_updated).timestamp() * 1_000_000) if waiting else None
        return len(self.entries), oldest

    def last_seq(self, permit: Permit) -> int:
        return len(self.entries)


Where = Callable[[str, str], bool]
"""Whether a canary stands in an element, ``TYPE.ELEMENT``, of what is about a patient ("" for nobody)."""


def everywhere(element: str, name: str) -> bool:
    return True


def fill(feed: Feed, canary: str, where: Where = everywhere, more: int = 0) -> None:
    """Put patients and what is about them into a feed; a canary stands where it is said, and elsewhere ``x``.

    Args:
        more: so many more observations of each who withholds the record.
    """

    def word(element: str, name: str) -> str:
        return canary if where(element, name) else "x"

    for n in range(PATIENTS):
        name = f"p{n:02d}"
        feed.put(patient(name, n, word), owner=name)
        feed.put(encounter(name, n, word), owner=name)
        rare = name in RARE and where("Condition.rare", name)
        code = RARE_CODES[canary] if rare else ("38341003", "44054006")[n % 2]
        feed.put(condition(name, "a", code, n, word), owner=name)
        feed.put(condition(name, "b", "195662009", n, word), owner=name)
        for m in range(3):
            feed.put(observation(name, m, n, word), owner=name)
    for name in sorted(WITHHELD):
        for m in range(more):
            one = observation(name, m % 3, 0, word)
            feed.put({**one, "id": f"o-{name}-more-{m}"}, owner=name)
    feed.put({"resourceType": "Organization", "id": "org1", "name": word("Organization.name", "")}, owner="")


Word = Callable[[str, str], str]


def patient(name: str, n: int, word: Word) -> dict[str, Any]:
    called, kept = word("Patient.name", name), word("Patient.telecom", name)
    return {
        "resourceType": "Patient",
        "id": name,
        "identifier": [{"system": "urn:mrn", "value": f"{called}-{n}"}],
        "name": [{"family": called, "given": [called]}],
        "telecom": [{"system": "phone", "value": kept}],
        "gender": "male" if n % 3 else "female",
        "birthDate": f"{1930 + 2 * n}-0{1 + n % 9}-15",
        "address": [{"line": [called], "city": called, "state": "MA", "postalCode": f"0213{n % 10}"}],
        "text": {"status": "generated", "div": f"<div xmlns='http://www.w3.org/1999/xhtml'>{kept}</div>"},
        "extension": [
            {
                "url": "http://hl7.org/fhir/us/core/StructureDefinition/us-core-race",
                "extension": [
                    {"url": "ombCategory", "valueCoding": {"system": kept, "code": "2106-3", "display": kept}},
                    {"url": "text", "valueString": kept},
                ],
            },
            {"url": "http://example.org/secret", "valueString": kept},
        ],
    }


def encounter(name: str, n: int, word: Word) -> dict[str, Any]:
    said = word("Encounter.class.display", name)
    return {
        "resourceType": "Encounter",
        "id": f"e-{name}",
        "status": "finished",
        "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "AMB", "display": said},
        "subject": {"reference": f"Patient/{name}", "display": said},
        "period": {"start": f"2024-0{1 + n % 9}-10T08:00:00+02:00", "end": f"2024-0{1 + n % 9}-12T09:30:00+02:00"},
    }


def condition(name: str, which: str, code: str, n: int, word: Word) -> dict[str, Any]:
    said = word("Condition.code.display", name)
    return {
        "resourceType": "Condition",
        "id": f"c-{name}-{which}",
        "clinicalStatus": {
            "coding": [{"system": "http://terminology.hl7.org/CodeSystem/condition-clinical", "code": "active"}]
        },
        "code": {"coding": [{"system": SNOMED, "code": code, "display": said}], "text": said},
        "subject": {"reference": f"Patient/{name}"},
        "encounter": {"reference": f"Encounter/e-{name}"},
        "onsetDateTime": f"2024-0{1 + n % 9}-11",
        "note": [{"text": word("Condition.note", name)}],
    }


def observation(name: str, m: int, n: int, word: Word) -> dict[str, Any]:
    said = word("Observation.code.display", name)
    return {
        "resourceType": "Observation",
        "id": f"o-{name}-{m}",
        "status": "final",
        "code": {"coding": [{"system": LOINC, "code": ("4548-4", "8480-6", "2339-0")[m], "display": said}]},
        "subject": {"reference": f"Patient/{name}"},
        "encounter": {"reference": f"Encounter/e-{name}"},
        "effectiveDateTime": f"2024-0{1 + n % 9}-11T10:00:00Z",
        "valueQuantity": {"value": 5 + n % 3, "unit": said, "system": "http://unitsofmeasure.org", "code": "%"},
        "note": [{"text": word("Observation.note", name)}],
    }


class Place:
    """A lake with that hospital, and permits for it."""

    def __init__(self, vault: Vault, clock: FixedClock, canary: str, where: Where, more: int = 0) -> None:
        self.vault, self.clock = vault, clock
        feed, nouns = Feed(), Nouns(clock)
        fill(feed, canary, where, more)
        with vault.database.ledger() as tx:
            tx.execute(insert(access_consent_rule), [_denial(one) for one in sorted(WITHHELD)])
        sync.sync(self.permit(), vault, feed, nouns)
        self.snapshot = query.snapshot_of(self.permit(), vault, nouns)

    def consented(self, *scope: str, purpose: str = "TREAT") -> Permit:
        """A permit with the predicate of consents, as the gate makes it."""
        told = resolved(self.vault.settings.access.consent, (*scope, "consent"), purpose, ())
        return self.permit(*told, purpose=purpose)

    def permit(self, *scope: str, purpose: str = "HRESCH", action: str = "lake:query") -> Permit:
        return mint(
            act="a" * 32,
            principal="tester",
            account="production",
            purpose=purpose,
            action=action,
            target="lake",
            grants=("clinical:read", "lake:read", "lake:write", "rows:read", "rows:write"),
            scope=scope,
            expires=self.clock.now() + timedelta(hours=1),
            log=Silent(),
        )

    def sql(self, permit: Permit, text: str) -> pa.Table:
        return query.sql(permit, self.vault, self.snapshot, text)

    def told(self, permit: Permit, text: str) -> str:
        """The answer as text, or the error."""
        try:
            found = self.sql(permit, text)
        except CarelakeError as error:
            return f"{error.code} {error.message}"
        return json.dumps([found.schema.to_string(), found.to_pylist()], default=str)


def _denial(patient: str) -> dict[str, Any]:
    """A consent of a patient's that denies everything to everybody."""
    told = {"account": "production", "consent": f"of-{patient}", "node": 0, "part": 0, "parent": -1, "owner": 0}
    words = {"purpose": "", "mode": "", "actor": "", "kind": "", "low": -(1 << 62), "high": 1 << 62}
    return {**told, **words, "patient": patient, "denies": True}


@contextmanager
def places(
    folder: Path, *canaries: str, where: Where = everywhere, more: Sequence[int] = ()
) -> Iterator[list[Place]]:
    """Workspaces with the same keys, which differ in canaries alone; and in ``more`` of each, see `fill`."""
    clock = FixedClock(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    # One thread: with more, the order of what is not ordered depends on which of them is first.
    settings = Settings(workspace="w1", lake=LakeSettings(threads=1))
    import_tables()
    Vault.create(folder / "ws", settings=settings, key_dir=folder / "keys", clock=clock, ids=RandomIds()).close()
    with ExitStack() as stack:
        made = []
        for n, canary in enumerate(canaries):
            shutil.copytree(folder / "ws", folder / f"ws{n}")
            vault = Vault.open(
                folder / f"ws{n}", settings=settings, key_dir=folder / "keys", clock=clock, ids=RandomIds()
            )
            made.append(Place(stack.enter_context(vault), clock, canary, where, more[n] if more else 0))
        yield made
