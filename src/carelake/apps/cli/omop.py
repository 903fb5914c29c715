"""``omop`` and ``meds``: the lake in other models, in files of the user's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from carelake.apps.cli.parts_folder import PartsFolder
from carelake.apps.cli.session import Options, Session, answer, existing, note
from carelake.apps.cli.tables import progress, show
from carelake.core.errors import Invalid
from carelake.lake import asof
from carelake.lake.meds import export as to_meds
from carelake.lake.meds import read as of_meds
from carelake.lake.omop import export as to_omop
from carelake.lake.omop import validate, vocabulary
from carelake.lake.ready.parts import FORMATS, Export
from carelake.lake.ready.shards import PATIENTS, taken

__all__ = ["check", "check_meds", "export", "export_meds"]

_MOST_SHOWN = 30


def export(
    session: Session, *, json_out: bool, out: Path, vocabulary_at: Path | None, form: str, as_of: str | None
) -> None:
    """Write OMOP's tables, then validate what was written."""
    if form not in FORMATS:
        raise Invalid("lake.export_format", f"There is no such format; expected one of {', '.join(FORMATS)}.")
    known = _vocabulary(vocabulary_at)
    with _begun(session, out, as_of, known, what="omop", form=form) as (source, kept, step):
        made = to_omop.export(source, kept, form, step)
    findings = validate.validate(validate.datasets(out), known if vocabulary_at else None)
    told = {**made.as_json(), "findings": _findings(findings)}
    if json_out:
        answer(told)
    else:
        show(["table", "rows"], [{"table": name, "rows": rows} for name, rows in made.tables.items()])
        _remarks(made, findings)
    _refuse(findings)


def _vocabulary(folder: Path | None) -> vocabulary.Vocabulary:
    return vocabulary.NONE if folder is None else vocabulary.read(existing(folder))


@contextmanager
def _begun(
    session: Session, out: Path, as_of: str | None, known: vocabulary.Vocabulary, **said: Any
) -> Iterator[tuple[to_omop.Source, Export, Callable[[int, int], None]]]:
    """What an export reads and where it was left; the whole of it is one act."""
    workspace, caller = session.workspace, session.caller()
    vault, place = workspace.vault, PartsFolder(out)
    with progress() as bars, workspace.enter(caller, "lake:export", "lake", job=True) as permit:
        snapshot = asof.as_of(permit, vault, workspace.nouns, as_of) if as_of else None
        # Another principal, purpose or scope may see other rows: its parts would not go with these.
        kept = Export.begin(
            place,
            later={"snapshot": snapshot.ref if snapshot else ""},
            account=permit.account,
            principal=permit.principal,
            purpose=permit.purpose,
            scope=list(permit.scope),
            vocabulary=known.version,
            shards=f"{PATIENTS} of {vault.settings.lake.buckets}",
            **said,
        )
        snapshot = snapshot or asof.as_of(permit, vault, workspace.nouns, kept.said["snapshot"] or None)
        kept.start(snapshot=snapshot.ref)
        at = taken(permit, vault, snapshot)
        task = bars.add_task("Patients", total=None)
        source = to_omop.Source(permit, vault, snapshot, known, at, permit.account)
        yield source, kept, lambda done, of: bars.update(task, completed=done, total=of)


def _findings(findings: list[validate.Finding]) -> list[dict[str, Any]]:
    return [{"table": f.table, "field": f.field, "check": f.check, "rows": f.rows} for f in findings]


def _remarks(made: to_omop.Made, findings: list[validate.Finding]) -> None:
    told = made.as_json()
    for reason, count in told["left_out"].items():
        note(f"Not written: {count} ({reason}).")
    if told["unmapped"]:
        rows = sum(one["rows"] for one in told["unmapped"])
        note(f"{rows} rows of {len(told['unmapped'])} codes have concept 0; report.json lists the codes.")
    if findings:
        show(["table", "field", "check", "rows"], _findings(findings)[:_MOST_SHOWN])
    else:
        note("Every rule of the CDM's field list holds.")


def _refuse(findings: list[validate.Finding]) -> None:
    broken = [one for one in findings if not one.remark]
    if broken:
        raise Invalid(
            "omop.rules",
            f"{len(broken)} rules of the CDM's field list do not hold; see the findings.",
            rules=len(broken),
        )


def check(options: Options, *, json_out: bool, folder: Path, vocabulary_at: Path | None) -> None:
    """Findings of a folder of tables; what lies there is read, the workspace is not."""
    known = None if vocabulary_at is None else _vocabulary(vocabulary_at)
    findings = validate.validate(validate.datasets(existing(folder)), known)
    if json_out:
        answer({"findings": _findings(findings)})
    elif findings:
        show(["table", "field", "check", "rows"], _findings(findings))
    else:
        note("Every rule of the CDM's field list holds.")
    _refuse(findings)


def export_meds(session: Session, *, json_out: bool, out: Path, as_of: str | None) -> None:
    """Write a MEDS dataset."""
    with _begun(session, out, as_of, vocabulary.NONE, what="meds") as (source, kept, step):
        made = to_meds.export(source, kept, step)
    if json_out:
        answer(made.as_json())
    else:
        note(f"{made.events} events of {made.subjects} subjects, {made.codes} codes.")


def check_meds(options: Options, *, json_out: bool, folder: Path) -> None:
    """Numbers of a MEDS dataset that is right."""
    told = of_meds.check(existing(folder))
    if json_out:
        answer(told)
    else:
        note(f"{told['events']} events of {told['subjects']} subjects, {told['codes']} codes; every rule holds.")
