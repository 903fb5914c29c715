"""A workspace to try things on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from carelake.core.clock import FixedClock
from carelake.core.ids import RandomIds
from carelake.core.settings import ObjectSettings, Settings
from carelake.vault.workspace import Vault


@pytest.fixture
def vault(tmp_path: Path, clock: FixedClock) -> Iterator[Vault]:
    """A new workspace in a temporary folder, its root key beside it."""
    # Every object a file, since most tests here look for one; what lies inline has tests of its own.
    settings = Settings(workspace="w1", objects=ObjectSettings(inline_bytes=0))
    made = Vault.create(tmp_path / "ws", settings=settings, key_dir=tmp_path / "keys", clock=clock, ids=RandomIds())
    with made:
        yield made
