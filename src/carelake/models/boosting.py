"""Gradient boosting by LightGBM, the same bits on every run; its text is read only after it was checked.

LightGBM's own reader trusts its input: a child index out of range would read memory that is not the model's. So the
structure is checked here first (https://lightgbm.readthedocs.io/en/stable/ text model, ``version=v4``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any, Protocol

import numpy as np

from carelake.core.errors import Corrupt
from carelake.models.matrix import Floats, Mask

__all__ = ["BINARY", "PARAMETERS", "Booster", "Parameters", "check_text", "fit", "fit_stopping", "parse", "text_of"]


Parameters = Mapping[str, Any]


@cache
def _lgb() -> Any:
    """LightGBM, which takes half a second to import: not where a model is only read and checked, as to deploy it."""
    import lightgbm

    return lightgbm


class Booster(Protocol):
    """What is used of `lightgbm.Booster`, which carries no types."""

    def predict(self, data: Floats, **options: Any) -> Any:
        """Scores, or with ``pred_contrib`` what each feature adds, and the expected score in the last column."""
        ...

    def model_to_string(self) -> str:
        """The text model."""
        ...


# One thread: on tables of this size a second one gains little on an idle machine, costs five times the time on a busy
# one (its threads wait for each other at every split), and would make the bits depend on how many there are.
PARAMETERS: Mapping[str, Any] = {
    "objective": "binary",
    "learning_rate": 0.04,
    "num_leaves": 6,
    "min_data_in_leaf": 80,
    "feature_fraction": 0.3,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "lambda_l2": 10.0,
    "max_bin": 63,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "seed": 20260101,
    "verbosity": -1,
}
BINARY = "binary sigmoid:1"
"""The objective of risks, as a text model's header names it."""
MAX_ROUNDS = 1_500
_THRESHOLDS = re.compile(r"(?m)^threshold=(.+)$")
_MAX_TEXT = 32 * 1024 * 1024
_MAX_TREES = 5_000
_MAX_LEAVES = 1_024
_OF_LEAVES = frozenset({"leaf_value", "leaf_weight", "leaf_count"})
_OF_SPLITS = frozenset(
    {"split_feature", "split_gain", "threshold", "decision_type", "left_child", "right_child"}
    | {"internal_value", "internal_weight", "internal_count"}
)


def _data(x: Floats, y: Floats | Mask, parameters: Parameters) -> Any:
    names = ("max_bin", "min_data_in_bin", "num_threads", "verbosity", "force_row_wise")
    binning = {name: parameters[name] for name in names if name in parameters}
    return _lgb().Dataset(x, y.astype(np.float64), params=binning)


def fit(x: Floats, y: Floats | Mask, rounds: int, parameters: Parameters | None = None) -> Booster:
    """Grow ``rounds`` trees on all rows.

    Args:
        parameters: LightGBM's, where they differ from `PARAMETERS`.
    """
    asked = {**PARAMETERS, **(parameters or {})}
    booster: Booster = _lgb().train(asked, _data(x, y, asked), rounds)
    return booster


def fit_stopping(
    x: Floats,
    y: Floats | Mask,
    held_x: Floats,
    held_y: Floats | Mask,
    patience: int = 40,
    parameters: Parameters | None = None,
) -> tuple[Booster, int]:
    """Grow until the loss of held-out rows has not improved for ``patience`` trees.

    Returns:
        The booster, cut at its best, and the number of its trees.
    """
    asked = {**PARAMETERS, **(parameters or {})}
    data = _data(x, y, asked)
    held = data.create_valid(held_x, held_y.astype(np.float64))
    stop = _lgb().early_stopping(patience, verbose=False)
    booster = _lgb().train(asked, data, MAX_ROUNDS, valid_sets=[held], callbacks=[stop])
    return booster, max(1, int(booster.best_iteration))


def text_of(booster: Booster) -> str:
    """The text model with thresholds that are float32.

    Inputs are float32, so the largest float32 that is not over a threshold parts them as the threshold did; and a
    runtime that holds thresholds in float32 (ONNX) parts them so, too.
    """
    head, *trees = booster.model_to_string().split("\nTree=")
    # The sizes of the trees' texts change with their digits; LightGBM does without the line, and writes it anew.
    kept = "\n".join(line for line in head.split("\n") if not line.startswith("tree_sizes="))
    text = "\nTree=".join([kept, *(_THRESHOLDS.sub(_floored, tree) for tree in trees)])
    again: Booster = _lgb().Booster(model_str=text)
    return again.model_to_string()


def _floored(line: re.Match[str]) -> str:
    values = np.asarray(line[1].split(), dtype=np.float64)
    near = values.astype(np.float32)
    down = np.where(near > values, np.nextafter(near, np.float32(-np.inf)), near)
    return "threshold=" + " ".join(f"{value:.17g}" for value in down.astype(np.float64))


def parse(text: str, features: int, objective: str = BINARY) -> Booster:
    """Read a checked text model.

    Raises:
        Corrupt: ``models.format``.
    """
    check_text(text, features, objective)
    head, mark, trees = text.partition("\nTree=")
    # With sizes that are not those of the trees its threads end the process; without the line it reads on by itself.
    kept = "\n".join(line for line in head.split("\n") if not line.startswith("tree_sizes="))
    lgb = _lgb()
    try:
        booster: Booster = lgb.Booster(model_str=kept + mark + trees)
    except lgb.basic.LightGBMError:
        raise _bad("LightGBM does not read it") from None
    return booster


def _bad(what: str) -> Corrupt:
    return Corrupt("models.format", f"The model text is not a sound LightGBM v4 model: {what}; register it again.")


def check_text(text: str, features: int, objective: str = BINARY) -> None:
    """Let pass a bounded model of that objective over ``features`` columns whose trees are well-formed.

    Raises:
        Corrupt: ``models.format``.
    """
    if len(text) > _MAX_TEXT:
        raise _bad("it is too long")
    head, *trees = text.split("\nTree=")
    fields = _fields(head)
    if not head.startswith("tree\nversion=v4\n") or fields.get("objective") != objective:
        raise _bad("its header is not that of the objective it was trained for")
    if fields.get("max_feature_idx") != str(features - 1) or fields.get("num_class") != "1":
        raise _bad("it has another number of features or classes")
    if not 0 < len(trees) <= _MAX_TREES:
        raise _bad("it has no trees, or too many")
    for number, tree in enumerate(trees):
        # The number stands where the block was cut; whatever follows the last tree is no tree's.
        own, _, after = tree.partition("\nend of trees")
        if own.split("\n", 1)[0] != str(number) or (after and number != len(trees) - 1):
            raise _bad("its trees are not in order")
        _check_tree(_fields(own), features)


def _fields(block: str) -> dict[str, str]:
    lines = [line.split("=", 1) for line in block.split("\n") if "=" in line]
    found = {line[0]: line[1] for line in lines}
    if len(found) != len(lines):
        raise _bad("a field is there twice")
    return found


def _check_tree(tree: Mapping[str, str], features: int) -> None:
    try:
        leaves = int(tree["num_leaves"])
        if not set(tree) <= {*_OF_LEAVES, *_OF_SPLITS, "num_leaves", "num_cat", "is_linear", "shrinkage"}:
            raise _bad("a tree has a field that is not used here")
        for name in _OF_LEAVES & set(tree):
            _numbers(tree, name, leaves, float, empty=leaves == 1)
        for name in _OF_SPLITS & set(tree):
            _numbers(tree, name, leaves - 1, float, empty=leaves == 1)
        if not 1 <= leaves <= _MAX_LEAVES or tree["num_cat"] != "0" or tree.get("is_linear", "0") != "0":
            raise _bad("a tree has a shape that is not used here")
        _numbers(tree, "leaf_value", leaves, float)
        if leaves == 1:
            return
        _within(_numbers(tree, "split_feature", leaves - 1, int), 0, features - 1)
        _numbers(tree, "threshold", leaves - 1, float)
        # Bit 1 would be a category's, whose table there is not; bits 4 and 8 are three ways of missing values.
        if any(kind & 1 or not 0 <= kind <= 11 for kind in _numbers(tree, "decision_type", leaves - 1, int)):
            raise _bad("a tree splits in a way that is not used here")
        left, right = (_numbers(tree, side, leaves - 1, int) for side in ("left_child", "right_child"))
    except (KeyError, ValueError):
        raise _bad("a tree lacks a field or holds no number where one belongs") from None
    children = sorted([*left, *right])
    # Each node but the root, and each leaf (written as its complement), is the child of exactly one node.
    if children != list(range(-leaves, 0)) + list(range(1, leaves - 1)):
        raise _bad("the branches of a tree do not fit together")
    if any(child > 0 and child <= node for side in (left, right) for node, child in enumerate(side)):
        raise _bad("a tree runs in a circle")


def _numbers(
    tree: Mapping[str, str], name: str, count: int, kind: type[int] | type[float], *, empty: bool = False
) -> list[Any]:
    values = [kind(word) for word in tree[name].split()]
    if len(values) != count and not (empty and len(values) <= 1):
        raise ValueError(name)
    return values


def _within(values: list[int], low: int, high: int) -> None:
    if any(not low <= value <= high for value in values):
        raise _bad("a tree splits on a feature that there is not")
