"""A risk model written as ONNX, all in double: the logistic part, the trees, the stack and the calibration.

The trees are one ``TreeEnsemble`` node (ai.onnx.ml 5), whose thresholds and leaves are doubles; the older
``TreeEnsembleRegressor``, which converters write, holds them in float32, and a row that lies between a threshold and
its float32 takes another branch. Inputs are float32, as `matrix.features` rounds them.
https://onnx.ai/onnx/operators/onnx_aionnxml_TreeEnsemble.html
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from carelake.core.errors import Unavailable, Unsupported
from carelake.models.scorer import RISKS, Scorer

__all__ = ["INPUT", "OUTPUT", "build", "library", "thresholds"]

INPUT, OUTPUT = "features", "probability"
_OPSETS = (("", 20), ("ai.onnx.ml", 5))
_IR = 10
_CLIP, _REACH = 5.0, 35.0  # as in `logistic`
_LEQ = 0
_ZERO = float(np.float32(1e-35))
"""What is not larger than this LightGBM takes for zero before it asks any tree (``kZeroThreshold``)."""
_MISSING_NONE, _MISSING_NAN = 0, 2


def library() -> Any:
    """The module ``onnx``.

    Raises:
        Unavailable: ``models.no_onnx``.
    """
    try:
        import onnx
        import onnx.helper
        import onnx.numpy_helper
    except ImportError:
        raise Unavailable(
            "models.no_onnx", "ONNX needs packages that are not installed: pip install 'carelake[onnx]'."
        ) from None
    return onnx


@dataclass
class _Trees:
    """The attributes of the node; leaves and branches are numbered through all trees."""

    splits: list[float] = field(default_factory=list)
    features: list[int] = field(default_factory=list)
    missing: list[int] = field(default_factory=list)
    true_ids: list[int] = field(default_factory=list)
    false_ids: list[int] = field(default_factory=list)
    true_leaves: list[int] = field(default_factory=list)
    false_leaves: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    roots: list[int] = field(default_factory=list)

    def add(self, tree: Mapping[str, str]) -> None:
        """Add a tree of LightGBM's text, which `boosting.check_text` has let pass."""
        leaves = [float(word) for word in tree["leaf_value"].split()]
        first, leaf = len(self.splits), len(self.weights)
        self.roots.append(first)
        self.weights += leaves
        if len(leaves) == 1:  # both ways lead to the one leaf
            self._node(0.0, 0, 1, (leaf, 1), (leaf, 1))
            return
        columns = [tree[name].split() for name in ("threshold", "split_feature", "decision_type")]
        sides = [tree[name].split() for name in ("left_child", "right_child")]
        for threshold, feature, decision, left, right in zip(*columns, *sides, strict=True):
            ways = [(leaf + ~int(way), 1) if int(way) < 0 else (first + int(way), 0) for way in (left, right)]
            split = float(threshold)
            self._node(split, int(feature), _missing(int(decision), split), ways[0], ways[1])

    def _node(self, split: float, feature: int, missing: int, left: tuple[int, int], right: tuple[int, int]) -> None:
        self.splits.append(split)
        self.features.append(feature)
        self.missing.append(missing)
        self.true_ids.append(left[0])
        self.true_leaves.append(left[1])
        self.false_ids.append(right[0])
        self.false_leaves.append(right[1])


def _missing(decision: int, split: float) -> int:
    """Whether a missing value goes left (bits of ``decision_type``: 1 categorical, 2 default left, 12 missing)."""
    kind = (decision >> 2) & 3
    if kind == _MISSING_NAN:
        return (decision >> 1) & 1
    if kind == _MISSING_NONE:
        return int(split >= 0.0)  # LightGBM takes zero for it
    raise Unsupported("models.onnx_kind", "A tree takes zero for missing, which ONNX's node cannot say.")


def _trees(text: str) -> list[dict[str, str]]:
    blocks = text.split("\nTree=")[1:]
    return [
        dict(line.split("=", 1) for line in block.split("\nend of trees")[0].split("\n") if "=" in line)
        for block in blocks
    ]


def thresholds(scorer: Scorer) -> list[np.ndarray]:
    """Per feature, the thresholds that some tree parts it at, in order."""
    found: list[set[float]] = [set() for _ in scorer.names]
    for tree in _trees(scorer.text):
        if tree.get("num_leaves") != "1":
            for feature, split in zip(tree["split_feature"].split(), tree["threshold"].split(), strict=True):
                found[int(feature)].add(float(split))
    return [np.asarray(sorted(values), dtype=np.float64) for values in found]


def build(scorer: Scorer) -> bytes:
    """The model as ONNX: ``features`` (n, p) float32, NaN for missing, to ``probability`` (n, 1) double.

    Raises:
        Unsupported: ``models.onnx_kind``: a kind of model that is not written as ONNX.
        Unavailable: ``models.no_onnx``.
    """
    if getattr(getattr(scorer, "description", None), "kind", None) not in RISKS:
        raise Unsupported("models.onnx_kind", "This kind of model is not written as ONNX; it is served as it is.")
    onnx = library()
    graph = _Graph(onnx)
    total = graph.linear(scorer)
    base, linear, trees = scorer.description.stack
    total = graph.op("Add", graph.op("Mul", total, graph.number(linear)), graph.number(base))
    if trees != 0.0:
        total = graph.op("Add", total, graph.op("Mul", graph.trees(scorer.text), graph.number(trees)))
    intercept, slope = scorer.description.platt
    total = graph.op("Add", graph.op("Mul", total, graph.number(slope)), graph.number(intercept))
    if scorer.description.isotonic is not None:
        total = graph.curve(total, scorer.description.isotonic.x, scorer.description.isotonic.y)
    graph.op("Sigmoid", graph.op("Clip", total, graph.number(-_REACH), graph.number(_REACH)), out=OUTPUT)
    return graph.finish(len(scorer.names), scorer.description.training_set)


class _Graph:
    def __init__(self, onnx: Any) -> None:
        self._onnx = onnx
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._x = self.op("Cast", INPUT, to=onnx.TensorProto.DOUBLE)

    def op(self, kind: str, *inputs: str, out: str = "", domain: str = "", **attributes: Any) -> str:
        """Add a node; answers the name of what comes out."""
        name = out or f"v{len(self._nodes)}"
        self._nodes.append(self._onnx.helper.make_node(kind, list(inputs), [name], domain=domain, **attributes))
        return name

    def _tensor(self, values: Any, name: str) -> Any:
        return self._onnx.numpy_helper.from_array(np.asarray(values), name)

    def constant(self, values: Any) -> str:
        """A double tensor of the model."""
        name = f"c{len(self._constants)}"
        self._constants.append(self._tensor(np.asarray(values, dtype=np.float64), name))
        return name

    def number(self, value: float) -> str:
        """A double that stands for every row."""
        return self.constant(np.float64(value))

    def linear(self, scorer: Scorer) -> str:
        """The logistic part's score, (n, 1), as `logistic.Linear.score` has it."""
        told = scorer.description.linear
        absent = self.op("IsNaN", self._x)
        filled = self.op("Where", absent, self.constant([told.medians]), self._x)
        steps = self.op("Div", self.op("Sub", filled, self.constant([told.means])), self.constant([told.scales]))
        steps = self.op("Clip", steps, self.number(-_CLIP), self.number(_CLIP))
        score = self.op("MatMul", steps, self.constant([[one] for one in told.coefficients]))
        flags = self.op("Cast", absent, to=self._onnx.TensorProto.DOUBLE)
        flags = self.op("Sub", flags, self.constant([told.shares]))
        flagged = self.op("MatMul", flags, self.constant([[one] for one in told.missing]))
        return self.op("Add", self.op("Add", score, flagged), self.number(told.intercept))

    def trees(self, text: str) -> str:
        """The trees' score, (n, 1)."""
        said = _Trees()
        for tree in _trees(text):
            said.add(tree)
        tiny = self.op("LessOrEqual", self.op("Abs", self._x), self.number(_ZERO))
        return self.op(
            "TreeEnsemble",
            self.op("Where", tiny, self.number(0.0), self._x),
            domain="ai.onnx.ml",
            aggregate_function=1,
            leaf_targetids=[0] * len(said.weights),
            leaf_weights=self._tensor(np.asarray(said.weights, dtype=np.float64), "leaves"),
            n_targets=1,
            nodes_falseleafs=said.false_leaves,
            nodes_falsenodeids=said.false_ids,
            nodes_featureids=said.features,
            nodes_missing_value_tracks_true=said.missing,
            nodes_modes=self._tensor(np.full(len(said.splits), _LEQ, dtype=np.uint8), "modes"),
            nodes_splits=self._tensor(np.asarray(said.splits, dtype=np.float64), "splits"),
            nodes_trueleafs=said.true_leaves,
            nodes_truenodeids=said.true_ids,
            post_transform=0,
            tree_roots=said.roots,
        )

    def curve(self, score: str, x: list[float], y: list[float]) -> str:
        """A piecewise-linear map through (x, y), of slope 1 beyond its ends: a sum of clipped pieces."""
        inside = self.op("Clip", score, self.number(x[0]), self.number(x[-1]))
        beyond = self.op("Sub", score, inside)
        if len(x) == 1:
            return self.op("Add", beyond, self.number(y[0]))
        widths = np.diff(np.asarray(x))
        way = self.op("Sub", inside, self.constant([x[:-1]]))
        way = self.op("Min", self.op("Max", way, self.number(0.0)), self.constant([widths]))
        risen = self.op("MatMul", way, self.constant((np.diff(np.asarray(y)) / widths)[:, None]))
        return self.op("Add", self.op("Add", risen, self.number(y[0])), beyond)

    def finish(self, features: int, training_set: str) -> bytes:
        """The model's bytes; the same for the same model."""
        helper, kinds = self._onnx.helper, self._onnx.TensorProto
        takes = helper.make_tensor_value_info(INPUT, kinds.FLOAT, [None, features])
        gives = helper.make_tensor_value_info(OUTPUT, kinds.DOUBLE, [None, 1])
        graph = helper.make_graph(self._nodes, "risk", [takes], [gives], self._constants)
        opsets = [helper.make_opsetid(domain, version) for domain, version in _OPSETS]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR, producer_name="carelake")
        model.doc_string = f"Derived of a signed native model; training set {training_set}."
        self._onnx.checker.check_model(model)
        data: bytes = model.SerializeToString(deterministic=True)
        return data
