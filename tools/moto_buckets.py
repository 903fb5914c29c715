"""moto's server, for buckets of a lake's size: ``python tools/moto_buckets.py -H 127.0.0.1 -p PORT``.

moto's list of versions copies the bytes of every object in the bucket and never lets the copies go: each file that a
lake removes costs as much memory as the whole lake. Here the list is of the objects themselves.
"""

from __future__ import annotations

import copy
import sys
from types import SimpleNamespace


def thin() -> None:
    """Let moto, in this process, list versions without copies."""
    from moto.s3 import models

    vars(models)["copy"] = SimpleNamespace(copy=copy.copy, deepcopy=list)


if __name__ == "__main__":
    from moto.server import main

    thin()
    main(sys.argv[1:])
