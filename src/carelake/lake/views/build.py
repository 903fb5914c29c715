"""A definition as a `Plan`: selection structures as relational steps, columns as expressions over them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from carelake.core.errors import Invalid
from carelake.fhir.path.model import Type, type_named
from carelake.lake.schema import Leaf, Listed, Node, Record
from carelake.lake.views import calls, texts
from carelake.lake.views.compiler import Compiler, Scope
from carelake.lake.views.definition import Column, Definition, Path, Select
from carelake.lake.views.errors import sql_error, type_error
from carelake.lake.views.paths import Names, items, listed_kind, one, whole
from carelake.lake.views.plan import (
    BOOL,
    DECIMAL,
    INT,
    TEXT,
    Case,
    Const,
    Each,
    Expr,
    Extend,
    Fail,
    Get,
    Null,
    Op,
    Output,
    Plan,
    Ref,
    Rel,
    Source,
    UnionAll,
    Unnest,
)
from carelake.lake.views.vals import Choice, Need, Val, kind_of, layout, nothing
from carelake.lake.views.weight import light

__all__ = ["DEPTHS", "ORDINAL", "build"]

ORDINAL = "_n"
"""The column that numbers the resources, where their order matters."""
DEPTHS = (6, 24, 100)
"""How many levels deep `repeat` goes; the next where the data has more."""
_READY = (calls, texts)


def build(definition: Definition, depth: int = DEPTHS[0]) -> Plan:
    """The plan of a view.

    Args:
        depth: levels that `repeat` goes down; the query fails with ``lake.view_depth`` where there are more.

    Raises:
        Invalid: ``lake.view_path``, ``lake.view_type``.
        Unsupported: ``lake.view_sql``.
    """
    need: Need = {}
    _Builder(definition, need, None, depth).plan()
    record = layout(definition.resource, need)
    return light(_Builder(definition, need, record, depth).plan())


@dataclass(frozen=True, slots=True)
class _Cell:
    """A column of the result before it is written: as `Output`, in a relation."""

    column: Column
    expr: Expr
    kind: Node
    type: str
    shape: Node


@dataclass(frozen=True, slots=True)
class _Rows:
    """A relation with its columns, and what orders them."""

    rel: Rel
    cells: tuple[_Cell, ...] = ()
    order: tuple[Expr, ...] = ()


@dataclass(frozen=True, slots=True)
class _At:
    """Where a selection structure stands: its scope, and the column that says whether its row is a real one."""

    scope: Scope
    alive: str = ""


class _Builder:
    def __init__(self, definition: Definition, need: Need, record: Record | None, depth: int) -> None:
        self._definition = definition
        self._need = need
        self._record = record
        self._depth = depth
        self._names = Names()
        self._compiler = Compiler(self._names)
        self._deepest = 0

    def plan(self) -> Plan:
        definition, record = self._definition, self._record or Record({})
        kind = type_named(definition.resource)
        root = Val(Const(True, BOOL), kind, "", node=self._record, need=self._need, root=True)
        scope = Scope(root, root, Const(0, INT), "")
        tests = tuple(self._where(path, scope) for path in definition.where)
        names = (ORDINAL, "id", *(name for name in _columns_of(record) if name != "id"))
        rows = self._select(definition.root, _Rows(Source(names, tests)), _At(scope))
        outputs = tuple(
            Output(cell.column.name, cell.expr, cell.kind, cell.type, cell.shape)
            for cell in _sorted(definition, rows)
        )
        order = tuple(f"_o{n}" for n in range(len(rows.order)))
        hidden = tuple(Output(name, expr, INT, "") for name, expr in zip(order, rows.order, strict=True))
        return Plan(definition.resource, record, rows.rel, (*outputs, *hidden), order, self._deepest)

    def _where(self, path: Path, scope: Scope) -> Expr:
        found = self._compiler.path(path, scope)
        if isinstance(found, Choice):
            raise sql_error(path.at, "A value of several types (choose one with ofType())")
        if found.system != "Boolean" and not found.absent:
            raise type_error(path.at, "expected true or false.")
        return one(self._names, found, path.at).expr

    # --- selection structures ---

    def _select(self, select: Select, rows: _Rows, at: _At) -> _Rows:
        if select.repeat or select.each is not None:
            rows, at = self._unnest(select, rows, at)
        cells = rows.cells + tuple(self._column(column, at) for column in select.columns)
        rows = replace(rows, cells=cells)
        for inner in select.selects:
            rows = self._select(inner, rows, at)
        return self._union(select, rows, at) if select.unions else rows

    def _unnest(self, select: Select, rows: _Rows, at: _At) -> tuple[_Rows, _At]:
        rel = rows.rel
        if select.repeat:
            rel, found = self._repeated(select, rel, at.scope)
        else:
            assert select.each is not None
            found = self._foci(select.each, at.scope)
            if found.root:
                return rows, replace(at, scope=replace(at.scope, focus=found, row=Const(0, INT)))
        var, index = self._names.new("f"), self._names.new("i")
        alive = self._names.new("a") if select.or_null or at.alive else ""
        names = (*rel.names, var, index, *([alive] if alive else []))
        source = items(self._names, found)
        rel = Unnest(names, rel, source, var, index, alive, select.or_null, at.alive)
        item = Get(Ref(var), "v") if select.repeat else Ref(var)
        focus = replace(found, expr=item, many=False, parent=None, lexeme=None)
        scope = replace(at.scope, focus=focus, row=Ref(index))
        return replace(rows, rel=rel, order=(*rows.order, Ref(index))), _At(scope, alive)

    def _foci(self, path: Path, scope: Scope) -> Val:
        found = self._compiler.path(path, scope)
        if isinstance(found, Choice):
            raise sql_error(path.at, "Rows of a value of several types (choose one with ofType())")
        if found.guard is not None:
            raise sql_error(path.at, "Rows of the resource itself, filtered (use where of the view)")
        return found

    def _union(self, select: Select, rows: _Rows, at: _At) -> _Rows:
        branches = [self._select(inner, _Rows(rows.rel), at) for inner in select.unions]
        heads = _agreed([branch.cells for branch in branches], select)
        slots = max(len(branch.order) for branch in branches) + 1
        made = []
        for n, branch in enumerate(branches):
            exprs = [_as(cell.expr, cell.kind, head.kind) for cell, head in zip(branch.cells, heads, strict=True)]
            padding = [Const(0, INT)] * (slots - 1 - len(branch.order))
            made.append((branch.rel, (*exprs, Const(n, INT), *branch.order, *padding)))
        outputs = tuple(self._names.new("u") for _ in range(len(heads) + slots))
        tests = tuple(Ref(at.alive) if n and at.alive else None for n in range(len(branches)))
        rel = UnionAll((*rows.rel.names, *outputs), rows.rel, tuple(made), outputs, tests)
        cells = tuple(replace(head, expr=Ref(name)) for head, name in zip(heads, outputs, strict=False))
        order = tuple(Ref(name) for name in outputs[len(heads) :])
        return _Rows(rel, rows.cells + cells, rows.order + order)

    # --- columns ---

    def _column(self, column: Column, at: _At) -> _Cell:
        found = self._compiler.path(column.path, at.scope)
        if isinstance(found, Choice):
            raise sql_error(column.path.at, "A column of several types (choose one with ofType())")
        if found.root:
            raise sql_error(column.path.at, "A column of the whole resource")
        whole(found)
        if column.type and not found.absent and _is_complex(column.type) is not found.complex:
            raise type_error(column.path.at, "the path gives an element that has parts where the column has none.")
        shape = kind_of(found)
        if found.absent and not found.system:
            shape = _declared(column.type)
        kind = column.type or found.type.path or found.system
        single = found if column.collection else one(self._names, found, column.path.at)
        expr = items(self._names, single) if column.collection else single.expr
        if column.collection:
            expr = Op("some", (expr,))
        if at.alive and column.path.text.strip() != "%rowIndex":
            expr = Case(Ref(at.alive), expr, Null(shape))
        return _Cell(column, expr, Listed(shape) if column.collection else shape, kind, shape)

    # --- repeat ---

    def _repeated(self, select: Select, rel: Rel, scope: Scope) -> tuple[Rel, Val]:
        """Everything that the paths reach again and again, parents before their children.

        A column for each level, whose elements carry the places that lead to them; these places are the order.
        """
        if isinstance(scope.focus, Choice):
            raise sql_error(select.at, "repeat of a value of several types")
        first = self._reached(select, scope, scope.focus, None)
        again = self._again(select, scope, first)
        keyed = Each(first.expr, "_e", _keyed(Op("list", (Ref("_p"),)), Ref("_e")), "_p")
        rel = self._extended(rel, keyed)
        levels = [rel.names[-1]]
        if not again.absent:
            self._deepest = self._depth
            for _ in range(self._depth):
                rel = self._extended(rel, self._below(select, scope, first, levels[-1]))
                levels.append(rel.names[-1])
            full = Op("gt", (Op("size", (Ref(levels[-1]),)), Const(0, INT)))
            fail = Fail("lake.view_depth", f"{select.at}.repeat", listed_kind(first))
            everything = Op("sorted", (Op("cat", tuple(Ref(name) for name in levels)),))
            rel = self._extended(rel, Case(full, fail, everything))
        return rel, replace(first, expr=Ref(rel.names[-1]), many=True, parent=None)

    def _extended(self, rel: Rel, expr: Expr) -> Rel:
        name = self._names.new("r")
        return Extend((*rel.names, name), rel, name, expr)

    def _again(self, select: Select, scope: Scope, first: Val) -> Val:
        """What the paths give from an element that they gave: it needs what the first needs, and lies as it does."""
        again = self._reached(select, scope, replace(first, expr=Ref("_"), many=False), first.type)
        if not again.absent and self._record is None and first.need is not None and again.need is not None:
            _merged(first.need, again.need)
            _point(self._need, again.need, first.need)
        elif not again.absent and again.node != first.node:
            raise sql_error(select.at, "repeat over elements that lie differently in the table")
        return again

    def _below(self, select: Select, scope: Scope, first: Val, level: str) -> Expr:
        """The next level: the children of each element of a level, with their places."""
        above, child, place = self._names.new("v"), self._names.new("v"), self._names.new("i")
        here = replace(first, expr=Get(Ref(above), "v"), many=False, parent=None)
        found = self._reached(select, scope, here, first.type)
        key = Op("append", (Get(Ref(above), "k"), Ref(place)))
        return Op("flatten", (Each(Ref(level), above, Each(found.expr, child, _keyed(key, Ref(child)), place)),))

    def _reached(self, select: Select, scope: Scope, focus: Val, kind: Type | None) -> Val:
        """What the paths of a `repeat` give from one element, one after the other.

        A path may be meant for what another one reaches; from where they start one must lead somewhere.
        """
        found: list[Val] = []
        wrong: Exception | None = None
        for path in select.repeat:
            try:
                val = self._compiler.path(path, replace(scope, focus=focus))
            except Invalid as error:
                if error.code != "lake.view_path":
                    raise
                wrong = error
                continue
            if isinstance(val, Choice) or val.root:
                raise sql_error(path.at, "repeat over the resource itself, or a value of several types")
            if not val.absent:
                found.append(val)
        if not found:
            if wrong is not None and kind is None:
                raise wrong
            return nothing()
        head = found[0]
        for val in found:
            if val.type is not (kind or head.type) or not val.complex:
                raise sql_error(select.at, "repeat over elements of different types")
        return self._joined(select, head, found)

    def _joined(self, select: Select, head: Val, found: list[Val]) -> Val:
        """All of them as one list; they share what is needed of them, so that they lie the same way."""
        shared = head.need if head.need is not None else {}
        if self._record is None:
            for val in found:
                if val.need is not None and val.need is not shared:
                    _merged(shared, val.need)
                    _point(self._need, val.need, shared)
        elif any(val.node != head.node for val in found):
            raise sql_error(select.at, "repeat over elements that lie differently in the table")
        lists = tuple(items(self._names, val) for val in found)
        expr = lists[0] if len(lists) == 1 else Op("cat", lists)
        return replace(head, expr=expr, many=True, need=shared, parent=None)


def _keyed(key: Expr, value: Expr) -> Expr:
    """An element with the places that lead to it."""
    return Op("keyed", (key, value))


def _merged(into: Need, other: Need) -> None:
    """Everything that the other needs, too."""
    seen: set[tuple[int, int]] = set()
    stack = [(into, other)]
    while stack:
        mine, theirs = stack.pop()
        if mine is theirs or (id(mine), id(theirs)) in seen:
            continue
        seen.add((id(mine), id(theirs)))
        for name, inner in theirs.items():
            if name in mine:
                stack.append((mine[name], inner))
            else:
                mine[name] = inner


def _point(tree: Need, own: Need, shared: Need) -> None:
    """Put the shared need where a value's own is: what repeats inside itself is needed alike on every level."""
    seen: set[int] = set()
    stack = [tree]
    while stack:
        level = stack.pop()
        if id(level) in seen:
            continue
        seen.add(id(level))
        for name, inner in level.items():
            if inner is own:
                level[name] = shared
            else:
                stack.append(inner)


def _columns_of(record: Record) -> list[str]:
    found = []
    for name, node in record.fields.items():
        found += [name, f"{name}_text"] if node == DECIMAL else [name]
    return found


def _sorted(definition: Definition, rows: _Rows) -> list[_Cell]:
    by_name = {cell.column.name: cell for cell in rows.cells}
    return [by_name[column.name] for column in definition.columns]


def _agreed(branches: list[tuple[_Cell, ...]], select: Select) -> list[_Cell]:
    """The columns of a union, each of a kind that all branches can have."""
    heads = []
    for cells in zip(*branches, strict=True):
        real = [cell for cell in cells if not isinstance(cell.expr, Null)] or list(cells)
        kinds = {_name_of(cell.kind) for cell in real}
        if kinds <= {"int", "decimal"} and len(kinds) > 1:
            heads.append(replace(real[0], kind=DECIMAL, shape=DECIMAL))
        elif len(kinds) > 1:
            place = f"{select.at}.unionAll"
            raise type_error(place, f"its branches give column {cells[0].column.name} values of different types.")
        else:
            heads.append(real[0])
    return heads


def _name_of(kind: Node) -> str:
    if isinstance(kind, Leaf):
        return "text" if kind.kind == "json" else kind.kind
    return f"list of {_name_of(kind.item)}" if isinstance(kind, Listed) else repr(kind)


def _as(expr: Expr, kind: Node, wanted: Node) -> Expr:
    if isinstance(expr, Null):
        return Null(wanted)
    return Op("to_decimal", (expr,)) if kind == INT and wanted == DECIMAL else expr


def _is_complex(kind: str) -> bool:
    known = type_named(kind)
    return bool(known.names) and not known.primitive


def _declared(kind: str) -> Leaf:
    """The physical kind of a column of which nothing is known but the type that it was given."""
    system = type_named(kind).system or kind
    return {"Boolean": BOOL, "Integer": INT, "integer64": INT, "Decimal": DECIMAL}.get(system, TEXT)
