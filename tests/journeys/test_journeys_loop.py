"""From raw bytes to a proven prediction, through the command line: what each command prints, and the way back."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

REF = 64
METRICS = ("auroc", "auprc", "brier", "calibration_slope", "calibration_intercept")


@pytest.fixture(scope="module")
def home(loop: Any, tmp_path_factory: Any) -> Iterator[Any]:
    """A copy of the workspace that went through the loop, for commands that add to it."""
    made = loop.home.copy(tmp_path_factory.mktemp("loop") / "copy")
    yield made
    made.remove()


def is_ref(text: Any, kind: str) -> bool:
    name, _, digest = str(text).partition(":")
    return name == kind and len(digest) == REF and set(digest) <= set("0123456789abcdef")


# -- what commands print ---------------------------------------------------------------------------------------------


def test_init_tells_where_the_key_is_and_that_is_not_the_workspace(loop: Any) -> None:
    told = loop.told["init"]
    keys = Path(told["keys"])
    assert (keys / f"{told['id']}.key").stat().st_mode & 0o777 == 0o600
    assert not keys.is_relative_to(told["workspace"])


def test_ingest_prints_the_fixed_shape_and_counts_every_resource(loop: Any) -> None:
    told, made = loop.told["ingest"], loop.told["synth"]
    assert {"read", "stored", "unchanged", "quarantined", "seconds", "landings"} <= told.keys()
    for name in ("read", "stored", "unchanged", "quarantined"):
        assert type(told[name]) is int, name
    assert isinstance(told["seconds"], float)
    assert all(is_ref(one, "landing") for one in told["landings"])
    assert len(set(told["landings"])) == len(made["files"])
    assert told["read"] == told["stored"] == made["resources"]
    assert (told["unchanged"], told["quarantined"]) == (0, 0)


def test_a_second_ingest_stores_nothing(loop: Any) -> None:
    told, first = loop.told["again"], loop.told["ingest"]
    assert told["read"] == told["unchanged"] == first["read"]
    assert (told["stored"], told["quarantined"]) == (0, 0)
    assert told["landings"] == first["landings"]


def test_run_prints_the_fixed_shape_and_figures_that_can_be(loop: Any) -> None:
    told = loop.told["run"]
    assert {"training_set", "model_version", "metrics", "endpoint"} <= told.keys()
    assert is_ref(told["training_set"], "trainingset")
    assert is_ref(told["model_version"], "model")
    assert is_ref(told["endpoint"], "endpoint")
    metrics = told["metrics"]
    assert {*METRICS, "n", "events", "baselines"} <= metrics.keys()
    assert all(isinstance(metrics[name], float) for name in METRICS)
    assert type(metrics["n"]) is int
    assert type(metrics["events"]) is int
    assert 100 <= metrics["events"] < metrics["n"]
    assert 0.6 < metrics["auroc"] < 0.95
    assert metrics["auprc"] > metrics["events"] / metrics["n"]
    assert {"logistic", "lace", "hospital"} <= metrics["baselines"].keys()
    for figures in metrics["baselines"].values():
        assert 0.5 < figures["auroc"] < 0.95


def test_the_same_record_gives_the_same_training_set_and_model(loop: Any) -> None:
    first, second = loop.told["run"], loop.told["rerun"]
    assert second["run"] != first["run"]
    for name in ("training_set", "model_version", "endpoint", "metrics", "attrition"):
        assert second[name] == first[name], name


def test_the_morning_list_is_ordered_and_says_why(loop: Any) -> None:
    answers = loop.told["list"]
    assert len(answers) > 5
    risks = [one["probability"] for one in answers]
    assert risks == sorted(risks, reverse=True)
    assert len({one["ref"] for one in answers}) == len(answers)
    for one in answers:
        assert is_ref(one["ref"], "prediction")
        assert one["model"] == loop.told["run"]["model_version"]
        assert one["endpoint"] == loop.told["run"]["endpoint"]
        assert one["flagged"] == (one["probability"] >= round(one["threshold"], 4)) or one["band"] != "low"
        assert one["reasons"]


def test_with_too_few_patients_it_says_so_and_prints_no_figure(small: Any, place: Path) -> None:
    home = small.read.copy(place)
    done = home.run("run", "readmission", "--json", expect=0)
    told = done.json
    assert is_ref(told["training_set"], "trainingset")
    assert told["model_version"] is None
    assert told["endpoint"] is None
    assert [told["metrics"][name] for name in METRICS] == [None] * len(METRICS)
    assert all(figures[name] is None for figures in told["metrics"]["baselines"].values() for name in METRICS)
    assert told["metrics"]["n"] > 0
    assert "at least" in told["metrics"]["reason"]
    assert told["stopped"] == told["metrics"]["reason"]
    assert home.run("predict", "readmission", "--days", "9", "--json", expect=4).out == ""
    spoken = home.run("run", "readmission", expect=0)
    assert told["metrics"]["reason"] in " ".join(spoken.err.split())
    assert not any(character.isdigit() for character in spoken.out)


def test_a_training_set_as_of_then_is_the_one_of_then(loop: Any, tmp_path: Path) -> None:
    home = loop.home.copy(tmp_path / "copy")
    home.json("lake", "tag", "then")
    more = {"resourceType": "Patient", "id": "later", "birthDate": "1950-01-01"}
    (tmp_path / "more.ndjson").write_text(json.dumps(more) + "\n")
    home.json("ingest", str(tmp_path / "more.ndjson"))
    home.json("lake", "sync")
    told = home.json("run", "readmission", "--as-of", "then")
    assert told["training_set"] == loop.told["run"]["training_set"]
    assert (told["model_version"], told["endpoint"], told["metrics"]) == (None, None, {})
    assert "as of" in told["stopped"]
    home.run("run", "readmission", "--as-of", "2000-01-01", "--json", expect=4)
    home.remove()


def test_an_empty_record_ends_honestly_too(new_home: Any) -> None:
    done = new_home.run("run", "readmission", "--json", expect=0)
    assert (told := done.json)["training_set"] is None
    assert told["model_version"] is None
    assert told["endpoint"] is None
    assert [told["metrics"][name] for name in METRICS] == [None] * len(METRICS)
    assert "ingest" in told["metrics"]["reason"]
    assert new_home.json("search", "Patient")["total"] == 0
    assert new_home.json("quarantine", "list") == []
    assert new_home.json("lake", "sync")["behind_after"] == 0
    assert new_home.json("audit", "verify")["intact"] is True


# -- search, predict, monitor ----------------------------------------------------------------------------------------


def test_search_answers_a_searchset(home: Any, loop: Any) -> None:
    bundle = home.json("search", "Patient?gender=female&_count=5")
    assert (bundle["resourceType"], bundle["type"]) == ("Bundle", "searchset")
    assert 1 <= len(bundle["entry"]) <= 5
    assert {entry["resource"]["gender"] for entry in bundle["entry"]} == {"female"}
    both = [home.json("search", f"Patient?gender={word}&_summary=count")["total"] for word in ("female", "male")]
    assert sum(both) <= home.json("search", "Patient?_summary=count")["total"] == loop.told["synth"]["patients"]


def test_an_unknown_parameter_is_an_error_not_an_unfiltered_answer(home: Any) -> None:
    done = home.run("search", "Patient?colour=red", "--json", expect=2)
    assert done.out == ""
    assert done.error["code"] == "search.unknown_parameter"


@pytest.fixture(scope="module")
def single(home: Any, loop: Any) -> Any:
    """The prediction of one patient whom no list named."""
    listed = {one["patient"] for one in loop.told["list"]}
    stays = home.json("search", "Encounter?class=IMP&_count=1000")["entry"]
    subjects = [entry["resource"]["subject"]["reference"].partition("/")[2] for entry in stays]
    return home.json("predict", "readmission", "--patient", next(one for one in subjects if one not in listed))


def test_one_prediction_prints_one_object(single: Any, loop: Any) -> None:
    assert is_ref(single["ref"], "prediction")
    assert single["endpoint"] == loop.told["run"]["endpoint"]
    assert 0 < single["probability"] < 1


def test_the_same_prediction_again_is_the_same_one(home: Any, single: Any) -> None:
    again = home.json("predict", single["endpoint"], "--patient", single["patient"])
    assert again == single
    kind, _, key = single["resource"].partition("/")
    assert home.json("read", f"{kind}/{key}")["meta"]["versionId"] == "1"


def test_each_prediction_is_a_risk_assessment_that_search_finds(home: Any, single: Any, loop: Any) -> None:
    for prediction in (single, loop.told["list"][0]):
        bundle = home.json("search", f"RiskAssessment?subject=Patient/{prediction['patient']}")
        found = {f"RiskAssessment/{one['resource']['id']}": one["resource"] for one in bundle["entry"]}
        resource = found[prediction["resource"]]
        assert resource["identifier"][0]["value"] == prediction["ref"]
        assert resource["encounter"]["reference"] == f"Encounter/{prediction['encounter']}"
        assert resource["prediction"][0]["probabilityDecimal"] == pytest.approx(prediction["probability"], abs=1e-4)
    total = home.json("search", "RiskAssessment?_summary=count")["total"]
    assert total == len(loop.told["list"]) + 1


def test_who_never_stayed_has_no_prediction(home: Any) -> None:
    for patient in ("nobody", "../x"):
        done = home.run("predict", "readmission", "--patient", patient, "--json", expect=4)
        assert done.out == ""
        assert patient not in done.err


def test_monitor_makes_a_finding_or_says_that_it_could_not(home: Any, single: Any) -> None:
    told = home.json("monitor", "check", "readmission")
    assert is_ref(told["finding"] if isinstance(told["finding"], str) else told["finding"]["ref"], "finding")
    early = home.json("monitor", "check", "readmission", "--since", "2099-01-01T00:00:00Z")
    assert early["reason"], "a check that could not be made must not pass as a good one"


# -- the way back ----------------------------------------------------------------------------------------------------


def kinds(nouns: list[Any]) -> Counter[str]:
    return Counter(noun["kind"] for noun in nouns)


def test_a_listed_prediction_leads_back_to_the_bytes(home: Any, loop: Any) -> None:
    check_way(home, loop, loop.told["list"][0])


def test_a_single_prediction_leads_back_to_the_bytes(home: Any, loop: Any, single: Any) -> None:
    check_way(home, loop, single)


def check_way(home: Any, loop: Any, prediction: Any) -> None:
    """Every noun is there with what it was made from, and the bytes that each resource names are that resource."""
    nouns = home.json("lineage", prediction["ref"])
    found = {noun["ref"]: noun for noun in nouns}
    assert len(found) == len(nouns)
    assert nouns[0]["ref"] == prediction["ref"]
    assert {"prediction", "endpoint", "model", "trainingset", "snapshot", "resource", "landing"} <= set(kinds(nouns))
    for noun in nouns:
        assert {"ref", "kind", "account", "state", "made_by", "made_from"} <= noun.keys()
        assert set(noun["made_from"]) <= found.keys(), "a source that is not told"
        assert noun["made_from"] or noun["kind"] == "landing", f"{noun['kind']} comes from nowhere"
    told = [prediction["patient"], prediction["encounter"]]
    assert not any(word in json.dumps(nouns) for word in told), "lineage holds a patient's id"
    resources = [noun for noun in nouns if noun["kind"] == "resource"]
    assert set(loop.told["ingest"]["landings"]) >= {noun["made_from"][0] for noun in resources}
    check_bytes(home, prediction, resources, found)


def check_bytes(home: Any, prediction: Any, resources: list[Any], found: dict[str, Any]) -> None:
    subject = f"Patient/{prediction['patient']}"
    types = Counter()
    with home.opened() as workspace:
        caller = workspace.local(None, None, None)
        with workspace.enter(caller, "record:ingest", "record") as permit:
            for noun in resources:
                body, landing = noun["body"], found[noun["made_from"][0]]["body"]
                with workspace.vault.objects.open(permit, "landing", landing["object"]) as stream:
                    stream.seek(body["offset"])
                    raw = json.loads(stream.read(body["length"]))
                kept = workspace.resources.read(permit, raw["resourceType"], raw["id"])
                meta = {k: v for k, v in kept["meta"].items() if k not in ("versionId", "lastUpdated")}
                kept = {**kept, "meta": {**meta}} if meta else {k: v for k, v in kept.items() if k != "meta"}
                assert json.loads(json.dumps(kept, default=float)) == raw
                assert body["type"] == raw["resourceType"]
                owner = raw.get("subject", raw.get("patient", {})).get("reference")
                assert owner == subject or f"Patient/{raw['id']}" == subject
                types[body["type"]] += 1
    assert types["Patient"] == 1
    assert types["Encounter"] >= 1
    assert types["Observation"] >= 1


def test_forward_from_a_landing_leads_to_the_predictions(home: Any, loop: Any) -> None:
    nouns = home.json("lineage", loop.told["ingest"]["landings"][0], "--forward")
    assert {"snapshot", "trainingset", "model", "endpoint", "prediction"} <= set(kinds(nouns))


def test_a_ref_that_is_none_is_an_error(home: Any) -> None:
    for ref, code in (("nonsense", 2), ("prediction:" + "0" * 64, 4), ("resource:" + "f" * 64, 4), ("", 2)):
        assert home.run("lineage", ref, "--json", expect=code).out == ""


# -- proof -----------------------------------------------------------------------------------------------------------


def test_audit_verify_prints_the_fixed_shape(home: Any) -> None:
    told = home.json("audit", "verify")
    assert type(told["acts"]) is int
    assert told["acts"] > 10
    assert told["intact"] is True
    assert told["first_bad"] is None
    assert told["unfinished"] == 0


def test_the_trail_tells_of_every_step_and_of_no_patient(home: Any, loop: Any, single: Any) -> None:
    acts = home.json("audit", "list", "--limit", "100000")
    actions = {act["action"] for act in acts if act["phase"] == "done"}
    assert {
        "record:ingest",
        "lake:sync",
        "features:build",
        "model:train",
        "model:approve",
        "endpoint:deploy",
        "endpoint:invoke",
        "pipeline:run",
    } <= actions
    assert {act["principal"] for act in acts if act["action"] == "model:approve"} == {"reviewer"}
    assert {act["principal"] for act in acts if act["action"] == "model:train"} == {"pipeline"}
    text = json.dumps(acts)
    patients = [single["patient"], *(one["patient"] for one in loop.told["list"])]
    assert not [patient for patient in patients if patient in text]


def test_stdout_is_the_answer_and_nothing_else(home: Any) -> None:
    for arguments in (["status"], ["nouns"], ["model", "list"]):
        done = home.run(*arguments, "--json", expect=0)
        json.loads(done.out)


def test_attachments_come_back_as_they_were(home: Any) -> None:
    [entry] = home.json("search", "DocumentReference?_count=1")["entry"]
    note = base64.b64decode(entry["resource"]["content"][0]["attachment"]["data"]).decode()
    assert "Signed" in note
