"""``features``: groups, records, ingest, computation and documentation."""

from __future__ import annotations

import re
import signal
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from threading import Event
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from carelake.apps.cli.object_files import clear_file
from carelake.apps.cli.session import Session, answer, existing, note
from carelake.apps.cli.tables import progress, show
from carelake.core.canonical import dump_pretty
from carelake.core.clock import instant, iso
from carelake.core.errors import Conflict, Invalid
from carelake.features.groups import FeatureGroups, Records, offline
from carelake.features.groups.compute import Computed, waiting
from carelake.features.groups.compute import compute as carry_out
from carelake.features.groups.definition import Group
from carelake.features.groups.documentation import as_json, markdown
from carelake.features.groups.ingest import ingest
from carelake.features.groups.known import every
from carelake.features.groups.refused import told as told_refused

__all__ = [
    "compute",
    "create_group",
    "delete_record",
    "docs",
    "drop_group",
    "flush",
    "get_record",
    "ingest_file",
    "list_groups",
    "list_records",
    "put_record",
    "refused",
    "show_group",
    "write_offline",
]

_TTL = re.compile(r"(\d{1,9}) ?(Seconds|Minutes|Hours|Days|Weeks)")


def _groups(session: Session) -> FeatureGroups:
    workspace = session.workspace
    return FeatureGroups(workspace.vault, workspace.nouns, workspace.outbox)


def list_groups(session: Session, *, json_out: bool) -> None:
    """List them."""
    workspace = session.workspace
    with (
        workspace.enter(session.caller(), "features:list", "features") as permit,
        workspace.vault.database.reading(permit) as tx,
    ):
        rows = [_told(one) for one in every(tx, permit.account)]
    if json_out:
        answer(rows)
    else:
        show(["name", "features", "record", "event_time", "online", "offline", "subject", "computed"], rows)


def _told(group: Group) -> dict[str, Any]:
    return {
        "name": group.name,
        "features": len(group.features),
        "record": group.record,
        "event_time": group.event,
        "online": group.online is not None,
        "offline": group.offline is not None,
        "subject": group.said.subject or None,
        "computed": bool(group.said.declaration),
        "created": group.created,
        "ref": group.ref,
    }


def show_group(session: Session, *, json_out: bool, name: str) -> None:
    """Show one, as DescribeFeatureGroup tells it."""
    workspace = session.workspace
    with workspace.enter(session.caller(), "features:list", "features") as permit:
        groups = _groups(session)
        told = groups.describe(permit, {"FeatureGroupName": name})
        group = groups.get(permit, name)
    if json_out:
        answer({**_plain(told), "Features": as_json(group)})
        return
    note(f"{told['FeatureGroupArn']}: {told['FeatureGroupStatus']}")
    show(["name", "type", "unit", "gates", "description"], as_json(group))


def _plain(told: dict[str, Any]) -> dict[str, Any]:
    """Times as instants."""
    return {name: iso(value) if hasattr(value, "astimezone") else value for name, value in told.items()}


def create_group(session: Session, *, json_out: bool, source: str) -> None:
    """Create one."""
    from carelake.features.groups.declaration import load, shipped

    workspace = session.workspace
    groups = _groups(session)
    if "." not in source and source not in shipped():
        raise Invalid("features.value", f"Give a .toml or .json file, or one of {', '.join(shipped())}.")
    with workspace.enter(session.caller(), "features:define", "features") as permit:
        if source.endswith(".py"):  # what somebody wrote is never run here
            raise Invalid(
                "features.declaration",
                "A declaration in Python writes itself: run `python FILE.py > FILE.toml` and give that.",
            )
        if source.endswith(".json"):
            made = groups.create(permit, _request(existing(Path(source))))
        else:
            declared = load(shipped().get(source) or _text(existing(Path(source))))
            made = groups.declare(permit, declared)
    if json_out:
        answer(made)
    else:
        note(made["FeatureGroupArn"])


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        raise Invalid("features.declaration", "The declaration cannot be read: expected TOML, in UTF-8.") from None


def _request(path: Path) -> dict[str, Any]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except msgspec.DecodeError:
        raise Invalid("features.file", "The file is no JSON object, as a CreateFeatureGroup request is.") from None


def drop_group(session: Session, *, json_out: bool, name: str) -> None:
    """Delete one."""
    with session.workspace.enter(session.caller(), "features:define", "features") as permit:
        _groups(session).delete(permit, {"FeatureGroupName": name})
    _done(json_out, {"deleted": name}, "Deleted.")


def _done(json_out: bool, said: Any, text: str) -> None:
    if json_out:
        answer(said)
    else:
        note(text)


def ingest_file(session: Session, *, json_out: bool, name: str, file: Path, known: str | None) -> None:
    """Write the rows of a file."""
    workspace = session.workspace
    with progress() as bars, workspace.enter(session.caller(), "features:write", "features", job=True) as permit:
        task = bars.add_task("Rows", total=None)
        done = ingest(
            permit,
            workspace.vault,
            workspace.outbox,
            name,
            existing(file),
            known=known,
            progress=lambda at, of: bars.update(task, completed=at, total=of or None),
        )
    said = asdict(done)
    if json_out:
        answer(said)
        return
    note(f"{done.stored} rows stored, {done.before} were before, {done.refused} refused; {done.online} online.")
    show(["reason", "rows"], [{"reason": k, "rows": v} for k, v in sorted(done.reasons.items())])


def put_record(
    session: Session, *, json_out: bool, name: str, values: list[str], store: list[str] | None, ttl: str | None
) -> None:
    """Put one record."""
    record = [_value(one) for one in values]
    with session.workspace.enter(session.caller(), "features:write", "features") as permit:
        Records(session.workspace.vault).put_record(
            permit, feature_group_name=name, record=record, target_stores=store, ttl_duration=_ttl(ttl)
        )
    _done(json_out, {"put": len(record)}, "Put.")


def _value(text: str) -> dict[str, Any]:
    name, sign, value = text.partition("=")
    if not sign:
        raise Invalid("features.value", "A value is given as FEATURE=VALUE.")
    return {"FeatureName": name, "ValueAsString": value}


def _ttl(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    found = _TTL.fullmatch(text)
    if found is None:
        raise Invalid("features.value", "A time to live is a number and a unit, for example 30Days or 12Hours.")
    return {"Unit": found[2], "Value": int(found[1])}


def get_record(session: Session, *, json_out: bool, name: str, record: str, feature: list[str] | None) -> None:
    """Show the latest record."""
    with session.workspace.enter(session.caller(), "features:read", "features") as permit:
        found = Records(session.workspace.vault).get_record(
            permit,
            feature_group_name=name,
            record_identifier_value_as_string=record,
            feature_names=feature,
            expiration_time_response="Enabled",
        )
    if json_out:
        answer(found)
        return
    if not found:
        note("There is no such record in the online store.")
        return
    rows = [
        {"feature": one["FeatureName"], "value": one.get("ValueAsString", one.get("ValueAsStringList"))}
        for one in found["Record"]
    ]
    show(["feature", "value"], rows)


def list_records(session: Session, *, json_out: bool, name: str, deleted: bool, most: int) -> None:
    """List identifiers."""
    made: list[str] = []
    token: str | None = None
    with session.workspace.enter(session.caller(), "features:read", "features") as permit:
        records = Records(session.workspace.vault)
        while len(made) < most:
            found = records.list_records(
                permit,
                feature_group_name=name,
                max_results=min(100, most - len(made)),
                next_token=token,
                include_soft_deleted_records=deleted,
            )
            made += found["RecordIdentifiers"]
            token = found.get("NextToken")
            if token is None:
                break
    if json_out:
        answer({"RecordIdentifiers": made, "more": token is not None})
    else:
        show(["record"], [{"record": one} for one in made])


def refused(session: Session, *, json_out: bool, name: str) -> None:
    """Tell what broke gates."""
    workspace = session.workspace
    with workspace.enter(session.caller(), "features:list", "features") as permit:
        rows = told_refused(permit, workspace.vault, name)
    if json_out:
        answer(rows)
    else:
        show(["source", "reason", "rows", "lines"], rows)


def delete_record(
    session: Session,
    *,
    json_out: bool,
    name: str,
    record: str,
    event_time: str,
    hard: bool,
    store: list[str] | None,
) -> None:
    """Delete one record."""
    with session.workspace.enter(session.caller(), "features:write", "features") as permit:
        Records(session.workspace.vault).delete_record(
            permit,
            feature_group_name=name,
            record_identifier_value_as_string=record,
            event_time=event_time,
            target_stores=store,
            deletion_mode="HardDelete" if hard else "SoftDelete",
        )
    _done(json_out, {"deleted": 1}, "Deleted.")


def flush(session: Session, *, json_out: bool, name: str | None) -> None:
    """Move the log into files."""
    workspace = session.workspace
    with progress() as bars, workspace.enter(session.caller(), "features:write", "features", job=True) as permit:
        task = bars.add_task("Rows", total=None)

        def tell(group: str, rows: int) -> None:
            bars.update(task, description=group, completed=rows)

        moved = offline.flush(permit, workspace.vault, name, progress=tell)
    if json_out:
        answer(moved)
    else:
        show(["group", "rows"], [{"group": k, "rows": v} for k, v in sorted(moved.items())])


def compute(session: Session, *, json_out: bool, name: str | None, follow: bool) -> None:
    """Compute declared features."""
    if follow:
        done = _following(session, name)
        _done(json_out, done, f"{done['records']} records in {done['turns']} turns.")
        return
    rows = [asdict(one) for one in _computed(session, name)]
    if json_out:
        answer(rows)
    else:
        show(["group", "patients", "records", "seq"], rows)
        show(["masked", "values"], [{"masked": k, "values": v} for one in rows for k, v in one["masked"].items()])


def _computed(session: Session, name: str | None) -> list[Computed]:
    workspace = session.workspace
    with progress() as bars, workspace.enter(session.caller(), "features:compute", "features", job=True) as permit:
        task = bars.add_task("Features", total=None)

        def tell(group: str, done: int, of: int) -> None:
            bars.update(task, description=group, completed=done, total=of)

        return carry_out(permit, workspace.vault, workspace.nouns, workspace.outbox, name, progress=tell)


def _following(session: Session, name: str | None) -> dict[str, int]:
    """Compute whenever the lake or the time has moved on, until SIGINT or SIGTERM."""
    workspace = session.workspace
    caller, stop, done = session.caller(), Event(), {"turns": 0, "records": 0}
    before = {one: signal.signal(one, lambda *_: stop.set()) for one in (signal.SIGINT, signal.SIGTERM)}
    note("Following; end with Ctrl-C.")
    try:
        while not stop.is_set():
            # A permit without an act: a look each time must not fill the trail.
            if waiting(workspace.gate.polling(), workspace.vault, caller.account):
                with suppress(Conflict):  # another one was faster: the next turn goes on from there
                    done["records"] += sum(one.records for one in _computed(session, name))
                    done["turns"] += 1
            stop.wait(workspace.settings.lake.follow_seconds)
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
    return done


def write_offline(session: Session, *, json_out: bool, name: str, out: Path, as_of: str | None) -> None:
    """Write the offline store as a file, in the clear."""
    if json_out and str(out) == "-":
        raise Invalid("features.value", "--out - and --json both write to standard output; give one of them.")
    workspace = session.workspace
    moment = None
    if as_of is not None:
        with suppress(ValueError):
            moment = instant(as_of)
        if moment is None:
            raise Invalid("features.value", "A moment is given as 2026-01-02T03:04:05Z.")
    with workspace.enter(session.caller(), "features:export", "features") as permit:
        found = offline.table(permit, workspace.vault, name, moment)
        permit.log.count(features_rows=len(found))
    made = pa.BufferOutputStream()
    pq.write_table(found, made)
    with clear_file(str(out), "wb") as file:
        file.write(made.getvalue())
    _done(json_out, {"rows": len(found), "out": str(out)}, f"{len(found)} rows written.")


def docs(session: Session, *, json_out: bool, name: str | None, out: Path | None) -> None:
    """Document features, as Markdown or JSON, in a file or on standard output."""
    workspace = session.workspace
    with (
        workspace.enter(session.caller(), "features:list", "features") as permit,
        workspace.vault.database.reading(permit) as tx,
    ):
        chosen = every(tx, permit.account) if name is None else [_groups(session).get(permit, name)]
    told = {one.name: as_json(one) for one in chosen}
    if json_out and out is None:
        answer(told)
        return
    text = "\n\n".join(markdown(one) for one in chosen) + "\n"
    with clear_file("-" if out is None else str(out), "wb") as file:
        file.write((dump_pretty(told) + "\n" if json_out else text).encode())
