"""What a job is given and what it gives: the seam between a pipeline and the functions of the rooms."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from carelake.access.identity import Caller
from carelake.core.errors import Invalid, NotFound, Refused, Unsupported
from carelake.core.nouns import KINDS, Noun
from carelake.core.permit import Permit
from carelake.pipelines.execution import artifacts

if TYPE_CHECKING:
    from carelake.pipelines.platform import Platform

__all__ = ["Files", "Given", "JobFunction", "Made", "Work", "digest_of", "given"]

_BYTES = 1 << 30
_SERVICE = "pipeline"
_REF = re.compile(rf"({'|'.join(KINDS)}):([0-9a-f]{{64}})(?:/([^/]{{1,128}}))?")


@dataclass(frozen=True, slots=True)
class Given:
    """One input: a noun, a file in an artifact, or a file of this machine.

    Attributes:
        ref: of the noun, "" for a file of this machine.
        file: in the artifact, or its path on this machine; "" for a noun as a whole.
    """

    ref: str
    file: str = ""


@dataclass(frozen=True, slots=True)
class Files:
    """Files that a job leaves: figures and models, never rows of patients."""

    content: Mapping[str, bytes]
    made_from: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Made:
    """What a job gave.

    Attributes:
        outputs: by output name: the ref of a noun that it wrote, or files. A Training job's model is ``model``.
        values: output parameters of a function; other properties by their path.
        metrics: figures of a training, by name.
        violated: why a check that came to its end fails all the same, "" where it does not; its outputs stay.
    """

    outputs: Mapping[str, str | Files] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    violated: str = ""


@dataclass(frozen=True)
class Work:
    """One step's work.

    Attributes:
        settings: its Environment, HyperParameters, or a function's arguments.
        arguments: its ContainerArguments.
        inputs: by InputName or ChannelName.
        request: the whole of its arguments, every reference resolved.
        local: whether the execution was started by who types at this machine.
        asked: actions that its starter was asked for: its result is given to nobody who may not do them (`reuse`).
    """

    platform: Platform
    caller: Caller
    execution: str
    pipeline: str
    step: str
    settings: Mapping[str, Any]
    arguments: Sequence[str]
    inputs: Mapping[str, Given]
    request: Mapping[str, Any]
    local: bool = False
    asked: set[str] = field(default_factory=set)

    def acting(
        self, action: str, target: str, *, name: str = _SERVICE, job: bool = False
    ) -> AbstractContextManager[Permit]:
        """Enter the gate as a service principal, on behalf of who started the execution.

        Raises:
            Refused: ``access.denied``, also where that one may not do it with what they came with.
        """
        if name == _SERVICE:
            self.check(action, target)
        return self.platform.acting(name, self.caller, action, target, job=job)

    def check(self, action: str, target: str) -> None:
        """Let pass what who started the execution may do too, with what they came with; `Refused` ``access.denied``.

        A step has the rights of the service principal, and is not to lend them.
        """
        self.asked.add(action)
        caller, gate = self.caller, self.platform.gate
        if not gate.explain(caller.principal, action, caller.account, caller.purpose).allowed:
            with gate.enter(caller.principal, action, target, caller.purpose, account=caller.account):
                """It refuses, and the trail tells of it."""

    def ref(self, name: str) -> str:
        """The ref of an input; `Invalid` ``pipelines.no_input``."""
        found = self.inputs.get(name)
        if found is None or not found.ref:
            raise Invalid("pipelines.no_input", f"The job needs an input {name} that is a noun; give the step one.")
        return found.ref

    def data(self, name: str) -> bytes:
        """The bytes of an input that is a file of this machine; `Invalid` ``pipelines.no_input``."""
        found = self.inputs.get(name)
        if found is None or found.ref:
            raise Invalid("pipelines.no_input", f"The job needs an input {name} that is file:///PATH; give it one.")
        with Path(found.file).open("rb") as opened:
            data = opened.read(_BYTES + 1)
        if len(data) > _BYTES:
            raise Invalid("pipelines.input_size", f"An input file has at most {_BYTES >> 20} MiB.")
        return data

    def noun(self, permit: Permit, ref: str) -> Noun:
        """A noun of the permit's account."""
        with self.platform.vault.database.reading(permit) as connection:
            return self.platform.nouns.get(connection, ref, account=permit.account)

    def read(self, permit: Permit, ref: str, name: str) -> bytes:
        """A file of an artifact; needs the grant ``models:read``."""
        return artifacts.read(permit, self.platform.vault, self.noun(permit, ref), name)


JobFunction = Callable[[Work], Made]
"""Does the work of a step; an error of `core.errors` is its failure."""


def given(uri: str, *, local: bool) -> Given:
    """The input that a URI means: a ref, ``ARTIFACT/FILE``, or ``file:///PATH`` where that is allowed.

    Raises:
        Unsupported: ``pipelines.uri``. Refused: ``pipelines.not_local``. NotFound: ``pipelines.no_such_file``.
    """
    found = _REF.fullmatch(uri)
    if found is not None:
        return Given(f"{found[1]}:{found[2]}", found[3] or "")
    if uri.startswith("file:///"):
        if not local:
            raise Refused("pipelines.not_local", "Files of this machine are inputs only of who types at it.")
        path = Path(unquote(uri.removeprefix("file://")))
        if not path.is_file():
            raise NotFound("pipelines.no_such_file", "There is no such file; check the path given.")
        return Given("", str(path))
    raise Unsupported(
        "pipelines.uri",
        "An input is what another step gave (Get: Steps.…S3Uri), a ref KIND:DIGEST, or file:///PATH; nothing else is "
        "read here.",
    )


def digest_of(path: str) -> str:
    """SHA-256 of a file of this machine."""
    with Path(path).open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
