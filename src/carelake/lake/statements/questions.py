"""Saved questions: statements that a principal keeps for themselves, sealed, since they can name somebody."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

import msgspec
from sqlalchemy import Connection, delete, insert, select

from carelake.core.clock import iso
from carelake.core.errors import Invalid, NotFound
from carelake.core.permit import Permit
from carelake.core.shapes import decodable
from carelake.fhir.gone import Gone
from carelake.lake.tables import lake_question as table
from carelake.vault.workspace import Vault

__all__ = ["Question", "Questions", "forget"]

_MOST = 500
_LONGEST_NAME, _LONGEST_TEXT = 120, 100_000
_PIECE = re.compile(
    r"""'(?:[^']|'')*(?:'|\Z)|"(?:[^"]|"")*(?:"|\Z)|--[^\n]*|/\*.*?(?:\*/|\Z)|\$(\w*)\$.*?(?:\$\1\$|\Z)""", re.DOTALL
)
"""Where a statement can hold an id: texts, names in quotes, comments. What is not closed goes to the end."""
_WORD = re.compile(r"[A-Za-z0-9.\-]+")


class Question(msgspec.Struct, frozen=True):
    """A saved question.

    Attributes:
        chart: settings of its chart, by name.
    """

    name: str
    statement: str
    chart: dict[str, str] = {}


class Questions:
    """The questions of the permit's principal, in its account."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    def all(self, permit: Permit) -> dict[str, Question]:
        """By id, the newest first; needs the grant ``rows:read``."""
        query = select(table).where(*_own(permit)).order_by(table.c.id.desc())
        with self._vault.database.reading(permit) as tx:
            return {row["id"]: self._open(permit, tx, row) for row in tx.execute(query).mappings().all()}

    def get(self, permit: Permit, name: str) -> Question:
        """The question of that id.

        Raises:
            NotFound: ``lake.no_question``, also for another's.
        """
        with self._vault.database.reading(permit) as tx:
            row = tx.execute(select(table).where(*_own(permit), table.c.id == name)).mappings().first()
            if row is None:
                raise _no_such()
            return self._open(permit, tx, row)

    def save(self, permit: Permit, question: Question, replaces: str = "") -> str:
        """Keep a question, in the place of another one or as a new one; answers its id. Needs ``rows:write``.

        Raises:
            Invalid: ``lake.question``.
        """
        if not 0 < len(question.name) <= _LONGEST_NAME or not 0 < len(question.statement) <= _LONGEST_TEXT:
            raise Invalid(
                "lake.question", f"A question has a name of 1 to {_LONGEST_NAME} characters, and a statement."
            )
        name = self._vault.ids.new()
        with self._vault.database.transaction(permit) as tx:
            if replaces:
                self._delete(permit, tx, replaces)
            if len(tx.execute(select(table.c.id).where(*_own(permit)).limit(_MOST)).all()) >= _MOST:
                raise Invalid("lake.question", f"There are {_MOST} questions already; delete some.")
            sealed = self._vault.sealer.seal(permit, tx, "", _context(name), msgspec.json.encode(question))
            now = iso(self._vault.clock.now())
            row = {"id": name, "account": permit.account, "principal": permit.principal, "sealed": sealed, "at": now}
            tx.execute(insert(table).values(row))
            permit.log.count(questions=1)
        return name

    def delete(self, permit: Permit, name: str) -> None:
        """Take one away; `NotFound` ``lake.no_question``."""
        with self._vault.database.transaction(permit) as tx:
            self._delete(permit, tx, name)
            permit.log.count(questions=1)

    @staticmethod
    def _delete(permit: Permit, tx: Connection, name: str) -> None:
        if not tx.execute(delete(table).where(*_own(permit), table.c.id == name)).rowcount:
            raise _no_such()

    def _open(self, permit: Permit, tx: Connection, row: Any) -> Question:
        data = self._vault.sealer.open(permit, tx, "", _context(row["id"]), row["sealed"])
        return msgspec.json.decode(data, type=decodable(Question))


def forget(vault: Vault, permit: Permit, patients: Collection[str]) -> dict[str, int]:
    """Take away the questions of an account that name one of these patients; a part of an erasure."""
    gone = Gone(f"Patient/{one}" for one in patients)
    taken = 0
    with vault.database.transaction(permit) as tx:
        for row in tx.execute(select(table).where(table.c.account == permit.account)).mappings().all():
            data = vault.sealer.open(permit, tx, "", _context(row["id"]), row["sealed"])
            question = msgspec.json.decode(data, type=decodable(Question))
            said = f"{question.name}\n{question.statement}"
            if gone.named_in(said.encode()) or not _words(question).isdisjoint(patients):
                tx.execute(delete(table).where(table.c.id == row["id"]))
                taken += 1
    return {"questions": taken}


def _words(question: Question) -> set[str]:
    pieces = [question.name, *(found[0] for found in _PIECE.finditer(question.statement))]
    return {word for piece in pieces for word in _WORD.findall(piece)}


def _own(permit: Permit) -> tuple[Any, ...]:
    return table.c.account == permit.account, table.c.principal == permit.principal


def _context(name: str) -> bytes:
    return b"lake-question\x1f" + name.encode()


def _no_such() -> NotFound:
    return NotFound("lake.no_question", "There is no such question of yours.")
