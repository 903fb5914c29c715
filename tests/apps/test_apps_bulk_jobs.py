"""Bulk jobs through the ends of processes: taken up again, cancelled, expired, and dropped by an erasure."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.apps.served import Lines, admit, bearer, known, serving

from carelake.access.identity import Caller
from carelake.access.principals import Principals
from carelake.apps.cli.bulk_folder import FolderSink
from carelake.apps.wiring import Workspace
from carelake.core.errors import Conflict, NotFound
from carelake.core.permit import Permit
from carelake.pipelines.export import ACTION, ZONE, Asked, VaultSink, begin, carry_out, drop_copies
from carelake.store.jobs import Job, Jobs, Part

PATIENTS = 11


class Made:
    """A workspace with some patients, whose exports have two resources a file."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self.environment = {"CARELAKE_KEY_DIR": str(folder / "keys"), "CARELAKE_BULK__PART_RESOURCES": "2"}
        self.environment |= {f"CARELAKE_BULK__{name}": value for name, value in settings.items()}
        Workspace.create(folder / "workspace", self.environment).close()
        self.workspace = Workspace.open(folder / "workspace", self.environment)
        self.caller = Caller(known(self.workspace, "operator"), "HOPERAT", "production")
        self.jobs = Jobs(self.workspace.vault)
        with self.writing("record:write") as (permit, tx):
            for number in range(PATIENTS):
                self.workspace.resources.update(permit, tx, {"resourceType": "Patient", "id": f"p{number}"})

    def enter(self, target: str, action: str = ACTION) -> AbstractContextManager[Permit]:
        return self.workspace.enter(self.caller, action, target)

    def writing(self, action: str = ACTION) -> Any:
        from contextlib import contextmanager

        @contextmanager
        def both() -> Iterator[Any]:
            with self.enter("record", action) as permit, self.workspace.vault.database.transaction(permit) as tx:
                yield permit, tx

        return both()

    def begin(self) -> str:
        workspace = self.workspace
        with self.enter("record") as permit:
            return begin(workspace.vault, workspace.gate, permit, workspace.resources, Asked(request="test"))

    def carry_out(self, job: str, **how: Any) -> Job:
        vault = self.workspace.vault
        return carry_out(vault, self.enter, self.workspace.resources, job, VaultSink(vault), **how)

    def told(self, job: str) -> tuple[Job, list[Part]]:
        with self.writing() as (permit, tx):
            return self.jobs.get(permit, tx, job), self.jobs.parts(tx, job)

    def token(self) -> dict[str, str]:
        return bearer(self.workspace, self.caller.principal.name, "HOPERAT")


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Made]:
    found = Made(tmp_path, POLL_SECONDS="0.1")
    yield found
    found.workspace.close()


def ids(client: httpx.Client, url: str, headers: dict[str, str]) -> list[str]:
    manifest = client.get(url, headers=headers).json()
    texts = [client.get(one["url"], headers=headers).text for one in manifest["output"]]
    return sorted(json.loads(line)["id"] for text in texts for line in text.splitlines())


def finished(client: httpx.Client, url: str, headers: dict[str, str]) -> httpx.Response:
    for _ in range(200):
        told = client.get(url, headers=headers)
        if told.status_code != 202:
            return told
        time.sleep(0.05)
    raise AssertionError("the job did not end")


def stopped_after(parts: int) -> Any:
    """Stop when so many parts are done."""
    seen: list[int] = []

    def progress(done: int, of: int) -> None:
        seen.append(done)

    return {"stop": lambda: len(set(seen)) > parts, "progress": progress}


def test_the_server_goes_on_with_what_another_process_left(made: Made) -> None:
    stopped, killed = made.begin(), made.begin()
    for job in (stopped, killed):
        with pytest.raises(Conflict, match="is ending"):
            made.carry_out(job, **stopped_after(3))
        done = [part.done for part in made.told(job)[1]]
        assert 0 < sum(done) < len(done)
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    with made.writing() as (permit, tx):
        made.jobs.claim(permit, tx, killed)
        dead = json.dumps({"host": os.uname().nodename, "pid": child, "started": 1, "until": "2999-01-01T00:00:00Z"})
        tx.exec_driver_sql("UPDATE bulk_job SET process = ? WHERE id = ?", (dead, killed))
    with serving(made.workspace, Lines()) as url, httpx.Client(base_url=url, timeout=20) as client:
        for job in (stopped, killed):
            address = f"/fhir/$export/{job}"
            assert finished(client, address, made.token()).status_code == 200
            assert ids(client, address, made.token()) == sorted(f"p{number}" for number in range(PATIENTS))


def test_cancelling_ends_a_running_export_and_leaves_nothing(made: Made) -> None:
    job = made.begin()

    def progress(done: int, of: int) -> None:
        if 0 < done < of and made.told(job)[0].state == "running":
            with made.writing() as (permit, tx):
                made.jobs.drop(permit, tx, job, "cancelled")

    with pytest.raises((Conflict, NotFound)):
        made.carry_out(job, progress=lambda done, of: progress(done, of) if done % 2 == 0 else None)
    with made.enter("record") as permit:
        assert made.workspace.vault.objects.list(permit, ZONE, "bulk/") == []
    with pytest.raises(NotFound):
        made.told(job)


def test_files_go_when_their_time_is_over(tmp_path: Path) -> None:
    made = Made(tmp_path, KEEP_SECONDS="0", POLL_SECONDS="0.05")
    try:
        job = made.begin()
        made.carry_out(job)
        with serving(made.workspace, Lines()) as url, httpx.Client(base_url=url, timeout=20) as client:
            for _ in range(100):
                if client.get(f"/fhir/$export/{job}", headers=made.token()).status_code == 404:
                    break
                time.sleep(0.05)
            else:
                raise AssertionError("the files are still there")
        with made.enter("record") as permit:
            assert made.workspace.vault.objects.list(permit, ZONE, "bulk/") == []
    finally:
        made.workspace.close()


def test_what_its_owner_may_not_do_any_more_ends_and_its_files_go(tmp_path: Path) -> None:
    made = Made(tmp_path, KEEP_SECONDS="0", POLL_SECONDS="0.05")
    try:
        admit(made.workspace, "person", leaver="operator")
        made.caller = Caller(known(made.workspace, "leaver"), "HOPERAT", "production")
        done, waiting = made.begin(), made.begin()
        made.carry_out(done)
        with made.workspace.vault.database.ledger() as connection:
            Principals(connection).disable("leaver")
        made.caller = Caller(known(made.workspace, "operator"), "HOPERAT", "production")
        with serving(made.workspace, Lines()):
            for _ in range(100):
                with made.enter("record") as permit, made.workspace.vault.database.reading(permit) as tx:
                    told = dict(tx.exec_driver_sql("SELECT id, state FROM bulk_job").all())
                if told == {done: "expired", waiting: "failed"}:
                    break
                time.sleep(0.05)
        assert told == {done: "expired", waiting: "failed"}
        with made.enter("record") as permit:
            assert made.workspace.vault.objects.list(permit, ZONE, "bulk/") == []
    finally:
        made.workspace.close()


def test_an_erasure_drops_every_file(made: Made) -> None:
    job = made.begin()
    made.carry_out(job)
    with made.enter("record") as permit:
        assert made.workspace.vault.objects.list(permit, ZONE, "bulk/")
        assert drop_copies(made.workspace.vault, permit, frozenset({"p1"})) == {"bulk_jobs": 1}
        assert made.workspace.vault.objects.list(permit, ZONE, "bulk/") == []


def test_a_file_that_lies_in_the_folder_is_not_written_into(made: Made, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    part = out / ".Patient-0001.ndjson.part"
    part.write_text("")
    part.chmod(0o666)
    with part.open() as theirs, made.enter("record") as permit:
        sink = FolderSink(out)
        assert sink.commit(sink.write(permit, "job", "Patient-0001.ndjson", iter([b"{}"]))) == 2
        assert theirs.read() == ""
    assert (out / "Patient-0001.ndjson").stat().st_mode & 0o777 == 0o600


def test_so_many_jobs_at_once_and_no_more(made: Made) -> None:
    for _ in range(made.workspace.settings.bulk.most_jobs):
        made.begin()
    with made.writing() as (_, tx):
        tx.exec_driver_sql(
            "UPDATE bulk_job SET process = ?",
            (json.dumps({"host": "elsewhere", "pid": 1, "started": 1, "until": "2999-01-01T00:00:00Z"}),),
        )
    with serving(made.workspace, Lines()) as url, httpx.Client(base_url=url, timeout=20) as client:
        asked = {"Prefer": "respond-async", **made.token()}
        assert client.get("/fhir/$export", headers=asked).status_code == 429
