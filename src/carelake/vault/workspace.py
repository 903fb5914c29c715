"""One open workspace: settings beside a key ring, a database and a store of objects.

DIR/carelake.toml                            settings; written by `apps`
DIR/keyring.json                             wrapped keys
DIR/carelake.db                              SQLCipher
DIR/vault/<account>/<zone>/<2 hex>/<32 hex>  sealed objects
KEY_DIR/<workspace id>.key                   root key      (outside DIR, decision D1)
KEY_DIR/<workspace id>.head                  signed head of the trail (outside DIR, decision D3)
"""

from __future__ import annotations

from pathlib import Path

from carelake.core.clock import Clock
from carelake.core.errors import Conflict, Invalid, Unsupported
from carelake.core.ids import Ids
from carelake.core.settings import Settings
from carelake.vault.database import Database
from carelake.vault.disk import private_folder
from carelake.vault.keyring import Keyring, read_root_settings
from carelake.vault.objects import Objects
from carelake.vault.places import ACCOUNTS, ZONES
from carelake.vault.roots import HeadFile, KeyFileRoot, PassphraseRoot, Root, check_workspace_id, new_costs
from carelake.vault.sealing import Sealer

__all__ = ["ACCOUNTS", "ZONES", "Vault"]

_FORMAT = 1
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
        self.database = Database(root / _DATABASE, keyring.database_key(), clock)
        self.objects = Objects(
            root / "vault",
            workspace=settings.workspace,
            keyring=keyring,
            database=self.database,
            clock=clock,
            ids=ids,
        )
        self.sealer = Sealer(keyring, settings.workspace, clock)
        self._head = HeadFile(key_dir, settings.workspace)

    @classmethod
    def create(
        cls, root: Path, *, settings: Settings, key_dir: Path, clock: Clock, ids: Ids, passphrase: str | None = None
    ) -> Vault:
        """Make a workspace and open it, with the tables that are known by now.

        Args:
            key_dir: folder for the root key and the trail's head; never inside ``root``.
            passphrase: stretch this into the root key instead of making a key file.

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
        provider: Root = KeyFileRoot(key_dir, settings.workspace)
        if passphrase is not None:
            provider = PassphraseRoot(passphrase, new_costs())
        keyring = Keyring.create(root / _KEYRING, workspace=settings.workspace, provider=provider, clock=clock)
        Database.make(root / _DATABASE)
        vault = cls(root, settings=settings, key_dir=key_dir, keyring=keyring, clock=clock, ids=ids)
        vault.database.create_all()
        vault.objects.sweep()
        return vault

    @classmethod
    def open(
        cls, root: Path, *, settings: Settings, key_dir: Path, clock: Clock, ids: Ids, passphrase: str | None = None
    ) -> Vault:
        """Open a workspace; sweep what a killed process left behind.

        Raises:
            Unavailable: ``vault.root_key_missing``, ``vault.no_workspace``.
            Corrupt: ``vault.wrong_key``, ``vault.keyring``, ``vault.database``.
        """
        _check(root, settings, key_dir)
        path = root / _KEYRING
        said = read_root_settings(path)
        provider: Root = KeyFileRoot(key_dir, settings.workspace)
        if said.provider == "passphrase" and said.argon2 is not None:
            provider = PassphraseRoot(passphrase, said.argon2)
        keyring = Keyring.open(path, workspace=settings.workspace, provider=provider, clock=clock)
        vault = cls(root, settings=settings, key_dir=key_dir, keyring=keyring, clock=clock, ids=ids)
        try:
            vault.objects.sweep()
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

    def read_head(self) -> bytes | None:
        """The trail's signed head as kept outside the workspace, or None; for `audit`."""
        return self._head.read()

    def write_head(self, head: bytes) -> None:
        """Replace the trail's signed head outside the workspace, atomically; for `audit`."""
        self._head.write(head)


def _check(root: Path, settings: Settings, key_dir: Path) -> None:
    check_workspace_id(settings.workspace)
    if settings.format != _FORMAT:
        raise Unsupported(
            "vault.format", f"The workspace has format {settings.format}; this version of carelake reads {_FORMAT}."
        )
    if key_dir.resolve().is_relative_to(root.resolve()):
        raise Invalid(
            "vault.key_dir_inside", "The root key must not lie inside the workspace; name a key folder outside it."
        )
