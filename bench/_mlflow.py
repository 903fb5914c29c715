"""The peer's side of `serving.py`, run by the interpreter of MLflow's own environment.

    python _mlflow.py TEXT FOLDER named|matrix

saves the LightGBM text as an MLflow model, with a signature of named columns or without one.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Save the model."""
    import lightgbm
    import mlflow.lightgbm
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    booster = lightgbm.Booster(model_file=sys.argv[1])
    columns = [ColSpec("double", name, required=False) for name in booster.feature_name()]
    signature = ModelSignature(Schema(columns)) if sys.argv[3] == "named" else None
    mlflow.lightgbm.save_model(booster, sys.argv[2], signature=signature)


if __name__ == "__main__":
    main()
