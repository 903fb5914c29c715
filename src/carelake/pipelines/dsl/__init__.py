"""Pipelines in Python, written out as SageMaker Pipelines JSON; the same JSON runs here and can be sent to SageMaker.

rate = Parameter("LearningRate", "Float", 0.05)
rows = Processing("rows", job="features.split", inputs={"features": "featureset:…"}, outputs=["dataset"])
fit = Training("fit", job="models.train", inputs={"training": rows.output("dataset")}, settings={"rate": rate})
print(Pipeline("small", [rows, fit], [rate]).definition())
"""

from carelake.pipelines.dsl.checks import ClarifyCheck, QualityCheck
from carelake.pipelines.dsl.models import Model, Register, Training, Transform, Tuning
from carelake.pipelines.dsl.step import Machine, Retry, Step
from carelake.pipelines.dsl.steps import Callback, Condition, Fail, Function, Pipeline, Processing
from carelake.pipelines.dsl.values import (
    Parameter,
    all_of,
    at_least,
    at_most,
    equals,
    greater,
    is_in,
    is_not,
    join,
    json_get,
    less,
    one_of,
)

__all__ = [
    "Callback",
    "ClarifyCheck",
    "Condition",
    "Fail",
    "Function",
    "Machine",
    "Model",
    "Parameter",
    "Pipeline",
    "Processing",
    "QualityCheck",
    "Register",
    "Retry",
    "Step",
    "Training",
    "Transform",
    "Tuning",
    "all_of",
    "at_least",
    "at_most",
    "equals",
    "greater",
    "is_in",
    "is_not",
    "join",
    "json_get",
    "less",
    "one_of",
]
