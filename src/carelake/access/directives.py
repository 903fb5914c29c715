"""What a FHIR Consent says of who may see its patient's record (https://hl7.org/fhir/R4/consent.html), as flat rules.

A Consent is a tree of provisions, each an exception to the one above it. A provision *stands* for a request when the
request meets its conditions and those above it, and those of none of its exceptions; the Consent denies when a
denying provision stands, and permits when a permitting one does. Each provision becomes rules with all conditions on
the way to it, so that SQL can tell which stand.

What is not understood exactly falls on the safe side: a denial loses the condition, so it denies more, and a
permission permits nothing. Both are counted. `docs/consent.md` has the readings that R4 leaves open.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product
from typing import Any, NamedTuple

from carelake.access.provisions import (
    ALL,
    EVER,
    NEVER,
    NOTHING,
    TIMED,
    Conditions,
    Unclear,
    codes_of,
    listed,
    narrowed,
)

__all__ = ["WORDS", "Reading", "Rule", "read_consent"]

WORDS = ("rules", "not active", "other scope", "unclear", "no patient", "unreadable")
"""What can become of a Consent: it has rules; it is not in force; it is about something else than seeing data;
nothing in it says whether it permits or denies; it names no patient that is known here; it has no form that is."""

_MOST_RULES = 400
_MOST_IN_ALL = 2000
_MOST_NODES = 200

_SCOPE = "http://terminology.hl7.org/CodeSystem/consentscope"
_POLICY = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
_BASES = {"OPTIN": False, "OPTINR": False, "OPTOUT": True, "OPTOUTE": True}


class Rule(NamedTuple):
    """A row: a provision with one of each of its conditions; "" for any.

    Attributes:
        node, parent: number of the provision, and of the one that it is an exception to, -1 for none.
        mode: one of `carelake.access.provisions.MODES`.
        actor: a reference ``Type/id``, an address, or ``system|value`` of an identifier.
        low, high: microseconds since 1970 UTC, from and before which it holds.
    """

    node: int
    part: int
    parent: int
    denies: bool
    purpose: str
    mode: str
    actor: str
    kind: str
    low: int
    high: int


class Reading(NamedTuple):
    """What was made of a Consent.

    Attributes:
        word: one of `WORDS`.
        widened: denials that lost conditions.
        dropped: permissions that were not understood, or not all of them.
    """

    word: str
    rules: tuple[Rule, ...] = ()
    widened: int = 0
    dropped: int = 0


def read_consent(resource: Mapping[str, Any], patient: str) -> Reading:
    """The rules of a Consent, whatever was let in as one.

    Args:
        patient: id of its patient, "" where that is not known; whose is unknown is nobody's.
    """
    if resource.get("status") != "active":
        return Reading("not active")
    if not patient:
        return Reading("no patient")
    try:
        tree = _Tree(resource)
    except (Unclear, AttributeError, KeyError, TypeError, ValueError, RecursionError):
        # Of a form that R4 does not have: validation may be loose. It may deny anything.
        return Reading("unreadable", (_whole(),), widened=1)
    return tree.reading()


def _whole() -> Rule:
    return Rule(0, 0, -1, True, "", "", "", "", NEVER, EVER)


class _Node(NamedTuple):
    number: int
    parent: int
    denies: bool
    conditions: Conditions


class _Tree:
    """A Consent on its way to rules."""

    def __init__(self, resource: Mapping[str, Any]) -> None:
        self._nodes: list[_Node] = []
        self._count = 0
        self._word = "rules"
        scope = _scope_of(resource)
        if scope in ("adr", "treatment"):
            self._word = "other scope"
            return
        self._permits = scope in ("patient-privacy", "research")
        self._sealed = "implicitRules" in resource or "modifierExtension" in resource
        root = resource.get("provision", {})
        if not isinstance(root, Mapping):
            raise Unclear
        about = Conditions(purposes=frozenset({"HRESCH"}) if scope == "research" else ALL)
        # A denial for purposes of its own is one for these, whatever its scope.
        self._root(root, _base(resource), about, (Conditions() if "purpose" in root else about, about))
        if not self._nodes:
            self._word = "unclear"

    def _root(
        self, root: Mapping[str, Any], base: bool | None, about: Conditions, above: tuple[Conditions, Conditions]
    ) -> None:
        said = _type_of(root)
        if said is None:
            self._untyped(root, base, about, above)
        elif base is None or base == said:
            self._add(root, -1, said, above)
        else:  # an exception to a base of its own
            self._add(root, self._node(-1, base, about), said, above)

    def _untyped(
        self, root: Mapping[str, Any], base: bool | None, about: Conditions, above: tuple[Conditions, Conditions]
    ) -> None:
        """A root that tells when and for whom its base holds; it may mean that it holds for these, or for others."""
        above = self._both(root, above)
        number = -1
        if base is not None:
            when = replace(about, low=above[0].low, high=above[0].high, exact=set(root) <= TIMED)
            number = self._node(-1, base, when if base else above[1])
        for one in listed(root, "provision"):
            self._add(one, number, _type_of(one), above)

    def _add(self, provision: Any, parent: int, denies: bool | None, above: tuple[Conditions, Conditions]) -> None:
        """A provision and those in it.

        Args:
            denies: None where it does not tell: it is an exception, so it may well deny.
            above: conditions above it as a denial reads them, and as a permission does.
        """
        if not isinstance(provision, Mapping):
            raise Unclear
        denies = denies is not False
        own = self._both(provision, above)
        number = self._node(parent, denies, own[0] if denies else own[1])
        for one in listed(provision, "provision"):
            self._add(one, number, _type_of(one), own)

    def _node(self, parent: int, denies: bool, conditions: Conditions) -> int:
        self._count += 1
        if self._count > _MOST_NODES:
            raise Unclear
        if not denies and (self._sealed or not self._permits):
            conditions = NOTHING
        if denies and self._sealed:
            conditions = Conditions(exact=False)
        self._nodes.append(_Node(self._count - 1, parent, denies, conditions))
        return self._count - 1

    @staticmethod
    def _both(provision: Mapping[str, Any], above: tuple[Conditions, Conditions]) -> tuple[Conditions, Conditions]:
        return narrowed(provision, above[0], denies=True), narrowed(provision, above[1], denies=False)

    def reading(self) -> Reading:
        """What came of it."""
        rules: list[Rule] = []
        widened = dropped = 0
        for node in self._nodes:
            many = node.conditions.many
            exact = node.conditions.exact and many <= _MOST_RULES
            widened += node.denies and not exact
            dropped += not node.denies and not exact
            if many <= _MOST_RULES:
                rules += _rules(node)
            elif node.denies:
                rules.append(_whole()._replace(node=node.number, parent=node.parent))
        if len(rules) > _MOST_IN_ALL:
            return Reading("unreadable", (_whole(),), widened=1)
        return Reading(self._word, tuple(rules), widened, dropped)


def _rules(node: _Node) -> Iterator[Rule]:
    told = node.conditions
    each = product(*(("",) if one is None else sorted(one) for one in told.sets))
    for part, (purpose, mode, actor, kind) in enumerate(each):
        yield Rule(node.number, part, node.parent, node.denies, purpose, mode, actor, kind, told.low, told.high)


def _scope_of(resource: Mapping[str, Any]) -> str:
    """Code of its scope, "" for one that is not known."""
    codes = codes_of(resource.get("scope", {}), _SCOPE)
    return codes.pop() if len(codes) == 1 else ""


def _base(resource: Mapping[str, Any]) -> bool | None:
    """Whether its base policy denies; None where that is not told. One that opts out does in any code system."""
    told = resource.get("policyRule", {}).get("coding", ())
    if any(_BASES.get(str(one.get("code")).upper()) for one in told):
        return True
    known = {_BASES[code] for code in codes_of(resource.get("policyRule", {}), _POLICY) if code in _BASES}
    return False if known else None


def _type_of(provision: Any) -> bool | None:
    said = provision.get("type")
    if said not in ("deny", "permit", None):
        raise Unclear
    return None if said is None else said == "deny"
