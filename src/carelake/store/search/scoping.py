"""The permit's scope as conditions: of every type on the way of a search, what the caller may see of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from carelake.access.narrowed import Grant, wanted
from carelake.access.scopes import read_query
from carelake.store.search.columns import Consented, Owned
from carelake.store.search.nodes import All, Every, Node, any_of
from carelake.store.sights import sight_of
from carelake.store.symbols import patients_of

if TYPE_CHECKING:
    from carelake.store.search.compiling import Compiler

__all__ = ["conditions", "scope_nodes"]


def scope_nodes(compiler: Compiler, kind: int) -> tuple[Node, ...]:
    """What the scope asks of resources of a type, which is named by its symbol."""
    sight = sight_of(compiler.permit)
    owned = (_owned(compiler, kind, sight.owner),) if sight.owner is not None else ()
    return (*owned, *_granted(compiler, kind), *_consented(compiler, kind))


def _consented(compiler: Compiler, kind: int) -> tuple[Node, ...]:
    if compiler.shown is None:
        return ()
    name = compiler.symbols.texts(compiler.tx, (kind,)).get(kind, "")
    return (Consented(compiler.shown, name),)


def conditions(compiler: Compiler, name: str, kind: int, text: str) -> list[Node]:
    """The nodes of a grant's conditions on a type."""
    return compiler.conditions(read_query(name, text), kind)


def _owned(compiler: Compiler, kind: int, patient: str) -> Owned:
    return Owned(kind, compiler.symbols.key(compiler.tx, patients_of(compiler.permit.account), patient))


def _granted(compiler: Compiler, kind: int) -> tuple[Node, ...]:
    """That a grant covers it, where the permit has grants and none covers all of the type."""
    sight = sight_of(compiler.permit)
    names = sight.named()
    name = next((one for one in sorted(names) if compiler.kind(one) == kind), "") if kind >= 0 else ""
    grants = sight.of(name, wanted(compiler.permit.action, searching=True))
    if grants is None:
        return ()
    return (any_of(All(Every(kind), _covered(compiler, name, kind, one)) for one in grants),)


def _covered(compiler: Compiler, name: str, kind: int, grant: Grant) -> tuple[Node, ...]:
    owned = (_owned(compiler, kind, grant.patient),) if grant.patient else ()
    return (*owned, *(conditions(compiler, name, kind, grant.query) if grant.query else ()))
