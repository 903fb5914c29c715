"""The doors that only one room may open: permits, the ledger, disk, drivers and key material."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

Names = Callable[[ast.AST], str]

# Only the gate makes permits; only the trail, the outbox and access write without one.
LEDGER_ROOMS = {"vault", "audit", "events", "access"}

# Running text as code. Each entry says whose text it is.
RUNS_TEXT: dict[str, str] = {}

# Touching the disk outside the vault. Each entry says what, and why it cannot hold PHI or is not ours to seal.
# An entry that is no longer needed fails the test as well.
TOUCHES_DISK: dict[str, str] = {
    "access/cases.py": "reads policy tests: the package's own, and those that the user names",
    "access/policy.py": "reads policies: the package's own, and those a workspace adds in the clear",
    "access/tokens.py": "names the curve of the token's public key; it holds no private key",
    "apps/cli/bulk_folder.py": "writes an export where the user asks for it, for the owner alone",
    "apps/cli/demo.py": "makes synthetic sources in a temporary folder, and removes it",
    "apps/cli/endpoints.py": "reads configurations, rows and labels that the user names",
    "apps/cli/erase.py": "reads the file of ids that the user names",
    "apps/cli/features.py": "reads declarations, writes documents and an offline store, which the user names",
    "apps/cli/object_files.py": "reads and writes the files that the user names: what goes in and comes out",
    "apps/cli/model_plans.py": "reads the change plan that the user names",
    "apps/cli/models.py": "writes cards and models, which hold figures of groups, and reads them, as the user asks",
    "apps/cli/monitors.py": "reads the tables that the user names; writes figures where the user asks for them",
    "apps/cli/measures.py": "reads the value sets that the user names",
    "apps/cli/parts_folder.py": "writes an export where the user asks for it, for the owner alone",
    "apps/cli/pipelines.py": "reads the definition that the user names",
    "apps/cli/session.py": "points standard output to the null device when its reader is gone",
    "apps/cli/transforming.py": "reads rows and writes answers where the user asks for them, for the owner alone",
    "apps/cli/validating.py": "reads the files that the user names, and keeps nothing of them",
    "apps/cli/views.py": "reads the ViewDefinition that the user names",
    "apps/flight.py": "reads the certificate and the key that the settings name",
    "apps/http/crew.py": "makes and removes a temporary folder of counters that its workers share",
    "apps/http/rates.py": "shares a table of moments between workers; no name and no address is in it",
    "apps/wiring.py": "reads and writes carelake.toml, which holds settings only",
    "audit/processes.py": "reads /proc/PID/stat to tell whether a process still runs",
    "audit/verifier.py": "a program of its own for whoever is given an export, which it reads",
    "features/datasets/design.py": "reads the package's own recipes",
    "features/datasets/meds.py": "reads the MEDS data set and the labels that the user names",
    "features/groups/declaration.py": "reads the package's own declarations and readings",
    "fhir/profiles/packages.py": "reads a package that it is given as bytes; no file is opened",
    "ingest/sources.py": "reads the sources that the user names",
    "lake/flat.py": "reads the package's own views",
    "lake/engines/jvm.py": "looks for Java, and starts it with a temporary folder in which it says its port",
    "pipelines/execution/code.py": "reads the package's own source, to tell one version of it from another",
    "pipelines/execution/warm.py": "writes to a pipe, and reads in /proc how much memory a step's process holds",
    "pipelines/shipped.py": "reads the package's own recipes",
    "serving/sandbox/measuring.py": "digests the files of code that a sandbox runs, and reads /proc of its process",
    "serving/sandbox/walls.py": "reads /proc of its own process: which memory can be run and written to",
    "synth/chunk.py": "writes made-up patients where the user asks for them",
    "synth/generation.py": "as synth/chunk.py",
}

DISK_MODULES = {"sqlite3", "sqlcipher3", "tempfile", "shutil", "mmap", "fcntl", "cryptography", "glob"}
DISK_CALLS = {"open", "os.open", "os.fdopen", "os.replace", "os.rename", "os.remove", "os.unlink", "os.makedirs"}
DISK_CALLS |= {f"{module}.open" for module in ("io", "gzip", "bz2", "lzma", "codecs", "zipfile", "tarfile")}
DISK_CALLS |= {"create_engine", "sqlalchemy.create_engine", "sa.create_engine"}
DISK_METHODS = {
    "write_text",
    "write_bytes",
    "read_text",
    "read_bytes",
    "mkdir",
    "unlink",
    "touch",
    "rmdir",
    "iterdir",
}


def _disk(source: Any, name_of: Names) -> Iterator[str]:
    for module, _, line in source.imports():
        if module.partition(".")[0] in DISK_MODULES:
            yield f"{source.name}:{line} imports {module}"
    for call in source.calls():
        name = name_of(call.func)
        if "files(" in ast.unparse(call.func):
            continue  # importlib.resources: the package's own data
        if name in DISK_CALLS or ("." in name and name.rpartition(".")[2] in DISK_METHODS):
            yield f"{source.name}:{call.lineno} calls {name}"


def test_only_the_gate_makes_permits(sources: Sequence[Any], name_of: Names) -> None:
    secret = {"mint", "_seal", "_SECRET"}
    found = [
        f"{source.name}:{line} takes {name} from core.permit"
        for source in sources
        if source.name != "access/gate.py"
        for module, name, line in source.imports()
        if module == "carelake.core.permit" and name in secret
    ]
    found += [
        f"{source.name}:{node.lineno} uses {name_of(node)}"
        for source in sources
        if source.name not in {"access/gate.py", "core/permit.py"}
        for node in source.nodes
        if isinstance(node, ast.Attribute) and name_of(node) in {f"permit.{name}" for name in secret}
    ]
    assert not found


LEDGER = {"ledger", "ledger_at_once", "ledger_reading", "ledger_rows", "snapshot"}


def test_only_guards_write_the_ledger(sources: Sequence[Any]) -> None:
    found = [
        f"{source.name}:{call.lineno}"
        for source in sources
        if source.room not in LEDGER_ROOMS
        for call in source.calls()
        if isinstance(call.func, ast.Attribute) and call.func.attr in LEDGER
    ]
    assert not found


def test_only_the_vault_touches_the_disk(sources: Sequence[Any], name_of: Names) -> None:
    found = [
        line
        for source in sources
        if source.room != "vault" and source.name not in TOUCHES_DISK
        for line in _disk(source, name_of)
    ]
    assert not found, "move it to the vault, or add it to TOUCHES_DISK with the reason"


def test_the_lists_of_exceptions_hold_no_dead_entry(sources: Sequence[Any], name_of: Names) -> None:
    by_name = {source.name: source for source in sources}
    assert set(TOUCHES_DISK) | set(RUNS_TEXT) <= set(by_name)
    assert not [name for name in TOUCHES_DISK if not list(_disk(by_name[name], name_of))]
    assert not [name for name in RUNS_TEXT if not list(_running(by_name[name], name_of))]


def _running(source: Any, name_of: Names) -> Iterator[str]:
    for call in source.calls():
        name = name_of(call.func)
        if name in {"eval", "exec", "compile", "__import__", "os.system", "os.popen"}:
            yield f"{source.name}:{call.lineno} calls {name}"
        if any(keyword.arg == "shell" and getattr(keyword.value, "value", None) is True for keyword in call.keywords):
            yield f"{source.name}:{call.lineno} runs a shell"


def test_no_text_is_run_as_code(sources: Sequence[Any], name_of: Names) -> None:
    found = [line for source in sources if source.name not in RUNS_TEXT for line in _running(source, name_of)]
    assert not found


PRINTS = {"apps/cli/who.py": "the token alone on standard output, for $(carelake token ...)"}


@pytest.mark.parametrize("name", ["print", "breakpoint", "input"])
def test_nothing_prints(sources: Sequence[Any], name_of: Names, name: str) -> None:
    found = [
        f"{source.name}:{call.lineno}"
        for source in sources
        if source.name not in PRINTS
        for call in source.calls()
        if name_of(call.func) == name
    ]
    assert not found


def test_time_and_chance_are_injected(sources: Sequence[Any], name_of: Names) -> None:
    """Only `core` asks the machine for the time of day; the others are handed a clock."""
    wall = {"datetime.now", "datetime.utcnow", "datetime.today", "date.today", "time.time", "time.time_ns"}
    wall |= {f"datetime.{name}" for name in ("datetime.now", "datetime.utcnow", "date.today")}
    found = [
        f"{source.name}:{call.lineno} {name_of(call.func)}"
        for source in sources
        if source.room != "core"
        for call in source.calls()
        if name_of(call.func) in wall
    ]
    assert not found
