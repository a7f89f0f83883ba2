"""Both cores loaded until everything is late: nobody may call a host dead that is not, and no container may be touched.

`stress-ng` runs on every host, outside the daemon's cgroup and beside it, as the work of people who know nothing of us would: the
daemon's niceness does not help it against another cgroup of equal weight. Each load lasts as long; between two the cluster rests.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from testnet import cgroups
from testnet.bench.beliefs import Belief, Logs, counted, worded
from testnet.bench.figures import Aim, Figures, Section
from testnet.bench.membership_net import counters, membership_net, settle
from testnet.bench.raw import IMAGE
from testnet.bench.submit import FAILED
from testnet.bench.work import Work
from testnet.cluster import Testnet
from testnet.observer import Observer, boottime_s
from testnet.processes import Process, all_stats, wait_until, with_descendants

HOSTS = 5
TASKS_EACH = 2
LEAF = "people"
"""The cgroup of each host in which the load runs."""
MEMORY_SHARE = 0.4
"""Of what is available on this machine, for all hosts together: without swap more would end with the kernel killing somebody."""
MEMORY_MIB_MAX = 8192
DISK_MIB = 256
LOOK_S = 1.0
OVERTIME_S = 30.0


def memory_mib() -> int:
    """For one host's memory load."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    available_mib = int(found[1]) // 1024 if found else 0
    return max(16, int(min(MEMORY_MIB_MAX, MEMORY_SHARE * available_mib)) // HOSTS)


LOADS: dict[str, Callable[[], list[str]]] = {
    "cpu": lambda: ["--cpu", "6"],
    "vm": lambda: ["--vm", "2", "--vm-bytes", f"{memory_mib() // 2}m", "--vm-keep"],
    "io": lambda: ["--io", "2", "--hdd", "1", "--hdd-bytes", f"{DISK_MIB}m"],
    "fork": lambda: ["--fork", "4"],
}
"""On each of five hosts that share two cores: thirty busy processes for `cpu`, some sixteen times as many as cores."""


@dataclass(slots=True)
class Loads:
    """All loads, one after the other."""

    net: Testnet
    observer: Observer
    work: Work
    lag: dict[str, Figures] = field(default_factory=dict)
    beliefs: list[tuple[str, Belief]] = field(default_factory=list)
    touched: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    """Loads that did not run as long as they should, and questions a daemon did not answer in time."""
    elections: dict[str, int] = field(default_factory=dict)

    def run(self, name: str, seconds: float) -> None:
        """One load on all hosts at once."""
        logs, began_s = Logs(self.net), boottime_s()
        self.lag[name] = Figures(f"{name}: lag of a daemon's loop, asked every second", "ms")
        running = {number: self._start(name, number, seconds) for number in self.net.hosts}
        end_s = began_s + seconds
        try:
            with ThreadPoolExecutor(max_workers=len(self.net.hosts)) as pool:
                while (now := boottime_s()) < end_s:
                    list(pool.map(lambda number: self._look(name, number), self.net.hosts))
                    time.sleep(max(0.0, min(now + LOOK_S, end_s) - boottime_s()))
            early = [number for number, process in running.items() if not process.alive() and boottime_s() < end_s - 2]
            self.refused += [f"{name} on h{number} ended early" for number in early]
        finally:
            for process in running.values():
                self._end(process)
        settle(self.net)
        self.beliefs += [(name, belief) for belief in logs.beliefs()]
        self.elections[name] = logs.elections()
        self.touched += [f"{name}: {text}" for text in self.work.touched_since(began_s).told()]
        self.refused += [f"{name}: {line[:200]}" for line in logs.troubles()]

    def _start(self, name: str, number: int, seconds: float) -> Process:
        host, init = self.net.host(number), self.net.init(number)
        scratch = host.folder / "stress"
        scratch.mkdir(exist_ok=True)
        command = ["stress-ng", *LOADS[name](), "--timeout", f"{seconds:.0f}s", "--temp-path", str(scratch), "--quiet"]
        process = host.spawn(init, command, host.folder / "stress.log")
        cgroups.move(self.net.layout, number, LEAF, [each.pid for each in with_descendants([process.pid], all_stats())])
        return process

    def _end(self, process: Process) -> None:
        """It ends by itself at its time; what is left after that is killed, children too."""
        family = with_descendants([process.pid], all_stats())
        for each in family:
            each.send(15)
        try:
            wait_until(lambda: not any(each.alive() for each in family), timeout_s=OVERTIME_S, what="stress-ng to end")
        except FAILED:
            for each in with_descendants([each.pid for each in family], all_stats()):
                each.send(9)

    def _look(self, name: str, number: int) -> None:
        try:
            self.lag[name].add(counters(self.net, number).get("loop_lag_ms", 0))
        except FAILED as problem:
            self.refused.append(f"{name}: h{number} did not say how it is: {type(problem).__name__}")


def measure(minutes: int) -> Section:
    """Each load for so many minutes."""
    with membership_net(HOSTS, images=(IMAGE,)) as (net, _), Observer(net) as observer:
        loads = Loads(net, observer, Work(net, observer, each=TASKS_EACH))
        for name in LOADS:
            settle(net)
            loads.run(name, 60.0 * minutes)
            print(f"{name}: {loads.lag[name].row()} {len(loads.touched)} touched", flush=True)
        return _section(loads, minutes)


def _section(loads: Loads, minutes: int) -> Section:
    wrong = [(name, belief) for name, belief in loads.beliefs if belief.accuses]
    by_load = {name: counted([belief for load, belief in wrong if load == name]) or "none" for name in LOADS}
    silent = [belief for _, belief in wrong if belief.kind == "dead: host silent"]
    dead = [belief for _, belief in wrong if belief.status == "dead"]
    notes = [
        f"Wrong beliefs by load: {by_load}. Elections: {loads.elections}.",
        f"On each host: {'; '.join(f'`stress-ng {chr(32).join(of())}`' for of in LOADS.values())}.",
    ]
    notes += [f"Wrongly, under {name}: {worded(belief)}." for name, belief in wrong if belief.status == "dead"][:15]
    notes += [f"Touched: {text}." for text in loads.touched[:10]]
    notes += [f"Beside: {count} x {text}." for text, count in _grouped(loads.refused)[:10]]
    return Section(
        title=f"Both cores loaded for {minutes} minutes each by cpu, vm, io and fork",
        how=(
            f"Real: {HOSTS} hosts with {TASKS_EACH} containers each; `stress-ng` on all of them at once, outside the daemons' "
            "cgroups. Every daemon says once a second by how much the last wake of its loop was late; beliefs are from the "
            "daemons' logs, what became of containers from the engines."
        ),
        figures=list(loads.lag.values()),
        aims=[
            Aim("hosts called silent that were not", len(silent), 0, "beliefs"),
            Aim("daemons called dead for any reason that were not", len(dead), 0, "beliefs"),
            Aim("containers started or ended", len(loads.touched), 0, "containers"),
        ],
        notes=notes,
    )


def _grouped(texts: list[str]) -> list[tuple[str, int]]:
    return sorted(((text, texts.count(text)) for text in dict.fromkeys(texts)), key=lambda pair: -pair[1])
