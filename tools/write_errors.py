"""Writes docs/errors.md: every stable error code, found in the source where it is raised.

python tools/write_errors.py            write it
python tools/write_errors.py --check    exit with 1 when it is out of date
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "errors.md"
CODE = re.compile(r"^[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*$")
KINDS = (
    "Invalid",
    "Unsupported",
    "Refused",
    "Unauthenticated",
    "NotFound",
    "Gone",
    "Conflict",
    "Corrupt",
    "Unavailable",
)
# A line of input that is refused does not raise; it is quarantined, or reported by the validator, under these.
REPORTS = ("Rejected", "Issue")

HEAD = """# Error codes

<!-- Written by tools/write_errors.py from the source; `make docs` writes it again. -->

Every error has a code of the form `room.reason`. A code keeps its meaning for ever: one that is retired is not given
to something else. A message says what happened, what was expected and what to do; it never holds a clinical value, a
name or an identifier of a patient (`…` stands for a setting, a count, a code or the name of a command).

| kind | means | exit code | HTTP |
|---|---|---|---|
| Invalid | the input or the call is wrong | 2 | 400 |
| Unsupported | well-formed, not offered by this version | 2 | 400 |
| Refused | known caller, not allowed; the reasons come with it | 3 | 403 |
| Unauthenticated | the caller could not be identified | 3 | 401 |
| NotFound | no such thing, or none this caller may know of | 4 | 404 |
| Gone | it was there; deleted or erased | 4 | 410 |
| Conflict | the present state forbids it | 5 | 409 |
| Corrupt | stored bytes fail their integrity check | 6 | 500 |
| Unavailable | something needed is missing, busy or not configured | 7 | 503 |
| Quarantined | a line or entry of input was refused and kept aside with its place and this reason | 0 | - |
"""


def text_of(node: ast.AST | None) -> str:
    """The message as written, with … for what is filled in when it is raised; "" when it is made elsewhere."""
    if isinstance(node, ast.Constant):
        return str(node.value) if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) if isinstance(part, ast.Constant) else "…" for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return (text_of(node.left) or "…") + (text_of(node.right) or "…")
    return ""


def _in_call(call: ast.Call) -> Iterator[tuple[str, str, str]]:
    name = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
    arguments = [*call.args, *(keyword.value for keyword in call.keywords)]
    if name in KINDS:
        codes = list(ast.walk(call.args[0])) if call.args else []
        message = text_of(call.args[1]) if len(call.args) > 1 else ""
        kind = name
    elif name in REPORTS:
        codes = list(arguments)
        texts = [text_of(argument) for argument in arguments]
        message = max(texts, key=len, default="")
        message = "" if CODE.match(message) else message
        kind = "Quarantined"
    else:
        return
    for node in codes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and CODE.match(node.value):
            yield node.value, kind, message


def found(package: Path) -> dict[str, dict[str, str]]:
    """code -> {kind: message}, over every module below ``package``."""
    codes: dict[str, dict[str, str]] = {}
    for path in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                for code, kind, message in _in_call(node):
                    kinds = codes.setdefault(code, {})
                    kinds[kind] = kinds.get(kind) or message
    return codes


def render(package: Path) -> str:
    """The page."""
    codes = found(package)
    lines = [HEAD]
    for room in sorted({code.partition(".")[0] for code in codes}):
        lines += ["", f"## {room}", "", "| code | kind | message |", "|---|---|---|"]
        for code in sorted(code for code in codes if code.partition(".")[0] == room):
            message = next((text for text in codes[code].values() if text), "")
            shown = " ".join(message.split()).replace("|", "\\|").replace("<", "&lt;")
            lines.append(f"| `{code}` | {', '.join(sorted(codes[code]))} | {shown} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write the page, or check it."""
    page = render(ROOT / "src" / "carelake")
    if "--check" in sys.argv:
        same = PAGE.exists() and PAGE.read_text(encoding="utf-8") == page
        if not same:
            sys.stderr.write("docs/errors.md is out of date: run `make docs`\n")
        return 0 if same else 1
    PAGE.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
