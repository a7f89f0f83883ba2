"""Processes by pid and start time, and the whole of what runs on an emulated host.

A pid alone is no name: it is reused. Every process is recorded with its start time, and a signal goes out
only if both still match. What runs on a host is found from the kernel, not from records: the descendants of
its PID 1, and whatever else lives in its PID namespace (a process that entered from outside has an outside
parent).
"""

from __future__ import annotations

import os
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from testnet.layout import TestnetError


@dataclass(frozen=True, slots=True)
class Process:
    """One process for good: `start_ticks` is field 22 of /proc/PID/stat."""

    pid: int
    start_ticks: int

    def alive(self) -> bool:
        found = read_stat(self.pid)
        return found is not None and found.start_ticks == self.start_ticks and found.letter not in "ZX"

    def send(self, number: int) -> bool:
        """Signal it if it is still the same process; says whether it was."""
        if not self.alive():
            return False
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        return True

    def kill(self, *, timeout_s: float = 10.0) -> None:
        """SIGKILL, and wait until it is gone."""
        if self.send(signal.SIGKILL):
            wait_until(lambda: not self.alive(), timeout_s=timeout_s, what=f"process {self.pid} to die")


@dataclass(frozen=True, slots=True)
class Stat:
    pid: int
    parent: int
    letter: str
    start_ticks: int
    name: str


def read_stat(pid: int) -> Stat | None:
    """The line of /proc/PID/stat, or None when there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    name, _, rest = text.partition("(")[2].rpartition(")")
    fields = rest.split()
    return Stat(pid=pid, parent=int(fields[1]), letter=fields[0], start_ticks=int(fields[19]), name=name)


def identify(pid: int) -> Process:
    """The process that has this pid now."""
    found = read_stat(pid)
    if found is None:
        raise TestnetError(f"process {pid} ended before it could be recorded")
    return Process(pid=pid, start_ticks=found.start_ticks)


def all_stats() -> list[Stat]:
    found = (read_stat(int(entry)) for entry in os.listdir("/proc") if entry.isdigit())
    return [stat for stat in found if stat is not None]


def namespace_of(pid: int, kind: str) -> int | None:
    """The inode of a process's namespace of a kind (pid, net, mnt), or None when it is gone or a zombie."""
    try:
        return os.stat(f"/proc/{pid}/ns/{kind}").st_ino
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None


def with_descendants(roots: Iterable[int], stats: list[Stat]) -> list[Process]:
    """The roots and everything below them."""
    children: defaultdict[int, list[Stat]] = defaultdict(list)
    by_pid = {stat.pid: stat for stat in stats}
    for stat in stats:
        children[stat.parent].append(stat)
    waiting = [by_pid[pid] for pid in roots if pid in by_pid]
    found: dict[int, Process] = {}
    while waiting:
        stat = waiting.pop()
        if stat.pid not in found:
            found[stat.pid] = Process(pid=stat.pid, start_ticks=stat.start_ticks)
            waiting.extend(children[stat.pid])
    return list(found.values())


def processes_of_host(init: Process) -> list[Process]:
    """All processes of the host whose PID 1 is `init`, its containers' included, `init` excluded."""
    if not init.alive():
        return []
    stats = all_stats()
    inside = namespace_of(init.pid, "pid")
    roots = [init.pid, *(stat.pid for stat in stats if inside and namespace_of(stat.pid, "pid") == inside)]
    return [process for process in with_descendants(roots, stats) if process.pid != init.pid]


def processes_in_network(inode: int) -> list[Process]:
    """All processes whose network namespace is the given one: how leftovers are found without any record."""
    stats = all_stats()
    return [Process(pid=stat.pid, start_ticks=stat.start_ticks) for stat in stats if namespace_of(stat.pid, "net") == inode]


def outside_pid(*, inner_pid: int, init: Process) -> Process:
    """The process that the host of `init` knows as `inner_pid`."""
    inside = namespace_of(init.pid, "pid")
    for stat in all_stats():
        if namespace_of(stat.pid, "pid") == inside and innermost_pid(stat.pid) == inner_pid:
            return Process(pid=stat.pid, start_ticks=stat.start_ticks)
    raise TestnetError(f"a process ended as soon as it started (pid {inner_pid} inside the host)")


def innermost_pid(pid: int) -> int | None:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return None
    numbers = next((line.split()[1:] for line in lines if line.startswith("NSpid:")), [])
    return int(numbers[-1]) if numbers else None


def wait_until(condition: Callable[[], object], *, timeout_s: float, what: str, interval_s: float = 0.01) -> None:
    """Poll until the condition holds; raises TestnetError naming `what` when it does not in time."""
    give_up = time.clock_gettime(time.CLOCK_BOOTTIME) + timeout_s
    while not condition():
        if time.clock_gettime(time.CLOCK_BOOTTIME) >= give_up:
            raise TestnetError(f"waited {timeout_s:.0f} s for {what}, in vain")
        time.sleep(interval_s)
