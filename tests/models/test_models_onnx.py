"""ONNX is a derivative that says what the native model says, to the last branch, or it is refused with figures."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from carelake.core.errors import Refused, Unsupported
from carelake.models.calibrate import Curve
from carelake.models.matrix import Rows
from carelake.models.onnx import graph, parity, safety
from carelake.models.registry import Registry
from carelake.models.scorer import Scorer

TRAINING_SET = "trainingset:" + "0" * 64


@pytest.fixture(scope="module")
def made(scorer: Scorer, cohort: tuple[Rows, np.ndarray]) -> dict[str, bytes]:
    return parity.derived(scorer, cohort[0].x)


def test_it_says_the_same_on_the_training_rows_and_at_every_edge(made: dict[str, bytes], scorer: Scorer) -> None:
    told = parity.claimed(made["parity.json"])
    assert told is not None
    assert told.holds
    assert told.largest < 1e-12
    report = msgspec.json.decode(made["parity.json"])
    edges = sum(len(values) for values in graph.thresholds(scorer))
    assert edges > 100
    assert report["boundary_rows"] > 2 * edges
    assert report["sample_rows"] == 8_000
    assert graph.build(scorer) == made["model.onnx"]


def test_the_rows_at_the_edges_are_below_at_and_above_each_threshold(scorer: Scorer) -> None:
    rows = parity.boundary_rows(scorer)
    for at, values in enumerate(graph.thresholds(scorer)):
        there = np.unique(rows[:, at])
        for value in np.float32(values):
            around = [np.nextafter(value, np.float32(-np.inf)), value, np.nextafter(value, np.float32(np.inf))]
            assert np.isin(np.asarray(around, dtype=np.float64), there).all()
        assert np.isnan(rows[:, at]).any()


@pytest.mark.parametrize("points", [([-2.0, -1.0, 0.5, 2.0], [-2.5, -1.0, -0.2, 1.0]), ([0.3], [0.1])])
def test_an_isotonic_calibration_is_said_too(scorer: Scorer, points: tuple[list[float], list[float]]) -> None:
    bent = Scorer(scorer.text, msgspec.structs.replace(scorer.description, isotonic=Curve(*points)))
    assert parity.claimed(parity.derived(bent)["parity.json"]).holds


def test_a_logistic_model_alone_has_no_trees_to_say(scorer: Scorer) -> None:
    alone = msgspec.structs.replace(scorer.description, kind="logistic", stack=(0.1, 1.0, 0.0))
    made = parity.derived(Scorer("", alone))
    assert "TreeEnsemble" not in {node.op_type for node in onnx.load_from_string(made["model.onnx"]).graph.node}


def _decisions(text: str, kind: int) -> str:
    """The text with the first split of each tree of that kind."""
    return re.sub(r"(?m)^decision_type=\d+", f"decision_type={kind}", text)


def test_each_way_of_missing_values_is_walked_as_lightgbm_walks_it(scorer: Scorer) -> None:
    for kind in (0, 2, 8, 10):
        changed = Scorer(_decisions(scorer.text, kind), scorer.description)
        assert parity.claimed(parity.derived(changed)["parity.json"]).holds
    with pytest.raises(Unsupported):
        graph.build(Scorer(_decisions(scorer.text, 4), scorer.description))


def test_what_differs_by_one_threshold_is_refused_with_figures(scorer: Scorer, made: dict[str, bytes]) -> None:
    # As a converter does that rounds a threshold: one ulp of float32 off.
    model = onnx.load_from_string(made["model.onnx"])
    [trees] = [node for node in model.graph.node if node.op_type == "TreeEnsemble"]
    [splits] = [one for one in trees.attribute if one.name == "nodes_splits"]
    values = onnx.numpy_helper.to_array(splits.t).copy()
    values[0] = np.nextafter(np.float32(values[0]), np.float32(np.inf))
    splits.t.CopyFrom(onnx.numpy_helper.from_array(values, splits.t.name))
    with pytest.raises(Refused) as caught:
        parity.refuse_unequal(scorer, model.SerializeToString(), made["parity.json"])
    assert caught.value.code == "models.parity"
    assert caught.value.facts["over"] > 0
    assert caught.value.facts["largest"] > parity.TOLERANCE


def _external(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "/etc/passwd"


def _operator(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type = "Loop"


def _domain(model: onnx.ModelProto) -> None:
    model.graph.node[0].domain = "com.microsoft"


def _function(model: onnx.ModelProto) -> None:
    told = helper.make_function("f", "f", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [])
    model.functions.append(told)


def _inputs(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("other", TensorProto.FLOAT, [1]))


def _inner(model: onnx.ModelProto) -> None:
    model.graph.node[0].attribute.append(helper.make_attribute("body", model.graph))


@pytest.mark.parametrize("change", [_external, _operator, _domain, _function, _inputs, _inner])
def test_what_could_reach_beyond_the_model_is_not_let_to_the_runtime(
    made: dict[str, bytes], change: Callable[[onnx.ModelProto], None]
) -> None:
    model = onnx.load_from_string(made["model.onnx"])
    change(model)
    with pytest.raises(Refused) as caught:
        safety.opened(model.SerializeToString())
    assert caught.value.code == "models.onnx_unsafe"


@pytest.mark.parametrize("data", [b"", b"\x80\x04pickle", b"\x08\n\xff\xff\xff", b"\x08\x0a"])
def test_what_is_no_onnx_is_refused(data: bytes) -> None:
    with pytest.raises(Refused):
        safety.opened(data)


def test_a_version_with_onnx_is_held_against_it_when_registered(
    registry: Registry, permit_for: Callable, files: dict, made: dict[str, bytes], scorer: Scorer
) -> None:
    author = permit_for("models:read", "models:write", "rows:read", "rows:write", principal="pipeline")
    reviewer = permit_for("models:read", "models:approve", "rows:read", "rows:write", principal="reviewer")
    noun = registry.register(author, "readmission", TRAINING_SET, {**files, **made})
    assert set(registry.files(author, noun.ref).extra) == {"model.onnx", "parity.json"}
    found = {one.name: one for one in registry.evidence(author, noun.ref)}
    assert found["ONNX parity"].ok
    registry.approve(reviewer, noun.ref)
    other = msgspec.structs.replace(scorer.description, platt=(0.01, 1.0))
    lies = {**files, "model.onnx": graph.build(Scorer(scorer.text, other)), "parity.json": made["parity.json"]}
    for bad in (lies, {**files, "model.onnx": made["model.onnx"]}):
        with pytest.raises(Refused) as caught:
            registry.register(author, "readmission", TRAINING_SET, bad)
        assert caught.value.code == "models.parity"


def test_a_claim_holds_only_within_the_tolerance() -> None:
    told = parity.Compared(0.0, 10, 0)
    assert told.holds
    for bad in (replace(told, largest=1e-3), replace(told, over=1), replace(told, rows=0)):
        assert not bad.holds
    assert parity.claimed(b"[" * 100_000) is None
    assert parity.claimed(b"{}") is None
