"""Commands of ``carelake``, each a process forked from one that has imported the package; see `forked_parent`.

One or two such parents for each worker of a test run, whatever room asks first.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

CARELAKE = Path(sys.executable).with_name("carelake")
PARENT = Path(__file__).with_name("forked_parent.py")
# Commands of these words go on from a parent that has read the lake's and the models' libraries too.
HEAVY = frozenset({"lake", "run", "predict", "monitor", "model"})


class Parent:
    """The process that forks commands. It ends with its standard input, which is ours."""

    def __init__(self, kind: str) -> None:
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, str(PARENT), kind],
            env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        atexit.register(self._end)

    def ask(self, **said: Any) -> Any:
        with self._lock:
            asked, answers = self._process.stdin, self._process.stdout
            assert asked is not None
            assert answers is not None
            asked.write(json.dumps(said, default=str).encode() + b"\n")
            asked.flush()
            return json.loads(answers.readline())

    def _end(self) -> None:
        self._process.communicate()


_parent = cache(Parent)


class Forked:
    """A command that was forked, as far like `subprocess.Popen` as tests need it.

    Args:
        command: a script in Python, and its arguments.
        out: a file that is there; likewise ``err`` and ``given``, its standard input.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        folder: Path,
        out: Path,
        err: Path,
        given: Path = Path(os.devnull),
    ) -> None:
        told = {"command": [*command], "environment": {**environment}, "folder": folder}
        self._parent = _parent("heavy" if HEAVY.intersection(command) else "light")
        self.returncode: int | None = None
        self.pid: int = self._parent.ask(begin={**told, "in": given, "out": out, "err": err})["pid"]

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._parent.ask(poll=self.pid)["code"]
        return self.returncode

    def wait(self, timeout: float = 240.0) -> int:
        end = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                os.killpg(self.pid, 9)
                raise TimeoutError("the command did not end")
            time.sleep(0.005)
        return code


def run(
    *command: str | bytes, env: Mapping[str, str], given: str | bytes = b"", timeout: float = 240.0
) -> subprocess.CompletedProcess[str]:
    """Run a script, by default of the name ``carelake``, to its end.

    Args:
        command: its arguments; the script itself first, when its name ends in ``.py``.
        given: what stands on its standard input.
    """
    words = [os.fsdecode(word) for word in command]
    script = [] if words and words[0].endswith(".py") else [str(CARELAKE)]
    with tempfile.TemporaryDirectory(prefix="carelake-forked-") as made:
        folder = Path(made)
        out, err, stdin = (folder / name for name in ("out", "err", "in"))
        stdin.write_bytes(given.encode() if isinstance(given, str) else given)
        for path in (out, err):
            path.touch()
        code = Forked([*script, *words], env, Path.cwd(), out, err, stdin).wait(timeout)
        said = [path.read_text(encoding="utf-8", errors="replace") for path in (out, err)]
    return subprocess.CompletedProcess(words, code, *said)
