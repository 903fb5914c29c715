"""Callback steps: a token is handed out with an event, and the step waits until somebody sends it back.

https://docs.aws.amazon.com/sagemaker/latest/dg/build-and-manage-steps-types.html#step-type-callback
"""

from __future__ import annotations

import secrets
import string
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from carelake.core import canonical
from carelake.core.errors import Conflict, Invalid, NotFound
from carelake.pipelines.execution.rows import Execution, Rows, check_active
from carelake.pipelines.tables import callback

__all__ = ["WAITING", "ask", "settle", "told"]

WAITING = "callback"
"""In place of a process: nobody carries the execution out until a token comes back."""

_LETTERS = string.ascii_letters + string.digits


def ask(tx: Connection, account: str, execution: str, step: str, now: str) -> str:
    """A new token for a step, ten letters and digits."""
    token = "".join(secrets.choice(_LETTERS) for _ in range(10))
    said = {"token": token, "account": account, "execution": execution, "step": step, "status": "Executing"}
    tx.execute(insert(callback).values(**said, output="{}", reason="", created=now, ended=""))
    return token


def told(tx: Connection, execution: str, step: str) -> Row[Any] | None:
    """The newest token of a step, as it stands."""
    own = (callback.c.execution == execution) & (callback.c.step == step)
    query = select(callback).where(own).order_by(callback.c.created.desc(), callback.c.token)
    return tx.execute(query.limit(1)).first()


def settle(
    tx: Connection, account: str, token: str, status: str, given: Mapping[str, str], reason: str, now: str
) -> Execution:
    """What came of it; the same answer again changes nothing.

    Raises:
        NotFound: ``pipelines.no_such_token``.
        Conflict: ``pipelines.answered``: with something else; ``pipelines.ended``.
        Invalid: ``pipelines.output_parameters``.
    """
    own = (callback.c.account == account) & (callback.c.token == token)
    row = tx.execute(select(callback).where(own)).first()
    if row is None:
        raise NotFound("pipelines.no_such_token", "No step waits for this token; it is ten letters and digits.")
    if len(given) > 50 or any(len(value) > 1024 for value in given.values()):
        raise Invalid("pipelines.output_parameters", "At most 50 output parameters of at most 1024 characters.")
    one = Rows(tx, account).execution(row.execution)
    output = canonical.dump(dict(given)).decode()
    if row.status == status and row.output == output:
        return one
    if row.status != "Executing":
        raise Conflict("pipelines.answered", "This token came back already, with another answer.")
    check_active(one)
    tx.execute(update(callback).where(own).values(status=status, output=output, reason=reason, ended=now))
    if one.process == WAITING:
        Rows(tx, account).change_execution(one.id, process="")
    return one
