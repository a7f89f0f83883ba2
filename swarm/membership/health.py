"""Local health: how much this member distrusts its own eyes (Lifeguard, section IV.A).

A score from 0 (well) up. Whoever is slow itself misses answers, and sees death everywhere; so what hints at that raises the
score: a failed probe whose helpers kept silent too, having to refute an accusation, and a pause of this very process. An
answered probe lowers it. Every timeout of this member is multiplied by (score + 1).

Lifeguard infers slowness from what comes back; this member also measures it. While its own loop runs late, or its host waits for
processors and the loop shows it, the score does not fall below a floor, however many answers arrive: they arrive late too.

Pure: no I/O, no clock, no randomness of its own.
"""

from __future__ import annotations

LAG_STEP_S = 0.15
"""Lag of the loop that costs one step of trust: the direct timeout. So late a loop takes an answered ping for a lost one."""
LAG_FLOOR_MAX = 4
"""Lag alone counts this many steps at most: 0.6 s, beyond which it is a stall and told as one."""
PRESSURE_HIGH_PERMILLE = 500
"""Half of the last ten seconds somebody on this host waited for a processor (PSI, `some avg10`)."""
PRESSURE_LAG_S = 0.05
"""Pressure counts only when this loop feels it: at nice -20 it usually does not (p99 of the lag 20 ms at 16 times overload)."""


class LocalHealth:
    """Invariant: 0 <= floor <= score <= score_max."""

    __slots__ = ("_earned", "floor", "score_max")

    def __init__(self, score_max: int) -> None:
        self._earned = 0
        self.floor = 0
        """What the measured lag and pressure allow at best."""
        self.score_max = score_max

    @property
    def score(self) -> int:
        """0 is well."""
        return max(self._earned, self.floor)

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

    def on_pressure(self, *, lag_s: float, cpu_pressure_permille: int | None) -> None:
        """The largest lag of this process's loop since the last call, and the pressure on the host's processors if known."""
        pressed = cpu_pressure_permille is not None and cpu_pressure_permille >= PRESSURE_HIGH_PERMILLE
        felt = pressed and lag_s >= PRESSURE_LAG_S
        self.floor = min(self.score_max, LAG_FLOOR_MAX, int(lag_s / LAG_STEP_S) + felt)

    def _add(self, step: int) -> None:
        self._earned = min(self.score_max, max(0, self._earned + step))
