"""Feature sets: every prediction time with its label and its features as of then, before anything is shared out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa

from carelake.audit.nouns import Nouns
from carelake.core.nouns import Noun
from carelake.core.permit import Permit
from carelake.features import parquet, readmission
from carelake.features.proof import Mac, Marks, proof, view_marks
from carelake.vault.workspace import Vault

__all__ = ["MARKED", "FeatureSet", "create", "keep", "load", "marks_of", "proof_of"]

MARKED = {
    "encounters": ("start_time", "start_time"),
    "conditions": ("time", "recorded_time"),
    "observations": ("time", "issued"),
    "medications": ("time", "time"),
    "procedures": ("time", "time"),
}
"""By view, when a row happened and when it became known (null: when it happened), see `features.readmission`."""


@dataclass(frozen=True, slots=True)
class FeatureSet:
    """A feature set.

    Attributes:
        noun: its body has ``rows``, ``features``, ``attrition``, ``data_end``, ``object``, ``sha256``.
        table: ``subject_id``, ``prediction_time``, ``label``, facts and features.
        proof: of each row, in the same order (`features.proof`); None in sets from before there was one.
    """

    noun: Noun
    table: pa.Table
    proof: pa.Table | None = None


def create(
    permit: Permit,
    vault: Vault,
    nouns: Nouns,
    views: Sequence[Noun],
    tables: Mapping[str, pa.Table],
    *,
    data_end: datetime | None = None,
) -> FeatureSet:
    """Build the feature set of the readmission recipe from a snapshot's views, or find it.

    Args:
        permit: grants ``features:write``, ``rows:read``, ``rows:write``.
        views: the nouns of ``tables``; their refs are in the object's bytes too, so that they name it.
        tables: the snapshot's flat views.
    """
    built = readmission.build(tables, data_end=data_end, now=vault.clock.now(), limits=vault.settings.lake)
    facts = readmission.attrition(built)
    body = {"features": [feature.name for feature in readmission.features()], **facts}
    proved = proof_of(built, marks_of(built, tables), vault.keyring.referrer(permit, "proof"))
    return keep(permit, vault, nouns, built, proved, [view.ref for view in views], body, told=facts)


def marks_of(built: pa.Table, tables: Mapping[str, pa.Table]) -> dict[str, Marks]:
    """What each view could tell of the patients of the readmission recipe's rows by then."""
    sources = {
        name: tables[name].select(["subject_id"]).append_column("event_time", tables[name].column(event))
        .append_column("write_time", tables[name].column(write))
        for name, (event, write) in MARKED.items()
    }  # fmt: skip
    return view_marks(built, sources)


def proof_of(built: pa.Table, marks: Mapping[str, Marks], mac: Mac) -> pa.Table:
    """The proof of the readmission recipe's rows."""
    return proof(built, mac, marks, values=built.column_names)


def keep(
    permit: Permit,
    vault: Vault,
    nouns: Nouns,
    built: pa.Table,
    proved: pa.Table,
    sources: Sequence[str],
    body: Mapping[str, Any],
    *,
    told: Mapping[str, Any] | None = None,
) -> FeatureSet:
    """Keep rows and their proof as a feature set, or find it.

    Args:
        sources: refs of what it was made of; they are in the object's bytes too, so that they name it.
        body: ``features``, ``attrition``, ``data_end``, and what else is told of it.
        told: what the bytes tell; by default the body.
    """
    said = json.dumps({**(body if told is None else told), "views": list(sources)}, sort_keys=True).encode()
    table = built.replace_schema_metadata({b"carelake": said})
    noun = parquet.keep(permit, vault, nouns, "featureset", table, sources, body, proof=proved)
    return FeatureSet(noun, table, proved)


def load(permit: Permit, vault: Vault, noun: Noun) -> FeatureSet:
    """Read a feature set back, as it was built; `Corrupt` ``features.altered``."""
    return FeatureSet(noun, parquet.read(permit, vault, noun), parquet.read_proof(permit, vault, noun))
