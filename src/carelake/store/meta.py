"""The profiles, tags and security labels in use: ``$meta`` of a type and of all (https://hl7.org/fhir/R4/resource-operation-meta.html).

Read from the index by leaps from one value to the next, so that the work is in their number and not in that of the
resources that have them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection

from carelake.core.errors import Refused
from carelake.core.permit import Permit
from carelake.fhir.search import parameters
from carelake.fhir.terminology import SHIPPED, LocalTerminology
from carelake.store.scopes import bounded
from carelake.store.search.building import Build, prepare, restore
from carelake.store.search.compiling import Compiler
from carelake.store.symbols import Symbols
from carelake.store.tables import HEAD
from carelake.vault.database import scope_of

__all__ = ["MOST", "labels"]

MOST = 1000
"""Values of each kind that are told."""
_NAMES = {"profile": "_profile", "security": "_security", "tag": "_tag"}


def labels(permit: Permit, tx: Connection, symbols: Symbols, types: Sequence[str]) -> dict[str, Any]:
    """A ``Meta`` with every profile, security label and tag that resources of these types have, up to `MOST` each.

    Raises:
        Refused: ``store.scoped_labels``: the permit sees a part of the record, and the index tells of all.
    """
    if bounded(permit, tx=tx):
        raise Refused(
            "store.scoped_labels",
            "Who sees a part of the record alone is not told what labels a whole type has; ask for a resource's.",
        )
    compiler = Compiler(permit, tx, symbols, LocalTerminology(SHIPPED))
    compiler.prime(types)
    prepare(tx)
    found: dict[str, dict[tuple[str, str], None]] = {name: {} for name in _NAMES}
    for kind in types:
        for name, code in _NAMES.items():
            for value in _values(compiler, kind, code):
                if len(found[name]) < MOST:
                    found[name][value] = None
    if scope_of(tx).writing:
        restore(tx)
    permit.log.count(searched=1)
    profiles = [value for value, _ in sorted(found["profile"])]
    meta: dict[str, Any] = {"profile": profiles} if profiles else {}
    for name in ("security", "tag"):
        codings = [
            {"system": system, "code": code} if system else {"code": code} for code, system in sorted(found[name])
        ]
        meta |= {name: codings} if codings else {}
    return meta


def _values(compiler: Compiler, kind: str, code: str) -> Iterator[tuple[str, str]]:
    """Codes with their systems, or urls with ""."""
    symbol = compiler.kind(kind)
    parameter = parameters(kind).get(code)
    if symbol < 0 or parameter is None:
        return
    table, column = ("ix_uri", "value") if parameter.type == "uri" else ("ix_token", "code")
    for param in sorted(compiler.params(symbol, parameter.sources).values()):
        yield from _leaps(compiler, table, column, param)


def _leaps(compiler: Compiler, table: str, column: str, param: int) -> Iterator[tuple[str, str]]:
    after, seen = "", 0
    while seen < MOST:
        build = Build(compiler.dialect)
        head = column if build.sqlite else f"left({column}, {HEAD})"
        told = f"param = {build(param)} AND {head} > {build(after)}"
        rows = build.run(compiler.tx, f"SELECT {column} FROM {table} WHERE {told} ORDER BY {head} LIMIT 1")
        if not rows:
            return
        value = str(rows[0][0])
        for system in _systems(compiler, param, value) if table == "ix_token" else ("",):
            seen += 1
            yield value, system
        # On PostgreSQL texts are in the order of their heads: what has the same head is left out with it.
        after = value if build.sqlite else value[:HEAD]


def _systems(compiler: Compiler, param: int, code: str) -> list[str]:
    """Systems of a code, by leaps too."""
    found: list[str] = []
    after = -1
    while len(found) < MOST:
        build = Build(compiler.dialect)
        told = f"param = {build(param)} AND {build.same('code', code)} AND system > {build(after)}"
        rows = build.run(compiler.tx, f"SELECT system FROM ix_token WHERE {told} ORDER BY system LIMIT 1")
        if not rows:
            break
        after = int(rows[0][0])
        found.append(compiler.symbols.texts(compiler.tx, {after})[after])
    return found
