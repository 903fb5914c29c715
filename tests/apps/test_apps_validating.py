"""``$validate`` over a real server on loopback, `carelake validate` on files, and what a write is asked."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from tests.apps.served import act_of, admit, bearer, fill, outcome, own_workspace, wrong

from carelake.apps.cli import validating
from carelake.apps.cli.session import Options
from carelake.apps.wiring import Workspace
from carelake.core.errors import CarelakeError, Invalid, NotFound
from carelake.core.settings import ValidationSettings

CANARY = "Zyxwvutsrq"
US_CORE = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-patient"
PATIENT: dict[str, Any] = {"resourceType": "Patient", "id": "p", "name": [{"family": CANARY}]}
BAD: dict[str, Any] = {**PATIENT, "gender": CANARY, "managingOrganization": {"reference": "Device/1"}}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    with own_workspace(tmp_path_factory.mktemp("validating")) as made:
        admit(made, "person", doctor="clinician", inspector="auditor")
        fill(made, {**PATIENT, "birthDate": "2020"})
        yield made


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, timeout=20) as made:
        yield made


@pytest.fixture
def ask(client: httpx.Client, workspace: Workspace) -> Callable[..., httpx.Response]:
    def request(path: str, body: Any = None, method: str = "POST", who: str = "doctor") -> httpx.Response:
        headers = bearer(workspace, who)
        if method == "GET":
            return client.get(path, headers=headers)
        content = body if isinstance(body, bytes) else json.dumps(body, indent=1).encode()
        return client.post(path, content=content, headers={**headers, "Content-Type": "application/fhir+json"})

    return request


Ask = Callable[..., httpx.Response]


def told(answer: httpx.Response) -> list[tuple[str, list[str], int]]:
    """Severity, expression and line of each issue."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == "application/fhir+json; charset=utf-8"
    assert CANARY not in answer.text
    issues = answer.json()["issue"]
    return [
        (i["severity"], i.get("expression", []), i.get("extension", [{"valueInteger": 0}])[0]["valueInteger"])
        for i in issues
    ]


def test_a_good_resource(ask: Ask, workspace: Workspace) -> None:
    answer = ask("/fhir/Patient/$validate", PATIENT)
    assert told(answer) == [("information", [], 0)]
    act = act_of(workspace, answer)
    assert (act["action"], act["phase"], act["counts"]) == ("record:validate", "done", {"issues": 0})


def test_a_bad_one_has_places_and_lines(ask: Ask) -> None:
    assert told(ask("/fhir/Patient/$validate", BAD)) == [("error", ["Patient.gender"], 9)]
    wrong = {**BAD, "gender": "male"}
    assert told(ask("/fhir/Patient/$validate", wrong)) == [("error", ["Patient.managingOrganization"], 10)]
    assert told(ask("/fhir/Patient/$validate", b'{"resourceType": "Patient",\n')) == [("fatal", [], 1)]
    double = b'{"resourceType": "Patient",\n "gender": "male",\n "gender": "male"}'
    assert told(ask("/fhir/Patient/$validate", double)) == [("error", ["Patient.gender"], 3)]
    assert told(ask("/fhir/Observation/$validate", PATIENT)) == [("error", ["Patient"], 1)]


def parameters(resource: Any, **more: Any) -> dict[str, Any]:
    listed = [{"name": name, **value} for name, value in more.items()]
    return {"resourceType": "Parameters", "parameter": [*listed, {"name": "resource", "resource": resource}]}


def test_parameters(ask: Ask) -> None:
    mode, profile = {"valueCode": "create"}, {"valueUri": US_CORE}
    assert told(ask("/fhir/Patient/$validate", parameters(PATIENT, mode=mode))) == [("information", [], 0)]
    found = told(ask("/fhir/Patient/$validate", parameters(PATIENT, mode=mode, profile=profile)))
    assert ("error", ["Patient.identifier"], 14) in found
    same = told(ask(f"/fhir/Patient/$validate?profile={US_CORE}", PATIENT))
    assert [issue[:2] for issue in found] == [issue[:2] for issue in same]
    assert ("error", ["Patient.gender"], 18) in told(ask("/fhir/Patient/$validate", parameters(BAD, mode=mode)))
    body = parameters(PATIENT, unheard={"valueCode": "x"})
    assert wrong(ask("/fhir/Patient/$validate", body))[1] == "http.parameters"
    assert ask("/fhir/Patient/$validate", parameters(PATIENT, mode={"valueUri": "x"})).status_code == 400
    assert told(ask("/fhir/Parameters/$validate", {"resourceType": "Parameters"})) == [("information", [], 0)]
    only = {"resourceType": "Parameters", "parameter": "x"}
    assert told(ask("/fhir/Patient/$validate", only)) == [("error", ["Parameters"], 1)]


def test_of_one_resource(ask: Ask) -> None:
    assert told(ask("/fhir/Patient/p/$validate", method="GET")) == [("information", [], 0)]
    found = told(ask(f"/fhir/Patient/p/$validate?profile={US_CORE}&mode=update", method="GET"))
    assert ("error", ["Patient.gender"], 0) in found
    assert told(ask("/fhir/Patient/p/$validate", PATIENT)) == [("information", [], 0)]
    assert told(ask("/fhir/Patient/other/$validate", PATIENT)) == [("error", ["Patient.id"], 3)]
    assert ask("/fhir/Patient/nobody/$validate", method="GET").status_code == 404
    gone = {"resourceType": "Parameters", "parameter": [{"name": "mode", "valueCode": "delete"}]}
    assert told(ask("/fhir/Patient/p/$validate", gone)) == [("information", [], 0)]
    assert told(ask("/fhir/Patient/nobody/$validate", gone)) == [("error", ["Patient"], 0)]


def test_the_definition_of_a_type_is_a_profile_too(ask: Ask) -> None:
    core = "http://hl7.org/fhir/StructureDefinition/"
    for kind in ("Patient", "Patient|4.0.1", "DomainResource", "Resource"):
        assert told(ask(f"/fhir/Patient/$validate?profile={core}{kind}", PATIENT)) == [("information", [], 0)]
    claiming = {**PATIENT, "meta": {"profile": [f"{core}Patient"]}}
    assert told(ask("/fhir/Patient/$validate", claiming)) == [("information", [], 0)]
    other = told(ask(f"/fhir/Patient/$validate?profile={core}Observation", PATIENT))
    assert [issue[:2] for issue in other] == [("error", ["Patient"])]
    for unknown in ("Starship", "Patient|3.0.2"):
        outcome(ask(f"/fhir/Patient/$validate?profile={core}{unknown}", PATIENT), 400, "http.profile")


def test_what_cannot_be_asked(ask: Ask, client: httpx.Client) -> None:
    unknown = ask("/fhir/Patient/$validate?profile=http://profiles.test/x", PATIENT)
    outcome(unknown, 400, "http.profile")
    assert ask("/fhir/Patient/$validate?mode=guess", PATIENT).status_code == 400
    assert ask("/fhir/Patient/$validate?colour=red", PATIENT).status_code == 400
    assert ask("/fhir/Starship/$validate", PATIENT).status_code == 404
    assert client.post("/fhir/Patient/$validate", json=PATIENT).status_code == 401
    assert ask("/fhir/Patient/$validate", PATIENT, who="inspector").status_code == 403
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/fhir/{type}/$validate", "/fhir/{type}/{id}/$validate"} <= paths.keys()


# --- writes -------------------------------------------------------------------------------------------------------


@pytest.fixture
def writing(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def write(resource: dict[str, Any], **settings: str) -> None:
        told = msgspec.convert(settings, ValidationSettings)
        monkeypatch.setattr(workspace.vault, "settings", msgspec.structs.replace(workspace.settings, validation=told))
        fill(workspace, resource, action="record:write")

    return write


def test_levels_of_writing(writing: Callable[..., None]) -> None:
    rule = {**PATIENT, "id": "w", "contact": [{"gender": "male"}]}
    with pytest.raises(Invalid, match="pat-1") as refused:
        writing(rule)
    assert refused.value.facts == {"reason": "invariant", "expression": "Patient.contact[0]"}
    writing(rule, write="structure")
    with pytest.raises(Invalid, match="no element"):
        writing({**rule, "nickname": "x"}, write="structure")
    writing({**rule, "nickname": "x"}, write="minimal")
    with pytest.raises(Invalid):
        writing({**rule, "id": "not an id"}, write="minimal")


def test_references_by_setting(writing: Callable[..., None]) -> None:
    seen: dict[str, Any] = {"resourceType": "Observation", "id": "o", "status": "final", "code": {"text": "x"}}
    lost, there = {"subject": {"reference": "Patient/lost"}}, {"subject": {"reference": "Patient/p/_history/1"}}
    writing({**seen, **lost})
    for level in ("strict", "structure"):
        with pytest.raises(Invalid, match="no such resource") as refused:
            writing({**seen, **lost}, references="on", write=level)
        assert refused.value.facts["expression"] == "Observation.subject.reference"
    writing({**seen, **there}, references="on")
    with pytest.raises(msgspec.ValidationError):
        writing(seen, references="maybe")


# --- files --------------------------------------------------------------------------------------------------------


def files(capsys: pytest.CaptureFixture[str], *paths: Path, **options: Any) -> tuple[int, dict[str, Any]]:
    given = {"profile": None, "package": [], "level": "strict", "limit": 100, **options}
    code = validating.validate(Options(), json_out=True, paths=list(paths), **given)
    return code, json.loads(capsys.readouterr().out)


def test_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "good.json").write_text(json.dumps(PATIENT))
    (tmp_path / "bad.json").write_text(json.dumps(BAD, indent=1))
    lines = f"{json.dumps(PATIENT)}\n\n{json.dumps(BAD)}\n{{\n"
    (tmp_path / "many.ndjson.gz").write_bytes(gzip.compress(lines.encode()))
    (tmp_path / "notes.txt").write_text("no resource")
    code, found = files(capsys, tmp_path / "good.json")
    assert (code, found["resources"], found["issues"]) == (0, 1, [])
    code, found = files(capsys, tmp_path)
    assert (code, found["files"], found["resources"], found["invalid"]) == (2, 3, 5, 3)
    assert found["counts"] == {"fatal": 1, "error": 2, "warning": 0, "information": 0}
    assert found["complete"] is True
    places = [(Path(i["file"]).name, i["line"], i["expression"]) for i in found["issues"]]
    assert places == [
        ("bad.json", 9, "Patient.gender"),
        ("many.ndjson.gz", 3, "Patient.gender"),
        ("many.ndjson.gz", 4, ""),
    ]
    code, found = files(capsys, tmp_path, limit=1)
    assert (code, len(found["issues"]), found["complete"], found["invalid"]) == (2, 1, False, 3)
    assert files(capsys, tmp_path / "bad.json", level="minimal")[0] == 0


def test_files_and_profiles(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "p.json").write_text(json.dumps(PATIENT))
    code, found = files(capsys, tmp_path, profile=US_CORE)
    assert (code, found["invalid"]) == (2, 1)
    url = "http://profiles.test/born"
    rows = [
        {"id": "Patient", "path": "Patient", "min": 0, "max": "*"},
        {"id": "Patient.birthDate", "path": "Patient.birthDate", "min": 1, "max": "1", "type": [{"code": "date"}]},
    ]
    made = {"resourceType": "StructureDefinition", "url": url, "type": "Patient", "kind": "resource"}
    made |= {"derivation": "constraint", "snapshot": {"element": rows}}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        info = tarfile.TarInfo("package/StructureDefinition-born.json")
        info.size = len(json.dumps(made))
        archive.addfile(info, io.BytesIO(json.dumps(made).encode()))
    (tmp_path / "born.tgz").write_bytes(out.getvalue())
    code, found = files(capsys, tmp_path, profile=url, package=[tmp_path / "born.tgz"])
    assert [i["expression"] for i in found["issues"]] == ["Patient.birthDate"]
    with pytest.raises(NotFound, match="not loaded"):
        files(capsys, tmp_path, profile=url)


def test_files_that_cannot_be_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "p.json").write_text(json.dumps(PATIENT))
    (tmp_path / "x").mkdir()
    wrong: list[tuple[list[Path], dict[str, Any]]] = [
        ([tmp_path / "nothing.json"], {}),
        ([tmp_path / "x"], {}),
        ([tmp_path / "p.json"], {"level": "thorough"}),
        ([tmp_path / "p.json"], {"level": "minimal", "profile": US_CORE}),
        ([tmp_path / "p.json"], {"profile": US_CORE.replace("patient", "encounter")}),
        ([tmp_path / "p.json"], {"package": [tmp_path / "p.json"]}),
    ]
    for paths, options in wrong:
        with pytest.raises(CarelakeError):
            files(capsys, *paths, **options)


def test_a_file_that_cannot_be_read_does_not_cost_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = f"{json.dumps(PATIENT)}\n{json.dumps(PATIENT)}\n".encode()
    (tmp_path / "cut.ndjson.gz").write_bytes(gzip.compress(lines)[:-4])
    (tmp_path / "fake.json.gz").write_bytes(b"{}")
    (tmp_path / "long.json").write_bytes(b" " * 2000)
    (tmp_path / "z.json").write_text(json.dumps(PATIENT))
    monkeypatch.setattr(validating, "_MAX_BYTES", 1000)
    code, found = files(capsys, tmp_path)
    assert (code, found["files"], found["invalid"]) == (2, 4, 3)
    told = {(Path(one["file"]).name, one["line"], one["severity"]) for one in found["issues"]}
    assert told == {("cut.ndjson.gz", 3, "fatal"), ("fake.json.gz", 1, "fatal"), ("long.json", 1, "fatal")}


def test_names_of_files_are_escaped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in (b"bad\xff.json", b"esc\x1b[31m\n.json", "é.json".encode()):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_text(json.dumps(BAD))
    code, found = files(capsys, tmp_path)
    assert code == 2
    names = [one["file"].rpartition("/")[2] for one in found["issues"]]
    assert sorted(names) == ["bad\\udcff.json", "esc\\x1b[31m\\n.json", "é.json"]


def test_a_reader_that_went_away_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text(json.dumps(BAD))
    start = [sys.executable, "-c", "from carelake.apps.cli.main import main; main()"]
    command = [*start, "validate", str(tmp_path / "bad.json")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        said = process.stderr.read().decode()
    assert process.returncode == 2
    assert said == "1 resources in 1 files: 1 invalid.\n"


def test_nothing_is_read_for_who_may_not_ask(client: httpx.Client) -> None:
    """A body is looked into behind the gate: what is wrong with it is not told to strangers."""
    body = {"resourceType": "Parameters", "parameter": [{"name": "resource"}, {"name": "other"}]}
    stranger = {"Authorization": "Bearer x"}
    assert client.post("/fhir/Patient/$validate", json=body, headers=stranger).status_code == 401


def test_the_command(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text(json.dumps(BAD, indent=1))
    start = [sys.executable, "-c", "from carelake.apps.cli.main import main; main()"]
    command = [*start, "validate", str(tmp_path / "bad.json")]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert found.returncode == 2
    assert "bad.json:9:2: error: Patient.gender: The code is not one" in found.stdout
    assert "1 resources in 1 files: 1 invalid." in found.stderr
