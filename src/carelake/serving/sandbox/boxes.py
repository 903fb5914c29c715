"""The sandboxes of a workspace's endpoints, in this process: begun when first asked, and anew when they have ended.

Each is attested before it is given a model: at a deployment its measurements become what the key ring asks for
(`vault.attested.policy`); from then on another one of the same measurements gets the keys, and no other. What is
released is noted in the act of whoever asked.
"""

from __future__ import annotations

import os
import time
import weakref
from collections import OrderedDict
from dataclasses import dataclass, replace
from threading import RLock
from typing import Any, cast

from carelake.core.errors import CarelakeError, Unavailable
from carelake.core.permit import Permit
from carelake.models import artifact
from carelake.models.artifact import ModelFiles
from carelake.models.registry import Registry
from carelake.serving.sandbox import measuring
from carelake.serving.sandbox.launcher import Sandbox
from carelake.serving.sandbox.scorer import BoxedScorer
from carelake.vault.attested.policy import Rule
from carelake.vault.workspace import Vault

__all__ = ["Boxes"]

_MOST = 8
_CALM, _LONGEST = 60.0, 30.0
_Key = tuple[str, str, str]


@dataclass
class _Box:
    """One that is awake.

    Attributes:
        generation: of the key ring under which its keys were released.
    """

    sandbox: Sandbox
    files: ModelFiles
    generation: int


@dataclass
class _Trouble:
    """How often one ended, or got no key; on a row of them nothing is begun for a while."""

    times: int
    last: float

    @property
    def until(self) -> float:
        return self.last + (min(_LONGEST, 0.5 * 2**self.times) if self.times > 1 else 0.0)


class Boxes:
    """Sandboxes by account, endpoint and model version."""

    def __init__(self, vault: Vault, registry: Registry) -> None:
        self._vault = vault
        self._registry = registry
        self._lock = RLock()
        self._turns: dict[_Key, RLock] = {}
        self._boxes: OrderedDict[_Key, _Box] = OrderedDict()
        self._troubles: dict[_Key, _Trouble] = {}
        self._process = os.getpid()
        weakref.finalize(self, _close, self._boxes, self._process)

    def admit(self, permit: Permit, endpoint: str, model: str) -> ModelFiles:
        """At a deployment: what a sandbox is now is what is asked of it from now on; then it is given the model.

        Needs ``models:read``, ``rows:read``, ``rows:write``.

        Raises:
            Unavailable: ``serving.sandbox_unavailable``, ``serving.sandbox_start``, ``vault.no_attestation``.
            And what `artifact.load` raises.
        """
        key = (permit.account, endpoint, model)
        with self._turn(key):  # the one before goes on until this one is ready
            self._troubles.pop(key, None)
            files, digests = self._outside(permit, model)
            sandbox = self._begun()
            try:
                found = sandbox.measured(measuring.of_model(model, digests))
                name = files.manifest.name
                objects = {file: (artifact.object_name(name, model, file), one) for file, one in digests.items()}
                rule = Rule(endpoint, model, "models", objects, [found])
                with self._vault.database.transaction(permit) as tx:
                    self._vault.objects.releases.allow(permit, tx, rule)
                return self._loaded(permit, key, sandbox, files, found)
            except BaseException:
                sandbox.close()
                raise

    def files(self, permit: Permit, endpoint: str, model: str) -> ModelFiles:
        """A version's files, whose scorer asks a sandbox; one is begun where there is none.

        Needs ``models:read``, ``rows:read``.

        Raises:
            Refused: ``vault.attestation_measurement`` and others of `vault.attested.releases`: it gets no key.
            Unavailable: ``serving.sandbox_failing``, while it is given some time after it ended again and again.
        """
        key = (permit.account, endpoint, model)
        found = self._awake(key)
        if found is None:
            with self._turn(key):  # others go on meanwhile
                found = self._awake(key)  # whoever had the turn before may have begun it
                if found is None:
                    self._patience(key)
                    found = self._again(permit, key)
        permit.log.read(model)
        return found

    def sleeps(self, account: str, endpoint: str, model: str) -> bool:
        """Whether one would have to be begun, and nothing says to wait."""
        key = (account, endpoint, model)
        awake, trouble = self._awake(key), self._troubles.get(key)
        return awake is None and (trouble is None or time.monotonic() >= trouble.until)

    def withdraw(self, permit: Permit, tx: Any, endpoint: str, model: str) -> None:
        """At a deployment without one: nothing more is released to it."""
        if self._vault.objects.releases.withdraw(permit, tx, endpoint):
            self._drop((permit.account, endpoint, model))

    def told(self, permit: Permit, endpoint: str, model: str) -> dict[str, Any]:
        """What is said of one in an endpoint's status. Needs ``rows:read``."""
        rule = self._vault.objects.releases.rule(permit, endpoint)
        with self._lock:
            box = self._boxes.get((permit.account, endpoint, model))
        if rule is None:
            return {"trust": None, "measurements": [], "awake": False}
        awake = box is not None and box.sandbox.alive
        where = {"outer": box.sandbox.outer, "module_id": box.sandbox.module} if box is not None and awake else {}
        return {"trust": rule.trust[0], "measurements": rule.allow, "awake": awake, **where}

    def attest(self, permit: Permit, endpoint: str, model: str, nonce: bytes) -> tuple[dict[str, str], bytes]:
        """Measurements of a sandbox that is begun for this alone, and their document: for who looks before deploying.

        Nothing is released to it. Needs ``models:read``, ``rows:read``.
        """
        _, digests = self._outside(permit, model)
        sandbox = self._begun()
        try:
            found = sandbox.measured(measuring.of_model(model, digests))
            said = sandbox.attested(endpoint, found, nonce, self._vault.clock.now().timestamp())
            return found, self._vault.objects.releases.attest(permit, said)
        finally:
            sandbox.close()

    # -- inside ---------------------------------------------------------------------------------------------------

    def _begun(self) -> Sandbox:
        said = self._vault.settings.serving
        return Sandbox(said.sandbox_seconds, outside=said.sandbox_outer)

    def _outside(self, permit: Permit, model: str) -> tuple[ModelFiles, dict[str, str]]:
        """All files but the model's own, and the digests of those."""
        digests: dict[str, str] = {}
        files = self._registry.files(permit, model, boxed=lambda found: artifact.unopened(digests, found))
        return files, digests

    def _again(self, permit: Permit, key: _Key) -> ModelFiles:
        model = key[2]
        files, digests = self._outside(permit, model)
        sandbox = self._begun()
        try:
            found = sandbox.measured(measuring.of_model(model, digests))
            return self._loaded(permit, key, sandbox, files, found)
        except BaseException as error:
            sandbox.close()
            if isinstance(error, CarelakeError):
                self._trouble(key)
            raise

    def _loaded(
        self, permit: Permit, key: _Key, sandbox: Sandbox, files: ModelFiles, measurements: dict[str, str]
    ) -> ModelFiles:
        releases, now = self._vault.objects.releases, self._vault.clock.now()
        nonce = releases.challenge(permit, key[1])
        document = releases.attest(permit, sandbox.attested(key[1], measurements, nonce, now.timestamp()))
        generation = self._vault.keyring.current().file.generation
        ready = sandbox.load(releases.release(permit, key[1], document))
        made = replace(files, scorer=cast(Any, BoxedScorer(sandbox, ready)))
        with self._lock:
            self._drop(key)
            self._boxes[key] = _Box(sandbox, made, generation)
            while len(self._boxes) > _MOST:
                self._drop(next(iter(self._boxes)))
        return made

    def _turn(self, key: _Key) -> RLock:
        with self._lock:
            return self._turns.setdefault(key, RLock())

    def _awake(self, key: _Key) -> ModelFiles | None:
        with self._lock:
            return self._found(key)

    def _found(self, key: _Key) -> ModelFiles | None:
        if self._process != os.getpid():  # these are another process's: two must not ask through one pipe
            self._boxes.clear()
            self._process = os.getpid()
        box = self._boxes.get(key)
        if box is None:
            return None
        if not box.sandbox.alive:
            self._trouble(key)
            self._drop(key)
            return None
        # A key that was disabled or destroyed since opens nothing that was opened under it before.
        if box.generation != self._vault.keyring.current().file.generation:
            self._drop(key)
            return None
        self._boxes.move_to_end(key)
        return box.files

    def _drop(self, key: _Key) -> None:
        with self._lock:
            box = self._boxes.pop(key, None)
        if box is not None:
            box.sandbox.retire()

    def _trouble(self, key: _Key) -> None:
        now, before = time.monotonic(), self._troubles.get(key)
        again = before is not None and now - before.last < _CALM
        self._troubles[key] = _Trouble(before.times + 1 if before is not None and again else 1, now)

    def _patience(self, key: _Key) -> None:
        trouble = self._troubles.get(key)
        if trouble is not None and time.monotonic() < trouble.until:
            raise Unavailable(
                "serving.sandbox_failing",
                f"The sandbox of the endpoint ended {trouble.times} times; another one is begun in a moment. Look at "
                "the endpoint's alarms and its acts.",
            )


def _close(boxes: OrderedDict[_Key, _Box], process: int) -> None:
    for box in boxes.values() if process == os.getpid() else ():  # a fork that ends leaves them to their owner
        box.sandbox.close()
