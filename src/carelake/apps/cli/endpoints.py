"""``endpoint``: deploy, status, invoke, roll back, and what was captured."""

from __future__ import annotations

import json
import secrets
import sys
from pathlib import Path
from typing import Any

from carelake.apps.cli.session import Session, answer, note
from carelake.apps.cli.tables import show
from carelake.core.errors import CarelakeError, Invalid, NotFound

__all__ = [
    "captures_verify",
    "endpoint_attest",
    "endpoint_delete",
    "endpoint_deploy",
    "endpoint_invoke",
    "endpoint_list",
    "endpoint_outcomes",
    "endpoint_rollback",
    "endpoint_shadows",
    "endpoint_status",
    "endpoint_transform",
]

_TYPES = {".json": "application/json", ".jsonl": "application/jsonlines", ".csv": "text/csv"}
_MOST_BYTES = 64 * 1024 * 1024


def endpoint_list(session: Session, *, json_out: bool) -> None:
    """List endpoints."""
    workspace, caller = session.workspace, session.caller()
    with (
        workspace.enter(caller, "status:read", "endpoints") as permit,
        workspace.vault.database.reading(permit) as connection,
    ):
        found = workspace.nouns.find(connection, "endpoint", caller.account)
    rows = [{"ref": n.ref, "state": n.state, **n.body} for n in found]
    if json_out:
        answer(rows)
    else:
        show(["name", "state", "model_name", "model_version", "ref"], rows)


def endpoint_deploy(
    session: Session,
    *,
    json_out: bool,
    name: str,
    model: str | None,
    told: dict[str, Any],
    config: Path | None,
    sandbox: bool | None = None,
) -> None:
    """Deploy a model version."""
    workspace, caller = session.workspace, session.caller()
    said = _config(config) if config is not None else {}
    shadows = [*said.get("ShadowProductionVariants", ()), *({"ModelName": one} for one in told["shadows"])]
    policy = said.get("DeploymentConfig") or _policy(told)
    with workspace.enter(caller, "endpoint:deploy", name) as permit:
        endpoints = workspace.endpoints
        variants = said.get("ProductionVariants", ())
        ref = "" if variants else model or _newest(session, permit, name)
        boxed = said.get("EnableNetworkIsolation", sandbox) if sandbox is None else sandbox
        noun = endpoints.deploy(permit, name, ref, policy, variants=variants, shadows=shadows, sandbox=boxed)
        found = endpoints.status(permit, name, alarms=False)
    found["EndpointRef"] = noun.ref
    if json_out:
        answer({"endpoint": noun.ref, **found})
    else:
        note(f"Endpoint {name}: {found['EndpointStatus']}, model {found['model_name']} v{found['model_version']}")
        _traffic(found)
        _sandbox(found)


def _sandbox(found: dict[str, Any]) -> None:
    """How it is scored, in words that say no more than is so."""
    for ref, one in (found["sandbox"] or {}).items():
        outer = f", {one['outer']} around it" if one.get("outer") else ""
        note(f"Scored in a sandbox: {ref}, trust {one['trust']}{outer}; it protects from what docs/sandbox.md lists.")


def endpoint_attest(session: Session, *, json_out: bool, name: str, model: str | None, nonce: str | None) -> None:
    """Measure a sandbox."""
    try:
        asked = bytes.fromhex(nonce) if nonce is not None else secrets.token_bytes(32)
    except ValueError:
        asked = b""
    if not 8 <= len(asked) <= 512:
        raise Invalid("apps.nonce", "--nonce is 16 to 1024 hexadecimal digits, two a byte.")
    workspace = session.workspace
    with workspace.enter(session.caller(), "model:read", "endpoints") as permit:
        ref = model or _newest(session, permit, name)
        found, document = workspace.endpoints.attest(permit, name, ref, asked)
    if json_out:
        answer({"model": ref, "trust": "process", "measurements": found, "document": document.hex()})
    else:
        for register, value in found.items():
            note(f"{register} {value}")
        note("Trust: process. The host that this ran on measured itself; no hardware vouches for it.")


def _newest(session: Session, permit: Any, name: str) -> str:
    from carelake.models.registry import APPROVED

    workspace = session.workspace
    with workspace.vault.database.reading(permit) as tx:
        found = workspace.nouns.find(tx, "model", permit.account, name=name)
    approved = [one for one in found if one.state == APPROVED]
    if not approved:
        raise NotFound("apps.no_approved", "No version of a model of that name is Approved; give one by --model REF.")
    return str(max(approved, key=lambda one: int(one.body["version"])).ref)


def _config(path: Path) -> dict[str, Any]:
    try:
        said = json.loads(path.read_bytes())
    except (OSError, ValueError):
        said = None
    kinds: dict[str, Any] = {"DeploymentConfig": dict, "ProductionVariants": list, "ShadowProductionVariants": list}
    kinds["EnableNetworkIsolation"] = bool
    if not isinstance(said, dict) or any(not isinstance(said.get(name, of()), of) for name, of in kinds.items()):
        raise Invalid("apps.endpoint_config", "The configuration is not a file with a JSON object.")
    if unknown := said.keys() - kinds.keys():
        raise Invalid("apps.endpoint_config", f"The configuration has {len(unknown)} members that are not known.")
    return said


def _policy(told: dict[str, Any]) -> dict[str, Any] | None:
    kinds = {"all-at-once": "ALL_AT_ONCE", "canary": "CANARY", "linear": "LINEAR"}
    if told["policy"] not in kinds:
        raise Invalid("apps.endpoint_policy", f"--policy is one of {', '.join(kinds)}.")
    kind = kinds[told["policy"]]
    if kind == "ALL_AT_ONCE" and not told["keep"]:
        return None
    size = {"Type": "CAPACITY_PERCENT", "Value": told["percent"]}
    routing = {"Type": kind, "WaitIntervalInSeconds": 0 if kind == "ALL_AT_ONCE" else told["wait"]}
    routing |= {"CANARY": {"CanarySize": size}, "LINEAR": {"LinearStepSize": size}}.get(kind, {})
    update = {"TrafficRoutingConfiguration": routing, "TerminationWaitInSeconds": told["keep"]}
    if told["timeout"]:
        update["MaximumExecutionTimeoutInSeconds"] = told["timeout"]
    alarms = [{"AlarmName": one} for one in told["alarms"]]
    return {"BlueGreenUpdatePolicy": update, **({"AutoRollbackConfiguration": {"Alarms": alarms}} if alarms else {})}


def endpoint_status(session: Session, *, json_out: bool, name: str) -> None:
    """Tell where an endpoint stands; what is due is done first."""
    workspace = session.workspace
    with workspace.enter(session.caller(), "model:read", "endpoints") as permit:
        endpoints = workspace.endpoints
        endpoints.settle(permit, name)
        found = endpoints.status(permit, name)
    if json_out:
        answer(found)
        return
    note(f"Endpoint {name}: {found['EndpointStatus']}, revision {found['revision']}")
    stage = found["stage"]
    if stage["name"] == "baking":
        note(f"Step {stage['step']} of {stage['steps']}, {stage['seconds_left']:g} s left")
    if found.get("FailureReason"):
        note(found["FailureReason"])
    _traffic(found)
    _sandbox(found)
    show(
        ["VariantName", "AlarmName", "StateValue", "StateReason"],
        found["alarms"],
    )


def _traffic(found: dict[str, Any]) -> None:
    show(["VariantName", "CurrentWeight", "EndpointRef"], found["ProductionVariants"])


def endpoint_rollback(session: Session, *, json_out: bool, name: str) -> None:
    """Take traffic back."""
    workspace = session.workspace
    with workspace.enter(session.caller(), "endpoint:deploy", name) as permit:
        found = workspace.endpoints.rollback(permit, name)
    if json_out:
        answer(found)
    else:
        note(f"Endpoint {name}: {found['EndpointStatus']}, model {found['model_name']} v{found['model_version']}")
        _traffic(found)


def endpoint_delete(session: Session, *, json_out: bool, name: str) -> None:
    """Take an endpoint out."""
    workspace = session.workspace
    with workspace.enter(session.caller(), "endpoint:deploy", name) as permit:
        workspace.endpoints.delete(permit, name)
    if json_out:
        answer({"EndpointName": name, "EndpointStatus": "OutOfService"})
    else:
        note(f"Endpoint {name} is out; what it captured stays.")


def endpoint_invoke(
    session: Session,
    *,
    json_out: bool,
    name: str,
    patient: str | None,
    body: Path | None,
    content_type: str | None,
    accept: str,
    variant: str | None,
) -> None:
    """Predict for a patient, or score rows."""
    if (patient is None) == (body is None):
        raise Invalid("apps.invoke", "Give --patient ID, or --in FILE with rows.")
    if patient is not None:
        from carelake.apps.cli.use import predict

        predict(session, json_out=json_out, endpoint=name, patient=patient, days=None)
        return
    assert body is not None
    sent = _read(body)
    kind = content_type or _TYPES.get(body.suffix.lower(), "application/json")
    workspace = session.workspace
    with workspace.enter(session.caller(), "endpoint:invoke", name) as permit:
        endpoints = workspace.endpoints
        told, _, chosen = endpoints.invoke(
            permit, name, sent, kind, "application/json" if json_out else accept, variant
        )
        endpoints.write_back(permit)
    if json_out:
        answer({**json.loads(told), "variant": chosen})
    else:
        sys.stdout.write(told.decode())


def _read(path: Path) -> bytes:
    try:
        data = sys.stdin.buffer.read(_MOST_BYTES + 1) if str(path) == "-" else path.read_bytes()
    except OSError:
        raise NotFound("apps.no_file", "There is no such file to read.") from None
    if len(data) > _MOST_BYTES:
        raise Invalid(
            "apps.invoke", "More than 64 MiB of rows; `carelake endpoint transform` takes files of any size."
        )
    return data


def endpoint_transform(session: Session, *, json_out: bool, name: str, source: Path, out: Path, rows: int) -> None:
    """Score a file."""
    from carelake.apps.cli.transforming import transform

    found = transform(session, name, source, out, rows)
    if json_out:
        answer(found)
    else:
        again = f", {found['resumed_at']} of them before" if found["resumed_at"] else ""
        note(f"{found['rows']} rows scored{again}: {out}")


def endpoint_outcomes(session: Session, *, json_out: bool, name: str, labels: Path | None) -> None:
    """Join outcomes."""
    from carelake.pipelines import outcomes

    workspace, caller = session.workspace, session.caller()
    if labels is None:
        with workspace.platform.acting("pipeline", caller, "lake:sync", "lake", job=True) as permit:
            workspace.platform.sync(permit)
    with workspace.enter(caller, "endpoint:outcomes", name) as permit:
        if labels is None:
            found = outcomes.from_record(workspace.platform, permit, name)
        else:
            found = outcomes.from_file(workspace.platform, permit, name, iter(_read(labels).splitlines()))
    if json_out:
        answer({"endpoint": name, **found})
    else:
        note(
            f"{found['joined']} outcomes joined; {', '.join(f'{n} {k}' for k, n in found.items() if k != 'joined')}."
        )


def endpoint_shadows(session: Session, *, json_out: bool, name: str) -> None:
    """Compare shadows."""
    workspace = session.workspace
    with workspace.enter(session.caller(), "status:read", "endpoints") as permit:
        found = workspace.endpoints.shadow_report(permit, name)
    if json_out:
        answer(found)
    else:
        show(["VariantName", "rows", "failed", "psi", "linf", "mean", "answered_mean"], found)


def captures_verify(session: Session, *, json_out: bool, name: str) -> None:
    """Check the captures."""
    workspace = session.workspace
    with workspace.enter(session.caller(), "status:read", "endpoints") as permit:
        found = workspace.endpoints.verify_captures(permit, name)
    if json_out:
        answer(found.as_json())
    else:
        note(
            f"{found.requests} requests, {found.predictions} predictions, {found.erased} erased with their patients: "
            f"{found.gaps} gaps, {found.unproven} without an act, {found.lost} lost."
        )
    if not found.whole:
        raise _gap()


def _gap() -> CarelakeError:
    from carelake.core.errors import Corrupt

    return Corrupt(
        "apps.captures", "Captures of the endpoint are missing; restore a backup, and look into the trail."
    )
