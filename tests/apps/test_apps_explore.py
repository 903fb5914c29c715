"""The console: what it answers, whom it lets in, and what it looks like to a browser (a real Chromium)."""

from __future__ import annotations

import io
import re
import shutil
import time
from collections.abc import Callable, Iterator
from html import unescape
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.apps.asked import asked_workspace
from tests.apps.served import Lines, act_of, admit, bearer, fill, own_workspace, serving

from carelake.apps.http.console import charts
from carelake.apps.http.console.charts import Chart
from carelake.apps.http.console.turns import Turns
from carelake.apps.wiring import Workspace
from carelake.audit.readings import Acts
from carelake.core.errors import Invalid, Unavailable
from carelake.lake.cohorts import criteria
from carelake.lake.following.sync import sync
from carelake.lake.statements.questions import Questions

CANARY = "Zyxwvutsrq"
SCRIPT = "<script>alert(1)</script>"


def patient(key: str, sex: str, born: str) -> dict[str, Any]:
    return {"resourceType": "Patient", "id": key, "gender": sex, "birthDate": born, "name": [{"family": CANARY}]}


def condition(key: str, who: str, code: str, status: str = "confirmed") -> dict[str, Any]:
    system = "http://terminology.hl7.org/CodeSystem/condition-ver-status"
    return {
        "resourceType": "Condition",
        "id": key,
        "subject": {"reference": f"Patient/{who}"},
        "code": {"coding": [{"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": code}]},
        "verificationStatus": {"coding": [{"system": system, "code": status}]},
        "recordedDate": "2024-03-01",
    }


def observation(key: str, who: str, value: float) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "id": key,
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "4548-4"}]},
        "subject": {"reference": f"Patient/{who}"},
        "effectiveDateTime": "2024-05-01T10:00:00Z",
        "valueQuantity": {"value": value, "unit": "%"},
    }


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    with own_workspace(tmp_path_factory.mktemp("explore")) as made:
        admit(made, "person", doctor="clinician", boss="operator", eve="auditor", ann="analyst")
        fill(
            made,
            patient("a", "female", "1950-01-01"),
            patient("b", "male", "1960-01-01"),
            patient("c", "female", "2001-01-01"),
            condition("c1", "a", "E11.9"),
            condition("c2", "b", "E11.65"),
            condition("c3", "c", "E11.9", "refuted"),
            condition("c4", "c", "I10"),
            observation("o1", "a", 9.5),
            observation("o2", "b", 6.1),
            *(patient(f"p{n}", "female", "1940-01-01") for n in range(37)),
            *(condition(f"d{n}", f"p{n}", "J44.9") for n in range(25)),
        )
        caller = made.local("operator", None, None)
        with made.enter(caller, "lake:sync", "lake", job=True) as permit:
            sync(permit, made.vault, made.resources, made.nouns)
        yield made


@pytest.fixture
def visitor(address: str, token: Callable[..., dict[str, str]]) -> Iterator[Callable[[str], httpx.Client]]:
    """A client that entered as somebody."""
    opened = []

    def enter(name: str) -> httpx.Client:
        client = httpx.Client(base_url=address, timeout=20)
        opened.append(client)
        said = token(name, "HOPERAT" if name != "doctor" else "TREAT")["Authorization"].removeprefix("Bearer ")
        answer = client.post("/explore/enter", data={"token": said})
        assert answer.status_code == 303, answer.text
        return client

    yield enter
    for client in opened:
        client.close()


def asked(statement: str, **more: str) -> dict[str, str]:
    empty = dict.fromkeys(("as_of", "kind", "x", "y", "by", "page", "name", "id"), "")
    return {**empty, "statement": statement, **more}


def cells(page: str) -> list[str]:
    return [unescape(one) for one in re.findall(r"<td[^>]*>(.*?)</td>", page)]


# --- whom it lets in ----------------------------------------------------------------------------------------------


def test_who_has_no_token_sees_the_form_and_nothing_else(address: str) -> None:
    for method, path in (
        ("GET", ""),
        ("GET", "/sql"),
        ("GET", "/saved"),
        ("GET", "/tables/Patient"),
        ("POST", "/sql"),
    ):
        answer = httpx.request(method, f"{address}/explore{path}", timeout=20)
        assert answer.status_code == 401
        assert "access token" in answer.text


def test_a_wrong_token_begins_no_visit(address: str) -> None:
    answer = httpx.post(f"{address}/explore/enter", data={"token": "no"}, timeout=20)
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(
    address: str, token: Callable[..., dict[str, str]]
) -> None:
    said = token("boss", "HOPERAT")["Authorization"].removeprefix("Bearer ")
    answer = httpx.post(f"{address}/explore/enter", data={"token": said}, timeout=20)
    told = answer.headers["set-cookie"].lower()
    assert "httponly" in told
    assert "samesite=strict" in told
    assert "path=/explore" in told


def test_another_sites_form_is_refused(visitor: Callable[[str], httpx.Client]) -> None:
    boss = visitor("boss")
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        answer = boss.post("/explore/sql", data=asked("SELECT 1 AS n"), headers=headers)
        assert answer.status_code == 403
        assert "another site" in answer.text


def test_a_form_without_an_origin_says_its_site(visitor: Callable[[str], httpx.Client]) -> None:
    boss = visitor("boss")
    told = {"Origin": "null"}
    assert boss.post("/explore/sql", data=asked("SELECT 1 AS n"), headers=told).status_code == 403
    told["Sec-Fetch-Site"] = "same-origin"  # as browsers send it from a page that tells no referrer
    assert boss.post("/explore/sql", data=asked("SELECT 1 AS n"), headers=told).status_code == 200


def test_who_may_not_query_sees_nothing(address: str, token: Callable[..., dict[str, str]]) -> None:
    said = token("eve", "HOPERAT")["Authorization"].removeprefix("Bearer ")
    with httpx.Client(base_url=address, timeout=20) as eve:
        assert eve.post("/explore/enter", data={"token": said}).status_code == 303
        for answer in (eve.get("/explore"), eve.post("/explore/sql", data=asked("SELECT id FROM Patient"))):
            assert answer.status_code == 403
            assert "Patient" not in answer.text


def test_leaving_ends_the_visit(visitor: Callable[[str], httpx.Client]) -> None:
    boss = visitor("boss")
    assert boss.get("/explore").status_code == 200
    assert boss.post("/explore/leave").status_code == 303
    assert boss.get("/explore").status_code == 401


# --- what it answers ----------------------------------------------------------------------------------------------


def test_tables_and_columns(visitor: Callable[[str], httpx.Client]) -> None:
    boss = visitor("boss")
    page = boss.get("/explore").text
    assert "/explore/tables/Condition" in page
    assert "/explore/tables/conditions" in page
    columns = cells(boss.get("/explore/tables/Patient").text)
    assert "<code>birthDate</code>" in columns
    assert boss.get("/explore/tables/Nothing").status_code == 404


def test_rows_and_a_chart(visitor: Callable[[str], httpx.Client]) -> None:
    statement = "SELECT code, count(*) AS n FROM conditions GROUP BY code ORDER BY code"
    answer = visitor("boss").post("/explore/sql", data=asked(statement, kind="bar", x="code", y="n"))
    assert answer.status_code == 200
    assert cells(answer.text) == ["E11.65", "1", "E11.9", "2", "I10", "1", "J44.9", "25"]
    assert 'src="data:image/svg+xml;base64,' in answer.text
    assert "script-src" not in answer.headers["content-security-policy"]


def test_pages_of_many_rows(visitor: Callable[[str], httpx.Client]) -> None:
    statement = "SELECT n FROM (SELECT unnest(range(450)) AS n FROM Patient WHERE id = 'a') ORDER BY n"
    page = visitor("boss").post("/explore/sql", data=asked(statement, page="3")).text
    assert cells(page) == [str(n) for n in range(400, 450)]


def test_values_are_text_on_the_page(visitor: Callable[[str], httpx.Client]) -> None:
    answer = visitor("boss").post("/explore/sql", data=asked(f"SELECT '{SCRIPT}' AS said FROM Patient LIMIT 1"))
    assert answer.status_code == 200
    assert SCRIPT not in answer.text
    assert cells(answer.text) == [SCRIPT]


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("DROP TABLE Patient", "one SELECT"),
        (f"SELECT nothing FROM Patient WHERE id = '{CANARY}'", "refused the statement"),
        ("", "one SELECT"),
    ],
)
def test_what_is_wrong_is_said_and_the_statement_stays(
    visitor: Callable[[str], httpx.Client], statement: str, said: str
) -> None:
    answer = visitor("boss").post("/explore/sql", data=asked(statement))
    assert answer.status_code == 422
    assert said in answer.text
    assert unescape(answer.text.split("<textarea", 1)[1]).split(">", 1)[1].startswith(statement)


def test_a_chart_that_cannot_be_is_said_beside_the_rows(visitor: Callable[[str], httpx.Client]) -> None:
    answer = visitor("boss").post("/explore/sql", data=asked("SELECT id FROM Patient", kind="line", x="id", y="id"))
    assert answer.status_code == 200
    assert "holds no numbers" in answer.text
    assert "a" in cells(answer.text)


def test_files(visitor: Callable[[str], httpx.Client], tmp_path: Any) -> None:
    boss = visitor("boss")
    statement = "SELECT id, birthDate FROM Patient WHERE id IN ('a', 'b', 'c') ORDER BY id"
    csv = boss.post("/explore/sql/file", data=asked(statement, format="csv"))
    assert csv.content == b"id,birthDate\r\na,1950-01-01\r\nb,1960-01-01\r\nc,2001-01-01\r\n"
    assert csv.headers["content-disposition"] == 'attachment; filename="carelake.csv"'
    parquet = boss.post("/explore/sql/file", data=asked(statement, format="parquet"))
    (tmp_path / "f.parquet").write_bytes(parquet.content)
    assert pq.read_table(tmp_path / "f.parquet").column("id").to_pylist() == ["a", "b", "c"]
    count = "SELECT code, count(*) AS n FROM conditions GROUP BY code"
    png = boss.post("/explore/sql/file", data=asked(count, kind="bar", x="code", y="n", format="png"))
    assert png.content.startswith(b"\x89PNG")
    assert boss.post("/explore/sql/file", data=asked(statement, format="exe")).status_code == 406


def test_a_file_for_a_spreadsheet_holds_no_formula(visitor: Callable[[str], httpx.Client]) -> None:
    statement = "SELECT '=1+1' AS a, '-2' AS b, -2 AS c, NULL::VARCHAR AS d, 'x=1' AS e, '@x' AS \"+f\""
    boss = visitor("boss")
    csv = boss.post("/explore/sql/file", data=asked(statement, format="csv"))
    assert csv.content == b"a,b,c,d,e,'+f\r\n'=1+1,'-2,-2,,x=1,'@x\r\n"
    parquet = boss.post("/explore/sql/file", data=asked(statement, format="parquet"))
    assert pq.read_table(io.BytesIO(parquet.content))["a"].to_pylist() == ["=1+1"]


def test_files_have_every_column(visitor: Callable[[str], httpx.Client], tmp_path: Any) -> None:
    statement = "SELECT p.id, c.id FROM Patient p JOIN Condition c ON c.patient = p.id WHERE p.id = 'a'"
    csv = visitor("boss").post("/explore/sql/file", data=asked(statement, format="csv"))
    assert csv.content == b"id,id_1\r\na,c1\r\n"
    parquet = visitor("boss").post("/explore/sql/file", data=asked(statement, format="parquet"))
    (tmp_path / "f.parquet").write_bytes(parquet.content)
    assert pq.read_table(tmp_path / "f.parquet").to_pylist() == [{"id": "a", "id_1": "c1"}]


@pytest.mark.parametrize(
    ("value", "form"),
    [("DATE '20000-01-01'", "csv"), ("TIME_NS '10:00:00.123456789'", "csv"), ("INTERVAL 1 DAY", "parquet")],
)
def test_values_that_few_have_a_form_for(visitor: Callable[[str], httpx.Client], value: str, form: str) -> None:
    boss = visitor("boss")
    told = asked(f"SELECT {value} AS v FROM Patient LIMIT 1")
    assert boss.post("/explore/sql", data=told).status_code == 200
    file = boss.post("/explore/sql/file", data={**told, "format": form})
    assert file.status_code == 406
    assert "cannot hold" in file.text


@pytest.mark.parametrize("page", ["0", "-1", "x", "9" * 5000, "100000"])
def test_a_page_is_a_number(visitor: Callable[[str], httpx.Client], page: str) -> None:
    assert visitor("boss").post("/explore/sql", data=asked("SELECT 1 AS n", page=page)).status_code == 400


@pytest.mark.parametrize("kind", ["bar", "line", "scatter", "histogram"])
@pytest.mark.parametrize(
    ("x", "y"),
    [
        ("1.5", "'infinity'::DOUBLE"),
        ("'nan'::DOUBLE", "1"),
        ("DATE '9999-12-31'", "1"),
        ("{'a': 1}", "1"),
        ("chr(0)", "1"),
    ],
)
def test_what_no_chart_has_a_place_for_is_no_fault(
    visitor: Callable[[str], httpx.Client], kind: str, x: str, y: str
) -> None:
    statement = f"SELECT {x} AS x, {y} AS y, [1] AS b, 'Li 李 🙂' AS who FROM Patient LIMIT 5"
    for by in ("", "b", "who"):
        told = asked(statement, kind=kind, x="x", y="y", by=by)
        answer = visitor("boss").post("/explore/sql", data=told)
        assert answer.status_code == 200
        assert ("data:image/svg" in answer.text) != ('role="alert"' in answer.text)


def test_a_chart_has_so_many_words_and_no_more() -> None:
    table = pa.table({"x": [f"{n}" for n in range(20_000)], "y": range(20_000)})
    for kind in ("line", "bar"):
        with pytest.raises(Invalid, match="more"):
            charts.draw(table, Chart(kind, "x", "y"))


def test_an_act_tells_of_the_statement_and_its_rows(
    visitor: Callable[[str], httpx.Client], workspace: Workspace
) -> None:
    boss = visitor("boss")
    told = asked("SELECT id FROM Patient")
    answers = [boss.post("/explore/sql", data=told), boss.post("/explore/sql/file", data={**told, "format": "csv"})]
    acts = [act_of(workspace, one) for one in answers]
    assert [one["action"] for one in acts] == ["lake:query", "lake:export"]
    assert [one["counts"]["rows"] for one in acts] == [40, 40]
    assert len({one["changed"]["statement"] for one in acts}) == 1


def test_only_so_many_statements_run_at_once() -> None:
    turns = Turns(2, 0.01)
    with turns.of("ann", 1), pytest.raises(Unavailable, match="of your statements"), turns.of("ann", 1):
        pass
    with turns.of("ann", 4), turns.of("bob", 4), pytest.raises(Unavailable, match="Too many"), turns.of("eve", 4):
        pass
    with turns.of("ann", 1), turns.of("eve", 1):
        pass


@pytest.mark.slow
def test_a_statement_that_nobody_waits_for_ends(tmp_path: Any) -> None:
    with (
        asked_workspace(tmp_path, CARELAKE_SERVE__ANSWER_SECONDS="1", CARELAKE_LAKE__SECONDS="60") as made,
        serving(made, Lines()) as url,
        httpx.Client(base_url=url, timeout=20) as visitor,
    ):
        said = bearer(made, "operator", "HOPERAT")["Authorization"].removeprefix("Bearer ")
        # A busy machine may need longer for the first answer than a visitor here waits.
        assert any(visitor.post("/explore/enter", data={"token": said}).status_code == 303 for _ in range(10))
        endless = "SELECT count(*) FROM range(1000000000000) WHERE sin(range) > 2"
        assert visitor.post("/explore/sql", data=asked(endless)).status_code == 503
        until = time.monotonic() + 10
        while "lake.cancelled" not in trail(made):
            assert time.monotonic() < until
            time.sleep(0.1)


def trail(workspace: Workspace) -> str:
    with workspace.vault.database.ledger_reading() as connection:
        return str(Acts(connection).find(limit=1000))


def test_questions_are_ones_own(visitor: Callable[[str], httpx.Client], workspace: Workspace) -> None:
    boss, doctor = visitor("boss"), visitor("doctor")
    told = asked("SELECT 7 AS seven FROM Patient", name="Seven & more", kind="bar", x="seven", y="seven")
    assert boss.post("/explore/saved", data=told).status_code == 303
    page = boss.get("/explore/saved").text
    assert "Seven &amp; more" in page
    (name,) = re.findall(r"/explore/saved/([0-9a-f]{32})/delete", page)
    assert "SELECT 7 AS seven" in boss.get(f"/explore/sql?id={name}").text
    assert "Seven" not in doctor.get("/explore/saved").text
    assert doctor.get(f"/explore/sql?id={name}").status_code == 404
    assert boss.post("/explore/saved", data={**told, "id": name, "name": "Eight"}).status_code == 303
    assert "Seven" not in boss.get("/explore/saved").text
    (name,) = re.findall(r"/explore/saved/([0-9a-f]{32})/delete", boss.get("/explore/saved").text)
    assert boss.post(f"/explore/saved/{name}/delete").status_code == 303
    assert "None yet" in boss.get("/explore/saved").text
    with workspace.vault.database.ledger_reading() as connection:
        assert "Seven" not in str(Acts(connection).find(limit=1000))


def test_an_erasure_takes_questions_that_name_the_patient(workspace: Workspace) -> None:
    from carelake.lake.statements.questions import Question, forget

    questions = Questions(workspace.vault)
    caller = workspace.local("operator", None, None)
    with workspace.enter(caller, "lake:keep", "lake") as permit:
        named = (
            "subject = 'Patient/gone-1'", "id = 'gone-1'", "id = $$gone-1$$", "id LIKE '%gone-1%'", "true -- gone-1",
            "/* gone-1",
        )  # fmt: skip
        others = ("id = 'gone-10'", "id = 'other'")
        for text in (*named, *others):
            questions.save(permit, Question("q", f"SELECT 1 FROM Patient WHERE {text}"))
        questions.save(permit, Question("about gone-1", "SELECT 1 FROM Patient"))
        assert forget(workspace.vault, permit, frozenset({"gone-1"})) == {"questions": len(named) + 1}
        left = sorted(one.statement.partition("WHERE ")[2] for one in questions.all(permit).values())
        assert left == list(others)


def rows(*said: dict[str, str]) -> dict[str, list[str]]:
    empty = dict.fromkeys(("kind", "code", "comparator", "value", "since", "until"), "")
    whole = [{**empty, "without": "with", **one} for one in (*said, {})]
    return {name: [one[name] for one in whole] for name in whole[0]}


def test_who_sees_counts_alone_gets_rounded_ones(visitor: Callable[[str], httpx.Client]) -> None:
    ann = visitor("ann")
    page = ann.get("/explore").text
    assert "/explore/tables/Patient" in page
    assert "<code>name</code>" not in cells(ann.get("/explore/tables/Patient").text)
    answer = ann.post("/explore/cohorts", data=rows({"kind": "condition", "code": "J44.9"}))
    assert answer.status_code == 200, answer.text
    attrition = cells(answer.text.split('id="attrition"', 1)[1])
    assert attrition[3::4] == ["33", "22"]  # of 40 people, 25 of whom have it
    assert "multiples of 11" in answer.text
    assert "Show who they are" not in answer.text
    rare = ann.post("/explore/cohorts", data=rows({"kind": "condition", "code": "I10"}))
    assert cells(rare.text.split('id="attrition"', 1)[1])[3::4] == ["33", "0"]  # one person's
    assert ann.post("/explore/sql", data=asked("SELECT id FROM Patient")).status_code == 422


@pytest.mark.parametrize("kind", ["medication", "procedure", "encounter", "observation", "sex", "age"])
def test_who_sees_counts_alone_may_count_by_every_kind(visitor: Callable[[str], httpx.Client], kind: str) -> None:
    about = {"age": {"comparator": ">", "value": "1"}, "observation": {"code": "1", "comparator": ">", "value": "1"}}
    row = {"kind": kind, **about.get(kind, {"code": "x"})}
    assert visitor("ann").post("/explore/cohorts", data=rows(row)).status_code == 200


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "1 OR 1=1", [1]])
def test_the_value_of_a_criterion_is_a_number(value: Any) -> None:
    with pytest.raises(Invalid):
        criteria([{"kind": "observation", "code": "1", "comparator": ">", "value": value}])


def test_a_cohort_and_its_attrition(visitor: Callable[[str], httpx.Client]) -> None:
    answer = visitor("boss").post(
        "/explore/cohorts",
        data=rows(
            {"kind": "condition", "code": "E11*", "since": "2024-01-01"},
            {"kind": "age", "comparator": ">=", "value": "60"},
            {"kind": "observation", "code": "4548-4", "comparator": ">", "value": "9", "without": "without"},
        ),
    )
    assert answer.status_code == 200, answer.text
    attrition = cells(answer.text.split('id="attrition"', 1)[1])
    assert attrition[2::4] == ["0", "38", "0", "1"]
    assert attrition[3::4] == ["40", "2", "2", "1"]
    statement = unescape(re.search(r'name="statement" value="([^"]*)"', answer.text)[1])  # type: ignore[index]
    assert cells(visitor("boss").post("/explore/sql", data=asked(statement)).text) == ["b"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "condition", "code": "x' OR 1=1 --"},
        {"kind": "condition"},
        {"kind": "age", "value": "1"},
        {"kind": "age", "comparator": ">", "value": "x"},
        {"kind": "sex", "code": "female", "since": "2024-01-01"},
        {"kind": "observation", "code": "1", "since": "2024-02-01", "until": "2024-01-01"},
        {"kind": "name", "code": "x"},
    ],
)
def test_a_criterion_that_cannot_be_is_said(visitor: Callable[[str], httpx.Client], wrong: dict[str, str]) -> None:
    answer = visitor("boss").post("/explore/cohorts", data=rows(wrong))
    assert answer.status_code == 422
    assert 'role="alert"' in answer.text


def test_nothing_asked_is_in_the_log(visitor: Callable[[str], httpx.Client], log: Lines) -> None:
    visitor("boss").post("/explore/sql", data=asked(f"SELECT '{CANARY}' AS a FROM Patient WHERE x = '{CANARY}'"))
    assert any(line.get("route") == "/explore/sql" for line in log.said)
    assert CANARY not in str(log.said)


# --- as a browser sees it -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("Chromium is not installed; `make test` installs it where it can")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        yield made
        made.close()


@pytest.mark.slow
def test_a_visit_in_a_browser(browser: Any, address: str, token: Callable[..., dict[str, str]]) -> None:
    said = token("boss", "HOPERAT")["Authorization"].removeprefix("Bearer ")
    context = browser.new_context(accept_downloads=True)
    page = context.new_page()
    complaints: list[str] = []
    page.on(
        "console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None
    )
    page.goto(f"{address}/explore/enter")
    page.fill("#token", said)
    page.click("text=Enter >> nth=-1")
    page.wait_for_selector("h1:has-text('Tables')")
    assert page.evaluate("document.cookie") == ""

    page.click("a:has-text('conditions')")
    page.click("text=Ask about it")
    page.fill("#statement", "SELECT code, count(*) AS n FROM conditions GROUP BY code ORDER BY code")
    page.select_option("#kind", "bar")
    page.fill("#x", "code")
    page.fill("#y", "n")
    page.click("button:has-text('Run')")
    page.wait_for_selector("img")
    shown = page.locator("img").evaluate("image => [image.complete, image.naturalWidth]")
    assert shown[0]
    assert shown[1] > 300
    assert page.locator("tbody tr").count() == 4
    with page.expect_download() as coming:
        page.click("button:has-text('CSV')")
    assert coming.value.suggested_filename == "carelake.csv"

    page.fill("#name", "Diagnoses")
    page.click("button:has-text('Save')")
    page.wait_for_selector("a:has-text('Diagnoses')")
    page.click("a:has-text('Diagnoses')")
    assert page.input_value("#kind") == "bar"

    page.click("a:has-text('Cohorts')")
    first = page.locator("fieldset").first
    first.locator("select[name=kind]").select_option("condition")
    first.locator("input[name=code]").fill("E11*")
    page.click("button:has-text('Count')")
    page.wait_for_selector("#attrition")
    assert page.locator("img").first.evaluate("image => image.naturalWidth") > 300
    page.click("button:has-text('Show who they are')")
    page.wait_for_selector("h2:has-text('2 rows')")
    assert complaints == []
    context.close()
