"""What is indexed: by which definitions writers index an account's resources, and which sources are built.

A source is *ready* when every current version of its type has its rows. It is so from the first resource of a type
on, or once `reindex` has walked those that were there before it was known. Writers index a source from the moment
it is registered, so that only older versions are left to be walked. Whatever has no row in ``index_state`` is not
built: sources of a later carelake, of a custom parameter, and of a workspace that was brought up.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec
from sqlalchemy import Connection, bindparam, delete, insert, select, update

from carelake.core.errors import Conflict
from carelake.core.shapes import decodable
from carelake.fhir.definitions import resource_types
from carelake.fhir.query import Query
from carelake.fhir.search import Registry, SearchDefinition, SearchParameter
from carelake.fhir.search.registry import RULES
from carelake.store.symbols import Symbols, kinds_of, params_of
from carelake.store.tables import index_registry, index_state
from carelake.vault.database import bulk, rows_of, scope_of

__all__ = ["BUILDING", "READY", "Indexed", "State", "with_sides"]

READY, BUILDING = "ready", "building"
_DIGEST = 48

_R = index_registry.c
_S = index_state.c
_FOUND = "SELECT stamp, base, custom FROM index_registry WHERE account = ?"
_MOVED = update(index_registry).where(_R.account == bindparam("of")).values(stamp=bindparam("to"))
_STATES = select(_S.param, _S.state, _S.position, _S.goal).where(_S.kind == bindparam("of"))
_PUT = (
    "INSERT INTO index_state (kind, param, state, position, goal) VALUES (?, ?, ?, ?, ?) ON CONFLICT (kind, param) "
    "DO UPDATE SET state = excluded.state, position = excluded.position, goal = excluded.goal"
)
_Definitions = tuple[SearchDefinition, ...]
_definitions = msgspec.json.Decoder(decodable(_Definitions)).decode


class State(NamedTuple):
    """How far a source is built: ``position`` of ``goal``, both seqs."""

    state: str
    position: int
    goal: int


_NONE = State("", 0, 1)


@dataclass(slots=True)
class _Known:
    """What holds for an account as long as its stamp stays."""

    stamp: int
    base: str
    registry: Registry
    states: dict[int, dict[int, State]] = field(default_factory=dict)

    @property
    def ruled(self) -> bool:
        """Whether the rows were made by the rules of this carelake."""
        return self.base.partition("/")[0] == str(RULES)


class Indexed:
    """Definitions and states of accounts, remembered as long as the database's stamp stays the same."""

    def __init__(self, symbols: Symbols, *, content: bool = False) -> None:
        """Args: content: whether ``_content`` is indexed, the setting ``search.content``."""
        self._symbols = symbols
        self._bare = Registry(content=content)
        self._known: dict[str, _Known] = {}

    @property
    def _base(self) -> str:
        return f"{RULES}/{self._bare.digest[:_DIGEST]}"

    def registry(self, tx: Connection, account: str) -> Registry:
        """The parameters of an account: the standard's, and its own as far as they are registered."""
        known = self._look(tx, account)
        return known.registry if known else self._bare

    def current(self, tx: Connection, account: str) -> Registry:
        """As `registry`, for a writer: notes that from here on it is written by the definitions of this carelake."""
        known = self._look(tx, account)
        if known is None:
            tx.execute(insert(index_registry).values(account=account, stamp=_stamp(), base=self._base, custom="[]"))
        elif known.base != self._base:
            self._adopt(tx, account, known)
        else:
            return known.registry
        return self.registry(tx, account)

    def begin(self, tx: Connection, account: str, types: Iterable[str]) -> None:
        """Note types that have no resource yet: all of their sources are ready."""
        registry = self.registry(tx, account)
        kinds = self._symbols.make(tx, kinds_of(account), types)
        for resource_type, kind in kinds.items():
            names = sorted(registry.sources(resource_type))
            params = self._symbols.make(tx, params_of(kind), with_sides(registry, resource_type, names))
            self.put(tx, account, kind, {params[name]: State(READY, 0, 0) for name in names})

    def states(self, tx: Connection, account: str, kind: int) -> dict[int, State]:
        """States of a type's sources, both as symbols; what is not among them is not built."""
        return self._states(tx, self._look(tx, account), kind)

    @staticmethod
    def _states(tx: Connection, known: _Known | None, kind: int) -> dict[int, State]:
        if known is None:
            return {}
        found = known.states.get(kind)
        if found is None:
            found = {param: State(*told) for param, *told in tx.execute(_STATES, {"of": kind})}
            known.states[kind] = found
        return found

    def put(self, tx: Connection, account: str, kind: int, states: dict[int, State]) -> None:
        """Write states."""
        bulk(tx, _PUT, [(kind, param, *state) for param, state in states.items()])
        self.moved(tx, account)

    def drop(self, tx: Connection, account: str, kind: int, params: Collection[int]) -> None:
        """Forget states: these sources are not built any more."""
        for param in params:
            tx.execute(delete(index_state).where(_S.kind == kind, _S.param == param))
        self.moved(tx, account)

    def register(self, tx: Connection, account: str, custom: Iterable[SearchDefinition]) -> bool:
        """Make these the account's own definitions; whether that changed any."""
        before = self.current(tx, account)
        after = Registry(tuple(custom), content=self._bare.content)
        if before.custom == after.custom:
            return False
        text = msgspec.json.encode(after.custom).decode()
        tx.execute(update(index_registry).where(_R.account == account).values(custom=text))
        self.moved(tx, account)
        return True

    def require(self, tx: Connection, account: str, query: Query) -> Registry:
        """Let pass a search whose parameters are all built; answers the account's parameters.

        Raises:
            Conflict: ``store.index_partial``: a search by it would miss matches.
        """
        known = self._look(tx, account)
        registry = known.registry if known else self._bare
        for resource_type, parameter in _asked(query, registry):
            kind = self._symbols.key(tx, kinds_of(account), resource_type)
            if kind > 0:
                self._check(tx, known, kind, resource_type, parameter)
        return registry

    def _check(
        self, tx: Connection, known: _Known | None, kind: int, resource_type: str, parameter: SearchParameter
    ) -> None:
        names = [source.name for source in parameter.sources]
        params = self._symbols.find(tx, params_of(kind), names)
        # Rows of other rules are none of this carelake's, also before its first writer says so.
        states = self._states(tx, known, kind) if known is not None and known.ruled else {}
        left = [state for name in names if (state := states.get(params.get(name, -1), _NONE)).state != READY]
        if left:
            done = min(state.position * 100 // max(state.goal, 1) for state in left)
            name = f"{resource_type}.{parameter.code}"
            raise Conflict(
                "store.index_partial",
                f"The index of {name} is built to {done} %, so a search by it would miss matches. Run `carelake "
                f"reindex --param {name}`, or wait for the one that runs.",
                parameter=name,
                percent=done,
            )

    def unbuilt(self, tx: Connection, account: str) -> frozenset[tuple[str, str]]:
        """Type and code of the account's own parameters that are not built yet."""
        known = self._look(tx, account)
        found = set()
        for definition in known.registry.custom if known else ():
            for resource_type in resource_types() & set(definition.base) or resource_types():
                parameter = known.registry.parameters(resource_type).get(definition.code) if known else None
                kind = self._symbols.key(tx, kinds_of(account), resource_type)
                if parameter is None or parameter.url != definition.url or kind < 0:
                    continue
                try:
                    self._check(tx, known, kind, resource_type, parameter)
                except Conflict:
                    found.add((resource_type, definition.code))
        return frozenset(found)

    def moved(self, tx: Connection, account: str) -> None:
        """Tell every process that what it remembers of the account is void."""
        tx.execute(_MOVED, {"of": account, "to": _stamp()})

    def _look(self, tx: Connection, account: str) -> _Known | None:
        scope, asked = scope_of(tx), (_FOUND, account)
        if asked in scope.memo:  # of a snapshot that several readings share
            found: _Known | None = scope.memo[asked]
            return found
        row = next(iter(rows_of(tx, _FOUND, account)), None)
        known = self._known.get(account)
        if row is None:
            known = None
        elif known is None or known.stamp != row[0]:
            stamp, base, text = row
            custom = _definitions(text)
            same = known is not None and known.registry.custom == custom
            registry = known.registry if known is not None and same else self._made(custom)
            known = self._known[account] = _Known(stamp, base, registry)
        if not scope.writing:
            scope.memo[asked] = known
        return known

    def _made(self, custom: _Definitions) -> Registry:
        return Registry(custom, content=self._bare.content) if custom else self._bare

    def _adopt(self, tx: Connection, account: str, known: _Known) -> None:
        """Another carelake wrote here: what this one does not index, or indexes by other rules, is not built now."""
        anew = not known.ruled
        for resource_type, kind in self._symbols.everything(tx, kinds_of(account)).items():
            sources = known.registry.sources(resource_type)
            names = self._symbols.everything(tx, params_of(kind))
            self.drop(tx, account, kind, [key for name, key in names.items() if anew or name not in sources])
        tx.execute(update(index_registry).where(_R.account == account).values(base=self._base))
        self.moved(tx, account)


def _asked(query: Query, registry: Registry) -> Iterator[tuple[str, SearchParameter]]:
    """Every parameter whose rows decide on the answer, with its type."""
    todo = list(query.each())
    while todo:
        one = todo.pop()
        conditions = [*one.conditions]
        while conditions:
            condition = conditions.pop()
            conditions += condition.any
            todo += condition.chain
            if condition.has is not None:
                yield condition.has.type, condition.has.reference
                todo.append(condition.has.query)
            if condition.param == "_list":
                yield "List", registry.parameters("List")["item"]
            elif not isinstance(condition.param, str):
                yield one.type, condition.param
        yield from ((one.type, sort.param) for sort in one.sort if not isinstance(sort.param, str))
    for include in (*query.includes, *query.revincludes):
        for source in (include.source,) if include.source else query.types:
            every = include.wild or registry.parameters(source).values()
            followed = every if include.parameter is None else (include.parameter,)
            yield from ((source, each) for each in followed if each.type == "reference")


def with_sides(registry: Registry, resource_type: str, names: Collection[str]) -> list[str]:
    """Names of sources and of those for modifiers, which are built with them."""
    sources = registry.sources(resource_type)
    found: dict[str, None] = dict.fromkeys(names)
    for name in names:
        found |= dict.fromkeys(side.name for side in sources[name].sides) if name in sources else {}
    return list(found)


def _stamp() -> int:
    # A random one: a transaction that is undone leaves none behind that the next one gives out again.
    return int.from_bytes(os.urandom(7), "big")
