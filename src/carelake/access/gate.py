"""The one gate: every door passes it, and nothing behind it opens without the permit that it mints."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection

from carelake.access.actions import action as known_action
from carelake.access.actions import actions
from carelake.access.policy import Decision, Policies, Request
from carelake.access.principals import Principal
from carelake.audit.acts import ActDraft, ActHeader, this_process, write
from carelake.core.errors import CarelakeError, Refused
from carelake.core.permit import Permit, mint
from carelake.fhir.definitions import is_resource
from carelake.vault.places import ACCOUNTS
from carelake.vault.workspace import Vault

__all__ = ["Gate"]

_PLACES = frozenset(
    {"endpoints", "lake", "models", "nouns", "page", "principals", "probe", "quarantine", "record", "serve", "trail"}
    | {"workspace"}
)
_CODE = re.compile(r"[A-Z]{3,10}")
_REF = re.compile(r"[a-z]{3,12}:[0-9a-f]{16,80}")
_OTHER = "(other)"
_LONGEST = 160


class Gate:
    """Decides, records, and mints permits for one workspace."""

    def __init__(self, vault: Vault, policies: Policies, names: Collection[str] = ()) -> None:
        """Make the gate.

        Args:
            names: words that targets may be told by beside those of `_PLACES`, for example of recipes.
        """
        self._vault = vault
        self._policies = policies
        self._names = _PLACES.union(names)

    @contextmanager
    def enter(
        self, principal: Principal, action: str, target: str, purpose: str, *, account: str, job: bool = False
    ) -> Iterator[Permit]:
        """Leave to do ``action`` on ``target`` while inside the block.

        What happens inside becomes one act (with ``job``: a start, a page per transaction, and an end). It is
        committed before the block is left, so an answer never goes out untold; the act of a failure is kept too.

        Args:
            target: what it is done to: a type, a ref, an endpoint's name. Never a patient's name or id.

        Raises:
            Refused: ``access.denied``, with the reasons; the refusal is in the trail.
        """
        decision = self._policies.decide(Request(principal, action, account, purpose))
        header = self._header(principal, action, target, purpose, account, decision)
        if not decision.allowed:
            self._refuse(header, decision)
        draft = ActDraft(header, self._vault.clock, job=job)
        if job:
            self._record(draft, "start", process=this_process())
        permit = self._mint(header, decision, draft, job=job)
        try:
            yield permit
        except BaseException as error:
            code = error.code if isinstance(error, CarelakeError) else type(error).__name__
            self._record(draft, "failed", error=code)
            raise
        if job or not draft.flushed or draft.pending():
            self._record(draft, "done")

    def explain(self, principal: Principal, action: str, account: str, purpose: str) -> Decision:
        """The decision that `enter` would make, without entering."""
        return self._policies.decide(Request(principal, action, account, purpose))

    def refuse(self, principal: Principal, action: str, target: str, account: str, error: CarelakeError) -> str:
        """Record a refusal that happened before a decision could be made; answers the act's id."""
        said = {"error": error.code, **_via(principal)}
        told = (_account(account), "", action, self._shown_target(target))
        header = ActHeader(self._vault.ids.new(), principal.name, *told, said)
        self._write(header)
        return header.correlation

    def sealing(self) -> Permit:
        """A permit to seal the trail. It writes no act of its own: each sealing would then need another."""
        header = ActHeader(self._vault.ids.new(), "sealer", "security", "HSYSADMIN", "audit:seal", "trail")
        return self._mint_with(header, ("audit:read", "audit:write", "rows:read", "rows:write"), (), _Unlogged())

    def _header(
        self, principal: Principal, action: str, target: str, purpose: str, account: str, decision: Decision
    ) -> ActHeader:
        facts: dict[str, Any] = {
            "reasons": list(decision.reasons),
            "scope": list(decision.scope),
            "policy": self._policies.digest,
            **_via(principal),
        }
        told = (_account(account), _shown(purpose, _CODE), action, self._shown_target(target))
        return ActHeader(self._vault.ids.new(), principal.name, *told, facts)

    def _shown_target(self, text: str) -> str:
        """The target as the trail may tell it: what people type in its place may be a patient's name."""
        known = text in self._names or _REF.fullmatch(text) or is_resource(text)
        if known or (text.startswith("principal/") and len(text) <= _LONGEST):
            return text
        return _OTHER

    def _refuse(self, header: ActHeader, decision: Decision) -> None:
        self._write(header)
        raise Refused(
            "access.denied",
            f"{header.principal} may not {_in_words(header.action)} in account {header.account} "
            f"for purpose {header.purpose or '(none)'}: {'; '.join(decision.reasons)}.",
            action=header.action,
            reasons=list(decision.reasons),
            act=header.correlation,
        )

    def _write(self, header: ActHeader) -> None:
        with self._vault.database.ledger() as connection:
            write(connection, header, "refused", self._vault.clock, header.facts)

    def _record(self, draft: ActDraft, phase: Any, **facts: object) -> None:
        with self._vault.database.ledger() as connection:
            draft.record(connection, phase, **facts)

    def _mint(self, header: ActHeader, decision: Decision, draft: ActDraft, *, job: bool) -> Permit:
        return self._mint_with(header, known_action(header.action).grants, decision.scope, draft, job=job)

    def _mint_with(
        self, header: ActHeader, grants: tuple[str, ...], scope: tuple[str, ...], log: Any, *, job: bool = False
    ) -> Permit:
        told = self._vault.settings.access
        seconds = told.job_seconds if job else told.permit_seconds
        return mint(
            act=header.correlation,
            principal=header.principal,
            account=header.account,
            purpose=header.purpose,
            action=header.action,
            target=header.target,
            grants=grants,
            scope=scope,
            expires=self._vault.clock.now() + timedelta(seconds=seconds),
            log=log,
        )


class _Unlogged:
    """The log of the sealer's permit: sealing is its own evidence."""

    def read(self, *refs: str) -> None:
        """Nothing to note."""

    def wrote(self, *refs: str) -> None:
        """Nothing to note."""

    def count(self, **numbers: int) -> None:
        """Nothing to note."""

    def key(self, name: str) -> None:
        """Nothing to note."""

    def flush(self, connection: Connection) -> None:
        """Nothing to write."""


def _shown(text: str, form: re.Pattern[str]) -> str:
    return text if form.fullmatch(text) else ("" if not text else _OTHER)


def _account(text: str) -> str:
    return text if text in ACCOUNTS else _OTHER


def _via(principal: Principal) -> dict[str, str]:
    return {"via": principal.via} if principal.via else {}


def _in_words(action: str) -> str:
    known = actions().get(action)
    return known.title[0].lower() + known.title[1:] if known else action
