"""Full disks of daemons: filled to the last block, watched while they are full, and freed.

Two kinds. With the **reserve** left, the daemon finds its disk full once, gives its ballast back, and lives on that. With the
reserve **taken too**, whatever the daemon frees is filled again at once: it can write nothing at all until somebody frees the
disk.
A daemon may be killed meanwhile; whatever ended, a service manager's work is done here: one start a second, as long as it takes.

Counted: what happened to the ballast, and how often a daemon was killed, or did not start, on its full disk. A running daemon
that a full disk ended is written down in `ended`: none is allowed to.
"""

from __future__ import annotations

import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass

from testnet import small_disk
from testnet.cluster import Testnet
from testnet.host import tail
from testnet.layout import TestnetError
from testnet.state import DAEMON

DISK_MIB = 320
"""The ballast of 64 MiB is made where 128 MiB are free; the rest is for the log, its snapshots, and the past that is kept."""
START_EVERY_S = 1.0
LASTS_S = 5.0
"""A daemon that was up for so long had started."""


@dataclass(slots=True)
class FullDisk:
    """One host's. Times are `time.monotonic()`."""

    takes_reserve: bool
    kill_at: float
    """Infinite: the daemon is let live."""
    was_killed: bool = False
    gave_back: bool = False
    started_at: float = 0.0


class FullDisks:
    """Fills and frees. `follow` is called often, by the thread that does everything here."""

    def __init__(self, net: Testnet) -> None:
        self.counts: Counter[str] = Counter()
        self.ended: list[str] = []
        self._net = net
        self._full: dict[int, FullDisk] = {}

    def fill(self, number: int, *, takes_reserve: bool, kill_at: float) -> None:
        self._full[number] = FullDisk(takes_reserve, kill_at)
        left = small_disk.fill(self._net.data_folder(number))
        self.counts["filled to the last byte" if left == 0 else "not quite filled"] += 1

    def free(self, number: int) -> None:
        """And the daemon is started, should it not run; anew, should a start be under way that may have met the full disk."""
        self.follow(number)
        full = self._full.pop(number)
        small_disk.free(self._net.data_folder(number))
        if time.monotonic() - full.started_at < LASTS_S:
            with suppress(TestnetError):
                self._net.crash_daemon(number)
        self._net.restart_daemon(number, wait=False)

    def follow_all(self) -> None:
        for number in self._full:
            self.follow(number)

    def follow(self, number: int) -> None:
        """Take what was freed, if that is its kind, and look after the daemon."""
        full, folder, now = self._full[number], self._net.data_folder(number), time.monotonic()
        if not full.gave_back and small_disk.ballast_bytes(folder) == 0:
            full.gave_back = True
            self.counts["ballast given back"] += 1
        if full.takes_reserve:
            small_disk.fill(folder)
        process = self._net.process(number, DAEMON)
        if process is not None and process.alive():
            if now >= full.kill_at:
                full.kill_at, full.was_killed = float("inf"), True
                self.counts["daemon killed on it"] += 1
                self._net.crash_daemon(number)
        elif now - full.started_at >= START_EVERY_S:
            self._start(number, full, now)

    def _start(self, number: int, full: FullDisk, now: float) -> None:
        said = tail(self._net.host(number).daemon_log, 300).splitlines()[-1]
        if not full.was_killed:
            self.ended.append(f"h{number}, on its full disk: {said}")
        elif full.started_at:
            self.counts["starts refused on it"] += 1
            if now - full.started_at >= LASTS_S:
                self.ended.append(f"h{number}, {now - full.started_at:.1f} s after it started on its full disk: {said}")
        full.started_at = now
        full.was_killed = True
        with suppress(TestnetError):
            self._net.restart_daemon(number, wait=False)
