"""One command's session: opens the workspace, runs the work, seals the trail, and ends with the right exit code."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from carelake.core.errors import CarelakeError, Invalid

__all__ = ["Options", "Session", "answer", "answers_only", "note", "run"]


@dataclass(frozen=True, slots=True)
class Options:
    """The global options."""

    workspace: Path | None = None
    as_: str | None = None
    purpose: str | None = None
    account: str | None = None


class Session:
    """An open workspace and the one who types."""

    def __init__(self, options: Options) -> None:
        from carelake.apps.wiring import Workspace

        self.options = options
        self.workspace = Workspace.open(self.root(options), os.environ)
        for one in self.workspace.changed:
            note(f"carelake: {one.reason}.")

    @staticmethod
    def root(options: Options) -> Path:
        """The workspace's folder: ``-w``, else ``CARELAKE_WORKSPACE``, else the current folder."""
        return (options.workspace or Path(os.environ.get("CARELAKE_WORKSPACE", "."))).absolute()

    def caller(self) -> Any:
        """Who types, resolved once; a stranger's attempt is put on the trail before it is refused."""
        purpose = self.options.purpose if self.options.purpose is not None else os.environ.get("CARELAKE_PURPOSE")
        try:
            return self.workspace.local(self.options.as_, purpose, self.options.account)
        except CarelakeError as error:
            nobody = self.workspace.identity.nobody()
            account = "production" if self.options.account is None else self.options.account
            self.workspace.gate.refuse(nobody, "door:cli", "workspace", account, error)
            raise

    def close(self) -> None:
        """Seal the trail and let go."""
        self.workspace.close()


@contextmanager
def _session(options: Options) -> Iterator[Session]:
    session = Session(options)
    try:
        yield session
    finally:
        session.close()


def run(work: str, options: Options, *, json_out: bool = False, opens: bool = True, **arguments: Any) -> None:
    """Run ``MODULE:FUNCTION`` of this package, with a session where it opens the workspace, and exit.

    Errors that we know end with one line on stderr (one JSON object with ``json_out``) and their exit code; a fault
    that we do not know says its type only, since its text may hold anything.
    """
    from carelake.apps.errors import exit_code, message_of

    try:
        function = _function(work)
        if opens:
            with _session(options) as session:
                code = function(session, json_out=json_out, **arguments)
        else:
            code = function(options, json_out=json_out, **arguments)
    except BrokenPipeError:
        _hang_up()
        code = 0
    except (Exception, KeyboardInterrupt) as error:
        if os.environ.get("CARELAKE_DEBUG") and not isinstance(error, CarelakeError):
            raise
        fault = _of_path(error, arguments)
        code = exit_code(fault)
        said = fault.code if isinstance(fault, CarelakeError) else type(fault).__name__
        if json_out:
            note(json.dumps({"error": {"code": said, "message": message_of(fault), "exit": code}}))
        else:
            note(
                "Interrupted." if isinstance(error, KeyboardInterrupt) else f"carelake: {message_of(fault)} [{said}]"
            )
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _hang_up()
    raise SystemExit(code or 0)


def _hang_up() -> None:
    """Nobody reads on: what is still to be said goes nowhere, and the interpreter does not complain at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _function(work: str) -> Callable[..., int | None]:
    module, _, name = work.partition(":")
    function: Callable[..., int | None] = getattr(importlib.import_module(f"carelake.apps.cli.{module}"), name)
    return function


def answers_only() -> None:
    """Keep stdout for answers: what a library prints to file descriptor 1 goes to stderr from now on."""
    sys.stdout.flush()
    own = os.dup(1)
    os.dup2(2, 1)
    by_line = 1 if os.isatty(own) else -1
    sys.stdout = os.fdopen(own, "w", by_line, encoding="utf-8", errors="backslashreplace")


def _of_path(error: BaseException, arguments: dict[str, Any]) -> BaseException:
    """What the system says of a path that the command was given is the caller's to mend, and no fault of ours."""
    wrong = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError)
    if not isinstance(error, wrong) or not isinstance(error.filename, str):
        return error
    at = Path(error.filename).absolute()
    given = [one.absolute() for one in arguments.values() if isinstance(one, Path)]
    if any(one in (at, *at.parents) or at in one.parents or _beside(at, one) for one in given):
        return Invalid("apps.no_such_path", "The file or folder cannot be opened or written; check the path given.")
    return error


def _beside(at: Path, one: Path) -> bool:
    """What is written beside a file, to be it once it is whole."""
    return at.parent == one.parent and at.name.startswith((".", one.name))


def answer(value: Any) -> None:
    """Write a JSON answer to stdout; decimals keep their digits."""
    from carelake.core.canonical import dump_pretty

    sys.stdout.write(dump_pretty(value) + "\n")


def note(text: str) -> None:
    """Write a line for people to stderr."""
    sys.stderr.write(text + "\n")


def existing(path: Path) -> Path:
    """The path, when it is there.

    Raises:
        Invalid: ``apps.no_such_path``.
    """
    if not path.exists():
        raise Invalid("apps.no_such_path", "There is no such file or folder; check the path given.")
    return path
