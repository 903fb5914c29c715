"""Properties: no expression crashes or runs away, and the algebra of the specification holds."""

from __future__ import annotations

import string
import time
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carelake.core.errors import CarelakeError
from carelake.fhir.path import compile, evaluate
from carelake.fhir.path.registry import FUNCTIONS

PATIENT: dict[str, Any] = {
    "resourceType": "Patient",
    "active": True,
    "birthDate": "1974-12-25",
    "name": [{"given": ["A", "B"], "family": "C"}, {"given": ["A"]}],
    "multipleBirthInteger": 2,
    "extension": [{"url": "u", "valueQuantity": {"value": Decimal("1.50"), "code": "g"}}],
}

atoms = st.sampled_from(
    [
        *(
            "{}",
            "true",
            "false",
            "0",
            "1",
            "2",
            "1.50",
            "'a'",
            "''",
            "'1'",
            "@2012",
            "@2012-03-04T05:06:07.089Z",
            "@T10:11",
        ),
        *(
            "1 'g'",
            "2 days",
            "1 year",
            "name",
            "name.given",
            "birthDate",
            "active",
            "multipleBirth",
            "extension.value",
        ),
        *("$this", "$index", "%resource", "Patient", "5L", "(1|2)", "descendants()", "today()"),
    ]
)
SIGNS = "+ - * / div mod & | = != ~ !~ < <= > >= and or xor implies in contains"
operators = st.sampled_from(SIGNS.split())
names = st.sampled_from(sorted(FUNCTIONS))
types = st.sampled_from(["Integer", "string", "Quantity", "HumanName", "System.Boolean", "Patient"])


def grow(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    arguments = st.lists(inner, max_size=3).map(", ".join)
    return st.one_of(
        st.tuples(inner, operators, inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        st.tuples(inner, names, arguments).map(lambda t: f"({t[0]}).{t[1]}({t[2]})"),
        st.tuples(inner, inner).map(lambda t: f"({t[0]})[{t[1]}]"),
        st.tuples(inner, st.sampled_from(["is", "as"]), types).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        inner.map(lambda one: f"-({one})"),
    )


expressions = st.recursive(atoms, grow, max_leaves=12)
items = st.one_of(
    st.integers(-1000, 1000),
    st.booleans(),
    st.text(string.ascii_letters, max_size=3),
    st.decimals(-100, 100, places=2),
)
lists = st.lists(items, max_size=6)


def error_of(work: Any, *arguments: Any) -> CarelakeError | None:
    """The error of ours that a call raises, if any; others pass through and fail the test."""
    try:
        work(*arguments)
    except CarelakeError as error:
        return error
    return None


@settings(max_examples=400, deadline=None)
@given(expressions)
def test_well_formed_expressions_give_an_answer_or_a_named_error(expression: str) -> None:
    error = error_of(evaluate, expression, PATIENT)
    if error is not None:
        assert error.code.startswith("fhirpath.")
        assert "1974" not in error.message
        return
    found = evaluate(expression, PATIENT)
    assert all(type(value) in (str, bool, int, Decimal, dict) for value in found)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=40) | st.text("(){}[].,'`@%$|=<>&+-*/ 0aTis", max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    error = error_of(compile, text)
    assert error is None or error.code.startswith("fhirpath.")


def answer(expression: str, **variables: Any) -> list[Any]:
    return evaluate(expression, None, variables=variables)


@settings(max_examples=60, deadline=None)
@given(lists, lists, lists)
def test_sets_obey_their_laws(a: list[Any], b: list[Any], c: list[Any]) -> None:
    given_ = {"a": a, "b": b, "c": c}
    for law in (
        "(%a | %b).count() = (%b | %a).count()",
        "(%a | %b).subsetOf(%b | %a)",
        "((%a | %b) | %c).count() = (%a | (%b | %c)).count()",
        "(%a | %a).count() = %a.distinct().count()",
        "%a.intersect(%b).subsetOf(%a)",
        "%a.intersect(%b).subsetOf(%b)",
        "%a.exclude(%b).intersect(%b).empty()",
        "%a.combine(%b).count() = %a.count() + %b.count()",
        "%a.isDistinct() = (%a.count() = %a.distinct().count())",
        "%a.subsetOf(%b) = %b.supersetOf(%a)",
        "%a.skip(2).count() + %a.take(2).count() = %a.count()",
        "%a.where($this in %b).count() <= %a.count()",
        "%a.all($this in %a)",
        "%a ~ %a",
        "%a.empty() or %a = %a",
        "%a.first() | %a.tail() | %a ~ %a.distinct()",
    ):
        assert evaluate(law, None, variables=given_) == [True], law


@settings(max_examples=60, deadline=None)
@given(*[st.sampled_from(["true", "false", "{}"]) for _ in range(3)])
def test_logic_obeys_its_laws(p: str, q: str, r: str) -> None:
    for left, right in (
        (f"{p} and {q}", f"{q} and {p}"),
        (f"{p} or {q}", f"{q} or {p}"),
        (f"({p} and {q}).not()", f"{p}.not() or {q}.not()"),
        (f"{p} implies {q}", f"{p}.not() or {q}"),
        (f"{p} xor {q}", f"({p} or {q}) and ({p} and {q}).not()"),
        (f"{p} and ({q} or {r})", f"({p} and {q}) or ({p} and {r})"),
    ):
        assert answer(left) == answer(right), (left, right)


numbers = st.one_of(st.integers(-10_000, 10_000), st.decimals(-1000, 1000, places=3))


@settings(max_examples=80, deadline=None)
@given(numbers, numbers)
def test_arithmetic_obeys_its_laws(a: Any, b: Any) -> None:
    for law in (
        "%a + %b = %b + %a",
        "%a * %b = %b * %a",
        "(%a + %b) - %b = %a",
        "%b = 0 or (%a div %b) * %b + %a mod %b = %a",
        "(%a < %b) = (%b > %a)",
        "%a.lowBoundary() <= %a and %a <= %a.highBoundary()",
        "%a.toString().toDecimal() = %a",
        "%a.abs() >= 0",
        "%a.floor() <= %a and %a <= %a.ceiling()",
    ):
        assert answer(law, a=a, b=b) == [True], law


units = st.sampled_from(["g", "kg", "mg", "m", "cm", "s", "min", "[in_i]", "[lb_av]", "mmol/L", "10*3/uL", "mm[Hg]"])


@settings(max_examples=80, deadline=None)
@given(st.decimals(-100, 100, places=2), units, st.decimals(-100, 100, places=2), units)
def test_quantities_obey_their_laws(a: Decimal, one: str, b: Decimal, other: str) -> None:
    left, right = f"({a} '{one}')", f"({b} '{other}')"
    assert answer(f"{left} = {left} and {left} ~ {left}") == [True]
    assert answer(f"{left} = {right}") == answer(f"{right} = {left}")
    assert answer(f"{left} < {right}") == answer(f"{right} > {left}")
    assert answer(f"{left}.comparable({right}) = ({left} < {right}).exists()") == [True]
    assert answer(f"({left} * {right}) = ({right} * {left})") == [True]
    assert answer(f"{left}.toString().toQuantity() = {left}") == [True]


days = st.dates().map(lambda day: f"@{day.isoformat()}")


@settings(max_examples=80, deadline=None)
@given(days, days, st.integers(-500, 500))
def test_dates_obey_their_laws(a: str, b: str, count: int) -> None:
    assert answer(f"({a} < {b}) = ({b} > {a})") == [True]
    assert answer(f"{a}.lowBoundary() <= {a} and {a} <= {a}.highBoundary()") == [True]
    assert answer(f"{a}.toString().toDate() = {a}") == [True]
    if "@1000" < a < "@9000" and count >= 0:
        assert answer(f"{a} + {count} days - {count} days = {a}") == [True]
        assert answer(f"{a}.duration({a} + {count} days, 'day') = {count}") == [True]


HOSTILE = [
    "('a' & 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!').matches('^(a+)+$')",
    "'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!'.matchesFull('(a|aa)+')",
    "'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!'.replaceMatches('(a*)*b', 'x')",
    "1.repeat($this + 1)",
    "1.repeatAll($this)",
    "'a'.repeat($this & 'a')",
    "(1|2|3|4|5|6|7|8|9|10)" + ".select((1|2|3|4|5|6|7|8|9|10).combine(%context.select(1|2|3|4|5|6|7|8|9|10)))" * 12,
    "'abcdefghij'" + ".replace('', 'abcdefghij')" * 12,
    "('abcdefghij' | 'b')" + ".aggregate($total & $this & $total, 'aaaaaaaaaa')" * 30,
    "1" + ".combine(1).select($this.combine($this))" * 40,
    "(" * 400 + "1" + ")" * 400,
    "-" * 5000 + "1",
    "a." * 5000 + "a",
    "1" + " + 1" * 5000,
    "1" + " | 1" * 5000,
    "name" + "[0]" * 5000,
    "iif(true, " * 300 + "1" + ")" * 300,
    "'" + "a" * 100_000 + "'",
    "9" * 60_000 + ".0",
    "9.power(999999999)",
    "9999999999.0.power(9999).power(9999)",
    "1 '" + "(" * 100 + "m" + ")" * 100 + "'  = 1 'm'",
    "1 'm999' * 1 'm999'",
    "'x'.matches('" + "(" * 2000 + "')",
    "'x'.matches('(?:a{1000}){1000}')",
    "'x'.matches('((((a{1000}){1000}){1000}){1000}){1000}')",
    "'x'.matches('[a-z]{1000000000}')",
    "('a' & 'aaaaaaaaaaaaaaaaaaaaaaaa').matches('" + "(?:" * 300 + "a" + "*)" * 300 + "b')",
    "'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'.matches('(a?){100}a{100}')",
]


@pytest.mark.parametrize("expression", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_expressions_end_soon(expression: str) -> None:
    began = time.monotonic()
    error = error_of(evaluate, expression, PATIENT)
    assert error is None or error.code.startswith("fhirpath.")
    assert time.monotonic() - began < 8


@pytest.mark.parametrize(
    "expression",
    ["descendants().count()", "extension | extension", "repeat(extension).count()", "extension ~ extension"],
)
def test_deep_data_ends_soon(expression: str) -> None:
    deep: dict[str, Any] = {}
    for _ in range(20_000):
        deep = {"url": "x", "extension": [deep]}
    error = error_of(evaluate, expression, {"resourceType": "Patient", "extension": [deep, deep]})
    assert error is None or error.code == "fhirpath.limit"
