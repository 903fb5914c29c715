"""The lake as OMOP CDM 5.4 and as MEDS 0.4: rows, rules, ids that stay, exports that go on."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import duckdb
import meds
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from carelake.apps.cli.parts_folder import PartsFolder
from carelake.core import canonical
from carelake.core.errors import Conflict, Invalid
from carelake.lake.meds import export as to_meds
from carelake.lake.meds import read as of_meds
from carelake.lake.omop import export as to_omop
from carelake.lake.omop.schema import ddl, tables
from carelake.lake.omop.validate import datasets, validate
from carelake.lake.omop.vocabulary import NONE, Vocabulary, read
from carelake.lake.ready import shards
from carelake.lake.ready.parts import Export

sys.path.append(str(Path(__file__).parent))

import ready_data

Resource = dict[str, Any]
CANARY = "Qanary7"
ICD, LOINC, RXNORM = (
    "http://hl7.org/fhir/sid/icd-10-cm",
    "http://loinc.org",
    "http://www.nlm.nih.gov/research/umls/rxnorm",
)


def coded(system: str, code: str) -> Resource:
    return {"coding": [{"system": system, "code": code, "display": CANARY}], "text": CANARY}


def of(kind: str, id_: str, /, **more: Any) -> Resource:
    return {"resourceType": kind, "id": id_, **more}


ANN = {"reference": "Patient/ann"}
STAY = {"reference": "Encounter/stay"}
HAND: list[Resource] = [
    of("Patient", "ann", gender="female", birthDate="1950-03-01", name=[{"family": CANARY}],
       deceasedDateTime="2024-05"),
    of("Patient", "unborn", gender="male"),
    of("Patient", "year", birthDate="1980", deceasedBoolean=True, address=[{"city": "Eastwick", "state": "Mass."}]),
    of("Practitioner", "doc", name=[{"family": "Who", "given": ["D"]}], gender="male"),
    of("Organization", "house", name="House",
       address=[{"city": "Eastwick", "state": "MA", "postalCode": "01104-0001"}]),
    of("Location", "ward", name="Ward", status="active"),
    of(
        "Encounter",
        "stay",
        status="in-progress",
        **{"class": {"code": "IMP"}},
        subject=ANN,
        period={"start": "2024-04-01T08:00:00-05:00"},
        participant=[{"individual": {"reference": "Practitioner/doc"}}],
        serviceProvider={"reference": "Organization/house"},
        location=[{"location": {"reference": "Location/ward"}}, {"location": {"reference": "Location/ward"}}],
    ),
    of("Encounter", "void", status="entered-in-error", **{"class": {"code": "AMB"}}, subject=ANN),
    of("Condition", "c1", code=coded(ICD, "I10"), subject=ANN, encounter=STAY),
    of("Condition", "c2", code=coded(ICD, "E11.22"), subject=ANN, onsetDateTime="2020", abatementDateTime="2019"),
    of(
        "Condition",
        "c3",
        code=coded(ICD, "I10"),
        subject=ANN,
        onsetDateTime="2020-01-01",
        verificationStatus={"coding": [{"code": "refuted"}]},
    ),
    of("Condition", "c4", code={"text": CANARY}, subject=ANN, recordedDate="2020-02-02T10:00:00Z"),
    of("Condition", "c5", code=coded(ICD, "I10"), subject=ANN),
    of("Condition", "c6", code=coded(ICD, "I10"), subject={"reference": "Patient/unborn"}, onsetDateTime="2020-01"),
    of(
        "Observation",
        "o1",
        status="final",
        code=coded(LOINC, "718-7"),
        subject=ANN,
        effectiveDateTime="2024-04-02T07:30:00-05:00",
        valueQuantity={"value": canonical.load("7.10"), "comparator": "<", "unit": CANARY, "code": "g/dL"},
        referenceRange=[{"low": {"value": 12}, "high": {"value": 16}}],
        note=[{"text": CANARY}],
    ),
    of("Observation", "o2", status="final", code=coded(LOINC, "72166-2"), subject=ANN, effectiveDateTime="2024-04-02",
       valueCodeableConcept=coded("http://snomed.info/sct", "8517006")),
    of("Observation", "o3", status="final", code=coded("urn:local", "x"), subject=ANN, effectiveDateTime="2024-04-02",
       valueString=CANARY),
    of("Medication", "m", code=coded(RXNORM, "860975")),
    of("MedicationRequest", "r1", status="active", intent="order", subject=ANN, authoredOn="2024-04-03",
       medicationReference={"reference": "Medication/m"}, dosageInstruction=[{"text": CANARY}],
       dispenseRequest={"validityPeriod": {"start": "2024-04-03", "end": "2030-01-01"},
                        "expectedSupplyDuration": {"value": 30, "code": "d"}, "numberOfRepeatsAllowed": 2}),
    of("MedicationRequest", "r2", status="draft", intent="order", subject=ANN, authoredOn="2024-04-03",
       medicationCodeableConcept=coded(RXNORM, "860975")),
    of("MedicationRequest", "r3", status="active", intent="order", subject=ANN, authoredOn="2024-04-03",
       doNotPerform=True, medicationCodeableConcept=coded(RXNORM, "312961")),
    of("MedicationAdministration", "ma", status="completed", subject=ANN, effectiveDateTime="2024-04-03",
       medicationCodeableConcept=coded(RXNORM, "8640")),
    of("Immunization", "i", status="completed", patient=ANN, occurrenceDateTime="2023-10-01",
       vaccineCode=coded("http://hl7.org/fhir/sid/cvx", "140"), lotNumber="L1"),
    of("Procedure", "p", status="completed", subject=ANN, code=coded("http://www.ama-assn.org/go/cpt", "99999"),
       performedPeriod={"start": "2024-04-02", "end": "2024-04-03"}),
    of("AllergyIntolerance", "a", patient=ANN, code=coded(RXNORM, "7980"), recordedDate="2010-01-01"),
    of("Device", "d1", patient=ANN, type=coded("urn:local", "pump"), udiCarrier=[{"deviceIdentifier": "0123"}]),
    of("Device", "d2", patient=ANN, type=coded("urn:local", "pump")),
    of("DeviceUseStatement", "u", status="active", subject=ANN, device={"reference": "Device/d1"},
       timingPeriod={"start": "2024-01-01"}),
    of("DocumentReference", "n0", status="current", subject=ANN, type=coded(LOINC, "18842-5"), content=[]),
    of("DocumentReference", "n", status="current", subject=ANN, type=coded(LOINC, "18842-5"),
       date="2024-04-05T00:00:00Z",
       content=[{"attachment": {"contentType": "text/plain", "data": "UWFuYXJ5Nw==", "title": CANARY}}]),
]  # fmt: skip


@pytest.fixture(scope="module")
def resources(tmp_path_factory: pytest.TempPathFactory) -> list[Resource]:
    return [*ready_data.synthetic(tmp_path_factory.mktemp("synth"), 40), *HAND]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, resources: list[Resource]) -> Iterator[ready_data.Place]:
    with ready_data.place_of(tmp_path_factory.mktemp("omop"), resources) as made:
        yield made


def source(place: ready_data.Place, *scope: str, vocabulary: Vocabulary = NONE) -> to_omop.Source:
    permit = place.permit(*scope)
    return to_omop.Source(permit, place.vault, place.snapshot, vocabulary, ready_data.NOW, "us")


def begun(folder: Path) -> Export:
    return Export.begin(PartsFolder(folder), later={"snapshot": ""}, what="omop")


def written(folder: Path) -> dict[str, pa.Table]:
    return {name: one.to_table() for name, one in datasets(folder).items()}


@pytest.fixture(scope="module")
def whole(place: ready_data.Place, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out") / "whole"
    to_omop.export(source(place), begun(folder), "parquet")
    return folder


def rows(folder: Path, name: str, **where: Any) -> list[dict[str, Any]]:
    return [one for one in written(folder)[name].to_pylist() if all(one[k] == v for k, v in where.items())]


def test_every_rule_holds_and_the_tables_load_into_their_ddl(whole: Path) -> None:
    assert validate(datasets(whole)) == []
    with duckdb.connect() as connection:
        for name, table in written(whole).items():
            connection.execute(ddl(name))
            connection.register("coming", table)
            connection.execute(f"INSERT INTO {name} SELECT * FROM coming")  # integer is 32 bits here
            assert connection.sql(f"SELECT count(*) FROM {name}").fetchall() == [(len(table),)]


def test_rows_are_those_of_the_record(whole: Path, resources: list[Resource]) -> None:
    found, synth = written(whole), resources[: -len(HAND)]
    kinds = Counter(one["resourceType"] for one in synth)
    assert len(found["person"]) == kinds["Patient"] + 2
    assert len(found["visit_occurrence"]) == kinds["Encounter"] + 1
    assert len(found["condition_occurrence"]) == kinds["Condition"] + 3
    assert len(found["drug_exposure"]) == kinds["MedicationRequest"] + 3
    assert len(found["procedure_occurrence"]) == kinds["Procedure"] + 1
    assert len(found["note"]) == kinds["DocumentReference"] + 1
    values = sum(len(one.get("component", [])) or 1 for one in synth if one["resourceType"] == "Observation")
    assert len(found["measurement"]) == values + 1
    assert len(found["observation"]) == 3  # smoking, the local one, the allergy
    dead = sum("deceasedDateTime" in one for one in synth if one["resourceType"] == "Patient")
    assert len(found["death"]) == dead + 1
    stays = {one["id"]: one for one in synth if one["resourceType"] == "Encounter"}
    assert sum(len(one.get("location", [])) for one in stays.values()) + 2 == len(found["visit_detail"])


def test_fields_of_what_was_written_by_hand(whole: Path) -> None:
    [ann] = rows(whole, "person", person_source_value="ann")
    assert (ann["gender_concept_id"], ann["year_of_birth"], ann["day_of_birth"]) == (8532, 1950, 1)
    [year] = rows(whole, "person", person_source_value="year")
    assert (year["year_of_birth"], year["month_of_birth"], year["birth_datetime"]) == (1980, None, None)
    [death] = rows(whole, "death", person_id=ann["person_id"])
    assert str(death["death_date"]) == "2024-05-31"  # the last day that 2024-05 may mean: THEMIS
    [stay] = rows(whole, "visit_occurrence", person_id=ann["person_id"])
    assert (stay["visit_concept_id"], str(stay["visit_start_datetime"])) == (9201, "2024-04-01 08:00:00")
    assert stay["visit_end_date"] == ready_data.NOW.date()  # it goes on
    [first, second] = sorted(
        rows(whole, "condition_occurrence", person_id=ann["person_id"], condition_source_value="I10")
        + rows(whole, "condition_occurrence", person_id=ann["person_id"], condition_source_value="E11.22"),
        key=lambda one: str(one["condition_start_date"]),
    )
    assert (str(first["condition_start_date"]), first["condition_end_date"]) == (
        "2020-01-01",
        first["condition_start_date"],
    )
    assert second["visit_occurrence_id"] == stay["visit_occurrence_id"]
    assert (second["condition_end_date"], second["condition_end_datetime"]) == (None, None)  # it goes on
    [value] = rows(whole, "measurement", person_id=ann["person_id"])
    told = [value[k] for k in ("value_as_number", "operator_concept_id", "range_low", "unit_source_value")]
    assert told == [7.1, 4171756, 12.0, "g/dL"]
    drugs = {one["drug_source_value"]: one for one in rows(whole, "drug_exposure", person_id=ann["person_id"])}
    assert str(drugs["860975"]["drug_exposure_end_date"]) == "2024-05-02"
    assert (drugs["140"]["lot_number"], drugs["140"]["verbatim_end_date"]) == ("L1", None)
    assert "312961" not in drugs  # an order not to give it
    assert drugs["8640"]["drug_type_concept_id"] == 32818
    [period] = rows(whole, "observation_period", person_id=ann["person_id"])
    assert period["observation_period_end_date"] == ready_data.NOW.date()  # not 2030, where an order ends
    assert "011040001" in {one["zip"] for one in rows(whole, "location", city="Eastwick")}
    [device] = rows(whole, "device_exposure")
    assert (device["unique_device_id"], str(device["device_exposure_start_date"])) == ("0123", "2024-01-01")


def test_what_is_left_out_is_counted(whole: Path) -> None:
    told = canonical.load((whole / "report.json").read_bytes())
    left = told["left_out"]
    assert left["patient: birth date"] == 1
    assert left["death: date"] == 1
    assert left["encounter"] == 1
    assert left["event: status"] == 3  # refuted, draft, not to be performed
    assert left["event: person"] == 1
    assert left["note"] == 1  # without a date
    assert left["event: date"] == 2  # a condition and a device without any
    codes = {(one["system"], one["code"]): one["rows"] for one in told["unmapped"]}
    assert codes["urn:local", "x"] if ("urn:local", "x") in codes else codes["other", "x"]
    assert (ICD, "I10") in codes


def test_free_text_is_in_no_file(whole: Path) -> None:
    for path in whole.glob("**/*"):
        if path.is_file():
            assert path.stat().st_mode & 0o777 == 0o600
            text = str(pq.read_table(path).to_pylist()) if path.suffix == ".parquet" else path.read_text()
            assert CANARY not in text, path.name


def test_the_same_lake_gives_the_same_bytes_and_new_rows_leave_ids_alone(
    whole: Path, place: ready_data.Place, tmp_path: Path, resources: list[Resource]
) -> None:
    to_omop.export(source(place), begun(tmp_path / "again"), "parquet")
    for path in whole.glob("*/*"):
        assert path.read_bytes() == (tmp_path / "again" / path.relative_to(whole)).read_bytes()
    changed = [{**HAND[0], "gender": "male"}, of("Patient", "aaa", birthDate="2000-01-01")]
    with ready_data.place_of(tmp_path, [*resources, *changed]) as more:
        to_omop.export(source(more), begun(tmp_path / "more"), "parquet")
    before, after = written(whole), written(tmp_path / "more")
    assert len(after["person"]) == len(before["person"]) + 1
    for name, table in before.items():
        if tables()[name].key and name != "person":
            key = tables()[name].key
            assert pc.all(pc.is_in(table.column(key), after[name].column(key).combine_chunks())).as_py(), name
    ids = {one["person_source_value"]: one["person_id"] for one in before["person"].to_pylist()}
    later = {one["person_source_value"]: one["person_id"] for one in after["person"].to_pylist()}
    assert {name: later[name] for name in ids} == ids


class Stops(PartsFolder):
    """A folder that fails at the nth write."""

    def __init__(self, folder: Path, after: int) -> None:
        super().__init__(folder)
        self.left = after

    def write(self, name: str, data: bytes) -> None:
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        super().write(name, data)


@pytest.mark.parametrize("after", [10])
def test_an_export_that_was_killed_goes_on(
    place: ready_data.Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    monkeypatch.setattr(shards.shards, "__defaults__", (25,))
    said: Mapping[str, Any] = {"later": {"snapshot": ""}, "what": "omop"}
    with pytest.raises(KeyboardInterrupt):
        to_omop.export(source(place), Export.begin(Stops(tmp_path / "a", after), **said), "parquet")
    with pytest.raises(Conflict, match="another export"):
        Export.begin(PartsFolder(tmp_path / "a"), later={"snapshot": ""}, what="meds")
    with monkeypatch.context() as fewer:
        moved = shards.shards(place.permit(), place.vault, place.snapshot, 24)
        fewer.setattr(shards, "shards", lambda *_: moved)
        with pytest.raises(Conflict, match="has changed"):
            to_omop.export(source(place), begun(tmp_path / "a"), "parquet")
    made = to_omop.export(source(place), begun(tmp_path / "a"), "parquet")
    to_omop.export(source(place), begun(tmp_path / "b"), "parquet")
    assert (tmp_path / "a" / "report.json").read_bytes() == (tmp_path / "b" / "report.json").read_bytes()
    for path in (tmp_path / "b").glob("*/*"):
        assert path.read_bytes() == (tmp_path / "a" / path.relative_to(tmp_path / "b")).read_bytes()
    assert made.tables["person"] == 42
    assert len(list((tmp_path / "a" / "person").iterdir())) == 2
    with pytest.raises(Conflict, match="finished"):
        begun(tmp_path / "a")


def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(Conflict, match="not empty"):
        PartsFolder(tmp_path)


# -- with a vocabulary -------------------------------------------------------------------------------------------


def athena(folder: Path) -> Path:
    """A folder as Athena's, with made-up concepts."""
    concepts = [
        (8507, "Gender", "Gender", "S", "M", ""),
        (8532, "Gender", "Gender", "S", "F", ""),
        (1, "Condition", "ICD10CM", "", "I10", ""),
        (2, "Condition", "SNOMED", "S", "59621000", ""),
        (3, "Condition", "ICD10CM", "", "E11.22", ""),
        (4, "Condition", "SNOMED", "S", "44054006", ""),
        (5, "Observation", "SNOMED", "S", "1", ""),
        (6, "Condition", "ICD10CM", "", "I10", "D"),
        (7, "Measurement", "LOINC", "S", "718-7", ""),
        (8, "Unit", "UCUM", "S", "g/dL", ""),
        (9, "Drug", "RxNorm", "S", "860975", ""),
        (10, "Drug", "RxNorm", "S", "7980", ""),
        (11, "Condition", "LOINC", "S", "72166-2", ""),
        (12, "Visit", "CPT4", "S", "99999", ""),
    ]
    maps = [(1, 2, ""), (3, 4, ""), (3, 5, ""), (3, 2, "D"), (7, 7, ""), (8, 8, ""), (9, 9, ""), (6, 4, "")]
    maps += [(10, 10, ""), (11, 11, ""), (12, 12, "")]
    lines = ["concept_id\tconcept_name\tdomain_id\tvocabulary_id\tstandard_concept\tconcept_code\tinvalid_reason"]
    lines += [f'{i}\ta "quoted name\t{d}\t{v}\t{s}\t{c}\t{x}' for i, d, v, s, c, x in concepts]
    (folder / "CONCEPT.csv").write_text("\n".join(lines) + "\n")
    lines = ["concept_id_1\tconcept_id_2\trelationship_id\tinvalid_reason"]
    lines += [f"{a}\t{b}\tMaps to\t{x}" for a, b, x in maps] + ["1\t5\tIs a\t"]
    (folder / "CONCEPT_RELATIONSHIP.csv").write_text("\n".join(lines) + "\n")
    (folder / "VOCABULARY.csv").write_text("vocabulary_id\tvocabulary_version\nNone\tv5.0 30-AUG-24\n")
    return folder


def test_source_codes_are_mapped_and_go_where_their_domain_says(place: ready_data.Place, tmp_path: Path) -> None:
    known = read(athena(tmp_path))
    assert known.version == "v5.0 30-AUG-24"
    out = tmp_path / "out"
    to_omop.export(source(place, vocabulary=known), begun(out), "parquet")
    [ann] = rows(out, "person", person_source_value="ann")
    mine = {"person_id": ann["person_id"]}
    found = rows(out, "condition_occurrence", condition_source_value="E11.22", **mine)
    assert [(one["condition_concept_id"], one["condition_source_concept_id"]) for one in found] == [(4, 3)]
    [other] = rows(out, "observation", observation_source_value="E11.22", **mine)
    assert (other["observation_concept_id"], other["observation_source_concept_id"]) == (5, 3)
    [high] = rows(out, "condition_occurrence", condition_source_value="I10", **mine)
    assert high["condition_concept_id"] == 2
    [value] = rows(out, "measurement", **mine)
    assert (value["measurement_concept_id"], value["unit_concept_id"]) == (7, 8)
    # An allergy is no exposure, an answer is no condition, and a visit's code is in no table of another domain.
    assert {one["drug_concept_id"] for one in rows(out, "drug_exposure", **mine)} == {0, 9}
    [allergy] = rows(out, "observation", observation_source_value="7980", **mine)
    assert (allergy["observation_concept_id"], allergy["value_as_concept_id"]) == (439224, 10)
    assert rows(out, "observation", observation_source_value="72166-2", **mine)[0]["observation_concept_id"] == 11
    assert rows(out, "observation", observation_source_value="99999", **mine)[0]["observation_concept_id"] == 12
    [about] = rows(out, "cdm_source")
    assert about["vocabulary_version"] == "v5.0 30-AUG-24"
    # Type concepts and visits are not in this small vocabulary: the rule finds them, and nothing else.
    assert {one.check for one in validate(datasets(out), known)} == {"concept", "domain"}
    broken = {one.field for one in validate(datasets(out), known) if one.check == "domain"}
    assert "condition_concept_id" not in broken
    assert "measurement_concept_id" not in broken


def test_a_folder_that_is_no_vocabulary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"CONCEPT\.csv is missing"):
        read(tmp_path)
    (tmp_path / "CONCEPT.csv").write_text("a\tb\n1\t2\n")
    with pytest.raises(Invalid, match="Athena"):
        read(tmp_path)


# -- the rules find what is wrong ----------------------------------------------------------------------------------


def _with(name: str, field: str, work: Callable[[list[Any]], list[Any]]) -> Callable[[dict[str, pa.Table]], None]:
    def damage(found: dict[str, pa.Table]) -> None:
        table = found[name]
        at = table.column_names.index(field)
        values = pa.array(work(table.column(field).to_pylist()), table.schema.field(field).type)
        found[name] = table.set_column(at, pa.field(field, values.type), values)

    return damage


DAMAGE = {
    ("measurement", "measurement_date", "required"): _with(
        "measurement", "measurement_date", lambda v: [None, *v[1:]]
    ),
    ("visit_occurrence", "visit_occurrence_id", "key"): _with(
        "visit_occurrence", "visit_occurrence_id", lambda v: [v[1], *v[1:]]
    ),
    ("drug_exposure", "person_id", "reference"): _with(
        "drug_exposure", "person_id", lambda v: [2_000_000_000, *v[1:]]
    ),
    ("location", "state", "length"): _with("location", "state", lambda v: ["Mass", *v[1:]]),
    ("visit_occurrence", "visit_end_date", "order"): _with(
        "visit_occurrence", "visit_end_date", lambda v: [v[0].replace(year=1900), *v[1:]]
    ),
    ("condition_occurrence", "condition_occurrence_id", "wide"): _with(
        "condition_occurrence", "condition_occurrence_id", lambda v: [2**33, *v[1:]]
    ),
    ("person", "", "missing"): lambda found: found.pop("person"),
    ("note", "", "columns"): lambda found: found.update(note=found["note"].drop_columns(["note_title"])),
}


@pytest.mark.parametrize("planted", DAMAGE, ids=lambda planted: planted[2])
def test_damage_is_found(whole: Path, planted: tuple[str, str, str]) -> None:
    found = written(whole)
    DAMAGE[planted](found)
    told = {
        (one.table, one.field, one.check) for one in validate({k: pa.dataset.dataset(v) for k, v in found.items()})
    }
    assert planted in told


def test_csv_is_validated_too_and_tells_nothing_from_an_empty_text(place: ready_data.Place, tmp_path: Path) -> None:
    out = tmp_path / "csv"
    to_omop.export(source(place), begun(out), "csv")
    assert validate(datasets(out)) == []
    [path] = (out / "person").iterdir()
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, lines[1].replace(lines[1].split(",")[2], "born")]) + "\n")
    assert {(one.field, one.check) for one in validate(datasets(out))} >= {("year_of_birth", "type")}


def test_a_deidentified_export_has_no_ids_of_the_record(place: ready_data.Place, tmp_path: Path) -> None:
    out = tmp_path / "deid"
    made = to_omop.export(source(place, "deidentified"), begun(out), "parquet")
    assert made.tables["person"] > 0
    assert [one for one in validate(datasets(out)) if not one.remark] == []
    ids = {one["id"] for one in HAND}
    for table in written(out).values():
        for column in table.columns:
            if pa.types.is_string(column.type):
                assert not ids & set(column.to_pylist())


# -- MEDS ----------------------------------------------------------------------------------------------------------


def test_meds_passes_the_standards_own_schema_and_ours(
    place: ready_data.Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards.shards, "__defaults__", (25,))
    out = tmp_path / "meds"
    made = to_meds.export(source(place), begun(out))
    files = sorted((out / meds.data_subdirectory).glob("*.parquet"))
    assert len(files) == 2
    for path in files:
        meds.DataSchema.validate(pq.read_table(path))
    meds.SubjectSplitSchema.validate(pq.read_table(out / meds.subject_splits_filepath))
    meds.CodeMetadataSchema.validate(pq.read_table(out / meds.code_metadata_filepath))
    meds.DatasetMetadataSchema.validate(canonical.load((out / meds.dataset_metadata_filepath).read_bytes()))
    assert of_meds.check(out) == made.as_json()
    assert made.subjects == 42
    events = pa.concat_tables([pq.read_table(path) for path in files]).to_pylist()
    births = [one for one in events if one["code"] == meds.birth_code]
    assert len(births) == made.subjects
    subject = next(
        one["subject_id"] for one in events if one["code"] == "ICD10CM//E11.22" and one["time"].year == 2020
    )
    mine = [(str(one["time"]), one["code"], one["numeric_value"]) for one in events if one["subject_id"] == subject]
    assert mine[0] == ("None", "GENDER//female", None)
    assert ("2024-04-02 12:30:00", "LOINC//718-7", pytest.approx(7.1)) in mine
    assert mine[-1] == ("2024-05-31 23:59:59", "MEDS_DEATH", None)
    assert "ALLERGY//RxNorm//7980" in {code for _, code, _ in mine}
    assert {"RxNorm//860975", "CVX//140", "urn:local//x", "CPT4//99999"} - {code for _, code, _ in mine} in (
        set(),
        {"urn:local//x"},
    )
    assert CANARY not in str(events)


def test_wrong_meds_datasets_are_refused(place: ready_data.Place, tmp_path: Path) -> None:
    out = tmp_path / "meds"
    to_meds.export(source(place), begun(out))
    [path] = (out / "data").iterdir()
    whole = pq.read_table(path)

    def refused(table: pa.Table, words: str) -> None:
        pq.write_table(table, path)
        with pytest.raises(Invalid, match=words):
            of_meds.check(out)

    refused(whole.drop_columns(["code"]), "code is missing")
    refused(pa.concat_tables([whole.slice(5), whole.slice(0, 5)]), "do not lie together|not sorted")
    last = len(whole) - 1
    back = whole.slice(0, 3).append_column("x", pa.nulls(3)).drop_columns(["x"])
    refused(pa.concat_tables([whole.slice(4, 1), back]), "not sorted by time|do not lie together")
    other = whole.set_column(2, whole.schema.field(2), pa.array(["NEW//1", *whole.column(2).to_pylist()[1:]]))
    refused(other, "codes.parquet")
    pq.write_table(whole, path)
    pq.write_table(whole.slice(last), out / "data" / "more.parquet")
    with pytest.raises(Invalid, match="in two files"):
        of_meds.check(out)
