"""Who may let a version through, and the signed record that they did.

A decision is a noun of kind ``approval``: its body holds a DSSE envelope, signed by the account's key for models
under a type of its own, over what was decided on (the version by the hashes of its files, change plan, evidence), by
whom and when. What is deployed is held against it: a record that was changed, or one of other files, opens nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from carelake.access.proofs import Proof, caller_of
from carelake.audit.nouns import Nouns
from carelake.core import canonical, nouns
from carelake.core.clock import iso
from carelake.core.errors import Corrupt, Refused, Unauthenticated
from carelake.core.nouns import Noun
from carelake.core.permit import Permit
from carelake.core.settings import ApprovalSettings
from carelake.models import signature
from carelake.vault.keyring import Keyring

__all__ = ["KIND", "altered", "decisions", "latest", "may_decide", "opened", "record", "shown", "started_by"]

KIND = "application/vnd.carelake.approval+json"
_PURPOSE = "models"


def started_by(permit: Permit) -> str:
    """Who spoke for the holder of a permit, or the holder: who began what it does."""
    caller = caller_of(permit)
    return caller.via or caller.name if caller is not None else permit.principal


def may_decide(
    permit: Permit, settings: ApprovalSettings, made_by: Sequence[str], proof: Proof | None, now: datetime
) -> dict[str, str]:
    """Let pass whoever neither made nor began it, is not merely spoken for, and has shown themselves.

    Args:
        made_by: who made what is decided on, and who began that.
        proof: that it is still they.

    Returns:
        What the record says of it: ``via``, ``shown``, ``shown_at``.

    Raises:
        Refused: ``models.self_approval``, ``models.spoken_for``.
        Unauthenticated: ``models.reauthenticate``.
    """
    if permit.principal in made_by:
        raise Refused(
            "models.self_approval",
            "Whoever trained a model, or began its run, may not approve it; ask another principal with the role of a "
            "reviewer.",
        )
    caller = caller_of(permit)
    via = caller.via if caller is not None else ""
    if via and not settings.local:
        raise Refused(
            "models.spoken_for",
            "With approval.local=false nobody is spoken for when they approve; the reviewer calls themselves.",
        )
    shown = caller.credential if caller is not None else ""
    if settings.reauthenticate == "always" or (
        settings.reauthenticate == "credential" and shown and not shown.startswith("key:")
    ):
        # An access key signs each request anew, and once; a token is what was given, perhaps hours ago.
        if (
            proof is None
            or proof.principal != permit.principal
            or not proof.fresh(now, settings.reauthenticate_seconds)
        ):
            raise Unauthenticated(
                "models.reauthenticate",
                f"An approval needs a proof not older than {settings.reauthenticate_seconds} seconds that it is you: "
                "sign in again, and give the new token with --reauth.",
            )
        return {"via": via, "shown": proof.credential, "shown_at": iso(proof.at)}
    return {"via": via, "shown": shown or "local"}


def record(permit: Permit, keyring: Keyring, tx: Connection, kept: Nouns, said: Mapping[str, Any], at: str) -> Noun:
    """Sign a decision and keep it; needs the grant ``models:approve``.

    Args:
        said: at least ``decision`` and ``subject`` (the ref that is decided on); the evidence as refs and hashes.
    """
    subject = str(said["subject"])
    number = len(decisions(tx, kept, permit.account, subject)) + 1
    who = {"approver": permit.principal, "account": permit.account, "act": permit.act, "at": at, "number": number}
    payload = canonical.dump({"format": 1, **said, **who})
    mark = keyring.sign(permit, "approvals", signature.pae(KIND, payload))
    sealed = signature.envelope(KIND, payload, mark, keyring.public_key_pem(permit.account, _PURPOSE))
    body = {
        "subject": subject,
        "decision": said["decision"],
        "approver": permit.principal,
        "at": at,
        "number": number,
        "envelope": sealed.decode(),
    }
    made_from = (subject, *(str(said[name]) for name in ("plan", "verdict", "successor") if said.get(name)))
    noun = Noun(nouns.ref("approval", payload), permit.account, str(said["decision"]), permit.act, made_from, body)
    kept.write(tx, noun)
    permit.log.wrote(noun.ref)
    return noun


def decisions(tx: Connection, kept: Nouns, account: str, subject: str) -> list[Noun]:
    """Every decision on a version or plan, the oldest first."""
    made = kept.descendants(tx, subject, account=account, depth=1)
    found = [one for one in made if one.kind == "approval" and one.body.get("subject") == subject]
    return sorted(found, key=lambda one: int(one.body["number"]))


def latest(tx: Connection, kept: Nouns, account: str, subject: str) -> Noun | None:
    """The decision that counts."""
    found = decisions(tx, kept, account, subject)
    return found[-1] if found else None


def opened(keyring: Keyring, noun: Noun) -> dict[str, Any]:
    """What a record says, when its signature holds and it is the one that its noun names.

    Raises:
        Corrupt: ``models.approval_altered``.
    """

    def by_us(data: bytes, mark: bytes) -> bool:
        return keyring.verify(data, mark, account=noun.account, purpose=_PURPOSE)

    payload = signature.opened(str(noun.body.get("envelope", "")).encode(), KIND, by_us)
    said: dict[str, Any] = canonical.load(payload) if payload is not None else {}
    told = {name: said.get(name) for name in ("subject", "decision", "approver", "at", "number")}
    if payload is None or nouns.ref("approval", payload) != noun.ref or told != {n: noun.body.get(n) for n in told}:
        raise altered(noun.ref)
    return said


def shown(keyring: Keyring, noun: Noun) -> dict[str, Any]:
    """A record for people: what it says, or that it is not what was signed."""
    try:
        return {"ref": noun.ref, **opened(keyring, noun)}
    except Corrupt:
        return {"ref": noun.ref, "altered": True}


def altered(ref: str) -> Corrupt:
    """The error for a record, or what it is about, that is not what was signed."""
    return Corrupt(
        "models.approval_altered",
        "What was decided on is not what lies here now, or its record was changed; find out who did, decide again.",
        approval=ref,
    )
