"""Trouble: faults of hosts, daemons, engines, disks and paths, drawn from a seed, each mended after a while.

At most a minority of the hosts is in trouble at any moment, except for a blackout, which takes all of them: then nothing is
promised but that what was acknowledged is still there. A service manager's work (starting a daemon that ended) is done here too,
and a daemon that ended though nobody killed it is written down.
"""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from collections.abc import Callable

from testnet.cluster import Testnet
from testnet.layout import TestnetError
from testnet.soak.full_disks import FullDisks
from testnet.state import DAEMON

KINDS = (
    "power", "power", "daemon", "daemon", "engine", "freeze", "stall", "isolate", "pair", "one way", "leader", "blackout",
    "full disk", "full disk", "full disk of the leader", "full disk, reserve too",
)  # fmt: skip
"""As often as they stand here."""


class Trouble:
    """Breaks and mends. `step` is called often, by one thread."""

    def __init__(self, net: Testnet, seed: int, *, every_s: float) -> None:
        self.counts: Counter[str] = Counter()
        self.story: list[str] = []
        self.ended_by_itself: list[str] = []
        self.disks = FullDisks(net)
        self._net = net
        self._rng = random.Random(f"{seed}/trouble")
        self._every_s = every_s
        self._began = time.monotonic()
        self._next_at = self._began + every_s
        self._repairs: list[tuple[float, int, Callable[[], None]]] = []
        self._broken: dict[int, int] = {}
        """How many faults each host is in at the moment."""
        self._expected_down: set[int] = set()

    def step(self) -> None:
        """Mend what is due, look for daemons that ended by themselves, and break something when it is time."""
        now = time.monotonic()
        for repair in [each for each in self._repairs if each[0] <= now]:
            self._mend(repair)
        self.disks.follow_all()
        self._look()
        if now >= self._next_at:
            self._next_at = now + self._rng.expovariate(1 / self._every_s)
            self._break(self._rng.choice(KINDS))

    def end(self) -> None:
        """Mend everything."""
        for repair in list(self._repairs):
            self._mend(repair)
        self._net.heal()
        for number in self._net.hosts:
            self._net.thaw(number)
            if not self._net.alive(number):
                self._net.revive(number, wait=False)
            self._net.restart_engine(number)
            self._net.restart_daemon(number, wait=False)

    # ---- breaking

    def _break(self, kind: str) -> None:
        hosts = self._net.hosts
        if kind == "blackout":
            if self._rng.random() < 0.3 and not self._broken:
                self._note(kind, hosts)
                for number in hosts:
                    self._power(number, self._rng.uniform(1, 8))
            return
        well = [number for number in hosts if number not in self._broken]
        if not well or len(self._broken) + 1 > (len(hosts) - 1) // 2:
            return
        number = self._leader_among(well) if "leader" in kind else self._rng.choice(well)
        actions: dict[str, Callable[[int], None]] = {
            "power": lambda n: self._power(n, self._rng.uniform(2, 25)),
            "leader": lambda n: self._power(n, self._rng.uniform(2, 10)),
            "daemon": self._daemon,
            "engine": self._engine,
            "freeze": lambda n: self._freeze(n, daemon=False),
            "stall": lambda n: self._freeze(n, daemon=True),
            "isolate": lambda n: self._cut(n, [other for other in hosts if other != n]),
            "pair": lambda n: self._cut(n, [self._rng.choice([other for other in hosts if other != n])]),
            "one way": lambda n: self._cut(n, [other for other in hosts if other != n], one_way=True),
            "full disk": self._fill,
            "full disk of the leader": self._fill,
            "full disk, reserve too": lambda n: self._fill(n, takes_reserve=True),
        }
        self._note(kind, [number])
        actions[kind](number)

    def _leader_among(self, well: list[int]) -> int:
        try:
            leader = self._net.leader(seen_by=well[0])
        except (TestnetError, ValueError):
            leader = None
        return leader if leader in well else self._rng.choice(well)

    def _power(self, number: int, off_s: float) -> None:
        if not self._net.alive(number):
            return
        self._expected_down.add(number)
        self._net.kill(number)
        self._mend_later(number, off_s, lambda: self._net.revive(number, wait=False))

    def _daemon(self, number: int) -> None:
        self._expected_down.add(number)
        self._net.crash_daemon(number)
        self._mend_later(number, self._rng.uniform(0.5, 8), lambda: self._net.restart_daemon(number, wait=False))

    def _engine(self, number: int) -> None:
        self._net.crash_engine(number)
        self._mend_later(number, self._rng.uniform(1, 15), lambda: self._net.restart_engine(number))

    def _freeze(self, number: int, *, daemon: bool) -> None:
        self._net.freeze(number, daemon=daemon)
        self._mend_later(number, self._rng.uniform(0.3, 20), lambda: self._net.thaw(number))

    def _cut(self, number: int, others: list[int], *, one_way: bool = False) -> None:
        for other in others:
            self._net.cut(number, other, one_way=one_way)
        self._mend_later(number, self._rng.uniform(1, 25), self._net.heal)

    def _fill(self, number: int, *, takes_reserve: bool = False) -> None:
        lasts_s = self._rng.uniform(3, 25)
        killed_after_s = lasts_s * self._rng.random() if self._rng.random() < 0.3 else math.inf
        self.disks.fill(number, takes_reserve=takes_reserve, kill_at=time.monotonic() + killed_after_s)
        self._mend_later(number, lasts_s, lambda: self.disks.free(number))

    # ---- mending

    def _mend_later(self, number: int, after_s: float, repair: Callable[[], None]) -> None:
        self._broken[number] = self._broken.get(number, 0) + 1
        self._repairs.append((time.monotonic() + after_s, number, repair))

    def _mend(self, repair: tuple[float, int, Callable[[], None]]) -> None:
        self._repairs.remove(repair)
        _, number, mend = repair
        mend()
        self._expected_down.discard(number)
        self._broken[number] -= 1
        if not self._broken[number]:
            del self._broken[number]

    def _look(self) -> None:
        for number in self._net.hosts:
            process = self._net.process(number, DAEMON)
            if number in self._expected_down or number in self._broken or process is None or process.alive():
                continue
            self.ended_by_itself.append(f"h{number} at {time.monotonic() - self._began:.1f} s")
            self._net.restart_daemon(number, wait=False)

    def _note(self, kind: str, numbers: list[int]) -> None:
        self.counts[kind] += 1
        self.story.append(f"{time.monotonic() - self._began:8.1f} {kind}: {', '.join(f'h{number}' for number in numbers)}")
