"""Whose an execution is: what this process broke off at an error is nobody's, what another one carries out is its."""

from __future__ import annotations

import os
from dataclasses import fields, replace
from typing import Any

from carelake.apps.pipelining import held
from carelake.audit.processes import _start_ticks, this_process
from carelake.core import canonical
from carelake.pipelines.execution import callbacks
from carelake.pipelines.execution.rows import Execution


def test_what_this_process_broke_off_is_taken_up_again() -> None:
    parent = os.getppid()
    mine: dict[str, Any] = {**this_process(), "act": "a", "until": ""}
    other = {**mine, "pid": parent, "started": _start_ticks(parent)}
    far = {**mine, "host": "another machine"}
    none: dict[str, Any] = {one.name: "" for one in fields(Execution)}
    for holder, expected in ((mine, False), (other, True), (far, True), ({**mine, "started": 1}, False)):
        one = replace(Execution(**none), process=canonical.dump(holder).decode())
        assert held(one) is expected
    assert not held(replace(Execution(**none), process=callbacks.WAITING))
