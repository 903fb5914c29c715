"""A backup of objects that lie in a bucket: read as sealed as they lie, and put back into files, as a drill does."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from carelake.core.ids import RandomIds
from carelake.core.settings import ObjectSettings, S3Settings, Settings
from carelake.vault.backup.opening import open_ring
from carelake.vault.backup.restore import begin
from carelake.vault.backup.ship import ship
from carelake.vault.workspace import Vault

GRANTS = ("vault:backup", "vault:verify", "rows:read", "rows:write", "landing:read", "landing:write")


def test_objects_of_a_bucket(bucket: S3Settings, clock: Any, permit_for: Callable[..., Any], tmp_path: Path) -> None:
    from carelake.apps.wiring import import_tables

    import_tables()
    permit, keys = permit_for(*GRANTS), tmp_path / "keys"
    settings = Settings(workspace="w1", objects=ObjectSettings(driver="s3"), s3=bucket)
    said: dict[str, Any] = {"key_dir": keys, "clock": clock, "ids": RandomIds()}
    data = {"small": b"small", "large": os.urandom(10 << 20)}
    with Vault.create(tmp_path / "ws", settings=settings, **said) as vault:
        (vault.root / "carelake.toml").write_text('workspace = "w1"\n')
        for name, content in data.items():
            vault.objects.put(permit, "landing", name, content)
        vault.write_head(b"")  # the trail is sealed before a backup
        first = ship(permit, vault, tmp_path / "out", trail=lambda connection: {})
        assert first.body.objects.count == 2
        clock.move(seconds=1)
        assert ship(permit, vault, tmp_path / "out", trail=lambda connection: {}).new_bytes < 1 << 20

    def ring(path: Path, name: str, copy: str) -> Any:
        return open_ring(path, name, copy, root_keys=keys, beside=keys, passphrase=None, clock=clock)

    for driver in ("local", "s3"):
        work = begin(tmp_path / "out", tmp_path / driver, open_ring=ring)
        told = msgspec.structs.replace(settings, objects=ObjectSettings(driver=driver), copy=work.copy)
        work.assemble(told)
        with Vault(tmp_path / driver, settings=told, keyring=work.keyring, **said) as copy:
            work.fill(copy)
            assert {name: copy.objects.get(permit, "landing", name) for name in data} == data
            assert list(copy.objects.verify(permit)) == []
            work.replay(copy)
        work.finish(told)
    # The copy in the bucket has a prefix of its own: neither sweeps, nor removes, what is the other's.
    clock.move(days=4000)
    permit = permit_for(*GRANTS, "landing:keep")
    with (
        Vault.open(tmp_path / "ws", settings=settings, **said) as first,
        Vault.open(tmp_path / "s3", settings=told, **said) as second,
    ):
        for one, other in ((first, second), (second, first)):
            assert one.objects.lifecycle.run(permit, "landing").swept == 0
            one.objects.put(permit, "landing", "large", b"another")
            assert other.objects.get(permit, "landing", "small") == b"small"
        assert first.objects.get(permit, "landing", "large") == b"another"
        one = second.objects
        one.delete(permit, "landing", "large")
        assert first.objects.get(permit, "landing", "large") == b"another"
