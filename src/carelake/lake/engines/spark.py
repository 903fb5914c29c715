"""One Spark session for a process: in this machine unless the settings say otherwise, nothing on disk in the clear.

Spark comes with the extra ``spark``, a Java for it too (`jvm`). For tables in buckets it needs Iceberg's jars, which
Spark fetches from Maven Central into a folder of the user's, once.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import platformdirs
import pyarrow as pa

from carelake.core.errors import Unavailable
from carelake.core.settings import LakeSettings, SparkSettings
from carelake.lake.engines.jvm import Started, start

__all__ = ["ICEBERG", "in_bounds", "in_time", "session", "stop"]

ICEBERG = "1.12.0"
"""The newest Iceberg: it has a runtime for Spark 4.0 and 4.1, and none for later ones."""
_RUNTIMES = ("4.0", "4.1")
_Found = TypeVar("_Found")

_CONF = {
    "spark.ui.enabled": "false",
    "spark.eventLog.enabled": "false",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "true",
    "spark.sql.caseSensitive": "true",
    # Or ${env:NAME} in a text of a view would be the variable of this process, quotes and all.
    "spark.sql.variable.substitute": "false",
    # A file is no table: SELECT * FROM parquet.`...` reads nothing.
    "spark.sql.runSQLOnFiles": "false",
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


@dataclass(slots=True)
class _Running:
    """The session that there is.

    Attributes:
        iceberg: whether its Java process has Iceberg's jars.
    """

    spark: Any
    java: Started
    said: SparkSettings
    iceberg: bool


_LOCK = threading.Lock()
_running: _Running | None = None


def session(said: SparkSettings | None = None, *, iceberg: bool = False) -> Any:
    """The session; the first call starts a Java process, which ends with ours.

    Args:
        said: by default those of the session that there is.
        iceberg: with Iceberg's jars; a session that was begun without them is begun anew.

    Raises:
        Unavailable: ``lake.spark``, ``lake.java``, ``lake.spark_jars``, ``lake.spark_version``.
    """
    global _running
    with _LOCK:
        said = said or (_running.said if _running else SparkSettings())
        if _running is not None and _running.said == said and (_running.iceberg or not iceberg):
            return _running.spark
        if _running is not None:
            _end(_running)
            _running = None
        _running = _begin(said, iceberg)
        return _running.spark


def stop() -> None:
    """End the session and its Java process; the next call begins one."""
    global _running
    with _LOCK:
        if _running is not None:
            _end(_running)
        _running = None


def _begin(said: SparkSettings, iceberg: bool) -> _Running:
    try:
        import pyspark
        from pyspark.find_spark_home import _find_spark_home
        from pyspark.sql import SparkSession
    except ImportError:
        raise Unavailable("lake.spark", "Spark is not installed; install carelake[spark].") from None
    logging.getLogger("SQLQueryContextLogger").disabled = True
    conf = {**_CONF, "spark.master": said.master, "spark.driver.memory": said.memory}
    # Nothing is kept there, but Spark makes the folder: by default in the one that a caller happens to stand in.
    conf["spark.sql.warehouse.dir"] = os.path.join(
        platformdirs.user_cache_dir("carelake", appauthor=False), "spark-warehouse"
    )
    if iceberg:
        conf |= _jars(said, pyspark.__version__)
    java = start(_find_spark_home(), conf)  # type: ignore[no-untyped-call]
    # pyspark takes a process that is there from these.
    os.environ |= {"PYSPARK_GATEWAY_PORT": str(java.port), "PYSPARK_GATEWAY_SECRET": java.secret}
    try:
        builder = SparkSession.builder.appName("carelake")
        for name, value in conf.items():
            builder = builder.config(name, value)
        made = builder.getOrCreate()
    except Exception:
        _kill(java)
        raise Unavailable("lake.spark", "Spark did not start; check the settings lake.spark.*.") from None
    finally:
        for name in ("PYSPARK_GATEWAY_PORT", "PYSPARK_GATEWAY_SECRET"):
            os.environ.pop(name, None)
    return _Running(made, java, said, iceberg)


def _jars(said: SparkSettings, version: str) -> dict[str, str]:
    short = ".".join(version.split(".")[:2])
    if short not in _RUNTIMES:
        raise Unavailable(
            "lake.spark_version",
            f"Iceberg {ICEBERG} has no runtime for Spark {short}; install pyspark {' or '.join(_RUNTIMES)}.",
        )
    folder = said.jars or platformdirs.user_cache_dir("carelake", appauthor=False)
    wanted = (f"iceberg-spark-runtime-{short}_2.13", "iceberg-aws-bundle")
    return {
        "spark.jars.packages": ",".join(f"org.apache.iceberg:{name}:{ICEBERG}" for name in wanted),
        "spark.jars.ivy": os.path.join(folder, "jars"),
    }


def _end(running: _Running) -> None:
    from pyspark import SparkContext

    with suppress(Exception):
        running.spark.stop()
    gateway = SparkContext._gateway
    if gateway is not None:
        with suppress(Exception):
            gateway.shutdown()
    SparkContext._gateway = SparkContext._jvm = None
    _kill(running.java)


def _kill(java: Started) -> None:
    """Its standard input's end is the end of it; one that does not mind is stopped."""
    assert java.process.stdin is not None
    with suppress(OSError):
        java.process.stdin.close()
    try:
        java.process.wait(10)
    except Exception:
        java.process.kill()
        java.process.wait()


atexit.register(stop)


def in_time(spark: Any, limits: LakeSettings, work: Callable[[], _Found]) -> _Found:
    """The work's result; its jobs are cancelled after ``lake.seconds``.

    Raises:
        Unavailable: ``lake.too_long``.
    """
    context = spark.sparkContext
    group = f"carelake-{threading.get_ident()}"
    context.setJobGroup(group, "carelake", interruptOnCancel=True)
    late = threading.Event()

    def cancel() -> None:
        late.set()
        with suppress(Exception):
            context.cancelJobGroup(group)

    timer = threading.Timer(limits.seconds, cancel)
    timer.daemon = True
    timer.start()
    try:
        return work()
    except Exception:
        if late.is_set():
            raise Unavailable(
                "lake.too_long", f"Spark took longer than {limits.seconds:g} s (lake.seconds); ask for less."
            ) from None
        raise
    finally:
        timer.cancel()


def in_bounds(spark: Any, limits: LakeSettings, asked: Callable[[], Any]) -> pa.Table:
    """The rows of a DataFrame, no longer and no more of them than the settings allow.

    Raises:
        Unavailable: ``lake.too_long``, ``lake.too_large``.
    """
    made: pa.Table = in_time(spark, limits, lambda: asked().toArrow())
    if made.nbytes > limits.result_bytes:
        raise Unavailable(
            "lake.too_large",
            f"The result is larger than {limits.result_bytes} bytes; ask for less, or raise lake.result_bytes.",
        )
    return made
