"""One byte flipped in each kind of stored thing: it is named, the exit code tells, and there is no traceback."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def home(loop: Any, tmp_path_factory: Any) -> Iterator[Any]:
    made = loop.home.copy(tmp_path_factory.mktemp("tamper") / "copy")
    yield made
    made.remove()


@contextmanager
def flipped(path: Path, at: int | None = None) -> Iterator[None]:
    """The file with one bit of one byte turned over, by default of the one in the middle; put right afterwards."""
    where = path.stat().st_size // 2 if at is None else at % path.stat().st_size
    turn(path, where)
    try:
        yield
    finally:
        turn(path, where)


def turn(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        [byte] = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 1]))


def stored(home: Any, zone: str, like: str = "%", account: str = "production") -> list[tuple[Path, str]]:
    """Files of a zone and what they are called, the newest version of each, the largest first."""
    query = (
        "SELECT object, name, max(seq) FROM object_version "
        "WHERE account = ? AND zone = ? AND name LIKE ? AND NOT deleted GROUP BY name ORDER BY size DESC"
    )
    with home.opened() as workspace, workspace.vault.database.ledger_reading() as connection:
        rows = connection.exec_driver_sql(query, (account, zone, like)).all()
    folder = home.workspace / "vault" / account / zone
    return [(folder / opaque[:2] / opaque, name) for opaque, name, _ in rows]


def verdict(home: Any) -> Any:
    """What ``audit verify`` says of a workspace that is not intact."""
    done = home.run("audit", "verify", "--json", expect=6)
    told = done.json
    assert told["intact"] is False
    assert told["first_bad"] == told["problems"][0]
    assert told["first_bad"]["reason"]
    return told


def test_before_all_is_intact(home: Any) -> None:
    assert home.json("audit", "verify")["intact"] is True


@pytest.mark.parametrize("at", [0, 20, None, -1])
def test_a_byte_of_a_segment(home: Any, at: int | None) -> None:
    path, name = stored(home, "audit", account="security")[0]
    with flipped(path, at):
        told = verdict(home)
    number = int(name.rpartition("/")[2])
    assert told["first_bad"]["kind"] == "segment"
    assert told["first_bad"]["name"] == f"segment {number}"


@pytest.mark.parametrize(
    ("zone", "like"),
    [
        ("landing", "%"),
        ("lake", "%.parquet"),
        ("lake", "%.metadata.json"),
        ("lake", "%.avro"),
        ("features", "%"),
        ("models", "%"),
    ],
)
@pytest.mark.parametrize("at", [3, None, -1])
def test_a_byte_of_an_object(home: Any, zone: str, like: str, at: int | None) -> None:
    path, name = stored(home, zone, like)[0]
    with flipped(path, at):
        told = verdict(home)
    assert told["first_bad"]["name"] == name
    assert len(told["problems"]) == 1


def test_every_file_of_the_model_is_watched(home: Any) -> None:
    files = stored(home, "models")
    assert len(files) >= 3
    with ExitStack() as stack:
        for path, _ in files:
            stack.enter_context(flipped(path))
        told = verdict(home)
    assert {problem["name"] for problem in told["problems"]} == {name for _, name in files}


def test_an_altered_model_is_not_used(home: Any, loop: Any) -> None:
    patient = loop.told["list"][0]["patient"]
    files = {name.rpartition("/")[2]: path for path, name in stored(home, "models")}
    for file in ("model.txt", "manifest.sig"):
        with flipped(files[file]):
            done = home.run("predict", "readmission", "--patient", patient, "--json", expect=6)
        assert done.out == ""
        assert done.error["message"]
    home.json("predict", "readmission", "--patient", patient)


def test_an_altered_lake_gives_no_list(home: Any) -> None:
    tables = [
        path for path, name in stored(home, "lake", "%.parquet") if "/Encounter/" in name or "Encounter" in name
    ]
    with flipped(tables[0]):
        done = home.run("predict", "readmission", "--days", "60", "--json", expect=6)
    assert done.out == ""


def test_a_missing_file_is_named(home: Any) -> None:
    for zone in ("landing", "models", "lake"):
        path, name = stored(home, zone)[0]
        path.rename(path.with_suffix(".away"))
        try:
            told = verdict(home)
        finally:
            path.with_suffix(".away").rename(path)
        assert (told["first_bad"]["kind"], told["first_bad"]["name"]) == ("missing", name)


def test_two_files_that_change_places_are_both_named(home: Any) -> None:
    (one, _), (two, _) = stored(home, "landing")[:2]
    swap(one, two)
    try:
        told = verdict(home)
    finally:
        swap(one, two)
    assert len(told["problems"]) == 2


def swap(one: Path, two: Path) -> None:
    one.rename(one.with_suffix(".away"))
    two.rename(one)
    one.with_suffix(".away").rename(two)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.35, 0.6, 0.85, 1.0])
def test_a_byte_of_the_database(home: Any, place: Path, share: float) -> None:
    """Each page has a MAC, so whatever reads it fails; ``verify`` reads all."""
    copy = home.copy(place)
    path = copy.workspace / "carelake.db"
    with flipped(path, min(int(path.stat().st_size * share), path.stat().st_size - 1)):
        done = copy.run("audit", "verify", "--json", expect=6)
    assert done.json["intact"] is False
    assert done.json["first_bad"]["kind"] in ("database", "workspace")
    assert "database" in done.json["first_bad"]["reason"].lower() or "pages" in done.json["first_bad"]["reason"]


def test_every_line_of_the_key_ring(home: Any) -> None:
    path = home.workspace / "keyring.json"
    size = path.stat().st_size
    for share in (0.01, 0.2, 0.5, 0.8, 0.99):
        with flipped(path, int(size * share)):
            told = verdict(home)
        assert told["first_bad"]["name"].startswith("vault."), share


def test_a_byte_of_the_root_key_and_of_the_head(home: Any) -> None:
    [key] = home.keys.glob("*.key")
    with flipped(key):
        assert verdict(home)["first_bad"]["name"] in ("vault.wrong_key", "vault.root_key")
    for at in (1, None, -3):
        [head] = home.keys.glob("*.head")
        with flipped(head, at):
            before = head.read_bytes()
            done = home.run("audit", "verify", "--json", expect=6)
            assert head.read_bytes() == before, "a head that was altered was replaced"
        assert done.json["first_bad"]["kind"] == "head"
    assert home.json("audit", "verify")["intact"] is True


def test_a_head_that_is_gone_and_a_tail_that_is_cut(home: Any, place: Path) -> None:
    copy = home.copy(place)
    [head] = copy.keys.glob("*.head")
    head.unlink()
    assert verdict(copy)["first_bad"]["name"] == "head"
    assert verdict(copy)["first_bad"]["name"] == "head", "the missing head was made anew"


def test_an_older_state_of_the_workspace_is_found_out(home: Any, place: Path) -> None:
    """The folder put back to how it was, while the head beside the key has gone on."""
    old = home.copy(place)
    home.json("status")
    home.json("status")
    for file in home.keys.iterdir():
        shutil.copy2(file, old.keys / file.name)
    assert verdict(old)["first_bad"]["kind"] == "head"


def test_a_row_of_the_trail_that_was_changed_is_named(home: Any, place: Path) -> None:
    copy = home.copy(place)
    with copy.opened() as workspace, workspace.vault.database.ledger() as connection:
        changed = connection.exec_driver_sql("UPDATE act SET principal = 'somebody' WHERE seq = 7").rowcount
    assert changed == 1
    assert verdict(copy)["first_bad"]["name"] == "act 7"


def test_a_workspace_without_its_key_says_what_is_missing(home: Any, place: Path) -> None:
    copy = home.copy(place)
    [key] = copy.keys.glob("*.key")
    name = key.stem
    shutil.rmtree(copy.keys)
    for arguments in (
        ("audit", "verify"),
        ("search", "Patient"),
        ("status",),
        ("predict", "readmission", "--days", "1"),
    ):
        done = copy.run(*arguments, "--json", expect=7)
        assert done.out == ""
        assert done.error["code"] == "vault.root_key_missing"
        assert name in done.error["message"]
        assert str(copy.keys) in done.error["message"]
    assert not copy.keys.exists() or not list(copy.keys.iterdir()), "a command made a key where there was none"


def test_settings_of_another_workspace_are_refused(home: Any, small: Any, place: Path) -> None:
    copy = home.copy(place)
    shutil.copy(small.home.workspace / "carelake.toml", copy.workspace / "carelake.toml")
    assert verdict(copy)["first_bad"]["name"].startswith("vault.")
    done = copy.run("search", "Patient", "--json", expect=6)
    assert done.error["code"].startswith("vault.")


def test_after_all_is_intact_again(home: Any) -> None:
    assert home.json("audit", "verify")["intact"] is True
