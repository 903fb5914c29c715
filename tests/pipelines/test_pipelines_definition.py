"""Definitions are read whole: what is wrong is named with its step, what is not carried out is refused by name."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from executing import condition, of, processing, text, value
from hypothesis import given
from hypothesis import strategies as st

from carelake.core.errors import Invalid, Unsupported
from carelake.pipelines.definition.document import STEPS, parse
from carelake.pipelines.definition.durations import duration
from carelake.pipelines.definition.references import follow
from carelake.pipelines.definition.shapes import TYPES

FAIL = {"Name": "no", "Type": "Fail", "Arguments": {"ErrorMessage": "no"}}
MORE = {"Type": "GreaterThan", "LeftValue": 1, "RightValue": 0}


def test_steps_come_after_what_they_wait_for_by_word_or_by_reference() -> None:
    found = parse(
        text(
            processing("last", "test.add", inputs={"x": of("first")}, DependsOn=["middle"]),
            processing("middle"),
            processing("first"),
        )
    )
    assert found.steps["last"].waits == {"first", "middle"}
    assert list(found.steps).index("last") == 2
    assert found.upstream(frozenset({"last"})) == {"last", "middle", "first"}


def test_branches_wait_for_their_condition_and_what_it_asks_for() -> None:
    asked = condition(
        "big", [{"Type": "LessThan", "LeftValue": value("a"), "RightValue": 3}], [processing("b")], [FAIL]
    )
    found = parse(text(processing("a"), asked)).steps
    assert found["big"].waits == {"a"}
    assert found["b"].branch == ("big", True)
    assert found["no"].branch == ("big", False)


WRONG: list[tuple[Any, str]] = [
    ({"Name": "x", "Type": "EMR", "Arguments": {}}, "Step x, Type: expected one of Processing"),
    ({"Name": "x", "Type": "AutoML"}, "other types are not carried out here"),
    (processing("x", NetworkX=1), "Step x: 'NetworkX' is not carried out here"),
    ({**processing("x"), "DependsOn": ["nobody"]}, "nobody is none"),
    (processing("x", inputs={"i": {"Get": "Steps.x2.Foo"}}), "x2 is none"),
    (processing("x", number={"Get": "Parameters.P"}), "a parameter that is declared; P is not"),
    (processing("x", number={"Get": "Params.P"}), "Parameters.NAME"),
    (processing("x", number={"Get": "Execution.Nothing"}), "Execution. and one of"),
    (processing("x", number={"Std:Join": {"On": "/", "Values": [], "More": 1}}), "'More' is not carried out"),
    (processing("x", number={"Std:JsonGet": {"Path": "a"}}), "either PropertyFile or S3Uri"),
    ({**processing("x"), "CacheConfig": {"Enabled": True, "ExpireAfter": "P1M"}}, "ISO 8601 duration"),
    ({**processing("x"), "RetryPolicies": [{"ExceptionType": ["Any"], "MaxAttempts": 1}]}, "some of Step.SERVICE"),
    ({**processing("x"), "RetryPolicies": [{"ExceptionType": ["Step.THROTTLING"]}]}, "either MaxAttempts or"),
    (
        {**processing("x"), "PropertyFiles": [{"PropertyFileName": "A", "OutputName": "b", "FilePath": "c"}]},
        "OutputName",
    ),
    ({"Name": "x y", "Type": "Fail", "Arguments": {"ErrorMessage": "n"}}, "a name of letters"),
    ({"Name": "x", "Type": "Fail", "Arguments": {}}, "a value for ErrorMessage"),
    (condition("x", [{"Type": "Like", "LeftValue": 1, "RightValue": 1}]), "one of Equals"),
    (condition("x", [{"Type": "Equals", "LeftValue": 1}]), "a value for RightValue"),
    ({"Name": "x", "Type": "Processing", "Arguments": {"AppSpecification": {"ImageUri": "i"}}}, "carelake-job"),
]


@pytest.mark.parametrize(("step", "said"), WRONG, ids=range(len(WRONG)))
def test_what_is_wrong_is_named_with_its_step(step: Any, said: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse(text(step))
    assert said in caught.value.message
    assert "x" in caught.value.message


def test_what_sagemaker_has_and_this_has_not_is_refused_by_name() -> None:
    step = processing("far")
    for name in ("NetworkConfig", "Anything"):
        said = {**step, "Arguments": {**step["Arguments"], name: {"EnableNetworkIsolation": True}}}
        with pytest.raises(Unsupported, match=name):
            parse(text(said))
    cluster = {"ClusterConfig": {"InstanceCount": 3, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 1}}
    many = {**step, "Arguments": {**step["Arguments"], "ProcessingResources": cluster}}
    with pytest.raises(Invalid, match="one process"):
        parse(text(many))


def test_circles_and_doubles_and_too_many() -> None:
    with pytest.raises(Invalid) as caught:
        parse(text({**processing("a"), "DependsOn": ["b"]}, {**processing("b"), "DependsOn": ["a"]}))
    assert caught.value.code == "pipelines.cycle"
    with pytest.raises(Invalid, match="no other step has"):
        parse(text(processing("a"), condition("c", [MORE], [processing("a")])))
    with pytest.raises(Invalid, match=f"1 to {STEPS}"):
        parse(text(*(processing(f"s{n}") for n in range(STEPS + 1))))
    with pytest.raises(Invalid, match="characters"):
        parse(" " * 1_048_577)


def test_every_type_of_the_issue_is_known() -> None:
    wanted = {"Processing", "Training", "Tuning", "Transform", "Condition", "RegisterModel", "QualityCheck"}
    assert wanted | {"ClarifyCheck", "Callback", "Lambda", "Fail", "Model"} == set(TYPES)


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        ("P30D", 2_592_000),
        ("P4DT12H", 388_800),
        ("T12H", 43_200),
        ("pt1m", 60),
        ("P1W", 604_800),
        ("P", None),
        ("P1M", None),
        ("PT", None),
    ],
)
def test_durations(told: str, seconds: float | None) -> None:
    found = duration(told)
    assert (found.total_seconds() if found else None) == seconds


def test_paths_of_documents() -> None:
    said = {"metrics": {"auroc": {"value": 0.7}}, "curve": [1, {"a name": 2}]}
    assert follow(said, "metrics.auroc.value") == 0.7
    assert follow(said, "$.curve[1]['a name']") == 2
    for path in ("metrics.none", "curve[5]", "metrics[0]"):
        with pytest.raises(Invalid) as caught:
            follow(said, path)
        assert caught.value.code == "pipelines.json_get"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["Get", "Name", "Type", "Arguments", "Conditions", "x"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(_JSON)
def test_whatever_is_sent_is_answered_with_one_of_our_errors(value: Any) -> None:
    for said in (
        value,
        {"Version": "2020-12-01", "Steps": value},
        {"Version": "2020-12-01", "Steps": [{"Name": "a", "Type": "Condition", "Arguments": value}]},
    ):
        with suppress(Invalid):
            parse(json.dumps(said))
