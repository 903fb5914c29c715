"""What consents say, worked out of the JSON for one question at a time: the slow way, to compare the quick with."""

from __future__ import annotations

from typing import Any, NamedTuple

Json = dict[str, Any]

SCOPE = "http://terminology.hl7.org/CodeSystem/consentscope"
REASON = "http://terminology.hl7.org/CodeSystem/v3-ActReason"
ACT = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
ACTION = "http://terminology.hl7.org/CodeSystem/consentaction"
TYPES = "http://hl7.org/fhir/resource-types"

BELOW = {
    "HRESCH": {"HRESCH"},
    "TREAT": {"TREAT", "ETREAT"},
    "HMARKT": set(),
    "PurposeOfUse": {"HPAYMT", "HRESCH", "TREAT"},
}
"""Purposes that a code is about for certain."""
ABOUT = {**BELOW, "CLINTRCH": {"HRESCH"}}
"""And may be about."""


class Question(NamedTuple):
    """Who asks for what; days are numbers as in the periods of `dated`."""

    purpose: str
    mode: str
    mine: frozenset[str]
    known: frozenset[str]
    kind: str
    day: int


def dated(day: int) -> str:
    return f"2026-01-{day:02d}"


def shows(consents: list[Json], asked: Question, *, default: bool) -> bool:
    """Whether a patient's record is shown, by all of their Consents."""
    found = {word for one in consents for word in says(one, asked)}
    return "deny" not in found and (default or "permit" in found)


def says(consent: Json, asked: Question) -> set[str]:
    """What the standing provisions of one say."""
    scope = consent["scope"]["coding"][0]["code"]
    if consent["status"] != "active" or scope in ("adr", "treatment"):
        return set()
    root = consent.get("provision", {})
    policy = consent.get("policyRule", {}).get("coding", [{}])[0].get("code")
    base = {"OPTIN": "permit", "OPTOUT": "deny"}.get(policy)
    about: list[Json] = [{"purpose": [{"system": REASON, "code": "HRESCH"}]}] if scope == "research" else []
    # A denial for purposes of its own is one for these, whatever the scope.
    denying, permitting = [root] if "purpose" in root else [*about, root], [*about, root]
    said = root.get("type")
    if said is None and base is not None:
        # A denial tells when it holds, and not for whom: it may mean that all others are denied.
        when = [*about, {"period": root["period"]}] if "period" in root else about
        tree = Tree(base, when if base == "deny" else permitting, permitting)
        tree.children = [read(one, denying, permitting) for one in root.get("provision", [])]
    elif said is None or base is None or base == said:
        tree = read({"type": "nothing", **root}, denying[:-1], permitting[:-1])
    else:
        tree = Tree(base, about, about)
        tree.children = [read(root, denying[:-1], permitting[:-1])]
    return tree.standing(asked, permits=scope != "other")


class Tree:
    """A provision: what it does, and the conditions on the way to it, as a denial has them and as a permission."""

    def __init__(self, does: str, denying: list[Json], permitting: list[Json]) -> None:
        self.does, self.denying, self.permitting = does, denying, permitting
        self.children: list[Tree] = []

    def met(self, asked: Question, *, permits: bool) -> bool:
        if self.does == "deny":
            return denied(self.denying, asked)
        return permits and self.does == "permit" and permitted(self.permitting, asked)

    def standing(self, asked: Question, *, permits: bool) -> set[str]:
        """Args: permits: whether it is of a kind by which anything is permitted."""
        found = {word for one in self.children for word in one.standing(asked, permits=permits)}
        if self.met(asked, permits=permits) and not any(one.met(asked, permits=permits) for one in self.children):
            found.add(self.does)
        return found


def read(provision: Json, denying: list[Json], permitting: list[Json]) -> Tree:
    denying, permitting = [*denying, provision], [*permitting, provision]
    tree = Tree(provision.get("type", "deny"), denying, permitting)
    tree.children = [read(one, denying, permitting) for one in provision.get("provision", [])]
    return tree


def denied(way: list[Json], asked: Question) -> bool:
    """All conditions are met, or not understood; of actors the last ones count."""
    actors = [one["actor"] for one in way if "actor" in one][-1:]
    return all(_may_meet(one, asked) for one in way) and all(_may_mean(one, asked) for one in actors)


def permitted(way: list[Json], asked: Question) -> bool:
    """All conditions are understood and met; who is meant is named by every list of actors."""
    actors = [{_named(one) for one in each["actor"]} - {""} for each in way if "actor" in each]
    named = set.intersection(*actors) if actors else None
    return all(_meets(one, asked) for one in way) and (named is None or bool(named & asked.mine))


def _may_meet(one: Json, asked: Question) -> bool:
    codes = [said["code"] for said in one.get("purpose", [])]
    actions = [said["coding"][0]["code"] for said in one.get("action", [])]
    classes = [said["code"] for said in one.get("class", [])]
    return (
        _in_time(one, asked, unclear=True)
        and (not codes or any(code not in ABOUT or asked.purpose in ABOUT[code] for code in codes))
        and (not actions or any(code not in ("collect", "correct") for code in actions))
        and (not classes or any(code in (asked.kind, "Strange") for code in classes))
    )


def _meets(one: Json, asked: Question) -> bool:
    codes = [said["code"] for said in one.get("purpose", [])]
    actions = [said["coding"][0]["code"] for said in one.get("action", [])]
    classes = [said["code"] for said in one.get("class", [])]
    wanted = {"access": ("access", "use"), "disclose": ("disclose",)}[asked.mode]
    return (
        _in_time(one, asked, unclear=False)
        and "code" not in one
        and (not codes or any(asked.purpose in BELOW.get(code, ()) for code in codes))
        and (not actions or any(code in wanted for code in actions))
        and (not classes or asked.kind in classes)
    )


def _in_time(one: Json, asked: Question, *, unclear: bool) -> bool:
    """Args: unclear: what is said of a period that ends before it begins."""
    period = one.get("period", {})
    if period.get("start", "") > period.get("end", "9"):
        return unclear
    return period.get("start", "") <= dated(asked.day) <= period.get("end", "9")


def _may_mean(actors: list[Json], asked: Question) -> bool:
    return any(_named(one) in asked.mine or _named(one) not in asked.known for one in actors)


def _named(actor: Json) -> str:
    return str(actor.get("reference", {}).get("reference", ""))
