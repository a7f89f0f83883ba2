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
from testnet.host import accepts, tail
from testnet.layout import TestnetError
from testnet.state import DAEMON

DISK_MIB = 320
"""The ballast of 64 MiB is made where 128 MiB are free; the rest is for the log, its snapshots, and the past that is kept."""
START_EVERY_S = 1.0


@dataclass(slots=True)
class FullDisk:
    """One host's. Times are `time.monotonic()`."""

    takes_reserve: bool
    kill_at: float
    """Infinite: the daemon is let live."""
    is_up: bool
    """The daemon answers, or did so last: from then on it may be killed, and must not end."""
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
        self._full[number] = FullDisk(takes_reserve, kill_at, is_up=accepts(self._net.daemon_socket(number)))
        left = small_disk.fill(self._net.data_folder(number))
        self.counts["filled to the last byte" if left == 0 else "not quite filled"] += 1

    def free(self, number: int) -> None:
        """And the daemon is started, should it not run; anew, should a start be under way that may have met the full disk."""
        self.follow(number)
        full = self._full.pop(number)
        small_disk.free(self._net.data_folder(number))
        if not full.is_up:
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
        if process is None or not process.alive():
            self._look_after(number, full, now)
        elif not full.is_up:
            full.is_up = accepts(self._net.daemon_socket(number))
        elif now >= full.kill_at:
            full.kill_at, full.is_up = float("inf"), False
            self.counts["daemon killed on it"] += 1
            self._net.crash_daemon(number)

    def _look_after(self, number: int, full: FullDisk, now: float) -> None:
        """It does not run: start it, unless it was tried just now."""
        if full.is_up:
            said = tail(self._net.host(number).daemon_log, 300).splitlines()[-1]
            self.ended.append(f"h{number}, on its full disk: {said}")
            full.is_up = False
        if now - full.started_at < START_EVERY_S:
            return
        if full.started_at:
            self.counts["starts refused on it"] += 1
        full.started_at = now
        with suppress(TestnetError):
            self._net.restart_daemon(number, wait=False)
