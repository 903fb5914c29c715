"""HAPI FHIR's JPA server beside carelake: put together from Maven Central in a folder of its own, run on loopback.

What is built is in ``bench/hapi``; README.md there says how HAPI is set, and why.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import platformdirs

from _postgres import PostgresServer, end_with_parent, free_port

__all__ = ["Built", "Hapi", "build", "bundles", "get", "missing"]

SOURCE = Path(__file__).parent / "hapi"
CACHE = Path(platformdirs.user_cache_dir("carelake-bench")) / "hapi"
OPTIONS = ("-Xms3g", "-Xmx3g", "-XX:+UseParallelGC")
OLDEST_JAVA = 17


def missing() -> str:
    """Why HAPI cannot be measured here, "" where it can."""
    for name, package in (("java", "a JDK"), ("javac", "a JDK"), ("mvn", "Maven")):
        if shutil.which(name) is None:
            return f"HAPI FHIR is left out: {package} of version {OLDEST_JAVA} or later is not here ({name})."
    said = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "(\d+)', said)
    if found is None or int(found[1]) < OLDEST_JAVA:
        return f"HAPI FHIR is left out: it needs Java {OLDEST_JAVA} or later."
    return ""


class Built(tuple[str, str]):
    """The class path, and HAPI's version."""


def build(cache: Path = CACHE) -> Built:
    """Compile and fetch what it needs, once: libraries and classes are in ``cache``, none of it in the repository."""
    sources = sorted(path for path in SOURCE.rglob("*") if path.suffix in (".java", ".xml"))
    mark = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    version = re.search(r"<hapi.version>([^<]+)<", (SOURCE / "pom.xml").read_text())
    path, made = cache / "classpath", cache / "built"
    if not made.exists() or made.read_text() != mark:
        cache.mkdir(parents=True, exist_ok=True)
        command = [
            "mvn", "-B", "-q", f"-Dmaven.repo.local={cache / 'libraries'}", f"-Dbench.target={cache / 'target'}",
            "compile", "dependency:build-classpath", f"-Dmdep.outputFile={path}",
        ]  # fmt: skip
        subprocess.run(command, cwd=SOURCE, check=True, stdin=subprocess.DEVNULL, timeout=1200)
        made.write_text(mark)
    return Built(
        (f"{cache / 'target' / 'classes'}{os.pathsep}{path.read_text().strip()}", version[1] if version else "")
    )


def bundles(files: Iterable[Path], size: int) -> list[tuple[int, bytes]]:
    """Transactions of about that many resources, none of which parts a patient, so that references stay within."""
    made, entries = list[tuple[int, bytes]](), list[bytes]()
    for file in files:
        for line in file.read_bytes().splitlines():
            if len(entries) >= size and line.startswith(b'{"resourceType":"Patient"'):
                made.append(_bundle(entries))
                entries = []
            entries.append(line)
    return [*made, _bundle(entries)] if entries else made


def _bundle(lines: Sequence[bytes]) -> tuple[int, bytes]:
    entries = []
    for line in lines:
        resource = json.loads(line)
        place = f"{resource['resourceType']}/{resource['id']}"
        request = b'{"method":"PUT","url":"%s"}' % place.encode()
        entries.append(b'{"resource":%s,"request":%s}' % (line, request))
    return len(lines), b'{"resourceType":"Bundle","type":"transaction","entry":[%s]}' % b",".join(entries)


def get(connection: http.client.HTTPConnection, text: str, headers: dict[str, str]) -> dict[str, Any]:
    """One search over a kept connection: the Bundle."""
    connection.request("GET", "/fhir/" + quote(text, safe="%?=&|:/,.$_-"), headers=headers)
    answer = connection.getresponse()
    body: dict[str, Any] = json.loads(answer.read())
    if answer.status != 200:
        raise ValueError(f"{answer.status}: {body.get('issue', [{}])[0].get('diagnostics', '')}"[:300])
    return body


class Hapi:
    """A running server, its rows in a database of a PostgreSQL server."""

    def __init__(self, built: Built, server: PostgresServer, database: str, log: Path) -> None:
        self.port = free_port()
        options = [
            f"-Dbench.port={self.port}", "-Dbench.user=carelake",
            f"-Dbench.url=jdbc:postgresql://127.0.0.1:{server.port}/{database}",
        ]  # fmt: skip
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                ["java", *OPTIONS, *options, "-cp", built[0], "carelake.bench.Hapi"],
                stdin=subprocess.DEVNULL, stdout=errors, stderr=errors, preexec_fn=end_with_parent,
                env={**os.environ, "BENCH_PASSWORD": server.password},
            )  # fmt: skip
        self.pid = self._process.pid
        began = time.monotonic()
        while "ready" not in log.read_text().split():
            if self._process.poll() is not None or time.monotonic() - began > 300:
                self.stop()
                raise SystemExit(f"HAPI FHIR did not start:\n{log.read_text()[-3000:]}")
            time.sleep(0.2)

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def connect(self) -> http.client.HTTPConnection:
        """A connection that is kept."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)

    def load(self, made: Sequence[tuple[int, bytes]], clients: int) -> tuple[int, float]:
        """Send transactions by so many clients at once: how many resources, in how many seconds."""
        waiting, failed = iter(made), list[str]()
        lock = threading.Lock()
        done = 0

        def run() -> None:
            nonlocal done
            connection = self.connect()
            while not failed:
                with lock:
                    one = next(waiting, None)
                if one is None:
                    return
                try:
                    self._post(connection, one[1])
                except (OSError, ValueError) as error:
                    failed.append(str(error))
                with lock:
                    done += one[0]

        began = time.perf_counter()
        threads = [threading.Thread(target=run) for _ in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failed:
            raise SystemExit(f"HAPI FHIR refused a transaction: {failed[0]}")
        return done, time.perf_counter() - began

    @staticmethod
    def _post(connection: http.client.HTTPConnection, body: bytes) -> None:
        headers = {
            "Content-Type": "application/fhir+json", "Prefer": "return=minimal",
            "X-Upsert-Extistence-Check": "disabled",  # written so by HAPI: nothing of what is sent is there yet
        }  # fmt: skip
        connection.request("POST", "/fhir", body, headers)
        answer = connection.getresponse()
        said = answer.read()
        if answer.status != 200:
            raise ValueError(f"{answer.status}: {said[:1000].decode(errors='replace')}")
