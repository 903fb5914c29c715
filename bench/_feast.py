"""The peer's side of `asof.py`, run by the interpreter of Feast's own environment; nothing of carelake is imported.

It reads what to do as JSON on stdin and tells what it measured as a line of JSON on stdout.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

os.environ["FEAST_USAGE"] = "False"


def _store(folder: Path, kind: str, rows: str, features: list[str]) -> Any:
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig
    from feast.types import Float64
    from feast.value_type import ValueType

    store = FeatureStore(
        config=RepoConfig(
            project="bench", provider="local", registry=str(folder / f"{kind}.db"),
            online_store={"type": "sqlite", "path": str(folder / f"{kind}.online")}, offline_store={"type": kind},
            entity_key_serialization_version=3,
        )
    )  # fmt: skip
    patient = Entity(name="patient", join_keys=["subject_id"], value_type=ValueType.STRING)
    source = FileSource(path=rows, timestamp_field="event_time", created_timestamp_column="write_time")
    view = FeatureView(
        name="g", entities=[patient], ttl=timedelta(days=36500), source=source,
        schema=[Field(name=one, dtype=Float64) for one in features],
    )  # fmt: skip
    store.apply([patient, view])
    return store


def _asked(store: Any, labels: Any, features: list[str], **more: Any) -> Any:
    return store.get_historical_features(entity_df=labels, features=[f"g:{one}" for one in features], **more).to_df()


def _timed(folder: Path, kind: str, asked: dict[str, Any]) -> dict[str, Any]:
    import pandas as pd

    store = _store(folder, kind, asked["rows"], asked["features"])
    labels = pd.read_parquet(asked["labels"]).rename(columns={"prediction_time": "event_timestamp"})
    began = time.perf_counter()
    found = _asked(store, labels, asked["features"])
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": round(seconds, 3), "labels": len(labels), "rows": len(found), "peak_rss": peak}


def _six(folder: Path, kind: str, asked: dict[str, Any]) -> dict[str, Any]:
    import pandas as pd

    store = _store(folder, kind, asked["six_rows"], ["value"])
    labels = pd.read_parquet(asked["six_labels"]).rename(columns={"prediction_time": "event_timestamp"})
    told: dict[str, Any] = {}
    for name, more in (("default", {}), ("told_to_look_at_creation", {"filter_by_created_timestamp": True})):
        with contextlib.suppress(TypeError):
            found = _asked(store, labels, ["value"], **more)
            late = found[found["subject_id"] == "late"]["value"]
            told[name] = {
                "labels": len(labels),
                "rows": len(found),
                "value_from_the_future": bool(late.notna().any()),
            }
    return told


def main() -> None:
    """One store kind: the large join, and the six labels."""
    asked = json.load(sys.stdin)
    told: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place, contextlib.redirect_stdout(sys.stderr):
        folder = Path(place)
        import feast

        told["version"] = feast.__version__
        told["six_labels"] = _six(folder, asked["kind"], asked)
        (folder / "large").mkdir()
        told.update(_timed(folder / "large", asked["kind"], asked))
    print(json.dumps(told))


if __name__ == "__main__":
    main()
