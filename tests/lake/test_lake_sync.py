"""The lake follows the feed exactly once, through kills, evolution and deletions, and leaves nothing in the clear."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from carelake.audit.nouns import Nouns
from carelake.core import canonical
from carelake.core.errors import Conflict, Invalid, NotFound, Refused
from carelake.core.permit import Permit
from carelake.lake import query
from carelake.lake.following import sync
from carelake.lake.iceberg.catalog import VaultCatalog
from carelake.vault.workspace import Vault


def observation(name: str, value: str = "7.10", **more: Any) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "id": name,
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "718-7", "display": "Hb"}]},
        "subject": {"reference": "Patient/p1"},
        "effectiveDateTime": "2024-03-01T10:00:00-05:00",
        "issued": "2024-03-01T16:00:00.250Z",
        "valueQuantity": {"value": canonical.load(value), "unit": "g/dL", "code": "g/dL"},
        **more,
    }


def patient(name: str = "p1", **more: Any) -> dict[str, Any]:
    return {"resourceType": "Patient", "id": name, "gender": "female", "birthDate": "1950-03-01", **more}


def stored(permit: Permit, vault: Vault, name: str) -> list[dict[str, Any]]:
    return VaultCatalog(vault, permit).load_table((permit.account, name)).scan().to_arrow().to_pylist()


def test_sync_appends_once_and_says_how_far_behind(vault: Vault, permit: Permit, nouns: Nouns, feed: Any) -> None:
    assert sync.sync(permit, vault, feed, nouns).snapshot_ref == ""
    feed.put(patient())
    feed.put(observation("o1"))
    first = sync.sync(permit, vault, feed, nouns)
    assert (first.behind_before, first.behind_after) == (2, 0)
    assert first.tables == {"Patient": 1, "Observation": 1}
    again = sync.sync(permit, vault, feed, nouns)
    assert again.tables == {}
    assert again.snapshot_ref == first.snapshot_ref
    feed.put(observation("o2"))
    third = sync.sync(permit, vault, feed, nouns)
    assert third.tables == {"Observation": 1}
    with vault.database.reading(permit) as connection:
        assert nouns.get(connection, third.snapshot_ref).made_from == (first.snapshot_ref,)


def test_key_columns_lead_and_digits_stay(vault: Vault, permit: Permit, nouns: Nouns, feed: Any) -> None:
    feed.put(observation("o1", "7.10"))
    sync.sync(permit, vault, feed, nouns)
    (row,) = stored(permit, vault, "Observation")
    assert (row["id"], row["version"], row["patient"], row["code"], row["code_system"], row["seq"]) == (
        ("o1", 1, "p1", "718-7", "http://loinc.org", 1)
    )
    assert row["time"].isoformat() == "2024-03-01T15:00:00+00:00"
    assert row["valueQuantity"]["value"] == 7.1
    assert row["valueQuantity"]["value_text"] == "7.10"


def test_new_elements_become_columns_and_old_rows_stay(vault: Vault, permit: Permit, nouns: Nouns, feed: Any) -> None:
    feed.put(observation("o1"))
    sync.sync(permit, vault, feed, nouns)
    feed.put(observation("o2", interpretation=[{"text": "low"}], note=[{"text": "n", "time": "2024"}]))
    feed.put(observation("o3"))
    sync.sync(permit, vault, feed, nouns)
    rows = {row["id"]: row for row in stored(permit, vault, "Observation")}
    assert rows["o1"]["interpretation"] is None
    assert rows["o2"]["interpretation"] == [{"text": "low"}]
    assert not rows["o3"]["note"]


def test_the_latest_version_wins_and_deletions_hide(vault: Vault, permit: Permit, nouns: Nouns, feed: Any) -> None:
    feed.put(observation("o1", "7.0"))
    feed.put(observation("o2", "8.0"))
    sync.sync(permit, vault, feed, nouns)
    before = query.snapshot_of(permit, vault, nouns)
    feed.put(observation("o1", "9.0"))
    feed.put(observation("o2"), deleted=True)
    sync.sync(permit, vault, feed, nouns)
    after = query.snapshot_of(permit, vault, nouns)
    values = [
        query.views(permit, vault, snapshot, ["observations"])["observations"].column("value").to_pylist()
        for snapshot in (before, after)
    ]
    assert values == [[7.0, 8.0], [9.0]]  # the older snapshot still reads as it was
    feed.put(observation("o2", "5.0"))
    sync.sync(permit, vault, feed, nouns)
    now = query.snapshot_of(permit, vault, nouns)
    assert query.views(permit, vault, now, ["observations"])["observations"].column("value").to_pylist() == [9.0, 5.0]


class KilledAt(Exception):
    pass


@pytest.mark.parametrize("commit", [1, 2, 3, 4])
def test_a_kill_between_commits_neither_doubles_nor_loses(
    vault: Vault, permit: Permit, nouns: Nouns, feed: Any, commit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        feed.put(observation(f"o{number}"))
        feed.put(patient(f"p{number}"))
        feed.put({"resourceType": "Condition", "id": f"c{number}", "subject": {"reference": "Patient/p1"}})
    commits = 0
    commit_table = VaultCatalog.commit_table

    def dying(self: VaultCatalog, *said: Any) -> Any:
        nonlocal commits
        commits += 1
        if commits == commit:
            raise KilledAt
        return commit_table(self, *said)

    with monkeypatch.context() as patched:
        patched.setattr(VaultCatalog, "commit_table", dying)
        if commit < 4:
            with pytest.raises(KilledAt):
                sync.sync(permit, vault, feed, nouns)
        else:  # all tables committed, killed before the position moved
            patched.setattr(sync._Sync, "_note", lambda *_: (_ for _ in ()).throw(KilledAt()))
            with pytest.raises(KilledAt):
                sync.sync(permit, vault, feed, nouns)
    report = sync.sync(permit, vault, feed, nouns)
    assert report.behind_after == 0
    for name in ("Observation", "Patient", "Condition"):
        assert sorted(row["seq"] for row in stored(permit, vault, name)) == [
            entry.seq for entry in feed.entries if entry.type == name
        ]


def test_small_flushes_give_the_same_rows_and_name(vault: Vault, permit: Permit, nouns: Nouns, feed: Any) -> None:
    for number in range(4):
        feed.put(observation(f"o{number}"))
        feed.put(patient(f"p{number}"))
    report = sync.sync(permit, vault, feed, nouns, batch_bytes=1)
    assert report.tables == {"Observation": 4, "Patient": 4}
    assert len(stored(permit, vault, "Observation")) == 4


def test_a_writer_that_lost_the_race_is_told(vault: Vault, permit: Permit, nouns: Nouns, feed: Any) -> None:
    feed.put(observation("o1"))
    sync.sync(permit, vault, feed, nouns)
    feed.put(observation("o2"))

    commit_table = VaultCatalog.commit_table
    raced = []

    def slow(self: VaultCatalog, *said: Any) -> Any:
        if not raced:
            raced.append(True)
            sync.sync(permit, vault, feed, nouns)
        return commit_table(self, *said)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(VaultCatalog, "commit_table", slow)
        with pytest.raises(Conflict, match="Another process"):
            sync.sync(permit, vault, feed, nouns)
    assert sorted(row["seq"] for row in stored(permit, vault, "Observation")) == [1, 2]


def test_nothing_is_in_the_clear_on_disk(
    vault: Vault, permit: Permit, nouns: Nouns, feed: Any, tmp_path: Path
) -> None:
    canary = "Quillfeather"
    feed.put({**patient(), "name": [{"family": canary}]})
    sync.sync(permit, vault, feed, nouns)
    query.views(permit, vault, query.snapshot_of(permit, vault, nouns))
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 5
    for path in files:
        assert canary not in str(path)
        assert canary.encode() not in path.read_bytes()
        assert b"PAR1" not in path.read_bytes()


def test_accounts_do_not_see_each_other(
    vault: Vault, permit: Permit, permit_for: Callable[..., Permit], nouns: Nouns, feed: Any
) -> None:
    feed.put(patient())
    made = sync.sync(permit, vault, feed, nouns)
    other = permit_for("lake:read", "rows:read", account="research")
    with pytest.raises(NotFound):
        query.snapshot_of(other, vault, nouns)
    with pytest.raises(NotFound):
        query.snapshot_of(other, vault, nouns, made.snapshot_ref)
    assert VaultCatalog(vault, other).list_tables() == []


def test_a_permit_without_the_grant_reads_nothing(
    vault: Vault, permit: Permit, permit_for: Callable[..., Permit], nouns: Nouns, feed: Any
) -> None:
    feed.put(patient())
    sync.sync(permit, vault, feed, nouns)
    snapshot = query.snapshot_of(permit, vault, nouns)
    with pytest.raises(Refused):
        query.views(permit_for("rows:read"), vault, snapshot)
    with pytest.raises(Refused, match="scope"):
        query.views(permit_for("rows:read", "lake:read", scope=("department",)), vault, snapshot)


def test_a_scope_of_one_patient_shows_that_patient_and_cannot_sync(
    vault: Vault, permit: Permit, permit_for: Callable[..., Permit], nouns: Nouns, feed: Any
) -> None:
    feed.put(patient("p1"))
    feed.put(patient("p2"), owner="p2")
    sync.sync(permit, vault, feed, nouns)
    snapshot = query.snapshot_of(permit, vault, nouns)
    own = permit_for("rows:read", "rows:write", "lake:read", "lake:write", scope=("patient:p2",))
    assert query.views(own, vault, snapshot, ["patients"])["patients"].column("subject_id").to_pylist() == ["p2"]
    with pytest.raises(Refused):
        query.views(own, vault, snapshot, ["patients"], patient="p1")
    with pytest.raises(Refused):
        sync.sync(own, vault, feed, nouns)


def test_sql_selects_from_the_views_and_does_nothing_else(
    vault: Vault, permit: Permit, nouns: Nouns, feed: Any, tmp_path: Path
) -> None:
    feed.put(patient())
    feed.put(observation("o1", "7.10"))
    sync.sync(permit, vault, feed, nouns)
    snapshot = query.snapshot_of(permit, vault, nouns)
    text = "SELECT p.sex, o.value FROM observations o JOIN patients p USING (subject_id)"
    assert query.sql(permit, vault, snapshot, text).to_pylist() == [{"sex": "female", "value": 7.1}]
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")
    for hostile in (
        f"SELECT * FROM read_csv('{secret}')",
        f"SELECT * FROM '{secret}'",
        f"COPY patients TO '{tmp_path / 'out.parquet'}'",
        "CREATE TABLE t AS SELECT * FROM patients",
        "SELECT 1; SELECT 2",
        f"ATTACH '{tmp_path / 'x.db'}' AS x",
        "SET enable_external_access = true",
        "INSTALL httpfs",
        "PRAGMA database_list",
        "SELECT * FROM nothing",
        "",
    ):
        with pytest.raises(Invalid):
            query.sql(permit, vault, snapshot, hostile)
    assert not (tmp_path / "out.parquet").exists()


def test_views_of_one_patient_hold_that_patient_only(vault: Vault, permit: Permit, nouns: Nouns, feed: Any) -> None:
    feed.put(patient("p1"))
    feed.put(patient("p2"), owner="p2")
    feed.put(observation("o1"))
    feed.put({**observation("o2"), "subject": {"reference": "Patient/p2"}}, owner="p2")
    sync.sync(permit, vault, feed, nouns)
    found = query.views(permit, vault, query.snapshot_of(permit, vault, nouns), patient="p2")
    assert found["patients"].column("subject_id").to_pylist() == ["p2"]
    assert found["observations"].column("subject_id").to_pylist() == ["p2"]
    assert len(found["conditions"]) == 0
