"""Models and rows as steps name them: a fitted or registered model, and a table with its risks and outcomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from carelake.core.errors import Invalid, Unsupported
from carelake.core.nouns import Noun
from carelake.core.permit import Permit
from carelake.features import parquet
from carelake.models import matrix
from carelake.models.matrix import Floats, Mask
from carelake.models.registry import REJECTED
from carelake.models.scorer import RISKS, Scorer, read
from carelake.pipelines.execution.work import Work

__all__ = ["ALERT", "LABEL", "PROBABILITY", "SET", "Model", "Table", "model_of", "outcomes", "owners", "table_of"]

PROBABILITY, ALERT, LABEL, SET = "probability", "prediction", "label", "set"
_SUBJECT = "subject_id"
_SCORED = (*RISKS, "event_time")
_NONE = (0, "0", "false", "")


@dataclass(frozen=True)
class Model:
    """A model as it is read.

    Attributes:
        ref: of the version, or of what a training step left.
    """

    ref: str
    scorer: Scorer

    def risks(self, table: pa.Table) -> tuple[Floats, Floats]:
        """The (n, p) features of a table and their (n,) risks."""
        x = matrix.features(table, self.scorer.names)
        return x, self.scorer.risk(x)


def model_of(work: Work, permit: Permit, name: str, *, released: bool = False) -> Model:
    """The model of a ref, of a version's ARN, or of ``GROUP/VERSION``; needs ``models:read``, ``rows:read``.

    A model that a training step left is one that nobody decided on yet: it may be looked at as any other.

    Args:
        released: a registered version must be approved.

    Raises:
        Conflict: ``models.not_approved``. NotFound: ``models.no_such_version``.
        Unsupported: ``pipelines.unsupported``: of a kind that is not asked about rows.
    """
    if name.startswith("artifact:"):
        noun = work.noun(permit, name)
        wanted = [file for file in noun.body["files"] if file.startswith("model") and file != "model.onnx"]
        made = Model(noun.ref, read({file: work.read(permit, noun.ref, file) for file in wanted}))
    else:
        package = work.platform.model_packages.find(permit, name)
        if released or package.state == REJECTED:
            files = work.platform.registry.released(permit, package.ref)
        else:
            files = work.platform.registry.files(permit, package.ref)
        made = Model(package.ref, files.scorer)
    if made.scorer.description.kind not in _SCORED:
        raise Unsupported(
            "pipelines.unsupported",
            f"Only models of the kinds {', '.join(_SCORED)} are asked about rows here.",
        )
    return made


@dataclass(frozen=True)
class Table:
    """A table of rows.

    Attributes:
        noun: what it was read from.
        table: the rows that are looked at.
    """

    noun: Noun
    table: pa.Table

    @property
    def features(self) -> Sequence[str]:
        """Names of the columns that are features."""
        return [name for name in self.noun.body.get("features", ()) if name in self.table.column_names]

    def column(self, name: str) -> pa.ChunkedArray:
        """A column; `Invalid` ``pipelines.no_column``."""
        if name not in self.table.column_names:
            raise Invalid(
                "pipelines.no_column", f"The table has no column {name[:64]}, which the step names; look at both."
            )
        return self.table.column(name)


def table_of(work: Work, permit: Permit, name: str, part: str = "") -> Table:
    """The rows of an input; needs ``features:read``, ``rows:read``.

    Args:
        part: ``train``, ``calibration`` or ``test`` where rows were shared out; "" for all.
    """
    noun = work.noun(permit, work.ref(name))
    table = parquet.read(permit, work.platform.vault, noun)
    if part and SET in table.column_names:
        table = table.filter(pc.equal(table.column(SET), part))
    return Table(noun, table)


def outcomes(column: pa.ChunkedArray, positive: Sequence[Any] = ()) -> tuple[Mask, Mask]:
    """Whether each row has the outcome, and whether that is known.

    Args:
        positive: values that mean the outcome; by default truth, or what is not 0.
    """
    known = np.asarray(column.is_valid().to_numpy(zero_copy_only=False), dtype=np.bool_)
    wanted = {_word(one) for one in positive}
    found = [one is not None and (_word(one) in wanted if wanted else one not in _NONE) for one in column.to_pylist()]
    return np.asarray(found, dtype=np.bool_), known


def _word(value: Any) -> str:
    """A value as it is compared: true is 1, and so is 1.0."""
    whole = isinstance(value, bool) or (isinstance(value, float) and value.is_integer())
    return str(int(value)) if whole else str(value)


def owners(table: pa.Table) -> Any:
    """(n,) a number per patient; where the table names none, each row is somebody."""
    if _SUBJECT not in table.column_names:
        return np.arange(len(table), dtype=np.int64)
    codes = table.column(_SUBJECT).combine_chunks().dictionary_encode().indices
    return np.asarray(codes.to_numpy(zero_copy_only=False), dtype=np.int64)
