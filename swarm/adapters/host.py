"""The host as /proc shows it: load, boot id, capacity; and the daemon's own standing among its processes.

A daemon that is late is taken for dead. Measured on two cores under sixteenfold load, its lag falls from 200 ms to 40 with nice
-20 and to 2 with the lowest real-time priority, so it takes what it is allowed: SCHED_RR 1, on a leash, only beside another core,
and never inherited by children; a lower chance to be killed when memory runs out. The leash is RLIMIT_RTTIME: a loop that runs a
whole second without a pause gives the real-time priority back instead of holding the core.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import resource
import signal
from dataclasses import dataclass
from pathlib import Path

from swarm.ports import HostLoad

NICE = -20
OOM_SCORE_ADJUSTMENT = -900
LEASH_SOFT_S, LEASH_HARD_S = 1, 20
_MICROSECONDS = 1_000_000
_READ_BYTES = 4_096
_MEMINFO_LINES = 3
"""MemTotal, MemFree, MemAvailable."""
_SOME_AVG10 = re.compile(rb"some avg10=([0-9.]+)")
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, slots=True)
class _CpuTimes:
    busy: int
    total: int


class ProcHost:
    """Implements `ports.Host`. `data_folder` names the disk that is watched."""

    def __init__(self, data_folder: Path, *, proc: Path = Path("/proc")) -> None:
        self._folder = data_folder
        self._proc = proc
        self._cores = os.cpu_count() or 1
        self._before = self._cpu_times()

    def load(self) -> HostLoad:
        """Since the last call, for the CPU; now, for the rest. About 0.1 ms."""
        times = self._cpu_times()
        busy, total = times.busy - self._before.busy, times.total - self._before.total
        self._before = times
        average = float(_read(f"{self._proc}/loadavg").split(maxsplit=1)[0])
        return HostLoad(
            cpu_used_permille=_permille(busy, total),
            memory_used_permille=self._memory_used_permille(),
            disk_used_permille=self._disk_used_permille(),
            load_permille=round(1000 * average / self._cores),
            cpu_pressure_permille=self._cpu_pressure_permille(),
        )

    def boot_id(self) -> str:
        """The kernel's, random at each boot; together with the start time of this PID namespace's first process, since a
        container or an emulated host is restarted without its kernel."""
        kernel = (self._proc / "sys/kernel/random/boot_id").read_text().strip()
        first = "0"
        with contextlib.suppress(OSError):
            first = (self._proc / "1/stat").read_text().rpartition(")")[2].split()[19]
        return f"{kernel}.{first}"

    def capacity(self) -> tuple[int, int]:
        """(thousandths of cores, bytes of memory)."""
        return 1000 * self._cores, self._memory()["MemTotal"]

    def architecture(self) -> str:
        """In the words of image registries: amd64, arm64, ..."""
        return _ARCHITECTURES.get(platform.machine(), platform.machine())

    def _cpu_times(self) -> _CpuTimes:
        fields = [int(field) for field in _read(f"{self._proc}/stat").split(b"\n", 1)[0].split()[1:9]]
        idle = fields[3] + fields[4]  # idle and waiting for the disk
        return _CpuTimes(busy=sum(fields) - idle, total=sum(fields))

    def _cpu_pressure_permille(self) -> int | None:
        """`some avg10` of /proc/pressure/cpu; None on a kernel without it (CONFIG_PSI, or psi=0)."""
        try:
            found = _SOME_AVG10.match(_read(f"{self._proc}/pressure/cpu"))
        except OSError:
            return None
        return min(1000, round(10 * float(found[1]))) if found else None

    def _memory(self) -> dict[str, int]:
        """The kernel's first lines; all that is asked for stands in them."""
        amounts = {}
        for line in _read(f"{self._proc}/meminfo").split(b"\n", _MEMINFO_LINES)[:_MEMINFO_LINES]:
            name, _, rest = line.partition(b":")
            if rest:
                amounts[name.decode()] = int(rest.split()[0]) * 1024
        return amounts

    def _memory_used_permille(self) -> int:
        memory = self._memory()
        return _permille(memory["MemTotal"] - memory["MemAvailable"], memory["MemTotal"])

    def _disk_used_permille(self) -> int:
        found = os.statvfs(self._folder)
        return _permille(found.f_blocks - found.f_bavail, found.f_blocks)


def _read(path: str) -> bytes:
    """The start of a file of /proc. A third of the time of `Path.read_text`, once a second for ever."""
    opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(opened, _READ_BYTES)
    finally:
        os.close(opened)


def _permille(part: int, whole: int) -> int:
    return min(1000, max(0, round(1000 * part / whole))) if whole > 0 else 0


def raise_priority() -> list[str]:
    """Take the priority that is allowed, for the calling thread (the loop) only. Returns what was refused, in words."""
    refused = []
    try:
        os.setpriority(os.PRIO_PROCESS, 0, NICE)
    except OSError as error:
        refused.append(f"nice {NICE}: {error.strerror}")
    try:
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE_ADJUSTMENT))
    except OSError as error:
        refused.append(f"oom_score_adj {OOM_SCORE_ADJUSTMENT}: {error.strerror}")
    if (os.cpu_count() or 1) < 2:
        refused.append("real-time priority: there is only one core")
        return refused
    try:
        _take_real_time()
    except (OSError, ValueError) as error:
        refused.append(f"real-time priority: {error}")
    return refused


def _take_real_time() -> None:
    """The leash first, then the priority."""
    hard = resource.getrlimit(resource.RLIMIT_RTTIME)[1]
    limit = LEASH_HARD_S * _MICROSECONDS
    signal.signal(signal.SIGXCPU, lambda *_: give_real_time_back())
    hard = limit if hard == resource.RLIM_INFINITY else min(hard, limit)
    resource.setrlimit(resource.RLIMIT_RTTIME, (min(LEASH_SOFT_S * _MICROSECONDS, hard), hard))
    os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))


def give_real_time_back() -> None:
    """Back to the ordinary class, with what niceness it had."""
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, os.sched_param(0))
