"""The addresses of the console."""

from __future__ import annotations

from carelake.apps.http.console import cohorts, questions, saved, tables, visits
from carelake.apps.http.console.visits import ROOT
from carelake.apps.http.routes import Handler, Operation

__all__ = ["operations"]

_FORM = "application/x-www-form-urlencoded"
_LITTLE = 16 << 10
"""Bytes of a form that holds a token at most: anybody may send it."""


def operations() -> list[Operation]:
    """All of them. They are open to those without a token, who see the form that takes one."""
    question = {"id": "id of a saved question"}
    return [
        _of("GET", "", "explore", "Tables and views, for a browser", tables.overview),
        _of("GET", "/enter", "exploreForm", "The form that takes an access token", visits.paged(visits.enter)),
        _of("POST", "/enter", "exploreEnter", "Begin a visit: keep a token in a cookie", visits.paged(visits.enter),
            anybody=True),
        _of("POST", "/leave", "exploreLeave", "End a visit", visits.paged(visits.leave), anybody=True),
        _of("GET", "/tables/{name}", "exploreTable", "Columns", tables.columns, {"name": "a table or view"}),
        _of("GET", "/sql", "exploreEditor", "The SQL editor", questions.edit),
        _of("POST", "/sql", "exploreSql", "Rows of a SELECT, and a chart of them", questions.answer),
        _of("POST", "/sql/file", "exploreFile", "The same as CSV, Parquet or PNG", questions.export),
        _of("GET", "/saved", "exploreSaved", "Saved questions", saved.listed),
        _of("POST", "/saved", "exploreSave", "Save a question", saved.save),
        _of("POST", "/saved/{id}/delete", "exploreRemove", "Delete a saved question", saved.remove, question),
        _of("GET", "/cohorts", "exploreCohort", "The cohort builder", cohorts.build),
        _of("POST", "/cohorts", "exploreCount", "Count a cohort, step by step", cohorts.count),
    ]  # fmt: skip


def _of(
    method: str,
    path: str,
    name: str,
    summary: str,
    handler: Handler,
    parameters: dict[str, str] | None = None,
    *,
    anybody: bool = False,
) -> Operation:
    return Operation(
        method,
        ROOT + path,
        name,
        summary,
        handler,
        "console",
        open=True,
        first=visits.looked_at if method == "POST" and not anybody else None,
        body={"type": "object"} if method == "POST" else None,
        most=_LITTLE if anybody else 0,
        body_type=_FORM,
        parameters=parameters or {},
        media_type="text/html",
        answers={"401": "The form that takes a token", "403": "Not allowed, or sent from another site"},
    )
