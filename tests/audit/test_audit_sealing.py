"""Sealing under attack and under failure: one chain, whoever seals, whenever somebody dies (decision 0024)."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import forked
from carelake.audit import segments
from carelake.audit.segments import Sealable
from carelake.audit.trail import Trail
from carelake.core import canonical
from carelake.core.clock import iso
from carelake.core.errors import CarelakeError, Invalid, Refused
from carelake.core.settings import AuditSettings, Settings

CHILD = Path(__file__).with_name("audit_child.py")
Child = Callable[..., "subprocess.Popen[str]"]


def finished(process: subprocess.Popen[str], code: int = 0) -> str:
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    return out


# -- segments of a second -----------------------------------------------------------------------------------------


def sealable(*seconds: float) -> list[Sealable]:
    return [
        Sealable(n, f"2026-01-01T00:{int(at) // 60:02d}:{at % 60:06.3f}Z", b"x") for n, at in enumerate(seconds, 1)
    ]


def test_a_segment_is_at_most_a_second_and_so_many_acts() -> None:
    assert [len(run) for run in segments.spans(sealable(0, 0.4, 1, 1.001, 2, 9), 100)] == [3, 2, 1]
    assert [len(run) for run in segments.spans(sealable(*[0] * 7), 3)] == [3, 3, 1]
    assert [len(run) for run in segments.spans(sealable(5, 1, 2, 5.5, 6.5), 100)] == [4, 1], "a clock set back"


@given(st.lists(st.integers(0, 90_000), max_size=60), st.integers(1, 20))
def test_spans_lose_nothing(millis: list[int], most: int) -> None:
    acts = sealable(*(at / 1000 for at in millis))
    runs = list(segments.spans(acts, most))
    assert [one for run in runs for one in run] == acts
    assert all(0 < len(run) <= most for run in runs)


def test_a_backlog_becomes_segments_of_a_second(ward: Any, clock: Any) -> None:
    for _ in range(70):
        ward.act(2)
        clock.move(seconds=2)
    assert ward.seal() == 70
    assert ward.verify().intact
    assert {row[0] for row in ward.rows("SELECT last - first + 1 FROM segment")} == {2}


# -- election -----------------------------------------------------------------------------------------------------


def test_one_sealer_is_elected_and_a_dead_one_replaced(ward: Any, child: Child) -> None:
    holder = child("hold")
    assert holder.stdout.readline() == "True\n"
    ward.vault.clock.move(hours=0)
    ward.sql("UPDATE seal_lease SET until = ?", iso(ward.vault.clock.now()).replace("05.000", "09.000"))
    ward.act(2)
    assert ward.seal() == 0, "another one is the sealer"
    holder.kill()
    holder.wait()
    assert ward.seal() == 1, "it is dead"
    assert ward.rows("SELECT fence FROM seal_lease") == [(2,)]
    assert ward.verify().intact


def test_a_lease_that_ran_out_is_taken_over(ward: Any, clock: Any) -> None:
    other = {"host": "elsewhere.example", "pid": 1, "started": 1, "sealer": "x"}
    until = clock.now().replace(second=10)
    ward.sql(
        "INSERT INTO seal_lease (id, holder, until, fence, anchored) VALUES (1, ?, ?, 7, '')",
        canonical.dump(other).decode(),
        iso(until),
    )
    ward.act(1)
    assert ward.seal() == 0
    clock.move(seconds=4)
    assert ward.seal() == 0
    clock.move(seconds=2)
    assert ward.seal() == 1
    assert ward.rows("SELECT fence FROM seal_lease") == [(8,)]


def test_a_lease_of_the_far_future_does_not_stop_sealing(ward: Any, clock: Any) -> None:
    """Its holder's clock was hours ahead, or ours was set back since."""
    other = canonical.dump({"host": "elsewhere.example", "pid": 1, "started": 1}).decode()
    ward.sql("INSERT INTO seal_lease (id, holder, until, fence, anchored) VALUES (1, ?, '2027', 3, '')", other)
    ward.sql("UPDATE seal_lease SET until = '2026-06-01T00:00:00.000Z'")
    ward.act(1)
    assert ward.seal() == 1


def test_a_sealer_that_slept_through_its_lease_does_not_fork_the_chain(ward: Any) -> None:
    sleeper = Trail(ward.vault)
    ward.act(2)
    assert sleeper.seal(ward.gate.sealing()) == 1
    ward.act(2)
    slept = sleeper.lease.fence
    assert ward.seal() == 1, "the same process: elected at once"
    ward.act(2)
    sleeper.lease.fence = slept  # it wakes, and believes that it still is
    built = sleeper.seal(ward.gate.sealing())
    assert ward.seal() + built == 1
    verdict = ward.verify()
    assert verdict.intact
    assert (verdict.sealed, verdict.segments) == (6, 3)


@pytest.mark.slow
def test_two_sealers_at_once_make_one_chain(ward: Any, child: Child) -> None:
    """Processes that write and seal as fast as they can, with leases that end all the time."""
    running = [child("acts", 40) for _ in range(3)]
    for process in running:
        finished(process)
    ward.seal()
    verdict = ward.verify()
    assert verdict.problems == ()
    assert (verdict.acts, verdict.sealed) == (120, 120)


# -- kill -9 ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_killed_at_every_moment_of_sealing(ward: Any, tmp_path: Path) -> None:
    def child(work: str, *arguments: str, code: int = 0) -> str:
        done = forked.run(str(CHILD), work, str(ward.root), *arguments, env={**os.environ})
        assert done.returncode == code, done.stderr
        return done.stdout

    ward.sealed(2)
    ward.act(3)
    ward.vault.close()
    for place in ("ws", "keys"):
        shutil.copytree(ward.root / place, tmp_path / "before" / place)
    count = int(child("moments"))
    assert count >= 3, "the lease, the object, the segment, the head"
    for moment in [f"{when}:{number}" for number in range(1, count + 1) for when in ("before", "after")]:
        for place in ("ws", "keys"):
            shutil.rmtree(ward.root / place)
            shutil.copytree(tmp_path / "before" / place, ward.root / place)
        child("killed", moment, code=-9)
        child("acts", "2")
        verdict = ward.verify()
        assert verdict.problems == (), moment
        assert (verdict.acts, verdict.sealed) == (7, 7), moment
        ward.vault.database.close()


# -- full disk ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", range(1, 8))
def test_a_full_disk_while_sealing(ward: Any, monkeypatch: pytest.MonkeyPatch, write: int) -> None:
    """Each write of a file fails once, in turn: nothing is half-sealed, and the next round seals it."""
    ward.sealed(1)
    ward.act(3)
    _full_at(monkeypatch, write)
    try:
        ward.seal()
        told = ""
    except CarelakeError as error:
        told = error.code
    monkeypatch.undo()
    assert told in ("", "vault.disk_full")
    assert ward.verify().problems == ()
    ward.act(1)
    ward.seal()
    verdict = ward.verify()
    assert verdict.problems == ()
    assert verdict.sealed == 5


def _full_at(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    import os

    passed = 0

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def write(*args: Any, **other: Any) -> Any:
            nonlocal passed
            passed += 1
            if passed == number:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(*args, **other)

        return write

    for name in ("write", "pwrite", "fsync", "replace"):
        monkeypatch.setattr(os, name, counted(getattr(os, name)))


# -- the clock ----------------------------------------------------------------------------------------------------


def test_a_clock_set_back_keeps_the_order_and_is_told(ward: Any, clock: Any) -> None:
    ward.sealed(2)
    clock.move(hours=-3)
    ward.act(2)
    ward.seal()
    clock.move(hours=3, seconds=1)
    ward.sealed(1)
    verdict = ward.verify()
    assert verdict.intact
    assert [one.name for one in verdict.findings] == ["acts 3 to 4"]
    times = [row[0] for row in ward.rows("SELECT at FROM segment ORDER BY number")]
    assert times == sorted(times), "a segment went backwards"
    facts = [canonical.load(row[0]) for row in ward.rows("SELECT facts FROM act ORDER BY seq")]
    assert [("after" in said) for said in facts] == [False, False, True, True, False]


def test_a_segment_dated_before_its_predecessor_is_found(ward: Any, clock: Any) -> None:
    ward.sealed(1, 1)
    clock.move(hours=-1)
    ward.sql("UPDATE segment SET at = '2026-01-02T03:30:00.000Z' WHERE number = 1")
    said = [one.reason for one in ward.verify().problems]
    assert any("by its time" in one for one in said)
    assert any("different acts" in one for one in said), "the row is not what was signed"


# -- keys, anchors, retention -------------------------------------------------------------------------------------


def test_the_header_names_the_version_of_the_key(ward: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ward.sealed(1)
    first = segments.parse(ward.vault.objects.get(ward.gate.sealing(), "audit", segments.object_name(1)))
    assert first is not None
    assert (first.key, first.header["fence"]) == (1, 1)
    assert canonical.load(ward.vault.read_head())["key"] == 1


@pytest.fixture
def anchored(ward: Any, tmp_path: Path) -> Callable[[str], Any]:
    """The ward with an anchor at that place."""

    def make(told: str) -> Any:
        audit = AuditSettings(anchor=str(tmp_path / told) + ("/" if told.endswith("/") else ""), anchor_seconds=0)
        ward.vault.settings = Settings(workspace="w1", audit=audit)
        ward.trail = Trail(ward.vault)
        return ward

    return make


@pytest.mark.parametrize("place", ["worm/", "heads.jsonl"])
def test_the_anchor_gets_heads_and_holds_the_trail_to_them(
    anchored: Callable[[str], Any], place: str, tmp_path: Path
) -> None:
    (tmp_path / "worm").mkdir()
    ward = anchored(place)
    old = ward.sealed(2).vault.read_head()
    ward.sealed(2, 2)
    heads = [canonical.load(one)["number"] for one in ward.trail.heads.anchored()]
    assert heads == [1, 2, 3]
    assert ward.verify().intact
    # Somebody puts an older state back, with the head beside the root key, which they hold too.
    ward.sql("DELETE FROM segment WHERE number > 1")
    ward.sql("DELETE FROM act WHERE seq > 2")
    ward.sql("DELETE FROM object_version WHERE name > 'segments/000000000001'")
    ward.vault.write_head(old)
    named = {(one.kind, one.name) for one in ward.verify().problems}
    assert ("anchor", "segment 3") in named


def test_an_anchor_that_is_gone_stops_nothing_and_is_told(anchored: Callable[[str], Any], tmp_path: Path) -> None:
    ward = anchored("share/")
    assert ward.sealed(2).trail.heads.anchor_fault
    [problem] = {one.kind for one in ward.verify().problems}
    assert problem == "anchor"
    (tmp_path / "share").mkdir()
    ward.sealed(2)
    assert ward.verify().intact


def test_an_anchor_inside_is_refused(anchored: Callable[[str], Any]) -> None:
    for inside in ("ws/heads", "keys/heads"):
        with pytest.raises(Invalid) as caught:
            _ = anchored(inside).trail.heads.anchor
        assert caught.value.code == "vault.anchor_inside"


def test_less_than_six_years_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2190 days"):
        AuditSettings(retention_days=2189)
    assert AuditSettings().retention_days == 2190


def test_what_is_no_segment_in_the_place_of_the_next_one_is_told(ward: Any) -> None:
    ward.sealed(1).vault.objects.put(ward.gate.sealing(), "audit", segments.object_name(2), b"junk")
    ward.act()
    with pytest.raises(Refused) as caught:  # else nothing is ever sealed again, and nobody knows
        ward.seal()
    assert caught.value.code == "vault.locked"


def test_sealing_beside_a_job(ward: Any) -> None:
    from carelake.audit.background import sealing_beside

    with sealing_beside(ward.trail, ward.gate.sealing, 0.02):
        ward.act(3)
        for _ in range(200):
            if ward.rows("SELECT max(last) FROM segment") == [(3,)]:
                break
            time.sleep(0.02)
    assert ward.verify().sealed == 3


def test_more_acts_than_a_page_are_sealed_in_their_order(ward: Any) -> None:
    ward.act(450)
    assert ward.seal() >= 1
    assert ward.seal() == 0
    verdict = ward.verify()
    assert not verdict.problems
    assert verdict.acts >= 450
