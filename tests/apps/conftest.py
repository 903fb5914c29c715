"""A server before the ``workspace`` that a test module makes, and its callers; one for each module."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from tests.apps.served import Lines, bearer, callers, serving

from carelake.apps.wiring import Workspace


@pytest.fixture(scope="module")
def log() -> Lines:
    return Lines()


@pytest.fixture(scope="module")
def address(workspace: Workspace, log: Lines) -> Iterator[str]:
    with serving(workspace, log) as url:
        yield url


@pytest.fixture(scope="module")
def token(workspace: Workspace) -> Callable[..., dict[str, str]]:
    """``token("doctor", "TREAT")``: headers, as `bearer` makes them."""

    def issue(name: str = "doctor", *told: str, **narrowed: Any) -> dict[str, str]:
        return bearer(workspace, name, *told, **narrowed)

    return issue


@pytest.fixture(scope="module")
def as_(workspace: Workspace, address: str) -> Iterator[Callable[..., httpx.Client]]:
    """``as_("doctor")``: a client of the module's server."""
    with callers(workspace, address) as of:
        yield of
