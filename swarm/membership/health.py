"""Local health: how much this member distrusts its own eyes (Lifeguard, section IV.A).

A score from 0 (well) up. Whoever is slow itself misses answers, and sees death everywhere; so what hints at that raises the
score: a failed probe whose helpers kept silent too, having to refute an accusation, and a pause of this very process. An
answered probe lowers it. Every timeout of this member is multiplied by (score + 1).

Pure: no I/O, no clock, no randomness of its own.
"""

from __future__ import annotations


class LocalHealth:
    """Invariant: 0 <= score <= score_max."""

    __slots__ = ("score", "score_max")

    def __init__(self, score_max: int) -> None:
        self.score = 0
        self.score_max = score_max

    @property
    def factor(self) -> int:
        """What timeouts are multiplied by, 1 to score_max + 1."""
        return self.score + 1

    def on_answer(self) -> None:
        """A probe was answered."""
        self._add(-1)

    def on_failed_probe(self, *, reports_expected: int, reports_received: int) -> None:
        """Nobody reached the target. Helpers that reported so prove that this member can hear; missing ones that it may not."""
        self._add(max(0, reports_expected - reports_received))

    def on_refute(self) -> None:
        """Somebody lost sight of this member."""
        self._add(1)

    def on_stall(self, gap_s: float) -> None:
        """This process did not run: one step, and one more per second, up to four."""
        self._add(min(4, 1 + int(gap_s)))

    def _add(self, step: int) -> None:
        self.score = min(self.score_max, max(0, self.score + step))
