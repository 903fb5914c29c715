"""Every key has a name of its own: two keys under one name would be one key for two uses."""

from __future__ import annotations

from carelake.vault.keyring import _plan


def test_no_two_keys_of_a_workspace_share_a_name() -> None:
    names = [name for name, _ in _plan()]
    assert len(names) == len(set(names))


def test_signing_keys_are_apart_from_the_zones() -> None:
    assert "production/models" in dict(_plan())
    assert "production/sign-models" in dict(_plan())
