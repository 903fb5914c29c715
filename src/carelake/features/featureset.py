"""Feature sets: every index admission with its features as of discharge, before anything is shared out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa

from carelake.audit.nouns import Nouns
from carelake.core.nouns import Noun
from carelake.core.permit import Permit
from carelake.features import parquet, readmission
from carelake.vault.workspace import Vault

__all__ = ["FeatureSet", "create", "load"]


@dataclass(frozen=True, slots=True)
class FeatureSet:
    """A feature set.

    Attributes:
        noun: its body has ``rows``, ``features``, ``attrition``, ``data_end``, ``object``, ``sha256``.
        table: the columns of `readmission.build`.
    """

    noun: Noun
    table: pa.Table


def create(
    permit: Permit,
    vault: Vault,
    nouns: Nouns,
    views: Sequence[Noun],
    tables: Mapping[str, pa.Table],
    *,
    data_end: datetime | None = None,
) -> FeatureSet:
    """Build the feature set of a snapshot's views, or find it.

    Args:
        permit: grants ``features:write``, ``rows:read``, ``rows:write``.
        views: the nouns of ``tables``; their refs are in the object's bytes too, so that they name it.
        tables: the snapshot's flat views.
    """
    built = readmission.build(tables, data_end=data_end, now=vault.clock.now(), limits=vault.settings.lake)
    sources = [view.ref for view in views]
    facts = readmission.attrition(built)
    told = json.dumps({**facts, "views": sources}, sort_keys=True).encode()
    table = built.replace_schema_metadata({b"carelake": told})
    body = {"features": [feature.name for feature in readmission.features()], **facts}
    return FeatureSet(parquet.keep(permit, vault, nouns, "featureset", table, sources, body), table)


def load(permit: Permit, vault: Vault, noun: Noun) -> FeatureSet:
    """Read a feature set back, as it was built; `Corrupt` ``features.altered``."""
    return FeatureSet(noun, parquet.read(permit, vault, noun))
