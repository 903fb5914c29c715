"""Steps in processes of their own: their limits, their ends, and a ``kill -9`` of whoever carries them out."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from executing import Home, condition, of, processing, text, value

from carelake.apps.stepping import command
from carelake.apps.wiring import Workspace
from carelake.core.settings import PipelineSettings
from carelake.pipelines import dsl
from carelake.pipelines.execution.launching import InThreads
from carelake.pipelines.execution.processes import InProcesses
from carelake.pipelines.execution.running import run_task
from carelake.pipelines.names import execution_arn

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    folder = tmp_path_factory.mktemp("processes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CARELAKE_KEY_DIR", str(folder / "keys"))
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        made = Workspace.create(folder / "ws", os.environ)
        yield made
        made.close()


@pytest.fixture(scope="module")
def home(workspace: Workspace) -> Iterator[Home]:
    limits = PipelineSettings(memory_mb=700, cpu_seconds=60, seconds=60)
    launcher = InProcesses(command(workspace.vault.root, None, ("pipelines.platform",)), limits)
    yield Home(workspace.vault, launcher, principals=False)
    launcher.close()


def small(log: Path | None = None, seconds: float = 0) -> str:
    """Two steps beside each other, one that takes both, a question, and one after it; nothing is cached."""
    told = {"log": log} if log else {}
    asked = {"Type": "GreaterThan", "LeftValue": value("c"), "RightValue": 4}
    return text(
        processing("a", "test.sleep", number=2, seconds=seconds, **told),
        processing("b", "test.sleep", number=3, seconds=seconds, **told),
        processing("c", "test.add", inputs={"x": of("a"), "y": of("b")}, **told),
        condition("big", [asked], [processing("d", "test.add", inputs={"x": of("c")}, number=1, **told)]),
    )


def outputs(steps: Any) -> dict[str, Any]:
    return {name: row.output.get("outputs") for name, row in steps.items()}


def test_steps_run_in_processes_and_say_how_much_they_held(home: Home) -> None:
    one, steps = home.run(small())
    assert one.status == "Succeeded", one.reason
    assert all(steps[name].memory > 0 for name in "abcd")
    elsewhere = Home(home.vault, principals=False)
    again, found = elsewhere.run(small())
    assert again.status == "Succeeded"
    assert outputs(found) == outputs(steps)  # threads or processes, the same bytes


@pytest.mark.parametrize(
    ("job", "settings", "more", "code"),
    [
        ("test.eat", {"mb": 900}, {}, "pipelines.limit"),
        ("test.sleep", {"seconds": 30}, {"MaxRuntimeInSeconds": 1}, "pipelines.limit"),
        ("test.crash", {}, {}, "pipelines.crashed"),
    ],
)
def test_a_step_beyond_its_limits_or_gone_is_a_failure_that_says_so(
    home: Home, job: str, settings: Any, more: Any, code: str
) -> None:
    step = processing("x", job, **settings)
    step["Arguments"] |= {"StoppingCondition": more} if more else {}
    begun = time.monotonic()
    one, steps = home.run(text(step))
    assert (one.status, steps["x"].output["error"]["code"]) == ("Failed", code)
    kind = "SageMaker.RESOURCE_LIMIT" if code == "pipelines.limit" else "SageMaker.JOB_INTERNAL_ERROR"
    assert steps["x"].failures == (kind,)
    assert time.monotonic() - begun < 25


def test_processor_time_is_limited(workspace: Workspace) -> None:
    limits = PipelineSettings(cpu_seconds=1)
    launcher = InProcesses(command(workspace.vault.root, None, ("pipelines.platform",)), limits)
    try:
        _, steps = Home(workspace.vault, launcher, principals=False).run(
            text(processing("x", "test.spin", seconds=30))
        )
        assert steps["x"].output["error"]["code"] == "pipelines.limit"
    finally:
        launcher.close()


def test_a_stop_ends_the_processes_of_steps(home: Home) -> None:
    home.define(small(seconds=30))
    execution = home.start()
    arn = {"PipelineExecutionArn": execution_arn("production", "small", execution)}

    def told(_: Any, steps: Any) -> None:
        if all(name in steps for name in "ab"):
            with home.enter() as permit:
                home.pipelines.stop_pipeline_execution(permit, arn)

    begun = time.monotonic()
    assert home.carry(execution, told).status == "Stopped"
    assert {row.status for row in home.steps(execution).values()} == {"Stopped"}
    assert time.monotonic() - begun < 20


def killed(workspace: Workspace, execution: str, at: int) -> int:
    """Carry an execution out in a process that ends itself by ``kill -9`` at the so-manieth row; its end."""
    pid = os.fork()
    if pid == 0:
        try:
            other = Workspace.open(workspace.vault.root, os.environ)
            home = Home(other.vault, principals=False)
            rows = iter(range(1, 1000))

            def told(_: Any, __: Any) -> None:
                if next(rows) == at:
                    os.kill(os.getpid(), signal.SIGKILL)

            home.carry(execution, told)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_killed_at_every_step_and_gone_on_it_is_as_if_nothing_had_happened(workspace: Workspace) -> None:
    home = Home(workspace.vault, principals=False)
    undisturbed = outputs(home.run(small())[1])
    kills = 0
    for at in range(1, 30):
        execution = home.start()
        if killed(workspace, execution, at) == 0:
            break
        kills += 1
        one = home.carry(execution)
        steps = home.steps(execution)
        assert one.status == "Succeeded", one.reason
        assert outputs(steps) == undisturbed
        assert {row.status for row in steps.values()} == {"Succeeded"}
    assert kills >= 8  # a, b, c and d begin and end, and the question is answered


def learning() -> str:
    """Every type of step that makes something: rows, candidates, a model, a batch, checks, a version."""
    rows = dsl.Processing("rows", "test.rows", outputs=["dataset"])
    tune = dsl.Tuning(
        "tune", "models.train", "auroc", {"training": rows.output("dataset")}, {"ridge": [1, 30]}, settings=LOGISTIC
    )
    named = dsl.Model("named", tune.top_model(0, "bucket"))
    score = dsl.Transform("score", named.called, rows.output("dataset"), settings={"part": "test"})
    first = {"skip": True, "register": True}
    good = dsl.QualityCheck("good", "MODEL_QUALITY", score.output, **first)
    just = dsl.ClarifyCheck("just", "MODEL_BIAS", rows.output("dataset"), model=named.called, **first)
    why = dsl.ClarifyCheck("why", "MODEL_EXPLAINABILITY", rows.output("dataset"), model=named.called, **first)
    enter = dsl.Register("enter", tune.model, "risks", baselines={"MODEL_QUALITY": good.used})
    return dsl.Pipeline("small", [rows, tune, named, score, good, just, why, enter]).definition()


LOGISTIC = {"kind": "logistic"}


@pytest.fixture(scope="module")
def patient(workspace: Workspace) -> Iterator[Home]:
    """Without limits of time: a soak may be frozen for as long as somebody measures."""
    limits = PipelineSettings(memory_mb=0, cpu_seconds=0, seconds=0)
    launcher = InProcesses(command(workspace.vault.root, None, ("pipelines.platform",)), limits)
    yield Home(workspace.vault, launcher, principals=False)
    launcher.close()


@pytest.mark.soak
@pytest.mark.parametrize(("definition", "times", "longest"), [(small, 200, 0.6), (learning, 40, 8.0)])
def test_killed_at_random_moments_again_and_again(
    workspace: Workspace, patient: Home, definition: Callable[[], str], times: int, longest: float
) -> None:
    undisturbed = outputs(patient.run(definition())[1])
    drawn = random.Random(7)
    for _ in range(times):
        execution = patient.start()
        for _ in range(drawn.randint(1, 3)):
            pid = os.fork()
            if pid == 0:
                other = Workspace.open(workspace.vault.root, os.environ)
                mine = Home(other.vault, principals=False)
                mine.carry(execution)
                os._exit(0)
            time.sleep(drawn.random() * longest)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        one = patient.carry(execution)
        assert one.status == "Succeeded", one.reason
        assert outputs(patient.steps(execution)) == undisturbed


def test_a_killed_executor_leaves_no_step_running(workspace: Workspace, home: Home, tmp_path: Path) -> None:
    """Its warm process hears that the other end is gone, and ends what it began."""
    home.define(small(tmp_path / "log", seconds=60))
    execution = home.start()
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        limits = PipelineSettings()
        launcher = InProcesses(command(workspace.vault.root, None, ("pipelines.platform",)), limits)
        launcher.warm()
        assert launcher.process is not None
        os.write(tell, json.dumps(launcher.process.pid).encode())
        other = Workspace.open(workspace.vault.root, os.environ)
        Home(other.vault, launcher, principals=False).carry(execution)
        os._exit(0)
    warm = int(os.read(told, 32))
    until = time.monotonic() + 40
    while not (tmp_path / "log").exists() and time.monotonic() < until:
        time.sleep(0.05)
    children = Path(f"/proc/{warm}/task/{warm}/children").read_text().split()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert children
    while any(Path(f"/proc/{one}").exists() for one in (*children, warm)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{one}").exists() for one in children)
    # What was under way is begun again by whoever comes next.
    home.define(small(), name="other")
    with home.enter() as permit:
        arn = {"PipelineExecutionArn": execution_arn("production", "small", execution)}
        home.pipelines.stop_pipeline_execution(permit, arn)
    assert home.carry(execution).status == "Stopped"


def test_threads_cannot_be_stopped_but_end(workspace: Workspace) -> None:
    home = Home(workspace.vault, principals=False)
    launcher = InThreads(lambda task: run_task(home.platform, home.caller, task))
    task = {
        "id": "x",
        "execution": "e",
        "pipeline": "p",
        "step": "s",
        "type": "Processing",
        "does": "jobs_for_tests:crashless",
    }
    done = launcher.begin({**task, "request": {}, "local": False}).result()
    assert done["error"]["kind"] == "SageMaker.JOB_INTERNAL_ERROR"
    launcher.stop(task)
    launcher.close()
