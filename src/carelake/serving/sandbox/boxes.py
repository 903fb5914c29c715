"""The sandboxes of a workspace's endpoints, in this process: begun when first asked, and anew when they have ended.

Each is attested before it is given a model: at a deployment its measurements become what the key ring asks for
(`vault.attested.policy`), in the deployment's own transaction; from then on another one of the same measurements gets
the keys, and no other. What is released is noted in the act of whoever asked.
"""

from __future__ import annotations

import os
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from threading import RLock
from typing import Any, cast

from sqlalchemy import Connection

from carelake.core.errors import CarelakeError, Corrupt, Unavailable
from carelake.core.permit import Permit
from carelake.models import artifact
from carelake.models.artifact import ModelFiles
from carelake.models.registry import Registry
from carelake.serving.sandbox import measuring
from carelake.serving.sandbox.launcher import Sandbox
from carelake.serving.sandbox.scorer import BoxedScorer
from carelake.vault.attested.policy import Rule
from carelake.vault.database import scope_of
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

    @contextmanager
    def admitting(self, permit: Permit, models: Mapping[str, str]) -> Iterator[Callable[[Connection], None]]:
        """At a deployment: sandboxes as they are now, each measured and given its model before anything is changed.

        Yields what makes that what is asked of them from now on: for the deployment's transaction. Where the block
        fails nothing is asked otherwise than before, and these end; else they are the ones that answer.

        Args:
            models: by the endpoint's ref.

        Needs ``models:read``, ``rows:read``, ``rows:write``.

        Raises:
            Unavailable: ``serving.sandbox_unavailable``, ``serving.sandbox_start``, ``vault.no_attestation``.
            And what `artifact.load` raises.
        """
        made: dict[_Key, tuple[_Box, Rule]] = {}
        with ExitStack() as stack:
            for endpoint, model in models.items():
                key = (permit.account, endpoint, model)
                with self._turn(key):
                    made[key] = self._admitted(permit, key)
                stack.callback(made[key][0].sandbox.close)
            rules = [rule for _, rule in made.values()]
            yield lambda tx: self._vault.objects.releases.allow(permit, tx, *rules)
            stack.pop_all()
        for key, (box, _) in made.items():  # the ones before went on until now
            self._install(key, box)

    def _admitted(self, permit: Permit, key: _Key) -> tuple[_Box, Rule]:
        _, endpoint, model = key
        self._troubles.pop(key, None)
        files, digests = self._outside(permit, model)
        sandbox = self._begun()
        try:
            found = sandbox.measured(measuring.of_model(model, digests))
            name = files.manifest.name
            objects = {file: (artifact.object_name(name, model, file), one) for file, one in digests.items()}
            rule = Rule(endpoint, model, "models", objects, [found])
            box = self._opened(permit, key, sandbox, files, found, rule)
            with self._vault.database.transaction(permit):
                """The release is in the trail before, and whether or not, there is a deployment."""
            return box, rule
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

    def known(self, tx: Connection, account: str, endpoints: Iterable[str]) -> set[str]:
        """Those of some endpoints that run in a sandbox, or did."""
        return self._vault.objects.releases.known(tx, account, endpoints)

    def returns(self, permit: Permit, endpoint: str, *, boxed: bool) -> bool:
        """Whether it can be come back to as it was deployed: what was closed can in a sandbox as little as without.

        Needs ``rows:read``.
        """
        rule = self._vault.objects.releases.rule(permit, endpoint)
        return bool(rule.allow) if rule is not None else not boxed

    def closed(self, permit: Permit, endpoint: str) -> bool:
        """Whether it is in order that nothing is released to a sandbox of it. Needs ``rows:read``."""
        try:
            return not self.returns(permit, endpoint, boxed=True)
        except Corrupt:
            return False

    def withdraw(self, permit: Permit, tx: Connection, endpoints: Iterable[str]) -> None:
        """These serve without one: nothing more is released to them."""
        gone = {(permit.account, one) for one in self._vault.objects.releases.withdraw(permit, tx, endpoints)}
        if gone:
            scope_of(tx).after.append(lambda: self._end(gone))

    def close(self, permit: Permit, tx: Connection, endpoints: Iterable[str]) -> None:
        """Nothing more is released to these; those that are awake end."""
        closed = {(permit.account, one) for one in self._vault.objects.releases.close(permit, tx, endpoints)}
        if closed:
            scope_of(tx).after.append(lambda: self._end(closed))

    def tidy(self, permit: Permit) -> None:
        """End those of the account to which nothing is released any more: another process saw to that."""
        with self._lock:
            awake = {key[:2] for key in self._boxes if key[0] == permit.account}
        self._end({one for one in awake if self.closed(permit, one[1])})

    def _end(self, closed: set[tuple[str, str]]) -> None:
        with self._lock:
            for key in [key for key in self._boxes if key[:2] in closed]:
                self._drop(key)

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
        _, endpoint, model = key
        self._vault.objects.releases.standing(permit, endpoint)  # for what was closed no process is begun
        files, digests = self._outside(permit, model)
        sandbox = self._begun()
        try:
            found = sandbox.measured(measuring.of_model(model, digests))
            box = self._opened(permit, key, sandbox, files, found)
            self._install(key, box)
            return box.files
        except BaseException as error:
            sandbox.close()
            if isinstance(error, CarelakeError):
                self._trouble(key)
            raise

    def _opened(
        self,
        permit: Permit,
        key: _Key,
        sandbox: Sandbox,
        files: ModelFiles,
        measurements: dict[str, str],
        rule: Rule | None = None,
    ) -> _Box:
        """One that has opened its model, by a rule that is about to be allowed, or by the one that was."""
        releases, now = self._vault.objects.releases, self._vault.clock.now()
        nonce = releases.challenge(permit, key[1])
        document = releases.attest(permit, sandbox.attested(key[1], measurements, nonce, now.timestamp()))
        generation = self._vault.keyring.current().file.generation
        ready = sandbox.load(releases.release(permit, key[1], document, rule))
        return _Box(sandbox, replace(files, scorer=cast(Any, BoxedScorer(sandbox, ready))), generation)

    def _install(self, key: _Key, box: _Box) -> None:
        with self._lock:
            self._drop(key)
            self._boxes[key] = box
            while len(self._boxes) > _MOST:
                self._drop(next(iter(self._boxes)))

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
