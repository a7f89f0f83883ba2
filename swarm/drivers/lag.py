"""How late the loop comes to what was planned: the last time, the most since it was asked, and the most within a minute."""

from __future__ import annotations

from collections import deque

WINDOW_S = 60.0
_SLOT_S = 5.0


class LoopLag:
    """Fed by whoever knows when it meant to wake. Keeps the worst of each five seconds, so `max_s` covers 55 to 60 s."""

    def __init__(self) -> None:
        self.last_s = 0.0
        self._unasked_s = 0.0
        self._slots: deque[tuple[int, float]] = deque(maxlen=round(WINDOW_S / _SLOT_S))

    def note(self, lag_s: float, now: float) -> None:
        """A wake came this much late. `now` never goes back."""
        self.last_s = lag_s
        self._unasked_s = max(self._unasked_s, lag_s)
        slot = int(now // _SLOT_S)
        if self._slots and self._slots[-1][0] == slot:
            lag_s = max(lag_s, self._slots.pop()[1])
        self._slots.append((slot, lag_s))

    def take_max_s(self) -> float:
        """The worst since the last call of this."""
        worst_s, self._unasked_s = self._unasked_s, 0.0
        return worst_s

    def max_s(self, now: float) -> float:
        """The worst within the last minute."""
        oldest = int(now // _SLOT_S) - round(WINDOW_S / _SLOT_S)
        return max((lag_s for slot, lag_s in self._slots if slot > oldest), default=0.0)
