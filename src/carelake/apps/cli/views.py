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
from carelake.apps.cli.sharding import export_sharded
from carelake.apps.cli.tables import show
from carelake.core import canonical
from carelake.core.errors import Invalid, NotFound
from carelake.core.nouns import Noun
from carelake.core.permit import Permit
from carelake.lake import asof
from carelake.lake.materialisation import materialising
from carelake.lake.materialisation.materialised import Found, freshness, of_saved, of_view
from carelake.lake.ready.shelf import find, is_ready
from carelake.lake.views import saved
from carelake.lake.views.build import build
from carelake.lake.views.definition import read
from carelake.lake.views.execute import engine_named, engine_of
from carelake.lake.views.formats import FORMATS, write
from carelake.lake.views.report import report
from carelake.vault.disk import private_folder, write_atomic

__all__ = ["check", "drop", "export", "keep", "listed", "refresh", "run_view", "save", "suite"]

_MAX_FILE = 4 * 1024 * 1024


def _view(file: Path) -> Mapping[str, Any]:
    """Of a file, or where there is none, the ready-made view of that name."""
    if is_ready(str(file)) and not file.exists():
        return find(str(file))
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


def run_view(
    session: Session, *, json_out: bool, view: str, form: str, as_of: str | None, engine: str | None
) -> None:
    """Rows of a view on stdout."""
    form = "json" if json_out else form
    if form != "table" and form not in FORMATS:
        raise Invalid("apps.format", f"There is no such format; expected one of table, {', '.join(FORMATS)}.")
    workspace = session.workspace
    with workspace.enter(session.caller(), "lake:query", "lake") as permit:
        snapshot = asof.as_of(permit, workspace.vault, workspace.nouns, as_of)
        found, kept = _rows(session, permit, snapshot, view, engine)
    note(f"Read from what is kept of {kept}." if kept else "Computed.")
    if form == "table":
        show(found.column_names, found.to_pylist())
        return
    made = io.BytesIO()
    write(found, form, made)
    sys.stdout.flush()
    sys.stdout.buffer.write(made.getbuffer())
    sys.stdout.buffer.flush()


def _rows(session: Session, permit: Permit, snapshot: Noun, view: str, engine: str | None) -> Found:
    """Of a file, or where there is none, of the saved view of that name, or of the ready-made one."""
    file, vault = Path(view), session.workspace.vault
    if file.suffix or file.exists():
        return of_view(permit, vault, snapshot, _view(file), engine=engine)
    try:
        return of_saved(permit, vault, snapshot, saved.found(permit, vault, view), engine=engine)
    except NotFound:
        if not is_ready(view):
            raise
    return of_view(permit, vault, snapshot, find(view), engine=engine)


def save(session: Session, *, json_out: bool, file: Path, name: str | None) -> None:
    """Save a view by its name."""
    with session.workspace.enter(session.caller(), "lake:define", "lake") as permit:
        made = saved.save(permit, session.workspace.vault, _view(file), name)
    _answered(json_out, {"view": made.name, "state": made.state}, f"{made.name} is saved.")


def keep(session: Session, *, json_out: bool, file: Path, name: str | None) -> None:
    """Save a view, and keep its rows."""
    workspace = session.workspace
    with workspace.enter(session.caller(), "lake:define", "lake", job=True) as permit:
        made = materialising.materialise(permit, workspace.vault, workspace.nouns, _view(file), name)
        told = _told(session, permit, made)
    _answered(json_out, told, f"{made.name} is kept; each sync brings it up to the record.")


def listed(session: Session, *, json_out: bool) -> None:
    """Saved views."""
    workspace = session.workspace
    with workspace.enter(session.caller(), "lake:query", "lake") as permit:
        told = [_told(session, permit, one) for one in saved.all_of(permit, workspace.vault)]
    if json_out:
        answer(told)
    else:
        show(["view", "resource", "state", "fresh", "rows", "error"], told)


def refresh(session: Session, *, json_out: bool, names: Sequence[str]) -> None:
    """Bring kept views up to the tables."""
    workspace = session.workspace
    with workspace.enter(session.caller(), "lake:define", "lake", job=True) as permit:
        for name in names:
            if saved.found(permit, workspace.vault, name).state == saved.SAVED:
                raise NotFound(
                    "lake.not_kept", "The rows of this view are not kept; `carelake view materialise` does."
                )
        found = materialising.refresh(permit, workspace.vault, workspace.nouns, *names)
    _answered(
        json_out, found, "\n".join(f"{name}: {rows} rows added" for name, rows in found.items()) or "All fresh."
    )


def drop(session: Session, *, json_out: bool, name: str) -> None:
    """Forget a view and what is kept of it."""
    with session.workspace.enter(session.caller(), "lake:define", "lake") as permit:
        gone = saved.drop(permit, session.workspace.vault, name)
    _answered(json_out, {"view": gone.name, "dropped": True}, f"{gone.name} is dropped.")


def _told(session: Session, permit: Permit, view: saved.Saved) -> dict[str, Any]:
    vault, nouns = session.workspace.vault, session.workspace.nouns
    try:
        snapshot = asof.as_of(permit, vault, nouns)
    except NotFound:
        snapshot = None
    fresh, rows = freshness(snapshot, view)
    kept = view.state != saved.SAVED
    said = {"view": view.name, "resource": view.definition.resource, "state": view.state}
    return {**said, "fresh": fresh if kept else None, "rows": rows if kept else None, "error": view.error or None}


def _answered(json_out: bool, told: Any, text: str) -> None:
    if json_out:
        answer(told)
    else:
        note(text)


def export(
    session: Session,
    *,
    json_out: bool,
    files: Sequence[Path],
    out: Path,
    form: str,
    as_of: str | None,
    engine: str | None,
    workers: int | None,
) -> None:
    """Rows of views in files that only the owner can read."""
    if form not in FORMATS:
        raise Invalid("apps.format", f"There is no such format; expected one of {', '.join(FORMATS)}.")
    views = {_name(view, file): view for file in files for view in [_view(file)]}
    if len(views) != len(files):
        raise Invalid("apps.names", "Two of the views have the same name; give each its own.")
    if workers is not None:
        if engine_of(engine, session.workspace.vault.settings.lake) != "duckdb":
            raise Invalid("apps.engine", "Workers are this machine's, and run DuckDB; leave out --workers for Spark.")
        export_sharded(session, json_out=json_out, views=views, out=out, form=form, as_of=as_of, workers=workers)
        return
    workspace, told = session.workspace, []
    with workspace.enter(session.caller(), "lake:export", "lake", job=True) as permit:
        snapshot = asof.as_of(permit, workspace.vault, workspace.nouns, as_of)
        private_folder(out)
        for name, view in views.items():
            found = of_view(permit, workspace.vault, snapshot, view, engine=engine).rows
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
