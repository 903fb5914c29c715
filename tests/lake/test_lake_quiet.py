"""Nothing but answers on stdout: a long query shows no progress bar there."""

from __future__ import annotations

import subprocess
import sys

import pytest

from carelake.lake.engines.engine import connect

LONG = """
from carelake.lake.engines.engine import connect
with connect() as connection:
    print(connection.execute("SELECT sum(sin(range)) < 1e9 FROM range(400000000)").fetchall())
"""


def test_no_connection_has_a_progress_bar() -> None:
    with connect() as connection:
        assert connection.execute("SELECT current_setting('enable_progress_bar')").fetchone() == (False,)


@pytest.mark.soak
def test_a_long_query_prints_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", LONG], capture_output=True, text=True, check=True)
    assert done.stdout == "[(True,)]\n"
