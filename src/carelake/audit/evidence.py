"""One act with all that there is about it: its rows, the patients, what it made, and the proof that it is sealed."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, select

from carelake.audit import merkle
from carelake.audit.nouns import Nouns
from carelake.audit.readings import Acts, as_json
from carelake.audit.sealing import stored_segment
from carelake.audit.tables import act
from carelake.audit.tables import segment as table
from carelake.core import canonical
from carelake.core.errors import NotFound
from carelake.core.permit import Permit
from carelake.vault.workspace import Vault

__all__ = ["Evidence"]


class Evidence:
    """Looks acts up.

    Args:
        permit: `Gate.sealing`'s, which opens the audit zone; the caller has passed the gate for ``audit:read``.
    """

    def __init__(self, vault: Vault, nouns: Nouns, permit: Permit) -> None:
        self._vault = vault
        self._nouns = nouns
        self._permit = permit

    def of(self, name: str, account: str = "") -> dict[str, Any]:
        """An act by its id, or by the number of one of its rows.

        Args:
            account: only one in this account; another's is not there for the caller.

        Per row: everything that it says, all patients, and with ``sealed`` the number, header line and signature of
        its segment, the line itself, its index and its inclusion proof (RFC 6962 section 2.1.1).

        Raises:
            NotFound: ``audit.no_such_act``.
        """
        with self._vault.database.ledger_reading() as connection:
            rows = [row for row in self._rows(connection, name) if account in ("", row["account"])]
            if not rows:
                raise NotFound("audit.no_such_act", "No act has this id or number; `carelake audit list` lists them.")
            told = [self._told(connection, row) for row in rows]
            nouns = self._nouns.of_act(connection, rows[0]["correlation"], limit=1000)
        return {"act": rows[0]["correlation"], "rows": told, "nouns": nouns}

    @staticmethod
    def _rows(connection: Connection, name: str) -> list[dict[str, Any]]:
        if name.isascii() and name.isdigit() and len(name) < 19:
            found = connection.execute(select(act).where(act.c.seq == int(name))).mappings().first()
            if found is not None:
                return [as_json(found)]
        return Acts(connection).of(name)

    def _told(self, connection: Connection, row: dict[str, Any]) -> dict[str, Any]:
        patients = Acts(connection).patients(row["seq"])
        told = {**row, **({"patients": patients} if patients else {})}
        query = select(table.c.number).where(table.c.last >= row["seq"]).order_by(table.c.number).limit(1)
        number = connection.execute(query).scalar()
        sealed = stored_segment(self._vault, self._permit, number) if number else None
        if sealed is None:
            return {**told, "sealed": False}
        index = row["seq"] - sealed.header["first"]
        if not 0 <= index < len(sealed.lines):
            return {**told, "sealed": False}
        return {
            **told,
            "sealed": sealed.lines[index] == canonical.dump(row),
            "segment": number,
            "index": index,
            "line": sealed.lines[index].decode(),
            "proof": [step.hex() for step in merkle.inclusion(sealed.lines, index)],
            "header": sealed.header_line.decode(),
            "signature": sealed.signature.hex(),
        }
