"""What the trail may tell of a request: what people type in a target's place may be a patient's name."""

from __future__ import annotations

import re
from collections.abc import Collection

from carelake.fhir.definitions import is_resource
from carelake.vault.places import ACCOUNTS, ZONES

__all__ = ["OTHER", "shown_account", "shown_purpose", "shown_target"]

OTHER = "(other)"

_PLACES = frozenset(
    {"endpoints", "lake", "models", "nouns", "page", "principals", "probe", "quarantine", "record", "serve", "trail"}
    | {"access", "events", "grants", "keys", "objects", "reviews", "workspace"}
    | {"aws", "features", "monitors", "pipelines", "schedules", "tags"}
)
_LEAVES = frozenset({*ZONES, "credentials", "database", "patient", "reference"})
_LEAVES |= {"sign-models", "sign-tokens", "sign-trail"}
_CODE = re.compile(r"[A-Z]{3,10}")
_REF = re.compile(r"[a-z]{3,12}:[0-9a-f]{16,80}")
_OWN_ID = re.compile(r"(access-key|client|glass|grant|token)/[0-9A-Za-z]{16,64}")
_LONGEST = 160


def shown_target(text: str, names: Collection[str] = ()) -> str:
    """The target when it is a known word, a type, a ref, a zone, a key or a principal; ``(other)`` otherwise.

    Args:
        names: words that are known beside our own, for example of recipes.
    """
    if is_resource(text) or text in _PLACES or text in names or _REF.fullmatch(text) or _OWN_ID.fullmatch(text):
        return text
    kind, _, rest = text.partition("/")
    if kind in ("group", "principal") and len(rest) > 0 and len(text) <= _LONGEST:
        return text
    if kind == "zone" and rest in ZONES:
        return text
    account, _, leaf = rest.partition("/")
    if kind == "key" and account in ACCOUNTS and (not leaf or leaf in _LEAVES):
        return text
    return OTHER


def shown_purpose(text: str) -> str:
    """The purpose when it has the form of a code."""
    return text if _CODE.fullmatch(text) else ("" if not text else OTHER)


def shown_account(text: str) -> str:
    """The account when there is one of that name."""
    return text if text in ACCOUNTS else OTHER
