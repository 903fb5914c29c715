"""``restore`` and ``drill``: a point put back, compared, its erasures replayed, and the trail told of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec

from carelake.access.identity import Caller
from carelake.access.rebinding import bind_operator
from carelake.apps.cli.backup import bars
from carelake.apps.cli.prove import verify_workspace
from carelake.apps.cli.session import Options, Session, answer, note
from carelake.apps.wiring import CONFIG, Workspace, import_tables, key_folder, settings_of
from carelake.audit.restores import Restores, TrailEnd, end_of, seal_all
from carelake.core.clock import Clock, SystemClock, instant
from carelake.core.errors import Conflict, Corrupt, Invalid
from carelake.core.ids import RandomIds
from carelake.core.settings import DatabaseSettings, ObjectSettings, Settings
from carelake.vault.backup.manifest import choose
from carelake.vault.backup.opening import drill_place, open_ring, unlike
from carelake.vault.backup.records import Original
from carelake.vault.backup.restore import Restoration, begin
from carelake.vault.keyring import Keyring
from carelake.vault.roots import outside_name
from carelake.vault.workspace import Vault

__all__ = ["drill", "restore"]

Step = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is to be put back, and with which keys.

    Attributes:
        keys: folder of the root key and of the original's files. heads: of the copy's; another one in a drill.
    """

    options: Options
    source: Path
    point: str | None
    at: str | None
    keys: Path
    heads: Path
    isolated: bool


def restore(
    options: Options,
    *,
    json_out: bool,
    source: Path,
    folder: Path | None,
    point: str | None,
    at: str | None,
    key_dir: Path | None,
    drill: bool,
) -> int:
    """Put a workspace back."""
    if drill:
        return _drill(options, json_out=json_out, source=source, point=point, at=at, key_dir=key_dir)
    if folder is None:
        raise Invalid("apps.restore_where", "Say where to restore to: `carelake restore IN DIR`, or --drill.")
    if any(path.exists() and not path.is_dir() for path in (folder, *folder.parents)):
        raise Invalid("apps.restore_where", "A workspace is restored into a folder; the path given leads to a file.")
    keys = (key_dir or key_folder(os.environ)).absolute()
    asked = _Asked(options, source.absolute(), point, at, keys, keys, isolated=False)
    with bars() as step:
        said = _restored(asked, folder.absolute(), step)
    return _say(said, json_out=json_out)


def drill(
    options: Options, *, json_out: bool, source: Path, point: str | None, at: str | None, key_dir: Path | None
) -> int:
    """Prove that a point can be put back."""
    return _drill(options, json_out=json_out, source=source, point=point, at=at, key_dir=key_dir)


def _drill(
    options: Options, *, json_out: bool, source: Path, point: str | None, at: str | None, key_dir: Path | None
) -> int:
    keys = (key_dir or key_folder(os.environ)).absolute()
    envelope = choose(source.absolute(), point, at)
    with drill_place() as (folder, heads), bars() as step:
        # The same point even if another one is published meanwhile.
        asked = _Asked(options, source.absolute(), envelope.point, None, keys, heads, isolated=True)
        said = {"drill": True, **_restored(asked, folder, step)}
    told = os.environ.get("CARELAKE_WORKSPACE")
    if options.workspace is not None or (told and (Path(told) / CONFIG).exists()):
        said["act"] = _recorded(options, said)
    return _say(said, json_out=json_out)


def _restored(asked: _Asked, folder: Path, step: Step) -> dict[str, Any]:
    began, clock = monotonic(), SystemClock()
    import_tables()

    def ring(path: Path, workspace: str, copy: str) -> Keyring:
        passphrase = os.environ.get("CARELAKE_PASSPHRASE")
        return open_ring(
            path, workspace, copy, root_keys=asked.keys, beside=asked.heads, passphrase=passphrase, clock=clock
        )

    work = begin(asked.source, folder, open_ring=ring, point=asked.point, at=asked.at, progress=step)
    settings = _settings(work, asked)
    work.assemble(settings)
    vault = Vault(folder, settings=settings, key_dir=asked.heads, keyring=work.keyring, clock=clock, ids=RandomIds())
    # Not `Workspace.close`: it seals, and where something is wrong nothing is to be sealed.
    with closing(vault):
        work.fill(vault)
        workspace = Workspace(vault)
        said = _opened(workspace, work, asked, step)
        workspace.trail.seal(workspace.gate.sealing(), closing=True)
    if _as_backed_up(said, work):
        work.finish(settings)
    return {**said, "rto_seconds": round(monotonic() - began, 3)}


def _as_backed_up(said: Mapping[str, Any], work: Restoration) -> bool:
    """Intact, but for objects whose bytes were missing before the backup was made."""
    problems = said["verified"]["problems"]
    known = len(work.body.missing)
    return all(one["kind"] == "missing" for one in problems) and len(problems) <= known


def _settings(work: Restoration, asked: _Asked) -> Settings:
    settings = msgspec.structs.replace(settings_of(work.settings_text(), os.environ), copy=work.copy)
    if not asked.isolated:
        return settings
    # A drill leaves no mark outside of its folder: no anchor, no bucket, no colder folders elsewhere.
    inside = ObjectSettings()
    return msgspec.structs.replace(
        settings,
        database=DatabaseSettings(),
        audit=msgspec.structs.replace(settings.audit, anchor=""),
        objects=msgspec.structs.replace(
            settings.objects, driver="local", cool_folder=inside.cool_folder, archive_folder=inside.archive_folder
        ),
    )


def _opened(workspace: Workspace, work: Restoration, asked: _Asked, step: Step) -> dict[str, Any]:
    """Compare, replay, tell, verify: in this order, before the folder is a workspace."""
    vault, point = workspace.vault, work.envelope.point
    original = Original(asked.keys, work.envelope.workspace, work.original)
    vault.database.check_workspace(outside_name(original.workspace, original.copy))
    if wrong := unlike(vault.database, work.body, step):
        raise Corrupt(
            "vault.restored_rows",
            f"Tables of the restored copy differ from what was backed up: {', '.join(wrong)}. Use another point.",
        )
    end, restores = end_of(vault), Restores(vault)
    left = restores.left_behind(workspace.trail.heads, original, work.restore)
    rpo = _rpo(left, end, vault.clock)
    erased = work.replay(vault)
    bound = bind_operator(vault, os.getuid())
    restores.clear_lease()
    workspace.trail.recover()
    caller = _caller(workspace, asked.options)
    with workspace.enter(caller, "workspace:restore", f"backup:{point}") as permit:
        permit.log.count(**_lost(left, end), erased=erased, bound=int(bound))
    # Before it is a workspace: what was erased is in none of its rows, ranges and files.
    workspace.replay(finish=True)
    restores.go_on(workspace.trail.heads, original, restore=work.restore, point=point)
    seal_all(vault, workspace.trail, workspace.gate.sealing())
    verified = verify_workspace(workspace, caller)
    return {
        "workspace": work.envelope.workspace,
        "point": point,
        "at": work.envelope.at,
        "label": work.body.label,
        "copy": work.copy,
        "folder": "" if asked.isolated else str(work.folder),
        "objects": work.body.objects.count,
        "missing_objects": len(work.body.missing),
        "tables": len(work.body.tables),
        "digests": all(digest for _, digest in work.body.tables.values()),
        "acts": end.last,
        "erasures_replayed": erased,
        "operator_bound": bound,
        "verified": verified,
        "rpo": rpo,
    }


def _caller(workspace: Workspace, options: Options) -> Caller:
    purpose = options.purpose if options.purpose is not None else os.environ.get("CARELAKE_PURPOSE")
    return workspace.local(options.as_, purpose, options.account)


def _lost(left: Mapping[str, Any] | None, end: TrailEnd) -> dict[str, int]:
    if not left or left["last"] <= end.last:
        return {}
    return {"lost_first": end.last + 1, "lost_last": left["last"], "lost": left["last"] - end.last}


def _rpo(left: Mapping[str, Any] | None, end: TrailEnd, clock: Clock) -> dict[str, Any]:
    """What was lost, as far as it is known.

    The head of the original beside the root key names the last act that was sealed in it. Without it there is only
    the age of the newest act that was saved.
    """
    newest = instant(end.at)
    said: dict[str, Any] = {"known": bool(left), "age_seconds": round((clock.now() - newest).total_seconds(), 3)}
    if not left:
        return {**said, "missing_acts": None, "missing_seconds": None}
    missing = max(0, left["last"] - end.last)
    told = left.get("at")
    seconds = max(0.0, (instant(told) - newest).total_seconds()) if missing and told else 0.0
    return {**said, "missing_acts": missing, "missing_seconds": round(seconds, 3)}


def _recorded(options: Options, said: Mapping[str, Any]) -> bool:
    """Put the drill on the trail of the workspace that was backed up; False when the one given is another."""
    with closing(Session(options)) as session:
        workspace = session.workspace
        if workspace.settings.workspace != said["workspace"]:
            raise Conflict(
                "apps.drill_other", "The workspace given is not the one of this backup; the drill itself ran."
            )
        with workspace.enter(session.caller(), "workspace:backup", f"backup:{said['point']}") as permit:
            problems = len(said["verified"]["problems"])
            permit.log.count(
                drill=1, objects=said["objects"], problems=problems, rto_ms=int(said["rto_seconds"] * 1000)
            )
    return True


def _say(said: dict[str, Any], *, json_out: bool) -> int:
    intact = said["verified"]["intact"]
    if json_out:
        answer(said)
    else:
        _words(said)
    return 0 if intact else 6


def _words(said: dict[str, Any]) -> None:
    where = "Drill" if said.get("drill") else f"Restored into {said['folder']}"
    note(f"{where}: point {said['point']} of {said['at']}, {said['objects']} objects, {said['acts']} acts.")
    if said["erasures_replayed"]:
        note(f"Replayed {said['erasures_replayed']} erasures that came after the point.")
    if said["operator_bound"]:
        note("You are bound to the principal `operator` of this workspace, in place of the user of the lost machine.")
    rpo = said["rpo"]
    if rpo["known"]:
        note(f"RPO: {rpo['missing_acts']} acts and {rpo['missing_seconds']:.1f} s are missing of what was sealed.")
    else:
        note(f"RPO: the newest act saved is {rpo['age_seconds']:.0f} s old; what came after it is not known here.")
    note(f"RTO: {said['rto_seconds']:.1f} s from the start to a verified workspace.")
    if not said["verified"]["intact"]:
        first = said["verified"]["first_bad"]
        note(f"NOT INTACT: {first['kind']} {first['name']}: {first['reason']}. The folder was not made a workspace.")
