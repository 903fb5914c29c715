"""Both stores against a model of them that is as short as AWS's own words."""

from __future__ import annotations

import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from carelake.core.clock import FixedClock
from carelake.core.errors import Invalid
from carelake.core.ids import RandomIds
from carelake.core.permit import mint
from carelake.core.settings import Settings
from carelake.features.groups import erase, offline

sys.path.append(str(Path(__file__).parent))  # for `import groups_data`

from groups_data import GRANTS, Store, record, request

from conftest import SilentLog

SUBJECTS = st.sampled_from("abc")
HOURS = st.integers(0, 6)
START = datetime(2026, 1, 2, 3, tzinfo=UTC)
STORES = st.sampled_from([None, ["OnlineStore"], ["OfflineStore"], ["OnlineStore", "OfflineStore"]])


def event(hour: int) -> str:
    return f"2026-01-02T0{hour}:00:00Z"


class Stores(RuleBasedStateMachine):
    """PutRecord, DeleteRecord, expiry, flushes and erasures in any order."""

    def __init__(self) -> None:
        super().__init__()
        from carelake.apps.wiring import import_tables
        from carelake.vault.workspace import Vault

        import_tables()
        self.folder = tempfile.TemporaryDirectory(prefix="carelake-features-")
        root = Path(self.folder.name)
        self.clock = FixedClock(START)
        ids, said = RandomIds(), Settings(workspace="w1")
        self.vault = Vault.create(root / "ws", settings=said, key_dir=root / "keys", clock=self.clock, ids=ids)
        permit = mint(
            act="a" * 32, principal="tester", account="production", purpose="TREAT", action="test:act", target="t",
            grants=GRANTS, scope=(), expires=START + timedelta(days=9), log=SilentLog(),
        )  # fmt: skip
        self.store = Store(self.vault, permit)
        self.store.groups.create(permit, request())
        self.online: dict[str, tuple[int, str | None, int | None, bool]] = {}
        self.offline: list[tuple[str, int, str | None, bool]] = []
        self.number = 0

    def teardown(self) -> None:
        self.vault.close()
        self.folder.cleanup()

    def now(self) -> float:
        return (self.clock.at - START.replace(hour=0)).total_seconds() / 3600

    def there(self, subject: str) -> tuple[int, str | None, int | None, bool] | None:
        found = self.online.get(subject)
        return found if found and (found[2] is None or found[2] > self.now()) else None

    @rule(subject=SUBJECTS, hour=HOURS, ttl=st.none() | st.integers(1, 5), stores=STORES)
    def put(self, subject: str, hour: int, ttl: int | None, stores: list[str] | None) -> None:
        self.number += 1
        value = str(float(self.number))
        more: dict[str, Any] = {"target_stores": stores}
        if ttl and stores != ["OfflineStore"]:
            more["ttl_duration"] = {"Unit": "Hours", "Value": ttl}
        self.store.put("g", *record(subject, event(hour), x=value), **more)
        if stores is None or "OnlineStore" in stores:
            found = self.there(subject)
            if found is None or hour > found[0]:
                expires = hour + ttl if ttl else None
                if expires is None or expires > self.now():
                    self.online[subject] = (hour, value, expires, False)
                else:
                    self.online.pop(subject, None)
        if stores is None or "OfflineStore" in stores:
            self.offline.append((subject, hour, value, False))

    @rule(subject=SUBJECTS, hour=HOURS, hard=st.booleans(), stores=STORES)
    def delete(self, subject: str, hour: int, hard: bool, stores: list[str] | None) -> None:
        found = self.there(subject)
        online = stores is None or "OnlineStore" in stores
        early = found is not None and hour <= found[0]
        mode = "HardDelete" if hard else "SoftDelete"
        try:
            self.store.delete("g", subject, event(hour), deletion_mode=mode, target_stores=stores)
        except Invalid:
            assert hard
            assert early
            assert online
            return
        assert not (hard and early and online)
        if online and not early:
            if hard:
                self.online.pop(subject, None)
            else:
                self.online[subject] = (hour, None, found[2] if found else None, True)
        if stores is None or "OfflineStore" in stores:
            self.offline.append((subject, hour, None, True))

    @rule(hours=st.integers(1, 2))
    def wait(self, hours: int) -> None:
        if self.now() < 9:
            self.clock.move(hours=hours)

    @rule()
    def flush(self) -> None:
        offline.flush(self.store.permit, self.vault)

    @rule(subject=SUBJECTS)
    def erase(self, subject: str) -> None:
        erase.erase(self.store.permit, self.vault, {subject})
        assert erase.residue(self.store.permit, self.vault, {subject}) == 0
        self.online.pop(subject, None)
        self.offline = [one for one in self.offline if one[0] != subject]

    @invariant()
    def the_online_store_is_as_it_should_be(self) -> None:
        alive = {one for one in "abc" if (found := self.there(one)) and not found[3]}
        for subject in "abc":
            found = self.there(subject)
            assert self.store.value("g", subject) == (found[1] if found and not found[3] else None)
        assert self.store.listed("g") == sorted(alive)
        there = sorted(one for one in "abc" if self.there(one))
        assert self.store.listed("g", include_soft_deleted_records=True) == there

    @invariant()
    def the_offline_store_is_as_it_should_be(self) -> None:
        found = offline.table(self.store.permit, self.vault, "g").to_pylist()
        told = [
            (
                one["subject_id"],
                one["event_time"].hour,
                None if one["x"] is None else str(one["x"]),
                one["is_deleted"],
            )
            for one in found
        ]
        assert told == self.offline


TestStores = Stores.TestCase
TestStores.settings = settings(max_examples=4, stateful_step_count=16, deadline=None)
