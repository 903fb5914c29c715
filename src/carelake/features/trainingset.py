"""Training sets: a cohort's features, labels and split as one Parquet object that always comes out the same.

The object lies in zone ``features``; the noun is named by an HMAC of its bytes (it holds PHI, decision D4), which
hold the snapshot's ref as well: the same snapshot, code and settings give the same name, and a second build finds the
first. Only rows that a set uses are in it; what was left out is counted in the noun's body.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from sqlalchemy import Connection

from carelake.audit.nouns import Nouns
from carelake.core.errors import Corrupt, NotFound
from carelake.core.nouns import Noun
from carelake.core.permit import Permit
from carelake.features import readmission
from carelake.features.split import Fractions, Split, split
from carelake.vault.workspace import Vault

__all__ = ["TrainingSet", "create", "load"]

_ZONE = "features"


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """A training set.

    Attributes:
        noun: its body has ``rows``, ``features``, ``attrition``, ``data_end``, ``split``, ``object``, ``sha256``.
        table: the columns of `readmission.build` and ``set``; every row is labelled and in a set.
    """

    noun: Noun
    table: pa.Table

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the feature columns, in order."""
        return tuple(self.noun.body["features"])


def create(
    permit: Permit,
    vault: Vault,
    nouns: Nouns,
    snapshot: Noun,
    tables: Mapping[str, pa.Table],
    *,
    seed: int = 1,
    fractions: Fractions | None = None,
    data_end: datetime | None = None,
) -> TrainingSet:
    """Build the training set of a snapshot, or find it.

    Args:
        permit: grants ``features:read``, ``features:write``, ``rows:read``, ``rows:write``.
        tables: the snapshot's flat views.
    """
    built = readmission.build(tables, data_end=data_end, limits=vault.settings.lake)
    shared = split(built, seed=seed, fractions=fractions)
    table = _rows(built, shared, snapshot)
    data = _parquet(table)
    name = vault.keyring.reference(permit, "trainingset", data)
    place = f"trainingsets/{name.partition(':')[2]}.parquet"
    body = {
        "rows": len(table),
        "features": [feature.name for feature in readmission.features()],
        "object": place,
        "sha256": hashlib.sha256(data).hexdigest(),
        "split": shared.body(),
        **readmission.attrition(built),
    }
    made = Noun(name, permit.account, "built", permit.act, (snapshot.ref,), body)
    with vault.database.reading(permit) as connection:
        known = _known(connection, nouns, name)
    if known is None:
        vault.objects.put(permit, _ZONE, place, data)
        with vault.database.transaction(permit) as tx:
            nouns.write(tx, made)
            permit.log.wrote(name)
    return TrainingSet(known or made, table)


def load(permit: Permit, vault: Vault, noun: Noun) -> TrainingSet:
    """Read a training set back, as it was built.

    Raises:
        Corrupt: ``features.trainingset``, when the object's bytes are not those that the noun names.
    """
    data = vault.objects.get(permit, _ZONE, noun.body["object"])
    if hashlib.sha256(data).hexdigest() != noun.body["sha256"]:
        raise Corrupt(
            "features.trainingset", "The training set's bytes are not those it was named by; build it again."
        )
    permit.log.read(noun.ref)
    return TrainingSet(noun, pq.read_table(io.BytesIO(data)))


def _known(connection: Connection, nouns: Nouns, name: str) -> Noun | None:
    try:
        return nouns.get(connection, name)
    except NotFound:
        return None


def _rows(built: pa.Table, shared: Split, snapshot: Noun) -> pa.Table:
    """The rows that a set uses, with ``set`` after ``label``; the split and the snapshot in the schema's metadata."""
    at = built.column_names.index("label") + 1
    table = built.add_column(at, "set", shared.sets).filter(pc.is_valid(shared.sets))
    said: dict[str, Any] = {**readmission.attrition(built), "split": shared.body(), "snapshot": snapshot.ref}
    return table.replace_schema_metadata({b"carelake": json.dumps(said, sort_keys=True).encode()})


def _parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table.combine_chunks(), sink, compression="zstd", version="2.6", row_group_size=65_536)
    return sink.getvalue()
