"""Policy tests as files: who asks what, and what the answer must be, without writing code.

    [[case]]
    who = "a clinician treats"      # words for the report
    roles = ["clinician"]
    accounts = ["production"]       # that the principal belongs to; production by default
    action = "record:read"
    account = "production"          # where it happens; production by default
    purpose = "TREAT"
    expect = "allow"                # or "deny"
    because = "clinician"           # what a reason must say; may be left out

``type`` (of FHIR), ``groups``, ``disabled``, ``granted`` and ``glass`` may be given too. An
unknown word in a case is an error.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal

import msgspec

from carelake.access.actions import actions
from carelake.access.policy import Policies, Request
from carelake.access.principals import Principal, checked_roles
from carelake.core.errors import Invalid
from carelake.core.shapes import decodable
from carelake.vault.places import ACCOUNTS

__all__ = ["Case", "Result", "read_cases", "run_case"]

_MAX_FILE = 1 << 20


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One question with its answer."""

    action: str
    purpose: str
    expect: Literal["allow", "deny"]
    who: str = ""
    roles: tuple[str, ...] = ()
    accounts: tuple[str, ...] = ("production",)
    groups: tuple[str, ...] = ()
    account: str = "production"
    disabled: bool = False
    granted: bool = False
    glass: bool = False
    type: str = ""
    because: str = ""


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    case: tuple[Case, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """How one case went.

    Attributes:
        number: of the case in its file, 1 for the first.
        said: what was decided, and why.
    """

    file: str
    number: int
    case: Case
    passed: bool
    said: str


def read_cases(folder: Path | None) -> list[tuple[str, int, Case]]:
    """The cases of every ``*.toml`` in a folder; the package's own without one.

    Raises:
        Invalid: ``access.cases``, naming file and setting, or when there are none.
    """
    if folder is None:
        shipped = resources.files(__package__).joinpath("policies", "tests")
        texts = {f.name: f.read_text(encoding="utf-8") for f in shipped.iterdir() if f.name.endswith(".toml")}
    else:
        texts = {file.name: _text(file) for file in sorted(folder.glob("*.toml"))}
    found = [
        (name, number, case) for name in sorted(texts) for number, case in enumerate(_cases(name, texts[name]), 1)
    ]
    if not found:
        raise Invalid("access.cases", "There are no policy tests here; a test file is *.toml with [[case]] tables.")
    return found


def run_case(policies: Policies, file: str, number: int, case: Case) -> Result:
    """Ask the policies."""
    who = Principal("somebody", "person", case.roles, case.accounts, case.disabled, groups=case.groups)
    given, glass = ("granted",) if case.granted else (), "broken" if case.glass else ""
    request = Request(who, case.action, case.account, case.purpose, given, glass, type=case.type)
    decision = policies.decide(request)
    said = f"{'allow' if decision.allowed else 'deny'}: {'; '.join(decision.reasons)}"
    passed = decision.allowed == (case.expect == "allow") and case.because in "; ".join(decision.reasons)
    return Result(file, number, case, passed, said)


def _cases(name: str, text: str) -> tuple[Case, ...]:
    try:
        cases = msgspec.convert(tomllib.loads(text), decodable(_File)).case
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise Invalid("access.cases", f"{name} is no file of policy tests: {error}") from None
    for number, case in enumerate(cases, 1):
        # A case about something that is not there would pass as a deny for ever.
        known = case.action in actions() and {case.account, *case.accounts} <= set(ACCOUNTS)
        if not known:
            raise Invalid("access.cases", f"{name}, case {number} names an action or an account that is not there.")
        checked_roles(case.roles)
    return cases


def _text(file: Path) -> str:
    if file.stat().st_size > _MAX_FILE:
        raise Invalid("access.cases", f"{file.name} is larger than {_MAX_FILE} bytes; split it.")
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise Invalid("access.cases", f"{file.name} is not UTF-8 text.") from None
