"""The model commands, and the decisions that doors make through `pipelines.releases`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from carelake.access.identity import Caller
from carelake.apps.cli.main import app
from carelake.apps.wiring import Workspace
from carelake.core.errors import Refused
from carelake.core.nouns import Noun
from carelake.models import artifact, bundle, card, evaluate, matrix, train
from carelake.models.registry import APPROVED, REJECTED
from carelake.monitor import baseline
from carelake.pipelines import releases

NAMES = ["a", "b", "c"]
SOURCE = "trainingset:" + "0" * 64


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    random = np.random.default_rng(1)
    count = 3_000
    x = random.normal(size=(count, 3))
    part = np.arange(count) / count
    table = pa.table(
        {
            "subject_id": [f"p{at}" for at in range(count)],
            "label": random.random(count) < 1 / (1 + np.exp(-(x[:, 0] - 1))),
            "set": np.where(part < 0.5, "train", np.where(part < 0.6, "calibration", "test")),
            "sex": np.where(np.arange(count) % 2, "female", "male"),
            **{name: x[:, at] for at, name in enumerate(NAMES)},
        }
    )
    data, plan = matrix.rows(table, NAMES), train.Plan(replicates=50)
    scorer = train.train(data, plan, training_set=SOURCE)
    metrics = evaluate.evaluate(data, scorer, plan)
    content = card.card(scorer, metrics, plan, card.About(SOURCE, "pipeline"))
    return artifact.pack(scorer, metrics, content, card.html(content, {}), baseline.of_model(data, scorer).to_bytes())


@dataclass
class Place:
    """A workspace, and two versions of a model in it."""

    root: Path
    workspace: Workspace
    refs: list[str]

    @property
    def caller(self) -> Caller:
        return self.workspace.local(None, None, None)

    def as_(self, name: str) -> Caller:
        return self.workspace.local(name, None, None)


@pytest.fixture
def place(tmp_path: Path, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    environment = {"CARELAKE_KEY_DIR": str(tmp_path / "keys")}
    monkeypatch.setenv("CARELAKE_KEY_DIR", environment["CARELAKE_KEY_DIR"])
    workspace = Workspace.create(tmp_path / "w", environment)
    refs = []
    with workspace.platform.acting("pipeline", workspace.local(None, None, None), "model:train", "models") as permit:
        with workspace.vault.database.transaction(permit) as tx:
            workspace.nouns.write(tx, Noun(SOURCE, "production", "made", permit.act))
        for number in (1, 2):
            said = {**json.loads(files["baseline.json"]), "number": number}
            more = {**files, "baseline.json": json.dumps(said).encode()}
            refs.append(workspace.platform.registry.register(permit, "readmission", SOURCE, more).ref)
    yield Place(tmp_path / "w", workspace, refs)
    workspace.close()


def deployed(place: Place, ref: str) -> None:
    with place.workspace.platform.acting("pipeline", place.caller, "endpoint:deploy", "readmission") as permit:
        place.workspace.platform.endpoints.deploy(permit, "readmission", ref)


def serves(place: Place) -> str | None:
    platform = place.workspace.platform
    with (
        platform.acting("endpoint", place.caller, "model:read", "readmission") as permit,
        place.workspace.vault.database.reading(permit) as tx,
    ):
        found = place.workspace.nouns.find(tx, "endpoint", "production", name="readmission")
    return next((str(one.body["model"]) for one in found if one.state == "InService"), None)


@pytest.mark.parametrize("door", ["cli", "aws"])
def test_rejecting_an_approved_version_puts_the_one_before_back(place: Place, door: str) -> None:
    platform, reviewer = place.workspace.platform, place.as_("reviewer")
    for ref in place.refs:
        assert releases.approve(platform, reviewer, ref).noun.state == APPROVED
        deployed(place, ref)
    assert serves(place) == place.refs[1]
    if door == "cli":
        done = releases.reject(platform, reviewer, place.refs[1], description="drill")
        assert (done.noun.state, done.endpoints) == (REJECTED, ("readmission",))
    else:
        asked = {"ModelPackageArn": place.refs[1], "ModelApprovalStatus": REJECTED}
        with place.workspace.enter(reviewer, "model:approve", "models") as permit:
            releases.update(platform, permit, asked)
    assert serves(place) == place.refs[0]


def test_a_rejection_that_was_broken_off_is_said_again(place: Place) -> None:
    platform, reviewer = place.workspace.platform, place.as_("reviewer")
    for ref in place.refs:
        releases.approve(platform, reviewer, ref)
        deployed(place, ref)
    with place.workspace.enter(reviewer, "model:approve", place.refs[1]) as permit:
        platform.registry.reject(permit, place.refs[1])  # and killed here
    assert releases.reject(platform, reviewer, place.refs[1]).endpoints == ("readmission",)
    assert serves(place) == place.refs[0]
    assert releases.reject(platform, reviewer, place.refs[1]).endpoints == ()


def test_what_was_never_approved_changes_no_endpoint(place: Place) -> None:
    platform, reviewer = place.workspace.platform, place.as_("reviewer")
    releases.approve(platform, reviewer, place.refs[0])
    deployed(place, place.refs[0])
    assert releases.reject(platform, reviewer, place.refs[1]).endpoints == ()
    assert serves(place) == place.refs[0]
    with pytest.raises(Refused):
        releases.approve(platform, place.caller, place.refs[1])
    assert releases.approve_in_plan(platform, place.caller, place.refs[1]) is None


@pytest.mark.slow
def test_the_commands_tell_what_the_registry_has(place: Place, tmp_path: Path) -> None:
    ref, root = place.refs[0], str(place.root)
    place.workspace.close()

    def run(*words: str, expect: int = 0) -> Any:
        done = CliRunner().invoke(app, ["-w", root, *words])
        assert done.exit_code == expect, (words, done.output, done.exception)
        return json.loads(done.stdout) if "--json" in words else done.stdout

    assert [one["version"] for one in run("model", "list", "--group", "readmission", "--json")] == [2, 1]
    assert run("model", "groups", "--json")[0]["approved"] is None
    run("model", "approve", ref, expect=3)
    assert run("--as", "reviewer", "model", "approve", ref, "--description", "seen", "--json")["state"] == APPROVED
    said = run("model", "show", ref, "--json")
    assert said["approval"]["approver"] == "reviewer"
    assert all(one["ok"] for one in said["evidence"])
    moved = run("model", "lifecycle", ref, "Development", "PendingApproval", "--json")
    assert moved["StageStatus"] == "PendingApproval"
    run("model", "card", ref, "--format", "xml", "--out", str(tmp_path / "card.xml"))
    assert (tmp_path / "card.xml").read_bytes().startswith(b"<?xml")
    run("model", "card", ref, "--format", "pdf", expect=2)

    folder, key = tmp_path / "out", tmp_path / "key.pem"
    key.write_text(run("model", "export", ref, "--out", str(folder), "--json")["public_key"])
    assert run("model", "verify", str(folder), "--json")["verified"]
    run("model", "verify", str(folder), "--key", str(key))
    key.write_text("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
    run("model", "verify", str(folder), "--key", str(key), expect=2)
    (folder / "model.txt").write_bytes(b"tree\n")
    run("model", "verify", str(folder), expect=6)

    plan = Path(__file__).resolve().parents[2] / "docs" / "examples" / "change-plan.yaml"
    run("model", "plan", "check", "readmission", "--file", str(plan))
    assert run("model", "plan", "set", "readmission", "--file", str(plan), "--json")["state"] == "PendingApproval"
    run("--as", "reviewer", "model", "plan", "approve", "readmission")
    verdict = run("model", "plan", "check", "readmission", "--json", expect=1)
    assert verdict["state"] == "OutOfPlan"
    assert {"subgroups by age_group"} <= {
        one["check"] for one in verdict["body"]["lines"] if one["verdict"] == "outside"
    }


def test_a_folder_is_checked_before_it_is_read(tmp_path: Path) -> None:
    held: Callable[[bytes, bytes], bool] = lambda data, mark: True  # noqa: E731
    with pytest.raises(Refused):
        bundle.checked({}, held)
