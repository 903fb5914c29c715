"""Declarations in Python: the same objects as in TOML, by one parser, and nothing of the Python is run later."""

from __future__ import annotations

import runpy
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carelake.core.errors import Invalid
from carelake.features import declare
from carelake.features.declare import codes, conditions, encounters, group, medications, observations, reading
from carelake.features.groups.declaration import Declared, Item, load, readings, shipped

sys.path.append(str(Path(__file__).parent))  # for `import groups_data`

GRANTS = ("features:read", "features:write", "rows:read", "rows:write", "lake:read")
NUMBERS = ("first", "last", "max", "mean", "min", "slope", "sum")
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
VALUES = st.lists(TEXTS.filter(bool), min_size=1, max_size=3, unique=True)
NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,20}[a-z]", fullmatch=True)


def heart() -> Declared:
    heart_rate = reading("heart_rate")
    failure = codes("failure", "I50*", "I11.0")
    return group(
        "heart",
        "The heart of the last days",
        heart_rate.mean("24h", low=0, high=350),
        heart_rate.slope(timedelta(days=7), description='Trend, "least squares"'),
        encounters.where("class", "EMER").count(timedelta(hours=36), name="emergencies"),
        conditions.where("code", failure, "I27*").any(name="has_failure", high=1.0),
        encounters.last(value="class", allowed=["EMER", "IMP"]),
    )


TOML = """
# The same by hand, in another order.
name = "heart"
on_breach = "quarantine"
description = "The heart of the last days"
codes = { failure = ["I50*", "I11.0"] }

[[feature]]
view = "observations"
name = "heart_rate_mean_24h"
reading = "heart_rate"
unit = "/min"
take = "mean"
window = "24h"
high = 350
low = 0.0

[[feature]]
name = "heart_rate_slope_7d"
description = 'Trend, "least squares"'
view = "observations"
reading = "heart_rate"
unit = "/min/d"
take = "slope"
window = "7d"

[[feature]]
name = "emergencies"
view = "encounters"
take = "count"
unit = "1"
where = { class = ["EMER"] }
window = "36h"

[[feature]]
name = "has_failure"
view = "conditions"
take = "any"
unit = "1"
where.code = ["failure", "I27*"]
high = 1.0

[[feature]]
name = "encounters_class_last"
view = "encounters"
take = "last"
value = "class"
text = true
allowed = ["EMER", "IMP"]
"""


def bare(declared: Declared) -> Declared:
    return msgspec.structs.replace(declared, text="")


def test_it_is_what_toml_makes() -> None:
    made, told = heart(), load(TOML)
    assert bare(made) == bare(told)
    assert made.digest == told.digest != load(TOML.replace("36h", "37h")).digest
    assert load(str(made)) == made


@st.composite
def features(draw: Any) -> declare.Feature:
    """Whatever can be taken of observations, encounters and conditions."""
    said: dict[str, Any] = {"name": draw(NAMES), "description": draw(TEXTS), "source": draw(TEXTS)}
    bound = st.floats(allow_nan=False) | st.integers(-(2**50), 2**50)
    take = draw(st.sampled_from([*NUMBERS, "any", "count", "distinct"]))
    window = draw(st.sampled_from(["", "1h", "30d", "52w", timedelta(hours=5), timedelta(weeks=1)]))
    rows = draw(st.sampled_from([observations, encounters, conditions, *map(reading, readings())]))
    if take not in ("any", "count", "distinct"):
        rows = rows if rows.view == "observations" else observations
        said |= draw(st.fixed_dictionaries({}, optional={"low": bound, "high": bound, "unit": TEXTS}))
    if draw(st.booleans()):
        listed = [codes(draw(NAMES) + str(draw(st.integers())), *draw(st.lists(TEXTS)))]
        rows = (
            rows.where("system", *draw(VALUES)) if rows.view != "encounters" else rows.where("class", *draw(VALUES))
        )
        rows = rows.where("status" if rows.view != "conditions" else "code", *draw(VALUES), *listed)
    if draw(st.booleans()):
        said |= {"complete": draw(st.floats(0, 1)), "allowed": draw(st.lists(TEXTS))}
    return getattr(rows, take)(window, **said)


@settings(max_examples=30, deadline=None)
@given(st.lists(features(), min_size=1, max_size=4, unique_by=lambda one: one.said["name"].lower()), TEXTS)
def test_what_is_declared_comes_back_from_its_toml(listed: list[declare.Feature], words: str) -> None:
    reserved = {"subject_id", "event_time", "is_deleted", "write_time", "api_invocation_time"}
    listed = [one for one in listed if one.said["name"] not in reserved] or [observations.count(name="x")]
    made = group("g", words[:8].replace("\0", ""), *listed, on_breach="refuse", availability="system")
    assert load(str(made)) == made
    assert [one.name for one in made.feature] == [one.said["name"] for one in listed]
    for one, said in zip(made.feature, listed, strict=True):
        told = msgspec.structs.asdict(one)
        assert {name: told[name] for name in said.said if name != "allowed"} == {
            name: value for name, value in said.said.items() if name != "allowed"
        }


@pytest.mark.parametrize("name", shipped())
def test_what_is_shipped_can_be_declared(name: str) -> None:
    told = load(shipped()[name])
    groups = {key: codes(key, *listed) for key, listed in told.codes.items()}

    def feature(one: Item) -> declare.Feature:
        rows = reading(one.reading) if one.reading else declare.Rows(one.view)
        for column, values in one.where.items():
            rows = rows.where(column, *(groups.get(each, each) for each in values))
        own = (
            "name",
            "description",
            "unit",
            "source",
            "value",
            "time",
            "known",
            "low",
            "high",
            "allowed",
            "complete",
        )
        said = {key: value for key in own if (value := getattr(one, key)) not in (None, "", ())}
        return getattr(rows, one.take)(one.window, **{"unit": "", **said})

    used = {each for one in told.feature for values in one.where.values() for each in values}
    made = group(told.name, told.description, *map(feature, told.feature))
    assert bare(made) == msgspec.structs.replace(
        told, text="", codes={key: value for key, value in told.codes.items() if key in used}
    )


@pytest.mark.parametrize(
    ("work", "says"),
    [
        (lambda: reading("pulse"), "no reading of that name"),
        (lambda: encounters.where("class", "EMER").count(), "needs a name"),
        (lambda: encounters.where("class", "EMER").where("class", "IMP"), "twice"),
        (lambda: encounters.where("class"), "No value"),
        (lambda: group("g", "", encounters.mean("7d")), "mean is of numbers"),
        (lambda: group("g", "", encounters.count("7 days")), "a window is"),
        (lambda: group("g", "", encounters.count(timedelta(minutes=90))), "whole hours"),
        (lambda: group("g", "", medications.where("class", "x").count(name="x")), "no column class"),
        (lambda: group("g", "", encounters.count(name="X"), encounters.any(name="x")), "twice"),
        (lambda: group("g", "", encounters.count(name="write_time")), "FeatureName"),
        (lambda: group("no name", "", encounters.count()), "FeatureGroupName"),
        (lambda: group("g", "", encounters.count(description="\ud800")), "Unicode"),
        (lambda: group("g", ""), "lacks|has features|required"),
        (lambda: group("g", "", encounters.count(), storage="Paper"), "storage Standard"),
        (
            lambda: group(
                "g",
                "",
                *(conditions.where("code", codes("a", one)).any(name=f"x{one}") for one in "bc"),
            ),
            "two code groups",
        ),
    ],
)  # fmt: skip
def test_who_writes_it_is_told_what_is_wrong(work: Any, says: str) -> None:
    with pytest.raises(Invalid, match=says) as caught:
        work()
    assert caught.value.code in ("features.declaration", "features.validation")


def test_a_file_of_python_writes_its_declaration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As the documentation says it: what is created is text."""
    lines = [line[4:] for line in (declare.__doc__ or "").splitlines() if line.startswith("    ")]
    path = tmp_path / "heart.py"
    path.write_text("\n".join(lines))
    runpy.run_path(str(path))
    made = load(capsys.readouterr().out)
    assert [one.name for one in made.feature] == [
        "heart_rate_mean_24h", "heart_rate_slope_7d", "emergency_visits_6m", "has_failure",
    ]  # fmt: skip
    assert made.codes == {"failure": ["I50*", "I11.0"]}


def test_a_group_is_created_of_it(vault: Any, permit_for: Any) -> None:
    from groups_data import Store

    store = Store(vault, permit_for(*GRANTS))
    assert store.groups.declare(store.permit, heart())["FeatureGroupArn"].endswith("feature-group/heart")
    made = store.groups.get(store.permit, "heart")
    quick = group("quick", "", reading("heart_rate").last(), storage="InMemory")
    store.groups.declare(store.permit, load(str(quick)))
    assert (made.copied, store.groups.get(store.permit, "quick").copied) == (False, True)
    assert load(made.said.declaration) == heart()
    assert made.said.gates["heart_rate_mean_24h"].high == 350.0
