"""``search``: pages of matches as one Bundle, or as tables."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from carelake.apps.cli.session import Session, note
from carelake.apps.cli.tables import show
from carelake.apps.searching import Found, entries, find
from carelake.core import canonical
from carelake.core.errors import Invalid
from carelake.fhir.bundle import searchset
from carelake.fhir.definitions import is_resource
from carelake.fhir.path import Expression
from carelake.fhir.query import Query, parse_text
from carelake.fhir.search.registry import Registry

__all__ = ["search"]

_AT_ONCE = 1000
_PAGE = "_page"
_EVERYTHING = "record"

Entry = dict[str, Any]


def search(
    session: Session, *, json_out: bool, query: str, limit: int | None, lenient: bool, columns: Sequence[str]
) -> None:
    """Search the record. All matches, page by page; with ``_count`` one page, and a link to the next."""
    shown = [(text, Expression(text)) for text in columns]
    text, page = _paged(query)
    pages = _Pages(session, text, page, limit, lenient)
    if json_out:
        _print_bundle(pages)
    else:
        _print_tables(shown, pages)


class _Pages:
    """The pages of a search. Each is an act of its own, which is in the trail before the page is shown.

    Attributes:
        matches, included: how many there were so far.
        total: of all matches, where the first page tells it.
        understood: the search, without what was left out.
        first: token of the first page, "" where it is the first of all.
        next: token of the page after the last one asked for; "" when there is none.
    """

    def __init__(self, session: Session, text: str, page: str, limit: int | None, lenient: bool) -> None:
        self._session, self.text, self._lenient = session, text, lenient
        self.understood = text
        self._told: set[str] = set()
        self._limit = limit
        self.next = self.first = page
        self.matches = self.included = 0
        self.total: int | None = None

    def __iter__(self) -> Iterator[list[Entry]]:
        caller = self._session.caller()
        while True:
            found = self._page(caller)
            self.next = found.result.next
            if not self.matches:
                self.total = found.result.total
                self.understood = found.query.text() if found.query.ignored else self.text
            listed = [entry for entry in entries(found, "") if self._is_new(entry)]
            modes = [entry["search"]["mode"] for entry in listed]
            self.matches += modes.count("match")
            self.included += modes.count("include")
            yield listed
            if not self.next or found.query.count is not None or self.matches == self._limit:
                return

    def _is_new(self, entry: Entry) -> bool:
        """What comes along, and what is said about the search, is told once, not with each page."""
        mode, resource = entry["search"]["mode"], entry["resource"]
        if mode == "match":
            return True
        key = str(resource) if mode == "outcome" else f"{resource['resourceType']}/{resource['id']}"
        new = key not in self._told
        self._told.add(key)
        return new

    def _page(self, caller: Any) -> Found:
        workspace = self._session.workspace
        with workspace.enter(caller, "record:search", _target(self.text)) as permit:
            return find(workspace, permit, self._read, self.next, self._size)

    def _read(self, registry: Registry) -> Query:
        return parse_text(self.text, registry=registry, lenient=self._lenient)

    def _size(self, query: Query) -> Query:
        """With the size of the next page."""
        left = _AT_ONCE if self._limit is None else self._limit - self.matches
        return replace(query, count=min(query.count or _AT_ONCE, left))


def _target(text: str) -> str:
    """The type that the act tells of first."""
    path, _, rest = text.strip().lstrip("/").partition("?")
    named = [one for pair in rest.split("&") if pair.startswith("_type=") for one in pair[6:].split(",")]
    return next(filter(is_resource, (*reversed(path.split("/")), *named)), _EVERYTHING)


def _paged(query: str) -> tuple[str, str]:
    """The search and the page of it that is asked for (``_page``, as the next link gives it)."""
    name, mark, rest = query.partition("?")
    pairs = [pair for pair in rest.split("&") if pair]
    pages = [pair.partition("=")[2] for pair in pairs if pair.startswith(f"{_PAGE}=")]
    kept = [pair for pair in pairs if not pair.startswith(f"{_PAGE}=")]
    if len(pages) > 1:
        raise Invalid("apps.page", "Give _page once; the next link of a search holds it.")
    return name + (mark + "&".join(kept) if kept or not name else ""), pages[0] if pages else ""


def _next(pages: _Pages, page: str) -> str:
    text = pages.understood
    return f"{text}{'&' if '?' in text else '?'}{_PAGE}={page}"


def _print_bundle(pages: _Pages) -> None:
    """One JSON value, written as pages come, so that any number of matches fits."""
    coming = iter(pages)
    first = next(coming)
    head = canonical.dump_pretty(searchset()).removesuffix("\n}")
    sys.stdout.write(head)
    before = ',\n  "entry": [\n'
    for entry in chain(first, chain.from_iterable(coming)):
        # No text in JSON holds a line break, so that what is between lines may be moved to the right.
        sys.stdout.write(before + "    " + canonical.dump_pretty(entry).replace("\n", "\n    "))
        before = ",\n"
    sys.stdout.write("\n  ]" if before == ",\n" else "")
    total = pages.total if pages.total is not None else (pages.matches if not pages.next else None)
    asked = _next(pages, pages.first) if pages.first else pages.understood
    links = {"self": asked} | ({"next": _next(pages, pages.next)} if pages.next else {})
    rest = {
        name: value
        for name, value in searchset(total=total, links=links).items()
        if name not in ("resourceType", "type")
    }
    sys.stdout.write("," + canonical.dump_pretty(rest).removeprefix("{") + "\n")


def _print_tables(columns: Sequence[tuple[str, Expression]], pages: _Pages) -> None:
    for page in pages:
        rows = [_row(entry, columns) for entry in page if entry["search"]["mode"] != "outcome"]
        included = ["found"] if any(row["found"] != "match" for row in rows) else []
        if rows:
            show(["resource", *included, *(name for name, _ in columns)], rows)
        for issue in (issue for entry in page for issue in _said(entry)):
            note(issue)
    beside = f" and {pages.included} included" if pages.included else ""
    known = f" of {pages.total}" if pages.next and pages.total is not None else ""
    shown = pages.total if not pages.matches and pages.total else pages.matches
    note(f"{shown}{known} matches{beside}; --json shows them whole.")
    if pages.next:
        note(f"The next page: {_next(pages, pages.next)}")


def _row(entry: Entry, columns: Sequence[tuple[str, Expression]]) -> dict[str, Any]:
    resource = entry["resource"]
    told: dict[str, Any] = {
        "resource": f"{resource['resourceType']}/{resource['id']}",
        "found": entry["search"]["mode"],
    }
    if columns:
        resource = canonical.load(canonical.dump_as_given(resource))
    return told | {name: [_text(value) for value in path(resource)] for name, path in columns}


def _text(value: Any) -> str:
    return canonical.dump(value).decode() if isinstance(value, dict | list | bool) else str(value)


def _said(entry: Entry) -> list[str]:
    if entry["search"]["mode"] != "outcome":
        return []
    return [issue["diagnostics"] for issue in entry["resource"]["issue"]]
