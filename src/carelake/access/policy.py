"""``decide``: whether a principal may do an action on a target for a purpose, and why (decision D10).

Policies are Cedar files: the guardrails and base roles of this package, and whatever ``*.cedar`` the workspace adds
under ``policies/``. Deny by default; forbid wins; a policy that errors denies. A permitting policy names by its
``@scope`` annotation the predicates that bound what is seen; a permit without a known scope denies.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import Any

import cedarpy
import msgspec

from carelake.access.actions import actions, groups
from carelake.access.principals import Principal
from carelake.access.slices import Facts, Index
from carelake.access.statements import OWN, read_statements
from carelake.core.errors import Invalid
from carelake.vault.places import ACCOUNTS

__all__ = ["SCOPES", "Decision", "Policies", "Request", "policy_texts"]

SCOPES = frozenset({"account"})
"""The closed set of predicates that ``@scope`` may name; each is implemented and tested where rows are read.

The doors of some actions have others too, which `actions.toml` names; elsewhere those deny.
"""

_VERDICTS_KEPT = 8192
_SLICES_KEPT = 512
_MAX_FILE = 1 << 20


@dataclass(frozen=True, slots=True)
class Request:
    """What a decision is about.

    Attributes:
        grants: ids of the grants that cover it now.
        glass: id of the principal's emergency access that runs now, "" without one.
        ends: when the last of those grants ends.
        glass_ends: when that emergency access ends.
        type: FHIR type of the resources that it is about, "" where it is about no one type.
    """

    principal: Principal
    action: str
    account: str
    purpose: str
    grants: tuple[str, ...] = ()
    glass: str = ""
    ends: datetime | None = None
    glass_ends: datetime | None = None
    type: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict with its reasons: the names of the policies that decided.

    Attributes:
        policies: ids of those policies, ``FILE#NUMBER``.
        failed: whether a policy erred, which denies.
    """

    allowed: bool
    reasons: tuple[str, ...]
    scope: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    failed: bool = False


class Policies:
    """A parsed set of policies.

    Attributes:
        digest: SHA-256 of the policy texts and of what settings say of accounts; every act of a decision carries it.
        statements: the policies by id.
    """

    def __init__(self, texts: Mapping[str, str], jurisdictions: Mapping[str, str] | None = None) -> None:
        told = jurisdictions or {}
        if not set(told) <= set(ACCOUNTS):
            raise Invalid("access.unknown_account", f"Unknown account; the accounts are {', '.join(ACCOUNTS)}.")
        self._jurisdictions = {name: said for name, said in told.items() if said}
        source = "\n".join(texts[name] for name in sorted(texts))
        said = f"\n{json.dumps(self._jurisdictions, sort_keys=True)}" if self._jurisdictions else ""
        self.digest = hashlib.sha256((source + said).encode()).hexdigest()
        self._order = read_statements(texts)
        self.statements = {one.id: one for one in self._order}
        self._index = Index(self._order)
        self._slices: dict[tuple[int, ...], cedarpy.PolicySet] = {}
        self._places: dict[tuple[str, str], cedarpy.Entities] = {}
        self._verdicts: dict[tuple[object, ...], Decision] = {}

    @classmethod
    def load(cls, folder: Path, jurisdictions: Mapping[str, str] | None = None) -> Policies:
        """The package's policies and those that the workspace adds in ``folder``.

        Raises:
            Invalid: ``access.policy``, with file and line.
        """
        return cls(policy_texts(folder), jurisdictions)

    def decide(self, request: Request) -> Decision:
        """Pure: the same request and policies give the same decision.

        The numbered rules are tested one by one: (1) an empty purpose is refused, (2) an unknown action or
        account is refused, (3) Cedar denies by default and forbid wins, (4) a policy that errs denies, (5) no known
        scope denies, (6) what all roles of a principal forbid stays forbidden to a caller who carries fewer.
        """
        if not request.purpose:
            return Decision(False, ("a purpose is required",))
        if request.action not in actions():
            return Decision(False, ("no such action",))
        if request.account not in ACCOUNTS:
            return Decision(False, ("no such account",))
        key = _key(request)
        known = self._verdicts.get(key)
        if known is None:
            known = self._forbidden_to_the_whole(request) or self.evaluate(request)
            if len(self._verdicts) >= _VERDICTS_KEPT:
                self._verdicts.clear()
            self._verdicts[key] = known
        return known

    def _forbidden_to_the_whole(self, request: Request) -> Decision | None:
        who = request.principal
        if set(who.holds) <= set(who.roles):
            return None
        whole = self.evaluate(replace(request, principal=replace(who, roles=who.holds)))
        forbids = any(not self.statements[name].permits for name in whole.policies)
        return whole if forbids or whole.failed else None

    def may_apply(self, request: Request) -> tuple[int, ...]:
        """Positions of the policies that may apply to a request for a known action, in the order they were read."""
        return self._index.may_apply(_facts(request))

    def evaluate(self, request: Request, *, every: bool = False) -> Decision:
        """A decision by Cedar, past the verdicts that are kept; for known actions and accounts.

        Args:
            every: evaluate all policies instead of those that may apply. The verdict is the same (a property test).
        """
        chosen = tuple(range(len(self._order))) if every else self.may_apply(request)
        answer = cedarpy.is_authorized(_cedar_request(request), self._set(chosen), self._entities(request))
        if answer.diagnostics.errors:
            return Decision(False, ("a policy could not be evaluated",), failed=True)
        deciding = sorted((self.statements[name] for name in answer.diagnostics.reasons), key=lambda one: one.id)
        reasons = tuple(one.title for one in deciding)
        ids = tuple(one.id for one in deciding)
        if not answer.allowed:
            nothing = f"no policy permits {request.action} to {_roles(request)} in {request.account}"
            return Decision(False, reasons or (nothing,), (), ids)
        scope = tuple(sorted({name for one in deciding for name in one.scope}))
        known = actions()[request.action]
        if not all(one.scope for one in deciding) or not SCOPES.union(known.scopes).issuperset(scope):
            return Decision(False, (*reasons, "the permitting policy names no known scope"), (), ids)
        return Decision(True, reasons, tuple(sorted({*scope, *known.always})), ids)

    def _set(self, chosen: tuple[int, ...]) -> cedarpy.PolicySet:
        found = self._slices.get(chosen)
        if found is None:
            said = {self._order[number].id: self._order[number].body for number in chosen}
            text = json.dumps({"templates": {}, "staticPolicies": said, "templateLinks": []})
            if len(self._slices) >= _SLICES_KEPT:
                self._slices.clear()
            found = self._slices[chosen] = cedarpy.PolicySet.from_json_str(text)
        return found

    def _entities(self, request: Request) -> cedarpy.Entities:
        who = request.principal
        told = {self._jurisdictions[name] for name in who.accounts if name in self._jurisdictions}
        attributes = {
            "name": who.name,
            "kind": who.kind,
            "roles": list(who.roles),
            "groups": list(who.groups),
            "accounts": list(who.accounts),
            "jurisdictions": sorted(told),
            "disabled": who.disabled,
        }
        asking = _entity("Principal", who.name, attributes, [_uid("Group", name) for name in who.groups])
        return self._place(request.action, request.account).with_added_json_str(_json([asking]))

    def _place(self, action: str, account: str) -> cedarpy.Entities:
        """An action and an account, which are few and never change while this runs: made once."""
        found = self._places.get((action, account))
        if found is None:
            told = {"account": account, "jurisdiction": self._jurisdictions.get(account, "")}
            entities = [
                _entity("Account", account, told, []),
                _entity("Action", action, {}, [_uid("Action", name) for name in groups(action)]),
            ]
            found = self._places[(action, account)] = cedarpy.Entities.from_json_str(_json(entities))
        return found


def policy_texts(folder: Path) -> dict[str, str]:
    """File name -> text, of the package's policies and those in ``folder``, which have ``workspace:`` before theirs.

    Raises:
        Invalid: ``access.policy``, for a file that is no text or too large.
    """
    shipped = resources.files(__package__).joinpath("policies")
    texts = {f.name: f.read_text(encoding="utf-8") for f in shipped.iterdir() if f.name.endswith(".cedar")}
    for file in sorted(folder.glob("*.cedar")) if folder.is_dir() else ():
        if file.is_file():
            texts[OWN + file.name] = _text(file)
    return texts


def _text(file: Path) -> str:
    if file.stat().st_size > _MAX_FILE:
        raise Invalid("access.policy", f"{OWN}{file.name} is larger than {_MAX_FILE} bytes; split it.")
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise Invalid("access.policy", f"{OWN}{file.name} is not UTF-8 text; a policy file is.") from None


def _key(request: Request) -> tuple[object, ...]:
    """All that a verdict depends on, beside the policies. Not the time: what time takes away is gone from it."""
    who = request.principal
    held = (who.name, who.kind, who.roles, who.holds, who.groups, who.accounts, who.disabled)
    asked = (request.action, request.account, request.purpose, request.type)
    return (*held, *asked, bool(request.grants), bool(request.glass))


def _facts(request: Request) -> Facts:
    who = request.principal
    return Facts(
        (request.action, *groups(request.action)),
        (f"Principal::{who.name}", *(f"Group::{name}" for name in who.groups)),
        (
            *(f"role:{name}" for name in who.roles),
            *(f"group:{name}" for name in who.groups),
            *(f"member:{name}" for name in who.accounts),
        ),
        request.account,
    )


def _roles(request: Request) -> str:
    held = request.principal.roles
    return "the roles " + ", ".join(held) if held else "a principal without role"


def _cedar_request(request: Request) -> dict[str, Any]:
    return {
        "principal": _uid("Principal", request.principal.name),
        "action": _uid("Action", request.action),
        "resource": _uid("Account", request.account),
        "context": {
            "purpose": request.purpose,
            "granted": bool(request.grants),
            "glass": bool(request.glass),
            "type": request.type,
        },
    }


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _uid(kind: str, name: str) -> dict[str, str]:
    return {"type": kind, "id": name}


def _entity(kind: str, name: str, attributes: Mapping[str, Any], parents: list[dict[str, str]]) -> dict[str, Any]:
    return {"uid": _uid(kind, name), "attrs": attributes, "parents": parents}
