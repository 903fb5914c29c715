"""The peer's side of `registry.py`, run by the interpreter of MLflow's own environment.

python _mlflow_registry.py TEXT FOLDER TIMES    registers the LightGBM text so often; tells the seconds as JSON
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path


def main() -> None:
    """Register, set an alias, load."""
    import lightgbm
    import mlflow
    import mlflow.lightgbm

    text, folder, times = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    mlflow.set_experiment(experiment_id=mlflow.create_experiment("bench", f"file://{folder}/artifacts"))
    booster = lightgbm.Booster(model_file=text)
    client = mlflow.MlflowClient()
    seconds, aliases, loads = [], [], []
    for number in range(times):
        began = time.perf_counter()
        with mlflow.start_run():
            mlflow.log_metrics({"auroc": 0.7 + number / 1000, "brier": 0.1})
            mlflow.lightgbm.log_model(booster, name="model", registered_model_name="readmission")
        seconds.append(time.perf_counter() - began)
        began = time.perf_counter()
        client.set_registered_model_alias("readmission", "champion", number + 1)
        aliases.append(time.perf_counter() - began)
        began = time.perf_counter()
        mlflow.lightgbm.load_model("models:/readmission@champion")
        loads.append(time.perf_counter() - began)
    print(json.dumps({"register": seconds, "approve": aliases, "load": loads, "version": mlflow.__version__}))


if __name__ == "__main__":
    main()
