"""Pages of the console: HTML by Jinja2, everything escaped, one style sheet, no script, nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib import resources
from typing import Any

import jinja2
from starlette.responses import Response

from carelake import __version__

__all__ = ["picture", "render"]

_LONGEST = 200


def render(template: str, *, status: int = 200, **values: Any) -> Response:
    """A page.

    Args:
        template: name of a file in ``templates``.
    """
    page = _environment().get_template(template).render(style=_style(), version=__version__, **values)
    headers = {"Content-Security-Policy": _policy()}
    return Response(page, status, headers, "text/html; charset=utf-8")


def picture(svg: bytes) -> str:
    """A drawing as an address for ``<img>``, where nothing in it can run."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode()


def _cell(value: Any) -> str:
    """A value as a cell shows it; "" for nothing."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.15g}"
    text = str(value)
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


def _file(name: str) -> str:
    return resources.files(__package__).joinpath("templates", name).read_text(encoding="utf-8")


@cache
def _style() -> str:
    start = resources.files("carelake.apps.http").joinpath("templates", "start.css").read_text(encoding="utf-8")
    return start + _file("console.css")


@cache
def _policy() -> str:
    digest = base64.b64encode(hashlib.sha256(_style().encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'self'; "
        "frame-ancestors 'none'"
    )


@cache
def _environment() -> jinja2.Environment:
    loader = jinja2.FunctionLoader(_file)
    made = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    made.filters["cell"] = _cell
    return made
