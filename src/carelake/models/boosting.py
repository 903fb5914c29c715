"""Gradient boosting by LightGBM, the same bits on every run; its text is read only after it was checked.

LightGBM's own reader trusts its input: a child index out of range would read memory that is not the model's. So the
structure is checked here first (https://lightgbm.readthedocs.io/en/stable/ text model, ``version=v4``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import lightgbm as lgb
import numpy as np

from carelake.core.errors import Corrupt
from carelake.models.matrix import Floats, Mask

__all__ = ["PARAMETERS", "Booster", "check_text", "fit", "fit_stopping", "parse"]


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
MAX_ROUNDS = 1_500
_MAX_TEXT = 32 * 1024 * 1024
_MAX_TREES = 5_000
_MAX_LEAVES = 1_024


def _data(x: Floats, y: Mask) -> Any:
    binning = {name: PARAMETERS[name] for name in ("max_bin", "num_threads", "verbosity", "force_row_wise")}
    return lgb.Dataset(x, y.astype(np.float64), params=binning)


def fit(x: Floats, y: Mask, rounds: int) -> Booster:
    """Grow ``rounds`` trees on all rows."""
    booster: Booster = lgb.train(dict(PARAMETERS), _data(x, y), rounds)
    return booster


def fit_stopping(x: Floats, y: Mask, held_x: Floats, held_y: Mask, patience: int = 40) -> tuple[Booster, int]:
    """Grow until the log loss of held-out rows has not improved for ``patience`` trees.

    Returns:
        The booster, cut at its best, and the number of its trees.
    """
    data = _data(x, y)
    held = data.create_valid(held_x, held_y.astype(np.float64))
    stop = lgb.early_stopping(patience, verbose=False)
    booster = lgb.train(dict(PARAMETERS), data, MAX_ROUNDS, valid_sets=[held], callbacks=[stop])
    return booster, max(1, int(booster.best_iteration))


def parse(text: str, features: int) -> Booster:
    """Read a checked text model.

    Raises:
        Corrupt: ``models.format``.
    """
    check_text(text, features)
    booster: Booster = lgb.Booster(model_str=text)
    return booster


def _bad(what: str) -> Corrupt:
    return Corrupt("models.format", f"The model text is not a sound LightGBM v4 model: {what}; register it again.")


def check_text(text: str, features: int) -> None:
    """Let pass a bounded binary-objective model over ``features`` columns whose trees are well-formed.

    Raises:
        Corrupt: ``models.format``.
    """
    if len(text) > _MAX_TEXT:
        raise _bad("it is too long")
    head, *trees = text.split("\nTree=")
    fields = _fields(head)
    if not head.startswith("tree\nversion=v4\n") or fields.get("objective") != "binary sigmoid:1":
        raise _bad("its header is not that of a binary classifier")
    if fields.get("max_feature_idx") != str(features - 1) or fields.get("num_class") != "1":
        raise _bad("it has another number of features or classes")
    if not 0 < len(trees) <= _MAX_TREES:
        raise _bad("it has no trees, or too many")
    for tree in trees:
        _check_tree(_fields(tree.split("\nend of trees")[0]), features)


def _fields(block: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in block.split("\n") if "=" in line)


def _check_tree(tree: Mapping[str, str], features: int) -> None:
    try:
        leaves = int(tree["num_leaves"])
        if not 1 <= leaves <= _MAX_LEAVES or tree["num_cat"] != "0" or tree.get("is_linear", "0") != "0":
            raise _bad("a tree has a shape that is not used here")
        _numbers(tree, "leaf_value", leaves, float)
        if leaves == 1:
            return
        _within(_numbers(tree, "split_feature", leaves - 1, int), 0, features - 1)
        _numbers(tree, "threshold", leaves - 1, float)
        _numbers(tree, "decision_type", leaves - 1, int)
        left, right = (_numbers(tree, side, leaves - 1, int) for side in ("left_child", "right_child"))
    except (KeyError, ValueError):
        raise _bad("a tree lacks a field or holds no number where one belongs") from None
    children = sorted([*left, *right])
    # Each node but the root, and each leaf (written as its complement), is the child of exactly one node.
    if children != list(range(-leaves, 0)) + list(range(1, leaves - 1)):
        raise _bad("the branches of a tree do not fit together")
    if any(child > 0 and child <= node for side in (left, right) for node, child in enumerate(side)):
        raise _bad("a tree runs in a circle")


def _numbers(tree: Mapping[str, str], name: str, count: int, kind: type[int] | type[float]) -> list[Any]:
    values = [kind(word) for word in tree[name].split()]
    if len(values) != count:
        raise ValueError(name)
    return values


def _within(values: list[int], low: int, high: int) -> None:
    if any(not low <= value <= high for value in values):
        raise _bad("a tree splits on a feature that there is not")
