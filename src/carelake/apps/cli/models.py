"""``model``: versions, who lets them through, and what they say of themselves."""

from __future__ import annotations

import base64
import os
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from carelake.apps.cli.prove import noun_json
from carelake.apps.cli.session import Options, Session, answer, note
from carelake.apps.cli.tables import show
from carelake.core.clock import iso
from carelake.core.errors import Conflict, Invalid, NotFound
from carelake.core.permit import Permit

__all__ = [
    "model_card",
    "model_decide",
    "model_delete",
    "model_export",
    "model_groups",
    "model_lifecycle",
    "model_list",
    "model_show",
    "model_verify",
    "model_verify_by",
    "proof_of",
]

_FORMS = {"html": "model-card.html", "xml": "model-card.xml", "json": "model-card.json", "tripod": "tripod-ai.json"}


def model_list(session: Session, *, json_out: bool, group: str | None) -> None:
    """List model versions."""
    workspace = session.workspace
    with workspace.enter(session.caller(), "model:read", "models") as permit:
        found = workspace.platform.registry.versions(permit, group)
    rows = [{"ref": n.ref, "state": n.state, **n.body} for n in found]
    if json_out:
        answer(rows)
    else:
        show(["name", "version", "state", "author", "ref"], rows)


def model_groups(session: Session, *, json_out: bool) -> None:
    """List groups."""
    workspace = session.workspace
    platform = workspace.platform
    with workspace.enter(session.caller(), "model:read", "models") as permit:
        listed = platform.model_groups.list(permit, {"SortBy": "Name", "SortOrder": "Ascending"})
        rows = [_group(platform, permit, one) for one in listed["ModelPackageGroupSummaryList"]]
    if json_out:
        answer(rows)
    else:
        show(["group", "versions", "approved", "plan", "created"], rows)


def _group(platform: Any, permit: Permit, summary: Mapping[str, Any]) -> dict[str, Any]:
    name = str(summary["ModelPackageGroupName"])
    versions = platform.registry.versions(permit, name)
    approved = [one.body["version"] for one in versions if one.state == "Approved"]
    plans = [one.body["version"] for one in platform.registry.plans.versions(permit, name) if one.state == "Approved"]
    return {
        "group": name,
        "versions": len(versions),
        "approved": max(approved, default=None),
        "plan": plans[0] if plans else None,
        "created": iso(summary["CreationTime"]),
    }


def model_show(session: Session, *, json_out: bool, ref: str) -> None:
    """Show a model version."""
    workspace = session.workspace
    registry = workspace.platform.registry
    with workspace.enter(session.caller(), "model:read", ref) as permit:
        noun = registry.get(permit, ref)
        metrics = registry.files(permit, ref).metrics if registry.has_files(permit, ref) else {}
        package = _plain(workspace.platform.model_packages.describe(permit, {"ModelPackageName": ref}))
        decided = registry.decided(permit, ref)
        verdicts = registry.plans.verdicts(permit, ref)
        evidence = [one.body() for one in registry.evidence(permit, ref)]
    package.pop("ModelCard", None)
    said = {
        **noun_json(noun),
        "metrics": metrics,
        "package": package,
        "evidence": evidence,
        "approval": decided,
        "verdict": noun_json(verdicts[-1]) if verdicts else None,
    }
    if json_out:
        answer(said)
        return
    figures = {k: v for k, v in metrics.items() if isinstance(v, float | int)}
    show(["figure", "value"], [{"figure": k, "value": v} for k, v in figures.items()])
    show(["name", "ok", "found"], evidence)
    stage = package.get("ModelLifeCycle", {})
    note(f"{noun.ref}: {noun.state}; {stage.get('Stage', 'no stage')} {stage.get('StageStatus', '')}")
    if decided is not None:
        via = f" (spoken for by {decided['via']})" if decided.get("via") else ""
        note(f"{decided['decision']} by {decided['approver']}{via} at {decided['at']}, signed: {decided['ref']}")
    if verdicts:
        note(f"Change plan v{verdicts[-1].body['plan_version']}: {verdicts[-1].state}")


def model_decide(
    session: Session, *, json_out: bool, ref: str, approve: bool, description: str, reauth: bool
) -> None:
    """Approve or reject a model version."""
    from carelake.pipelines import releases

    workspace = session.workspace
    decide = releases.approve if approve else releases.reject
    proof = proof_of(session, reauth)
    done = decide(workspace.platform, session.caller(), ref, description=description, proof=proof)
    if json_out:
        answer({**noun_json(done.noun), **({"endpoints": list(done.endpoints)} if done.endpoints else {})})
        return
    note(f"{ref} is {done.noun.state}.")
    for name in done.endpoints:
        note(f"Endpoint {name} does not serve it any more; the approved version before it does, if there is one.")


def proof_of(session: Session, asked: bool) -> Any:
    """A fresh proof of who calls: an access token, from the environment or typed where it is not shown."""
    if not asked:
        return None
    from carelake.access.proofs import prove

    token = os.environ.get("CARELAKE_TOKEN", "")
    if not token and sys.stdin.isatty():
        from getpass import getpass

        token = getpass("Access token that you were just given: ")
    elif not token:
        token = sys.stdin.readline(20_000).strip()
    if not token:
        raise Invalid("apps.no_token", "--reauth needs an access token: CARELAKE_TOKEN, or on standard input.")
    return prove(session.workspace.identity, token)


def model_card(session: Session, *, json_out: bool, ref: str, form: str, out: Path | None) -> None:
    """Write a model version's card; it holds figures of groups, never of a patient."""
    if form not in _FORMS:
        raise Invalid("apps.card_format", f"A card is written as {', '.join(_FORMS)}.")
    path = out or Path(_FORMS[form])
    workspace = session.workspace
    with workspace.enter(session.caller(), "model:read", ref) as permit:
        data = workspace.platform.papers.card(permit, ref, form)
    path.write_bytes(data)
    if json_out:
        answer({"model": ref, "format": form, "out": str(path)})
    else:
        note(f"Wrote {path}.")


def model_lifecycle(
    session: Session, *, json_out: bool, ref: str, stage: str | None, status: str | None, description: str
) -> None:
    """Show or set a version's stage."""
    from carelake.models.packages.lifecycle import rules

    workspace = session.workspace
    packages = workspace.platform.model_packages
    if stage is not None:
        if status is None:
            raise Invalid("apps.stage_status", "Give a stage and its status, for example QA PendingApproval.")
        said = {"Stage": stage, "StageStatus": status, "StageDescription": description}
        action = "model:approve" if status in rules().decided else "model:manage"
        with workspace.enter(session.caller(), action, ref) as permit:
            packages.update(permit, {"ModelPackageArn": ref, "ModelLifeCycle": said})
    with workspace.enter(session.caller(), "model:read", ref) as permit:
        now = packages.describe(permit, {"ModelPackageName": ref}).get("ModelLifeCycle") or {}
    if json_out:
        answer({"model": ref, **now})
    else:
        note(f"{ref}: {now.get('Stage', 'no stage')} {now.get('StageStatus', '')}")


def model_delete(session: Session, *, json_out: bool, ref: str) -> None:
    """Delete a version."""
    workspace = session.workspace
    with workspace.enter(session.caller(), "model:manage", ref) as permit:
        workspace.platform.model_packages.delete(permit, {"ModelPackageName": ref})
    if json_out:
        answer({"model": ref, "deleted": True})
    else:
        note(f"{ref} is deleted.")


def model_export(session: Session, *, json_out: bool, ref: str, out: Path, onnx: bool) -> None:
    """Write a version as a signed folder."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise Conflict("apps.not_empty", "The folder is not empty; a model is written to a new or empty one.")
    workspace = session.workspace
    with workspace.enter(session.caller(), "model:manage", ref) as permit:
        files = workspace.platform.papers.bundle(permit, ref, out.absolute().name, onnx=onnx)
        pem = workspace.vault.keyring.public_key_pem(permit.account, "models").decode()
    out.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (out / name).write_bytes(data)
    if json_out:
        answer({"model": ref, "out": str(out), "files": sorted(files), "public_key": pem})
    else:
        note(f"Wrote {len(files)} files to {out}. Whoever checks them needs this key, from you:")
        note(pem)


def model_verify(session: Session, *, json_out: bool, folder: Path) -> None:
    """Check a folder by this workspace's keys."""
    workspace = session.workspace
    account = session.caller().account
    with workspace.enter(session.caller(), "model:read", "models"):
        keyring = workspace.vault.keyring
        found = _verified(folder, lambda data, mark: keyring.verify(data, mark, account=account, purpose="models"))
    _tell(json_out, folder, found)


def model_verify_by(options: Options, *, json_out: bool, folder: Path, key: Path) -> None:
    """Check a folder by a public key; needs no workspace."""
    from carelake.vault.drafting import signed_by

    pem = key.read_bytes() if key.is_file() and key.stat().st_size < 10_000 else b""
    lines = [line for line in pem.split() if b"-" not in line and line not in (b"PUBLIC", b"BEGIN", b"END")]
    try:
        der = base64.b64decode(b"".join(lines), validate=True)
        signed_by(der, b"", b"")
    except (ValueError, AssertionError):
        raise Invalid("apps.public_key", "The file is no public key on the curve P-256, in PEM.") from None
    _tell(json_out, folder, _verified(folder, lambda data, mark: signed_by(der, data, mark)))


def _verified(folder: Path, check: Any) -> dict[str, str]:
    from carelake.models import bundle

    if not folder.is_dir():
        raise NotFound("apps.no_such_path", "There is no such folder; check the path given.")
    inside = sorted(folder.iterdir())
    if len(inside) > bundle.MOST_FILES or any(one.is_symlink() or not one.is_file() for one in inside):
        raise Invalid("apps.bundle", "The folder is none that `model export` writes: links, folders, too many files.")
    if sum(one.stat().st_size for one in inside) > bundle.MOST_BYTES:
        raise Invalid("apps.bundle", "The folder is larger than any that `model export` writes.")
    return bundle.checked({one.name: one.read_bytes() for one in inside}, check)


def _tell(json_out: bool, folder: Path, found: Mapping[str, str]) -> None:
    if json_out:
        answer({"out": str(folder), "verified": True, "files": dict(found)})
    else:
        note(f"{folder}: the signature holds, and so do {len(found)} files.")


def _plain(value: Any) -> Any:
    """Moments as text."""
    if isinstance(value, datetime):
        return iso(value)
    if isinstance(value, dict):
        return {key: _plain(inside) for key, inside in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list) else value
