"""How much of a leader's log waits to be committed and applied, and when to take no more of it.

Pure: no I/O, no clock, no randomness of its own. Counted in entries and in bytes, since an entry may hold one report or many
tasks. New tasks are refused at half of the bounds: a flood of them must not keep out the reports, verdicts and stops that make
it end.

Promise: what waits in memory is bounded, whoever proposes how fast; what is refused has changed nothing.
"""

from __future__ import annotations

from collections import deque

from swarm.consensus.config import ConsensusConfig

NEW_WORK = ("task.submit", "task.submit_many", "task.submit_queued")


class Backlog:
    """The entries of one leadership. Those of terms before count by number only."""

    def __init__(self, config: ConsensusConfig) -> None:
        self._config = config
        self._sizes: deque[tuple[int, int]] = deque()
        self.bytes = 0
        """Invariant: the sum of the kept sizes."""

    def add(self, index: int, size_bytes: int) -> None:
        """One more entry was appended."""
        self._sizes.append((index, size_bytes))
        self.bytes += size_bytes

    def refusal(self, kind: str, *, applied_index: int, last_index: int) -> str:
        """Why an entry of this kind is not taken now; empty when it is. O(applied since the last call)."""
        while self._sizes and self._sizes[0][0] <= applied_index:
            self.bytes -= self._sizes.popleft()[1]
        part = 2 if kind in NEW_WORK else 1
        waiting = last_index - applied_index
        if waiting >= self._config.proposals_max // part:
            return f"{waiting} entries wait to be committed and applied"
        if self.bytes >= self._config.proposals_bytes_max // part:
            return f"{self.bytes} bytes wait to be committed and applied"
        return ""
