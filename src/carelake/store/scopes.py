"""Named predicates of a permit, as conditions over versions (decision D10); `carelake.store.sights` has the set."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, bindparam, exists, false, or_, select, text, true

from carelake.access.consents import CONSENT, Asked, asked_of
from carelake.access.narrowed import Grant, wanted
from carelake.core.errors import Refused
from carelake.core.permit import Permit
from carelake.fhir.terminology import SHIPPED, LocalTerminology
from carelake.store.consents import Shown, shown_to
from carelake.store.search.building import Build, Row, every
from carelake.store.search.compiling import Compiler
from carelake.store.search.scoping import conditions
from carelake.store.sights import sight_of
from carelake.store.symbols import Symbols, kinds_of, patients_of
from carelake.store.tables import ix_owner, resource_version

__all__ = ["bounded", "covers", "in_sight", "owner_of", "scoped", "version_scope"]

_V = resource_version.c


def bounded(
    permit: Permit, kind: str = "", letters: str = "", *, tx: Connection | None = None, consents: bool = True
) -> bool:
    """Whether the scope leaves out anything of the account, or of one type for some interactions; see `scoped`.

    Args:
        tx: where consents can be looked at; without it they may leave out something.
        consents: whether they count.
    """
    if consents and _consents(permit) and (tx is None or asked_of(permit, tx) is not None):
        return True
    sight = sight_of(permit)
    if not kind or sight.owner is not None:
        return sight.bounded
    return sight.of(kind, tuple(letters) or wanted(permit.action)) is not None


def covers(permit: Permit, kind: str, letter: str) -> bool:
    """Whether the scope lets any resource of a type be met by an interaction: c, r, u, d or s."""
    found = sight_of(permit).of(kind, (letter,))
    return found is None or bool(found)


def owner_of(permit: Permit) -> str | None:
    """The one patient that the scope allows, or None for all of the account.

    For those who have no other predicate: any other scope denies.

    Raises:
        Refused: ``store.unknown_scope``, ``store.no_patient``.
    """
    sight = sight_of(permit)
    if sight.grants is not None or _consents(permit):
        raise Refused(
            "store.unknown_scope", "The permit names a scope that there is no predicate for here; it denies."
        )
    return sight.owner


def scoped(
    permit: Permit,
    tx: Connection,
    symbols: Symbols,
    seq: ColumnElement[int],
    letters: str = "",
    *,
    consents: bool = True,
) -> ColumnElement[bool]:
    """The scope over the ``seq`` of a current version.

    Args:
        letters: interactions that a grant must be for one of; those by which the permit's action reads without.
        consents: whether they count: they are about what is seen, not about what is kept.
    """
    sight = sight_of(permit)
    tests: list[ColumnElement[bool]] = []

    def owned(patient: str) -> ColumnElement[bool]:
        key = symbols.key(tx, patients_of(permit.account), patient)
        return seq.in_(select(ix_owner.c.seq).where(ix_owner.c.owner == key))

    if sight.owner is not None:
        tests.append(owned(sight.owner))
    if sight.grants is not None:
        version = resource_version.alias()
        of = _Granted(permit, tx, symbols, seq, owned, letters)
        covered = or_(false(), *(of.type(kind, version.c.kind) for kind in of.kinds), of.others(version.c.kind))
        tests.append(exists(select(version.c.seq).where(version.c.seq == seq, covered)))
    shown = shown_to(permit, tx, symbols) if consents else None
    if shown is not None:
        build = _Bound(tx.dialect.name)
        tests.append(build.text(shown.current(build, _named(seq))))
    return and_(true(), *tests)


def version_scope(
    permit: Permit, tx: Connection, symbols: Symbols, letters: str = "", *, consents: bool = True
) -> ColumnElement[bool]:
    """The scope over rows of ``resource_version``, past versions included.

    What a condition asks of a resource is in the index for current versions alone: of a type that is seen by
    conditions only, past versions are not seen.
    """
    sight = sight_of(permit)

    def owned(patient: str) -> ColumnElement[bool]:
        return _V.owner == symbols.key(tx, patients_of(permit.account), patient)

    tests = [owned(sight.owner)] if sight.owner is not None else []
    if sight.grants is not None:
        of = _Granted(permit, tx, symbols, _V.seq, owned, letters)
        tests.append(or_(false(), *(of.type(kind, _V.kind) for kind in of.kinds), of.others(_V.kind)))
    shown = shown_to(permit, tx, symbols) if consents else None
    if shown is not None:
        build = _Bound(tx.dialect.name)
        tests.append(build.text(shown.version(build, resource_version.name)))
    return and_(true(), *tests)


def in_sight(permit: Permit, tx: Connection, symbols: Symbols, kind: str, seq: int, owner: int) -> bool:
    """Whether the scope shows a current version that is at hand; as `version_scope`, with less work.

    Args:
        owner: symbol of the patient that the version is sealed for.
    """
    sight = sight_of(permit)

    def owned(patient: str) -> bool:
        return owner == symbols.key(tx, patients_of(permit.account), patient)

    if sight.owner is not None and not owned(sight.owner):
        return False
    asked = asked_of(permit, tx)
    if asked is not None and not _shown(asked, tx, symbols, kind, seq, owner):
        return False
    grants = sight.of(kind, wanted(permit.action))
    return grants is None or any(
        (not one.patient or owned(one.patient))
        and (not one.query or _meets(permit, tx, symbols, kind, seq, one.query))
        for one in grants
    )


def _shown(asked: Asked, tx: Connection, symbols: Symbols, kind: str, seq: int, owner: int) -> bool:
    if owner and asked.silent(tx, owner):
        return asked.default
    build = Build(tx.dialect.name)
    return bool(build.run(tx, f"SELECT 1 WHERE {Shown(asked, tx, symbols).current(build, build(seq), kind)}"))


def _meets(permit: Permit, tx: Connection, symbols: Symbols, kind: str, seq: int, query: str) -> bool:
    compiler = Compiler(permit, tx, symbols, LocalTerminology(SHIPPED))
    nodes = conditions(compiler, kind, compiler.kind(kind), query)
    build = Build(tx.dialect.name)
    tests = every((f"v.seq = {build(seq)}", *(node.holds(build, Row("v.seq")) for node in nodes)))
    return bool(build.run(tx, f"SELECT 1 FROM resource_version v WHERE {tests}"))


class _Granted:
    """The grants of a permit as tests of a row."""

    def __init__(
        self, permit: Permit, tx: Connection, symbols: Symbols, seq: ColumnElement[int], owned: Any, letters: str
    ) -> None:
        self._seq: Any = seq
        self._tx, self._owned = tx, owned
        self._sight = sight_of(permit)
        self._need = tuple(letters) or wanted(permit.action)
        self._compiler = Compiler(permit, tx, symbols, LocalTerminology(SHIPPED))
        known = symbols.find(tx, kinds_of(permit.account), self._sight.named())
        self.kinds = dict(sorted(known.items()))

    def type(self, kind: str, column: ColumnElement[int]) -> ColumnElement[bool]:
        """Rows of a type that grants name."""
        return and_(column == self.kinds[kind], self._one_of(kind, self._sight.of(kind, self._need)))

    def others(self, column: ColumnElement[int]) -> ColumnElement[bool]:
        """Rows of types that no grant names."""
        rest = self._one_of("", self._sight.of("", self._need))
        return and_(column.not_in(list(self.kinds.values())), rest) if self.kinds else rest

    def _one_of(self, kind: str, grants: tuple[Grant, ...] | None) -> ColumnElement[bool]:
        return true() if grants is None else or_(false(), *(self._covered(kind, one) for one in grants))

    def _covered(self, kind: str, grant: Grant) -> ColumnElement[bool]:
        tests = [self._owned(grant.patient)] if grant.patient else []
        if grant.query:
            build = _Bound(self._tx.dialect.name)
            row = Row(_named(self._seq))
            met = conditions(self._compiler, kind, self.kinds[kind], grant.query)
            tests.append(build.text(every(node.holds(build, row) for node in met)))
        return and_(true(), *tests)


def _consents(permit: Permit) -> bool:
    return any(one == CONSENT or one.startswith(f"{CONSENT}:") for one in permit.scope)


def _named(column: Any) -> str:
    return f"{column.table.name}.{column.name}"


class _Bound(Build):
    """A fragment for a statement of SQLAlchemy's: values by name."""

    def __call__(self, value: Any) -> str:
        return ":w" + "".join(filter(str.isdigit, super().__call__(value)))

    def text(self, told: str) -> ColumnElement[bool]:
        """A test, with its values under names that nothing else in the statement has."""
        values: list[Any] = [
            bindparam(f"w{number}", value, unique=True) for number, value in enumerate(self._values, 1)
        ]
        return text(f"({told})").bindparams(*values)  # type: ignore[return-value]  # a text is what it says
