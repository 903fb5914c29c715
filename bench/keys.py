"""Keys: what a use costs, a change, wrapping patients' keys anew, and reading the use report off the acts.

python bench/keys.py [--patients 20000] [--acts 200000]
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import insert

from carelake.apps.wiring import import_tables
from carelake.audit.key_use import use_report
from carelake.audit.tables import act
from carelake.core.clock import FixedClock
from carelake.core.ids import RandomIds
from carelake.core.permit import Permit, mint
from carelake.core.settings import Settings
from carelake.vault import rotation
from carelake.vault.workspace import Vault

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RESULTS = Path(__file__).with_name("results")


class Silent:
    ended = False

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None


def permit(*grants: str, account: str = "production") -> Permit:
    return mint(
        act="a" * 32,
        principal="bench",
        account=account,
        purpose="HOPERAT",
        action="bench:run",
        target="bench",
        grants=grants,
        scope=(),
        expires=NOW + timedelta(days=1),
        log=LOG,
    )


LOG: Any = Silent()


def seconds(call: Callable[[], object], times: int = 1) -> float:
    start = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - start) / times


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--patients", type=int, default=20_000)
    parser.add_argument("--acts", type=int, default=200_000)
    asked = parser.parse_args()
    import_tables()
    clock = FixedClock(NOW)
    with tempfile.TemporaryDirectory() as place:
        said: dict[str, Any] = {"settings": Settings("bench"), "key_dir": Path(place) / "keys", "clock": clock}
        with Vault.create(Path(place) / "ws", **said, ids=RandomIds()) as vault:
            told = measure(vault, clock, asked.patients, asked.acts)
    told |= {"python": platform.python_version(), "patients": asked.patients, "acts": asked.acts}
    print(json.dumps(told, indent=2))
    RESULTS.mkdir(exist_ok=True)
    day = datetime.now(UTC).date().isoformat()
    (RESULTS / f"keys-{day}.json").write_text(json.dumps(told, indent=2) + "\n")


def measure(vault: Vault, clock: FixedClock, patients: int, acts: int) -> dict[str, Any]:
    use, admin = permit("lake:read", "lake:write", "rows:write"), permit("keys:write", "rows:write")
    keyring = vault.keyring
    told: dict[str, Any] = {"use_us": seconds(lambda: keyring.use(use, "lake:read", "production/lake"), 20_000) * 1e6}
    told["look_us"] = seconds(keyring.current, 20_000) * 1e6
    told["rotate_ms"] = seconds(lambda: rotation.rotate(admin, keyring, clock, "production/lake"), 20) * 1e3
    told["rotate_account_ms"] = seconds(lambda: rotation.rotate(admin, keyring, clock, "production"), 20) * 1e3
    with vault.database.transaction(use) as tx:
        vault.sealer.keys_for(use, tx, [f"p{n}" for n in range(patients)])
    rotation.rotate(admin, keyring, clock, "production/patient")
    spent = seconds(lambda: rotation.rewrap(admin, keyring, vault.database, clock))
    told["rewrapped_per_s"] = round(patients / spent)
    facts = '{"counts":{"n":1},"keys":["production/clinical/v1","production/patient/v1"],"policy":"%s"}' % ("0" * 64)
    row = {"phase": "done", "at": "2026-01-01T00:00:00.000Z", "principal": "p", "account": "production"}
    row |= {"purpose": "TREAT", "action": "record:read", "target": "Patient", "facts": facts}
    with vault.database.ledger() as connection:
        for start in range(1, acts + 1, 10_000):
            page = range(start, min(start + 10_000, acts + 1))
            connection.execute(insert(act), [{**row, "seq": n, "correlation": f"{n:032d}"} for n in page])
    with vault.database.ledger_reading() as connection:
        told["use_report_s"] = seconds(lambda: use_report(connection))
    return {name: round(value, 2) for name, value in told.items()}


if __name__ == "__main__":
    main()
