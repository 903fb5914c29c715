"""The proof of an erasure: everything read again and looked through, and a signed report of what was done and found.

The report holds counts and HMACs. It is signed by the trail's key, named by its SHA-256, and kept as a noun whose act
is sealed in the trail: so what it says can neither be changed nor made up later.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from sqlalchemy import Connection, func, select

from carelake.audit.nouns import Nouns
from carelake.audit.signing import TrailKey
from carelake.core import canonical
from carelake.core.clock import iso
from carelake.core.errors import Corrupt
from carelake.core.nouns import Noun, ref
from carelake.core.permit import Permit
from carelake.features import erase as features
from carelake.ingest.erase import LandingEraser
from carelake.lake.upkeep import erase as lake
from carelake.pipelines.erase_targets import Target
from carelake.store import Resources
from carelake.vault.tables import patient_key
from carelake.vault.workspace import Vault

__all__ = ["Prover", "leaving"]

_CHUNK = 500


class Prover:
    """See the module."""

    def __init__(self, vault: Vault, nouns: Nouns, resources: Resources, landings: LandingEraser) -> None:
        self._vault = vault
        self._nouns = nouns
        self._resources = resources
        self._landings = landings

    def residue(self, permit: Permit, target: Target, progress: Callable[[str, int, int], None]) -> dict[str, int]:
        """What is left, by place: all of it 0 when nothing is."""
        vault, gone, eraser = self._vault, target.gone, self._resources.eraser
        found, _ = eraser.mentions(permit, gone, set(), progress=partial(progress, "proof: record"))
        with vault.database.reading(permit) as tx:
            rows = eraser.residue(permit, tx, target.asked, gone)
            keys = _keys(permit, tx, target.asked)
        return {
            "keys": keys,
            "versions": len(found),
            **rows,
            "landing": self._landings.residue(permit, gone, progress=partial(progress, "proof: landing")),
            "landing_manifests": self._altered(permit),
            "lake": lake.residue(permit, vault, leaving(target), gone, progress=partial(progress, "proof: lake")),
            "features": features.residue(permit, vault, self._nouns, set(target.asked)),
        }

    def _altered(self, permit: Permit) -> int:
        """Whether a blanked landing is not what its manifest says."""
        try:
            self._landings.verify(permit)
        except Corrupt:
            return 1
        return 0

    def prove(self, permit: Permit, target: Target, done: Mapping[str, Any], residue: Mapping[str, int]) -> Noun:
        """The noun: ``report``, ``signature`` (hex, ECDSA P-256 over its canonical JSON) and ``key_version``."""
        vault = self._vault
        report = {
            **done,
            "workspace": vault.settings.copy_name,
            "account": permit.account,
            "principal": permit.principal,
            "act": permit.act,
            "ended": iso(vault.clock.now()),
            "subjects": sorted(vault.keyring.reference(permit, "patient", one.encode()) for one in target.asked),
            "residue": dict(residue),
            "complete": not any(residue.values()),
        }
        text = canonical.dump(report)
        key = TrailKey(vault.keyring)
        signed = {"signature": key.sign(text).hex(), "key_version": key.version}
        state = "proved" if report["complete"] else "residue"
        return Noun(ref("erasure", text), permit.account, state, permit.act, (), {"report": report, **signed})


def _keys(permit: Permit, tx: Connection, patients: list[str]) -> int:
    count = 0
    for start in range(0, len(patients), _CHUNK):
        page = patient_key.c.patient.in_(patients[start : start + _CHUNK])
        query = select(func.count()).select_from(patient_key).where(patient_key.c.account == permit.account, page)
        count += int(tx.execute(query).scalar_one())
    return count


def leaving(target: Target) -> lake.Leaving:
    """What of it is to leave the lake."""
    made = lake.Leaving(set(target.asked))
    for kind, seq in target.seqs:
        made.seqs.setdefault(kind, set()).add(seq)
    for kind, seq in target.rewritten:
        made.rewritten.setdefault(kind, set()).add(seq)
    return made
