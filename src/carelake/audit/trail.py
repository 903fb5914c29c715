"""The trail as one thing: marks jobs that died, seals what was committed, and verifies all of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from carelake.audit.heads import Heads
from carelake.audit.lease import Lease
from carelake.audit.readings import Acts, close_interrupted, gone
from carelake.audit.sealing import SealingRound
from carelake.audit.verification import Problem, Verdict, Verification, Witness
from carelake.core.permit import Permit
from carelake.vault.workspace import Vault

__all__ = ["Problem", "Trail", "Verdict"]


class Trail:
    """Seals and verifies the acts of one workspace; ``witnesses`` compare more tables with the acts."""

    def __init__(self, vault: Vault, witnesses: Sequence[Witness] = ()) -> None:
        self._vault = vault
        self._witnesses = witnesses
        self._sealing = threading.Lock()
        self.heads = Heads(vault)
        self.lease = Lease(vault)

    def recover(self) -> int:
        """Mark jobs whose process is gone as interrupted; answers how many."""
        clock, seconds = self._vault.clock, self._vault.settings.access.job_seconds
        with self._vault.database.ledger_reading() as connection:
            lost = gone(Acts(connection).unfinished(), clock, seconds)
        if not lost:
            return 0
        with self._vault.database.ledger() as connection:
            return close_interrupted(connection, clock, lost)

    def seal(self, permit: Permit, *, closing: bool = False) -> int:
        """Seal all committed acts that no segment covers; answers how many segments were made.

        Another process may be the sealer: then it is none, and that one seals them within its second.

        Args:
            closing: this process ends; let another one be elected at once.

        Raises:
            Corrupt: ``audit.rolled_back``, ``audit.stray_segment``.
        """
        with self._sealing:
            made = SealingRound(self._vault, self.heads, self.lease, permit, closing=closing).run()
            if closing and not made:
                self.lease.release()
            return made

    def verify(
        self,
        permit: Permit,
        *,
        since: str = "",
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Verdict:
        """Compare rows, segments, signatures, the outside head and the anchor; see `verification.Verification`."""
        return Verification(self._vault, self.heads, permit, progress, self._witnesses).run(since)
