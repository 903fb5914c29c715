"""Patients taken out of feature tables: another noun for the rest, and nothing of the old bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from carelake.audit.nouns import Nouns
from carelake.core.errors import Gone, NotFound
from carelake.core.permit import Permit
from carelake.features import erase, parquet

GRANTS = ("features:read", "features:write", "features:keep", "rows:read", "rows:write")


def test_the_rest_is_another_noun(vault: Any, permit_for: Callable[..., Permit]) -> None:
    permit, nouns = permit_for(*GRANTS), Nouns(vault.clock)
    table = pa.table({"subject_id": ["a", "b", "a", "c"], "x": [1.0, 2.0, 3.0, 4.0]})
    other = pa.table({"subject_id": ["b"], "x": [2.0]})
    old = parquet.keep(permit, vault, nouns, "trainingset", table, (), {"features": ["x"]})
    same = parquet.keep(permit, vault, nouns, "featureset", other, (), {"features": ["x"]})
    assert erase.residue(permit, vault, nouns, {"a"}) == 2
    told = erase.erase(permit, vault, nouns, {"a"})
    assert (told["feature_tables"], told["feature_rows"]) == (1, 2)
    assert erase.residue(permit, vault, nouns, {"a"}) == 0
    with vault.database.reading(permit) as tx:
        found = nouns.find(tx, "trainingset", "production")
    new, gone = found
    assert (gone.ref, gone.state) == (old.ref, parquet.ERASED)
    assert new.made_from == (old.ref,)
    assert parquet.read(permit, vault, new).to_pydict() == {"subject_id": ["b", "c"], "x": [2.0, 4.0]}
    assert parquet.read(permit, vault, same).to_pydict() == other.to_pydict()
    with pytest.raises(Gone, match="Somebody in this table"):
        parquet.read(permit, vault, gone)
    with pytest.raises(NotFound):
        vault.objects.get(permit, "features", str(old.body["object"]))
    assert not any(erase.erase(permit, vault, nouns, {"a"}).values())
    assert erase.held(permit, vault) == 0
