"""The release of data keys: what a document must be, and that each way in which it is another is refused by name."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cbor2
import msgspec
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from sqlalchemy import update

from carelake.core.clock import FixedClock
from carelake.core.errors import CarelakeError, Corrupt, Refused
from carelake.core.permit import Permit
from carelake.vault.attested import cose
from carelake.vault.attested.document import PCRS, ZERO, Attested, payload
from carelake.vault.attested.policy import Rule
from carelake.vault.attested.recipient import Recipient
from carelake.vault.attested.releases import Releases
from carelake.vault.attested.tables import release_policy

_SUBJECT, _NAME = "endpoint:" + "e" * 64, "risk/1/model.txt"
_TEXT = b"tree\n" + b"a made-up model\n" * 100_000
_MEASURED = {name: digit * 96 for name, digit in zip(PCRS, "1234", strict=True)}


@dataclass
class Asking:
    """A sandbox, as the key ring sees one: a key pair and what it says."""

    releases: Releases
    permit: Permit
    clock: FixedClock
    recipient: Recipient

    def said(self, **other: Any) -> Attested:
        nonce = self.releases.challenge(self.permit, _SUBJECT)
        at, key = round(self.clock.now().timestamp() * 1000), self.recipient.public_key
        good = Attested("sandbox-1", at, _MEASURED, key, "process", _SUBJECT, nonce)
        return msgspec.structs.replace(good, **other)

    def document(self, **other: Any) -> bytes:
        return self.releases.attest(self.permit, self.said(**other))

    def refused(self, document: bytes, code: str) -> CarelakeError:
        with pytest.raises((Refused, Corrupt)) as caught:
            self.releases.release(self.permit, _SUBJECT, document)
        assert caught.value.code == code
        notes = self.permit.log.notes  # type: ignore[attr-defined]
        assert (notes["release"], notes["reason"]) == ("refused", code)
        return caught.value


@pytest.fixture
def asking(vault: Any, clock: FixedClock, permit_for: Callable[..., Permit]) -> Asking:
    permit = permit_for("models:read", "models:write", "rows:read", "rows:write")
    vault.objects.put(permit, "models", _NAME, _TEXT)
    sha256 = hashlib.sha256(_TEXT).hexdigest()
    rule = Rule(_SUBJECT, "model:" + "f" * 64, "models", {"model.txt": (_NAME, sha256)}, [_MEASURED])
    with vault.database.transaction(permit) as tx:
        vault.objects.releases.allow(permit, tx, rule)
    return Asking(vault.objects.releases, permit, clock, Recipient())


def test_what_is_as_allowed_opens_it_and_nobody_else_does(asking: Asking) -> None:
    document = asking.document()
    found = asking.releases.release(asking.permit, _SUBJECT, document)
    log: Any = asking.permit.log
    assert log.notes["release"] == "granted"
    assert log.notes["attestation"] == found.document == hashlib.sha384(document).hexdigest()
    assert {"production/models/v1", "security/sign-attestation/v1"} <= set(log.keys)
    assert _TEXT[:40] not in found.keys + found.sealed["model.txt"]
    opened = asking.recipient.open(found.keys, found.document, found.sealed)
    assert opened == {"model.txt": _TEXT}
    for who, about in ((Recipient(), found.document), (asking.recipient, "0" * 96)):
        with pytest.raises(Corrupt) as caught:
            who.open(found.keys, about, found.sealed)
        assert caught.value.code == "vault.release_altered"
    altered = bytearray(found.sealed["model.txt"])
    altered[-1] ^= 1
    with pytest.raises(Corrupt) as caught:
        asking.recipient.open(found.keys, found.document, {"model.txt": bytes(altered)})
    assert caught.value.code == "vault.altered"


def test_a_document_is_good_once_soon_and_for_who_was_asked(asking: Asking) -> None:
    document = asking.document()
    asking.releases.release(asking.permit, _SUBJECT, document)
    asking.refused(document, "vault.attestation_nonce")
    asking.refused(asking.document(nonce=bytes(32)), "vault.attestation_nonce")
    asking.refused(asking.document(subject="endpoint:" + "d" * 64), "vault.attestation_nonce")
    late = asking.document()
    asking.clock.move(seconds=61)
    asking.refused(late, "vault.attestation_stale")
    asking.refused(
        asking.document(at=round(asking.clock.now().timestamp() * 1000) + 5_000), "vault.attestation_stale"
    )


def test_what_was_measured_otherwise_gets_no_key(asking: Asking) -> None:
    for name in PCRS:
        found = asking.refused(asking.document(pcrs={**_MEASURED, name: "a" * 96}), "vault.attestation_measurement")
        assert found.facts["measurements"] == [name]
    asking.refused(asking.document(pcrs=dict.fromkeys(PCRS, ZERO)), "vault.attestation_debug")
    asking.refused(asking.document(pcrs={**_MEASURED, "PCR2": ZERO}), "vault.attestation_debug")
    asking.refused(asking.document(trust="hardware"), "vault.attestation_trust")


def test_a_signature_by_another_key_or_over_something_else(asking: Asking, vault: Any) -> None:
    own = ec.generate_private_key(ec.SECP256R1())

    def forged(label: str) -> bytes:
        return cose.sign(payload(asking.said()), label, lambda data: own.sign(data, ec.ECDSA(hashes.SHA256())))

    asking.document()  # the workspace's own key is there
    asking.refused(forged("security/sign-attestation/v1"), "vault.attestation_signature")
    for label in ("security/sign-attestation/v2", "security/sign-trail/v1", "production/sign-models/v1", ""):
        asking.refused(forged(label), "vault.attestation_signer")
    good = cbor2.loads(asking.document())
    other = cbor2.loads(good.value[2]) | {"public_key": Recipient().public_key}
    parts = [*good.value[:2], cbor2.dumps(other, canonical=True), good.value[3]]
    asking.refused(cbor2.dumps(cbor2.CBORTag(18, parts), canonical=True), "vault.attestation_signature")
    with pytest.raises(CarelakeError) as caught:
        vault.keyring.attester(asking.permit)[1](b"something else")
    assert caught.value.code == "vault.signing_purpose"


def test_what_is_no_document_is_refused_before_it_is_believed(asking: Asking) -> None:
    document = asking.document()
    tag = cbor2.loads(document)
    fields = cbor2.loads(tag.value[2])
    key = cbor2.dumps({1: -7, 4: b"security/sign-attestation/v1"}, canonical=True)
    bad = [
        b"",
        b"\x00" * 70_000,
        b"\x9f" * 5_000,
        cbor2.dumps(tag.value),
        cbor2.dumps(cbor2.CBORTag(18, [*tag.value[:3], b"short"])),
        cbor2.dumps(cbor2.CBORTag(18, [tag.value[0], {1: -7}, *tag.value[2:]])),
        cbor2.dumps(cbor2.CBORTag(18, [cbor2.dumps({1: -35, 4: b"k"}), *tag.value[1:]])),
    ]
    for one in bad:
        asking.refused(one, "vault.attestation_document")
    signer = asking.releases._depot.keyring.attester(asking.permit)[1]
    for change in ({"digest": "SHA256"}, {"pcrs": {0: b"x"}}, {"user_data": b"{}"}, {"public_key": b"x"}, {"x": 1}):
        body = cbor2.dumps(fields | change, canonical=True)
        made = cose.sign(fields | change, "security/sign-attestation/v1", signer)
        assert cbor2.loads(made).value[0] == key
        assert cbor2.loads(made).value[2] == body
        asking.refused(made, "vault.attestation_document")


def test_a_policy_that_was_altered_or_is_not_there_releases_nothing(
    asking: Asking, vault: Any, permit_for: Callable[..., Permit]
) -> None:
    with vault.database.transaction(asking.permit) as tx:
        said = release_policy.c.said
        tx.execute(update(release_policy).values(said=said + " "))
    asking.refused(asking.document(), "vault.release_policy_altered")
    with vault.database.transaction(asking.permit) as tx:
        assert vault.objects.releases.close(asking.permit, tx, [_SUBJECT, "endpoint:" + "d" * 64]) == [_SUBJECT]
    assert asking.permit.log.notes["closed"] == [_SUBJECT]  # type: ignore[attr-defined]
    asking.refused(asking.document(), "vault.release_policy")
    with vault.database.transaction(asking.permit) as tx:
        assert vault.objects.releases.close(asking.permit, tx, [_SUBJECT]) == []
        assert vault.objects.releases.withdraw(asking.permit, tx, [_SUBJECT]) == [_SUBJECT]
    asking.refused(asking.document(), "vault.release_policy")
    reader, rule = permit_for("models:read", "rows:read"), Rule(_SUBJECT, "", "models", {}, [_MEASURED])
    for permit, code in ((reader, "permit.grant"), (asking.permit, "vault.release_policy")):
        other = msgspec.structs.replace(rule, subject="endpoint:" + "d" * 64)
        with pytest.raises(Refused) as caught:  # a deployment's own, of who may write it, for that endpoint alone
            vault.objects.releases.release(permit, _SUBJECT, asking.document(), other)
        assert caught.value.code == code


def test_an_object_that_was_put_anew_is_not_released_nor_anything_to_a_stranger(
    asking: Asking, vault: Any, permit_for: Callable[..., Permit]
) -> None:
    vault.objects.put(asking.permit, "models", _NAME, _TEXT + b"more")
    asking.refused(asking.document(), "vault.release_altered")
    stranger = permit_for("models:read", "rows:read", account="research")
    with pytest.raises(Refused) as caught:
        vault.objects.releases.release(stranger, _SUBJECT, asking.document())
    assert caught.value.code == "vault.attestation_nonce"
    with pytest.raises(Refused) as caught:
        vault.objects.releases.challenge(permit_for("rows:read"), _SUBJECT)
    assert caught.value.code == "permit.grant"


def test_a_key_that_is_held_back_attests_nothing(asking: Asking, vault: Any) -> None:
    from carelake.vault.ring import Hold

    document, hold = asking.document(), Hold("somebody", "2026-01-01T00:00:00.000Z")
    vault.keyring.change(lambda draft: draft.set(holds={"security/sign-attestation": hold}))
    asking.refused(document, "vault.attestation_signer")


def test_signatures_are_those_of_the_standard() -> None:
    """RFC 9052, appendix C.2.1: a document that others signed, by the key "11" of its appendix C.7.1."""
    signature = (
        "8eb33e4ca31d1c465ab05aac34cc6b23d58fef5c083106c4d25a91aef0b0117e"
        "2af9a291aa32e14ab834dc56ed2a223444547e01f11d3b0916e5a4c345cacb36"
    )
    x = "bac5b11cad8f99f9c72b05cf4b9e26d244dc189f745228255a219a86d6a09eff"
    y = "20138bf82dc1b6d562be0fa54ab7804a3a64b6d72ccfed6b6fb6ed28bbfc117e"
    public = ec.EllipticCurvePublicNumbers(int(x, 16), int(y, 16), ec.SECP256R1()).public_key()
    covered = cose.to_sign(bytes.fromhex("a10126"), b"This is the content.")
    assert covered.hex() == "846a5369676e61747572653143a101264054546869732069732074686520636f6e74656e742e"
    public.verify(cose.as_der(bytes.fromhex(signature)), covered, ec.ECDSA(hashes.SHA256()))
    r, s = int(signature[:64], 16), int(signature[64:], 16)
    assert cose.as_der(bytes.fromhex(signature)) == encode_dss_signature(r, s)
