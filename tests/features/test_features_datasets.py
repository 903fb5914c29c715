"""A data set from a recipe: the same twice, verified by a replay, and not verified once anything was altered."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from feed_data import GRANTS, Feed
from groups_data import Store, record, request
from sqlalchemy import update

from carelake.audit.nouns import Nouns
from carelake.audit.tables import noun as noun_table
from carelake.core import canonical
from carelake.core.clock import FixedClock
from carelake.core.errors import Invalid, NotFound
from carelake.core.ids import RandomIds
from carelake.core.permit import mint
from carelake.core.settings import Settings
from carelake.features import asof, featureset, parquet, readmission, trainingset
from carelake.features import erase as features_erase
from carelake.features.datasets import build as building
from carelake.features.datasets import design, sources
from carelake.features.datasets.build import Lake
from carelake.features.datasets.verify import verify
from carelake.lake import query, results
from carelake.lake.following.sync import sync
from carelake.lake.iceberg.zone import zone
from carelake.lake.schema import column_of
from carelake.lake.upkeep import erase as lake_erase
from carelake.pipelines import predictions
from carelake.serving import worklist
from carelake.vault.workspace import Vault

RECIPE = design.read("mortality")
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Log:
    """An act's log that keeps nothing."""

    ended = False

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *said, **more: None


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lake, Feed]]:
    from carelake.apps.wiring import import_tables

    import_tables()
    folder = tmp_path_factory.mktemp("datasets")
    clock = FixedClock(NOW)
    settings = Settings(workspace="w1")
    with Vault.create(
        folder / "ws", settings=settings, key_dir=folder / "keys", clock=clock, ids=RandomIds()
    ) as vault:
        permit = mint(
            act="a" * 32, principal="tester", account="production", purpose="TREAT", action="test", target="test",
            grants=GRANTS, scope=(), expires=NOW.replace(year=2027), log=Log(),  # type: ignore[arg-type]
        )  # fmt: skip
        feed, nouns = Feed(folder / "synth", 55, 4), Nouns(clock)
        sync(permit, vault, feed, nouns)
        yield Lake(permit, vault, nouns), feed


def built(lake: Lake, recipe: design.Recipe = RECIPE) -> trainingset.TrainingSet:
    return building.build(lake, recipe, query.snapshot_of(lake.permit, lake.vault, lake.nouns))


def checks(told: dict[str, Any]) -> set[str]:
    return {one["check"] for one in told["problems"]}


@pytest.mark.parametrize("name", ["mortality", "readmission"])
def test_a_data_set_verifies_and_is_found_again(made: tuple[Lake, Feed], name: str) -> None:
    lake, _ = made
    recipe = design.read(name)
    first = built(lake, recipe)
    snapshot = query.snapshot_of(lake.permit, lake.vault, lake.nouns)
    assert building.build(lake, recipe, snapshot, shard=30).noun == first.noun, (
        "found again, and shards change nothing"
    )
    told = verify(lake, first.noun.ref)
    assert (told["verified"], told["replayed"], told["problems"]) == (True, True, [])
    assert first.noun.body["rows"] == len(first.table) > 20
    assert first.noun.body["proof"]["sources"]
    assert not [one for one in first.noun.body["leaks"] if one["severity"] == "leak"]
    canonical.dump(dict(first.noun.body))
    if name == "readmission":  # the run's own way to it
        tables = query.views(lake.permit, lake.vault, snapshot)
        told_of = results.note(lake.permit, lake.vault, lake.nouns, snapshot, tables)
        same = featureset.create(lake.permit, lake.vault, lake.nouns, told_of, tables)
        assert same.noun.ref == first.noun.made_from[0]


def test_the_morning_list_is_of_all_rows_whatever_the_shard(
    made: tuple[Lake, Feed], monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, _ = made
    told = (lake.permit, lake.vault, query.snapshot_of(lake.permit, lake.vault, lake.nouns))
    views, now = query.views(*told), lake.vault.clock.now()
    rows = readmission.build(views, now=now)
    end = min(now, datetime.fromisoformat(readmission.attrition(rows)["data_end"]).replace(tzinfo=UTC))
    dead = set(views["patients"].filter(pc.field("deceased")).column("subject_id").to_pylist())
    monkeypatch.setattr(building, "SHARD", 30)
    for days in (200, 9000):
        listed = worklist.morning_list(rows, end, days).sort_by("subject_id")
        wanted = [one for one in listed.to_pylist() if one["subject_id"] not in dead]
        assert predictions._discharged(*told, days).to_pylist() == wanted
        assert len(wanted) > 5


def test_later_versions_change_nothing_of_a_set_that_was_made(made: tuple[Lake, Feed]) -> None:
    lake, feed = made
    first = built(lake)
    patient = next(
        one for one in feed.resources if one["resourceType"] == "Patient" and "deceasedDateTime" not in one
    )
    feed.again({**patient, "birthDate": "1931-01-01"})
    sync(lake.permit, lake.vault, feed, lake.nouns)
    assert verify(lake, first.noun.ref)["verified"] is True
    assert built(lake).noun.ref != first.noun.ref


def test_a_feature_group_is_read_as_of_the_build_and_never_before_it_was_written(made: tuple[Lake, Feed]) -> None:
    lake, feed = made
    store = Store(lake.vault, lake.permit)
    store.groups.create(lake.permit, request("scores"))
    patients = [one["id"] for one in feed.resources if one["resourceType"] == "Patient"]
    for patient in patients[:40]:
        store.put("scores", *record(patient, "2020-06-01T00:00:00Z", x="1.5"))
    groups = [*RECIPE.body()["groups"], {"name": "scored", "group": "scores", "features": ["x"]}]
    found = built(lake, design.parsed({**RECIPE.body(), "groups": groups}))
    # Written today, so known today: years after these predictions.
    assert found.table.column("scored__x").null_count == len(found.table)
    assert "scored" in found.noun.body["proof"]["sources"]
    assert verify(lake, found.noun.ref)["verified"] is True
    made_again = building.offline_of(lake, design.Group(name="scored", group="scores"), "2026-01-02T03:04:05.000Z")
    assert made_again.column_names[:4] == ["subject_id", "event_time", "write_time", "is_deleted"]
    assert len(made_again) == 40


def test_an_altered_row_of_the_kept_set_is_found(made: tuple[Lake, Feed]) -> None:
    lake, _ = made
    permit, vault = lake.permit, lake.vault
    found = built(lake)
    place, body = str(found.noun.body["object"]), dict(found.noun.body)
    was = vault.objects.get(permit, "features", place)
    at = found.table.column_names.index("label")
    turned = found.table.set_column(at, "label", pc.invert(found.table.column("label")))
    altered = parquet._bytes(turned)
    try:
        vault.objects.put(permit, "features", place, altered)
        told = verify(lake, found.noun.ref)
        assert (told["verified"], checks(told)) == (False, {"kept_bytes"})
        # Whoever can write the noun too still has no key for the rows.
        _say(lake, found.noun.ref, {**body, "sha256": parquet._told("", altered)["sha256"]})
        told = verify(lake, found.noun.ref)
        assert (told["verified"], checks(told)) == (False, {"kept_rows"})
        assert told["problems"][0]["rows"] == len(found.table)
        swapped = found.table.column("set").to_pylist()
        swapped = ["train" if one == "test" else one for one in swapped]
        altered = parquet._bytes(found.table.set_column(at + 1, "set", pa.array(swapped)))
        vault.objects.put(permit, "features", place, altered)
        _say(lake, found.noun.ref, {**body, "sha256": parquet._told("", altered)["sha256"]})
        assert checks(verify(lake, found.noun.ref)) == {"split"}
    finally:
        vault.objects.put(permit, "features", place, was)
        _say(lake, found.noun.ref, body)
    assert verify(lake, found.noun.ref)["verified"] is True


def _say(lake: Lake, ref: str, body: dict[str, Any]) -> None:
    with lake.vault.database.transaction(lake.permit) as tx:
        tx.execute(update(noun_table).where(noun_table.c.ref == ref).values(body=canonical.dump(body)))


def test_an_altered_source_is_found(made: tuple[Lake, Feed]) -> None:
    lake, _ = made
    found = built(lake)
    files = zone(lake.vault)
    was = {}
    for entry in files.list(lake.permit, "iceberg/Patient/data"):
        with files.open(lake.permit, entry.name) as source:
            was[entry.name] = source.read()
        table = pq.read_table(io.BytesIO(was[entry.name]))
        at = table.column_names.index(column_of("birthDate"))
        older = pa.array(["1931-05-05"] * len(table), table.schema.field(at).type)
        sink = io.BytesIO()
        pq.write_table(table.set_column(at, table.schema.field(at), older), sink)
        files.put(lake.permit, entry.name, sink.getvalue())
    try:
        told = verify(lake, found.noun.ref)
        assert (told["verified"], checks(told)) == (False, {"replay_values"})
        assert set(told["problems"][0]["columns"]) == {"stay__hash"}, "the group that the value is in, and no other"
    finally:
        for name, data in was.items():
            files.put(lake.permit, name, data)
    assert verify(lake, found.noun.ref)["verified"] is True


def test_what_was_erased_by_law_is_said(made: tuple[Lake, Feed]) -> None:
    lake, feed = made
    found = built(lake)
    somebody = found.table.column("subject_id")[0].as_py()
    leaving = lake_erase.Leaving({somebody})
    lake_erase.erase(lake.permit, lake.vault, lake.nouns, feed, leaving, mark="m1")
    told = verify(lake, found.noun.ref)
    assert told["verified"] is False, "their rows are still in the set, and not in the lake"
    assert checks(told) == {"replay_rows"}
    assert "erased by law" in told["note"]
    features_erase.erase(lake.permit, lake.vault, lake.nouns, {somebody})
    told = verify(lake, found.noun.ref)
    assert told["verified"] is None
    assert "erased by law" in told["note"]
    rest = verify(lake, told["successor"])
    assert (rest["verified"], rest["problems"], rest["replayed"]) == (True, [], True)
    assert "version by version" in rest["note"]
    assert rest["rows"] < found.noun.body["rows"]
    assert features_erase.residue(lake.permit, lake.vault, lake.nouns, {somebody}) == 0


def test_recipes_are_checked() -> None:
    body = RECIPE.body()
    assert design.parsed(body) == RECIPE
    for wrong in (
        {"rows": "elsewhere"},
        {"design": {**body["design"], "to_hours": 0}},
        {"design": {**body["design"], "observed_days": 3}},
        {"groups": []},
        {"groups": [*body["groups"], body["groups"][0]]},
        {"groups": [{"name": "g"}]},
        {"more": 1},
    ):
        with pytest.raises(Invalid) as refused:
            design.parsed({**body, **wrong})
        assert refused.value.code == "datasets.recipe"
    with pytest.raises(NotFound):
        design.read("nothing")
    for text in (b"name = ", b"\xff", b"#" * (2 << 20)):
        with pytest.raises(Invalid):
            design.of_toml(text)


@pytest.mark.parametrize(
    "text",
    [
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM users",
        "DROP TABLE patients",
        "SELECT * FROM information_schema.tables",
        "COPY patients TO 'out.csv'",
    ],
)
def test_a_recipe_reads_the_views_and_nothing_else(made: tuple[Lake, Feed], text: str) -> None:
    body = RECIPE.body()
    with pytest.raises(Invalid):
        built(made[0], design.parsed({**body, "groups": [{"name": "g", "sql": text}]}))


def test_a_feature_group_of_something_else_than_patients_is_not_joined(made: tuple[Lake, Feed]) -> None:
    lake, _ = made
    definitions = [{"FeatureName": name, "FeatureType": "String"} for name in ("encounter_id", "at", "subject_id")]
    store = Store(lake.vault, lake.permit)
    asked = request("stays", FeatureDefinitions=definitions, RecordIdentifierFeatureName="encounter_id")
    store.groups.create(lake.permit, asked)
    with pytest.raises(Invalid, match="not of patients"):
        building.offline_of(lake, design.Group(name="stays", group="stays"), "2026-01-02T03:04:05.000Z")


def test_the_order_of_writing_decides_between_rows_of_one_time() -> None:
    at = pa.array([datetime(2026, 1, 1, tzinfo=UTC)] * 2, pa.timestamp("us", "UTC"))
    rows = {"subject_id": ["p", "p"], "event_time": at, "write_time": at, "is_deleted": [False] * 2, "x": [2.0, 1.0]}
    found = sources.group_of(design.Group(name="g", group="g"), pa.table(rows))
    labels = pa.table({"subject_id": ["p"], "prediction_time": at[:1]})
    assert asof.join(labels, {"g": found}).column("g__x").to_pylist() == [1.0]


def test_many_erasures_do_not_hide_what_a_set_was_made_of(made: tuple[Lake, Feed]) -> None:
    lake, _ = made
    ref = built(lake).noun.ref
    people = built(lake).table.column("subject_id").unique().to_pylist()
    for somebody in people[:7]:
        features_erase.erase(lake.permit, lake.vault, lake.nouns, {somebody})
        ref = verify(lake, ref)["successor"]
    told = verify(lake, ref)
    assert (told["verified"], told["replayed"]) == (True, True)
