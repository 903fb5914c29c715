"""Taking patients out of feature sets and training sets.

A table is named by its bytes, so one without their rows is another: it is kept under its own name, made from the old
one, whose bytes go and whose noun says that it was erased. Models stay as they are: their rows are in none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from carelake.audit.nouns import Nouns
from carelake.core.errors import NotFound
from carelake.core.nouns import Noun
from carelake.core.permit import Permit
from carelake.features import parquet
from carelake.features.groups import erase as groups
from carelake.vault.workspace import Vault

__all__ = ["erase", "held", "residue"]

_ZONE = "features"
_KINDS = ("featureset", "trainingset")
_SUBJECT = "subject_id"


def held(permit: Permit, vault: Vault) -> int:
    """How many objects of the zone are under a legal hold."""
    return sum(one.held for one in vault.objects.list(permit, _ZONE))


def erase(
    permit: Permit,
    vault: Vault,
    nouns: Nouns,
    patients: set[str],
    *,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> dict[str, int]:
    """Make every table of the account anew that has rows of these patients; take them out of feature groups."""
    told = {"feature_tables": 0, "feature_rows": 0}
    found = list(_tables(permit, vault, nouns))
    for number, noun in enumerate(found, 1):
        table = parquet.read(permit, vault, noun)
        theirs = _theirs(table, patients)
        count = int(pc.sum(theirs).as_py() or 0)
        if count:
            _replace(permit, vault, nouns, noun, table, pc.invert(theirs))
            told["feature_tables"] += 1
            told["feature_rows"] += count
        progress(number, len(found))
    return told | groups.erase(permit, vault, patients)


def _tables(permit: Permit, vault: Vault, nouns: Nouns) -> Iterator[Noun]:
    with vault.database.reading(permit) as tx:
        found = [one for kind in _KINDS for one in nouns.find(tx, kind, permit.account)]
    yield from (one for one in found if one.state != parquet.ERASED)


def _theirs(table: pa.Table, patients: set[str]) -> Any:
    if _SUBJECT not in table.column_names:
        return pa.array([False] * len(table))
    return pc.is_in(table.column(_SUBJECT), pa.array(sorted(patients), pa.string()))


def _replace(permit: Permit, vault: Vault, nouns: Nouns, noun: Noun, table: pa.Table, left: Any) -> None:
    said = {name: value for name, value in noun.body.items() if name not in ("rows", "object", "sha256", "proof")}
    proof = parquet.read_proof(permit, vault, noun)
    proof = None if proof is None else proof.filter(left)
    body = {**said, "erased": True}
    parquet.keep(permit, vault, nouns, noun.kind, table.filter(left), (noun.ref,), body, proof=proof)
    with vault.database.transaction(permit) as tx:
        for name in parquet.objects_of(noun):
            _purge(permit, vault, name)
        nouns.set_state(tx, noun.ref, parquet.ERASED)
        permit.log.wrote(noun.ref)
        permit.log.count(feature_tables=1)


def _purge(permit: Permit, vault: Vault, name: str) -> None:
    with suppress(NotFound):  # it went before a run that was killed
        vault.objects.keeping.purge(permit, _ZONE, name)


def residue(permit: Permit, vault: Vault, nouns: Nouns, patients: set[str]) -> int:
    """Rows of these patients that are left."""
    tables = (parquet.read(permit, vault, one) for one in _tables(permit, vault, nouns))
    left = sum(int(pc.sum(_theirs(table, patients)).as_py() or 0) for table in tables)
    return left + groups.residue(permit, vault, patients)
