"""Writes the tables of docs/aws.md: which operations of AWS's services are served, and which are not.

python tools/write_aws.py            write them
python tools/write_aws.py --check    exit with 1 when they are out of date
"""

from __future__ import annotations

import sys
from pathlib import Path

from carelake.apps.http.aws.models import RECORDS, RUNTIME, SAGEMAKER, operations_of
from carelake.apps.http.aws.served import Served
from carelake.apps.http.aws.table import served

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "aws.md"
BEGIN, END = "<!-- served: written by tools/write_aws.py -->", "<!-- end of served -->"


def table() -> str:
    """The served operations by service and the action that the gate is asked for, and the number of the others."""
    lines = ["| service | action | operations |", "|---|---|---|"]
    for service in (RECORDS, RUNTIME, SAGEMAKER):
        by_action: dict[str, list[str]] = {}
        for (of, name), one in sorted(served().items()):
            if of == service:
                by_action.setdefault(_action(one), []).append(name)
        for action, names in sorted(by_action.items()):
            lines.append(f"| `{service}` | {action} | {', '.join(f'`{name}`' for name in names)} |")
    lines.append("")
    for service in (RECORDS, RUNTIME, SAGEMAKER):
        mine = {name for of, name in served() if of == service}
        others = sorted(operations_of(service) - mine)
        shown = f": {', '.join(f'`{name}`' for name in others)}" if 0 < len(others) < 10 else ""
        lines.append(
            f"`{service}`: {len(mine)} of {len(mine) + len(others)} operations are served{_rest(others, shown)}."
        )
        lines.append("")
    return "\n".join(lines).rstrip()


def _action(one: Served) -> str:
    return f"`{one.action}`" if isinstance(one.action, str) else "by what is said"


def _rest(others: list[str], shown: str) -> str:
    return f"; not served{shown}" if shown else ""


def render(page: str) -> str:
    """The page with its table as it has to be."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{rest.partition(END)[2]}"


def main() -> int:
    page = PAGE.read_text(encoding="utf-8")
    made = render(page)
    if "--check" in sys.argv[1:]:
        return int(made != page)
    PAGE.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
