"""What an incremental import may store: an older version of a resource never takes the place of a newer one.

The rule (decision 0034). A line is as old as its ``meta.lastUpdated``, and of two of one moment the older one is that
with the lower ``meta.versionId``; without ``lastUpdated`` it is of now. The current version, if it came from an
import, is as old as what it came with; if it was written here, as its own time and number. Then a line is

- *unchanged*, where its content equals the current version's, whatever ``versionId`` and ``lastUpdated`` say;
- *superseded*, where it is older than the current version: it is not stored;
- in *conflict*, where it says to be the same version with other content: it is refused;
- *stored*, else.

Lines of one resource on one page are taken in their order of age.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

from sqlalchemy import Connection, bindparam, select

from carelake.core import canonical
from carelake.core.clock import instant
from carelake.core.permit import Permit
from carelake.core.records import Parsed
from carelake.store import bodies
from carelake.store.rows import read_versions
from carelake.store.symbols import Symbols, kinds_of
from carelake.store.tables import resource, resource_version
from carelake.vault.workspace import Vault

__all__ = ["Age", "Order", "Verdict", "age_of", "versions_between"]

Verdict = Literal["stored", "unchanged", "superseded", "conflict"]
Age = tuple[int, int]
"""Microseconds since 1970, and the number of the version, -1 where there is none."""

_R, _V = resource.c, resource_version.c
_CHUNK = 500
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CURRENT = (
    select(_R.id, _R.seq, _V.origin)
    .join(resource_version, _V.seq == _R.seq)
    .where(_R.kind == bindparam("k"), _R.id.in_(bindparam("ids", expanding=True)))
)

_Key = tuple[str, str]


class _Now(NamedTuple):
    age: Age
    content: bytes
    deleted: bool


class Order:
    """Tells what becomes of lines, in the transaction that stores them."""

    def __init__(self, vault: Vault, symbols: Symbols) -> None:
        self._vault = vault
        self._symbols = symbols

    def verdicts(self, permit: Permit, tx: Connection, page: Sequence[Parsed]) -> list[Verdict]:
        """A verdict for each; those to be stored are in their order of age, see `ordered`."""
        places: defaultdict[_Key, list[int]] = defaultdict(list)
        for index, one in enumerate(page):
            places[(one.type, one.id)].append(index)
        current = self._current(permit, tx, page)
        found: list[Verdict] = ["stored"] * len(page)
        for key, indexes in places.items():
            now = current.get(key)
            if now is None and len(indexes) == 1:
                continue  # most lines of a first import: nothing of them is read again
            for index in indexes:
                content, age = _content(page[index])
                found[index] = _verdict(content, age, now)
                if found[index] == "stored":
                    now = _Now(age or (self._time(), -1), content, False)
        return found

    def ordered(self, page: Sequence[Parsed]) -> list[Parsed]:
        """The page with lines of one resource in their order of age, each in a place of theirs."""
        places: defaultdict[_Key, list[int]] = defaultdict(list)
        for index, one in enumerate(page):
            places[(one.type, one.id)].append(index)
        ordered = list(page)
        for indexes in places.values():
            if len(indexes) > 1:
                last = (self._time(), -1)
                aged = sorted((_content(page[index])[1] or last, index) for index in indexes)
                for place, (_, index) in zip(indexes, aged, strict=True):
                    ordered[place] = page[index]
        return ordered

    def ages(self, permit: Permit, tx: Connection, keys: Sequence[_Key]) -> dict[_Key, tuple[Age, str, bool]]:
        """Age, owner and whether it is deleted, of the current versions of resources."""
        found = {}
        for key, (one, imported) in self._versions(permit, tx, keys).items():
            age = _told_age(one.text) if imported and one.text else None
            found[key] = (age or (one.updated, one.version), one.owner, one.deleted or one.erased)
        return found

    def _current(self, permit: Permit, tx: Connection, page: Sequence[Parsed]) -> dict[_Key, _Now]:
        found = {}
        for key, (one, imported) in self._versions(permit, tx, [(one.type, one.id) for one in page]).items():
            content, told = (b"", None) if not one.text else _bare(one.text)
            age = told if imported and told is not None else (one.updated, one.version)
            found[key] = _Now(age, content, one.deleted or one.erased)
        return found

    def _versions(self, permit: Permit, tx: Connection, keys: Sequence[_Key]) -> dict[_Key, tuple[Any, bool]]:
        wanted: defaultdict[str, dict[str, None]] = defaultdict(dict)
        for kind, key in keys:
            wanted[kind][key] = None
        known = self._symbols.find(tx, kinds_of(permit.account), wanted)
        seqs: dict[int, bool] = {}
        for kind, ids in wanted.items():
            listed = list(ids) if kind in known else []
            for start in range(0, len(listed), _CHUNK):
                rows = tx.execute(_CURRENT, {"k": known[kind], "ids": listed[start : start + _CHUNK]})
                seqs.update((seq, bool(origin)) for _, seq, origin in rows)
        opened = read_versions(permit, tx, self._vault, self._symbols, list(seqs))
        return {(one.type, one.id): (one, seqs[one.seq]) for one in opened}

    def _time(self) -> int:
        return (self._vault.clock.now() - _EPOCH) // timedelta(microseconds=1)


def versions_between(tx: Connection, first: int, last: int) -> dict[tuple[int, int], int]:
    """Line and offset to number, of the versions of a run of seqs, all of them from one landing."""
    if not last:
        return {}
    query = select(_V.line, _V.offset, _V.version).where(_V.seq >= first, _V.seq <= last)
    return {(line, offset): version for line, offset, version in tx.execute(query)}


def age_of(meta: Any) -> Age | None:
    """How old a ``meta`` says that its resource is; None where it does not say."""
    if not isinstance(meta, dict) or not isinstance(meta.get("lastUpdated"), str):
        return None
    try:
        moment = (instant(meta["lastUpdated"]) - _EPOCH) // timedelta(microseconds=1)
    except ValueError:
        return None
    version = meta.get("versionId")
    return moment, int(version) if isinstance(version, str) and version.isdecimal() and len(version) < 19 else -1


def _verdict(content: bytes, age: Age | None, now: _Now | None) -> Verdict:
    if now is None:
        return "stored"
    if not now.deleted and content == now.content:
        return "unchanged"
    if age is None or age > now.age:
        return "stored"
    if age == now.age and not now.deleted:
        return "conflict"
    return "superseded"


def _content(one: Parsed) -> tuple[bytes, Age | None]:
    return _bare(bodies.unpack(one.body))


def _bare(text: bytes) -> tuple[bytes, Age | None]:
    """A body without the two that tell its age, and its age."""
    resource_ = canonical.load(text)
    meta = resource_.get("meta", {})
    age = age_of(meta)
    kept = {name: value for name, value in meta.items() if name not in ("versionId", "lastUpdated")}
    rest = {name: value for name, value in resource_.items() if name != "meta"}
    return canonical.dump({**rest, **({"meta": kept} if kept else {})}), age


def _told_age(text: bytes) -> Age | None:
    return age_of(canonical.load(text).get("meta", {}))
