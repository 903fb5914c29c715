"""Endpoints in sandboxes: the same answers, no model in this process, and each fault said, counted and got over."""

from __future__ import annotations

import json
import os
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from carelake.core.errors import CarelakeError, Conflict, Corrupt, Refused, Unavailable
from carelake.core.permit import Permit
from carelake.core.settings import ServingSettings
from carelake.serving import fit
from carelake.serving.config import Variant
from carelake.serving.sandbox import measuring, outer, walls, wire
from carelake.serving.sandbox.boxes import Boxes
from carelake.serving.sandbox.launcher import Sandbox

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not walls.abi(), reason="this kernel has no Landlock")]

_NAME = "readmission"


@pytest.fixture
def boxed(place: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The place with its model approved; sandboxes without an outer wall, which answer within a moment."""
    place.approved()
    _set(place, monkeypatch, sandbox_outer="none", sandbox_seconds=2.0)
    return place


def _set(place: Any, monkeypatch: pytest.MonkeyPatch, **said: Any) -> None:
    serving = msgspec.structs.replace(place.vault.settings.serving, **said)
    monkeypatch.setattr(place.vault, "settings", msgspec.structs.replace(place.vault.settings, serving=serving))


def _x() -> np.ndarray:
    x = np.random.default_rng(7).normal(60, 15, (40, 4)).astype(np.float32).astype(np.float64)
    x[x < 50] = np.nan
    return x


def _box(place: Any, permit: Permit) -> Sandbox:
    scorer = place.endpoints.load(permit, _NAME).files.scorer
    found: Sandbox = scorer.sandbox
    return found


def _invoke(place: Any, permit: Permit) -> bytes:
    body, *_ = place.endpoints.invoke(permit, _NAME, b"60,1,12.5,0.1\n", "text/csv")
    return bytes(body)


def _code(place: Any, permit: Permit) -> str:
    with pytest.raises(CarelakeError) as caught:
        _invoke(place, permit)
    return caught.value.code


def test_answers_are_those_of_the_model_to_the_bit_and_it_is_not_here(
    boxed: Any, permit: Permit, rows_of: Callable[..., pa.Table], monkeypatch: pytest.MonkeyPatch
) -> None:
    x, rows = _x(), rows_of(30, 3)
    boxed.endpoints.deploy(boxed.author, _NAME, boxed.model.ref)
    plain = boxed.endpoints.load(permit, _NAME)
    scores = {"lace": np.asarray([3.0, np.nan, 12.0])}
    wanted = (plain.files.scorer.risk(x), *plain.files.scorer.contributions(x))
    mapped = plain.files.scorer.score_risks(scores)
    said = boxed.endpoints.predict(permit, plain, rows)

    read: list[str] = []
    get = boxed.vault.objects.get
    monkeypatch.setattr(
        boxed.vault.objects,
        "get",
        lambda permit, zone, name, *more: read.append(name) or get(permit, zone, name, *more),
    )
    _set(boxed, monkeypatch, sandbox_outer="auto")
    boxed.endpoints.deploy(boxed.author, _NAME, boxed.model.ref, sandbox=True)
    endpoint = boxed.endpoints.load(permit, _NAME)
    scorer = endpoint.files.scorer
    for layout in (x, np.asfortranarray(x), x[::2]):
        found = (scorer.risk(layout), *scorer.contributions(layout))
        same = wanted if len(layout) == len(x) else (wanted[0][::2], wanted[1][::2], wanted[2])
        assert [np.asarray(one).tobytes() for one in found] == [np.asarray(one).tobytes() for one in same]
    assert {name: one.tobytes() for name, one in scorer.score_risks(scores).items()} == {
        name: one.tobytes() for name, one in mapped.items()
    }
    again = boxed.endpoints.predict(permit, endpoint, rows)
    assert [(a.ref, a.probability, a.reasons, a.scores) for a in again] == [
        (b.ref, b.probability, b.reasons, b.scores) for b in said
    ]
    # What the parent opened of the version: all that is about the model, and nothing of which it is made.
    assert {name.rpartition("/")[2] for name in read} == {
        "baseline.json", "card.html", "card.json", "manifest.json", "manifest.sig", "metrics.json",
    }  # fmt: skip
    told = boxed.endpoints.status(permit, _NAME)["sandbox"][endpoint.ref]
    assert (told["trust"], told["awake"]) == ("process", True)
    assert told["outer"] == outer.wanted("auto")
    [measured] = told["measurements"]
    assert len({*measured.values()}) == 4
    notes = boxed.author.log.notes
    assert (notes["release"], notes["sandbox"]) == ("granted", "on")
    measuring.standing(_box(boxed, permit).pid)  # the kernel says the same


def test_one_that_ends_or_hangs_fails_its_request_alone(
    boxed: Any, permit: Permit, monkeypatch: pytest.MonkeyPatch
) -> None:
    boxed.endpoints.deploy(boxed.author, _NAME, boxed.model.ref, sandbox=True)
    first, good = _box(boxed, permit), _invoke(boxed, permit)
    document = boxed.author.log.notes["attestation"]

    refused: list[str] = []

    def load() -> None:
        for _ in range(60):
            try:
                assert _invoke(boxed, permit) == good
            except Unavailable as error:
                refused.append(error.code)

    asking = [Thread(target=load) for _ in range(2)]
    for one in asking:
        one.start()
    time.sleep(0.05)
    os.kill(first.pid, signal.SIGKILL)
    for one in asking:
        one.join()
    # Whoever was asking it was told; who came later was answered by another one, newly attested.
    assert set(refused) <= {"serving.sandbox_died"}
    assert len(refused) <= 2
    second = _box(boxed, permit)
    assert second.pid != first.pid
    assert permit.log.notes["release"] == "granted"  # type: ignore[attr-defined]
    assert permit.log.notes["attestation"] != document  # type: ignore[attr-defined]

    # A score that takes longer than it may: many rows, and a thousandth of a second for them.
    second._seconds = 0.001
    limit, _ = resource.prlimit(second.pid, resource.RLIMIT_CPU)
    assert 0 < limit < 60  # and if nobody were left to end it, the kernel would
    with pytest.raises(Unavailable) as late:
        second.ask(np.tile(_x(), (22, 1)), {})
    assert late.value.code == "serving.sandbox_timeout"
    assert not second.alive
    # It ended twice within a minute: for a moment nothing is begun, then it is.
    assert _code(boxed, permit) == "serving.sandbox_failing"
    monkeypatch.setattr(time, "monotonic", lambda now=time.monotonic: now() + 40)
    assert _invoke(boxed, permit) == good
    verified = boxed.endpoints.verify_captures(permit, _NAME)
    assert (verified.gaps, verified.lost) == (0, 0)
    assert verified.requests == 2 + 120 - len(refused)


def test_what_changed_since_it_was_deployed_gets_no_key(
    boxed: Any, permit: Permit, monkeypatch: pytest.MonkeyPatch
) -> None:
    boxed.endpoints.deploy(boxed.author, _NAME, boxed.model.ref, sandbox=True)
    boxes, digest = boxed.endpoints._loaded.boxes, measuring._digest
    [key] = list(boxes._boxes)

    def changed(file: str) -> Callable[[str], str]:
        return lambda path: "0" * 64 if path.endswith(file) else digest(path)

    for file, register in (("models/scorer.py", "PCR0"), ("lib_lightgbm.so", "PCR1")):
        boxes._drop(key)
        boxes._troubles.clear()
        with monkeypatch.context() as patch:
            patch.setattr(measuring, "_digest", changed(file))
            with pytest.raises(Refused) as caught:
                _invoke(boxed, permit)
        assert caught.value.code == "vault.attestation_measurement"
        assert caught.value.facts["measurements"] == [register]
    notes = permit.log.notes  # type: ignore[attr-defined]
    assert (notes["release"], notes["reason"]) == ("refused", "vault.attestation_measurement")
    boxes._troubles.clear()

    boxes._drop(key)
    [text] = [
        path for path in Path(boxed.vault.root / "vault").rglob("*") if path.is_file() and _is_text(boxed, path)
    ]
    data = bytearray(text.read_bytes())
    data[len(data) // 2] ^= 1
    text.write_bytes(data)
    with pytest.raises(Corrupt) as altered:
        _invoke(boxed, permit)
    assert altered.value.code == "vault.altered"
    assert boxed.endpoints.verify_captures(permit, _NAME).requests == 0
    _nobody_who_can_be_looked_into(boxed, permit)


def _is_text(place: Any, path: Path) -> bool:
    name = f"{_NAME}/{place.model.ref.partition(':')[2]}/model.txt"
    size = place.vault.objects.stat(place.author, "models", name).size
    return path.stat().st_size > size and "models" in path.parts and path.stat().st_size < size + 4096


def _nobody_who_can_be_looked_into(boxed: Any, permit: Permit) -> None:
    ref, releases = boxed.endpoints.find(permit, _NAME).ref, boxed.vault.objects.releases
    sandbox = Sandbox(2.0, outside="none", debug=True)
    try:
        found = sandbox.measured(measuring.of_model(boxed.model.ref, {}))
        said = sandbox.attested(ref, found, releases.challenge(permit, ref), boxed.clock.now().timestamp())
        with pytest.raises(Refused) as caught:
            releases.release(permit, ref, releases.attest(permit, said))
        assert caught.value.code == "vault.attestation_debug"
        with pytest.raises(Unavailable) as empty:
            sandbox.ask(_x(), {})
        assert empty.value.code == "serving.sandbox_empty"
    finally:
        sandbox.close()


def test_it_stays_until_somebody_says_otherwise(boxed: Any, permit: Permit, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoints, ref = boxed.endpoints, boxed.model.ref
    endpoints.deploy(boxed.author, _NAME, ref, sandbox=True)
    assert endpoints._deploying._boxed(boxed.author, _NAME, None) is True
    found, document = endpoints.attest(permit, _NAME, ref, b"asked-for")
    [allowed] = next(iter(endpoints.status(permit, _NAME, alarms=False)["sandbox"].values()))["measurements"]
    said = boxed.vault.objects.releases.verified(document)
    assert found == allowed == said.pcrs
    assert (said.nonce, said.trust) == (b"asked-for", "process")
    with monkeypatch.context() as patch:
        _set(boxed, patch, sandbox="always")
        with pytest.raises(Refused) as caught:
            endpoints.deploy(boxed.author, _NAME, ref, sandbox=False)
        assert caught.value.code == "serving.sandbox_always"
        assert endpoints._deploying._boxed(boxed.author, "another", None) is True
    endpoints.deploy(boxed.author, _NAME, ref, sandbox=False)
    assert endpoints.status(permit, _NAME, alarms=False)["sandbox"] is None
    assert boxed.author.log.notes["withdrawn"] == [endpoints.find(permit, _NAME).ref]
    assert _invoke(boxed, permit)
    with monkeypatch.context() as patch:
        _set(boxed, patch, sandbox="always")
        assert _code(boxed, permit) == "serving.sandbox_always"
    noun = endpoints.find(permit, _NAME)
    with pytest.raises(Refused) as none:
        endpoints._loaded.of(permit, Variant("", noun.ref, ref, sandbox=True))
    assert none.value.code == "vault.release_policy"


def test_no_answer_is_anothers_and_one_that_gives_way_answers_first(
    boxed: Any, permit: Permit, monkeypatch: pytest.MonkeyPatch
) -> None:
    mapped: set[str] = set()
    real = measuring._mapped
    with monkeypatch.context() as patch:
        patch.setattr(measuring, "_mapped", _keeping(mapped, real))
        boxed.endpoints.deploy(boxed.author, _NAME, boxed.model.ref, sandbox=True)
    # What makes the filter is measured, too; and code that can be written to is not let through.
    assert any("libseccomp" in path for path in mapped)
    with monkeypatch.context() as patch:
        patch.setattr(measuring, "_read", lambda path: "7f00-7f01 rwxp 00000000 00:00 0 \n")
        with pytest.raises(Unavailable, match="both written to and run"):
            real(0)

    good, first, answered = _invoke(boxed, permit), _box(boxed, permit), []
    first._seconds = 60.0
    os.kill(first.pid, signal.SIGSTOP)
    asking = Thread(target=lambda: answered.append(_invoke(boxed, permit)))
    asking.start()
    while not first._askers:
        time.sleep(0.002)
    boxed.endpoints.deploy(boxed.author, _NAME, boxed.model.ref)
    assert first.alive
    os.kill(first.pid, signal.SIGCONT)
    asking.join()
    assert answered == [good]
    assert not first.alive

    second = _box(boxed, permit)
    short = wire.Said(bytes(8), bytes(8), 0.0, {})
    for said in (
        wire.Fault("models.made_up", "of a patient"),
        short,
        msgspec.structs.replace(short, scores={"x": b""}),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(second, "_heard", lambda seconds, said=said: wire.receive(second._pipe.recv) and said)
            with pytest.raises(Unavailable) as caught:
                _invoke(boxed, permit)
        assert caught.value.code == "serving.sandbox_fault"
        assert "patient" not in caught.value.message
    with monkeypatch.context() as patch:
        patch.setattr(second, "_heard", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            _invoke(boxed, permit)
    assert not second.alive  # its answer lay in the pipe, for whoever came next


def _keeping(kept: set[str], mapped: Callable[[int], set[str]]) -> Callable[[int], set[str]]:
    def found(pid: int) -> set[str]:
        kept.update(mapped(pid))
        return set(kept)

    return found


def _interrupted(seconds: float) -> None:
    raise KeyboardInterrupt


def test_what_is_due_waits_alone_and_begins_none_in_a_transaction(
    boxed: Any, permit: Permit, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoints, boxes = boxed.endpoints, boxed.endpoints._loaded.boxes
    endpoints.deploy(boxed.author, "plain", boxed.model.ref)
    endpoints.deploy(boxed.author, _NAME, boxed.model.ref, sandbox=True)
    row = {"features": [60, 1, 12.5, 0.1], "subject_id": "p1", "encounter_id": "s1"}
    body = json.dumps({"instances": [row]}).encode()
    for name in (_NAME, "plain"):
        endpoints.invoke(permit, name, body)
    [key] = list(boxes._boxes)
    boxes._drop(key)
    with monkeypatch.context() as patch:
        patch.setattr(measuring, "_digest", lambda path: "0" * 64)
        assert endpoints.write_back(permit) == 1  # the other's
        with pytest.raises(Refused) as caught:
            endpoints.write_back(permit)
        assert caught.value.code == "vault.attestation_measurement"
    boxes._troubles.clear()
    begun, again, ask = [], boxes._again, Sandbox.ask

    def outside(permit: Permit, key: Any) -> Any:
        begun.append(boxed.vault.database._mine(writing=True))
        return again(permit, key)

    asked = []

    def answered(sandbox: Sandbox, *rows: Any) -> Any:
        asked.append(boxed.vault.database._mine(writing=True))
        return ask(sandbox, *rows)

    monkeypatch.setattr(boxes, "_again", outside)
    monkeypatch.setattr(Sandbox, "ask", answered)
    assert endpoints.write_back(permit) == 1
    assert begun == asked == [None]
    assert endpoints.write_back(permit) == 0

    # Out of the sandbox by and by: what still answers from it keeps its keys until then.
    size = {"Type": "CAPACITY_PERCENT", "Value": 10}
    routing = {"Type": "CANARY", "WaitIntervalInSeconds": 60, "CanarySize": size}
    moving = {"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing}}
    endpoints.deploy(boxed.author, _NAME, boxed.model.ref, moving, sandbox=False)
    boxes._drop(key)
    assert endpoints.invoke(permit, _NAME, body)
    assert len(begun) == 2


def _rule(boxed: Any, ref: str) -> Any:
    return boxed.vault.objects.releases.rule(boxed.author, ref)


def test_what_is_asked_of_a_sandbox_comes_and_goes_with_its_deployment(boxed: Any, permit: Permit) -> None:
    endpoints, boxes, model = boxed.endpoints, boxed.endpoints._loaded.boxes, boxed.model.ref
    releases, notes = boxed.vault.objects.releases, boxed.author.log.notes
    ref = endpoints.deploy(boxed.author, _NAME, model, sandbox=True).ref
    assert notes["allowed"] == [ref]
    first, rule = _box(boxed, permit), _rule(boxed, ref)
    elsewhere = Boxes(boxed.vault, boxed.registry)
    elsewhere._boxes.update(boxes._boxes)  # another worker has it awake, too

    # A deployment that is refused changes nothing of it; its own sandbox ends.
    size = {"Type": "CAPACITY_PERCENT", "Value": 10}
    routing = {"Type": "CANARY", "WaitIntervalInSeconds": 60, "CanarySize": size}
    moving = {"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing}}
    endpoints.deploy(boxed.author, _NAME, model, moving, sandbox=False)
    with boxed.vault.database.transaction(boxed.author) as tx:  # as another kernel or another carelake left it
        releases.allow(boxed.author, tx, msgspec.structs.replace(rule, allow=[{**rule.allow[0], "PCR2": "a" * 96}]))
    before, made = _rule(boxed, ref), []
    begun = boxes._begun
    boxes._begun = lambda: made.append(begun()) or made[-1]
    with pytest.raises(Conflict) as caught:
        endpoints.deploy(boxed.author, _NAME, model, sandbox=True)
    assert caught.value.code == "serving.updating"
    assert _rule(boxed, ref) == before
    assert ([one.alive for one in made], first.alive) == ([False], True)
    endpoints.rollback(boxed.author, _NAME)
    assert "withdrawn" not in notes
    with boxed.vault.database.transaction(boxed.author) as tx:
        releases.allow(boxed.author, tx, rule)

    # A version that is turned down: once what it answered is in the record.
    row = {"features": [60, 1, 12.5, 0.1], "subject_id": "p1", "encounter_id": "s1"}
    endpoints.invoke(permit, _NAME, json.dumps({"instances": [row]}).encode())
    boxed.registry.reject(boxed.reviewer, model)
    endpoints.redeploy_previous(boxed.author, _NAME)
    assert (notes["kept"], _rule(boxed, ref)) == ([ref], rule)
    elsewhere.tidy(permit)
    assert elsewhere._boxes
    assert endpoints.write_back(permit) == 1
    assert permit.log.notes["closed"] == [ref]  # type: ignore[attr-defined]
    assert (_rule(boxed, ref).allow, first.alive) == ([], False)
    elsewhere.tidy(permit)
    assert not elsewhere._boxes
    with pytest.raises(Refused) as none:
        endpoints.load(permit, ref)  # nor is it opened here instead
    assert none.value.code == "vault.release_policy"
    assert (len(made), endpoints._answering.asleep(permit, _NAME)) == (1, [])  # and no process is begun for it

    # Approved again it is not come back to: it would be given nothing; nor to a revision without a sandbox.
    boxed.registry.approve(boxed.reviewer, model)
    for sandbox in (True, False):
        assert not fit.on_record(boxed.author, boxed.registry, boxes, [Variant("", ref, model, sandbox=sandbox)])
    with boxed.vault.database.transaction(boxed.author) as tx:
        releases.allow(boxed.author, tx, rule)
    assert fit.on_record(boxed.author, boxed.registry, boxes, [Variant("", ref, model, sandbox=True)])

    # Out of it by and by: at the end of the rollout nothing is released any more; nor when the name is taken out.
    endpoints.deploy(boxed.author, _NAME, model, moving, sandbox=False)
    assert _rule(boxed, ref) == rule
    boxed.clock.move(seconds=500)
    endpoints.guard(boxed.author, _NAME)
    assert (notes["withdrawn"], _rule(boxed, ref)) == ([ref], None)
    with boxed.vault.database.transaction(boxed.author) as tx:
        releases.allow(boxed.author, tx, rule)
    notes.clear()
    endpoints.delete(boxed.author, _NAME)
    assert (notes["step"], notes["closed"]) == ("delete", [ref])
    assert _rule(boxed, ref).allow == []


def test_settings_of_it_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="sandbox_seconds"):
        ServingSettings(sandbox_seconds=0.0)
    monkeypatch.setattr(outer, "_works", lambda: False)
    assert outer.wanted("auto") == outer.wanted("none") == outer.NONE
    with pytest.raises(Unavailable) as caught:
        outer.wanted("bubblewrap")
    assert caught.value.code == "serving.sandbox_unavailable"
