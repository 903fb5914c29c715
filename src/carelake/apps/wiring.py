"""Wiring: settings are read here and nowhere else, and every part of a workspace is made here."""

from __future__ import annotations

import importlib
import os
import tomllib
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import platformdirs

from carelake import __version__
from carelake.access.gate import Gate
from carelake.access.identity import Caller, Identity
from carelake.access.policy import Policies
from carelake.access.principals import Principal
from carelake.access.retold import witness
from carelake.audit.background import sealing_beside
from carelake.audit.declared import Changed, Declared
from carelake.audit.key_use import tell
from carelake.audit.nouns import Nouns
from carelake.audit.trail import Trail
from carelake.core.clock import SystemClock
from carelake.core.errors import Conflict, Invalid, NotFound
from carelake.core.ids import RandomIds
from carelake.core.permit import Permit
from carelake.core.settings import Settings
from carelake.core.shapes import decodable
from carelake.events.outbox import Outbox
from carelake.pipelines.shipped import TARGETS
from carelake.pipelines.tables import unfinished
from carelake.vault.disk import write_atomic
from carelake.vault.forgotten import due
from carelake.vault.formats import check_not_newer
from carelake.vault.sql.postgres import without_password
from carelake.vault.workspace import Vault

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from sqlalchemy import Connection

    from carelake.pipelines.erase import Erasures
    from carelake.pipelines.platform import Platform
    from carelake.serving.endpoint import Endpoints
    from carelake.serving.predictions import Prediction
    from carelake.store import Resources

__all__ = ["CONFIG", "Workspace", "import_tables", "key_folder", "read_settings", "settings_of"]

CONFIG = "carelake.toml"
_PREFIX = "CARELAKE_"
_TABLES = (
    "access.tables",
    "apps.http.aws.tables",
    "audit.declared",
    "audit.tables",
    "events.tables",
    "features.groups.tables",
    "ingest.tables",
    "lake.tables",
    "models.tables",
    "monitor.tables",
    "pipelines.tables",
    "serving.tables",
    "store.jobs_tables",
    "store.tables",
    "vault.tables",
)
_NOT_SETTINGS = frozenset(
    {
        "DEBUG",
        "KEY_DIR",
        "PASSPHRASE",
        "WORKSPACE",
        "TEST_DATA",
        "PURPOSE",
        "ACCOUNT",
        "AS",
        "TOKEN",
        "NEW_PASSPHRASE",
    }
)
_FILE_ONLY = frozenset({"access", "accounts", "approval", "audit", "keys"})
"""Sections that no environment overrides: an override of a limit would leave no trace in the trail."""


def key_folder(environment: Mapping[str, str]) -> Path:
    """Where root keys are: ``CARELAKE_KEY_DIR``, or ``keys`` in the user's configuration folder (decision D1)."""
    told = environment.get("CARELAKE_KEY_DIR")
    return Path(told) if told else Path(platformdirs.user_config_dir("carelake")) / "keys"


def read_settings(root: Path, environment: Mapping[str, str]) -> Settings:
    """Settings of the workspace at ``root``: ``carelake.toml``, then ``CARELAKE_SECTION__NAME`` from the environment.

    Raises:
        NotFound: ``apps.no_workspace``.
        Invalid: ``apps.settings``, naming the setting.
    """
    try:
        data = (root / CONFIG).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(
            "apps.no_workspace", f"There is no workspace here ({CONFIG} is missing); `carelake init DIR` makes one."
        ) from None
    return settings_of(data, environment)


def settings_of(data: bytes, environment: Mapping[str, str]) -> Settings:
    """As `read_settings`, of the bytes of a ``carelake.toml``."""
    try:
        said = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Invalid("apps.settings", f"{CONFIG} is not valid TOML: {error}") from None
    for name, text in environment.items():
        if name.startswith(_PREFIX) and name.removeprefix(_PREFIX) not in _NOT_SETTINGS:
            path = name.removeprefix(_PREFIX).lower().split("__")
            if path[0] in _FILE_ONLY:
                raise Invalid(
                    "apps.settings",
                    f"{name} is not taken from the environment: settings of [{path[0]}] are limits, so they stand "
                    f"in {CONFIG}, where a change of them is told; unset it.",
                )
            _put(said, path, text)
    if isinstance(found := said.get("format"), int):
        # Before the settings, of which a later version knows others.
        check_not_newer(found, str(said.get("version", "")))
    try:
        return msgspec.convert(said, decodable(Settings), strict=False)
    except msgspec.ValidationError as error:
        raise Invalid("apps.settings", f"A setting is wrong: {error}. docs/settings.md lists them all.") from None


def _put(said: dict[str, Any], path: list[str], text: str) -> None:
    for step in path[:-1]:
        inner = said.setdefault(step, {})
        if not isinstance(inner, dict):
            raise Invalid("apps.settings", f"{_PREFIX}{'__'.join(path).upper()} names a section that is a value.")
        said = inner
    said[path[-1]] = text


class Workspace:
    """An open workspace: everything that the doors need, made once and handed out."""

    def __init__(self, vault: Vault) -> None:
        self.vault = vault
        self.settings = vault.settings
        self.gate = Gate(vault, Policies.load(vault.root / "policies", jurisdictions(self.settings)), TARGETS)
        self.trail = Trail(vault, [witness(vault, self.gate.vouching)])
        self.identity = Identity(vault)
        self.nouns = Nouns(vault.clock)
        self.outbox = Outbox(vault.clock, vault.ids, workspace=vault.settings.workspace)
        self.declared = Declared(vault.database, vault.clock, vault.ids)
        self.changed: list[Changed] = []

    @classmethod
    def create(
        cls, root: Path, environment: Mapping[str, str], *, provider: str | None = None, kms_key: str | None = None
    ) -> Workspace:
        """Make a workspace and bind the operating-system user to ``operator`` (decision D13).

        Args:
            provider: of the root key; see `Vault.create`.

        Raises:
            Conflict: ``apps.not_empty``, when the folder holds something already.
        """
        if root.exists() and (not root.is_dir() or any(root.iterdir())):
            raise Conflict("apps.not_empty", "The folder is not empty; a workspace is made in a new or empty one.")
        import_tables()
        settings = _new_settings(environment)
        vault = Vault.create(
            root,
            settings=settings,
            key_dir=key_folder(environment),
            passphrase=environment.get("CARELAKE_PASSPHRASE"),
            clock=SystemClock(),
            ids=RandomIds(),
            provider=provider,
            kms_key=kms_key,
        )
        made = cls(vault)
        made.identity.bind_defaults(os.getuid())
        # Last: a folder with this file is a whole workspace, one without it is none.
        write_atomic(root / CONFIG, _settings_text(settings).encode())
        made.changed = made.declared.look(_plain_files(root))
        return made

    @classmethod
    def open(cls, root: Path, environment: Mapping[str, str], *, upgrading: bool = False) -> Workspace:
        """Open the workspace at ``root``; jobs that a dead process left open are marked as interrupted.

        Args:
            upgrading: open an older one too, to upgrade it and for nothing else.
        """
        settings = read_settings(root, environment)
        import_tables()
        vault = Vault.open(
            root,
            settings=settings,
            key_dir=key_folder(environment),
            passphrase=environment.get("CARELAKE_PASSPHRASE"),
            clock=SystemClock(),
            ids=RandomIds(),
            upgrading=upgrading,
        )
        workspace = cls(vault)
        if not upgrading:
            workspace.trail.recover()
            tell(vault)
            workspace.replay()
            workspace.changed = workspace.declared.look(_plain_files(root))
        return workspace

    def close(self) -> None:
        """Seal what was done, then close."""
        try:
            self.trail.seal(self.gate.sealing(), closing=True)
        finally:
            self.vault.close()

    def replay(self, *, finish: bool = False) -> int:
        """Take out of a copy that was put back whoever was erased after it was made; answers how many erasures.

        Args:
            finish: bring to its end what was under way in the copy, too; without, `carelake erase` does.
        """
        accounts = set(due(self.vault))
        if finish:
            with self.vault.database.reading(self.gate.polling()) as connection:
                accounts |= unfinished(connection)
        count = 0
        for account in sorted(accounts):
            with self.gate.replaying(account) as permit:
                count += len(self.erasures.replay(permit))
        return count

    def accept(self, permit: Permit) -> list[Changed]:
        """Accept ``carelake.toml`` and the policies as they are now; answers what that changed."""
        found, self.changed = self.declared.accept(permit, _plain_files(self.vault.root)), []
        return found

    def local(self, name: str | None, purpose: str | None, account: str | None) -> Caller:
        """The caller at the command line."""
        who = self.identity.local(os.getuid(), name)
        return Caller(who, "HOPERAT" if purpose is None else purpose, "production" if account is None else account)

    def principal(self, name: str, speaker: Principal) -> Principal:
        """A principal that acts on behalf of ``speaker``."""
        return self.identity.named(name, speaker)

    def enter(self, caller: Caller, action: str, target: str, *, job: bool = False) -> AbstractContextManager[Permit]:
        """Enter the gate as a caller; beside a job its acts are sealed while it runs."""
        entered = self.gate.enter(caller.principal, action, target, caller.purpose, account=caller.account, job=job)
        return self._sealed(entered) if job else entered

    @contextmanager
    def _sealed(self, entered: AbstractContextManager[Permit]) -> Iterator[Permit]:
        with sealing_beside(self.trail, self.gate.sealing, self.settings.serve.seal_seconds), entered as permit:
            yield permit

    @cached_property
    def resources(self) -> Resources:
        """The record."""
        from carelake.store import Resources

        return Resources(self.vault)

    @cached_property
    def erasures(self) -> Erasures:
        """Erasures of patients."""
        from carelake.pipelines.erase import Erasures

        return Erasures(self.vault, self.nouns, self.outbox, self.resources)

    @cached_property
    def platform(self) -> Platform:
        """The repositories of every room; imported when first asked for, since learning is heavy."""
        from carelake.pipelines.platform import Platform

        kept = (self.vault, self.gate, self.identity, self.nouns, self.outbox, self.resources)
        return Platform(*kept, serving=self.endpoints)

    @cached_property
    def endpoints(self) -> Endpoints:
        """Endpoints, without the rest of the platform: to deploy one imports neither the lake nor a learner."""
        from carelake.models.registry import Registry
        from carelake.serving.endpoint import Endpoints

        def keep(permit: Permit, tx: Connection, resources: Sequence[Mapping[str, Any]]) -> object:
            from carelake.store.write import parsed

            return self.resources.keep(permit, tx, "", [parsed(dict(one)) for one in resources])

        registry = Registry(self.vault, self.nouns, self.outbox)
        return Endpoints(self.vault, self.nouns, self.outbox, registry, keep, self.gate)

    def predict(
        self, permit: Permit, endpoint: str, *, patient: str | None = None, days: float | None = None
    ) -> list[Prediction]:
        """The prediction of one patient, or the morning list."""
        from carelake.pipelines import predictions

        if patient is not None:
            return [predictions.for_patient(self.platform, permit, endpoint, patient)]
        return predictions.morning_list(self.platform, permit, endpoint, 7.0 if days is None else days)


def _plain_files(root: Path) -> dict[str, bytes]:
    """The files in the clear that decide what the workspace does, by their names in it."""
    found = [root / CONFIG, *sorted((root / "policies").glob("*.cedar"))]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in found if path.is_file()}


def _new_settings(environment: Mapping[str, str]) -> Settings:
    """Of a new workspace: what decides where its rows will be is taken from the environment, and kept."""
    said: dict[str, Any] = {"workspace": uuid.uuid4().hex, "version": __version__}
    for name, text in environment.items():
        if name.startswith(f"{_PREFIX}DATABASE__"):
            _put(said, name.removeprefix(_PREFIX).lower().split("__"), text)
    try:
        return msgspec.convert(said, decodable(Settings), strict=False)
    except msgspec.ValidationError as error:
        raise Invalid("apps.settings", f"A setting is wrong: {error}. docs/settings.md lists them all.") from None


def _settings_text(settings: Settings) -> str:
    lines = [
        "# Settings of this workspace; docs/settings.md lists them all.",
        f'workspace = "{settings.workspace}"',
        f"format = {settings.format}",
        f'version = "{settings.version}"',
    ]
    told = settings.database
    if told.url:
        lines += ["", "[database]", f"url = {_quoted(without_password(told.url))}"]
        lines += [f"password_file = {_quoted(told.password_file)}"] if told.password_file else []
        lines += ["encrypted_volume = true"] if told.encrypted_volume else []
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    # A JSON string is a TOML basic string, but for DEL (https://toml.io/en/v1.0.0#string).
    return msgspec.json.encode(text).decode().replace("\x7f", "\\u007f")


def jurisdictions(settings: Settings) -> dict[str, str]:
    """What the settings say of accounts, for the policies."""
    return {name: account.jurisdiction for name, account in settings.accounts.items()}


def import_tables() -> None:
    """Import every room that has tables, so that the schema is whole before it is made."""
    for name in _TABLES:
        importlib.import_module(f"carelake.{name}")
