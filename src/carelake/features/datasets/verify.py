"""Verifying a data set: the kept rows against their proof, and the proof against the same rows made again.

The replay reads the sources as of then: the snapshot that the set was made of and, where groups of features were
joined, what was written to them by then. It makes labels, features, marks and hashes anew and compares row by row.
Where somebody was erased since, the snapshot is gone; what is left of it is read version by version from the newest
one, and the answer says so. A set that somebody in it was erased from cannot be verified: its successor can.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import Connection

from carelake.core.errors import Corrupt, Gone, NotFound
from carelake.core.nouns import Noun
from carelake.features import parquet
from carelake.features.datasets import build, make, sources
from carelake.features.datasets.build import Lake
from carelake.features.datasets.design import parsed
from carelake.features.datasets.meds import Given, made_of
from carelake.features.proof import EVENT, digest, late, row_hashes
from carelake.features.split import Fractions, again
from carelake.lake import query
from carelake.lake.ready.shards import people

__all__ = ["verify"]

_READMISSION = {"name": "readmission", "title": "readmission", "rows": "readmission"}
_ERASED = "Somebody in this set was erased by law, and the set with them; verify the one that was made of the rest."
_OUTSIDE = "The kept rows are those of their proof; to make them again give the data set, --meds, and its --labels."
_LEFT = (
    "The snapshot is gone since somebody was erased by law; the replay read what is left of it, version by version, "
    "which holds all rows of this set."
)


def verify(lake: Lake, ref: str, given: Given | None = None) -> dict[str, Any]:
    """What holds of a training set.

    Args:
        given: of a set that was made of a MEDS data set, that and the labels: carelake keeps neither.

    Returns:
        ``verified`` (True, False, or None where it cannot be told), ``ref``, ``rows``, ``problems`` (``check`` and
        counts by source; never a row's), ``replayed``, ``note``, ``successor`` (of a set that was erased from).

    Raises:
        NotFound: ``datasets.no_such_set``.
    """
    noun = build.noun_of(lake, ref, "trainingset")
    told: dict[str, Any] = {
        "ref": ref,
        "rows": noun.body["rows"],
        "verified": None,
        "replayed": False,
        "problems": [],
    }
    if noun.state == parquet.ERASED:
        return {**told, "note": _ERASED, "successor": _successor(lake, noun)}
    problems: list[dict[str, Any]] = told["problems"]
    try:
        table = parquet.read(lake.permit, lake.vault, noun)
        proved = parquet.read_proof(lake.permit, lake.vault, noun)
    except (Corrupt, NotFound) as error:
        problems.append({"check": "kept_bytes", "code": error.code})
        return {**told, "verified": False}
    if proved is None:
        return {**told, "note": "The set is from before sets had a proof; build it again to have one."}
    problems += _kept(lake, noun, table, proved)
    try:
        if "meds" in noun.body and given is None:
            return {**told, "verified": False if problems else None, "note": _OUTSIDE}
        made, told["note"] = _replayed(lake, noun, given)
    except Gone as error:
        return {**told, "verified": False if problems else None, "note": error.message}
    except Corrupt as error:
        problems.append({"check": "source_bytes", "code": error.code})
        return {**told, "verified": False}
    problems += _compared(proved, made.prove(lake.vault.keyring.referrer(lake.permit, "proof")))
    return {**told, "verified": not problems, "replayed": True, "marks": _marks(proved)}


def _successor(lake: Lake, noun: Noun) -> str | None:
    with lake.vault.database.reading(lake.permit) as tx:
        made = lake.nouns.find(tx, "trainingset", lake.permit.account)
    return next((one.ref for one in made if noun.ref in one.made_from), None)


def _kept(lake: Lake, noun: Noun, table: pa.Table, proved: pa.Table) -> list[dict[str, Any]]:
    """The kept rows against the kept proof, and the split against its rule."""
    mac = lake.vault.keyring.referrer(lake.permit, "proof")
    problems: list[dict[str, Any]] = []
    if digest(proved, mac) != noun.body["proof"]["digest"]:
        problems.append({"check": "proof_digest"})
    values = table.drop_columns(["set"])
    # A key counts rows of one subject and time, and only those in a set are kept: it is taken from the proof.
    keys = proved.column("key").combine_chunks()
    if len(proved) != len(table):
        problems.append({"check": "kept_rows", "rows": abs(len(proved) - len(table))})
        return problems
    found = row_hashes(values, mac, keys)
    differ = int(pc.sum(pc.not_equal(found, proved.column("row").combine_chunks())).as_py() or 0)
    if differ:
        problems.append({"check": "kept_rows", "rows": differ})
    if after := {name: count for name, count in late(table, proved).items() if count}:
        problems.append({"check": "after_prediction", "sources": after})
    problems += _split(noun, table)
    return problems


def _split(noun: Noun, table: pa.Table) -> list[dict[str, Any]]:
    said = noun.body["split"]
    if said.get("by"):
        return []  # the data came with it: the replay compares
    fractions = Fractions(*(float(said[name]) for name in ("test_patients", "calibration_patients", "time")))
    hours = int(noun.body.get("follow_up_hours", 30 * 24))
    wanted = again(table, said["boundary"], seed=said["seed"], fractions=fractions, follow_up_hours=hours)
    differ = int(pc.sum(pc.fill_null(pc.not_equal(wanted, table.column("set")), True)).as_py() or 0)
    return [{"check": "split", "rows": differ}] if differ else []


def _replayed(lake: Lake, noun: Noun, given: Given | None) -> tuple[make.Made, str]:
    """The rows made again from the sources as of then, and what is to be said of them."""
    recipe = parsed(noun.body.get("recipe", _READMISSION))
    if given is not None:
        return made_of(lake, recipe, given), ""
    with lake.vault.database.reading(lake.permit) as tx:
        snapshot = _snapshot(lake, tx, noun)
    end = datetime.fromisoformat(noun.body["data_end"])

    def rows(read: sources.Reader, of: Noun) -> make.Made:
        patients = people(lake.permit, lake.vault, of, build.kinds_of(recipe), build.SHARD)
        return build.rows(lake, recipe, read, patients, taken=str(noun.body.get("taken", "")), data_end=end)[0]

    try:
        return rows(sources.reader(lake.permit, lake.vault, snapshot), snapshot), ""
    except Gone as error:
        if error.code != "lake.erased":
            raise
    newest = query.snapshot_of(lake.permit, lake.vault, lake.nouns)
    read = sources.reader_again(lake.permit, lake.vault, newest, int(snapshot.body["seq"]))
    return rows(read, newest), _LEFT


def _snapshot(lake: Lake, tx: Connection, noun: Noun) -> Noun:
    """The snapshot that a set was made of, however many erasures lie between."""
    level: Iterable[Noun] = [noun]
    while found := {ref: None for one in level for ref in one.made_from}:
        level = [lake.nouns.get(tx, ref, account=lake.permit.account) for ref in found]
        if snapshots := [one for one in level if one.kind == "snapshot"]:
            return snapshots[0]
    raise NotFound("datasets.no_such_set", "The set is of no snapshot of the lake; it cannot be made again.")


def _compared(kept: pa.Table, made: pa.Table) -> list[dict[str, Any]]:
    """Kept proof rows against those of the replay, which has the unused rows too."""
    place = {key: at for at, key in enumerate(made.column("key").to_pylist())}
    rows = [place.get(key) for key in kept.column("key").to_pylist()]
    missing = rows.count(None)
    problems: list[dict[str, Any]] = [{"check": "replay_rows", "missing": missing}] if missing else []
    there = pa.array([one is not None for one in rows])
    ours = kept.filter(there)
    theirs = made.take(pa.array([one for one in rows if one is not None], pa.int64()))
    differ: Counter[str] = Counter()
    for name in kept.column_names:
        if name not in theirs.column_names:
            differ[name] += len(ours)
            continue
        same = pc.equal(ours.column(name), theirs.column(name))
        both = pc.and_(pc.is_null(ours.column(name)), pc.is_null(theirs.column(name)))
        unlike = len(ours) - int(pc.sum(pc.or_(both, pc.fill_null(same, False))).as_py() or 0)
        if unlike:
            differ[name] = unlike
    if differ:
        problems.append({"check": "replay_values", "rows": differ.pop("row", 0), "columns": dict(differ)})
    return problems


def _marks(proved: pa.Table) -> dict[str, int]:
    """By source, rows that rest on anything of it."""
    found = (name for name in proved.column_names if name.endswith(f"__{EVENT}"))
    return {name.removesuffix(f"__{EVENT}"): len(proved) - proved.column(name).null_count for name in found}
