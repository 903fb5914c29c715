"""The table of routes: everything that can be asked for over HTTP."""

from __future__ import annotations

from functools import partial

from carelake.apps.http import invoke, predict, probes, smart
from carelake.apps.http.answers import FHIR_JSON
from carelake.apps.http.bulk import exports as bulk
from carelake.apps.http.bulk import imports as bulk_import
from carelake.apps.http.cds import services as cds
from carelake.apps.http.console import operations as console
from carelake.apps.http.fhir import binary, bundles, erasing, history, patching, record, searches, validating, writing
from carelake.apps.http.fhir.operations import operations as on_resources
from carelake.apps.http.metrics import Metrics
from carelake.apps.http.page import StartPage
from carelake.apps.http.routes import Operation
from carelake.apps.http.sql import statements as sql
from carelake.apps.http.sql.running import Statements
from carelake.apps.http.terminology import operations as terminology
from carelake.apps.http.views import operations as views

__all__ = ["operations"]

_TYPE = {"type": "FHIR R4 resource type, for example Patient"}
_ONE = {**_TYPE, "id": "id of the resource"}
_VERSION = {**_ONE, "version": "version id"}
_ABSENT = {"404": "There is none", "410": "It was deleted or erased"}


def operations(metrics: Metrics, statements: Statements) -> list[Operation]:
    """All of them but ``/openapi.json``, which describes them."""
    found = [*_fhir(), *_predictions(), *cds.operations(), *console.operations()]
    return [*found, *sql.operations(statements), *_service(metrics)]


def _fhir() -> list[Operation]:
    def of(method: str, path: str, name: str, summary: str, handler: record.Handler, **more: object) -> Operation:
        return Operation(method, path, name, summary, handler, "fhir", media_type=FHIR_JSON, **more)  # type: ignore[arg-type]

    found = [
        of("GET", "/fhir/metadata", "capabilities", "What this server does", record.capabilities, open=True),
        *smart.operations(),
        *bulk.operations(),
        *erasing.operations(),
        *bulk_import.operations(),
        *terminology.operations(),
        *views.operations(),
        *validating.operations(),
        *on_resources(),
        *history.operations(),
        *searches.operations(),
        *binary.operations(),
        *writing.operations(),
        *patching.operations(),
        of("GET", "/fhir/{type}/{id}", "read", "Read", record.read, parameters=_ONE, answers=_ABSENT, quick=True),
        of(
            "GET",
            "/fhir/{type}/{id}/_history/{version}",
            "vread",
            "Read a version",
            record.vread,
            parameters=_VERSION,
            answers=_ABSENT,
            quick=True,
        ),
    ]
    return [*bundles.operations(found), *found]


def _predictions() -> list[Operation]:
    return [
        Operation(
            "POST",
            "/predict/{endpoint}",
            "predict",
            "Predict for one patient, with reasons, or for the morning list",
            predict.predict,
            "predictions",
            body=predict.BODY,
            parameters={"endpoint": "name or ref of an endpoint"},
            answers={"404": "No such endpoint, or nothing to predict from", "409": "The endpoint is out of service"},
        ),
        invoke.operation(),
    ]


def _service(metrics: Metrics) -> list[Operation]:
    return [
        Operation("GET", "/healthz", "alive", "The process answers", probes.alive, "service", open=True),
        Operation(
            "GET",
            "/readyz",
            "ready",
            "Everything that requests lean on works",
            partial(probes.ready, metrics),
            "service",
            open=True,
            answers={"503": "Something does not; its name is in checks"},
        ),
        Operation(
            "GET",
            "/metrics",
            "metrics",
            "Numbers for Prometheus, without patient data",
            partial(probes.metrics_page, metrics),
            "service",
            open=True,
            media_type="text/plain",
        ),
        Operation(
            "GET",
            "/",
            "start",
            "The state of the loop, for a browser on this machine",
            StartPage(),
            "service",
            open=True,
            media_type="text/html",
            answers={"403": "The browser is not on this machine"},
        ),
    ]
