"""Time, from the kernel."""

from __future__ import annotations

import time


class SystemClock:
    """`ports.Clock`. CLOCK_BOOTTIME runs on while the machine sleeps; monotonic time and Trio's clock do not."""

    def now(self) -> float:
        """Seconds since the host's boot, sleep included."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def utc(self) -> float:
        """Wall time, seconds since the epoch; for people only."""
        return time.time()
