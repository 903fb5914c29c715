"""Single writes against a model of them: any order of creates, updates, deletions and transactions that fail."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule
from tests.conftest import SilentLog

import carelake.store.tables  # noqa: F401
from carelake.core.clock import FixedClock
from carelake.core.errors import Conflict, Gone, NotFound
from carelake.core.ids import SequenceIds
from carelake.core.permit import mint
from carelake.core.settings import Settings
from carelake.store import Resources
from carelake.store.history import Span
from carelake.vault.workspace import Vault

GRANTS = ("clinical:read", "clinical:write", "rows:read", "rows:write")
KEYS = ("a", "b", "c")
keys = st.sampled_from(KEYS)
genders = st.sampled_from(["male", "female", "other"])
offs = st.sampled_from([None, None, 0, -1, 1])


def patient(key: str, gender: str) -> dict[str, Any]:
    return {"resourceType": "Patient", "id": key, "gender": gender}


class Writes(RuleBasedStateMachine):
    """The model: for each id the list of its versions, each a gender, or None for a deletion."""

    made: Any = Bundle("made")

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory(prefix="carelake-writes-")
        folder = Path(self._folder.name)
        self.clock = FixedClock(datetime(2026, 1, 2, tzinfo=UTC))
        made = {"settings": Settings(workspace="b" * 32), "key_dir": folder / "k", "clock": self.clock}
        self.vault = Vault.create(folder / "w", ids=SequenceIds(), **made)
        self.record = Resources(self.vault)
        told = {"act": "a" * 32, "principal": "tester", "purpose": "TREAT", "action": "test:act", "target": "test"}
        self.permit = mint(
            account="production",
            grants=GRANTS,
            scope=(),
            expires=self.clock.now() + timedelta(days=300),
            log=SilentLog(),
            **told,
        )
        self.model: dict[str, list[str | None]] = {}
        self.order: list[tuple[str, int]] = []

    def teardown(self) -> None:
        self.vault.close()
        self._folder.cleanup()

    def _now(self, key: str) -> str | None:
        return self.model.get(key, [None])[-1]

    def _expected(self, key: str, off: int | None) -> tuple[int | None, bool]:
        """A version to be expected, and whether it is the one."""
        there = len(self.model.get(key, ()))
        return (None, True) if off is None else (there + off, off == 0 and self._now(key) is not None)

    def _note(self, key: str, value: str | None) -> None:
        self.model.setdefault(key, []).append(value)
        self.order.insert(0, (key, len(self.model[key])))

    def _put(self, tx: Any, key: str, gender: str, expected: int | None = None) -> Any:
        return self.record.update(self.permit, tx, patient(key, gender), expected=expected)

    @rule(target=made, gender=genders)
    def create(self, gender: str) -> str:
        with self.vault.database.transaction(self.permit) as tx:
            written = self.record.create(self.permit, tx, patient("x", gender))
        assert (written.version, written.created, written.changed) == (1, True, True)
        assert written.id not in self.model
        self._note(written.id, gender)
        return str(written.id)

    @rule(key=keys | made, gender=genders, off=offs)
    def put(self, key: str, gender: str, off: int | None) -> None:
        expected, good = self._expected(key, off)
        try:
            written = self.vault.database.grouped(self.permit, lambda tx: self._put(tx, key, gender, expected))
        except Conflict:
            assert not good
            return
        assert good
        before = self._now(key)
        assert (written.created, written.changed) == (before is None, before != gender)
        if before != gender:
            self._note(key, gender)
        assert written.version == len(self.model[key])

    @rule(key=keys | made, off=offs)
    def delete(self, key: str, off: int | None) -> None:
        expected, good = self._expected(key, off)
        try:
            with self.vault.database.transaction(self.permit) as tx:
                written = self.record.delete(self.permit, tx, "Patient", key, expected=expected)
        except Conflict:
            assert not good
            return
        assert good
        assert (written is None) == (key not in self.model)
        if self._now(key) is not None:
            self._note(key, None)

    @rule(key=keys, other=keys, gender=genders, fails=st.booleans())
    def together(self, key: str, other: str, gender: str, fails: bool) -> None:
        """Several in one transaction, which may fail at its end."""

        def work() -> None:
            with self.vault.database.transaction(self.permit) as tx:
                self._put(tx, key, gender)
                self.record.delete(self.permit, tx, "Patient", other)
                wanted = {one for one in self.model if self._now(one) == gender} | {key}
                found = self.record.found(self.permit, tx, "Patient", f"gender={gender}", 100)
                assert set(found) == wanted - {other}
                if fails:
                    raise KeyError

        if fails:
            try:
                work()
            except KeyError:
                return
        work()
        if self._now(key) != gender:
            self._note(key, gender)
        if self._now(other) is not None:
            self._note(other, None)

    @rule(seconds=st.integers(0, 60))
    def wait(self, seconds: int) -> None:
        self.clock.move(seconds=seconds)

    @invariant()
    def versions_are_those_of_the_model(self) -> None:
        for key in (*KEYS, *self.model):
            versions = self.model.get(key)
            if versions is None:
                continue
            page = self.record.history(self.permit, "Patient", key)
            found = [one.resource and one.resource["gender"] for one in reversed(page.versions)]
            assert found == versions
            assert [one.version for one in reversed(page.versions)] == list(range(1, len(versions) + 1))
            try:
                assert self.record.read(self.permit, "Patient", key)["gender"] == versions[-1]
            except (Gone, NotFound):
                assert versions[-1] is None

    @invariant()
    def searches_and_the_types_history_too(self) -> None:
        page, found = self.record.history(self.permit, "Patient", count=4), []
        found += page.versions
        while page.next:
            page = self.record.history(self.permit, "Patient", count=4, page=page.next)
            found += page.versions
        assert [(one.id, one.version) for one in found] == self.order
        now = int(self.clock.now().timestamp()) * 1_000_000
        span = Span(None, now, now + 1_000_000)
        current = self.record.history(self.permit, "Patient", span=span, count=1000).versions
        assert {one.id for one in current if one.resource} >= {key for key in self.model if self._now(key)}


Writes.TestCase.settings = settings(
    max_examples=8, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
TestWrites = Writes.TestCase
