"""Policy files read once: parsed, checked against the schema of what a decision knows, each policy with its place.

A file that is wrong is refused with its name and line; nothing of it is left out in silence.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import cedarpy

from carelake.access.actions import actions, groups
from carelake.core.errors import Invalid

__all__ = ["OWN", "Statement", "read_statements", "schema"]

OWN = "workspace:"
"""Before the name of a file that the workspace adds."""

_SCHEMA = """
entity Group;
entity Principal in [Group] = {
  name: String, kind: String, roles: Set<String>, groups: Set<String>, accounts: Set<String>,
  jurisdictions: Set<String>, disabled: Bool
};
entity Account = { account: String, jurisdiction: String };
"""
_CONTEXT = "{ purpose: String, granted: Bool, glass: Bool, type: String }"


@dataclass(frozen=True, slots=True)
class Statement:
    """One policy.

    Attributes:
        id: unique among all policies of a workspace.
        file: of which file, ``workspace:`` before it when it is the workspace's own.
        line: where it begins, 1 for the first.
        body: its Cedar JSON form. https://docs.cedarpolicy.com/policies/json-format.html
    """

    id: str
    file: str
    line: int
    body: Mapping[str, Any]

    @property
    def title(self) -> str:
        """What people call it: its ``@id``, or its place."""
        return str(self.body.get("annotations", {}).get("id") or f"{self.file}:{self.line}")

    @property
    def scope(self) -> tuple[str, ...]:
        """The predicates that it names by ``@scope``."""
        return tuple(str(self.body.get("annotations", {}).get("scope") or "").split())

    @property
    def permits(self) -> bool:
        """Whether it permits; otherwise it forbids."""
        return bool(self.body["effect"] == "permit")


@cache
def schema() -> str:
    """The Cedar schema: what policies may ask of a principal, an account and a request."""
    named = sorted({group for name in actions() for group in groups(name)})
    lines = [f"action {_quoted(group)};" for group in named]
    for name in actions():
        parents = ", ".join(_quoted(group) for group in groups(name))
        lines.append(
            f"action {_quoted(name)} in [{parents}] "
            f"appliesTo {{ principal: [Principal], resource: [Account], context: {_CONTEXT} }};"
        )
    return _SCHEMA + "\n".join(lines)


def read_statements(texts: Mapping[str, str]) -> list[Statement]:
    """Every policy of every file.

    Args:
        texts: file name -> Cedar text.

    Raises:
        Invalid: ``access.policy``, with file and line.
    """
    parsed_schema = cedarpy.Schema.from_str(schema())
    found = [one for file in sorted(texts) for one in _read(file, texts[file], parsed_schema)]
    titles: dict[str, Statement] = {}
    for one in found:
        before = titles.setdefault(one.title, one)
        if before is not one:
            raise _wrong(one.file, one.line, f"another policy is called the same ({before.file}, line {before.line})")
    return found


def _read(file: str, text: str, parsed_schema: cedarpy.Schema) -> Iterator[Statement]:
    lines = [line for line, _ in _pieces(text)]
    try:
        said = json.loads(cedarpy.policies_to_json_str(text))
    except ValueError as error:
        raise _unparsed(file, text, error) from None
    policies = said["staticPolicies"]
    if said["templates"] or said["templateLinks"]:
        raise _wrong(file, 1, "templates are not taken; write policies over attributes")
    result = cedarpy.validate_policies(text, parsed_schema)
    for fault in result.errors:
        line = lines[_number(fault.policy_id)] if _number(fault.policy_id) < len(lines) else 1
        raise _wrong(file, line, fault.error.replace(f"for policy `{fault.policy_id}`, ", ""))
    if not result.validation_passed:
        raise _wrong(file, 1, "it does not pass the schema")
    for name in sorted(policies, key=_number):
        number = _number(name)
        line = lines[number] if len(lines) == len(policies) else 1
        yield Statement(f"{file}#{number}", file, line, policies[name])


def _number(policy_id: str) -> int:
    # Cedar's parser calls them policy0, policy1... in the order of the text.
    digits = policy_id.removeprefix("policy")
    return int(digits) if digits.isdigit() else 0


def _unparsed(file: str, text: str, error: ValueError) -> Invalid:
    for line, piece in _pieces(text):
        try:
            cedarpy.policies_to_json_str(piece)
        except ValueError as inner:
            return _wrong(file, line, str(inner))
    return _wrong(file, 1, str(error))


def _wrong(file: str, line: int, reason: str) -> Invalid:
    return Invalid(
        "access.policy",
        f"{file}, line {line}: this policy is not valid: {reason}. docs/access.md lists what policies may name.",
        file=file,
        line=line,
    )


def _pieces(text: str) -> Iterator[tuple[int, str]]:
    """Each statement with the line it begins on: what ends at a semicolon outside of quotes and comments."""
    start, at, line = None, 0, 1
    begun = 1
    while at < len(text):
        letter = text[at]
        if letter == "\n":
            line += 1
        elif text.startswith("//", at):
            at = _end(text, at, "\n") - 1
        elif not letter.isspace() and start is None:
            start, begun = at, line
        if letter == '"' and start is not None:
            closing = _closing(text, at)
            line += text.count("\n", at, closing)
            at = closing
        elif letter == ";" and start is not None:
            yield begun, text[start : at + 1]
            start = None
        at += 1
    if start is not None:
        yield begun, text[start:]


def _end(text: str, at: int, mark: str) -> int:
    found = text.find(mark, at)
    return len(text) if found < 0 else found


def _closing(text: str, at: int) -> int:
    at += 1
    while at < len(text) and text[at] != '"':
        at += 2 if text[at] == "\\" else 1
    return min(at, len(text))


def _quoted(text: str) -> str:
    return json.dumps(text)
