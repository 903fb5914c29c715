"""The views that recipes read: the lake's flat views, and `places`, where a patient was during an encounter."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from carelake.lake import flat
from carelake.lake.flat import View
from carelake.lake.schema import selected

__all__ = ["names", "view"]

_PLACES = (
    "subject.reference",
    "location.location.reference",
    "location.status",
    "location.period.start",
    "location.period.end",
)


@cache
def _own() -> dict[str, View]:
    sql = files("carelake.features.datasets").joinpath("views", "places.sql").read_text("utf-8")
    return {"places": View("places", "Encounter", selected("Encounter", list(_PLACES)), sql)}


def names() -> tuple[str, ...]:
    """The views there are."""
    return (*flat.names(), *_own())


def view(name: str) -> View:
    """The view of that name; `NotFound` ``lake.no_such_view``."""
    return _own().get(name) or flat.view(name)
