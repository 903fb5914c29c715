"""What jobs leave as files: each file an object named by its bytes, all of them a noun named by its files.

They lie in the zone ``models`` and hold figures and fitted models, never rows of patients: those are kept by the
rooms that know how to erase them, and a job names them by their refs.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence

from carelake.audit.nouns import Nouns
from carelake.core import canonical, nouns
from carelake.core.errors import Conflict, Corrupt, Invalid
from carelake.core.nouns import Noun
from carelake.core.permit import Permit
from carelake.vault.workspace import Vault

__all__ = ["content", "keep", "read"]

_ZONE = "models"
_FOLDER = "pipelines/"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_BYTES = 256 * 1024 * 1024
_FILES = 100


def keep(permit: Permit, vault: Vault, kept: Nouns, files: Mapping[str, bytes], made_from: Sequence[str]) -> Noun:
    """Keep files, or find them: the same bytes made from the same are one noun.

    Args:
        permit: grants ``models:read``, ``models:write``, ``rows:write``.

    Raises:
        Invalid: ``pipelines.files``: a name that is none, or too many or too large files.
    """
    if not all(_NAME.fullmatch(name) for name in files) or not 1 <= len(files) <= _FILES:
        raise Invalid("pipelines.files", f"A job leaves 1 to {_FILES} files, named by letters, digits, dots, dashes.")
    if sum(map(len, files.values())) > _BYTES:
        raise Invalid("pipelines.files", f"A job leaves files of at most {_BYTES >> 20} MiB together.")
    said = {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)} for name, data in sorted(files.items())
    }
    sources = tuple(dict.fromkeys(made_from))
    named = nouns.ref("artifact", canonical.dump({"files": said, "made_from": list(sources)}))
    made = Noun(named, permit.account, "kept", permit.act, sources, {"files": said})
    for name, data in files.items():
        place = _FOLDER + str(said[name]["sha256"])
        try:
            vault.objects.put(permit, _ZONE, place, data, if_none_match=True)
        except Conflict as error:
            if error.code != "vault.precondition":
                raise
    with vault.database.transaction(permit) as tx:
        kept.write(tx, made)
        permit.log.wrote(named)
    return made


def read(permit: Permit, vault: Vault, noun: Noun, name: str) -> bytes:
    """One file of an artifact; needs the grant ``models:read``.

    Raises:
        Invalid: ``pipelines.no_file``. Corrupt: ``pipelines.altered``.
    """
    known = noun.body["files"]
    if name not in known:
        raise Invalid("pipelines.no_file", "The step left no file of this name; look at what its job leaves.")
    data = vault.objects.get(permit, _ZONE, _FOLDER + known[name]["sha256"])
    if hashlib.sha256(data).hexdigest() != known[name]["sha256"]:
        raise Corrupt("pipelines.altered", "A file that a step left is not the one that was kept; run it again.")
    permit.log.read(noun.ref)
    return data


def content(noun: Noun) -> str:
    """The digest of what an artifact holds, whatever it was made from."""
    return canonical.digest({name: one["sha256"] for name, one in noun.body["files"].items()})
