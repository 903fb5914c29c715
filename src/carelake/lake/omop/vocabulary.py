"""A user's own OHDSI vocabulary: the folder that Athena gives (https://athena.ohdsi.org), read and never shipped.

Of ``CONCEPT.csv`` and ``CONCEPT_RELATIONSHIP.csv`` what source codes need is kept: their concept, the standard
concepts that it maps to ('Maps to'), and the domains of those.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from carelake.core.errors import Invalid
from carelake.core.settings import LakeSettings
from carelake.lake.engines.engine import run

__all__ = ["MAPPED", "NONE", "Vocabulary", "facts", "read", "systems"]

MAPPED = pa.schema(
    [
        pa.field("system", pa.string()),
        pa.field("code", pa.string()),
        pa.field("source_id", pa.int64()),
        pa.field("concept_id", pa.int64()),
        pa.field("domain", pa.string()),
    ]
)
"""One row for each standard concept of a source code; concept_id and domain are null where it has none."""

_CONCEPT = ("concept_id", "domain_id", "vocabulary_id", "standard_concept", "concept_code", "invalid_reason")
_RELATION = ("concept_id_1", "concept_id_2", "relationship_id", "invalid_reason")
_JOIN = """
-- A code that was given twice is its valid concept. It has a row for each standard concept that it maps to, or one
-- where it maps to none.
SELECT s.system, c.concept_code AS code, c.concept_id::BIGINT AS source_id, t.concept_id::BIGINT AS concept_id,
    t.domain
FROM (
    SELECT DISTINCT ON (vocabulary_id, concept_code) * FROM source
    ORDER BY vocabulary_id, concept_code, invalid_reason, concept_id
) c
JOIN systems s ON s.vocabulary = c.vocabulary_id
LEFT JOIN maps m ON m.concept_id_1 = c.concept_id
LEFT JOIN standard t ON t.concept_id = m.concept_id_2
QUALIFY t.concept_id IS NOT NULL OR (
    count(t.concept_id) OVER (PARTITION BY s.system, c.concept_code) = 0
    AND row_number() OVER (PARTITION BY s.system, c.concept_code) = 1
)
ORDER BY s.system, code, t.concept_id
"""


@dataclass(frozen=True)
class Vocabulary:
    """What source codes map to.

    Attributes:
        mapped: as `MAPPED`.
        standard: concept_id and domain of every standard concept.
        version: as Athena tells it, or "none".
    """

    mapped: pa.Table
    standard: pa.Table
    version: str


NONE = Vocabulary(
    MAPPED.empty_table(),
    pa.table({"concept_id": pa.array([], pa.int64()), "domain": pa.array([], pa.string())}),
    "none",
)
"""Without a vocabulary every code is of concept 0."""


@cache
def systems() -> Mapping[str, str]:
    """Urls of code systems to what OHDSI calls them."""
    return tomllib.loads(files("carelake.lake.omop").joinpath("systems.toml").read_text("utf-8"))


@cache
def facts() -> pa.Table:
    """Columns kind, code, id: the concepts that are known without a vocabulary (``concepts.toml``)."""
    told = tomllib.loads(files("carelake.lake.omop").joinpath("concepts.toml").read_text("utf-8"))
    rows = [(kind, code, number) for kind, codes in told.items() for code, number in codes.items()]
    kinds, codes, ids = zip(*rows, strict=True)
    return pa.table({"kind": list(kinds), "code": list(codes), "id": pa.array(ids, pa.int64())})


def read(folder: Path, limits: LakeSettings | None = None) -> Vocabulary:
    """The vocabulary in a folder of Athena's.

    Raises:
        Invalid: ``omop.vocabulary``, when a file is missing or has other columns.
    """
    vocabularies = pa.array(sorted(set(systems().values())), pa.string())
    source, standard = [], []
    for batch in _batches(folder / "CONCEPT.csv", _CONCEPT):
        source.append(batch.filter(pc.is_in(batch.column("vocabulary_id"), vocabularies)))
        good = pc.and_(pc.equal(batch.column("standard_concept"), "S"), pc.equal(batch.column("invalid_reason"), ""))
        standard.append(batch.filter(good).select(["concept_id", "domain_id"]))
    maps = []
    for batch in _batches(folder / "CONCEPT_RELATIONSHIP.csv", _RELATION):
        good = pc.and_(
            pc.equal(batch.column("relationship_id"), "Maps to"), pc.equal(batch.column("invalid_reason"), "")
        )
        maps.append(batch.filter(good).select(["concept_id_1", "concept_id_2"]))
    known = _whole(standard, ("concept_id", "domain_id")).rename_columns(["concept_id", "domain"])
    tables = {
        "source": _whole(source, _CONCEPT),
        "standard": known,
        "maps": _whole(maps, ("concept_id_1", "concept_id_2")),
        "systems": pa.table({"system": list(systems()), "vocabulary": list(systems().values())}),
    }
    mapped = run(_JOIN, tables, limits=limits).cast(MAPPED)
    return Vocabulary(mapped, known, _version(folder))


def _batches(path: Path, columns: tuple[str, ...]) -> Iterator[pa.RecordBatch]:
    types = {name: pa.int64() if name.startswith("concept_id") else pa.string() for name in columns}
    try:
        reader = csv.open_csv(
            path,
            parse_options=csv.ParseOptions(delimiter="\t", quote_char=False),
            convert_options=csv.ConvertOptions(
                include_columns=list(columns), column_types=types, strings_can_be_null=False
            ),
        )
        yield from reader
    except (OSError, KeyError, pa.ArrowException):
        raise Invalid(
            "omop.vocabulary",
            f"{path.name} is missing or is not Athena's; expected tab-separated values with "
            f"{', '.join(columns)}. Download the vocabulary again.",
        ) from None


def _whole(parts: list[pa.RecordBatch], columns: tuple[str, ...]) -> pa.Table:
    if parts:
        return pa.Table.from_batches(parts)
    types = [pa.int64() if name.startswith("concept_id") else pa.string() for name in columns]
    return pa.table([pa.array([], kind) for kind in types], names=list(columns))


def _version(folder: Path) -> str:
    """Of the whole vocabulary: what the row None of ``VOCABULARY.csv`` says."""
    columns = ("vocabulary_id", "vocabulary_version")
    for batch in _batches(folder / "VOCABULARY.csv", columns):
        for name, version in zip(batch.column(0).to_pylist(), batch.column(1).to_pylist(), strict=True):
            if name == "None" and version:
                return str(version)[:20]
    return "unknown"
