"""One Spark session for a process: in this machine unless the settings say otherwise, nothing on disk in the clear.

Spark comes with the extra ``spark``; it needs Java 17 or later with the module ``jdk.incubator.vector``, which the
cut-down runtimes that come as wheels do not have.
"""

from __future__ import annotations

import logging
import os
import shutil
from functools import cache
from typing import Any

from carelake.core.errors import Unavailable

__all__ = ["session"]

_CONF = {
    "spark.ui.enabled": "false",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "true",
    "spark.sql.caseSensitive": "true",
    # Or ${env:NAME} in a text of a view would be the variable of this process, quotes and all.
    "spark.sql.variable.substitute": "false",
    "spark.sql.shuffle.partitions": "2",
    "spark.sql.catalogImplementation": "in-memory",
    # What a shuffle or a cache writes to disk is sealed with a key of the session (decision D8).
    "spark.io.encryption.enabled": "true",
    # The levels of a `repeat` are nested relations.
    "spark.driver.extraJavaOptions": "-Xss16m",
    "spark.sql.analyzer.maxIterations": "2000",
    # Its errors show values of the data; ours tell what is needed.
    "spark.log.level": "OFF",
}


@cache
def session(master: str = "local[2]") -> Any:
    """The session; the first call starts a Java process, which ends with ours.

    Raises:
        Unavailable: ``lake.spark``: pyspark or Java is not there.
    """
    try:
        from pyspark.sql import SparkSession
    except ImportError:
        raise Unavailable("lake.spark", "Spark is not installed; install carelake[spark].") from None
    if not (os.environ.get("JAVA_HOME") or shutil.which("java")):
        raise Unavailable("lake.spark", "Spark needs Java 17 or later; install one and set JAVA_HOME.")
    logging.getLogger("SQLQueryContextLogger").disabled = True
    builder = SparkSession.builder.master(master).appName("carelake")
    for name, value in _CONF.items():
        builder = builder.config(name, value)
    try:
        return builder.getOrCreate()
    except Exception:
        raise Unavailable("lake.spark", "Spark did not start; check JAVA_HOME (Java 17 or later).") from None
