"""A compiled expression, and the two calls that most need: `compile` and `evaluate`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any

from carelake.core.errors import CarelakeError
from carelake.fhir.path.check import check
from carelake.fhir.path.compiler import closure
from carelake.fhir.path.context import Env, Services
from carelake.fhir.path.errors import limit_error, singleton_error, type_error
from carelake.fhir.path.fast import quick
from carelake.fhir.path.getters import Quick, Unusual
from carelake.fhir.path.model import UNTYPED, Type, node, type_named
from carelake.fhir.path.parser import parse
from carelake.fhir.path.syntax import Call, Part, children
from carelake.fhir.path.values import Items, unwrap

__all__ = ["Expression", "compile", "evaluate"]

_NO_SERVICES = Services()
_NOTHING: Mapping[str, Any] = {}
_FALLBACK = (Unusual, AttributeError, TypeError, KeyError, RecursionError)
"""On these the general way is taken; it tells what is wrong, if anything is."""


class Expression:
    """An expression, ready to be evaluated any number of times and from any thread.

    Attributes:
        text: as written.
        parts: as parsed.
    """

    __slots__ = ("_asks", "_closure", "_quick", "parts", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.parts: Part = parse(text)
        self._closure = closure(self.parts)
        self._asks = _asks(self.parts)
        self._quick: dict[str, Quick | None] = {}

    def __call__(
        self,
        focus: Any,
        *,
        kind: str = "",
        resource: Any = None,
        root: Any = None,
        variables: Mapping[str, Any] | None = None,
        services: Services = _NO_SERVICES,
        strict: bool = False,
        filters: bool = False,
    ) -> list[Any]:
        """The result as plain values.

        Args:
            focus: what it starts from, ``%context``.
            kind: its type where it does not say so itself, for example ``HumanName``.
            resource: ``%resource``, if not the focus.
            root: ``%rootResource``, if not ``%resource``.

        The others, and what is raised, are those of `evaluate`.
        """
        if focus.__class__ is dict and not strict and (services is _NO_SERVICES or not self._asks):
            told = focus.get("resourceType") or kind
            try:
                way = self._quick[told]
            except (KeyError, TypeError):
                way = self._way(told)
            if way is not None:
                try:
                    return way(focus)
                except _FALLBACK:
                    pass
        if resource is not None or root is not None:
            given = dict(variables or _NOTHING)
            given.setdefault("resource", focus if resource is None else resource)
            given.setdefault("rootResource", given["resource"] if root is None else root)
            variables = given
        items = self.items(focus, kind, variables, services, strict, filters)
        return [unwrap(item) for item in items]

    def reader(self, kind: str, *, filters: bool = False) -> Callable[[Any], list[Any]]:
        """The expression for many resources (or elements) of one type, at less cost for each call."""
        way = self._quick[kind] if kind in self._quick else self._way(kind)
        if way is None:
            return partial(self, kind=kind, filters=filters)
        quickly = way

        def read(focus: Any) -> list[Any]:
            try:
                return quickly(focus)
            except _FALLBACK:
                return self(focus, kind=kind, filters=filters)

        return read

    def _way(self, told: Any) -> Quick | None:
        if told.__class__ is not str:
            return None
        known = type_named(told)
        way = quick(self.parts, known) if known is not UNTYPED else None
        if known is not UNTYPED:
            self._quick[told] = way
        return way

    def items(
        self,
        focus: Any,
        kind: str = "",
        variables: Mapping[str, Any] | None = None,
        services: Services = _NO_SERVICES,
        strict: bool = False,
        filters: bool = False,
    ) -> Items:
        """The result as typed items (see `values`), for who needs the types."""
        start = _start(focus, kind)
        env = Env(start, variables or _NOTHING, services, strict, filters)
        try:
            if strict:
                check(self.parts, start[0][1] if start and start[0].__class__ is tuple else UNTYPED)
            return self._closure(start, env)
        except RecursionError:
            raise limit_error(0, "its data or its parts are nested too deeply.") from None
        except CarelakeError:
            raise
        except (AttributeError, TypeError, ValueError, KeyError, ArithmeticError):
            # Data that is not of the shape its type says: an object for a text and the like.
            raise type_error(0, "The expression", "data that is not valid FHIR", "a valid resource") from None

    def holds(self, focus: Any, **options: Any) -> bool:
        """As an invariant: whether the result is true; empty is not. Options are those of a call."""
        found = self(focus, **options)
        if len(found) > 1:
            raise singleton_error(0, "An invariant", len(found))
        return bool(found) and found[0] is not False

    def __repr__(self) -> str:
        return f"Expression({self.text!r})"


def _asks(part: Part) -> bool:
    """Whether services may change the result of what the quick way covers."""
    stack = [part]
    while stack:
        inner = stack.pop()
        if isinstance(inner, Call) and inner.name in ("resolve", "trace"):
            return True
        stack.extend(children(inner))
    return False


def _start(focus: Any, kind: str) -> Items:
    if focus is None:
        return []
    told: Type = type_named(kind) if kind else UNTYPED
    return [node(focus, told)]


_MAX_KEPT = 8192
_kept = lru_cache(4096)(Expression)


def compile(expression: str) -> Expression:
    """An expression compiled, or the one compiled before; long ones are not kept.

    Raises:
        Invalid: ``fhirpath.syntax``, ``fhirpath.name``, ``fhirpath.argument``, ``fhirpath.limit``, with the position.
    """
    return _kept(expression) if len(expression) <= _MAX_KEPT else Expression(expression)


_known = compile


def evaluate(
    expression: str,
    resource: Any,
    *,
    variables: Mapping[str, Any] | None = None,
    services: Services = _NO_SERVICES,
    kind: str = "",
    strict: bool = False,
    filters: bool = False,
) -> list[Any]:
    """The result of an expression on a resource, as plain Python values.

    Args:
        resource: parsed JSON (`carelake.core.canonical.load` keeps the digits of decimals), or None for no focus.
        variables: ``%name`` to plain values, items of a list being items of the collection. ``context``, ``resource``
            and ``rootResource`` are ``resource`` unless given.
        services: resolver, terminology, clock and other parts that some functions need.
        kind: the type of ``resource`` where it does not say so itself, for example ``HumanName``.
        strict: unknown elements and other starting types are errors, as are tests that can never be true.
        filters: ``as`` of several items filters them like ``ofType``, as R4's search parameters expect.

    Returns:
        JSON of elements as it is in ``resource``, never a copy; str, bool, int, Decimal; dates, times and quantities
        that were computed as text, as ``toString()`` gives it.

    Raises:
        Invalid: ``fhirpath.*``; ``facts["position"]`` is the character of the expression.
        Unavailable: ``fhirpath.service``.
    """
    return _known(expression)(
        resource, kind=kind, variables=variables, services=services, strict=strict, filters=filters
    )
