"""Group commit: an answer leaves after its act is on the disk, alone or in company, and never otherwise (D3)."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from carelake.audit.acts import ActHeader, prepared
from carelake.audit.commits import Commits
from carelake.core.errors import Unavailable


def row(ward: Any, name: str = "a" * 32) -> Any:
    header = ActHeader(name, "auditor", "production", "HOPERAT", "audit:read", "trail")
    return prepared(header, "done", ward.vault.clock, {})


def in_threads(work: Callable[[int], None], count: int) -> None:
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(60)


def test_acts_that_wait_together_are_committed_together(ward: Any) -> None:
    commits, told = Commits(ward.vault.database), []

    def commit(number: int) -> None:
        commits.commit(row(ward, f"{number:032d}"))
        told.append(number)

    with ward.vault.database.ledger():  # nobody else can write: they gather
        threads = [threading.Thread(target=commit, args=(number,)) for number in range(12)]
        for one in threads:
            one.start()
        time.sleep(0.3)
        assert not told, "an act was answered before it was committed"
    for one in threads:
        one.join(60)
    assert sorted(told) == list(range(12))
    assert commits.groups <= 2, "the one that came first, and the others"
    assert ward.rows("SELECT count(*), min(seq), max(seq) FROM act") == [(12, 1, 12)]


def test_one_alone_is_committed_by_its_own_thread(ward: Any) -> None:
    commits = Commits(ward.vault.database)
    commits.commit(row(ward))
    commits.commit(row(ward))
    assert commits.groups == 2


def test_when_the_commit_fails_nobody_is_answered(ward: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    commits, errors = Commits(ward.vault.database), []
    real = ward.vault.database.ledger

    def full(**_: Any) -> Any:
        raise Unavailable("vault.disk_full", "The disk is full.")

    def commit(number: int) -> None:
        try:
            commits.commit(row(ward))
        except Unavailable as error:
            errors.append(error)

    monkeypatch.setattr(ward.vault.database, "ledger", full)
    in_threads(commit, 8)
    assert [error.code for error in errors] == ["vault.disk_full"] * 8
    assert len({id(error) for error in errors}) == 8
    monkeypatch.setattr(ward.vault.database, "ledger", real)
    commits.commit(row(ward))
    assert ward.rows("SELECT count(*) FROM act") == [(1,)]


def test_an_interrupt_of_the_leader_answers_nobody(ward: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    commits = Commits(ward.vault.database)
    real = ward.vault.database.ledger

    def interrupted(**_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(ward.vault.database, "ledger", interrupted)
    with pytest.raises(KeyboardInterrupt):
        commits.commit(row(ward))
    monkeypatch.setattr(ward.vault.database, "ledger", real)
    commits.commit(row(ward))
    assert ward.rows("SELECT count(*) FROM act") == [(1,)]


def test_what_was_read_is_told_also_when_the_write_is_undone(ward: Any) -> None:
    def fail(permit: Any) -> None:
        with ward.vault.database.transaction(permit):
            permit.log.read("resource:1")
            permit.log.patients("patient:" + "ab" * 32)
            permit.log.wrote("endpoint:1")
            raise ZeroDivisionError

    with (
        pytest.raises(ZeroDivisionError),
        ward.gate.enter(
            ward.who["operator"], "access:manage", "principals", "HOPERAT", account="production"
        ) as permit,
    ):
        fail(permit)
    [facts] = ward.rows("SELECT facts FROM act WHERE phase = 'failed'")
    assert "resource:1" in facts[0]
    assert "ab" * 32 in facts[0]
    assert ward.verify().intact


@pytest.mark.slow
def test_killed_no_answer_is_without_its_act(ward: Any, child: Callable[..., Any]) -> None:
    for _ in range(2):
        process = child("readers", 8)
        told = [process.stdout.readline() for _ in range(40)]
        process.send_signal(signal.SIGKILL)
        told += process.stdout.readlines()
        answered = {line.strip() for line in told if line.endswith("\n") and len(line) == 33}
        assert len(answered) >= 40
        kept = {name for (name,) in ward.rows("SELECT correlation FROM act")}
        assert answered <= kept
    ward.seal()
    assert ward.verify().intact


def test_what_is_gathered_is_one_group_after_the_block(ward: Any) -> None:
    commits = Commits(ward.vault.database)
    with commits.gathering() as settle:
        for _ in range(5):
            commits.commit(row(ward))
        assert ward.rows("SELECT count(*) FROM act") == [(0,)]
        in_threads(lambda _: commits.commit(row(ward)), 2)  # other threads gather nothing
        assert ward.rows("SELECT count(*) FROM act") == [(2,)]
    groups = commits.groups
    settle()
    assert (commits.groups, ward.rows("SELECT count(*), max(seq) FROM act")) == (groups + 1, [(7, 7)])
    commits.commit(row(ward))
    assert ward.rows("SELECT count(*) FROM act") == [(8,)]
