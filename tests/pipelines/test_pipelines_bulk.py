"""Bulk export and import as commands: one workspace to another and back, and through kills at any moment."""

from __future__ import annotations

import json
import os
import signal
import stat
import textwrap
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import forked
from carelake.core import canonical

LINES = 120


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "CARELAKE_KEY_DIR": str(folder / "keys"), "CARELAKE_BULK__PART_RESOURCES": "25"}


def carelake(folder: Path, workspace: str, *arguments: str, code: int = 0) -> Any:
    """One command on a workspace; its JSON answer."""
    done = forked.run("-w", str(folder / workspace), *arguments, "--json", env=environment(folder))
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout if code == 0 else done.stderr.splitlines()[-1])


def init(folder: Path, workspace: str) -> None:
    done = forked.run("init", str(folder / workspace), "--json", env=environment(folder))
    assert done.returncode == 0, done.stderr


def write(path: Path, resources: list[Any]) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"".join(one if isinstance(one, bytes) else canonical.dump(one) + b"\n" for one in resources))
    return path


def record() -> list[Any]:
    """Resources of many forms, in the forms that tell a parser from a copier."""
    found: list[Any] = [
        {"resourceType": "Patient", "id": f"p{n}", "name": [{"family": 'é "meta":{ \\ 日'}], "active": n % 2 == 0}
        for n in range(LINES - 3)
    ]
    found.append(
        b'{"resourceType":"Observation","id":"o","status":"final","code":{"text":"x"},"valueQuantity":{"value":1.10},'
        b'"meta":{"versionId":"7","lastUpdated":"2020-01-01T00:00:00Z","tag":[{"code":"t"}],'
        b'"extension":[{"url":"u","extension":[{"url":"v","valueDecimal":1e2}]}]}}\n'
    )
    inner = {"resourceType": "Patient", "id": "c", "meta": {"versionId": "3"}}
    found.append({"resourceType": "Condition", "id": "c", "contained": [inner], "subject": {"reference": "#c"}})
    found.append({"resourceType": "Basic", "id": "b", "code": {"text": "x"}, "meta": {"profile": ["http://x"]}})
    return found


def resources_of(folder: Path) -> dict[str, bytes]:
    """Canonical bytes of each resource, without the two that are the record's own; each is there once."""
    found: dict[str, bytes] = {}
    for path in folder.glob("*.ndjson"):
        for line in path.read_bytes().splitlines():
            resource = canonical.load(line)
            if resource["resourceType"] == "Bundle":
                continue
            meta = resource.pop("meta")
            del meta["versionId"], meta["lastUpdated"]
            ref = f"{resource['resourceType']}/{resource['id']}"
            assert ref not in found
            found[ref] = canonical.dump({**resource, **({"meta": meta} if meta else {})})
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a workspace ``one`` that has `record`."""
    init(tmp_path, "one")
    report = carelake(tmp_path, "one", "import", str(write(tmp_path / "in" / "a.ndjson", record()).parent))
    assert (report["stored"], report["failed"]) == (LINES, 0)
    return tmp_path


def test_an_export_imported_elsewhere_is_the_same_and_so_are_deletions(folder: Path) -> None:
    first = carelake(folder, "one", "export", "--out", str(folder / "out"))
    assert (first["resources"], first["error"]) == (LINES, [])
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in (folder / "out").iterdir())
    assert {path.name for path in (folder / "out").iterdir()} == {
        "manifest.json",
        *(one["url"] for one in first["output"]),
    }
    init(folder, "two")
    imported = carelake(folder, "two", "import", str(folder / "out"), "--outcomes", str(folder / "told"))
    assert (imported["stored"], imported["failed"]) == (LINES, 0)
    assert len((folder / "told" / "success.ndjson").read_text().splitlines()) == LINES
    again = carelake(folder, "two", "import", str(folder / "out"))
    assert (again["stored"], again["unchanged"]) == (0, LINES)
    carelake(folder, "two", "export", "--out", str(folder / "back"))
    assert resources_of(folder / "back") == resources_of(folder / "out")
    # Back where it came from, nothing changes either: only the times and numbers differ.
    back = carelake(folder, "one", "import", str(folder / "back"))
    assert (back["stored"], back["unchanged"]) == (0, LINES)
    refused = carelake(folder, "one", "export", "--out", str(folder / "out"), code=5)
    assert refused["error"]["code"] == "apps.not_empty"


def test_changes_and_deletions_follow(folder: Path) -> None:
    first = carelake(folder, "one", "export", "--out", str(folder / "out"))
    init(folder, "two")
    carelake(folder, "two", "import", str(folder / "out"))
    deletion = {"resourceType": "Bundle", "type": "transaction"}
    deletion["entry"] = [{"request": {"method": "DELETE", "url": "Patient/p1"}}]
    write(folder / "more" / "gone.ndjson", [deletion])
    write(folder / "more" / "changed.ndjson", [{"resourceType": "Patient", "id": "p2", "gender": "other"}])
    manifest = {"output": [{"type": "Patient", "url": "changed.ndjson"}], "deleted": [{"url": "gone.ndjson"}]}
    (folder / "more" / "manifest.json").write_text(json.dumps(manifest))
    done = carelake(folder, "one", "import", str(folder / "more"))
    assert (done["stored"], done["deleted"]) == (1, 1)
    since = ("--since", first["transactionTime"])
    later = carelake(folder, "one", "export", "--out", str(folder / "later"), *since)
    assert (later["resources"], later["deletions"]) == (1, 1)
    followed = carelake(folder, "two", "import", str(folder / "later"))
    assert (followed["stored"], followed["deleted"]) == (1, 1)
    assert carelake(folder, "two", "read", "Patient/p2")["gender"] == "other"
    assert carelake(folder, "two", "read", "Patient/p1", code=4)["error"]["code"] == "store.deleted"
    # The older export cannot bring back what is newer, or was deleted since.
    old = carelake(folder, "two", "import", str(folder / "out"), "--mode", "incremental")
    assert old["stored"] == 0
    assert carelake(folder, "two", "read", "Patient/p2")["gender"] == "other"


KILLED = """
    import os, signal, sys
    import sqlalchemy
    from sqlalchemy import event
    from carelake.apps.cli import bulk_folder

    left = int(sys.argv.pop(1))

    def moment(*_, **__):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(sqlalchemy.Engine, "commit", moment)
    published = bulk_folder.publish

    def publish(*words):
        moment()
        published(*words)
        moment()

    bulk_folder.publish = publish
    from carelake.ingest import reader
    reader.TARGET_ENTRIES = 10
    from carelake.apps.cli.main import main
    main()
"""


def killed(folder: Path, *arguments: str, every: bool = False) -> tuple[Any, int]:
    """The same command, killed ever later, until one run ends by itself: its answer, and the number of kills."""
    script = folder / "killed.py"
    script.write_text(textwrap.dedent(KILLED))
    moment, kills = 3, 0
    while True:
        done = forked.run(str(script), str(moment), *arguments, "--json", env=environment(folder) | SMALL)
        if done.returncode == 5 and "apps.not_empty" in done.stderr:
            return None, kills  # it was killed when the export was at its end
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        if done.returncode == 0:
            return json.loads(done.stdout), kills
        kills += 1
        moment += 1 if every else kills + 1


SMALL = {"CARELAKE_INGEST__PAGE": "10", "CARELAKE_BULK__PART_RESOURCES": "10"}


@pytest.mark.slow
def test_kill_9_of_an_export_loses_and_doubles_nothing(folder: Path) -> None:
    out = folder / "out"
    _, kills = killed(folder, "-w", str(folder / "one"), "export", "--out", str(out))
    assert kills >= 4
    manifest = json.loads((out / "manifest.json").read_text())
    assert sum(one["count"] for one in manifest["output"]) == LINES == len(resources_of(out))
    assert {path.name for path in out.iterdir()} == {"manifest.json", *(one["url"] for one in manifest["output"])}
    carelake(folder, "one", "export", "--out", str(folder / "whole"))
    assert resources_of(out) == resources_of(folder / "whole")
    assert carelake(folder, "one", "audit", "verify")["intact"]


@pytest.mark.slow
def test_kill_9_of_an_import_loses_and_doubles_nothing(folder: Path) -> None:
    carelake(folder, "one", "export", "--out", str(folder / "out"))
    init(folder, "two")
    told = folder / "told"
    done, kills = killed(folder, "-w", str(folder / "two"), "import", str(folder / "out"), "--outcomes", str(told))
    assert kills >= 4
    assert done["read"] == done["stored"] + done["unchanged"] == LINES
    outcomes = [json.loads(line) for line in (told / "success.ndjson").read_text().splitlines()]
    counted = Counter((one["file"], one["lineId"]) for one in outcomes)
    assert set(counted.values()) == {1}
    assert len(counted) == LINES
    assert {one["statusCode"] for one in outcomes} == {201}
    carelake(folder, "two", "export", "--out", str(folder / "back"))
    assert resources_of(folder / "back") == resources_of(folder / "out")
    assert carelake(folder, "two", "audit", "verify")["intact"]


@pytest.mark.soak
def test_kill_9_at_every_moment(folder: Path) -> None:
    init(folder, "two")
    out, back = folder / "out", folder / "back"
    assert killed(folder, "-w", str(folder / "one"), "export", "--out", str(out), every=True)[1] > 20
    assert len(resources_of(out)) == LINES
    assert killed(folder, "-w", str(folder / "two"), "import", str(out), every=True)[1] > 10
    carelake(folder, "two", "export", "--out", str(back))
    assert resources_of(back) == resources_of(out)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("export", "--out", "X", "--type", "Nonsense"), 2),
        (("export", "--out", "X", "--since", "yesterday"), 2),
        (("export", "--out", "X", "--filter", "Patient"), 2),
        (("export", "--out", "X", "--as", "auditor"), 3),
        (("import", "nowhere"), 2),
        (("import", "in", "--mode", "other"), 2),
        (("import", "in", "--as", "auditor"), 3),
    ],
)
def test_exit_codes(tmp_path_factory: pytest.TempPathFactory, words: tuple[str, ...], code: int) -> None:
    folder = tmp_path_factory.getbasetemp() / "codes"
    if not folder.exists():
        init(folder, "one")
        write(folder / "in" / "a.ndjson", [{"resourceType": "Patient", "id": "a"}])
    named = [str(folder / word) if word in ("X", "in", "nowhere") else word for word in words]
    assert carelake(folder, "one", *named, code=code)["error"]["exit"] == code
