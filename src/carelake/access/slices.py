"""Which policies can apply to a request at all, so that Cedar evaluates those and no others.

Cedar evaluates a policy's head (principal, action, resource) first and its conditions from left to right. So a policy
whose head does not match, or whose first conditions are certainly false before anything in it could err, can neither
decide nor err: leaving it out changes no verdict. What is looked at:

- in the head: ``principal ==`` and ``in``, ``action ==`` and ``in``, ``resource ==`` and ``in``;
- leading conjuncts of ``when``: ``principal.roles.contains("...")``, likewise groups and accounts, and
  ``resource.account == "..."``. These attributes always exist (`policy`), so the comparison cannot err.

Everything else counts as "may apply". A property test compares slices with the evaluation of all policies.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from carelake.access.statements import Statement

__all__ = ["Facts", "Index"]

_ANY = ""
_SETS = {"roles": "role", "groups": "group", "accounts": "member"}

Key = tuple[str, str, str, str]


@dataclass(frozen=True, slots=True)
class Facts:
    """What heads and leading conditions are compared with.

    Attributes:
        action: the action and all groups that it is in.
        who: ``TYPE::ID`` of the principal and of all groups that it is in.
        holds: ``role:NAME``, ``group:NAME``, ``member:ACCOUNT``.
    """

    action: tuple[str, ...]
    who: tuple[str, ...]
    holds: tuple[str, ...]
    account: str


class Index:
    """Policies by what they ask for first."""

    def __init__(self, statements: Sequence[Statement]) -> None:
        self._found: dict[Key, list[int]] = {}
        for number, one in enumerate(statements):
            for key in _keys(one.body):
                self._found.setdefault(key, []).append(number)
        # A dimension that no policy names need not be looked up.
        self._named = [frozenset(key[i] for key in self._found) for i in range(4)]

    def may_apply(self, facts: Facts) -> tuple[int, ...]:
        """Positions of the policies that may apply, in order."""
        asked = (facts.action, facts.who, facts.holds, (facts.account,))
        actions, who, holds, accounts = (
            [_ANY, *(value for value in values if value in named)]
            for values, named in zip(asked, self._named, strict=True)
        )
        found: set[int] = set()
        for key in product(actions, who, holds, accounts):
            numbers = self._found.get(key)
            if numbers:
                found.update(numbers)
        return tuple(sorted(found))


def _keys(body: Mapping[str, Any]) -> Iterator[Key]:
    """The keys to find a policy under: one for each combination of what it names."""
    holds, account = _leading(body)
    resource = _resource(body["resource"])
    accounts = [resource] if resource != _ANY else [account]
    for action, who in product(_actions(body["action"]), _who(body["principal"])):
        for where in accounts:
            yield (action, who, holds, where)


def _actions(head: Mapping[str, Any]) -> list[str]:
    named = [head["entity"]] if "entity" in head else head.get("entities", [])
    if head["op"] == "All":
        return [_ANY]
    return sorted({entity["id"] if entity["type"] == "Action" else "\0" for entity in named})


def _who(head: Mapping[str, Any]) -> list[str]:
    entity = head.get("entity") or (head.get("in") or {}).get("entity")
    return [_ANY] if entity is None else [f"{entity['type']}::{entity['id']}"]


def _resource(head: Mapping[str, Any]) -> str:
    entity = head.get("entity") or (head.get("in") or {}).get("entity")
    if entity is None:
        return _ANY
    return str(entity["id"]) if entity["type"] == "Account" else "\0"


def _leading(body: Mapping[str, Any]) -> tuple[str, str]:
    """What the first conditions ask to hold, and in which account; "" where they do not say."""
    holds, account = _ANY, _ANY
    for kind, said in _parts(_spine(body["conditions"])):
        if kind == "account":
            account = account or said
        elif kind in _SETS.values():
            holds = holds or f"{kind}:{said}"
        else:
            break
    return holds, account


def _spine(conditions: Iterable[Mapping[str, Any]]) -> Iterator[Any]:
    """Conjuncts in the order of their evaluation."""
    for condition in conditions:
        if condition["kind"] != "when":
            yield None
            continue
        yield from _conjuncts(condition["body"])


def _conjuncts(body: Any) -> Iterator[Any]:
    both = body.get("&&") if isinstance(body, Mapping) else None
    if both is None:
        yield body
    else:
        yield from _conjuncts(both["left"])
        yield from _conjuncts(both["right"])


def _parts(conjuncts: Iterable[Any]) -> Iterator[tuple[str, str]]:
    for one in conjuncts:
        yield _contains(one) or _equals(one) or ("other", "")


def _contains(one: Any) -> tuple[str, str] | None:
    test = one.get("contains") if isinstance(one, Mapping) else None
    if test is None:
        return None
    attribute = _attribute(test["left"], "principal")
    value = test["right"].get("Value")
    return (_SETS[attribute], value) if attribute in _SETS and isinstance(value, str) else None


def _equals(one: Any) -> tuple[str, str] | None:
    test = one.get("==") if isinstance(one, Mapping) else None
    if test is None or _attribute(test["left"], "resource") != "account":
        return None
    value = test["right"].get("Value")
    return ("account", value) if isinstance(value, str) else None


def _attribute(said: Mapping[str, Any], variable: str) -> str:
    dot = said.get(".")
    if dot is None or dot["left"] != {"Var": variable}:
        return ""
    return str(dot["attr"])
