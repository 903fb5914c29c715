"""``carelake.toml`` and ``policies/*.cedar``: plain files, yours to edit; that they were edited is not left untold.

The digest of each is accepted by somebody, at first when it is first seen, and kept in the encrypted database and, by
an act, on the trail. Every start and `audit verify` compare; ``carelake settings accept`` accepts what is there now.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Column, Connection, String, Table, delete, insert, select, update

from carelake.audit.acts import ActHeader, write
from carelake.core import canonical
from carelake.core.clock import Clock, iso
from carelake.core.ids import Ids
from carelake.core.permit import Permit, check
from carelake.vault.database import Database, metadata

__all__ = ["Changed", "Declared", "declared_file", "digest_of"]

declared_file = Table(
    "declared_file",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("sha256", String(64), nullable=False, comment="as accepted"),
    Column("accepted_by", String(128), nullable=False),
    Column("accepted_at", String(32), nullable=False),
    Column("seen", String(64), nullable=False, comment="as last seen; the trail told of it then"),
    comment="Digests of the plain files of the workspace that decide what it does.",
)


@dataclass(frozen=True, slots=True)
class Changed:
    """A file that is not as it was accepted.

    Attributes:
        how: ``changed``, ``added`` or ``removed``.
    """

    name: str
    how: str
    accepted_at: str

    @property
    def reason(self) -> str:
        """A sentence."""
        return f"{self.name} was {self.how} since it was accepted; `carelake settings accept` accepts what is there"


def digest_of(name: str, data: bytes) -> str:
    """SHA-256; of settings, of what they say, but for what upgrades and restores write."""
    if name.endswith(".toml"):
        try:
            said = tomllib.loads(data.decode())
            return canonical.digest(
                {key: repr(value) for key, value in said.items() if key not in ("format", "version", "copy")}
            )
        except (tomllib.TOMLDecodeError, UnicodeDecodeError):
            pass
    return hashlib.sha256(data).hexdigest()


class Declared:
    """The accepted digests of one workspace."""

    def __init__(self, database: Database, clock: Clock, ids: Ids) -> None:
        self._database = database
        self._clock = clock
        self._ids = ids

    def look(self, files: Mapping[str, bytes]) -> list[Changed]:
        """Compare what is there with what was accepted; what is new to us goes on the trail.

        The first time, before anything was accepted, what is there is accepted.
        """
        now = {name: digest_of(name, data) for name, data in files.items()}
        with self._database.ledger_reading() as connection:
            known = _known(connection)
        if not known:
            with self._database.ledger() as connection:
                if not _known(connection):
                    self._accept(connection, now, "init")
            return []
        changed = [
            Changed(name, _how(name, now, known), known[name][1] if name in known else "")
            for name in sorted(now.keys() | known.keys())
            if now.get(name, "") != known.get(name, ("",))[0]
        ]
        news = {
            name: now.get(name, "") for name in now.keys() | known.keys() if now.get(name, "") != _seen(known, name)
        }
        if news:
            with self._database.ledger() as connection:
                self._note(connection, news)
        return changed

    def accept(self, permit: Permit, files: Mapping[str, bytes]) -> list[Changed]:
        """Accept what is there; answers what that changed.

        Raises:
            Refused: the permit has no grant ``rows:write``.
        """
        check(permit, "rows:write", now=self._clock.now())
        changed = self.look(files)
        with self._database.ledger() as connection:
            self._accept(connection, {name: digest_of(name, data) for name, data in files.items()}, permit.principal)
        permit.log.count(files=len(changed))
        return changed

    def _accept(self, connection: Connection, now: Mapping[str, str], who: str) -> None:
        at = iso(self._clock.now())
        connection.execute(delete(declared_file))
        for name, sha256 in sorted(now.items()):
            said = {"name": name, "sha256": sha256, "accepted_by": who, "accepted_at": at, "seen": sha256}
            connection.execute(insert(declared_file).values(**said))
        self._tell(connection, "settings:accepted", who, now)

    def _note(self, connection: Connection, news: Mapping[str, str]) -> None:
        for name, sha256 in news.items():
            done = connection.execute(
                update(declared_file).where(declared_file.c.name == name).values(seen=sha256)
            ).rowcount
            if not done:
                said = {"name": name, "sha256": "", "accepted_by": "", "accepted_at": "", "seen": sha256}
                connection.execute(insert(declared_file).values(**said))
        self._tell(connection, "settings:changed", "vault", news)

    def _tell(self, connection: Connection, action: str, who: str, digests: Mapping[str, str]) -> None:
        header = ActHeader(self._ids.new(), who, "security", "HSYSADMIN", action, "workspace")
        write(connection, header, "done", self._clock, {"files": dict(sorted(digests.items()))})


_Known = Mapping[str, tuple[str, str, str]]


def _known(connection: Connection) -> _Known:
    rows = connection.execute(select(declared_file))
    return {row.name: (row.sha256, row.accepted_at, row.seen) for row in rows}


def _seen(known: _Known, name: str) -> str:
    return known[name][2] if name in known else ""


def _how(name: str, now: Mapping[str, str], known: _Known) -> str:
    if name not in now:
        return "removed"
    return "changed" if known.get(name, ("",))[0] else "added"
