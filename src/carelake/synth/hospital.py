"""The house itself: organisation, places and staff. The same in every run, so that runs can share a store."""

from __future__ import annotations

from carelake.core.ids import derived_uuid
from carelake.synth import resources
from carelake.synth.tables import People

__all__ = ["EMERGENCY", "INTENSIVE", "ORGANIZATION", "WARD", "lines", "staff"]

ORGANIZATION = derived_uuid("synth", "organization", "hospital")
EMERGENCY = derived_uuid("synth", "location", "emergency")
INTENSIVE = derived_uuid("synth", "location", "intensive")
WARD = derived_uuid("synth", "location", "ward")


def staff(people: People) -> list[tuple[str, str, str]]:
    """(id, given name, family name) of each practitioner."""
    return [(derived_uuid("synth", "practitioner", *name), *name) for name in people.practitioners]


def lines(people: People) -> list[str]:
    """The resources of the house, one JSON line each."""
    house = resources.organization(
        ORGANIZATION, "St. Carelake Medical Center", people.towns[0], f"{people.area_codes[0]}-555-0100"
    )
    places = [
        resources.location(EMERGENCY, "Emergency room", "ER", ORGANIZATION),
        resources.location(INTENSIVE, "Intensive care unit", "ICU", ORGANIZATION),
        resources.location(WARD, "Hospital unit", "HU", ORGANIZATION),
    ]
    return [house, *places, *(resources.practitioner(*member) for member in staff(people))]
