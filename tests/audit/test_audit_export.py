"""Exports: what an outsider is given, checked without any of our code, honest and tampered with in many ways."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from carelake.audit import merkle
from carelake.audit.evidence import Evidence
from carelake.audit.export import Exported, Exporter, Format
from carelake.audit.nouns import Nouns
from carelake.audit.readings import Filter
from carelake.core import canonical
from carelake.core.errors import Conflict, NotFound, Refused
from carelake.fhir.validate import validate
from carelake.vault.outside import export_folder


def people(count: int) -> list[str]:
    return [f"patient:{n:064x}" for n in range(count)]


def export(ward: Any, out: Path, format_: Format = "jsonl", wanted: Filter | None = None) -> Exported:
    exporter = Exporter(ward.vault, ward.trail.heads, ward.gate.sealing(), wanted or Filter())
    with export_folder(out) as folder:
        return exporter.write(folder, format_)


@pytest.fixture
def trail(ward: Any) -> Any:
    """Four segments: plain acts, one patient, sixty patients, a refusal."""
    ward.sealed(3)
    ward.act(1, people(1)[0])
    ward.seal()
    ward.act(2, *people(60))
    ward.seal()
    with (
        pytest.raises(Refused),
        ward.gate.enter(ward.who["auditor"], "record:search", "Patient", "TREAT", account="production"),
    ):
        pass
    ward.seal()
    return ward


def check(out: Path, *arguments: object) -> tuple[int, str]:
    command = [sys.executable, "-I", str(out / "verify.py"), str(out), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout.strip()


def test_the_verifier_is_short_and_needs_nothing_of_ours() -> None:
    import carelake.audit.verifier as module

    text = Path(module.__file__).read_text()
    assert len(text.splitlines()) < 200
    assert "import carelake" not in text
    assert "from carelake" not in text


def test_an_honest_export_is_intact(trail: Any, tmp_path: Path) -> None:
    told = export(trail, tmp_path / "x")
    assert (told.mode, told.segments, told.acts, told.unsealed) == ("whole", 4, 7, 0)
    code, said = check(tmp_path / "x")
    assert (code, said) == (0, "intact: 7 acts, 4 segments of workspace w1")
    head = tmp_path / "kept.head"
    head.write_bytes(trail.vault.read_head())
    pem = tmp_path / "kept.pem"
    pem.write_bytes(trail.vault.keyring.trail_public_key())
    assert check(tmp_path / "x", "--key", pem, "--head", head)[0] == 0


def test_a_chosen_export_has_proofs(trail: Any, tmp_path: Path) -> None:
    told = export(trail, tmp_path / "x", wanted=Filter(patient=people(1)[0]))
    assert (told.mode, told.segments, told.acts) == ("proofs", 4, 3)
    assert check(tmp_path / "x")[0] == 0
    acts = (tmp_path / "x" / "acts.jsonl").read_text().splitlines()
    one, two, three = acts
    for lines, name in (([two, three], "manifest.json"), ([two, one, three], "act 4"), ([*acts, three], "act 6")):
        (tmp_path / "x" / "acts.jsonl").write_text("\n".join(lines) + "\n")
        code, said = check(tmp_path / "x")
        assert code == 1
        assert name in said
    said = json.loads(acts[0])
    said["act"] = said["act"].replace("auditor", "nobody1")
    (tmp_path / "x" / "acts.jsonl").write_text(json.dumps(said) + "\n")
    assert check(tmp_path / "x") == (1, "NOT INTACT: act 4: its proof does not lead to its segment")


Lines = list[str]


def _resigned(lines: Lines) -> Lines:
    """The last header changed and signed by another key."""
    at = max(n for n, line in enumerate(lines) if '"root"' in line)
    lines[at] = lines[at].replace('"number":4', '"number":4,"x":1')
    key = ec.generate_private_key(ec.SECP256R1())
    lines[-1] = json.dumps({"signature": key.sign(lines[at].encode(), ec.ECDSA(hashes.SHA256())).hex()})
    return lines


def _segments(lines: Lines) -> list[Lines]:
    found: list[Lines] = []
    for line in lines:
        if '"root"' in line:
            found.append([])
        found[-1].append(line)
    return found


def _flat(parts: list[Lines]) -> Lines:
    return [line for part in parts for line in part]


TAMPERINGS: dict[str, tuple[Callable[[Lines], Lines], str]] = {
    "an edited act": (lambda f: [line.replace('"rows":3', '"rows":4') for line in f], "segment 1"),
    "an edited header": (lambda f: [f[0].replace('"acts":3', '"acts":3 '), *f[1:]], "segment 1"),
    "an act left out": (lambda f: [f[0], *f[2:]], "segment 1"),
    "an act twice": (lambda f: [f[0], f[1], *f[1:]], "segment 1"),
    "acts in another order": (lambda f: [f[0], f[2], f[1], *f[3:]], "segment 1"),
    "a segment dropped": (lambda f: _flat([p for n, p in enumerate(_segments(f)) if n != 1]), "segment 2"),
    "the first segment dropped": (lambda f: _flat(_segments(f)[1:]), "segment 1"),
    "the tail cut": (lambda f: _flat(_segments(f)[:-1]), "tail was cut off"),
    "segments swapped": (lambda f: _flat([_segments(f)[n] for n in (0, 2, 1, 3)]), "segment 2"),
    "a segment twice": (lambda f: _flat([_segments(f)[n] for n in (0, 1, 1, 2, 3)]), "segment 3"),
    "a forged signature": (_resigned, "segment 4: its signature is wrong"),
    "a signature of another segment": (lambda f: [*f[:-1], _segments(f)[0][-1]], "segment 4"),
    "half a line": (lambda f: [*f[:-1], f[-1][:20]], "NOT INTACT"),
    "nothing": (lambda f: [], "NOT INTACT"),
}


@pytest.mark.parametrize("how", TAMPERINGS)
def test_a_tampered_export_is_not_intact(trail: Any, tmp_path: Path, how: str) -> None:
    out, (change, named) = tmp_path / "x", TAMPERINGS[how]
    export(trail, out)
    path = out / "trail.jsonl"
    before = path.read_text().splitlines()
    after = change(list(before))
    assert after != before
    path.write_text("".join(line + "\n" for line in after))
    code, said = check(out)
    assert code == 1
    assert said.startswith("NOT INTACT")
    assert named in said


def test_whose_keys_and_which_end_only_an_outsider_can_say(trail: Any, tmp_path: Path) -> None:
    """Somebody holds our files and makes a shorter, or another, trail that is consistent in itself."""
    out = tmp_path / "x"
    old = trail.vault.read_head()
    trail.sealed(1)
    newest = tmp_path / "newest.head"
    newest.write_bytes(trail.vault.read_head())
    export(trail, out)
    path = out / "trail.jsonl"
    path.write_text("".join(f"{line}\n" for line in _flat(_segments(path.read_text().splitlines())[:-1])))
    (out / "head.json").write_bytes(old)
    manifest = json.loads((out / "manifest.json").read_text())
    (out / "manifest.json").write_text(json.dumps({**manifest, "segments": 4, "acts": 7}))
    assert check(out)[0] == 0, "with an old head, the cut trail is whole"
    code, said = check(out, "--head", newest)
    assert (code, "tail was cut off" in said) == (1, True)
    other = tmp_path / "other.pem"
    other.write_bytes(_public_pem(ec.generate_private_key(ec.SECP256R1())))
    code, said = check(out, "--key", other)
    assert (code, "not trusted" in said) == (1, True)


def _public_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, form)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("patients.jsonl", lambda text: text.replace("patient:", "patient;", 1)),
        ("patients.jsonl", lambda text: ""),
        ("patients.jsonl", lambda text: text + text.splitlines()[0] + "\n"),
        ("head.json", lambda text: text.replace('"number":4', '"number":3')),
        ("head.json", lambda text: "{}"),
        ("manifest.json", lambda text: text.replace('"acts": 7', '"acts": 8')),
        ("manifest.json", lambda text: text.replace('"w1"', '"w2"')),
        ("keys/trail-v1.pem", lambda text: _public_pem(ec.generate_private_key(ec.SECP256R1())).decode()),
        ("anchors.jsonl", lambda text: '{"number":1}\n'),
    ],
)
def test_the_files_beside_it_are_checked(trail: Any, tmp_path: Path, name: str, change: Callable[[str], str]) -> None:
    export(trail, tmp_path / "x")
    path = tmp_path / "x" / name
    path.write_text(change(path.read_text()))
    assert check(tmp_path / "x")[0] == 1


def test_an_export_is_there_whole_or_not_at_all(trail: Any, tmp_path: Path) -> None:
    def fail(done: int, total: int) -> None:
        raise ZeroDivisionError

    exporter = Exporter(trail.vault, trail.trail.heads, trail.gate.sealing(), Filter(), fail)
    with pytest.raises(ZeroDivisionError), export_folder(tmp_path / "x") as folder:
        exporter.write(folder, "jsonl")
    assert not list(tmp_path.glob("*x*"))
    (tmp_path / "x").mkdir()
    export(trail, tmp_path / "x")
    with pytest.raises(Conflict) as caught:
        export(trail, tmp_path / "x")
    assert caught.value.code == "vault.export_exists"


def test_nothing_sealed_is_no_export(ward: Any, tmp_path: Path) -> None:
    ward.act(1)
    with pytest.raises(Conflict):
        export(ward, tmp_path / "x")


# -- other people's formats ---------------------------------------------------------------------------------------

ACT = {
    "seq": 7,
    "correlation": "01" * 16,
    "phase": "done",
    "at": "2026-01-02T03:04:05.000Z",
    "principal": "doctor",
    "account": "production",
    "purpose": "TREAT",
    "action": "record:read",
    "target": "Observation",
    "policy": "9c" * 32,
    "reasons": ["doctor: treats"],
    "read": ["resource:" + "0a" * 32],
}


def wrong(line: bytes) -> list[Any]:
    """What our own validator says against it; that it has no BALP profile to check against is no fault."""
    return [issue for issue in validate(canonical.load(line)) if issue.severity in ("error", "fatal")]


def audit_events(**other: Any) -> list[dict[str, Any]]:
    from carelake.audit.auditevent import events

    made = list(events({**ACT, **other}, workspace="w1", segment=3))
    for event in made:
        assert wrong(canonical.dump(event)) == []
    return made


@pytest.mark.parametrize(
    ("action", "letter", "profile"),
    [
        ("record:read", "R", "Read"),
        ("record:search", "E", "Query"),
        ("record:create", "C", "Create"),
        ("record:update", "U", "Update"),
        ("record:delete", "D", "Delete"),
    ],
)
def test_audit_events_follow_balp(action: str, letter: str, profile: str) -> None:
    [plain] = audit_events(action=action)
    [patient] = audit_events(action=action, patients=people(1))
    base = "https://profiles.ihe.net/ITI/BALP/StructureDefinition/IHE.BasicAudit."
    assert (plain["action"], plain["outcome"], plain["meta"]["profile"]) == (letter, "0", [base + profile])
    assert patient["meta"]["profile"] == [base + "Patient" + profile]
    assert [one["type"]["code"] for one in patient["entity"]] == ["XrequestId", "2", "1"]
    assert {one["type"]["coding"][0]["code"] for one in plain["agent"]} >= {"110152", "110153"}
    assert len(audit_events(action=action, patients=people(3))) == 3, "one event per patient"
    [refused] = audit_events(action=action, phase="refused")
    assert refused["outcome"] == "8"
    assert "meta" not in refused


def test_every_act_becomes_a_valid_audit_event(trail: Any, tmp_path: Path) -> None:
    told = export(trail, tmp_path / "x", "auditevent")
    lines = (tmp_path / "x" / "AuditEvent.ndjson").read_bytes().splitlines()
    assert (told.acts, told.events) == (7, len(lines))
    for line in lines:
        assert wrong(line) == []


def test_every_act_becomes_an_ocsf_event(trail: Any, tmp_path: Path) -> None:
    export(trail, tmp_path / "x", "ocsf")
    events = [json.loads(line) for line in (tmp_path / "x" / "api_activity.jsonl").read_text().splitlines()]
    assert len(events) == 7
    required = {"activity_id", "actor", "api", "category_uid", "class_uid", "metadata", "severity_id", "src_endpoint"}
    for event in events:
        assert required | {"time", "type_uid"} <= set(event)
        assert (event["category_uid"], event["class_uid"]) == (6, 6003)
        assert event["type_uid"] == 600300 + event["activity_id"]
        assert event["metadata"]["product"]["name"] == "carelake"
    assert [event["metadata"]["sequence"] for event in events] == list(range(1, 8))
    assert (events[-1]["status_id"], events[-1]["severity_id"]) == (2, 3)
    assert events[3]["resources"][-1] == {"uid": people(1)[0], "type": "patient"}


# -- one act ------------------------------------------------------------------------------------------------------


def test_one_act_with_its_proof(trail: Any) -> None:
    evidence = Evidence(trail.vault, Nouns(trail.vault.clock), trail.gate.sealing())
    told = evidence.of("6")
    [row] = told["rows"]
    assert (row["sealed"], row["segment"], row["index"], len(row["patients"])) == (True, 3, 1, 60)
    header = json.loads(row["header"])
    path = [bytes.fromhex(step) for step in row["proof"]]
    assert merkle.included(row["line"].encode(), 1, header["acts"], path, bytes.fromhex(header["root"]))
    assert evidence.of(told["act"]) == told
    trail.act(1)
    assert evidence.of("8")["rows"][0]["sealed"] is False
    for wrong in ("9", "zz", "0" * 30):
        with pytest.raises(NotFound):
            evidence.of(wrong)


def test_the_copy_that_is_exported_is_the_one_of_the_package(trail: Any, tmp_path: Path) -> None:
    import carelake.audit.verifier as module

    export(trail, tmp_path / "x")
    assert (tmp_path / "x" / "verify.py").read_bytes() == Path(module.__file__).read_bytes()
    shutil.rmtree(tmp_path / "x")
