"""Clients that others wrote, unmodified, against a served workspace: fhirclient, fhirpy and npm's fhir-kit-client."""

from __future__ import annotations

import os
import shutil
import subprocess
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.apps.served import Lines, bearer, own_workspace, serving

CLIENTS = Path(__file__).parent / "clients"
LOINC = "http://loinc.org"


@dataclass(frozen=True)
class Served:
    base: str
    headers: dict[str, str]

    @property
    def token(self) -> str:
        return self.headers["Authorization"].removeprefix("Bearer ")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with own_workspace(tmp_path) as made, serving(made, Lines()) as url:
        yield Served(f"{url}/fhir", bearer(made, "operator"))


# --- fhirclient (the SMART project's) -----------------------------------------------------------------------------


def test_fhirclient(served: Served) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from fhirclient.models.bundle import Bundle
        from fhirclient.models.observation import Observation
        from fhirclient.models.patient import Patient
        from fhirclient.server import FHIRNotFoundException, FHIRServer

    server = FHIRServer(None, served.base)
    try:
        server.session.headers.update(served.headers)
        assert server.capabilityStatement.fhirVersion == "4.0.1"

        made = [Patient({"name": [{"family": "Client", "given": [given]}]}).create(server) for given in "ABC"]
        assert [one["meta"]["versionId"] for one in made] == ["1", "1", "1"]

        patient = Patient.read(made[0]["id"], server)
        patient.gender = "female"
        server.session.headers["If-Match"] = 'W/"1"'
        assert patient.update(server)["meta"]["versionId"] == "2"
        patient.gender = "male"
        with pytest.raises(Exception, match="412"):
            patient.update(server)
        del server.session.headers["If-Match"]
        assert Patient.read(made[0]["id"], server).gender == "female"

        search = Patient.where({"family": "Client", "_count": "2", "_sort": "given"})
        pages = list(search.perform_iter(server))
        assert [len(page.entry) for page in pages] == [2, 1]
        assert [one.name[0].given[0] for one in search.perform_resources_iter(server)] == ["A", "B", "C"]
        with pytest.raises(Exception, match="400"):
            list(Patient.where({"colour": "red"}).perform_iter(server))

        observation = Observation(
            {
                "status": "final",
                "code": {"coding": [{"system": LOINC, "code": "8867-4"}]},
                "subject": {"reference": f"Patient/{made[0]['id']}"},
                "valueQuantity": {"value": 72, "unit": "/min"},
            }
        )
        assert observation.create(server)["id"]
        (found,) = Observation.where({"patient": made[0]["id"], "code": "8867-4"}).perform_resources_iter(server)
        assert found.subject.resolved(Patient).name[0].given == ["A"]

        transaction = {
            "type": "transaction",
            "entry": [
                {
                    "request": {"method": "PUT", "url": f"Patient/{made[1]['id']}"},
                    "resource": {"resourceType": "Patient", "id": made[1]["id"], "active": True},
                },
                {"request": {"method": "DELETE", "url": f"Patient/{made[2]['id']}"}},
            ],
        }
        said = Bundle(transaction)
        answer = Bundle(server.post_json("", said.as_json()).json())
        assert [entry.response.status[:3] for entry in answer.entry] == ["200", "204"]

        history = Bundle(server.request_json(f"Patient/{made[0]['id']}/_history"))
        assert [entry.resource.meta.versionId for entry in history.entry] == ["2", "1"]
        everything = Bundle(server.request_json(f"Patient/{made[0]['id']}/$everything"))
        assert {entry.resource.resource_type for entry in everything.entry} == {"Patient", "Observation"}

        patient.delete(server)
        with pytest.raises(Exception, match="410"):
            Patient.read(made[0]["id"], server)
        with pytest.raises(FHIRNotFoundException):
            Patient.read("nobody", server)
    finally:
        server.session.close()


# --- fhirpy -------------------------------------------------------------------------------------------------------


def test_fhirpy(served: Served) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from fhirpy import SyncFHIRClient
        from fhirpy.base.exceptions import MultipleResourcesFound, OperationOutcome, ResourceNotFound

    client: Any = SyncFHIRClient(served.base, authorization=served.headers["Authorization"])

    # create, read, update with If-Match
    patient = client.resource("Patient", name=[{"family": "Py", "given": ["A"]}])
    patient.save()
    assert patient["meta"]["versionId"] == "1"
    assert client.get("Patient", patient.id)["name"][0]["family"] == "Py"
    patient["gender"] = "female"
    patient.save()
    assert patient["meta"]["versionId"] == "2"
    careful: Any = SyncFHIRClient(
        served.base, authorization=served.headers["Authorization"], extra_headers={"If-Match": 'W/"1"'}
    )
    stale = careful.resource("Patient", id=patient.id, gender="male")
    with pytest.raises(MultipleResourcesFound):  # fhirpy's name for every 412
        stale.save()
    patient.refresh()
    assert patient["gender"] == "female"
    assert patient.is_valid()
    assert not client.resource("Patient", gender="nonsense").is_valid()

    # patch: some fields, or values
    patient["birthDate"] = "1980-02-13"
    patient.save(fields=["birthDate"])
    assert client.get("Patient", patient.id)["birthDate"] == "1980-02-13"
    patched = client.patch("Patient", patient.id, active=True, gender=None)
    assert patched["active"] is True
    assert "gender" not in patched

    # conditional create, update, patch and delete
    def marked(**more: Any) -> Any:
        return client.resource("Patient", identifier=[{"system": "http://py", "value": "1"}], **more)

    once = client.resources("Patient").search(identifier="http://py|1")
    assert [once.get_or_create(marked())[1] for _ in range(2)] == [True, False]
    updated, created = once.update(marked(gender="other"))
    assert (updated["gender"], created) == ("other", False)
    assert once.patch(active=False)["active"] is False

    # search: pages, counts, includes
    for given in "BCDE":
        client.resource("Patient", name=[{"family": "Py", "given": [given]}]).save()
    search = client.resources("Patient").search(family="Py").sort("given")
    assert [one["name"][0]["given"][0] for one in search.limit(2)] == list("ABCDE")
    assert len(search.limit(2).fetch()) == 2
    assert len(search.fetch_all()) == 5
    assert search.count() == 5
    assert search.first()["name"][0]["given"] == ["A"]
    with pytest.raises(MultipleResourcesFound):
        search.get()
    with pytest.raises(OperationOutcome):
        client.resources("Patient").search(colour="red").fetch()
    observation = client.resource(
        "Observation",
        status="final",
        code={"coding": [{"system": LOINC, "code": "8867-4"}]},
        subject=patient.to_reference(),
    )
    observation.save()
    mixed = client.resources("Observation").search(patient=patient.id).include("Observation", "subject").fetch_raw()
    assert {entry["resource"]["resourceType"] for entry in mixed["entry"]} == {"Observation", "Patient"}
    assert observation["subject"].to_resource().id == patient.id

    # transaction, history, operations
    bundle = client.resource(
        "Bundle",
        type="transaction",
        entry=[
            {
                "fullUrl": "urn:uuid:9c1b6f40-6d2b-4b5c-9a10-3f6f4a5d0001",
                "request": {"method": "POST", "url": "Organization"},
                "resource": {"resourceType": "Organization", "name": "Clinic"},
            },
            {
                "request": {"method": "PATCH", "url": f"Patient/{patient.id}"},
                "resource": {
                    "resourceType": "Binary",
                    "contentType": "application/json-patch+json",
                    # [{"op": "add", "path": "/gender", "value": "female"}]
                    "data": "W3sib3AiOiAiYWRkIiwgInBhdGgiOiAiL2dlbmRlciIsICJ2YWx1ZSI6ICJmZW1hbGUifV0=",
                },
            },
        ],
    )
    bundle.save()
    assert [entry["response"]["status"][:3] for entry in bundle["entry"]] == ["201", "200"]
    history = client.execute(f"Patient/{patient.id}/_history", method="get")
    assert [entry["resource"]["meta"]["versionId"] for entry in history["entry"]] == ["5", "4", "3", "2", "1"]
    everything = patient.execute("$everything", method="get")
    assert len(everything["entry"]) == 2
    newest = client.resources("Observation").execute(
        "$lastn", method="get", params={"patient": patient.id, "code": "8867-4"}
    )
    assert newest["total"] == 1

    # delete
    observation.delete()
    with pytest.raises(ResourceNotFound):
        client.get("Observation", observation.id)
    once.delete()
    assert once.fetch() == []


# --- npm: fhir-kit-client -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with fhir-kit-client, installed by our lock file, whose hashes npm checks."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        pytest.skip("node and npm are not installed; fhir-kit-client runs on them")
    folder = tmp_path_factory.mktemp("kit")
    for one in CLIENTS.iterdir():
        shutil.copy(one, folder)
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"]
    made = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    if made.returncode:
        pytest.skip("npm could not install fhir-kit-client: no registry can be reached, and its cache lacks it")
    return folder


def test_fhir_kit_client(served: Served, kit: Path) -> None:
    environment = {**os.environ, "BASE": served.base, "TOKEN": served.token}
    command = [shutil.which("node") or "node", "journey.js"]
    said = subprocess.run(command, cwd=kit, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert (said.returncode, said.stdout.strip()) == (0, "done"), said.stderr
