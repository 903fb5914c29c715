"""Tokens and the rotation of the key that signs them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from carelake.access.identity import Identity
from carelake.core.clock import FixedClock
from carelake.core.errors import Unauthenticated
from carelake.core.permit import Permit
from carelake.vault import destruction, rotation


def test_a_token_outlives_rotation_but_not_its_key_being_disabled(
    vault: Any, gate: Any, clock: FixedClock, permit_for: Callable[..., Permit]
) -> None:
    identity = Identity(vault)
    admin = permit_for("keys:write", account="security")
    who = identity.named("auditor", identity.nobody())

    def issue() -> str:
        found = identity.issue(who, purpose="HOPERAT", account="production", seconds=600)
        return found if isinstance(found, str) else str(found[0])

    old = issue()
    rotation.rotate(admin, vault.keyring, clock, "security/sign-tokens")
    new = issue()
    for token in (old, new):
        assert identity.bearer(token).principal.name == "auditor"
    destruction.disable(admin, vault.keyring, clock, "security/sign-tokens/v1")
    assert identity.bearer(new).principal.name == "auditor"
    with pytest.raises(Unauthenticated):
        identity.bearer(old)
