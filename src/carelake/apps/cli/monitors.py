"""``monitor``: checks over what was predicted, their files and their report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from carelake.apps.cli import use
from carelake.apps.cli.session import Options, Session, answer, existing, note
from carelake.apps.cli.tables import show
from carelake.core import canonical
from carelake.core.clock import instant, iso
from carelake.core.errors import Invalid
from carelake.monitor.check import KINDS, Ran
from carelake.monitor.check import report as lines

__all__ = ["baseline", "check", "compare", "listed", "report", "run_kinds"]

_ALWAYS = datetime(1970, 1, 1, tzinfo=UTC)
_VIOLATED = 5


def _moment(text: str | None, option: str) -> datetime | None:
    if text is None:
        return None
    try:
        return instant(text)
    except ValueError:
        raise Invalid(
            "apps.date", f"--{option} is not an instant; expected for example 2026-11-22T08:00:00Z."
        ) from None


def check(session: Session, *, json_out: bool, endpoint: str, since: str | None) -> None:
    """Check an endpoint's predictions against its model's baseline."""
    found = use.check(session, session.caller(), endpoint, _moment(since, "since") or _ALWAYS)
    if json_out:
        answer(found.as_json())
    else:
        note(lines(found))
        note(f"Finding: {found.finding.ref} ({found.finding.state})")


def _runs(
    session: Session, endpoint: str, kinds: Sequence[str], since: str | None, until: str | None
) -> tuple[list[Ran], str]:
    workspace, caller = session.workspace, session.caller()
    start, end = _moment(since, "since") or _ALWAYS, _moment(until, "until")
    found, ref = [], ""
    with workspace.enter(caller, "monitor:check", endpoint, job=True) as permit:
        for kind in kinds:
            ran, loaded = workspace.platform.executions.now(permit, endpoint, kind, start, end)
            found.append(ran)
            ref = loaded.ref
    return found, ref


def run_kinds(
    session: Session,
    *,
    json_out: bool,
    endpoint: str,
    kinds: Sequence[str],
    since: str | None,
    until: str | None,
    out: Path | None,
    strict: bool,
) -> int:
    """Check, write the files, tell what was found."""
    found, ref = _runs(session, endpoint, kinds, since, until)
    if out is not None:
        for ran in found:
            _write(out / ran.kind, ran.files)
    if json_out:
        answer({"endpoint": ref, "state": _worst(found), "runs": [ran.as_json() for ran in found]})
    else:
        for ran in found:
            note(f"{ran.kind}: {ran.status}{f' ({ran.reason})' if ran.reason else ''}, {ran.finding.ref}")
            for one in ran.violations:
                note(f"  {one.get('feature_name') or one.get('metric_name')}: {one['description']}")
    return _VIOLATED if strict and _worst(found) == "drift" else 0


def _worst(found: Sequence[Ran]) -> str:
    states = {ran.finding.state for ran in found}
    return next(state for state in ("drift", "unknown", "ok") if state in states)


def _write(folder: Path, files: Mapping[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(canonical.dump_pretty(content) + "\n", encoding="utf-8")


def report(
    session: Session, *, json_out: bool, endpoint: str, out: Path, since: str | None, until: str | None
) -> None:
    """Run all checks and draw them."""
    from carelake.monitor.report import gather, html

    workspace, caller = session.workspace, session.caller()
    start, end = _moment(since, "since") or _ALWAYS, _moment(until, "until") or workspace.vault.clock.now()
    found, _ = _runs(session, endpoint, list(KINDS), since, iso(end))
    with workspace.enter(caller, "monitor:check", endpoint) as permit:
        platform = workspace.platform
        loaded = platform.endpoints.load(permit, endpoint)
        seen = platform.monitor.window(permit, loaded, start, end)
        page = html(gather(loaded, seen, found, platform.monitor.findings(permit, loaded.ref), end))
    out.write_text(page, encoding="utf-8")
    if json_out:
        answer({"html": str(out), "state": _worst(found), "runs": [ran.as_json() for ran in found]})
    else:
        note(f"{_worst(found)}: {out}")


def listed(session: Session, *, json_out: bool, endpoint: str | None, limit: int) -> None:
    """Findings, the newest first."""
    workspace, caller = session.workspace, session.caller()
    with workspace.enter(caller, "monitor:read", endpoint or "findings") as permit:
        body = {"endpoint": workspace.platform.endpoints.find(permit, endpoint).ref} if endpoint else {}
        with workspace.vault.database.reading(permit) as tx:
            found = workspace.nouns.find(tx, "finding", caller.account, **body)[:limit]
    rows = [{"ref": one.ref, "state": one.state, **one.body} for one in found if "check" in one.body]
    if json_out:
        answer(rows)
    else:
        for row in rows:
            row["violations"] = len(row["violations"])
        show(["check", "state", "violations", "since", "until", "ref"], rows)


def baseline(session: Session, *, json_out: bool, endpoint: str, out: Path | None) -> None:
    """The baseline of an endpoint's model."""
    from carelake.monitor.baseline import Baseline

    workspace = session.workspace
    with workspace.enter(session.caller(), "monitor:read", endpoint) as permit:
        loaded = workspace.platform.endpoints.load(permit, endpoint)
        made = Baseline.from_json(loaded.files.baseline)
    files = {"statistics.json": made.statistics, "constraints.json": made.constraints}
    if out is not None:
        _write(out, files)
    told = {
        "endpoint": loaded.ref,
        "model": loaded.files.ref,
        "rows": made.rows,
        "source": made.source,
        "quality": made.quality,
        "bias": made.bias,
        "attributions": made.attributions,
    }
    if json_out:
        answer({**told, **{name.removesuffix(".json"): said for name, said in files.items()}})
    else:
        columns = [{"name": name, "completeness": f"{one.completeness:.3f}"} for name, one in made.spread.items()]
        note(f"{made.rows} rows ({made.source}) of {loaded.files.ref}")
        show(["name", "completeness"], columns)


def compare(
    options: Options, *, json_out: bool, before: Path, after: Path, owner: str | None, out: Path | None
) -> None:
    """Data quality of one table, or of one folder of shards, against another."""
    from carelake.monitor.baseline import counted_table, of_shards, of_table
    from carelake.monitor.drift import judge
    from carelake.monitor.statistics import statistics

    then = (_without(table, owner) for table in _shards(before))
    made = of_shards(then, "shards") if before.is_dir() else of_table(next(then), "table")
    total: dict[str, Any] = {}
    rows, owners, columns = 0, set(), set()
    for table in _shards(after):
        if owner is not None:
            if owner not in table.column_names:
                raise Invalid("apps.no_such_column", "The table has no column of the name that --owner gives.")
            owners |= set(table.column(owner).to_pylist())
        bare = _without(table, owner)
        rows += bare.num_rows
        columns |= set(of_table(bare.slice(0, 1), "table").spread)
        for name, counts in counted_table(made.spread, bare).items():
            total[name] = total[name] + counts if name in total else counts
    patients = len(owners) if owner is not None else rows
    found = judge(made, total, rows, patients=patients, columns=sorted(columns | set(total)))
    if out is not None:
        files = {"statistics.json": statistics(made.spread, total, rows), "constraints.json": made.constraints}
        violations = {} if found.reason else {"constraint_violations.json": {"violations": found.violations}}
        _write(out, {**files, **violations})
    if json_out:
        answer(found.as_json())
    else:
        note(found.reason or f"{found.rows} rows: {len(found.violations)} violations.")
        for one in found.violations:
            note(f"  {one['feature_name']}: {one['description']} ({one['constraint_check_type']})")


def _shards(path: Path) -> Iterator[Any]:
    """The table of a Parquet file, or those of a folder, one after another."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = sorted(existing(path).glob("*.parquet")) if path.is_dir() else [existing(path)]
    if not files:
        raise Invalid("apps.parquet", "The folder has no file that ends in .parquet.")
    for one in files:
        try:
            yield pq.read_table(one)
        except (pa.ArrowInvalid, OSError):
            raise Invalid("apps.parquet", "One of the files is no Parquet file that can be read.") from None


def _without(table: Any, owner: str | None) -> Any:
    return table.drop_columns([owner]) if owner in table.column_names else table
