"""A change feed over a small synthetic hospital, for tests that need a lake and no store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from carelake.core import canonical
from carelake.core.permit import Permit
from carelake.store.feed import Change
from carelake.synth import generate

__all__ = ["GRANTS", "Feed"]

GRANTS = (
    *("clinical:read", "lake:read", "lake:write", "features:read", "features:write", "features:keep"),
    *("rows:read", "rows:write", "rows:erase"),
)
_WHEN = "2025-01-01T00:00:00.000Z"


class Feed:
    """Versions in order; more may be added."""

    def __init__(self, folder: Path, patients: int, seed: int) -> None:
        made = generate(folder, patients=patients, seed=seed, workers=1)
        lines = [line for file in made.files for line in file.read_bytes().splitlines()]
        self.resources: list[dict[str, Any]] = [canonical.load(line) for line in lines]
        self.versions: list[tuple[dict[str, Any], int]] = [(one, 1) for one in self.resources]

    def again(self, resource: dict[str, Any]) -> None:
        """A second version of a resource."""
        self.versions.append((resource, 2))

    def owner(self, resource: dict[str, Any]) -> str:
        if resource["resourceType"] == "Patient":
            return str(resource["id"])
        return str(resource.get("subject", resource.get("patient", {})).get("reference", "")).removeprefix("Patient/")

    def _change(self, at: int) -> Change:
        one, version = self.versions[at]
        kind, body = one["resourceType"], canonical.dump(one)
        return Change(at + 1, kind, one["id"], version, False, self.owner(one), _WHEN, body, f"resource:{at + 1}")

    def changes(self, permit: Permit, after: int, limit: int) -> Sequence[Change]:
        return [self._change(at) for at in range(after, min(after + limit, len(self.versions)))]

    def changes_of(self, permit: Permit, seqs: Sequence[int]) -> Sequence[Change]:
        return [self._change(seq - 1) for seq in seqs]

    def last_seq(self, permit: Permit) -> int:
        return len(self.versions)
