"""``decide``: whether a principal may do an action on a target for a purpose, and why (decision D10).

Policies are Cedar files: the guardrails and base roles of this package, and whatever ``*.cedar`` the workspace adds
under ``policies/``. Deny by default; forbid wins; a policy that errors denies. A permitting policy names by its
``@scope`` annotation the predicates that bound what is seen; a permit without a known scope denies.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import cedarpy

from carelake.access.actions import actions
from carelake.access.principals import Principal
from carelake.core.errors import Invalid
from carelake.vault.places import ACCOUNTS

__all__ = ["SCOPES", "Decision", "Policies", "Request"]

SCOPES = frozenset({"account"})
"""The closed set of predicates that ``@scope`` may name; each is implemented and tested where rows are read."""


@dataclass(frozen=True, slots=True)
class Request:
    """The four things that a decision is about."""

    principal: Principal
    action: str
    account: str
    purpose: str


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict with its reasons: the names of the policies that decided."""

    allowed: bool
    reasons: tuple[str, ...]
    scope: tuple[str, ...] = ()


class Policies:
    """A parsed set of policies.

    Attributes:
        digest: SHA-256 of the policy texts; every act of a decision carries it.
    """

    def __init__(self, texts: Mapping[str, str]) -> None:
        source = "\n".join(texts[name] for name in sorted(texts))
        self.digest = hashlib.sha256(source.encode()).hexdigest()
        try:
            self._parsed = cedarpy.PolicySet.from_str(source)
            said = json.loads(cedarpy.policies_to_json_str(source))
        except ValueError as error:
            raise Invalid("access.policy", f"The policies do not parse as Cedar: {error}") from None
        self._annotations: dict[str, dict[str, str]] = {
            name: policy.get("annotations", {}) for name, policy in said["staticPolicies"].items()
        }
        # The action hierarchy never changes while this runs: parsed once, each request adds its two entities.
        self._base = cedarpy.Entities.from_json_str(json.dumps([_action_entity(name) for name in actions()]))

    @classmethod
    def load(cls, folder: Path) -> Policies:
        """The package's policies and those that the workspace adds in ``folder``."""
        shipped = resources.files(__package__).joinpath("policies")
        texts = {f.name: f.read_text(encoding="utf-8") for f in shipped.iterdir() if f.name.endswith(".cedar")}
        if folder.is_dir():
            texts |= {"~" + f.name: f.read_text(encoding="utf-8") for f in sorted(folder.glob("*.cedar"))}
        return cls(texts)

    def decide(self, request: Request) -> Decision:
        """Pure: the same request and policies give the same decision.

        The numbered rules are tested one by one: (1) an empty purpose is refused, (2) an unknown action or
        account is refused, (3) Cedar denies by default and forbid wins, (4) a policy that errs denies, (5) no known
        scope denies.
        """
        if not request.purpose:
            return Decision(False, ("a purpose is required",))
        if request.action not in actions():
            return Decision(False, ("no such action",))
        if request.account not in ACCOUNTS:
            return Decision(False, ("no such account",))
        answer = cedarpy.is_authorized(_cedar_request(request), self._parsed, self._entities(request))
        if answer.diagnostics.errors:
            return Decision(False, ("a policy could not be evaluated",))
        reasons = tuple(self._name(policy) for policy in answer.diagnostics.reasons)
        if not answer.allowed:
            return Decision(False, reasons or (f"no policy permits {request.action} to {_roles(request)}",))
        scope = tuple(sorted({s for policy in answer.diagnostics.reasons for s in self._scopes(policy)}))
        if not scope or not SCOPES.issuperset(scope):
            return Decision(False, (*reasons, "the permitting policy names no known scope"))
        return Decision(True, reasons, scope)

    def _name(self, policy: str) -> str:
        return self._annotations.get(policy, {}).get("id", policy)

    def _scopes(self, policy: str) -> list[str]:
        return self._annotations.get(policy, {}).get("scope", "").split()

    def _entities(self, request: Request) -> cedarpy.Entities:
        who = request.principal
        attributes = {"roles": list(who.roles), "accounts": list(who.accounts), "disabled": who.disabled}
        added = [
            {"uid": _uid("Principal", who.name), "attrs": attributes, "parents": []},
            {"uid": _uid("Account", request.account), "attrs": {"account": request.account}, "parents": []},
        ]
        return self._base.with_added_json_str(json.dumps(added))


def _roles(request: Request) -> str:
    return (
        "the roles " + ", ".join(request.principal.roles) if request.principal.roles else "a principal without role"
    )


def _cedar_request(request: Request) -> dict[str, Any]:
    return {
        "principal": _uid("Principal", request.principal.name),
        "action": _uid("Action", request.action),
        "resource": _uid("Account", request.account),
        "context": {"purpose": request.purpose},
    }


def _uid(kind: str, name: str) -> dict[str, str]:
    return {"type": kind, "id": name}


def _action_entity(name: str) -> dict[str, Any]:
    known = actions()[name]
    groups = [*known.groups, *(["Identified"] if known.identified else [])]
    return {
        "uid": _uid("Action", name),
        "attrs": {},
        "parents": [_uid("Action", group) for group in groups],
    }
