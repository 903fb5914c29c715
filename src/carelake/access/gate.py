"""The one gate: every door passes it, and nothing behind it opens without the permit that it mints."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection

from carelake.access.actions import action as known_action
from carelake.access.actions import actions, resolved
from carelake.access.lockout import FAILED
from carelake.access.narrowed import shown
from carelake.access.policy import Decision, Policies
from carelake.access.principals import Principal
from carelake.access.stamp import STAMP, stamp_of
from carelake.access.targets import shown_account, shown_purpose, shown_target
from carelake.access.verdicts import Judge, Verdict
from carelake.audit.acts import ActDraft, ActHeader, prepared
from carelake.audit.commits import Commits
from carelake.audit.processes import this_process
from carelake.core.clock import Clock
from carelake.core.errors import CarelakeError, Refused
from carelake.core.permit import Permit, check, mint
from carelake.fhir.definitions import is_resource
from carelake.vault.workspace import Vault

__all__ = ["Gate"]

_FACTS = 1024
_NAMED = 5
"""Types that a refusal names; it concerned the whole search anyway."""


class Gate:
    """Decides, records, and mints permits for one workspace."""

    def __init__(self, vault: Vault, policies: Policies, names: Collection[str] = ()) -> None:
        """Make the gate.

        Args:
            names: words that targets may be told by beside those of `targets`, for example of recipes.
        """
        self._vault = vault
        self._commits = Commits(vault.database)
        self._names = frozenset(names)
        self.policies = policies
        self.judge = Judge(vault, policies)
        self._facts: dict[int, tuple[Verdict, dict[str, Any]]] = {}

    @contextmanager
    def enter(
        self, principal: Principal, action: str, target: str, purpose: str, *, account: str, job: bool = False
    ) -> Iterator[Permit]:
        """Leave to do ``action`` on ``target`` while inside the block.

        What happens inside becomes one act (with ``job``: a start, a page per transaction, and an end). It is
        committed before the block is left, so an answer never goes out untold; the act of a failure is kept too.
        The principal counts for what is written of it now, whatever the caller has kept; a job is asked again at each
        of its pages when any right has changed.

        Args:
            action: of ``actions.toml``; one on a zone may come without it when the target is ``zone/ZONE``.
            target: what it is done to: a type, a ref, an endpoint's name. Never a patient's name or id. For a
                type, policies decide on the type too.

        Raises:
            Refused: ``access.denied``, with the reasons; the refusal is in the trail.
        """
        action = resolved(action, target)
        stamp = self._stamp() if job else ""  # before the verdict, so that no change of rights falls between them
        types = (target,) if is_resource(target) else ()
        verdict = self.judge.judge(principal, action, account, purpose, types)
        if not verdict.decision.allowed:
            verdict = self._instead(verdict, principal, types)
        header = self._header(verdict, target)
        if not verdict.decision.allowed:
            self._write(header)
            raise _denied(header, verdict)
        draft = _Draft(header, self._vault.clock, verdict)
        if job:
            draft = _JobDraft(header, self._vault.clock, self.judge, verdict, stamp)
            self._record(draft, "start", process=this_process())
        told = self._vault.settings.access
        permit = self._mint(header, verdict, draft, told.job_seconds if job else told.permit_seconds)
        try:
            yield permit
        except BaseException as error:
            draft.ended = True
            code = error.code if isinstance(error, CarelakeError) else type(error).__name__
            self._record(draft, "refused" if error is draft.denial else "failed", error=code)
            raise
        draft.ended = True  # whoever kept the permit would do what no act tells of
        if job or not draft.flushed or draft.pending():
            self._record(draft, "done")

    @contextmanager
    def together(self, expected: Iterable[Any] = ()) -> Iterator[None]:
        """Enter for several callers one after another, in this thread: one snapshot, and one commit for their acts.

        For readings. The acts of all are committed at the end of the block; none of the callers may be answered
        before it was left, and nothing at all but the error when that raises.

        Args:
            expected: what they will ask for, as the store has it; nothing is read before one of them may.
        """
        with self.gathering() as settle, self._sharing(expected, settle), self._vault.keyring.steady():
            yield

    def sharing(self) -> AbstractContextManager[None]:
        """The snapshot of `together` alone."""
        return self._sharing((), None)

    def _sharing(self, expected: Iterable[Any], then: Callable[[], None] | None) -> AbstractContextManager[None]:
        return self._vault.database.together(expected, (STAMP, FAILED), then)

    def gathering(self) -> AbstractContextManager[Callable[[], None]]:
        """As `together`, for writers, without the snapshot, which is to end before they write.

        What it gives is to be called after the block, and commits the acts of all.
        """
        return self._commits.gathering()

    def widen(self, permit: Permit, types: Collection[str]) -> Permit:
        """The permit for more FHIR types, inside its block: each is decided as the first was; all or none is allowed.

        One act tells of all of them. What bounds the sight of one type bounds all (decision 0031).

        Raises:
            Refused: ``access.denied``, with the reasons; the block's act becomes the refusal.
        """
        draft = getattr(permit, "log", None)
        if not isinstance(draft, _Draft):
            raise Refused("permit.forged", "This permit was not made by the gate of this process.")
        check(permit, "rows:read", now=self._vault.clock.now())
        before = draft.verdict
        more = tuple(sorted(set(types) - set(before.types)))
        if not more:
            return permit
        asked = before.request
        verdict = self.judge.judge(
            asked.principal, asked.action, asked.account, asked.purpose, (*before.types, *more)
        )
        header = self._header(verdict, permit.target, permit.act)
        draft.become(header, verdict)
        if not verdict.decision.allowed:
            draft.denial = _denied(header, verdict)
            raise draft.denial
        left = (permit.expires - self._vault.clock.now()).total_seconds()
        return self._mint(header, verdict, draft, left)

    def reaches(self, permit: Permit, connection: Connection, kind: str) -> bool:
        """Whether what the permit is for is allowed for another FHIR type too, in the sight that it gives.

        For what an answer says by the way of resources of that type; nothing is recorded.
        """
        draft = getattr(permit, "log", None)
        if not isinstance(draft, _Draft):
            return False
        if kind in draft.verdict.types:
            return True
        asked = draft.verdict.request
        seen = self.judge.seen(connection, asked.principal, asked.action, asked.account, asked.purpose, (kind,))
        return seen.decision.allowed and set(seen.decision.scope) <= set(permit.scope)

    def explain(
        self, principal: Principal, action: str, account: str, purpose: str, types: Sequence[str] = ()
    ) -> Decision:
        """The decision that `enter` would make, without entering; for all of some FHIR types."""
        return self.judge.judge(principal, action, account, purpose, types).decision

    def refuse(
        self, principal: Principal, action: str, target: str, account: str, error: CarelakeError, **facts: Any
    ) -> str:
        """Record a refusal that happened before a decision could be made; answers the act's id."""
        said = {"error": error.code, **_via(principal), **facts}
        told = (shown_account(account), "", action, shown_target(target, self._names))
        header = ActHeader(self._vault.ids.new(), principal.name, *told, said)
        self._write(header)
        return header.correlation

    @contextmanager
    def replaying(self, account: str) -> Iterator[Permit]:
        """A permit to take out of a copy that was put back whoever was erased after it was made.

        Nobody is asked: that was decided before, and the copy is not to be opened without. The vault does the job.
        """
        with self._unasked(account, "record:erase", "erased after this copy was made") as permit:
            yield permit

    @contextmanager
    def resuming(self, account: str) -> Iterator[Permit]:
        """A permit to bring to its end an erasure that was broken off.

        Nobody is asked: who began it was, and half of a patient is not to stay because they may not do it any more.
        """
        with self._unasked(account, "record:erase", "an erasure that was broken off") as permit:
            yield permit

    @contextmanager
    def clearing(self, account: str, action: str = "record:export") -> Iterator[Permit]:
        """A permit to end a bulk job, and take its files away, whose owner may not do it any more.

        Nobody is asked: the owner would be refused, and the files would stay.
        """
        with self._unasked(account, action, "the job of one who may not do it any more") as permit:
            yield permit

    def watching(self, account: str) -> Permit:
        """A permit to look at the alarms of endpoints; it writes no act, as `polling`."""
        return self._unlogged("guard", "endpoint:guard", "endpoints", "models:read", "rows:read", account=account)

    @contextmanager
    def guarding(self, account: str) -> Iterator[Permit]:
        """A permit to do what a deployment's own configuration asks for: move traffic, or take it back.

        Nobody is asked, and nobody needs to be there. What is noted becomes an act; where nothing is, there is none.
        """
        told = ("vault", account, "HOPERAT", "endpoint:guard", "endpoints")
        header = ActHeader(self._vault.ids.new(), *told, {"reasons": ["the configuration of a deployment"]})
        draft = ActDraft(header, self._vault.clock, job=False)
        grants, seconds = known_action("endpoint:guard").grants, self._vault.settings.access.permit_seconds
        permit = self._mint_with(header, grants, ("account",), draft, seconds)
        try:
            yield permit
        except BaseException as error:
            draft.ended = True
            self._record(draft, "failed", error=error.code if isinstance(error, CarelakeError) else "fault")
            raise
        draft.ended = True
        if draft.pending():
            self._record(draft, "done")

    @contextmanager
    def _unasked(self, account: str, action: str, reason: str) -> Iterator[Permit]:
        told = ("vault", account, "HOPERAT", action, "record")
        header = ActHeader(self._vault.ids.new(), *told, {"reasons": [reason]})
        draft = ActDraft(header, self._vault.clock, job=True)
        self._record(draft, "start", process=this_process())
        grants = known_action(action).grants
        permit = self._mint_with(header, grants, ("account",), draft, self._vault.settings.access.job_seconds)
        try:
            yield permit
        except BaseException as error:
            draft.ended = True
            code = error.code if isinstance(error, CarelakeError) else type(error).__name__
            self._record(draft, "failed", error=code)
            raise
        draft.ended = True
        self._record(draft, "done")

    def sealing(self) -> Permit:
        """A permit to seal the trail. It writes no act of its own: each sealing would then need another.

        It opens the `audit` zone and no row: the trail's own tables are written by `audit` without a permit.
        """
        return self._unlogged("sealer", "audit:seal", "trail", "audit:read", "audit:write")

    def probing(self) -> Permit:
        """A permit to see whether the database answers; a probe every second must not fill the trail."""
        return self._unlogged("probe", "probe:ready", "probe", "rows:read")

    def polling(self) -> Permit:
        """A permit to see which jobs wait; it writes no act, as `probing`: who does one has acts of their own."""
        return self._unlogged("jobs", "job:poll", "record", "rows:read")

    def vouching(self) -> Permit:
        """A permit under which access seals and opens the secrets of credentials, by the security account's key.

        It writes no act: who makes a key or signs with one has an act of their own.
        """
        return self._unlogged("access", "credential:open", "access", "rows:read", "rows:write")

    def upgrading(self) -> Permit:
        """A permit to change the schema: until that is done nobody can be asked who may.

        The caller asks in the same transaction, and writes the act in it.
        """
        return self._unlogged("upgrade", "workspace:upgrade", "workspace", "rows:read", "rows:write")

    def _instead(self, refused: Verdict, principal: Principal, types: Sequence[str]) -> Verdict:
        """The verdict on what a door does instead for who may not do this, when they may do that."""
        asked = refused.request
        other = actions()[asked.action].instead if asked.action in actions() else ""
        if not other:
            return refused
        found = self.judge.judge(principal, other, asked.account, asked.purpose, types)
        return found if found.decision.allowed else refused

    def _unlogged(self, name: str, action: str, target: str, *grants: str, account: str = "security") -> Permit:
        header = ActHeader(self._vault.ids.new(), name, account, "HSYSADMIN", action, target)
        return self._mint_with(header, grants, (), _Unlogged(), self._vault.settings.access.permit_seconds)

    def _header(self, verdict: Verdict, target: str, act: str = "") -> ActHeader:
        request = verdict.request
        told = (shown_account(request.account), shown_purpose(request.purpose), request.action)
        target = shown_target(target, self._names)
        return ActHeader(act or self._vault.ids.new(), request.principal.name, *told, target, self._said(verdict))

    def _said(self, verdict: Verdict) -> Mapping[str, Any]:
        """What an act says of its verdict; the judge gives the same one while no right has changed."""
        known = self._facts.get(id(verdict))
        if known is not None and known[0] is verdict:
            return known[1]
        request = verdict.request
        who = request.principal
        facts: dict[str, Any] = {
            "reasons": list(verdict.decision.reasons),
            "roles": list(who.roles),
            "scope": shown(verdict.decision.scope),
            "policy": self.policies.digest,
            **_via(who),
            **({"credential": who.credential} if who.credential else {}),
            **({"grants": list(request.grants)} if request.grants and verdict.used else {}),
            **({"break_glass": request.glass} if request.glass else {}),
            **({"types": sorted(verdict.types)} if len(verdict.types) > 1 else {}),
        }
        if len(self._facts) >= _FACTS:
            self._facts.clear()
        self._facts[id(verdict)] = (verdict, facts)
        return facts

    def _stamp(self) -> str:
        with self._vault.database.ledger_reading() as connection:
            return stamp_of(connection)

    def _write(self, header: ActHeader) -> None:
        self._commits.commit(prepared(header, "refused", self._vault.clock, header.facts))

    def _record(self, draft: ActDraft, phase: Any, **facts: object) -> None:
        self._commits.commit(draft.prepare(phase, **facts))

    def _mint(self, header: ActHeader, verdict: Verdict, draft: ActDraft, seconds: float) -> Permit:
        if verdict.ends is not None:
            seconds = min(seconds, (verdict.ends - self._vault.clock.now()).total_seconds())
        grants = known_action(header.action).grants
        return self._mint_with(header, grants, verdict.decision.scope, draft, seconds)

    def _mint_with(
        self, header: ActHeader, grants: tuple[str, ...], scope: tuple[str, ...], log: Any, seconds: float
    ) -> Permit:
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


class _Draft(ActDraft):
    """The log of a permit, with the verdict that it rests on.

    Attributes:
        denial: raised when the permit was to be widened to what is denied; the act is a refusal then.
    """

    def __init__(self, header: ActHeader, clock: Clock, verdict: Verdict, *, job: bool = False) -> None:
        super().__init__(header, clock, job=job)
        self.verdict = verdict
        self.denial: Refused | None = None

    def become(self, header: ActHeader, verdict: Verdict) -> None:
        """Tell of another verdict from now on, under the same correlation."""
        self._header = header
        self.verdict = verdict


class _JobDraft(_Draft):
    """The log of a job: a page is kept only while the one who began the job still may do it."""

    def __init__(self, header: ActHeader, clock: Clock, judge: Judge, verdict: Verdict, stamp: str) -> None:
        super().__init__(header, clock, verdict, job=True)
        self._judge = judge
        self._stamp = stamp

    def flush(self, connection: Connection) -> None:
        stamp = stamp_of(connection)
        if stamp != self._stamp:
            asked, types = self.verdict.request, self.verdict.types
            again = self._judge.seen(connection, asked.principal, asked.action, asked.account, asked.purpose, types)
            if not again.decision.allowed:
                raise Refused(
                    "access.withdrawn",
                    "The right to do this was withdrawn while it ran; this page was not kept, earlier ones were.",
                    action=asked.action,
                    reasons=list(again.decision.reasons),
                )
            self._stamp = stamp
        super().flush(connection)


class _Unlogged:
    """The log of a permit that has no act of its own."""

    def read(self, *refs: str) -> None:
        """Nothing to note."""

    def wrote(self, *refs: str) -> None:
        """Nothing to note."""

    def patients(self, *refs: str) -> None:
        """Nothing to note."""

    def count(self, **numbers: int) -> None:
        """Nothing to note."""

    def key(self, name: str) -> None:
        """Nothing to note."""

    def note(self, **facts: str | list[str]) -> None:
        """Nothing to note."""

    def flush(self, connection: Connection) -> None:
        """Nothing to write."""


def _via(principal: Principal) -> dict[str, str]:
    return {"via": principal.via} if principal.via else {}


def _denied(header: ActHeader, verdict: Verdict) -> Refused:
    reasons = verdict.decision.reasons
    some = verdict.denied if len(verdict.types) > 1 else ()
    which = f" (here {', '.join(some[:_NAMED])}{' and others' if len(some) > _NAMED else ''})" if some else ""
    return Refused(
        "access.denied",
        f"{header.principal} may not {_in_words(header.action)}{which} in account {header.account} "
        f"for purpose {header.purpose or '(none)'}: {'; '.join(reasons)}.",
        action=header.action,
        reasons=list(reasons),
        act=header.correlation,
    )


def _in_words(action: str) -> str:
    known = actions().get(action)
    return known.title[0].lower() + known.title[1:] if known else action
