"""Training sets: the labelled rows of a feature table with their sets, as Parquet named by its content."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from carelake.audit.nouns import Nouns
from carelake.core.errors import Corrupt, NotFound
from carelake.core.nouns import Noun, ref
from carelake.core.permit import Permit
from carelake.features import readmission
from carelake.features.split import Split
from carelake.vault.workspace import Vault

__all__ = ["load", "make"]

_ZONE = "features"


def make(permit: Permit, vault: Vault, nouns: Nouns, table: pa.Table, split: Split, *, snapshot: str) -> Noun:
    """Keep a training set: the rows that the split shares out, with their ``set``.

    The same rows give the same bytes and so the same ref. Needs the grants ``features:write``, ``rows:write``.

    Args:
        table: of `readmission.build`.
        snapshot: ref of the lake's snapshot that the table was built from.
    """
    whole = table.append_column("set", split.sets)
    data = _parquet(whole.filter(pc.is_valid(whole.column("set"))))
    name = ref("trainingset", data)
    body = {
        "rows": sum(n for key, n in split.counts.items() if key != "unused"),
        "features": len(readmission.features()),
        "split": split.body(),
        **readmission.attrition(table),
    }
    noun = Noun(name, permit.account, "built", permit.act, (snapshot,), body)
    with vault.database.transaction(permit) as tx:
        vault.objects.put(permit, _ZONE, _object_name(name), data)
        nouns.write(tx, noun)
        permit.log.wrote(name)
    return noun


def load(permit: Permit, vault: Vault, name: str) -> pa.Table:
    """Read a training set back; needs the grants ``features:read``, ``rows:read``.

    Raises:
        NotFound: ``features.no_training_set``. Corrupt: ``features.training_set``, when it is not what its ref names.
    """
    try:
        data = vault.objects.get(permit, _ZONE, _object_name(name))
    except NotFound:
        raise NotFound("features.no_training_set", "No training set of this ref is in this account.") from None
    if ref("trainingset", data) != name:
        raise Corrupt("features.training_set", "The training set is not the one that its ref names; build it again.")
    permit.log.read(name)
    return pq.read_table(io.BytesIO(data))


def _parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table.combine_chunks(), buffer, compression="zstd", store_schema=True)
    return buffer.getvalue()


def _object_name(name: str) -> str:
    return f"trainingset/{name.partition(':')[2]}.parquet"
