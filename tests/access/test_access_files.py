"""Policy files are whole or refused with their place; policy tests are files too."""

from __future__ import annotations

from pathlib import Path

import pytest

from carelake.access.cases import Case, read_cases, run_case
from carelake.access.policy import Policies, Request
from carelake.access.principals import Principal
from carelake.core.errors import Invalid

NOWHERE = Path("/nonexistent")
SHIPPED = Policies.load(NOWHERE)
GOOD = '// "a;b"\n@id("own")\n@scope("account")\npermit (principal, action, resource)\nwhen { context.granted };\n'


def refusal(tmp_path: Path, text: str) -> str:
    (tmp_path / "own.cedar").write_text(text)
    with pytest.raises(Invalid) as caught:
        Policies.load(tmp_path)
    assert caught.value.code == "access.policy"
    return caught.value.message


@pytest.mark.parametrize(
    ("text", "line", "because"),
    [
        (GOOD + "\n\npermit (", 8, "unexpected end"),
        (GOOD + "\npermit (principal, action, resource) when { principal.age > 1 };", 7, "age"),
        (GOOD + '\n// no; such\npermit (principal, action == Action::"record:raed", resource);', 8, "record:raed"),
        (GOOD + 'permit (principal, action, resource) when { context.purpose == "a;\\"b" && context.x };', 6, "`x`"),
        (GOOD + "permit (principal == ?principal, action, resource);", 1, "templates"),
        (GOOD + GOOD, 7, "called the same"),
        ("permit (principal, action, resource) when { 1 };", 1, "Bool"),
        ("what is this", 1, "unexpected token"),
    ],
)
def test_a_wrong_policy_is_refused_with_its_line(tmp_path: Path, text: str, line: int, because: str) -> None:
    said = refusal(tmp_path, text)
    assert said.startswith(f"workspace:own.cedar, line {line}: ")
    assert because in said


def test_files_that_are_no_text_or_too_large_are_refused(tmp_path: Path) -> None:
    (tmp_path / "own.cedar").write_bytes(b"\xff\xfe")
    with pytest.raises(Invalid, match="UTF-8"):
        Policies.load(tmp_path)
    (tmp_path / "own.cedar").write_bytes(b" " * ((1 << 20) + 1))
    with pytest.raises(Invalid, match="larger"):
        Policies.load(tmp_path)


def test_a_good_file_says_where_its_policies_are(tmp_path: Path) -> None:
    (tmp_path / "own.cedar").write_text(GOOD)
    policies = Policies.load(tmp_path)
    own = policies.statements["workspace:own.cedar#0"]
    assert (own.title, own.line, own.scope, own.permits) == ("own", 2, ("account",), True)
    assert policies.digest != SHIPPED.digest


def test_a_jurisdiction_is_crossed_with_a_grant_only() -> None:
    policies = Policies.load(NOWHERE, {"production": "US", "research": "DE"})
    assert policies.digest != SHIPPED.digest
    abroad = Principal("ann", "person", ("clinician",), ("research",))
    both = Principal("bob", "person", ("clinician",), ("research", "production"))
    here = Request(abroad, "record:read", "research", "TREAT")
    there = Request(abroad, "record:read", "production", "TREAT")
    assert policies.decide(here).allowed
    assert any("jurisdiction" in said for said in policies.decide(there).reasons)
    assert policies.decide(Request(abroad, "record:read", "production", "TREAT", grants=("g",))).allowed
    assert policies.decide(Request(both, "record:read", "production", "TREAT")).allowed
    with pytest.raises(Invalid):
        Policies.load(NOWHERE, {"moon": "X"})


SHIPPED_CASES = read_cases(None)


@pytest.mark.parametrize(
    ("file", "number", "case"), SHIPPED_CASES, ids=[f"{file}:{case.who}" for file, _, case in SHIPPED_CASES]
)
def test_the_shipped_cases_hold(file: str, number: int, case: Case) -> None:
    result = run_case(SHIPPED, file, number, case)
    assert result.passed, result.said


@pytest.mark.parametrize("change", [{"expect": "deny"}, {"because": "no such words"}, {"purpose": "HRESCH"}])
def test_a_case_can_fail(change: dict[str, str]) -> None:
    said = {"action": "record:read", "purpose": "TREAT", "expect": "allow", "roles": ("clinician",), **change}
    assert not run_case(SHIPPED, "f", 1, Case(**said)).passed  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[[case]]\naction = 'record:read'",
        "[[case]]\naction = 'record:read'\npurpose = 'TREAT'\nexpect = 'maybe'",
        "[[case]]\naction = 'record:read'\npurpose = 'TREAT'\nexpect = 'deny'\ncolour = 'red'",
        "[[case]]\naction = 'record:raed'\npurpose = 'TREAT'\nexpect = 'deny'",
        "[[case]]\naction = 'record:read'\npurpose = 'TREAT'\nexpect = 'deny'\naccount = 'moon'",
        "[[case]]\naction = 'record:read'\npurpose = 'TREAT'\nexpect = 'deny'\nroles = ['king']",
        "[[case",
    ],
)
def test_a_file_of_cases_that_is_wrong_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(Invalid):
        read_cases(tmp_path)


def test_a_folder_without_cases_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(Invalid) as caught:
        read_cases(tmp_path)
    assert caught.value.code == "access.cases"
