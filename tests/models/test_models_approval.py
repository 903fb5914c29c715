"""Who may approve, what they must show, and that what is deployed is what was approved."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import delete, update

from carelake.access.identity import Identity
from carelake.access.principals import Principal
from carelake.access.proofs import Proof, prove
from carelake.audit.nouns import Nouns
from carelake.audit.tables import noun as noun_table
from carelake.audit.tables import noun_from
from carelake.core import canonical
from carelake.core.clock import FixedClock
from carelake.core.errors import Conflict, Corrupt, Refused, Unauthenticated
from carelake.core.ids import RandomIds
from carelake.core.nouns import Noun
from carelake.core.settings import ApprovalSettings
from carelake.events.outbox import Outbox
from carelake.models import approval
from carelake.models.registry import APPROVED, PENDING, REJECTED, Registry

TRAINING_SET = "trainingset:" + "0" * 64
GRANTS = ("models:read", "models:write", "models:approve", "rows:read", "rows:write")


@pytest.fixture
def author(permit_for: Callable) -> object:
    return permit_for(*GRANTS, principal="pipeline")


@pytest.fixture
def reviewer(permit_for: Callable) -> object:
    return permit_for("models:read", "models:approve", "rows:read", "rows:write", principal="reviewer")


@pytest.fixture
def approved(registry: Registry, author, reviewer, files: dict) -> Noun:
    noun = registry.register(author, "readmission", TRAINING_SET, files)
    return registry.approve(reviewer, noun.ref, description="Seen.")


def record_of(registry: Registry, permit: Any, ref: str) -> Noun:
    with registry._vault.database.reading(permit) as tx:
        found = approval.latest(tx, registry._nouns, "production", ref)
    assert found is not None
    return found


def test_the_record_says_who_decided_on_which_files(registry: Registry, author, reviewer, approved) -> None:
    said = registry.decided(author, approved.ref)
    assert said is not None
    assert (said["decision"], said["approver"], said["by"], said["shown"]) == (
        APPROVED,
        "reviewer",
        "person",
        "local",
    )
    assert said["files"] == registry.files(author, approved.ref).manifest.files
    assert {one["name"] for one in said["evidence"]} >= {
        "metrics",
        "calibration",
        "subgroups",
        "card",
        "training set",
    }
    assert said["description"] == "Seen."
    assert said["ref"] in reviewer.log.writes
    assert registry.released(author, approved.ref).ref == approved.ref


def test_only_what_is_approved_and_on_record_is_released(
    registry: Registry, vault, author, reviewer, approved
) -> None:
    registry.reject(reviewer, approved.ref)
    with pytest.raises(Conflict) as caught:
        registry.released(author, approved.ref)
    assert caught.value.code == "models.not_approved"
    # Whoever writes in the table makes it Approved, and has no record.
    with vault.database.transaction(author) as tx:
        tx.execute(update(noun_table).where(noun_table.c.ref == approved.ref).values(state=APPROVED))
    with pytest.raises(Corrupt) as altered:
        registry.released(author, approved.ref)
    assert altered.value.code == "models.approval_altered"
    with vault.database.transaction(author) as tx:
        kept = [one.ref for one in approval.decisions(tx, registry._nouns, "production", approved.ref)]
        tx.execute(delete(noun_from).where(noun_from.c.ref.in_(kept)))
    with pytest.raises(Conflict):
        registry.released(author, approved.ref)
    # Asked again the approval is made anew, and holds.
    assert registry.approve(reviewer, approved.ref).state == APPROVED
    assert registry.released(author, approved.ref).ref == approved.ref


def test_a_record_that_was_changed_opens_nothing(registry: Registry, vault, author, approved) -> None:
    kept = record_of(registry, author, approved.ref)
    sealed = str(kept.body["envelope"])
    at = sealed.index('"sig":"') + 20
    flipped = sealed[:at] + ("A" if sealed[at] != "A" else "B") + sealed[at + 1 :]
    other = {"approver": "mallory", "at": "2027-01-01T00:00:00Z", "decision": REJECTED, "number": 2}
    changes = [{name: value} for name, value in other.items()]
    for change in (*changes, {"envelope": flipped}, {"envelope": "{}"}, {"subject": "model:0"}):
        body = canonical.dump({**kept.body, **change})
        with vault.database.transaction(author) as tx:
            tx.execute(update(noun_table).where(noun_table.c.ref == kept.ref).values(body=body))
        with pytest.raises((Corrupt, Conflict)):
            registry.released(author, approved.ref)
    with vault.database.transaction(author) as tx:
        whole = canonical.dump(dict(kept.body))
        tx.execute(update(noun_table).where(noun_table.c.ref == kept.ref).values(body=whole))
    assert registry.released(author, approved.ref).ref == approved.ref


def test_a_record_of_one_version_does_not_let_another_out(
    registry: Registry, vault, author, reviewer, approved, files
) -> None:
    other = registry.register(author, "readmission", TRAINING_SET, {**files, "baseline.json": b'{"rows":3}'})
    kept = record_of(registry, author, approved.ref)
    with vault.database.transaction(author) as tx:
        tx.execute(update(noun_table).where(noun_table.c.ref == other.ref).values(state=APPROVED))
        tx.execute(update(noun_from).where(noun_from.c.ref == kept.ref).values(source=other.ref))
        body = canonical.dump({**kept.body, "subject": other.ref})
        tx.execute(update(noun_table).where(noun_table.c.ref == kept.ref).values(body=body))
    with pytest.raises(Corrupt):
        registry.released(author, other.ref)


def test_a_file_that_was_changed_after_approval_is_not_released(registry: Registry, vault, author, approved) -> None:
    path = f"readmission/{approved.ref.partition(':')[2]}/card.html"
    vault.objects.put(author, "models", path, b"<!doctype html>another")
    with pytest.raises(Corrupt) as caught:
        registry.released(author, approved.ref)
    assert caught.value.code == "models.altered"


def test_who_makes_models_signs_no_approval_and_the_other_way_round(vault, permit_for: Callable) -> None:
    maker, decider = permit_for("models:write"), permit_for("models:approve")
    text = approval_text = b"DSSEv1 38 application/vnd.carelake.approval+json 2 {}"
    for permit, purpose, data in (
        (maker, "approvals", approval_text),
        (maker, "models", approval_text),
        (decider, "models", b"manifest"),
        (decider, "approvals", b"manifest"),
    ):
        with pytest.raises(Exception, match=r"models:|signs for") as caught:
            vault.keyring.sign(permit, purpose, data)
        assert caught.value.code in ("permit.grant", "vault.signing_purpose")
    assert vault.keyring.sign(decider, "approvals", text)


def test_lacking_evidence_is_named(registry: Registry, author, reviewer, files: dict) -> None:
    metrics = msgspec.json.decode(files["metrics.json"])
    for change, name in (
        ({"calibration_slope": None}, "calibration"),
        ({"subgroups": []}, "subgroups"),
        ({"auroc": None}, "metrics"),
    ):
        said = {**files, "metrics.json": canonical.dump({**metrics, **change})}
        noun = registry.register(author, "readmission", TRAINING_SET, said)
        with pytest.raises(Refused) as caught:
            registry.approve(reviewer, noun.ref)
        assert caught.value.facts["lacking"] == [name]
    gone = registry.register(author, "readmission", "trainingset:" + "7" * 64, files)
    with pytest.raises(Refused) as caught:
        registry.approve(reviewer, gone.ref)
    assert caught.value.facts["lacking"] == ["training set"]
    assert registry.get(author, gone.ref).state == PENDING


# -- through the gate: who is spoken for, and what they show


class Place:
    """A workspace with a gate, and one version that the operator's run made."""

    def __init__(
        self, vault: Any, gate: Any, clock: FixedClock, files: dict[str, bytes], rules: ApprovalSettings
    ) -> None:
        self.vault, self.gate, self.clock = vault, gate, clock
        object.__setattr__(vault, "settings", msgspec.structs.replace(vault.settings, approval=rules))
        self.identity = Identity(vault)
        self.nouns = Nouns(clock)
        self.registry = Registry(vault, self.nouns, Outbox(clock, RandomIds(), workspace="w1"))
        with self.entered("pipeline", "model:train", via="operator") as permit:
            with vault.database.transaction(permit) as tx:
                self.nouns.write(tx, Noun(TRAINING_SET, "production", "made", permit.act))
            self.ref = self.registry.register(permit, "readmission", TRAINING_SET, files).ref

    def who(self, name: str, via: str = "", credential: str = "", more: tuple[str, ...] = ()) -> Principal:
        found = self.identity.named(name, self.identity.named(via or name, Principal(via or name, "person", (), ())))
        return replace(found, credential=credential, roles=(*found.roles, *more))

    def entered(self, name: str, action: str, **how: Any) -> Any:
        return self.gate.enter(self.who(name, **how), action, "models", "HOPERAT", account="production")

    def approve(self, name: str = "reviewer", proof: Proof | None = None, **how: Any) -> str:
        with self.entered(name, "model:approve", **how) as permit:
            return self.registry.approve(permit, self.ref, proof=proof).state


@pytest.fixture
def place_of(vault: Any, gate: Any, clock: FixedClock, files: dict[str, bytes]) -> Callable[..., Place]:
    return lambda **rules: Place(vault, gate, clock, files, ApprovalSettings(**rules))


@pytest.fixture
def vault(tmp_path: Path, clock: FixedClock) -> Iterator[Any]:
    from carelake.apps.wiring import import_tables
    from carelake.core.settings import Settings
    from carelake.vault.workspace import Vault

    import_tables()
    with Vault.create(
        tmp_path / "w", settings=Settings(workspace="w1"), key_dir=tmp_path / "k", clock=clock, ids=RandomIds()
    ) as made:
        yield made


def test_the_local_operator_speaks_for_the_reviewer_where_that_is_allowed(place_of: Callable) -> None:
    place = place_of()
    assert place.approve(via="operator") == APPROVED
    with place.entered("reviewer", "model:read") as permit:
        said = place.registry.decided(permit, place.ref)
    assert (said["approver"], said["via"]) == ("reviewer", "operator")


def test_nobody_is_spoken_for_where_it_is_not(place_of: Callable) -> None:
    place = place_of(local=False)
    with pytest.raises(Refused) as caught:
        place.approve(via="operator")
    assert caught.value.code == "models.spoken_for"
    assert place.approve() == APPROVED


def test_wrong_roles_are_refused_at_the_gate(place_of: Callable) -> None:
    place = place_of()
    for name in ("operator", "pipeline", "auditor", "endpoint"):
        with pytest.raises(Refused) as caught:
            place.approve(name)
        assert caught.value.code == "access.denied"


def test_whoever_began_the_run_does_not_approve_it(place_of: Callable) -> None:
    place = place_of()
    with place.vault.database.ledger() as connection:
        from carelake.access.principals import Principals

        Principals(connection).add_role("operator", "reviewer")
    with pytest.raises(Refused) as caught:
        place.approve("operator")
    assert caught.value.code == "models.self_approval"


def test_an_older_token_needs_a_fresh_proof_and_a_key_does_not(place_of: Callable, clock: FixedClock) -> None:
    place = place_of()
    now = clock.now()
    fresh = Proof("reviewer", "token:t", now - timedelta(seconds=200))
    for proof in (None, replace(fresh, at=now - timedelta(seconds=301)), replace(fresh, principal="other"),
                  replace(fresh, at=now + timedelta(hours=1))):  # fmt: skip
        with pytest.raises(Unauthenticated) as caught:
            place.approve(credential="token:t", proof=proof)
        assert caught.value.code == "models.reauthenticate"
    assert place.approve(credential="token:t", proof=fresh) == APPROVED
    with place.entered("reviewer", "model:read") as permit:
        assert place.registry.decided(permit, place.ref)["shown"] == "token:t"


def test_always_asks_everyone_and_off_asks_nobody(place_of: Callable, clock: FixedClock) -> None:
    place = place_of(reauthenticate="always")
    assert not place.vault.settings.approval.in_run
    for how in ({}, {"credential": "key:k"}, {"via": "operator"}):
        with pytest.raises(Unauthenticated):
            place.approve(**how)
    token = place.identity.issue(place.who("reviewer"), purpose="HOPERAT", account="production", seconds=3600)
    assert place.approve(proof=prove(place.identity, token)) == APPROVED


def test_a_proof_is_a_token_that_holds_and_tells_its_moment(place_of: Callable, clock: FixedClock) -> None:
    place = place_of(reauthenticate="off")
    token = place.identity.issue(place.who("reviewer"), purpose="HOPERAT", account="production", seconds=3600)
    proof = prove(place.identity, token)
    assert (proof.principal, proof.at) == ("reviewer", clock.now())
    assert proof.credential.startswith("token:")
    for bad in ("", "a.b.c", token[:-4] + "AAAA"):
        with pytest.raises(Unauthenticated):
            prove(place.identity, bad)
    assert place.approve(credential="token:old") == APPROVED
