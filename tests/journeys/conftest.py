"""The command line as users have it: each command a process, in workspaces that are made once and copied."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from forked import CARELAKE, Forked

CRASH = Path(__file__).with_name("journeys_crash_child.py")
PATIENTS, SEED = 1200, 7
SMALL, SMALL_SEED = 150, 11


@dataclass(frozen=True)
class Result:
    """How a command ended.

    Attributes:
        rss: the largest resident set of any of its processes, in bytes, as far as it could be watched.
    """

    code: int
    out: str
    err: str
    seconds: float
    rss: int

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, Any]:
        """The error that ``--json`` prints as the last line of stderr."""
        said: dict[str, Any] = json.loads(self.err.strip().splitlines()[-1])["error"]
        return said


@dataclass(frozen=True)
class Home:
    """A workspace, its key folder and a private place for temporary files, all below one folder."""

    folder: Path
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def workspace(self) -> Path:
        return self.folder / "ws"

    @property
    def keys(self) -> Path:
        return self.folder / "keys"

    @property
    def temporary(self) -> Path:
        return self.folder / "tmp"

    @property
    def program(self) -> str:
        """The command, for `start`."""
        return str(CARELAKE)

    @property
    def environment(self) -> dict[str, str]:
        """Nothing of the user's own: a home, keys and temporary files of this test."""
        for name in ("tmp", "home", "out"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder / "home"),
            "TMPDIR": str(self.temporary),
            "LANG": "C.UTF-8",
            "CARELAKE_KEY_DIR": str(self.keys),
            "CARELAKE_WORKSPACE": str(self.workspace),
            # Every object a file, for those tests that alter them; what lies inline has tests of its own.
            "CARELAKE_OBJECTS__INLINE_BYTES": "0",
            "PYTHONDONTWRITEBYTECODE": "1",
            # Steps in this process: each run would wait for another one to import what a learner needs. Processes of
            # steps have tests of their own (tests/pipelines).
            "CARELAKE_PIPELINES__ISOLATION": "none",
            **self.extra,
        }

    def start(self, command: list[str]) -> Running:
        """Begin a command in a process group of its own, as a shell does."""
        environment, out, err = self._places()
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = subprocess.Popen(
                command,
                env=environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
        return Running(process, out, err, time.monotonic())

    def fork(self, command: list[str], *, said: Path | None = None) -> Running:
        """As `start`, of a script in Python, by a process that has imported the package already.

        Args:
            said: a folder for what it prints, where that is not to lie beside the workspace.
        """
        environment, out, err = self._places(said)
        for path in (out, err):
            path.touch()
        return Running(Forked(command, environment, self.folder, out, err), out, err, time.monotonic())

    def _places(self, said: Path | None = None) -> tuple[dict[str, str], Path, Path]:
        number = time.monotonic_ns()
        environment = self.environment
        out, err = ((said or self.folder / "out") / f"{number}.{name}" for name in ("out", "err"))
        return environment, out, err

    def run(self, *arguments: str | Path, timeout: float = 240.0, expect: int | None = None) -> Result:
        """Run ``carelake ARGUMENTS`` to its end, or for ``timeout`` seconds, and check its exit code."""
        done = self.fork([str(CARELAKE), *map(str, arguments)]).wait(timeout)
        assert "Traceback" not in done.err, done.err
        assert expect is None or done.code == expect, (arguments, done.code, done.err[-2000:])
        return done

    def json(self, *arguments: str | Path, **other: Any) -> Any:
        """What ``carelake ARGUMENTS --json`` prints, when it ends well."""
        return self.run(*arguments, "--json", expect=0, **other).json

    def crash(self, point: str, *arguments: str | Path) -> Result:
        """Run a command that kills its process group at ``point`` (see the child's docstring)."""
        return self.fork([str(CRASH), point, *map(str, arguments)]).wait(240.0)

    def serve(self) -> tuple[Running, str]:
        """Begin ``carelake serve`` on a free port; its address."""
        running = self.start([str(CARELAKE), "serve", "--port", "0"])
        while not (found := re.search(r"Listening on (http://\S+)\n", running.err.read_text())):
            assert running.process.poll() is None, running.err.read_text()
            assert time.monotonic() - running.began < 60, "the server did not start"
            time.sleep(0.05)
        return running, found[1]

    def copy(self, folder: Path, **extra: str) -> Home:
        """The same workspace and keys, elsewhere."""
        folder.mkdir(parents=True)
        for name in ("ws", "keys"):
            shutil.copytree(self.folder / name, folder / name)
        return Home(folder, extra)

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextmanager
    def opened(self) -> Iterator[Any]:
        """The workspace open in this process, for what no command shows."""
        from carelake.apps.wiring import Workspace

        workspace = Workspace.open(self.workspace, self.environment)
        try:
            yield workspace
        finally:
            workspace.close()


@dataclass
class Running:
    """A command that was begun."""

    process: subprocess.Popen[bytes] | Forked
    out: Path
    err: Path
    began: float
    rss: int = 0

    def wait(self, timeout: float, *, kill_after: float | None = None) -> Result:
        """Wait for its end; kill it and its children after ``kill_after`` seconds."""
        asked = time.monotonic()
        while self.process.poll() is None:
            now = time.monotonic()
            self.rss = max(self.rss, _resident(self.process.pid))
            late = now - asked > timeout
            if late or (kill_after is not None and now - self.began >= kill_after):
                self.kill()
                self.process.wait()
                assert not late, "the command did not end"
            time.sleep(0.005 if kill_after is not None else 0.01)
        out, err = (path.read_text(encoding="utf-8", errors="replace") for path in (self.out, self.err))
        code = self.process.poll()
        assert code is not None
        return Result(code, out, err, time.monotonic() - self.began, self.rss)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to the process and all its children."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)


def _resident(pid: int) -> int:
    """The highest high-water mark of a process and its children, in bytes; 0 where there is no /proc.

    Not their sum: a child that is just being made shows its parent's memory as its own.
    """
    most, waiting = 0, [pid]
    while waiting:
        one = waiting.pop()
        try:
            status = Path(f"/proc/{one}/status").read_text()
            waiting += map(int, Path(f"/proc/{one}/task/{one}/children").read_text().split())
        except (OSError, ValueError):
            continue
        most = max([most, *(int(row.split()[1]) << 10 for row in status.splitlines() if row.startswith("VmHWM"))])
    return most


# -- made once, for all workers of a test run ------------------------------------------------------------------------


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str, Callable[[Path], None]], Path]]:
    """``once(name, build)``: a folder that the first worker who asks builds, and the last one removes."""
    here = tmp_path_factory.getbasetemp()
    root = (here.parent if "PYTEST_XDIST_WORKER" in os.environ else here) / "journeys"
    root.mkdir(exist_ok=True)
    with (root / "users").open("w") as users:
        fcntl.flock(users, fcntl.LOCK_SH)

        def get(name: str, build: Callable[[Path], None]) -> Path:
            with (root / f"{name}.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not (root / name / "whole").exists():
                    shutil.rmtree(root / name, ignore_errors=True)
                    (root / name).mkdir()
                    build(root / name)
                    (root / name / "whole").touch()
            return root / name

        yield get
        fcntl.flock(users, fcntl.LOCK_UN)
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        for folder in root.iterdir():
            if folder.is_dir():
                shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class Loop:
    """A workspace that went through the whole loop, and what each command of it printed. Copy it; never change it.

    Attributes:
        told: by step: ``init``, ``synth``, ``ingest``, ``again``, ``run``, ``rerun``, ``list``.
        read: the same workspace when it had read the sources, and not yet gone on from there.
    """

    home: Home
    sources: Path
    told: dict[str, Any]
    read: Home


@pytest.fixture(scope="session")
def loop(once: Any) -> Loop:
    """A hospital with enough readmissions for an honest model."""
    folder = once("loop", _loop)
    told = json.loads((folder / "told.json").read_text())
    return Loop(Home(folder), folder / "src", told, Home(folder / "read"))


def _loop(folder: Path) -> None:
    home = Home(folder)
    src = folder / "src"
    told = {"init": home.json("init", home.workspace)}
    # Older and sicker patients: as many readmissions from fewer resources.
    told["synth"] = home.json(
        "synth", "--patients", str(PATIENTS), "--seed", str(SEED), "--shift", "older", "--out", src
    )
    told["ingest"] = home.json("ingest", src)
    told["again"] = home.json("ingest", src)
    home.copy(folder / "read")
    told["run"] = home.json("run", "readmission")
    told["rerun"] = home.json("run", "readmission")
    told["list"] = home.json("predict", "readmission", "--days", "60")
    (folder / "told.json").write_text(json.dumps(told))


@pytest.fixture(scope="session")
def small(once: Any) -> Loop:
    """A new workspace and the files of a small hospital: too few for a model. ``home`` has not read them yet."""
    folder = once("small", _small)
    return Loop(Home(folder), folder / "src", json.loads((folder / "told.json").read_text()), Home(folder / "read"))


def _small(folder: Path) -> None:
    home = Home(folder)
    src = folder / "src"
    told = {"init": home.json("init", home.workspace)}
    told["synth"] = home.json("synth", "--patients", str(SMALL), "--seed", str(SMALL_SEED), "--out", src)
    told["ingest"] = home.copy(folder / "read").json("ingest", src)
    (folder / "told.json").write_text(json.dumps(told))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A folder for a copy, removed with all that is in it: copies are large."""
    yield tmp_path / "copy"
    shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.fixture
def new_home(small: Loop, place: Path) -> Home:
    """An empty workspace of this test's own."""
    return small.home.copy(place)
