"""One small hospital, made once with two processes, for all tests of the room."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq
import pytest

from carelake import synth

PATIENTS, SEED = 2000, 20


@dataclass
class Hospital:
    """A generated folder and readings of it."""

    root: Path
    summary: synth.Summary
    seconds: float
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def truth(self, name: str) -> list[dict[str, Any]]:
        if name not in self.tables:
            self.tables[name] = pq.read_table(self.root / "truth" / f"{name}.parquet").to_pylist()
        return self.tables[name]

    def resources(self, *files: str, kind: str = "") -> list[dict[str, Any]]:
        """The resources of some files, or of all; of one type, or of all types."""
        names = files or [path.stem for path in self.summary.files]
        head = f'{{"resourceType":"{kind}'.encode()
        return [msgspec.json.decode(line) for name in names for line in self.lines(name) if line.startswith(head)]

    def lines(self, name: str) -> list[bytes]:
        return (self.root / "fhir" / f"{name}.ndjson").read_bytes().splitlines()


@pytest.fixture(scope="session")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Hospital]:
    def make(**arguments: Any) -> Hospital:
        root = arguments.pop("out", None) or tmp_path_factory.mktemp("hospital") / "out"
        before = time.perf_counter()
        summary = synth.generate(root, **{"patients": 500, "seed": SEED, "workers": 1, **arguments})
        return Hospital(root, summary, time.perf_counter() - before)

    return make


@pytest.fixture(scope="session")
def hospital(generated: Callable[..., Hospital]) -> Hospital:
    return generated(patients=PATIENTS, workers=2)


@pytest.fixture(scope="session")
def first_chunk(hospital: Hospital) -> list[dict[str, Any]]:
    return hospital.resources("0000", "0001")
