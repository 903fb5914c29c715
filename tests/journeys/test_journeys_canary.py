"""A planted name is found by grep in no file, no file name, no log, no metric, no act and no message.

One made-up patient among synthetic ones carries words that stand nowhere else. The whole loop runs over them, with
errors and refusals on the way; then every byte that was written is searched, in each form the words might have.
"""

from __future__ import annotations

import base64
import gzip
import json
import random
import signal
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

FAMILY, GIVEN = "Zqxwvyre", "Kjhqpeth"
MRN, PHONE, STREET = "7730142998", "555-014-2998", "Vbnqxtle"
NOTE, KEY, FILE = "fnordblatt", "qxkey-77301", "Wqzzxvil"
WORDS = (FAMILY, GIVEN, MRN, PHONE, STREET, NOTE, KEY, FILE)


@dataclass(frozen=True)
class Planted:
    """What ran over the canary.

    Attributes:
        home: the workspace, its keys, temporary files and the captured output of every command.
        card: the model's card.
        patient: the id of the patient who carries it.
        messages: stderr of every command, and what the server said to callers who are not entitled.
        metrics: of the server, after all requests.
    """

    home: Any
    card: Path
    patient: str
    predictions: Any
    messages: list[str]
    metrics: str


def plant(source: Path, out: Path) -> str:
    """Give the words to the patient with the most stays, and to what is about them; the id of that patient."""
    rows = [json.loads(line) for path in sorted(source.glob("*.ndjson")) for line in path.read_text().splitlines()]
    stays = [
        r["subject"]["reference"] for r in rows if r["resourceType"] == "Encounter" and r["class"]["code"] == "IMP"
    ]
    old = max(sorted(set(stays)), key=stays.count).partition("/")[2]
    text = "\n".join(json.dumps(row) for row in rows)
    rows = [json.loads(line) for line in text.replace(old, KEY).split("\n")]
    for row in rows:
        if row["resourceType"] == "Patient" and row["id"] == KEY:
            row["name"] = [{"family": FAMILY, "given": [GIVEN]}]
            row["identifier"][0]["value"] = MRN
            row["telecom"] = [{"system": "phone", "value": PHONE}]
            row["address"][0]["line"] = [f"1 {STREET} Street"]
        elif f"Patient/{KEY}" == row.get("subject", {}).get("reference"):
            words = f"{GIVEN} {FAMILY}, MRN {MRN}, {PHONE}: {NOTE}."
            if row["resourceType"] == "DocumentReference":
                row["content"][0]["attachment"]["data"] = base64.b64encode(words.encode()).decode()
            elif row["resourceType"] == "Observation":
                row["note"] = [{"text": words}]
    bad = [
        f'{{"resourceType":"Patient","id":"{KEY}-2","name":"{FAMILY}"}}',
        f'{{"resourceType":"Patient","id":"{FAMILY} {GIVEN}"}}',
        f'{{"resourceType":"{FAMILY}","id":"x"}}',
        f'{{"resourceType":"Patient","{FAMILY}":"{NOTE}"}}',
        f'{{"resourceType":"Patient","birthDate":"{FAMILY}"}}',
        f'{{"resourceType":"Patient","gender":"{NOTE}",',
        f"{FAMILY} {MRN} {PHONE}",
    ]
    out.mkdir()
    lines = [*map(json.dumps, rows), *bad]
    (out / f"{FILE}_{FAMILY}.ndjson").write_text("\n".join(lines))
    (out / f"{FAMILY}.json").write_text(
        '{"resourceType":"Bundle","type":"transaction","entry":[' + json.dumps(rows[0])
    )
    (out / f"{GIVEN}.ndjson.gz").write_bytes(gzip.compress("\n".join(lines).encode())[:3000])
    return KEY


@pytest.fixture(scope="module")
def planted(loop: Any, once: Any) -> Planted:
    folder = once("canary", lambda folder: run_all(loop.home.copy(folder / "copy"), folder))
    told = json.loads((folder / "told.json").read_text())
    return Planted(type(loop.home)(folder / "copy"), folder / "card.html", **told)


def run_all(home: Any, folder: Path) -> None:
    """Everything, over sources that lie outside: they are the one place that may hold the words."""
    outside = folder / "outside"
    home.json("synth", "--patients", "60", "--seed", "23", "--out", outside / "made")
    patient = plant(outside / "made" / "fhir", outside / FAMILY)
    messages: list[str] = []

    def run(*arguments: str | Path, expect: int | None = None) -> Any:
        done = home.run(*arguments, expect=expect)
        messages.append(done.err)
        return done

    told = run("ingest", outside / FAMILY, "--json", expect=0).json
    assert told["quarantined"] >= 7
    run("ingest", outside / f"{FAMILY}-missing", "--json", expect=2)
    made = run("run", "readmission", "--new", "--json", expect=0).json
    predictions = [run("predict", "readmission", "--patient", patient, "--json", expect=0).json]
    predictions += run("predict", "readmission", "--days", "20", "--json", expect=0).json
    run("monitor", "check", "readmission", "--json", expect=0)
    run("lineage", predictions[0]["ref"], "--json", expect=0)
    run("model", "card", made["model_version"], "--out", folder / "card.html", expect=0)
    wrong(run)
    lake_errors(home, messages)
    metrics = over_http(home, patient, messages)
    run("audit", "verify", "--json", expect=0)
    said = {"patient": patient, "predictions": predictions, "messages": messages, "metrics": metrics}
    (folder / "told.json").write_text(json.dumps(said))


def wrong(run: Any) -> None:
    """Commands that end in errors, with the words in them where people put them by mistake."""
    run("search", f"Patient?family={FAMILY}&colour=red", "--json", expect=2)
    run("search", f"Patient?birthdate={FAMILY}", "--json", expect=2)
    run("search", f"{FAMILY}?name={GIVEN}", "--json", expect=2)
    run("search", f"Patient?family={FAMILY}", "--as", "reviewer", "--json", expect=3)
    run("read", f"Patient/{KEY}-none", "--json", expect=4)
    run("read", f"{FAMILY}/{KEY}", "--json")
    run("predict", "readmission", "--patient", f"{KEY}-none", "--json", expect=4)
    run("predict", FAMILY, "--patient", KEY, "--json", expect=4)
    run("lineage", f"prediction:{FAMILY}", "--json")
    run("model", "show", f"model:{FAMILY}", "--json")
    run("search", "Patient", "--as", FAMILY, "--json", expect=3)


def lake_errors(home: Any, messages: list[str]) -> None:
    """SQL that fails on values: DuckDB's own messages quote them."""
    from carelake.core.errors import CarelakeError
    from carelake.lake import query

    with home.opened() as workspace:
        caller = workspace.local(None, None, None)
        for text in (
            f"SELECT CAST(id AS INTEGER) FROM patients WHERE id = '{KEY}'",
            f"SELECT {FAMILY} FROM patients",
            f"SELECT CAST('{FAMILY}' AS DATE) FROM patients",
            f"SELECT error('{FAMILY}') FROM patients",
            f"COPY patients TO '{home.folder}/{FAMILY}.csv'",
        ):
            with workspace.enter(caller, "lake:query", "lake") as permit:
                snapshot = query.snapshot_of(permit, workspace.vault, workspace.nouns)
                with pytest.raises(CarelakeError) as raised:
                    query.sql(permit, workspace.vault, snapshot, text)
            messages.append(f"{raised.value.code} {raised.value.message} {raised.value.facts}")


def over_http(home: Any, patient: str, messages: list[str]) -> str:
    """Requests with the words in their addresses, headers and bodies; the metrics afterwards."""
    home.json("principal", "add", "dr-who", "--role", "clinician")
    token = home.json("token", "--as", "dr-who", "--purpose", "TREAT")["token"]
    running, url = home.serve()

    def ask(
        path: str, body: Any = None, *, leave: str | None = token, headers: Any = None, raw: bytes | None = None
    ) -> int:
        said = {"Content-Type": "application/json", **(headers or {})}
        if leave:
            said["Authorization"] = f"Bearer {leave}"
        data = raw if raw is not None else None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url + path, data=data, headers=said)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                answer.read()
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                messages.append(error.read().decode())
            return error.code

    assert ask(f"/fhir/Patient?family={FAMILY}") == 200
    assert ask(f"/fhir/Patient/{patient}") == 200
    assert ask("/predict/readmission", {"patient": patient}) == 200
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert ask("/fhir/Patient/_search", headers=form, raw=f"identifier={MRN}".encode()) == 200
    assert ask(f"/fhir/Observation?subject:Patient.family={FAMILY}&_count=1") == 200
    assert ask(f"/fhir/Patient?_has:Observation:patient:code:text={FAMILY}&_count=1") == 200
    assert ask(f"/fhir/Patient/{patient}/*?_count=1") == 200
    assert ask("/fhir/_search", headers=form, raw=f"_type=Patient&_id={patient}&_count=1".encode()) == 200
    assert ask(f"/fhir/Patient/{FAMILY}_{MRN}/Observation") == 404
    assert ask(f"/fhir/Observation?subject:Patient.birthdate={FAMILY}") == 400
    assert ask(f"/fhir/Patient?family={FAMILY}&_page={NOTE}") == 400
    assert ask(f"/fhir/Patient?family={FAMILY}", leave=None) == 401
    assert ask(f"/fhir/Patient?family={FAMILY}", leave=f"{FAMILY}.{MRN}.{NOTE}") == 401
    assert ask(f"/fhir/Patient?birthdate={FAMILY}") == 400
    assert ask(f"/fhir/{FAMILY}?name={GIVEN}") == 404
    assert ask(f"/fhir/Patient/{KEY}-none") == 404
    assert ask(f"/fhir/Patient/{urllib.parse.quote(FAMILY + ' ' + GIVEN)}") == 404
    assert ask(f"/{FAMILY}/{MRN}?{NOTE}={PHONE}") == 404
    assert ask(f"/predict/{FAMILY}", {"patient": patient}) == 404
    assert ask("/predict/readmission", {"patient": f"{KEY}-none"}) == 404
    assert ask("/predict/readmission", {FAMILY: MRN}) == 400
    assert ask("/predict/readmission", raw=f'{{"patient": {FAMILY}'.encode()) == 400
    assert (
        ask("/healthz", headers={"User-Agent": FAMILY, "X-Request-Id": MRN, "Referer": f"http://x/{FAMILY}"}) == 200
    )
    ask(f"/fhir/Patient?name=%ff{FAMILY}")
    ask("/fhir/Patient?" + "&".join(f"name={FAMILY}{n}" for n in range(1500)))
    with urllib.request.urlopen(url + "/metrics", timeout=30) as answer:
        metrics: str = answer.read().decode()
    running.kill(signal.SIGTERM)
    done = running.wait(30.0)
    assert done.code == 0
    assert '"route"' in done.err
    messages.append(done.err)
    return metrics


def forms(word: str) -> set[bytes]:
    """A word as it may stand in a file: plain, in other letters, encodings, and in base64 at each offset."""
    found = {form.encode() for form in (word, word.lower(), word.upper(), urllib.parse.quote(word))}
    found |= {word.encode("utf-16-le"), word.encode("utf-16-be"), word.encode().hex().encode(), word.encode()[::-1]}
    for shift in range(3):
        whole = base64.b64encode(b"\0" * shift + word.encode())
        # The letters that the word alone decides: all but the first and last few. Fewer would be found by chance.
        found.add(whole[-(-8 * shift // 6) : 8 * (shift + len(word)) // 6])
    return found


def test_the_forms_are_found_where_they_are() -> None:
    """The search itself can find: otherwise the next tests would prove nothing."""
    rng = random.Random(1)
    for word in WORDS:
        for shift in range(3):
            text = base64.b64encode(b"x" * shift + word.encode() + rng.randbytes(9))
            assert any(form in text for form in forms(word)), (word, shift)
        assert any(form in json.dumps({"a": word}).encode() for form in forms(word))


def test_the_loop_ran_over_it(planted: Planted) -> None:
    """The one who may see it does: it went in, and came out with its prediction."""
    bundle = planted.home.json("search", f"Patient?family={FAMILY}")
    assert [entry["resource"]["id"] for entry in bundle["entry"]] == [planted.patient]
    assert NOTE in json.dumps(planted.home.json("search", f"Observation?subject=Patient/{planted.patient}&_count=5"))
    assert planted.predictions[0]["patient"] == planted.patient
    sources = [one["source"] for one in planted.home.json("quarantine", "list")]
    assert any(FILE in source for source in sources)


def test_no_file_holds_it(planted: Planted) -> None:
    """Workspace, keys, temporary files and home; not the captured answers of those who may see it."""
    wanted = {form: word for word in WORDS for form in forms(word)}
    places = [planted.home.workspace, planted.home.keys, planted.home.temporary, planted.home.folder / "home"]
    seen = 0
    for path in (path for place in places for path in place.rglob("*") if path.is_file()):
        content = path.read_bytes()
        seen += len(content)
        found = {word for form, word in wanted.items() if form in content}
        assert not found, (path, found)
    assert seen > 50 << 20, "there was hardly anything to search"


def test_no_file_name_holds_it(planted: Planted) -> None:
    wanted = {form for word in WORDS for form in forms(word)}
    names = [bytes(path.relative_to(planted.home.folder)) for path in planted.home.folder.rglob("*")]
    assert not [name for name in names if any(form in name for form in wanted)]


def test_what_was_left_in_temporary_places_is_nothing(planted: Planted) -> None:
    assert not list(planted.home.temporary.rglob("*"))


def test_no_message_no_log_and_no_metric_holds_it(planted: Planted) -> None:
    for text in (*planted.messages, planted.metrics):
        found = {word for word in WORDS if word.lower() in text.lower()}
        assert not found, (text[-2000:], found)


def test_no_act_holds_it(planted: Planted) -> None:
    acts = planted.home.json("audit", "list", "--limit", "100000")
    assert len(acts) > 50
    for act in acts:
        text = json.dumps(act).lower()
        assert not [word for word in WORDS if word.lower() in text], act


def test_no_noun_and_no_event_holds_it(planted: Planted) -> None:
    text = json.dumps(planted.home.json("nouns")).lower()
    with planted.home.opened() as workspace, workspace.vault.database.ledger_reading() as connection:
        tables = [
            name for (name,) in connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'table'")
        ]
        outbox = [name for name in tables if "outbox" in name or "event" in name]
        assert outbox
        for name in outbox:
            text += repr(connection.exec_driver_sql(f"SELECT * FROM {name}").all()).lower()
    assert not [word for word in WORDS if word.lower() in text]


def test_the_card_holds_no_patient(planted: Planted) -> None:
    card = planted.card.read_text()
    assert not [word for word in WORDS if word in card]
