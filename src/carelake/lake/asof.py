"""The lake as it was: by a snapshot's ref, a moment, or a name that somebody gave it.

A snapshot's noun holds the Iceberg snapshot id of each table, so its ref names a data set exactly: the same question
of it has the same answer, byte for byte, until an erasure takes rows out of it. Then it says so (`lake.erased`).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from sqlalchemy import select

from carelake.audit.nouns import Nouns
from carelake.audit.tables import noun
from carelake.core import canonical
from carelake.core.clock import instant, iso
from carelake.core.errors import Gone, Invalid, NotFound
from carelake.core.nouns import Noun, ref
from carelake.core.permit import Permit
from carelake.lake.query import snapshot_of
from carelake.lake.upkeep.maintain import THINNED
from carelake.vault.workspace import Vault

__all__ = ["as_of", "tag", "tags"]

_NAME = re.compile(r"[a-z][a-z0-9._-]{0,63}")
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


def as_of(permit: Permit, vault: Vault, nouns: Nouns, said: str | None = None) -> Noun:
    """The snapshot that was the newest then.

    Args:
        said: ``snapshot:HEX``, a tag's name, an instant, or a day (its end, UTC); by default now.

    Raises:
        Invalid: ``lake.as_of``. NotFound: ``lake.no_snapshot``, ``lake.no_tag``.
    """
    if said is None or said.startswith("snapshot:"):
        return snapshot_of(permit, vault, nouns, said)
    if _NAME.fullmatch(said):
        return snapshot_of(permit, vault, nouns, _tagged(permit, vault, nouns, said))
    return snapshot_of(permit, vault, nouns, _at(permit, vault, _moment(said)))


def tag(permit: Permit, vault: Vault, nouns: Nouns, name: str, snapshot: Noun) -> Noun:
    """Give a snapshot a name; it is kept then. A name that there is moves to the new snapshot.

    Raises:
        Invalid: ``lake.tag_name``. Gone: ``lake.expired``.
    """
    if not _NAME.fullmatch(name):
        raise Invalid("lake.tag_name", "A tag's name is a small letter, then small letters, digits, dots or dashes.")
    made = ref("tag", canonical.dump({"account": permit.account, "name": name, "snapshot": snapshot.ref}))
    with vault.database.transaction(permit) as tx:
        if nouns.get(tx, snapshot.ref).state == THINNED:
            raise Gone("lake.expired", "That snapshot was let go of by a follower; tag the newest one.")
        for old in nouns.find(tx, "tag", permit.account, name=name):
            nouns.set_state(tx, old.ref, "moved")
        thing = Noun(made, permit.account, "set", permit.act, (snapshot.ref,), {"name": name})
        nouns.write(tx, thing)
        nouns.set_state(tx, made, "set")
        permit.log.wrote(made)
    return thing


def tags(permit: Permit, vault: Vault, nouns: Nouns) -> dict[str, str]:
    """Names and the refs of their snapshots."""
    with vault.database.reading(permit) as tx:
        found = nouns.find(tx, "tag", permit.account)
    return {one.body["name"]: one.made_from[0] for one in found if one.state == "set"}


def _tagged(permit: Permit, vault: Vault, nouns: Nouns, name: str) -> str:
    found = tags(permit, vault, nouns).get(name)
    if found is None:
        raise NotFound("lake.no_tag", "There is no such tag; `carelake lake tags` lists them.")
    return found


def _at(permit: Permit, vault: Vault, moment: datetime) -> str:
    query = (
        select(noun.c.ref)
        .where(noun.c.kind == "snapshot", noun.c.account == permit.account, noun.c.at <= iso(moment))
        .where(noun.c.state != THINNED)
        .order_by(noun.c.number.desc())
        .limit(1)
    )
    with vault.database.reading(permit) as tx:
        found: str | None = tx.execute(query).scalar()
    if found is None:
        raise NotFound("lake.no_snapshot", "The lake has no snapshot from then or before.")
    return found


def _moment(said: str) -> datetime:
    try:
        if _DAY.fullmatch(said):
            return datetime.fromisoformat(said + "T23:59:59.999999").replace(tzinfo=UTC)
        return instant(said)
    except ValueError:
        raise Invalid(
            "lake.as_of", "Expected a snapshot's ref, a tag, a day like 2026-11-22, or an instant with its zone."
        ) from None
