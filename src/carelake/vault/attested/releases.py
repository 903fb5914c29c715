"""The release of data keys to a sandbox: asked with a nonce, given against a document, noted in the act either way.

What is refused is refused with a code of its own, so that the trail tells why: ``vault.attestation_document``,
``_signer``, ``_signature``, ``_nonce``, ``_stale``, ``_debug``, ``_trust``, ``_measurement``, and
``vault.release_policy``.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from threading import Lock

from sqlalchemy import Connection

from carelake.core.errors import CarelakeError, Corrupt, Refused
from carelake.core.permit import Permit, check
from carelake.vault.attested import cose, document, policy
from carelake.vault.attested.document import Attested
from carelake.vault.attested.policy import Rule
from carelake.vault.attested.recipient import Grant, sealed_to
from carelake.vault.blobs import HEADER_BYTES
from carelake.vault.catalogue import Catalogue
from carelake.vault.chunks import released
from carelake.vault.depot import Depot
from carelake.vault.reading import sealed_version

__all__ = ["Released", "Releases"]

_GRANT = "models:read"
_NONCE_BYTES, _MOST_NONCES = 32, 256


@dataclass(frozen=True)
class Released:
    """What is handed to a sandbox: nobody else can make anything of it.

    Attributes:
        keys: sealed to the public key of the document.
        document: digest of the document that it answers.
        sealed: the objects as they lie in the vault, by file.
    """

    keys: bytes
    document: str
    sealed: Mapping[str, bytes]


class Releases:
    """Releases of one open workspace. Nonces live in this process: who asked is who releases."""

    def __init__(self, depot: Depot, catalogue: Catalogue) -> None:
        self._depot = depot
        self._catalogue = catalogue
        self._lock = Lock()
        self._asked: dict[bytes, tuple[str, str]] = {}

    def allow(self, permit: Permit, tx: Connection, *rules: Rule) -> None:
        """Set what is asked of endpoints' sandboxes. Needs ``models:read`` in a transaction of a permit to write."""
        check(permit, _GRANT, now=self._depot.clock.now())
        for rule in rules:
            policy.allow(self._depot, permit, tx, rule)
        told = [f"{name}={one[:32]}" for rule in rules for name, one in (rule.allow or [{}])[0].items()]
        permit.log.note(allowed=[rule.subject for rule in rules], measurements=told)

    def withdraw(self, permit: Permit, tx: Connection, subjects: Iterable[str]) -> list[str]:
        """Release nothing to these any more: they are out of their sandboxes; answers which were in one."""
        found = [one for one in subjects if policy.withdraw(permit, tx, one)]
        if found:
            permit.log.note(withdrawn=found)
        return found

    def close(self, permit: Permit, tx: Connection, subjects: Iterable[str]) -> list[str]:
        """Release nothing to these any more, which stay what runs in a sandbox or nowhere; answers which changed."""
        found = [one for one in subjects if policy.close(self._depot, permit, tx, one)]
        if found:
            permit.log.note(closed=found)
        return found

    @staticmethod
    def known(tx: Connection, account: str, subjects: Iterable[str]) -> set[str]:
        """Those of some endpoints that run in a sandbox, or did."""
        return policy.known(tx, account, subjects)

    def rule(self, permit: Permit, subject: str) -> Rule | None:
        """What is asked of an endpoint's sandbox; None where it has none. Needs ``rows:read``."""
        with self._depot.database.reading(permit) as tx:
            return policy.find(self._depot, tx, permit.account, subject)

    def standing(self, permit: Permit, subject: str) -> Rule:
        """As `rule`, where anything is released: to be asked before a sandbox is begun for nothing.

        Raises:
            Refused: ``vault.release_policy``. Corrupt: ``vault.release_policy_altered``.
        """
        return _good(self.rule(permit, subject), subject)

    def challenge(self, permit: Permit, subject: str) -> bytes:
        """A nonce that the next document of that sandbox must hold; good once."""
        check(permit, _GRANT, now=self._depot.clock.now())
        nonce = secrets.token_bytes(_NONCE_BYTES)
        with self._lock:
            while len(self._asked) >= _MOST_NONCES:
                self._asked.pop(next(iter(self._asked)))
            self._asked[nonce] = (permit.account, subject)
        return nonce

    def attest(self, permit: Permit, said: Attested) -> bytes:
        """The document of what a launcher measured, signed by the workspace's key. Needs ``models:read``."""
        check(permit, _GRANT, now=self._depot.clock.now())
        label, signer = self._depot.keyring.attester(permit)
        return cose.sign(document.payload(said), label, signer)

    def verified(self, text: bytes) -> Attested:
        """What a document says, its signature checked: for whoever looks at one later.

        Raises:
            Refused: ``vault.attestation_document``, ``vault.attestation_signer``, ``vault.attestation_signature``.
        """
        read = cose.read(text)
        good = self._depot.keyring.attests(read.key, read.covered, cose.as_der(read.signature))
        if good is None:
            raise Refused(
                "vault.attestation_signer",
                "No key is released to the sandbox: the key that signed it is not one of ours, or is held back.",
            )
        if not good:
            raise Refused(
                "vault.attestation_signature",
                "No key is released to the sandbox: its signature is not over what it says.",
            )
        return document.read(read.payload)

    def release(self, permit: Permit, subject: str, text: bytes, rule: Rule | None = None) -> Released:
        """The data keys of an endpoint's model, for the sandbox of a document. Needs ``models:read``, ``rows:read``.

        Args:
            rule: of a deployment that is being made, and allows it when it is; needs ``rows:write`` as that does.
                Default: what was allowed.

        Raises:
            Refused: as the module tells. Corrupt: ``vault.release_policy_altered``, ``vault.release_altered``.
        """
        check(permit, _GRANT, now=self._depot.clock.now())
        if rule is not None:
            check(permit, "rows:write", now=self._depot.clock.now())
        told = document.digest(text)
        permit.log.note(subject=subject, attestation=told)
        try:
            found = self._released(permit, subject, text, rule)
        except CarelakeError as error:
            permit.log.note(release="refused", reason=error.code)
            raise
        permit.log.note(release="granted")
        return found

    def _released(self, permit: Permit, subject: str, text: bytes, rule: Rule | None) -> Released:
        said = self.verified(text)
        with self._lock:
            asked = self._asked.pop(said.nonce, None)
        if asked != (permit.account, subject) or said.subject != subject:
            raise Refused(
                "vault.attestation_nonce",
                "No key is released to the sandbox: its nonce was not asked of this sandbox, or was answered before.",
            )
        rule = _good(rule, subject) if rule is not None else self.standing(permit, subject)
        self._check(said, rule)
        grants, sealed = {}, {}
        for file, (name, sha256) in rule.objects.items():
            grants[file], sealed[file] = self._grant(permit, rule.zone, name, sha256)
        return Released(sealed_to(said.public_key, document.digest(text), grants), document.digest(text), sealed)

    def _check(self, said: Attested, rule: Rule) -> None:
        age = self._depot.clock.now().timestamp() - said.at / 1000
        if not -1 <= age <= rule.seconds:
            raise Refused(
                "vault.attestation_stale",
                f"No key is released to the sandbox: it is not of the last {rule.seconds} seconds.",
            )
        if said.debug:
            raise Refused(
                "vault.attestation_debug",
                "No key is released to the sandbox: the sandbox can be looked into, so its measurements are zeros.",
            )
        if said.trust not in rule.trust:
            raise Refused(
                "vault.attestation_trust",
                "No key is released to the sandbox: the trust that it claims is not what is asked for.",
            )
        if said.pcrs not in rule.allow:
            near = max(rule.allow, key=lambda one: sum(one.get(k) == v for k, v in said.pcrs.items()), default={})
            other = [name for name, value in said.pcrs.items() if near.get(name) != value]
            raise Refused(
                "vault.attestation_measurement",
                f"The sandbox is not what was allowed when the endpoint was deployed: {', '.join(other)} differ. "
                "After an upgrade deploy it again; otherwise look into who changed it.",
                measurements=other,
            )

    def _grant(self, permit: Permit, zone: str, name: str, sha256: str) -> tuple[Grant, bytes]:
        depot = self._depot
        depot.reader(permit, zone)
        found = self._catalogue.find(permit.account, zone, name)
        if found.told.sha256 != sha256:
            raise Corrupt(
                "vault.release_altered", "A file of the model is not the one that was deployed; restore it."
            )
        sealed, place = sealed_version(depot, found.row, found.sealed)
        key = released(sealed[:HEADER_BYTES], place, lambda version: depot.key(permit.account, zone, version))
        told = (place.workspace, place.account, place.zone, place.object, place.version)
        return Grant(key, told, sha256), sealed


def _good(rule: Rule | None, subject: str) -> Rule:
    if rule is None or not rule.allow or rule.subject != subject:
        raise Refused(
            "vault.release_policy",
            "Nothing says what may be released to this endpoint's sandbox; deploy it with --sandbox.",
        )
    return rule
