"""``view``: ViewDefinitions over the lake, to stdout and to files."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from carelake.apps.cli.session import Options, Session, answer, note
from carelake.apps.cli.tables import show
from carelake.core import canonical
from carelake.core.errors import Invalid, NotFound
from carelake.lake import asof
from carelake.lake.views.build import build
from carelake.lake.views.definition import read
from carelake.lake.views.execute import engine_named
from carelake.lake.views.formats import FORMATS, write
from carelake.lake.views.over import over
from carelake.lake.views.report import report
from carelake.vault.disk import private_folder, write_atomic

__all__ = ["check", "export", "run_view", "suite"]

_MAX_FILE = 4 * 1024 * 1024


def _view(file: Path) -> Mapping[str, Any]:
    view = canonical.load(_bytes(file))
    if not isinstance(view, dict):
        raise Invalid("lake.view_definition", "The file is not a ViewDefinition; expected a JSON object.", path="")
    return view


def _bytes(file: Path) -> bytes:
    try:
        if file.stat().st_size > _MAX_FILE:
            raise Invalid("apps.file", f"The file is larger than {_MAX_FILE} bytes; expected a ViewDefinition.")
        return file.read_bytes()
    except OSError:
        raise NotFound("apps.file", "The file cannot be read; check its name.") from None


def run_view(session: Session, *, json_out: bool, file: Path, form: str, as_of: str | None) -> None:
    """Rows of a view on stdout."""
    form = "json" if json_out else form
    if form != "table" and form not in FORMATS:
        raise Invalid("apps.format", f"There is no such format; expected one of table, {', '.join(FORMATS)}.")
    view, workspace = _view(file), session.workspace
    with workspace.enter(session.caller(), "lake:query", "lake") as permit:
        snapshot = asof.as_of(permit, workspace.vault, workspace.nouns, as_of)
        found = over(permit, workspace.vault, snapshot, view)
    if form == "table":
        show(found.column_names, found.to_pylist())
        return
    made = io.BytesIO()
    write(found, form, made)
    sys.stdout.flush()
    sys.stdout.buffer.write(made.getbuffer())
    sys.stdout.buffer.flush()


def export(
    session: Session, *, json_out: bool, files: Sequence[Path], out: Path, form: str, as_of: str | None
) -> None:
    """Rows of views in files that only the owner can read."""
    if form not in FORMATS:
        raise Invalid("apps.format", f"There is no such format; expected one of {', '.join(FORMATS)}.")
    views = {_name(view, file): view for file in files for view in [_view(file)]}
    if len(views) != len(files):
        raise Invalid("apps.names", "Two of the views have the same name; give each its own.")
    workspace, told = session.workspace, []
    with workspace.enter(session.caller(), "lake:export", "lake", job=True) as permit:
        snapshot = asof.as_of(permit, workspace.vault, workspace.nouns, as_of)
        private_folder(out)
        for name, view in views.items():
            found = over(permit, workspace.vault, snapshot, view)
            _write(found, form, out / f"{name}.{form}")
            told.append({"view": name, "rows": len(found), "file": f"{name}.{form}"})
    if json_out:
        answer({"snapshot": snapshot.ref, "views": told})
    else:
        show(["view", "rows", "file"], told)


def _name(view: Mapping[str, Any], file: Path) -> str:
    """What a view's file is called: its name, which is safe as one, else that of its own file."""
    return read(view).name or file.stem


def _write(table: pa.Table, form: str, file: Path) -> None:
    made = io.BytesIO()
    write(table, form, made)
    write_atomic(file, made.getvalue())


def check(options: Options, *, json_out: bool, file: Path) -> None:
    """The columns of a view."""
    plan = build(read(_view(file)))
    columns = [{"name": output.name, "type": output.type} for output in plan.outputs if output.name not in plan.order]
    if json_out:
        answer({"resource": plan.resource, "columns": columns})
        return
    note(f"A view of {plan.resource} with {len(columns)} columns.")
    show(["name", "type"], columns)


def suite(options: Options, *, json_out: bool, folder: Path, engine: str) -> None:
    """The official suite's report."""
    asked = engine_named(engine)
    # Plain floats: that is what the suite's own runners compare.
    files = {file.name: json.loads(_bytes(file)) for file in sorted(folder.glob("*.json"))}
    if not files:
        raise NotFound("apps.file", "There are no JSON files in the folder.")
    told = report(files, asked)
    cases = [case["result"]["passed"] for file in told.values() for case in file["tests"]]
    answer(told)
    note(f"{sum(cases)} of {len(cases)} cases passed on {engine}.")
