"""``demo``: the whole loop on a synthetic hospital, told as a short story at the end."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from carelake.apps.cli import learn, prove, record, use
from carelake.apps.cli.session import Options, Session, answer
from carelake.apps.cli.tables import progress
from carelake.apps.wiring import Workspace
from carelake.core.nouns import Noun
from carelake.monitor.check import Checked
from carelake.serving.predictions import Prediction
from carelake.serving.words import sentence
from carelake.synth import generate

__all__ = ["demo"]

_WAY = ("prediction", "endpoint", "model", "trainingset", "featureset", "view", "snapshot", "resource", "landing")
_SHIFT = "older"
_LATER = date(2024, 7, 1)
_LATER_YEARS = 1.0
_LIST_DAYS = 150.0
_LATER_DAYS = 366.0


@dataclass
class _Told:
    """What the story tells, gathered as it happens."""

    facts: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def chapter(self, name: str) -> Iterator[None]:
        """Time a chapter."""
        begun = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - begun, 1)


def demo(options: Options, *, json_out: bool, folder: Path, patients: int, seed: int) -> None:
    """Run the loop in a new workspace and leave it to explore."""
    told = _Told()
    begun = time.monotonic()
    home = _free(folder)
    Workspace.create(home.absolute(), os.environ).close()
    sources = Path(tempfile.mkdtemp(prefix="carelake-demo-"))
    session = Session(Options(home, options.as_, options.purpose, options.account))
    try:
        _tell(session, told, sources, patients, seed)
    finally:
        # The sources are made up, but they look like patients: they do not stay in the clear.
        shutil.rmtree(sources, ignore_errors=True)
        session.close()
    told.seconds["all"] = round(time.monotonic() - begun, 1)
    if json_out:
        answer({**told.facts, "seconds": told.seconds, "workspace": str(home)})
    else:
        sys.stdout.write(_story(told, home))


def _free(folder: Path) -> Path:
    candidates = [folder, *(folder.with_name(f"{folder.name}-{n}") for n in range(2, 1000))]
    return next(f for f in candidates if not f.exists() or (f.is_dir() and not any(f.iterdir())))


def _tell(session: Session, told: _Told, sources: Path, patients: int, seed: int) -> None:
    caller = session.caller()
    with told.chapter("synthetic hospital"):
        made = _hospital(sources / "now", patients, seed)
    with told.chapter("record"):
        report = record.ingest_paths(session, caller, [sources / "now"])
    told.facts |= {"synth": {"patients": patients, "resources": made}, "ingest": record.report_json(report)}
    with told.chapter("lake to endpoint"):
        run = learn.told(learn.carry_out(session, caller, "readmission", approve_as="reviewer"))
    told.facts["run"] = run
    if run["endpoint"] is None:
        return
    with told.chapter("predictions"):
        before = session.workspace.vault.clock.now()
        usual = use.predict_all(session, caller, run["endpoint"], days=_LIST_DAYS)
        told.facts["drift_usual"] = _checked(use.check(session, caller, run["endpoint"], before))
        one = use.predict_all(session, caller, run["endpoint"], patient=usual[0].subject)[0]
        told.facts |= {"morning_list": len(usual), "prediction": one.as_json(), "why": sentence(one.reasons)}
    with told.chapter("drift"):
        told.facts |= _shifted(session, caller, sources / "later", run["endpoint"], patients, seed)
    with told.chapter("proof"):
        told.facts |= _proof(session, caller, one)


def _hospital(out: Path, patients: int, seed: int, **other: Any) -> int:
    with progress() as bars:
        task = bars.add_task("Synthetic patients", total=patients)
        return generate(
            out, patients=patients, seed=seed, progress=lambda n: bars.update(task, completed=n), **other
        ).resources


def _shifted(session: Session, caller: Any, out: Path, endpoint: str, patients: int, seed: int) -> dict[str, Any]:
    _hospital(out, max(50, patients // 4), seed + 1, shift=_SHIFT, start=_LATER, years=_LATER_YEARS)
    record.ingest_paths(session, caller, [out], title="Resources of the later, older patients")
    since = session.workspace.vault.clock.now()
    use.predict_all(session, caller, endpoint, days=_LATER_DAYS)
    return {"drift_shifted": _checked(use.check(session, caller, endpoint, since))}


def _checked(found: Checked) -> dict[str, Any]:
    off = sorted((d for d in found.check.distances if d.kinds), key=lambda d: -d.linf)
    return {
        "finding": found.finding.ref,
        "state": found.finding.state,
        "rows": found.check.rows,
        "reason": found.check.reason,
        "columns": len(found.check.distances),
        "drifted": [d.name for d in off],
    }


def _proof(session: Session, caller: Any, one: Prediction) -> dict[str, Any]:
    workspace = session.workspace
    with (
        workspace.enter(caller, "lineage:read", one.ref) as permit,
        workspace.vault.database.reading(permit) as connection,
    ):
        resolvers = {"resource": workspace.resources.resolver(permit)}
        back = workspace.nouns.lineage(connection, one.ref, resolvers, account=permit.account)
    return {"lineage": [prove.noun_json(n) for n in back], "way": _way(back), "audit": prove.verify_all(session)}


def _way(back: list[Noun]) -> list[str]:
    """One line per kind of noun on the way from the prediction to the bytes."""
    lines = []
    for kind in _WAY:
        found = [n for n in back if n.kind == kind]
        if found:
            more = f" and {len(found) - 1} more" if len(found) > 1 else ""
            where = ""
            if kind == "resource":
                body = found[0].body
                where = f"  {body['type']}, bytes {body['offset']} to {int(body['offset']) + int(body['length'])}"
            lines.append(f"{kind:<12} {found[0].ref[:40]}…{more}{where}")
    return lines


def _story(told: _Told, home: Path) -> str:
    facts, run = told.facts, told.facts["run"]
    ingest, metrics = facts["ingest"], run["metrics"]
    rate = ingest["read"] / max(ingest["seconds"], 0.001)
    lines = [
        "",
        f"A synthetic hospital of {facts['synth']['patients']:,} patients: {ingest['read']:,} resources read, "
        f"{ingest['stored']:,} stored, {ingest['quarantined']} quarantined, {rate:,.0f} a second, all encrypted.",
    ]
    if run["endpoint"] is None:
        lines += ["", f"No model: {metrics.get('reason') or run['stopped']}", ""]
        return "\n".join([*lines, *_next(home, "")])
    lines += [
        f"{run['attrition'].get('index', 0):,} index admissions; {metrics['n']:,} in the test set, "
        f"{metrics['events']:,} readmitted within 30 days ({metrics['events'] / metrics['n']:.1%}).",
        "",
        f"{'':<16}{'AUROC':>7}{'AUPRC':>8}{'Brier':>8}{'cal. slope':>12}{'cal. intercept':>16}",
        *(_figures(name, row) for name, row in [("this model", metrics), *metrics["baselines"].items()]),
        "These figures come from synthetic data: they show that the plumbing works, and nothing about patients.",
        "",
        f"One patient: {facts['prediction']['probability']:.1%} risk. {facts['why']}",
        f"Drift, usual patients:  {_drift(facts['drift_usual'])}",
        f"Drift, older patients:  {_drift(facts['drift_shifted'])}",
        "",
        "The way back from that prediction to the bytes:",
        *(f"  {line}" for line in facts["way"]),
        "",
        _chain(facts["audit"]),
        f"{told.seconds['all']:.0f} seconds in all: "
        + ", ".join(f"{name} {s:.0f}" for name, s in told.seconds.items() if name != "all")
        + ".",
        "",
    ]
    return "\n".join([*lines, *_next(home, facts["prediction"]["patient"])])


def _figures(name: str, row: dict[str, Any]) -> str:
    keys = ("auroc", "auprc", "brier", "calibration_slope", "calibration_intercept")
    values = ["   -" if row.get(key) is None else f"{row[key]:.3f}" for key in keys]
    return f"{name:<16}{values[0]:>7}{values[1]:>8}{values[2]:>8}{values[3]:>12}{values[4]:>16}"


def _drift(found: dict[str, Any]) -> str:
    if found["reason"]:
        return str(found["reason"])
    words = {"ok": "none found", "drift": "FOUND"}.get(found["state"], found["state"])
    first = f" ({', '.join(found['drifted'][:4])}, …)" if found["drifted"] else ""
    return f"{words}, {len(found['drifted'])} of {found['columns']} columns over {found['rows']} predictions{first}"


def _chain(audit: dict[str, Any]) -> str:
    if audit["intact"]:
        return (
            f"Audit chain intact: {audit['acts']} acts in {audit['segments']} segments, {audit['objects']} objects."
        )
    return f"AUDIT CHAIN NOT INTACT: {audit['first_bad']}"


def _program() -> str:
    """How this program was called, so that the next commands can be typed as they stand."""
    called = Path(sys.argv[0])
    if shutil.which("carelake") == str(called):
        return "carelake"
    return str(called.relative_to(Path.cwd())) if called.is_relative_to(Path.cwd()) else str(called)


def _next(home: Path, patient: str) -> list[str]:
    carelake = f"{_program()} -w {home}"
    first = f"{carelake} predict readmission --patient {patient}" if patient else f"{carelake} status"
    return [
        "Try next:",
        f"  {first}",
        f'  {carelake} search "Observation?code=718-7&value-quantity=lt8&_count=3" --json',
        f"  {carelake} serve --port 8080",
        "",
    ]
