"""Nothing but answers on stdout: a long query shows no progress bar there."""

from __future__ import annotations

import subprocess
import sys

import pytest

LONG = """
from carelake.lake.engine import connect
with connect() as connection:
    print(connection.execute("SELECT sum(sin(range)) < 1e9 FROM range(400000000)").fetchall())
"""


@pytest.mark.slow
def test_a_long_query_prints_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", LONG], capture_output=True, text=True, check=True)
    assert done.stdout == "[(True,)]\n"
