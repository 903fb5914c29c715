"""Declared features, computed for the patients whom changes of the record or the time have touched.

Each computation takes the versions of resources that came into the lake since the one before, and the patients of
whom something has left a window meanwhile; works out their values over time anew (`windows`), and writes what differs
from what was written (`windows.differences`). So late and corrected data give corrections, which say when they were
written, and a computation that is done twice, or that was killed and is done again, writes nothing twice.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.expressions import In
from sqlalchemy import Connection, delete, insert, select

from carelake.audit.nouns import Nouns
from carelake.core.errors import Conflict, Invalid
from carelake.core.nouns import Noun
from carelake.core.permit import Permit
from carelake.events.outbox import Outbox
from carelake.features.groups import offline, quality
from carelake.features.groups.batches import Batch, Refused, texts_of, write
from carelake.features.groups.declaration import Declared, load
from carelake.features.groups.definition import Group
from carelake.features.groups.facts import Facts, facts_of
from carelake.features.groups.iceberg import arrow_type, column_of
from carelake.features.groups.known import every, find
from carelake.features.groups.sight import check_whole
from carelake.features.groups.tables import feature_due as due_table
from carelake.features.groups.tables import feature_position as position
from carelake.features.groups.values import micros, zulu
from carelake.features.groups.windows import Row, Steps, differences, nothing, steps
from carelake.lake import query
from carelake.lake.current import rows_of
from carelake.lake.flat import view
from carelake.lake.seeing.relations import flat
from carelake.lake.tables import lake_position
from carelake.vault.workspace import Vault

__all__ = ["Computed", "compute", "waiting"]

_US = pa.timestamp("us", "UTC")
_FEW = 2_000
"""So many patients are read by themselves; for more all rows are."""
_AT_ONCE = 20_000
"""Patients whose facts are in memory together."""
_CHUNK = 2_000
"""Patients whose records are one commit."""


@dataclass(slots=True)
class Computed:
    """What a computation did.

    Attributes:
        patients: whom something had touched. records: that were written. masked: values that broke a gate, and are
            not there. seq: the change of the record that the features are up to.
    """

    group: str
    patients: int = 0
    records: int = 0
    masked: dict[str, int] = field(default_factory=dict)
    seq: int = 0
    snapshot: str = ""


def waiting(permit: Permit, vault: Vault, account: str) -> bool:
    """Whether a computation of an account would find something to do; cheap."""
    with vault.database.reading(permit) as tx:
        seq = tx.execute(select(lake_position.c.seq).where(lake_position.c.account == account)).scalar()
        groups = [one.id for one in every(tx, account) if one.said.declaration]
        told = dict(tx.execute(select(position.c.grp, position.c.seq).where(position.c.grp.in_(groups))).all())
        over = due_table.c.due <= _now(vault)
        late = tx.execute(select(due_table.c.grp).where(due_table.c.grp.in_(groups), over).limit(1)).first()
    return bool(late) or (seq is not None and any(told.get(one, -1) < seq for one in groups))


def compute(
    permit: Permit,
    vault: Vault,
    nouns: Nouns,
    outbox: Outbox,
    name: str | None = None,
    *,
    progress: Callable[[str, int, int], None] = lambda group, done, of: None,
) -> list[Computed]:
    """Bring a group of declared features, by default all, up to the newest snapshot of the lake and to now.

    Args:
        permit: grants ``lake:read``, ``features:read``, ``features:write``, ``rows:read``, ``rows:write``.

    Raises:
        NotFound: ``features.no_group``, ``lake.no_snapshot``. Invalid: ``features.not_declared``;
            ``features.quality``: what is refused by a gate.
        Conflict: ``features.concurrent``: compute again to go on from there.
    """
    check_whole(permit)
    with vault.database.reading(permit) as tx:
        if name is None:
            groups = [one for one in every(tx, permit.account) if one.said.declaration]
        else:
            groups = [find(tx, permit.account, name)]
    if not all(one.said.declaration for one in groups):
        raise Invalid("features.not_declared", "The feature group has no declaration: its records are put into it.")
    if not groups:
        return []
    snapshot = query.snapshot_of(permit, vault, nouns)
    return [_Work(permit, vault, outbox, one, snapshot, progress).run() for one in groups]


def _now(vault: Vault) -> int:
    return micros(vault.clock.now()) // 1_000 * 1_000


def _subjects(views: Mapping[str, pa.Table]) -> set[str]:
    """All whom the views tell of."""
    return {str(one) for view in views.values() for one in view.column("subject_id").unique().to_pylist() if one}


class _Work:
    """The computation of one group."""

    def __init__(
        self,
        permit: Permit,
        vault: Vault,
        outbox: Outbox,
        group: Group,
        snapshot: Noun,
        progress: Callable[[str, int, int], None],
    ) -> None:
        self.permit, self.vault, self.outbox = permit, vault, outbox
        self.group, self.snapshot, self.progress = group, snapshot, progress
        self.declared: Declared = load(group.said.declaration)
        self.empty = nothing(self.declared)
        self.now = _now(vault)
        self.done = Computed(group.name, seq=int(snapshot.body["seq"]), snapshot=snapshot.ref)

    def run(self) -> Computed:
        """All of it."""
        before = self._position()
        if before > self.done.seq:
            raise Conflict("features.behind", "The features are further than this snapshot of the lake; sync it.")
        touched = self._touched(before)
        if touched is None or touched:
            self._all(touched)
        self._end(before)
        return self.done

    def _position(self) -> int:
        with self.vault.database.reading(self.permit) as tx:
            found = tx.execute(select(position.c.seq).where(position.c.grp == self.group.id)).scalar()
        return -1 if found is None else int(found)

    # -- whom -----------------------------------------------------------------------------------------------------

    def _touched(self, before: int) -> set[str] | None:
        """Patients; None for everybody."""
        if before < 0:
            return None
        with self.vault.database.reading(self.permit) as tx:
            late = select(due_table.c.owner).where(due_table.c.grp == self.group.id, due_table.c.due <= self.now)
            found = set(tx.execute(late).scalars())
        if before == self.done.seq:
            return found
        for kind in sorted({view(name).resource for name in self.declared.views}):
            own = self._changed(kind, before)
            if own is None:
                return None
            found |= own
        return found

    def _changed(self, kind: str, before: int) -> set[str] | None:
        """Whose resources of a type are new, changed or gone, and whose they were before; None for too many."""
        told = self.snapshot.body["tables"].get(kind)
        if not told or not told["snapshot"]:
            return set()
        rows = rows_of(self.permit, self.vault, kind, int(told["snapshot"]))
        found: set[str] = set()
        replaced: set[int] = set()
        for part in rows.changed(before, {"patient", "replaced_seq"}):
            found.update(one for one in part.column("patient").to_pylist() if one)
            replaced.update(one for one in part.column("replaced_seq").to_pylist() if one)
        if len(replaced) > _FEW:
            return None
        if replaced:
            only = In("seq", tuple(sorted(replaced)))
            for task in rows.table.scan(only, snapshot_id=rows.snapshot_id).plan_files():
                part = rows.files.read(task.file, ["patient"], only)
                found.update(one for one in part.column("patient").to_pylist() if one)
        return found

    # -- values ---------------------------------------------------------------------------------------------------

    def _all(self, touched: set[str] | None) -> None:
        few = touched if touched is not None and len(touched) <= _FEW else None
        views = {name: self._view(name, few) for name in self.declared.views}
        old = self._written(few)
        subjects = {*old, *_subjects(views)} if touched is None else touched
        with self.vault.database.reading(self.permit) as tx:
            # Their rows may be in the lake still, while their erasure is under way.
            listed = sorted(subjects - self.vault.sealer.forgotten(self.permit, tx, subjects))
        self.done.patients = len(listed)
        for start in range(0, len(listed), _AT_ONCE):
            some = listed[start : start + _AT_ONCE]
            facts = facts_of(self.declared, views, some)
            for first in range(0, len(some), _CHUNK):
                self._some(some[first : first + _CHUNK], facts, old)
                self.progress(self.group.name, min(start + first + _CHUNK, len(listed)), len(listed))

    def _view(self, name: str, patients: Collection[str] | None) -> pa.Table:
        return flat(self.permit, self.vault, self.snapshot, view(name), patients)

    def _written(self, patients: Collection[str] | None) -> dict[str, _Old]:
        """What was written before, by patient."""
        found = offline.rows_of(self.permit, self.vault, self.group, patients)
        names = [column_of(one.name) for one in self.declared.feature]
        columns = [found.column(name).to_pylist() for name in names]
        moments = found.column("time").cast(pa.int64()).to_pylist()
        made: dict[str, _Old] = {}
        for number, (who, moment) in enumerate(zip(found.column("patient").to_pylist(), moments, strict=True)):
            if who is not None:
                made.setdefault(who, _Old()).add(moment, tuple(column[number] for column in columns))
        return made

    def _some(self, subjects: Sequence[str], facts: Sequence[Mapping[str, Facts]], old: Mapping[str, _Old]) -> None:
        rows: list[tuple[str, int, Row, bool]] = []
        dues: dict[str, int] = {}
        apart: list[tuple[str, int, Row, str]] = []
        for who in subjects:
            made = steps(self.declared, [one.get(who) for one in facts], self.now)
            if made.due is not None:
                dues[who] = made.due
            gated = Steps(made.moments, list(self._gated(who, made, apart)), made.due)
            before = old.get(who, _Old())
            first = not before.beliefs and self.declared.availability == "recorded"
            found = differences(before.steps(), gated, self.empty, self.now, before.online)
            rows += [(who, moment, row, first) for moment, row in found]
        self._check_complete(rows)
        self._write(subjects, rows, dues, apart)

    def _gated(self, who: str, made: Steps, apart: list[tuple[str, int, Row, str]]) -> Iterator[Row]:
        """The values, those that break a gate left out."""
        gates = self.group.said.gates
        for moment, row in zip(made.moments, made.rows, strict=True):
            wrong = {
                at: reason
                for at, one in enumerate(self.declared.feature)
                if one.name in gates and (reason := quality.breaks(gates[one.name], row[at]))
            }
            if wrong:
                reasons = [f"{self.declared.feature[at].name}: {reason}" for at, reason in wrong.items()]
                apart.append((who, moment, row, "; ".join(reasons)))
            yield tuple(None if at in wrong else value for at, value in enumerate(row)) if wrong else row

    def _check_complete(self, rows: Sequence[tuple[str, int, Row, bool]]) -> None:
        for at, one in enumerate(self.declared.feature):
            there = sum(row[at] is not None for _, _, row, _ in rows)
            if rows and there < one.complete * len(rows):
                raise Invalid(
                    "features.quality",
                    f"The batch is refused: too few of its {len(rows)} rows have a value of {one.name}.",
                    incomplete=[one.name],
                )

    # -- records --------------------------------------------------------------------------------------------------

    def _write(
        self,
        subjects: Sequence[str],
        rows: Sequence[tuple[str, int, Row, bool]],
        dues: Mapping[str, int],
        apart: Sequence[tuple[str, int, Row, str]],
    ) -> None:
        if apart and self.group.said.on_breach == quality.REFUSE:
            raise Invalid(
                "features.quality", f"The batch is refused: {len(apart)} records have values that break a gate."
            )
        batch = self._batch([(who, moment, row) for who, moment, row, _ in rows], [one[3] for one in rows])
        write(
            self.permit,
            self.vault,
            self.group,
            batch,
            refused=self._refused(apart),
            source="computed",
            beside=lambda tx: self._beside(tx, subjects, dues),
        )
        self.done.records += len(rows)
        for *_, reason in apart:
            self.done.masked[reason] = self.done.masked.get(reason, 0) + 1

    def _batch(self, rows: Sequence[tuple[str, int, Row]], first: Sequence[bool]) -> Batch:
        moments = [moment for _, moment, _ in rows]
        made: dict[str, Any] = {
            self.group.record: pa.array([who for who, _, _ in rows], pa.string()),
            self.group.event: pa.array([zulu(one) for one in moments], pa.string()),
        }
        for at, one in enumerate(self.declared.feature):
            kind = arrow_type(self.group.features[self.group.index[one.name]])
            made[one.name] = pa.array([row[at] for _, _, row in rows], kind)
        columns = [
            made[one.name] if one.name in made else pa.nulls(len(rows), arrow_type(one))
            for one in self.group.features
        ]
        now = micros(self.vault.clock.now())
        known = [moment if one else now for moment, one in zip(moments, first, strict=True)]
        times = (pa.array(one, pa.int64()).cast(_US) for one in (moments, known))
        return Batch(pa.table(columns, names=list(self.group.names)), *times)

    def _refused(self, apart: Sequence[tuple[str, int, Row, str]]) -> list[Refused]:
        """As they were computed; numbered by moment and patient, so that they are set apart once."""
        if not apart:
            return []
        batch = self._batch([(who, moment, row) for who, moment, row, _ in apart], [False] * len(apart))
        texts = texts_of(self.group, batch.rows)
        lines = [
            int(self.vault.keyring.reference(self.permit, "patient", f"{who} {moment}".encode())[-12:], 16)
            for who, moment, _, _ in apart
        ]
        return [Refused(line, one[3], said) for line, one, said in zip(lines, apart, texts, strict=True)]

    def _beside(self, tx: Connection, subjects: Sequence[str], dues: Mapping[str, int]) -> None:
        if self.vault.sealer.forgotten(self.permit, tx, subjects):
            raise CommitFailedException("Somebody was erased since the values were made.")
        self._note_due(tx, subjects, dues)

    def _note_due(self, tx: Connection, subjects: Sequence[str], dues: Mapping[str, int]) -> None:
        own = due_table.c.grp == self.group.id
        for start in range(0, len(subjects), 500):
            tx.execute(delete(due_table).where(own, due_table.c.owner.in_(subjects[start : start + 500])))
        told = {"grp": self.group.id, "account": self.permit.account}
        if dues:
            tx.execute(insert(due_table), [{**told, "owner": who, "due": at} for who, at in dues.items()])

    def _end(self, before: int) -> None:
        with self.vault.database.transaction(self.permit) as tx:
            own = position.c.grp == self.group.id
            now = tx.execute(select(position.c.seq).where(own)).scalar()
            if (-1 if now is None else int(now)) != before:
                raise Conflict(
                    "features.concurrent", "Another process computed these features meanwhile; do it again."
                )
            tx.execute(delete(position).where(own))
            told = {"grp": self.group.id, "account": self.permit.account}
            place = {"seq": self.done.seq, "moment": self.now, "snapshot": self.snapshot.ref}
            tx.execute(insert(position).values(**told, **place))
            self.permit.log.wrote(self.group.ref)
            if self.done.records:
                said = {"records": self.done.records, "patients": self.done.patients}
                self.outbox.publish(tx, self.permit.account, "features.computed", self.group.ref, said)


@dataclass(slots=True)
class _Old:
    """What was written of one patient, in the order of writing.

    Attributes:
        beliefs: the last that was said of each moment.
        online: what the online store keeps: the first that was said of the latest moment.
    """

    beliefs: dict[int, Row] = field(default_factory=dict)
    online: Row | None = None
    latest: int = -1

    def add(self, moment: int, row: Row) -> None:
        """The next one."""
        self.beliefs[moment] = row
        if moment > self.latest:
            self.latest, self.online = moment, row

    def steps(self) -> Steps:
        """As steps."""
        moments = sorted(self.beliefs)
        return Steps(moments, [self.beliefs[one] for one in moments], None)
