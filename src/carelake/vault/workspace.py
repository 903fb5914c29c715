"""One open workspace: settings beside a key ring, a database and a store of objects.

DIR/carelake.toml                            settings; written by `apps`
DIR/keyring.json                             wrapped keys
DIR/carelake.db                              SQLCipher; none where rows are in PostgreSQL
DIR/vault/<account>/<zone>/<2 hex>/<32 hex>  sealed objects
KEY_DIR/<workspace id>.key                   root key      (outside DIR, decision D1)
KEY_DIR/<workspace id>.head                  signed head of the trail (outside DIR, decision D3)
KEY_DIR/<workspace id>.forgotten             destroyed keys and erased patients (outside DIR, decision 0020)

A copy that was restored has a head and a list of its own, <workspace id>.<copy>.head (decision 0023).
"""

from __future__ import annotations

from pathlib import Path

from carelake.core.clock import Clock
from carelake.core.errors import Conflict, Corrupt, Invalid
from carelake.core.ids import Ids
from carelake.core.settings import Settings
from carelake.vault.database import Database
from carelake.vault.destruction import destroy_due
from carelake.vault.disk import private_folder
from carelake.vault.forgotten import Forgotten, replay
from carelake.vault.formats import check_format, check_not_newer
from carelake.vault.keyring import Keyring, Notice
from carelake.vault.objects import Objects
from carelake.vault.places import ACCOUNTS, ZONES
from carelake.vault.ring import read_ring
from carelake.vault.roots import HeadFile, Roots, check_workspace_id, other_copies
from carelake.vault.sealing import Sealer
from carelake.vault.sql.driver import Driver
from carelake.vault.sql.postgres import Postgres
from carelake.vault.sql.sqlcipher import Sqlcipher

__all__ = ["ACCOUNTS", "ZONES", "Vault"]

_KEYRING = "keyring.json"
_DATABASE = "carelake.db"


class Vault:
    """A workspace that is open in this process."""

    def __init__(
        self, root: Path, *, settings: Settings, key_dir: Path, keyring: Keyring, clock: Clock, ids: Ids
    ) -> None:
        self.root = root
        self.settings = settings
        self.clock = clock
        self.ids = ids
        self.keyring = keyring
        self.database = Database(_driver(root, settings, keyring), clock)
        self.objects = Objects(
            root / "vault",
            settings=settings,
            keyring=keyring,
            database=self.database,
            clock=clock,
            ids=ids,
        )
        self.sealer = Sealer(keyring, settings.workspace, clock)
        self._head = HeadFile(key_dir, settings.workspace, settings.copy)

    @classmethod
    def create(
        cls,
        root: Path,
        *,
        settings: Settings,
        key_dir: Path,
        clock: Clock,
        ids: Ids,
        passphrase: str | None = None,
        provider: str | None = None,
        kms_key: str | None = None,
    ) -> Vault:
        """Make a workspace and open it, with the tables that are known by now.

        Args:
            key_dir: folder for the root key and the trail's head; never inside ``root``.
            passphrase: stretch this into the root key instead of making a key file.
            provider: of the root key, one of `roots.PROVIDERS`; default a passphrase if there is one, else a file.
            kms_key: for the provider ``kms``.

        Raises:
            Conflict: ``vault.exists``, ``vault.root_key_exists``.
            Invalid: ``vault.key_dir_inside``, ``vault.workspace_id``.
        """
        _check(root, settings, key_dir)
        if (root / _KEYRING).exists() or (root / _DATABASE).exists():
            raise Conflict(
                "vault.exists", f"There is a workspace at {root} already; open it, or choose another folder."
            )
        private_folder(root)
        root.chmod(0o700)
        name = provider or ("file" if passphrase is None else "passphrase")
        choose = Roots(settings.workspace, key_dir, passphrase)
        keyring = Keyring.create(
            root / _KEYRING,
            workspace=settings.workspace,
            provider=choose.named(name, kms_key=kms_key),
            chooser=choose,
            key_dir=key_dir,
            clock=clock,
        )
        if not settings.database.url:
            Sqlcipher.make(root / _DATABASE)
        vault = cls(root, settings=settings, key_dir=key_dir, keyring=keyring, clock=clock, ids=ids)
        try:
            vault.database.create(settings.workspace)
            vault.objects.sweep()
        except BaseException:
            vault.close()
            raise
        return vault

    @classmethod
    def open(
        cls,
        root: Path,
        *,
        settings: Settings,
        key_dir: Path,
        clock: Clock,
        ids: Ids,
        passphrase: str | None = None,
        upgrading: bool = False,
    ) -> Vault:
        """Open a workspace; sweep what a killed process left behind.

        Args:
            upgrading: open an older one too, to upgrade it and for nothing else.

        Raises:
            Conflict: ``vault.upgrade_needed``. Unsupported: ``vault.format``.
            Unavailable: ``vault.root_key_missing``, ``vault.no_workspace``.
            Corrupt: ``vault.wrong_key``, ``vault.keyring``, ``vault.database``, ``vault.copy_mismatch``,
                ``vault.copy_unknown``.
        """
        _check(root, settings, key_dir, upgrading=upgrading)
        # Before the ring is opened, which would begin a list where there is none.
        _check_copy(settings, read_ring(root / _KEYRING).file.copy_id, key_dir)
        choose = Roots(settings.workspace, key_dir, passphrase)
        keyring = Keyring.open(
            root / _KEYRING, workspace=settings.workspace, chooser=choose, key_dir=key_dir, clock=clock
        )
        if gone := destroy_due(keyring, clock):
            keyring.notices.append(Notice("destroyed", gone))
        vault = cls(root, settings=settings, key_dir=key_dir, keyring=keyring, clock=clock, ids=ids)
        try:
            vault.database.check_workspace(settings.copy_name, upgrading=upgrading)
            if upgrading:
                return vault
            vault.objects.sweep()
            if again := replay(vault):
                keyring.notices.append(Notice("erased_again", count=again))
        except BaseException:
            vault.close()
            raise
        return vault

    def close(self) -> None:
        """Close files and connections."""
        self.objects.close()
        self.database.close()

    def __enter__(self) -> Vault:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def forgotten(self) -> Forgotten:
        """The list of destroyed keys and erased patients, outside the workspace; a backup takes it along."""
        return self.keyring.forgotten

    @property
    def head_folder(self) -> Path:
        """Where the head is kept, beside the root key; for `audit`."""
        return self._head.path.parent

    def read_head(self) -> bytes | None:
        """The trail's signed head as kept outside the workspace, or None; for `audit`."""
        return self._head.read()

    def write_head(self, head: bytes) -> None:
        """Replace the trail's signed head outside the workspace, atomically; for `audit`."""
        self._head.write(head)


def _driver(root: Path, settings: Settings, keyring: Keyring) -> Driver:
    if settings.database.url:
        return Postgres(settings.database)
    return Sqlcipher(root / _DATABASE, keyring.database_key())


def _check(root: Path, settings: Settings, key_dir: Path, *, upgrading: bool = False) -> None:
    check_workspace_id(settings.workspace)
    (check_not_newer if upgrading else check_format)(settings.format, settings.version)
    if key_dir.resolve().is_relative_to(root.resolve()):
        raise Invalid(
            "vault.key_dir_inside", "The root key must not lie inside the workspace; name a key folder outside it."
        )


def _check_copy(settings: Settings, ring: str, key_dir: Path) -> None:
    """Let pass a copy that settings and key ring name alike, and of which the key folder knows.

    By another name, or in a place that knows of other copies only, an old copy would find no head to be held against
    and no list of what was erased since.
    """
    if settings.copy != ring:
        raise Corrupt(
            "vault.copy_mismatch",
            "The key ring is not of the copy of the workspace that the settings name: the head of that one is "
            "missing here. Put `copy` in carelake.toml back as `restore` wrote it, or restore the newest backup.",
        )
    told = (key_dir, settings.workspace)
    own = (HeadFile(*told, settings.copy).path, Forgotten(*told, b"", settings.copy).path)
    if (settings.copy or other_copies(*told, settings.copy)) and not any(path.exists() for path in own):
        raise Corrupt(
            "vault.copy_unknown",
            f"The head of this copy of the workspace, {own[0].name}, is missing beside the root key: an old copy was "
            "put here, or the file was lost; put it back, or restore the newest backup.",
        )
