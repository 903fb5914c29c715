"""Settings and policies that were changed outside are named; key use is read off the acts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from carelake.audit.acts import ActHeader, write
from carelake.audit.declared import Declared, digest_of
from carelake.audit.key_use import stale, tell, use_report
from carelake.audit.readings import Acts
from carelake.core.clock import FixedClock
from carelake.core.errors import Refused
from carelake.core.permit import Permit
from carelake.vault import rotation
from carelake.vault.key_listing import listing
from carelake.vault.keyring import Notice
from carelake.vault.workspace import Vault

PermitFor = Callable[..., Permit]
TOML, RULES = b'workspace = "w1"\nformat = 1\n', b"permit (principal, action, resource);"


@pytest.fixture
def declared(vault: Vault) -> Declared:
    return Declared(vault.database, vault.clock, vault.ids)


def acts(vault: Vault, action: str) -> list[dict[str, Any]]:
    with vault.database.ledger_reading() as connection:
        return [one for one in Acts(connection).after(0) if one["action"] == action]


def test_the_first_look_accepts_and_a_change_is_named(vault: Vault, declared: Declared) -> None:
    files = {"carelake.toml": TOML, "policies/a.cedar": RULES}
    assert declared.look(files) == []
    assert declared.look(files) == []
    assert len(acts(vault, "settings:accepted")) == 1
    for changed, expected in (
        ({**files, "carelake.toml": TOML + b"[approval]\nlocal = false\n"}, ("carelake.toml", "changed")),
        ({**files, "policies/a.cedar": RULES + b"\n"}, ("policies/a.cedar", "changed")),
        ({**files, "policies/b.cedar": RULES}, ("policies/b.cedar", "added")),
        ({"carelake.toml": TOML}, ("policies/a.cedar", "removed")),
    ):
        (found,) = declared.look(changed)
        assert (found.name, found.how) == expected
        assert expected[0] in found.reason
        assert declared.look(files) == []
    # Each change went on the trail when it was seen, and so did its undoing.
    told = acts(vault, "settings:changed")
    assert len(told) == 8
    assert list(told[0]["files"]) == ["carelake.toml"]


def test_somebody_accepts(vault: Vault, declared: Declared, permit_for: PermitFor) -> None:
    declared.look({"carelake.toml": TOML})
    changed = {"carelake.toml": TOML, "policies/a.cedar": RULES}
    with pytest.raises(Refused):
        declared.accept(permit_for("rows:read"), changed)
    (found,) = declared.accept(permit_for("rows:write", principal="ann"), changed)
    assert found.how == "added"
    assert declared.look(changed) == []
    assert [one["principal"] for one in acts(vault, "settings:accepted")] == ["init", "ann"]


def test_an_upgrade_and_a_comment_change_nothing(declared: Declared) -> None:
    declared.look({"carelake.toml": TOML})
    assert declared.look({"carelake.toml": b'# now\nversion = "9"\nformat = 2\nworkspace = "w1"\n'}) == []
    assert digest_of("carelake.toml", b"no toml = =") != digest_of("carelake.toml", b"no toml = = ")


# -- use of keys --------------------------------------------------------------------------------------------------


def test_uses_are_counted_off_the_acts(vault: Vault, clock: FixedClock, permit_for: PermitFor) -> None:
    def told(action: str, *keys: str) -> None:
        header = ActHeader("c" * 32, "ann", "production", "TREAT", action, "record")
        with vault.database.ledger() as connection:
            write(connection, header, "done", clock, {"keys": list(keys)} if keys else {"counts": {"n": 1}})
        clock.move(days=1)

    told("record:read", "production/clinical/v1", "production/patient/v1")
    told("record:read", "production/clinical/v1")
    told("record:search", "production/clinical/v1")
    told("key:manage", "production/clinical/v1")
    told("record:read")
    with vault.database.ledger_reading() as connection:
        found = use_report(connection)
    use = found["production/clinical/v1"]
    assert (use.first, use.last, use.uses) == ("2026-01-02T03:04:05.000Z", "2026-01-04T03:04:05.000Z", 3)
    assert use.by_action == {"record:read": 2, "record:search": 1}
    assert found["production/patient/v1"].uses == 1
    assert set(found) == {"production/clinical/v1", "production/patient/v1"}


def test_what_is_stale(vault: Vault, clock: FixedClock, permit_for: PermitFor) -> None:
    def why(label: str) -> list[str]:
        keys = {key.label: key for key in listing(permit_for("keys:read"), vault.keyring, clock, vault.settings.keys)}
        return stale(keys[label], None, clock, unused_days=30)

    assert why("production/lake/v1") == []
    clock.move(days=30)
    assert why("production/lake/v1") == ["unused for 30 days"]
    assert why("production/v1") == why("root/v1") == []
    clock.move(days=400)
    assert why("production/lake/v1") == ["older than its maximum age", "unused for 30 days"]
    rotation.rotate(permit_for("keys:write"), vault.keyring, clock, "production/lake")
    assert why("production/lake/v1") == why("production/lake/v2") == []


def test_what_opening_did_by_itself_is_told_once(vault: Vault) -> None:
    vault.keyring.notices.append(Notice("put_back", generation=1, newest=3))
    vault.keyring.notices.append(Notice("destroyed", ("production/lake/v1",)))
    assert tell(vault) == 2
    assert tell(vault) == 0
    (back,), (gone,) = acts(vault, "key:put_back"), acts(vault, "key:destroyed")
    assert (back["principal"], back["generation"], back["newest"]) == ("vault", 1, 3)
    assert gone["keys"] == ["production/lake/v1"]
