"""Equal, equivalent, ordered: what `=`, `~`, `<` and the functions on sets rest on (https://hl7.org/fhirpath/N1/#equality)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from carelake.fhir.path.errors import type_error
from carelake.fhir.path.quantity import (
    Quantity,
    compare_quantities,
    decimals,
    equivalent_quantities,
    key_of_quantity,
)
from carelake.fhir.path.temporal import Temporal, compare, sort_key
from carelake.fhir.path.values import Item, Items, Long, kind_of, system

__all__ = ["Seen", "all_equal", "all_equivalent", "contains", "distinct", "equal", "equivalent", "key", "order"]

_MANY = 500
"""More items than this are equivalent only where they are equal: pairing them off would take their square."""


def _is_number(value: Item) -> bool:
    kind = value.__class__
    return kind is int or kind is Decimal or kind is Long or isinstance(value, Decimal)


def key(item: Item) -> Any:
    """A hashable that two items share exactly where they are equal."""
    value = system(item)
    kind = value.__class__
    if kind is str:
        return value
    if kind is bool:
        return ("Boolean", value)
    if kind is tuple:
        return ("FHIR", _shape(value[2] if value[0] is None else value[0]))
    if kind is Temporal:
        return sort_key(value)
    if kind is Quantity:
        return key_of_quantity(value)
    return value


def _shape(value: Any) -> Any:
    """JSON as a hashable; numbers by value, so that 1.10 is 1.1."""
    if value.__class__ is dict:
        return frozenset((name, _shape(inner)) for name, inner in value.items())
    if value.__class__ is list:
        return tuple([_shape(inner) for inner in value])
    return ("Boolean", value) if value.__class__ is bool else value


def _as_quantity(value: Item) -> Item:
    return Quantity(Decimal(value)) if _is_number(value) else value


def equal(left: Item, right: Item) -> bool | None:
    """Whether two items are equal; None where their precision or units leave it open."""
    left, right = system(left), system(right)
    one, other = left.__class__, right.__class__
    if one is other:
        if one is str or one is int or one is bool:
            return bool(left == right)
        if one is tuple:
            return bool(key(left) == key(right))
    if one is Quantity or other is Quantity:
        left, right = _as_quantity(left), _as_quantity(right)
        if left.__class__ is not Quantity or right.__class__ is not Quantity:
            return False
        order_of = compare_quantities(left, right)
        return None if order_of is None else order_of == 0
    if one is Temporal and other is Temporal:
        if (left.kind == "Time") != (right.kind == "Time"):
            return False
        order_of = compare(left, right)
        return None if order_of is None else order_of == 0
    if _is_number(left) and _is_number(right):
        return bool(left == right)
    return False


def all_equal(left: Items, right: Items) -> bool | None:
    """`=` of two collections that are not empty: item by item in order."""
    if len(left) != len(right):
        return False
    answer: bool | None = True
    for one, other in zip(left, right, strict=True):
        same = equal(one, other)
        if same is False:
            return False
        if same is None:
            answer = None
    return answer


def equivalent(left: Item, right: Item) -> bool | None:
    """Whether two items are equivalent; None for quantities that do not compare."""
    left, right = system(left), system(right)
    one, other = left.__class__, right.__class__
    if one is str and other is str:
        return _folded(left) == _folded(right)
    if one is Quantity or other is Quantity:
        left, right = _as_quantity(left), _as_quantity(right)
        if left.__class__ is not Quantity or right.__class__ is not Quantity:
            return False
        return equivalent_quantities(left, right)
    if _is_number(left) and _is_number(right):
        a, b = Decimal(left), Decimal(right)
        places = Decimal(1).scaleb(-min(decimals(a), decimals(b)))
        try:
            return a.quantize(places, ROUND_HALF_UP) == b.quantize(places, ROUND_HALF_UP)
        except ArithmeticError:  # too many digits to round
            return a == b
    if one is tuple and other is tuple:
        return _similar(left[0] or left[2], right[0] or right[2])
    return bool(equal(left, right))


def _folded(text: str) -> str:
    return "".join([" " if sign.isspace() else sign for sign in text.casefold()])


def _similar(left: Any, right: Any) -> bool:
    """Equivalence inside of elements: repeated ones in any order, ids left aside."""
    if left.__class__ is dict and right.__class__ is dict:
        if left.keys() - {"id"} != right.keys() - {"id"}:
            return False
        return all(_similar(value, right[name]) for name, value in left.items() if name != "id")
    if left.__class__ is list and right.__class__ is list:
        return _matched(left, right)
    if left.__class__ in (dict, list) or right.__class__ in (dict, list):
        return False
    return equivalent(left, right) is True


def _matched(left: list[Any], right: list[Any]) -> bool:
    if len(left) != len(right) or len(left) > _MANY:
        return left == right
    rest = list(right)
    for value in left:
        for n, other in enumerate(rest):
            if _similar(value, other):
                del rest[n]
                break
        else:
            return False
    return True


def all_equivalent(left: Items, right: Items) -> bool | None:
    """`~` of two collections: the same items in any order; two empty ones are equivalent."""
    if len(left) != len(right):
        return False
    if len(left) == 1:
        return equivalent(left[0], right[0])
    if len(left) > _MANY:
        return Counter(map(key, left)) == Counter(map(key, right))
    rest = list(right)
    for one in left:
        for n, other in enumerate(rest):
            if equivalent(one, other):
                del rest[n]
                break
        else:
            return False
    return True


def _glance(item: Item) -> Any:
    """What equal items have in common, cheaper than `key`: the texts of an element and of those right inside."""
    if item.__class__ is tuple and item[0].__class__ is dict and item[1].convert is None:
        return _texts(item[0], True)
    return key(item)


def _texts(value: dict[str, Any], inside: bool) -> frozenset[Any]:
    found: list[Any] = []
    for name, inner in value.items():
        if inner.__class__ is str:
            found.append((name, inner))
        elif inner.__class__ is dict:
            found.append((name, _texts(inner, False) if inside else len(inner)))
        else:
            found.append((name, len(inner) if inner.__class__ is list else None))
    return frozenset(found)


class Seen:
    """A set of items. Whole elements are compared only where a glance does not tell them apart."""

    __slots__ = ("_found",)

    def __init__(self) -> None:
        self._found: dict[Any, Any] = {}

    def add(self, item: Item) -> bool:
        """Whether no equal item was there before."""
        glance = _glance(item)
        before = self._found.setdefault(glance, self)
        if before is self:
            self._found[glance] = item
            return True
        if before.__class__ is not set:
            before = self._found[glance] = {key(before)}
        whole = key(item)
        if whole in before:
            return False
        before.add(whole)
        return True


def distinct(items: Iterable[Item]) -> Items:
    """The first of each group of equal items, in order."""
    seen = Seen()
    return [item for item in items if seen.add(item)]


def contains(items: Items, item: Item) -> bool:
    """Whether an equal item is there."""
    wanted = key(item)
    return any(key(other) == wanted for other in items)


def order(left: Item, right: Item, at: int, what: str) -> int | None:
    """-1, 0 or 1; None where it is open.

    Raises:
        Invalid: ``fhirpath.type``: the two have no order.
    """
    one, other = left.__class__, right.__class__
    if one is Quantity or other is Quantity:
        left, right = _as_quantity(left), _as_quantity(right)
        one, other = left.__class__, right.__class__
    if one is Quantity and other is Quantity:
        return compare_quantities(left, right)
    if (one is str and other is str) or (_is_number(left) and _is_number(right)):
        return (left > right) - (left < right)  # type: ignore[no-any-return]
    if one is Temporal and other is Temporal and (left.kind == "Time") == (right.kind == "Time"):
        return compare(left, right)
    raise type_error(at, what, f"{kind_of(left)} and {kind_of(right)}", "two values of one kind that have an order")
