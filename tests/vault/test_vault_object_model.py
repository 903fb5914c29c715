"""Objects against a model: versions, markers, restore, conditions, holds, retention, purge, uploads, reopening.

The model is a list of versions for each name. What the vault answers, refuses, keeps and removes must be what the
model says, after any sequence of steps; and the files are those of the versions that have bytes, and no others.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from carelake.core.clock import FixedClock
from carelake.core.errors import CarelakeError
from carelake.core.ids import RandomIds
from carelake.core.permit import Permit, mint
from carelake.core.settings import ObjectSettings, Settings
from carelake.vault.objects import ObjectVersion
from carelake.vault.workspace import Vault

ZONE = "landing"
PHASES = (Phase.explicit, Phase.generate)  # shrinking takes minutes
NAMES = st.sampled_from(["a", "b"])
DATA = st.binary(max_size=40)
PICK = st.integers(0, 30)
GRANTS = [f"{ZONE}:read", f"{ZONE}:write", f"{ZONE}:keep", "rows:read", "rows:write", "vault:verify"]


class Silent:
    def read(self, *refs: str) -> None: ...
    def wrote(self, *refs: str) -> None: ...
    def count(self, **numbers: int) -> None: ...
    def key(self, name: str) -> None: ...
    def note(self, **facts: object) -> None: ...
    def flush(self, connection: Any) -> None: ...


@dataclass
class Version:
    id: str
    data: bytes | None  # None: a delete marker
    tags: dict[str, str] = field(default_factory=dict)
    held: bool = False
    mode: str = ""
    until: datetime | None = None

    def kept(self, now: datetime) -> str:
        if self.held:
            return "vault.held"
        return "vault.retained" if self.until is not None and self.until > now else ""


class Objects(RuleBasedStateMachine):
    inline = 16

    @initialize()
    def begin(self) -> None:
        self.clock = FixedClock(datetime(2026, 1, 2, tzinfo=UTC))
        self.folder = Path(tempfile.mkdtemp(prefix="carelake-model-"))
        self.settings = Settings(workspace="w1", objects=ObjectSettings(inline_bytes=self.inline))
        self.said: dict[str, Any] = {"settings": self.settings, "key_dir": self.folder / "keys", "clock": self.clock}
        self.vault = Vault.create(self.folder / "ws", ids=RandomIds(), **self.said)
        self.there: dict[str, list[Version]] = {}
        self.ever: set[str] = set()

    def teardown(self) -> None:
        if hasattr(self, "vault"):
            self.vault.close()
            shutil.rmtree(self.folder)

    @property
    def permit(self) -> Permit:
        return mint(
            act="a" * 32, principal="t", account="production", purpose="TREAT", action="t", target="t", grants=GRANTS,
            scope=(), expires=self.clock.now() + timedelta(hours=1), log=Silent(),
        )  # fmt: skip

    def current(self, name: str) -> Version | None:
        versions = self.there.get(name)
        return versions[-1] if versions else None

    def alive(self, name: str) -> Version | None:
        now = self.current(name)
        return now if now is not None and now.data is not None else None

    def pick(self, name: str, number: int) -> Version | None:
        versions = self.there.get(name, [])
        return versions[number % len(versions)] if versions else None

    def absent(self, name: str) -> str:
        return "vault.deleted" if self.there.get(name) or name in self.ever else "vault.object"

    def expect(self, code: str, call: Any) -> Any:
        said, answer = "", None
        try:
            answer = call()
        except CarelakeError as error:
            said = error.code
        assert said == code
        return answer

    def enter(self, name: str, told: ObjectVersion, data: bytes | None, tags: dict[str, str] | None = None) -> None:
        self.there.setdefault(name, []).append(Version(told.version, data, tags or {}))
        self.ever.add(name)

    # -- steps ------------------------------------------------------------------------------------------------------

    @rule(name=NAMES, data=DATA)
    def put(self, name: str, data: bytes) -> None:
        self.enter(name, self.vault.objects.put(self.permit, ZONE, name, data, tags={"n": name}), data, {"n": name})

    @rule(name=NAMES, data=DATA)
    def put_if_absent(self, name: str, data: bytes) -> None:
        code = "vault.precondition" if self.alive(name) else ""
        told = self.expect(code, lambda: self.vault.objects.put(self.permit, ZONE, name, data, if_none_match=True))
        if told is not None:
            self.enter(name, told, data)

    @rule(name=NAMES, data=DATA, number=PICK)
    def put_if_match(self, name: str, data: bytes, number: int) -> None:
        wanted, now = self.pick(name, number), self.alive(name)
        match = wanted.id if wanted else "none"
        code = "" if now is not None and now.id == match else "vault.precondition"
        told = self.expect(code, lambda: self.vault.objects.put(self.permit, ZONE, name, data, if_match=match))
        if told is not None:
            self.enter(name, told, data)

    @rule(name=NAMES, parts=st.lists(DATA, min_size=1, max_size=3), shuffle=st.booleans())
    def upload(self, name: str, parts: list[bytes], shuffle: bool) -> None:
        uploads = self.vault.objects.uploads
        begun = uploads.begin(self.permit, ZONE, name)
        order = list(enumerate(parts, 1))
        for number, data in reversed(order) if shuffle else order:
            uploads.put(self.permit, ZONE, begun.id, number, b"replaced")
            uploads.put(self.permit, ZONE, begun.id, number, data)
        uploads.put(self.permit, ZONE, begun.id, 77, b"not named at the end")
        named = uploads.parts(self.permit, ZONE, begun.id)[:-1]
        self.enter(name, uploads.complete(self.permit, ZONE, begun.id, named), b"".join(parts))

    @rule(name=NAMES)
    def upload_and_abort(self, name: str) -> None:
        uploads = self.vault.objects.uploads
        begun = uploads.begin(self.permit, ZONE, name)
        uploads.put(self.permit, ZONE, begun.id, 1, b"x")
        uploads.abort(self.permit, ZONE, begun.id)

    @rule(name=NAMES)
    def mark(self, name: str) -> None:
        code = "" if self.alive(name) else "vault.object"
        told = self.expect(code, lambda: self.vault.objects.remove(self.permit, ZONE, name))
        if told is not None:
            self.enter(name, told, None)

    @rule(name=NAMES, number=PICK)
    def remove_one(self, name: str, number: int) -> None:
        one = self.pick(name, number)
        if one is None:
            return
        code = one.kept(self.clock.now())
        self.expect(code, lambda: self.vault.objects.remove(self.permit, ZONE, name, version=one.id))
        if not code:
            self.there[name].remove(one)
            if one.data is None and not self.there[name]:
                # A marker leaves no trace; whether the name is known still, other rows tell.
                self.ever = {each for each in self.ever if each != name or self.known(name)}

    def known(self, name: str) -> bool:
        try:
            self.vault.objects.stat(self.permit, ZONE, name)
        except CarelakeError as error:
            return error.code == "vault.deleted"
        return True

    @rule(name=NAMES, number=PICK)
    def restore(self, name: str, number: int) -> None:
        one = self.pick(name, number)
        if one is None:
            return
        now = self.current(name)
        code = "" if one.data is not None else "vault.deleted"
        told = self.expect(code, lambda: self.vault.objects.restore(self.permit, ZONE, name, one.id))
        if told is not None and now is not one:
            self.enter(name, told, one.data, dict(one.tags))

    @rule(name=NAMES)
    def bring_back(self, name: str) -> None:
        if self.alive(name):
            code = "vault.not_deleted"
        else:
            hidden = [one for one in self.there.get(name, []) if one.data is not None]
            code = "" if hidden else self.absent(name)
        told = self.expect(code, lambda: self.vault.objects.restore(self.permit, ZONE, name))
        if told is not None:
            self.enter(name, told, hidden[-1].data, dict(hidden[-1].tags))

    @rule(name=NAMES, number=PICK, on=st.booleans())
    def hold(self, name: str, number: int, on: bool) -> None:
        one = self.pick(name, number)
        if one is not None and one.data is not None:
            assert self.vault.objects.keeping.hold(self.permit, ZONE, name, on=on, version=one.id).held == on
            one.held = on

    @rule(name=NAMES, number=PICK, mode=st.sampled_from(["governance", "compliance"]), days=st.integers(1, 9))
    def retain(self, name: str, number: int, mode: Any, days: int) -> None:
        one = self.pick(name, number)
        if one is None or one.data is None:
            return
        now = self.clock.now()
        until = now + timedelta(days=days)
        bound = one.mode == "compliance" and one.until is not None and one.until > now
        code = "vault.retained" if bound and (mode != "compliance" or until < one.until) else ""  # type: ignore[operator]
        keeping = self.vault.objects.keeping
        if self.expect(code, lambda: keeping.retain(self.permit, ZONE, name, mode, until, version=one.id)):
            one.mode, one.until = mode, until

    @rule(name=NAMES, number=PICK)
    def lift(self, name: str, number: int) -> None:
        one = self.pick(name, number)
        if one is None or one.data is None:
            return
        bound = one.mode == "compliance" and one.until is not None and one.until > self.clock.now()
        keeping = self.vault.objects.keeping
        call = lambda: keeping.retain(self.permit, ZONE, name, None, None, version=one.id)  # noqa: E731
        if self.expect("vault.retained" if bound else "", call):
            one.mode, one.until = "", None

    @rule(name=NAMES, purge=st.booleans())
    def all_gone(self, name: str, purge: bool) -> None:
        versions = self.there.get(name, [])
        kept = {one.kept(self.clock.now()) for one in versions if one.data is not None} - {""}
        objects = self.vault.objects
        nothing = not versions and not (purge and name in self.ever)
        call = objects.keeping.purge if purge else objects.delete
        said = ""
        try:
            call(self.permit, ZONE, name)
        except CarelakeError as error:
            said = error.code
        # Of several reasons any one is told.
        assert said in (kept or {"vault.object" if nothing else ""})
        if not said:
            self.there[name] = []
            if purge:
                self.ever.discard(name)

    @rule(name=NAMES, text=st.text(max_size=3), remove=st.booleans())
    def tag(self, name: str, text: str, remove: bool) -> None:
        code = "" if self.alive(name) else self.absent(name)
        removed = ("n",) if remove else ()
        call = lambda: self.vault.objects.tag(self.permit, ZONE, name, {"t": text}, remove=removed)  # noqa: E731
        if self.expect(code, call) is not None:
            one = self.there[name][-1]
            one.tags = {key: value for key, value in one.tags.items() if key not in removed} | {"t": text}

    @rule(days=st.integers(1, 5))
    def time_passes(self, days: int) -> None:
        self.clock.move(days=days)

    @rule(back=st.integers(1, 5))
    def the_clock_is_set_back(self, back: int) -> None:
        """Retention that has not ended does not end by it."""
        self.clock.move(days=-back)

    @rule()
    def reopen(self) -> None:
        self.vault.close()
        self.vault = Vault.open(self.folder / "ws", ids=RandomIds(), **self.said)

    # -- what must hold ---------------------------------------------------------------------------------------------

    @invariant()
    def versions_are_those_of_the_model(self) -> None:
        objects, permit = self.vault.objects, self.permit
        for name, versions in self.there.items():
            if name in self.ever:
                told = objects.versions(permit, ZONE, name)
                wanted = [(one.id, one.data is None, one.held, one.tags) for one in reversed(versions)]
                assert [(one.version, one.marker, one.held, dict(one.tags)) for one in told] == wanted
                assert [one.current for one in told] == [number == 0 for number in range(len(told))]
            for one in versions:
                if one.data is not None:
                    assert objects.get(permit, ZONE, name, one.id) == one.data
        alive = sorted(name for name in self.there if self.alive(name))
        assert [one.name for one in objects.list(permit, ZONE)] == alive

    @invariant()
    def reading_without_a_version_gives_the_current_one(self) -> None:
        for name in ("a", "b"):
            now = self.alive(name)
            code = "" if now else self.absent(name)
            data = self.expect(code, lambda name=name: self.vault.objects.get(self.permit, ZONE, name))
            assert now is None or data == now.data

    @invariant()
    def files_are_those_of_versions(self) -> None:
        permit = self.permit
        assert list(self.vault.objects.verify(permit)) == []
        assert self.vault.objects.lifecycle.run(permit, ZONE, dry_run=True).swept == 0
        files = [path for path in (self.folder / "ws" / "vault").glob("*/*/*/*") if path.is_file()]
        if not any(self.there.values()):
            assert files == []


TestObjects = Objects.TestCase
TestObjects.settings = hypothesis_settings(max_examples=20, stateful_step_count=25, deadline=None, phases=PHASES)


class FilesOnly(Objects):
    inline = 0


TestFilesOnly = pytest.mark.slow(FilesOnly.TestCase)
TestFilesOnly.settings = hypothesis_settings(max_examples=20, stateful_step_count=25, deadline=None, phases=PHASES)


class Soaked(Objects):
    pass


TestSoaked = pytest.mark.soak(Soaked.TestCase)
TestSoaked.settings = hypothesis_settings(max_examples=120, stateful_step_count=60, deadline=None)
