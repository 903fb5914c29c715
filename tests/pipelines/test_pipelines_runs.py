"""Runs resume at the step where they stood, and end honestly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from carelake.audit.acts import ActHeader, write
from carelake.core import canonical
from carelake.core.clock import iso
from carelake.core.errors import Conflict, NotFound
from carelake.core.permit import Permit
from carelake.pipelines.recipe import Recipe, Step, recipe, recipes
from carelake.pipelines.runs import Outputs, Runs

PLAN = Recipe("plan", "A plan", tuple(Step(n, f"do.{n}", n) for n in ("one", "two", "three")))


@pytest.fixture
def permit(permit_for: Callable[..., Permit]) -> Permit:
    return permit_for("rows:read", "rows:write")


class Work:
    """Steps that count how often each was done, and fail where told."""

    def __init__(self, fail_at: str = "") -> None:
        self.done: list[str] = []
        self.fail_at = fail_at

    def functions(self) -> dict[str, Any]:
        def step(name: str) -> Callable[[Outputs], dict[str, Any]]:
            def work(outputs: Outputs) -> dict[str, Any]:
                if name == self.fail_at:
                    raise RuntimeError(name)
                self.done.append(name)
                return {"value": len(outputs)}

            return work

        return {f"do.{name}": step(name) for name in ("one", "two", "three")}


def test_a_run_goes_through_in_order(vault: Any, permit: Permit) -> None:
    work = Work()
    made = Runs(vault).carry_out(permit, PLAN, work.functions(), {})
    assert work.done == ["one", "two", "three"]
    assert made.outputs == {"one": {"value": 0}, "two": {"value": 1}, "three": {"value": 2}}
    assert made.resumed_at == ""


def test_an_interrupted_run_resumes_at_its_step(vault: Any, permit: Permit) -> None:
    with pytest.raises(RuntimeError):
        Runs(vault).carry_out(permit, PLAN, Work("two").functions(), {})
    work = Work()
    made = Runs(vault).carry_out(permit, PLAN, work.functions(), {})
    assert work.done == ["two", "three"]
    assert made.resumed_at == "two"
    assert made.outputs["one"] == {"value": 0}


@pytest.mark.parametrize(("parameters", "new"), [({"other": 1}, False), ({}, True)])
def test_other_parameters_or_new_begin_afresh(
    vault: Any, permit: Permit, parameters: dict[str, Any], new: bool
) -> None:
    with pytest.raises(RuntimeError):
        Runs(vault).carry_out(permit, PLAN, Work("two").functions(), {})
    work = Work()
    Runs(vault).carry_out(permit, PLAN, work.functions(), parameters, new=new)
    assert work.done == ["one", "two", "three"]


def test_a_finished_run_is_not_resumed(vault: Any, permit: Permit) -> None:
    Runs(vault).carry_out(permit, PLAN, Work().functions(), {})
    work = Work()
    Runs(vault).carry_out(permit, PLAN, work.functions(), {})
    assert work.done == ["one", "two", "three"]


def test_a_step_may_stop_the_run_with_a_reason(vault: Any, permit: Permit) -> None:
    work = Work()
    functions = {**work.functions(), "do.two": lambda _: {"stop": "too few cases"}}
    made = Runs(vault).carry_out(permit, PLAN, functions, {})
    assert work.done == ["one"]
    assert made.stopped == "too few cases"
    with vault.database.reading(permit) as tx:
        assert [r["state"] for r in Runs(vault).recent(tx, "production")] == ["stopped"]


def test_two_processes_do_not_carry_out_one_recipe(vault: Any, permit: Permit) -> None:
    with pytest.raises(RuntimeError):
        Runs(vault).carry_out(permit, PLAN, Work("two").functions(), {})
    # The parent of this process lives, and is another one.
    import os

    from carelake.audit.processes import _start_ticks

    other = canonical.dump({"pid": os.getppid(), "started": _start_ticks(os.getppid())}).decode()
    with vault.database.transaction(permit) as tx:
        tx.exec_driver_sql("UPDATE run SET process = ?", (other,))
    with pytest.raises(Conflict) as caught:
        Runs(vault).carry_out(permit, PLAN, Work().functions(), {})
    assert caught.value.code == "pipelines.running"


@pytest.mark.parametrize("end", ["permit", "failed", "interrupted"])
def test_a_run_of_another_machine_is_held_until_its_permit_or_its_act_ends(
    vault: Any, permit: Permit, permit_for: Callable[..., Permit], end: str
) -> None:
    """On PostgreSQL a run may be another machine's, where nobody here can look: it is not taken for dead."""
    with pytest.raises(RuntimeError):
        Runs(vault).carry_out(permit, PLAN, Work("two").functions(), {})
    with vault.database.transaction(permit) as tx:
        (said,) = tx.exec_driver_sql("SELECT process FROM run").one()
        assert canonical.load(said)["until"] == iso(permit.expires)
        there = canonical.dump({**canonical.load(said), "host": "another"}).decode()
        tx.exec_driver_sql("UPDATE run SET process = ?", (there,))
    work = Work()
    for new in (False, True):
        with pytest.raises(Conflict) as caught:
            Runs(vault).carry_out(permit, PLAN, work.functions(), {}, new=new)
        assert caught.value.code == "pipelines.running_elsewhere"
    assert work.done == []
    if end == "permit":
        vault.clock.move(hours=1)
        permit = permit_for("rows:read", "rows:write")
    else:
        header = ActHeader(permit.act, "pipeline", "production", "HOPERAT", "pipeline:run", "plan")
        with vault.database.ledger() as tx:
            write(tx, header, end, vault.clock, {})
    assert Runs(vault).carry_out(permit, PLAN, work.functions(), {}).resumed_at == "two"
    assert work.done == ["two", "three"]


def test_recipes_are_whole() -> None:
    for name, plan in recipes().items():
        assert plan.name == name
        assert len({step.name for step in plan.steps}) == len(plan.steps)
    with pytest.raises(NotFound):
        recipe("nothing")
