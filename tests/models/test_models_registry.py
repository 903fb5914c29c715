"""Who may let a model through, and what must be there for it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import select

from carelake.core import canonical
from carelake.core.errors import NotFound, Refused
from carelake.events.tables import event
from carelake.models.registry import APPROVED, PENDING, REJECTED, Registry

TRAINING_SET = "trainingset:" + "0" * 64
GRANTS = ("models:read", "models:write", "models:approve", "rows:read", "rows:write")


@pytest.fixture
def author(permit_for: Callable) -> object:
    return permit_for(*GRANTS, principal="pipeline")


@pytest.fixture
def reviewer(permit_for: Callable) -> object:
    return permit_for("models:read", "models:approve", "rows:read", "rows:write", principal="reviewer")


def test_a_version_waits_and_is_let_through_by_another(registry: Registry, author, reviewer, files: dict) -> None:
    noun = registry.register(author, "readmission", TRAINING_SET, files, made_from=("snapshot:" + "1" * 64,))
    assert (noun.state, noun.body["version"], noun.body["author"]) == (PENDING, 1, "pipeline")
    assert noun.made_from[0] == TRAINING_SET
    assert registry.approve(reviewer, noun.ref).state == APPROVED
    assert registry.get(reviewer, noun.ref).state == APPROVED
    assert noun.ref in author.log.writes
    assert noun.ref in reviewer.log.writes
    assert registry.reject(reviewer, noun.ref).state == REJECTED
    assert registry.approve(reviewer, noun.ref).state == APPROVED


def test_nobody_approves_their_own_model(registry: Registry, author, files: dict) -> None:
    noun = registry.register(author, "readmission", TRAINING_SET, files)
    with pytest.raises(Refused) as caught:
        registry.approve(author, noun.ref)
    assert caught.value.code == "models.self_approval"
    assert registry.get(author, noun.ref).state == PENDING


def test_the_same_files_are_one_version_and_others_the_next(registry: Registry, author, files: dict) -> None:
    one = registry.register(author, "readmission", TRAINING_SET, files)
    assert registry.register(author, "readmission", TRAINING_SET, files) == one
    two = registry.register(author, "readmission", TRAINING_SET, {**files, "baseline.json": b'{"rows":2}'})
    assert (two.body["version"], len(registry.versions(author, "readmission"))) == (2, 2)
    assert registry.versions(author, "readmission")[0].ref == two.ref


@pytest.mark.parametrize(
    ("file", "content"),
    [("metrics.json", {"auroc": None, "reason": "too few"}), ("metrics.json", {"reason": None}), ("card.json", {})],
)
def test_without_evidence_there_is_no_approval(
    registry: Registry, author, reviewer, files: dict, file: str, content: dict
) -> None:
    noun = registry.register(author, "readmission", TRAINING_SET, {**files, file: canonical.dump(content)})
    with pytest.raises(Refused) as caught:
        registry.approve(reviewer, noun.ref)
    assert caught.value.code == "models.evidence"


def test_altered_files_are_not_approved(registry: Registry, vault, author, reviewer, files: dict) -> None:
    noun = registry.register(author, "readmission", TRAINING_SET, files)
    vault.objects.put(author, "models", f"readmission/{noun.ref.partition(':')[2]}/metrics.json", b"{}")
    with pytest.raises(Exception, match="signed"):
        registry.approve(reviewer, noun.ref)


def test_another_account_does_not_know_of_it(registry: Registry, author, permit_for: Callable, files: dict) -> None:
    noun = registry.register(author, "readmission", TRAINING_SET, files)
    stranger = permit_for(*GRANTS, principal="reviewer", account="research")
    assert registry.versions(stranger) == []
    for act in (registry.get, registry.approve, registry.reject, registry.files):
        with pytest.raises(NotFound):
            act(stranger, noun.ref)


def test_every_move_is_announced(registry: Registry, vault, author, reviewer, files: dict) -> None:
    noun = registry.register(author, "readmission", TRAINING_SET, files)
    registry.approve(reviewer, noun.ref)
    with vault.database.reading(reviewer) as tx:
        said = [
            (kind, canonical.load(data))
            for kind, data in tx.execute(select(event.c.type, event.c.data).order_by(event.c.seq))
        ]
    assert [(kind, data["state"], data["by"]) for kind, data in said] == [
        ("carelake.model.state", PENDING, "pipeline"),
        ("carelake.model.state", APPROVED, "reviewer"),
    ]
