"""The root key under AWS KMS (extra ``aws``): made by GenerateDataKey, kept encrypted in ``keyring.json``.

https://docs.aws.amazon.com/kms/latest/APIReference/API_GenerateDataKey.html. The encryption context is the
workspace's id, so that a key's policy can name it, CloudTrail shows it, and no other workspace's blob opens. Region,
endpoint and credentials are those of the AWS SDK (``AWS_REGION``, ``AWS_ENDPOINT_URL_KMS``, profiles, roles).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from carelake.core.errors import Corrupt, Invalid, Unavailable
from carelake.vault.roots import KmsSettings, RootSettings
from carelake.vault.wrapping import KEY_BYTES

__all__ = ["KmsRoot"]


@dataclass(frozen=True)
class KmsRoot:
    """Asks KMS once at each opening of the workspace.

    Attributes:
        key: to make a root key: id, ARN or alias of the KMS key.
    """

    workspace: str
    key: str | None = None

    def make(self, version: int, made: str, *, first: bool) -> tuple[bytes, RootSettings]:
        """As `Root.make`."""
        if not self.key:
            raise Invalid(
                "vault.kms_key", "Name the KMS key that is to guard the root key: --kms-key ID, ARN or alias."
            )
        client = _client(None)
        said = _ask(
            self.workspace,
            client.generate_data_key,
            KeyId=self.key,
            KeySpec="AES_256",
            EncryptionContext={"workspace": self.workspace},
        )
        kms = KmsSettings(str(said["KeyId"]), str(client.meta.region_name), bytes(said["CiphertextBlob"]))
        return bytes(said["Plaintext"]), RootSettings("kms", version, kms=kms, made=made)

    def fetch(self, settings: RootSettings) -> bytes:
        """As `Root.fetch`."""
        kms = settings.kms
        if kms is None:
            raise Corrupt("vault.keyring", "The key ring names AWS KMS, but no KMS key; restore it.")
        said = _ask(
            self.workspace,
            _client(kms.region).decrypt,
            KeyId=kms.key,
            CiphertextBlob=kms.blob,
            EncryptionContext={"workspace": self.workspace},
        )
        key = bytes(said["Plaintext"])
        if len(key) != KEY_BYTES:
            raise Corrupt("vault.root_key", "What AWS KMS gave is no root key; restore the key ring.")
        return key

    def held(self, before: int) -> list[int]:
        """None: they lie in the key rings of that time."""
        return []

    def remove(self, version: int) -> None:
        """The blob goes with the key ring, though not from older copies of it; the KMS key is its owner's."""


def _client(region: str | None) -> Any:
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError:
        raise Unavailable(
            "vault.root_provider", "A root key under AWS KMS needs the extra: pip install 'carelake[aws]'."
        ) from None
    config = Config(connect_timeout=5, read_timeout=10, retries={"max_attempts": 3, "mode": "standard"})
    try:
        return boto3.client("kms", region_name=region, config=config)
    except BotoCoreError as error:
        raise Unavailable(
            "vault.root_provider", f"AWS KMS cannot be asked ({type(error).__name__}): name a region and credentials."
        ) from None


def _ask(workspace: str, call: Any, **words: Any) -> dict[str, Any]:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        found: dict[str, Any] = call(**words)
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", "unknown"))
        if code == "InvalidCiphertextException":
            raise Corrupt(
                "vault.wrong_key",
                f"AWS KMS does not open the root key of workspace {workspace}: it was altered, or is another "
                "workspace's; restore the key ring.",
            ) from None
        raise Unavailable(
            "vault.root_key_missing",
            f"AWS KMS refused the root key of workspace {workspace} ({code}): the KMS key must exist, be enabled, "
            "and its policy must let these credentials use it for this workspace.",
            kms=code,
        ) from None
    except BotoCoreError as error:
        raise Unavailable(
            "vault.root_key_missing",
            f"AWS KMS, which guards the root key of workspace {workspace}, cannot be asked ({type(error).__name__}); "
            "check network, region and credentials.",
        ) from None
    return found
