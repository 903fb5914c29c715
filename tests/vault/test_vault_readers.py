"""Snapshots of SQLite have connections of their own: one that changes over loses every statement it has prepared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from carelake.core.permit import Permit
from carelake.vault.sql.sqlcipher import Sqlcipher
from carelake.vault.workspace import Vault


@pytest.fixture
def rows(permit_for: Callable[..., Permit]) -> Permit:
    return permit_for("rows:read", "rows:write")


def driver_of(connection: Any) -> Any:
    return connection.connection.driver_connection


def test_a_connection_reads_or_writes_and_never_changes_over(vault: Vault, rows: Permit) -> None:
    if not isinstance(vault.database._driver, Sqlcipher):
        return
    readers, writers = set(), set()
    for _ in range(3):
        with vault.database.reading(rows) as connection:
            assert connection.exec_driver_sql("PRAGMA query_only").scalar() == 1
            readers.add(driver_of(connection))
        with vault.database.transaction(rows) as connection:
            assert connection.exec_driver_sql("PRAGMA query_only").scalar() == 0
            writers.add(driver_of(connection))
    assert (len(readers), len(writers)) == (1, 1)
    assert not readers & writers


def test_a_snapshot_sees_what_the_other_connection_wrote_before_it(vault: Vault, rows: Permit) -> None:
    for number in range(3):
        with vault.database.transaction(rows) as connection:
            connection.exec_driver_sql("UPDATE vault_epoch SET epoch = epoch + 1")
        with vault.database.reading(rows) as connection:
            assert connection.exec_driver_sql("SELECT epoch FROM vault_epoch").scalar() == number + 1
