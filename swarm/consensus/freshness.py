"""How old what a node shows is: since when it has everything applied that a leader told it was committed.

A leader names its commit index at some moment; once everything up to it is applied here, the catalog is as new as that moment. A
node that hears its leader and applies nothing (a full disk, a log that is far behind) grows old all the same.

What a leader said while this node stood still is read only afterwards, and says nothing about the time since: for a second after
a standstill, whatever arrives counts from where that began.

Pure: no I/O, no clock, no randomness of its own. Promise: the moment is never later than one at which what is applied was
everything committed, as far as the leader heard of then knew; memory is bounded, at the price of a moment that is earlier.
"""

from __future__ import annotations

from collections import deque

WAITING_MAX = 64
"""Commit indexes that were named and are not applied yet. Heartbeats name some ten in a second."""
SETTLES_S = 1.0
"""So long after a standstill everything that came meanwhile has been read. Shorter: old data may look new. Longer: new data looks
old for longer."""


class Freshness:
    """Times are this node's CLOCK_BOOTTIME seconds. Invariant: the indexes that wait grow, and are beyond what is applied."""

    __slots__ = ("_applied", "_stood_since", "_stood_until", "_waiting", "at", "told_commit")

    def __init__(self) -> None:
        self.at = float("-inf")
        """When the catalog here was last known to lack nothing; -inf if never."""
        self.told_commit = 0
        """The largest commit index that a leader has named."""
        self._applied = 0
        self._stood_since = self._stood_until = float("-inf")
        self._waiting: deque[tuple[int, float]] = deque()

    def stood_still(self, gap_s: float, now: float) -> None:
        """This process did nothing for so long, until now."""
        if now >= self._stood_until:
            self._stood_since = now - gap_s
        self._stood_until = now + SETTLES_S

    def arrived(self, commit: int, now: float) -> None:
        """A message of a leader with its commit index was read now."""
        self.hear(commit, self._stood_since if now < self._stood_until else now)

    def hear(self, commit: int, at: float) -> None:
        """A leader's commit index at that moment, or a little before."""
        self.told_commit = max(self.told_commit, commit)
        if commit <= self._applied:
            self.at = max(self.at, at)
        elif self._waiting and self._waiting[-1][0] == commit:
            self._waiting[-1] = (commit, max(at, self._waiting[-1][1]))
        elif len(self._waiting) < WAITING_MAX and (not self._waiting or commit > self._waiting[-1][0]):
            self._waiting.append((commit, at))

    def applied(self, index: int) -> None:
        """The catalog has everything up to here."""
        self._applied = max(self._applied, index)
        while self._waiting and self._waiting[0][0] <= index:
            self.at = max(self.at, self._waiting.popleft()[1])
