"""A workspace whose lake has made-up patients and observations, for tests of who asks it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from tests.apps.served import admit, fill, known, own_workspace

from carelake.access.identity import Caller
from carelake.apps.asking import bring_up
from carelake.apps.wiring import Workspace

SECRET = "Zzyzxabcd"
PATIENTS, EACH = 20, 3


def patient(number: int) -> dict[str, Any]:
    name = [{"family": f"{SECRET}{number}", "given": ["Ann"]}]
    return {
        "resourceType": "Patient",
        "id": f"p{number}",
        "gender": "female",
        "birthDate": "1950-03-01",
        "name": name,
    }


def observation(owner: int, number: int) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "id": f"o{owner}-{number}",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "718-7"}]},
        "subject": {"reference": f"Patient/p{owner}"},
        "effectiveDateTime": f"2024-03-{number + 1:02}T10:00:00Z",
        "valueQuantity": {"value": 7.5 + number, "unit": "g/dL"},
    }


def operator(workspace: Workspace) -> Caller:
    return Caller(known(workspace, "operator"), "HOPERAT", "production")


def filled(workspace: Workspace) -> Workspace:
    """Patients and observations in the record, and in the lake."""
    fill(workspace, *map(patient, range(PATIENTS)))
    fill(workspace, *(observation(owner, number) for owner in range(PATIENTS) for number in range(EACH)))
    admit(workspace, "person", doctor="clinician")
    bring_up(workspace, operator(workspace))
    return workspace


@contextmanager
def asked_workspace(folder: Path, **told: str) -> Iterator[Workspace]:
    """A workspace that is `filled`, opened with settings."""
    with own_workspace(folder) as made:
        filled(made)
        root = made.vault.root
    made = Workspace.open(root, {"CARELAKE_KEY_DIR": str(folder / "keys"), **told})
    with closing(made):
        yield made
