"""What a daemon costs while nothing happens: processor time over some seconds, and memory as the kernel shares it out.

PSS counts a page that several processes map in equal parts, so the daemons' sum is what they really take.
"""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

from testnet.bench.api import wait_settled
from testnet.bench.figures import Figures, Section
from testnet.cluster import Testnet
from testnet.processes import all_stats, with_descendants
from testnet.state import DAEMON

WATCHED_S = 20.0
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """User and system time of all threads of a process, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def pss_mib(pid: int) -> float:
    found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    return int(found[1]) / 1024 if found else float("nan")


def processes_of(net: Testnet, number: int, name: str) -> list[int]:
    """The process and whatever it started."""
    root = net.required(number, name)
    return [process.pid for process in with_descendants([root.pid], all_stats())]


def measure(net: Testnet, *, runs: int) -> Section:
    cpu = {"leads": Figures("processor, the leader", "% of a core"), "follows": Figures("processor, a follower", "% of a core")}
    memory = Figures("memory (PSS)", "MiB")
    for _ in range(runs):
        leader = wait_settled(net)
        daemons = {number: processes_of(net, number, DAEMON) for number in net.hosts}
        before = {number: sum(map(cpu_s, pids)) for number, pids in daemons.items()}
        began = time.monotonic()
        time.sleep(WATCHED_S)
        spent_s = time.monotonic() - began
        for number, pids in daemons.items():
            used = 100 * (sum(map(cpu_s, pids)) - before[number]) / spent_s
            cpu["leads" if number == leader else "follows"].add(used)
            memory.add(sum(map(pss_mib, pids)))
    return Section(
        title="An idle daemon",
        how=f"{len(net.hosts)} hosts without tasks, nothing asked of them for {WATCHED_S:.0f} s; all threads.",
        figures=[*cpu.values(), memory],
    )
