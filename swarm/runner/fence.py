"""The fence: nothing new is started on news that may be old (DESIGN, section 9).

A node that was cut off, or whose disk took no entries, still holds assignments which the leader has long given to others. So
after a start, a reconnect, a stall, or some seconds in which it had not applied what a leader had named, the fence is down. It
asks a barrier: the commit index of a leader inside its lease, named after the fence went down. Once this node has applied that
far, everything decided before is known here, and the fence is up.

After a reboot nobody's containers run, so there is nothing to adopt and a whole cluster may be waiting for each other: with no
leader in reach the assignments last held are started after a wait. Not on a node that knows, or was told, that it was removed:
what it held runs elsewhere.

Pure: no I/O, no clock, no randomness of its own. Promise: `may_start` is true only with an applied index at or above a commit
index asked for after the fence last went down, or in the one case after a reboot; never on a removed node.
"""

from __future__ import annotations

import math

from swarm.model.removal import Removal
from swarm.runner.config import RunnerConfig


class Fence:
    """Down at first. `number` counts how often it went down: an answer to an older question raises nothing."""

    def __init__(self, *, config: RunnerConfig, rebooted: bool, now: float, removal: Removal = Removal.NONE) -> None:
        self.config = config
        self.removal = removal
        self.number = 1
        self.started_at = now
        self.rebooted = rebooted
        self.current_at = now
        self._ask_at = now
        self._needed: int | None = None

    @property
    def next_deadline(self) -> float:
        """When to ask again, when the last moment of being current is too long ago, or when the wait after a reboot is over."""
        if self._needed is not None:
            return self.current_at + self.config.stale_after_s
        reboot = self.started_at + self.config.reboot_wait_s if self.rebooted else math.inf
        return min(self._ask_at, reboot)

    def on_current(self, at: float) -> None:
        """All that a leader had named was applied. Does not raise the fence: only an answered question does."""
        self.current_at = max(self.current_at, at)

    def lower(self, now: float) -> None:
        """Forget what was known to be fresh and ask anew."""
        self.number += 1
        self._needed = None
        self._ask_at = now

    def on_answer(self, number: int, commit_index: int, now: float) -> bool:
        """A leader named its commit index for question `number`; False when the question is not the present one."""
        if number != self.number:
            return False
        self._needed = commit_index if self._needed is None else min(self._needed, commit_index)
        self.current_at = max(self.current_at, now)
        self.rebooted = False
        return True

    def maybe_lower(self, now: float) -> bool:
        """Go down when nothing was current for too long. True when that happened."""
        if self._needed is None or now - self.current_at < self.config.stale_after_s:
            return False
        self.lower(now)
        return True

    def maybe_ask(self, now: float) -> int | None:
        """The number of the question to ask now, if one is due."""
        if self._needed is not None or now < self._ask_at:
            return None
        self._ask_at = now + self.config.barrier_retry_s
        return self.number

    def is_fresh(self, applied_index: int) -> bool:
        """Everything decided before the last question is known here."""
        return self._needed is not None and applied_index >= self._needed

    @property
    def named_index(self) -> int | None:
        """The commit index a leader named since the fence last went down."""
        return self._needed

    def waited_after_reboot(self, now: float) -> bool:
        """No leader answered since the reboot, for long enough."""
        return self.rebooted and now >= self.started_at + self.config.reboot_wait_s

    def may_start(self, applied_index: int, now: float) -> bool:
        """Whether something that never ran here may be started."""
        return not self.removal and (self.is_fresh(applied_index) or self.waited_after_reboot(now))

    def may_restart(self, applied_index: int, now: float) -> bool:
        """Whether something that ran here may be started again. Needs no leader, but for the wait after a reboot."""
        return not self.removal and (not self.rebooted or self.may_start(applied_index, now))
