"""``carelake``: the commands, grouped by the journey of the data. Declarations only, so that help is quick."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from carelake import __version__
from carelake.apps.cli.arguments import hoist
from carelake.apps.cli.grouping import JourneyGroup
from carelake.apps.cli.session import Options, answers_only, run

__all__ = ["main"]

_START, _RECORD, _LEARN, _USE, _PROVE, _WHO = (
    "Start",
    "Record: raw bytes to FHIR",
    "Learn: lake, features, models",
    "Use: endpoints and monitors",
    "Prove: trail and lineage",
    "Who may",
)

app = typer.Typer(
    name="carelake",
    help="Raw clinical data to a governed, monitored prediction, with proof. Start with: carelake demo",
    no_args_is_help=True,
    add_completion=False,
    cls=JourneyGroup,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _group(name: str, words: str, panel: str) -> typer.Typer:
    group = typer.Typer(help=words, no_args_is_help=True, rich_markup_mode=None)
    app.add_typer(group, name=name, rich_help_panel=panel)
    return group


JsonOut = Annotated[bool, typer.Option("--json", help="One JSON value on stdout; progress stays on stderr.")]


@app.callback(invoke_without_command=True)
def options(
    context: typer.Context,
    workspace: Annotated[
        Path | None, typer.Option("-w", "--workspace", help="The workspace's folder. [env: CARELAKE_WORKSPACE]")
    ] = None,
    as_: Annotated[str | None, typer.Option("--as", help="Principal to act as; default: yours.")] = None,
    purpose: Annotated[
        str | None, typer.Option(help="HL7 PurposeOfUse code; default HOPERAT. [env: CARELAKE_PURPOSE]")
    ] = None,
    account: Annotated[str | None, typer.Option(help="Account to act in; default production.")] = None,
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    """Global options; they may also stand after the command."""
    if version:
        typer.echo(f"carelake {__version__}")
        raise typer.Exit
    context.obj = Options(workspace, as_, purpose, account)


def _options(context: typer.Context) -> Options:
    return context.ensure_object(Options)


# --- Start ------------------------------------------------------------------------------------------------------


@app.command(rich_help_panel=_START)
def init(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.")],
    json: JsonOut = False,
) -> None:
    """Make a workspace: encrypted, with its root key kept outside of it."""
    run("start:init", _options(context), json_out=json, opens=False, folder=folder)


@app.command(rich_help_panel=_START)
def demo(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to leave the workspace.")] = Path(
        "demo-workspace"
    ),
    patients: Annotated[int, typer.Option(help="Patients of the synthetic hospital.", min=50)] = 2600,
    seed: Annotated[int, typer.Option(help="Seed of the synthetic hospital.")] = 7,
    json: JsonOut = False,
) -> None:
    """Run the whole loop on a synthetic hospital: record, lake, model, endpoint, drift, proof."""
    run("demo:demo", _options(context), json_out=json, opens=False, folder=folder, patients=patients, seed=seed)


@app.command(rich_help_panel=_START)
def status(context: typer.Context, json: JsonOut = False) -> None:
    """Show where the loop stands: counts and states, no patient data."""
    run("start:status", _options(context), json_out=json)


@app.command(rich_help_panel=_START)
def synth(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Folder for the files.")],
    patients: Annotated[int, typer.Option(help="How many patients.", min=1)] = 1000,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 1,
    shift: Annotated[
        str | None, typer.Option(help="Name of a population shift; `synth --help` of docs lists.")
    ] = None,
    start: Annotated[str | None, typer.Option(help="First day of the window, YYYY-MM-DD.")] = None,
    years: Annotated[float | None, typer.Option(help="Length of the window.")] = None,
    workers: Annotated[int, typer.Option(help="Processes.", min=1, max=16)] = 2,
    json: JsonOut = False,
) -> None:
    """Make a synthetic hospital with known truth, as FHIR NDJSON."""
    run(
        "start:synth",
        _options(context),
        json_out=json,
        opens=False,
        out=out,
        patients=patients,
        seed=seed,
        shift=shift,
        start=start,
        years=years,
        workers=workers,
    )


# --- Record -----------------------------------------------------------------------------------------------------


@app.command(rich_help_panel=_RECORD)
def ingest(
    context: typer.Context,
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Files and folders; .gz too.")],
    json: JsonOut = False,
) -> None:
    """Read FHIR files into the record; what is not valid goes to quarantine with its line and the reason."""
    run("record:ingest", _options(context), json_out=json, paths=paths)


quarantine = _group("quarantine", "What was refused at ingest, and why.", _RECORD)


@quarantine.command("list")
def quarantine_list(
    context: typer.Context,
    limit: Annotated[int | None, typer.Option(help="At most this many; default all.", min=1)] = None,
    json: JsonOut = False,
) -> None:
    """List refusals: source, line, path, code, message."""
    run("record:quarantine", _options(context), json_out=json, limit=limit)


@app.command(rich_help_panel=_RECORD)
def search(
    context: typer.Context,
    query: Annotated[str, typer.Argument(help='A FHIR search, for example "Patient?gender=female".')],
    json: JsonOut = False,
) -> None:
    """Search the record; an unknown parameter is an error, never an unfiltered answer."""
    run("record:search", _options(context), json_out=json, query=query)


@app.command(rich_help_panel=_RECORD)
def read(
    context: typer.Context,
    reference: Annotated[str, typer.Argument(metavar="TYPE/ID", help="For example Patient/123.")],
    json: JsonOut = False,
) -> None:
    """Read one resource."""
    run("record:read", _options(context), json_out=json, reference=reference)


# --- Learn ------------------------------------------------------------------------------------------------------

lake = _group("lake", "Iceberg tables that follow the record.", _LEARN)


@lake.command("sync")
def lake_sync(context: typer.Context, json: JsonOut = False) -> None:
    """Bring the lake up to the record's change feed."""
    run("learn:sync", _options(context), json_out=json)


@app.command("run", rich_help_panel=_LEARN)
def run_recipe(
    context: typer.Context,
    recipe: Annotated[str, typer.Argument(help="Name of a recipe: readmission.")],
    approve_as: Annotated[
        str, typer.Option(help="Principal who approves the model; must not be its author.")
    ] = "reviewer",
    new: Annotated[bool, typer.Option("--new", help="Do not resume an interrupted run.")] = False,
    json: JsonOut = False,
) -> None:
    """Run a pipeline from the record to a deployed endpoint; an interrupted run resumes at its step."""
    run("learn:run_recipe", _options(context), json_out=json, recipe=recipe, approve_as=approve_as, new=new)


model = _group("model", "Model versions: list, show, approve, reject, card.", _LEARN)


@model.command("list")
def model_list(context: typer.Context, json: JsonOut = False) -> None:
    """List model versions and their states."""
    run("learn:model_list", _options(context), json_out=json)


@model.command("show")
def model_show(context: typer.Context, ref: str, json: JsonOut = False) -> None:
    """Show a model version: metrics beside baselines, subgroups, state."""
    run("learn:model_show", _options(context), json_out=json, ref=ref)


@model.command("approve")
def model_approve(context: typer.Context, ref: str, json: JsonOut = False) -> None:
    """Approve a model version (as a principal who did not train it)."""
    run("learn:model_decide", _options(context), json_out=json, ref=ref, approve=True)


@model.command("reject")
def model_reject(context: typer.Context, ref: str, json: JsonOut = False) -> None:
    """Reject a model version."""
    run("learn:model_decide", _options(context), json_out=json, ref=ref, approve=False)


@model.command("card")
def model_card(
    context: typer.Context,
    ref: str,
    out: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("model-card.html"),
    json: JsonOut = False,
) -> None:
    """Write a model version's card as one HTML page."""
    run("learn:model_card", _options(context), json_out=json, ref=ref, out=out)


# --- Use --------------------------------------------------------------------------------------------------------


@app.command(rich_help_panel=_USE)
def predict(
    context: typer.Context,
    endpoint: Annotated[str, typer.Argument(help="Name or ref of an endpoint.")],
    patient: Annotated[str | None, typer.Option(help="Id of one patient.")] = None,
    days: Annotated[
        float | None, typer.Option(help="Morning list: everyone whose last stay ended within so many days.")
    ] = None,
    json: JsonOut = False,
) -> None:
    """Predict for one patient, with reasons, or for the morning list; each prediction is kept and proven."""
    run("use:predict", _options(context), json_out=json, endpoint=endpoint, patient=patient, days=days)


endpoint_group = _group("endpoint", "Endpoints that remember every prediction.", _USE)


@endpoint_group.command("list")
def endpoint_list(context: typer.Context, json: JsonOut = False) -> None:
    """List endpoints and the models behind them."""
    run("use:endpoint_list", _options(context), json_out=json)


monitor = _group("monitor", "Checks over what was predicted.", _USE)


@monitor.command("check")
def monitor_check(
    context: typer.Context,
    endpoint: Annotated[str, typer.Argument(help="Name or ref of an endpoint.")],
    since: Annotated[str | None, typer.Option(help="Only predictions made at or after this instant.")] = None,
    json: JsonOut = False,
) -> None:
    """Compare captured predictions with the model's baseline."""
    run("use:monitor_check", _options(context), json_out=json, endpoint=endpoint, since=since)


@app.command(rich_help_panel=_USE)
def serve(
    context: typer.Context,
    port: Annotated[int, typer.Option(help="Port; 0 picks a free one.", min=0, max=65535)] = 8080,
    host: Annotated[str, typer.Option(help="Address to listen on; only loopback until TLS is here.")] = "127.0.0.1",
) -> None:
    """Serve FHIR, predictions, health, metrics and a start page over HTTP."""
    run("use:serve", _options(context), port=port, host=host)


# --- Prove ------------------------------------------------------------------------------------------------------


@app.command(rich_help_panel=_PROVE)
def lineage(
    context: typer.Context,
    ref: Annotated[str, typer.Argument(help="Ref of any noun, for example prediction:1f0a...")],
    forward: Annotated[bool, typer.Option("--forward", help="What was made from it, instead.")] = False,
    json: JsonOut = False,
) -> None:
    """Every noun from REF back to the landing object and its byte range."""
    run("prove:lineage", _options(context), json_out=json, ref=ref, forward=forward)


@app.command(rich_help_panel=_PROVE)
def nouns(
    context: typer.Context,
    kind: Annotated[str | None, typer.Argument(help="One kind only, for example model.")] = None,
    json: JsonOut = False,
) -> None:
    """List what was made: landings, snapshots, training sets, models, endpoints, predictions, findings."""
    run("prove:nouns", _options(context), json_out=json, kind=kind)


audit = _group("audit", "The trail of every act.", _PROVE)


@audit.command("verify")
def audit_verify(
    context: typer.Context,
    trail_only: Annotated[bool, typer.Option("--trail-only", help="Leave out the stored objects.")] = False,
    json: JsonOut = False,
) -> None:
    """Verify segments, signatures, rows, the outside head and every stored object; exit 6 when not intact."""
    run("prove:verify", _options(context), json_out=json, opens=False, trail_only=trail_only)


@audit.command("list")
def audit_list(
    context: typer.Context,
    limit: Annotated[int, typer.Option(help="At most this many, newest first.", min=1)] = 50,
    principal: Annotated[str | None, typer.Option(help="Only this principal's acts.")] = None,
    action: Annotated[str | None, typer.Option(help="Only this action.")] = None,
    phase: Annotated[str | None, typer.Option(help="Only this phase, for example refused.")] = None,
    json: JsonOut = False,
) -> None:
    """List acts, newest first."""
    run("prove:acts", _options(context), json_out=json, limit=limit, principal=principal, action=action, phase=phase)


# --- Who may ----------------------------------------------------------------------------------------------------

principal_group = _group("principal", "People and services that may act.", _WHO)


@principal_group.command("list")
def principal_list(context: typer.Context, json: JsonOut = False) -> None:
    """List principals with their roles and accounts."""
    run("who:principals", _options(context), json_out=json)


@principal_group.command("add")
def principal_add(
    context: typer.Context,
    name: str,
    role: Annotated[list[str], typer.Option(help="Role; may be given more than once.")],
    in_: Annotated[list[str] | None, typer.Option("--in", help="Account it belongs to; default production.")] = None,
    json: JsonOut = False,
) -> None:
    """Add a principal."""
    run("who:add", _options(context), json_out=json, name=name, roles=role, accounts=in_ or ["production"])


@principal_group.command("disable")
def principal_disable(context: typer.Context, name: str, json: JsonOut = False) -> None:
    """Refuse a principal everything from now on."""
    run("who:disable", _options(context), json_out=json, name=name)


@app.command(rich_help_panel=_WHO)
def token(
    context: typer.Context,
    role: Annotated[str | None, typer.Option(help="Only this role of the principal's.")] = None,
    seconds: Annotated[int | None, typer.Option(help="How long it is valid.", min=1, max=86_400)] = None,
    json: JsonOut = False,
) -> None:
    """Issue an access token for the HTTP door: carelake token --as NAME --purpose TREAT."""
    run("who:token", _options(context), json_out=json, role=role, seconds=seconds)


access = _group("access", "Who may do what, and why.", _WHO)


@access.command("explain")
def access_explain(
    context: typer.Context, name: str, action: str, target: str, purpose_code: str, json: JsonOut = False
) -> None:
    """Say whether NAME may do ACTION on TARGET for PURPOSE, and which policies decide."""
    run(
        "who:explain", _options(context), json_out=json, name=name, action=action, target=target, purpose=purpose_code
    )


def main() -> None:
    """Entry point of the ``carelake`` command."""
    answers_only()
    app(args=hoist(sys.argv[1:]))
