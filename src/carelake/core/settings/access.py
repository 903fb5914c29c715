"""Who may: approval, lock-out, identity providers, signatures, SMART, consent."""

from __future__ import annotations

import re
from typing import Literal

import msgspec

__all__ = [
    "AccessSettings",
    "ApprovalSettings",
    "ConsentSettings",
    "LockoutSettings",
    "OidcIssuer",
    "OidcSettings",
    "Sigv4Settings",
    "SmartSettings",
]

_BASE_URL = re.compile(
    r"(https://[A-Za-z0-9.-]{1,253}|http://(localhost|127\.0\.0\.1|\[::1\]))(:\d{1,5})?(/[A-Za-z0-9._~/-]*[A-Za-z0-9._~-])?"
)


class ApprovalSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who lets a model through, and how they show that it is they (decisions D14, 0054).

    Attributes:
        local: whether a local principal may approve within a run, and be spoken for; with false a run stops at
            PendingManualApproval.
        reauthenticate: of whom a fresh proof is asked: ``credential`` (whoever comes by a token that is older than
            ``reauthenticate_seconds``), ``always`` (everyone, at a local door too), ``off``.
    """

    local: bool = True
    reauthenticate: Literal["off", "credential", "always"] = "credential"
    reauthenticate_seconds: int = 300

    def __post_init__(self) -> None:
        if not 1 <= self.reauthenticate_seconds <= 3600:
            raise ValueError("approval.reauthenticate_seconds is 1 to 3600")

    @property
    def in_run(self) -> bool:
        """Whether a run may ask a local principal: where no fresh proof is asked of one."""
        return self.local and self.reauthenticate != "always"


class LockoutSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """After ``failures`` in ``window_seconds`` a source may not try a name for ``first_seconds``, then twice that."""

    failures: int = 5
    window_seconds: int = 900
    first_seconds: int = 5
    max_seconds: int = 900


class OidcIssuer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One identity provider whose tokens are taken, and how its claims become a principal (docs/access.md)."""

    issuer: str
    audience: str
    jwks: str
    algorithms: tuple[str, ...] = ("RS256", "ES256", "PS256")
    subject_claim: str = "sub"
    roles_claim: str = ""
    roles: dict[str, str] = {}
    purpose_claim: str = ""
    purpose: str = ""
    account: str = "production"
    max_seconds: int = 43_200
    once: bool = False
    scope_claim: str = "scope"
    patient_claim: str = "patient"
    authorization_endpoint: str = ""
    token_endpoint: str = ""


class OidcSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Identity providers, and the bounds on what is fetched from them."""

    issuers: tuple[OidcIssuer, ...] = ()
    leeway_seconds: int = 30
    cache_seconds: int = 600
    refetch_seconds: int = 30
    timeout_seconds: float = 5.0
    max_bytes: int = 262_144


class Sigv4Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a signed request must be signed for."""

    services: tuple[str, ...] = ("carelake", "execute-api", "healthlake", "s3", "sagemaker")
    regions: tuple[str, ...] = ("us-east-1",)
    skew_seconds: int = 300
    unsigned_payload: bool = False
    refuse_replay: bool = True


class SmartSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The token endpoint for backend services (docs/smart.md).

    Attributes:
        base_url: this server's address as clients know it, without a slash at the end, for example
            ``https://fhir.example.org``; assertions are made for it. "" answers on loopback addresses only.
        token_seconds: how long its tokens last, at most five minutes.
    """

    base_url: str = ""
    token_seconds: int = 300

    def __post_init__(self) -> None:
        if self.base_url and not _BASE_URL.fullmatch(self.base_url):
            raise ValueError(
                "access.smart.base_url is https://HOST[:PORT][/PATH] (http on loopback), no slash at the end"
            )
        if not 1 <= self.token_seconds <= 300:
            raise ValueError("access.smart.token_seconds is 1 to 300")


class ConsentSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What holds where a patient's consent says nothing, and whom consents mean (docs/consent.md).

    Attributes:
        opt_in: purposes for which only records are seen whose patient permits it; for others all but those who deny.
        opt_in_deidentified: the same, of what is seen de-identified.
        actors: who is meant by an actor of a Consent, ``Practitioner/ID`` or ``SYSTEM|VALUE``: a principal,
            ``role:ROLE``, ``account:ACCOUNT``, or ``*`` for all here.
    """

    opt_in: tuple[str, ...] = ()
    opt_in_deidentified: tuple[str, ...] = ()
    actors: dict[str, str] = {}


class AccessSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long rights live, in seconds; what else the doors ask of who calls (docs/access.md)."""

    permit_seconds: int = 3600
    job_seconds: int = 86_400
    token_seconds: int = 3600
    token_max_seconds: int = 43_200
    glass_max_minutes: int = 240
    review_days: int = 3
    grant_max_days: int = 365
    key_warn_days: int = 75
    key_max_days: int = 90
    consent: ConsentSettings = ConsentSettings()
    lockout: LockoutSettings = LockoutSettings()
    oidc: OidcSettings = OidcSettings()
    sigv4: Sigv4Settings = Sigv4Settings()
    smart: SmartSettings = SmartSettings()
