"""LightGBM's text is read bit-exactly, and only when it is sound."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carelake.core.errors import Corrupt
from carelake.models import boosting
from carelake.models.scorer import Scorer


def test_a_reloaded_text_scores_to_the_last_bit(scorer: Scorer, cohort: tuple) -> None:
    x = cohort[0].x[:3_000]
    again = boosting.parse(scorer.text, len(scorer.names))
    assert np.array_equal(again.predict(x, raw_score=True), scorer._booster.predict(x, raw_score=True))
    assert again.model_to_string() == scorer.text


@pytest.mark.parametrize(
    ("pattern", "instead"),
    [
        (r"left_child=\S+", "left_child=99999"),
        (r"right_child=\S+", "right_child=-99"),
        (r"left_child=\S+", "left_child=0"),
        (r"split_feature=\S+", "split_feature=20"),
        (r"split_feature=\S+", "split_feature=-1"),
        (r"num_leaves=\d+", "num_leaves=1000000000"),
        (r"num_leaves=\d+", "num_leaves=4"),
        (r"num_cat=0", "num_cat=1"),
        (r"is_linear=0", "is_linear=1"),
        (r"leaf_value=\S+", "leaf_value=x"),
        (r"version=v4", "version=v3"),
        (r"objective=binary sigmoid:1", "objective=binary sigmoid:2"),
        (r"max_feature_idx=\d+", "max_feature_idx=99"),
        (r"threshold=\S+ ", "threshold="),
        (r"(?s)Tree=0.*", ""),
    ],
)
def test_an_unsound_text_is_refused_before_lightgbm_sees_it(scorer: Scorer, pattern: str, instead: str) -> None:
    broken = re.sub(pattern, instead, scorer.text, count=1)
    assert broken != scorer.text
    with pytest.raises(Corrupt) as caught:
        boosting.parse(broken, len(scorer.names))
    assert caught.value.code == "models.format"


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_refused_in_good_order(text: str) -> None:
    with pytest.raises(Corrupt):
        boosting.check_text("tree\nversion=v4\n" + text, 3)


def test_a_circle_in_a_tree_is_found(scorer: Scorer) -> None:
    tree = {"num_leaves": "3", "num_cat": "0", "split_feature": "0 1", "threshold": "1 2", "decision_type": "2 2"}
    tree |= {"leaf_value": "1 2 3", "left_child": "-1 1", "right_child": "-2 -3"}
    with pytest.raises(Corrupt):
        boosting._check_tree(tree, 2)
