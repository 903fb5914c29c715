"""The chain of nouns: what each step of the platform leaves behind, and how it is named.

    Landing -> Parsed | Quarantined -> ResourceVersion -> Snapshot -> ViewResult -> FeatureSet -> TrainingSet
            -> ModelVersion -> Endpoint -> Prediction -> Finding

A noun is frozen and carries its ``ref`` (kind and digest), the act that made it and the refs it was made from.
A noun about a patient is named by an HMAC under the account's reference key, since a bare digest of a short body can
be guessed (decision D4); `vault.keyring` makes those names, `ref` below the others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from carelake.core.errors import Invalid

__all__ = ["KINDS", "Kind", "Noun", "kind_of", "ref"]

Kind = Literal[
    "landing",
    "quarantined",
    "resource",
    "snapshot",
    "view",
    "featuregroup",
    "featureset",
    "trainingset",
    "artifact",
    "model",
    "plan",
    "verdict",
    "approval",
    "endpoint",
    "prediction",
    "finding",
    "run",
    "erasure",
    "tag",
]
KINDS: tuple[str, ...] = get_args(Kind)


@dataclass(frozen=True, slots=True)
class Noun:
    """One thing that was made.

    Attributes:
        ref: ``KIND:HEX64``.
        state: a word: how far it got, for example ``landing`` ``landed``, ``model`` ``PendingManualApproval``.
        made_by: id of the act that wrote it.
        made_from: refs it was made from, nearest first.
        body: facts about it as JSON: counts, names, digests; never a clinical value.
    """

    ref: str
    account: str
    state: str
    made_by: str
    made_from: tuple[str, ...] = ()
    body: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """The word before the colon of ``ref``."""
        return self.ref.partition(":")[0]


def ref(kind: Kind, content: bytes) -> str:
    """The name of a noun that holds no PHI: its kind and the SHA-256 of its content."""
    return f"{kind}:{hashlib.sha256(content).hexdigest()}"


def kind_of(text: str) -> str:
    """The kind of a ref.

    Raises:
        Invalid: ``core.ref``, when the text is not a ref.
    """
    kind, colon, digest = text.partition(":")
    if kind not in KINDS or not colon or not digest:
        raise Invalid("core.ref", "Not a ref; expected KIND:DIGEST, for example prediction:1f0a...")
    return kind
