"""Writes the table of docs/access-table.md: what each role may do, for which purposes, by the package's own policies.

python tools/write_access.py            write it
python tools/write_access.py --check    exit with 1 when it is out of date
"""

from __future__ import annotations

import sys
from pathlib import Path

from carelake.access.actions import actions
from carelake.access.policy import Policies, Request
from carelake.access.principals import ROLES, Principal
from carelake.access.purposes import PURPOSES

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "access-table.md"
_LETTERS = dict(zip(PURPOSES, ("T", "P", "O", "R", "H", "E", "S"), strict=True))
_HEAD = """# What each role may do

Written by `tools/write_access.py`, which asks the policies of `access/policies` about each action of
`access/actions.toml`; a test holds it to them. A cell has the purposes for which the role may, in the account
`production`, without a grant and outside of an emergency access; ● for all of them, empty for none. ◆: patients'
identified data are in reach.

{letters}

"""


def table() -> str:
    """Actions by roles."""
    policies, roles = Policies.load(Path("/nonexistent")), sorted(ROLES)
    lines = [f"| action | {' | '.join(roles)} |", f"|---|{'---|' * len(roles)}"]
    for name, one in sorted(actions().items()):
        cells = (_cell(policies, role, name) for role in roles)
        lines.append(f"| `{name}`{' ◆' if one.identified else ''} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(policies: Policies, role: str, action: str) -> str:
    everywhere = ("production", "research", "development", "security")
    who = Principal("somebody", "person", (role,), everywhere)
    found = [
        _LETTERS[purpose]
        for purpose in PURPOSES
        if policies.decide(Request(who, action, "production", purpose, (), "", type="")).allowed
    ]
    return "●" if len(found) == len(PURPOSES) else " ".join(found)


def render() -> str:
    """The page as it has to be."""
    letters = ", ".join(f"{letter} {purpose}" for purpose, letter in _LETTERS.items())
    return f"{_HEAD.format(letters=letters)}{table()}\n"


def main() -> int:
    made = render()
    if "--check" in sys.argv[1:]:
        return int(not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != made)
    PAGE.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
