"""Serf's agents beside the daemons: one on every host, in the same namespaces, on the same network, with its LAN profile.

What an agent believes is its log's `EventMemberFailed`, which stands there without delay but in whole seconds only; so the lines
are stamped here as they are read, every 10 ms. Its event handler is told a second later, since the agent gathers events first:
that is what a user of Serf sees, and both are reported.
"""

from __future__ import annotations

import json
import re
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from testnet.cluster import Testnet
from testnet.layout import TestnetError
from testnet.processes import Process, wait_until

RPC = "127.0.0.1:7373"
_FAILED = re.compile(r"EventMemberFailed: h(\d+) ")
_READ_S = 0.01


@dataclass(frozen=True, slots=True)
class Failed:
    """An agent called another host failed."""

    at_utc: float
    observer: int
    subject: int


@dataclass(slots=True)
class _Log:
    path: Path
    offset: int = 0
    rest: str = ""


@dataclass(slots=True)
class SerfAgents:
    """The agents of a testnet and what they say while the block runs."""

    net: Testnet
    failed: list[Failed] = field(default_factory=list)
    logs: dict[int, _Log] = field(default_factory=dict)
    processes: dict[int, Process] = field(default_factory=dict)
    stopping: threading.Event = field(default_factory=threading.Event)
    reader: threading.Thread | None = None

    def __enter__(self) -> Self:
        for number in self.net.hosts:
            self.start(number)
        self.reader = threading.Thread(target=self._read, name="serf-logs", daemon=True)
        self.reader.start()
        return self

    def __exit__(self, *details: object) -> None:
        self.stopping.set()
        if self.reader is not None:
            self.reader.join(timeout=5.0)
        for process in self.processes.values():
            process.kill()

    def start(self, number: int) -> None:
        """Start a host's agent; it joins through two others."""
        host = self.net.host(number)
        handled = self._handled(number)
        handler = f'member-failed=while read name rest; do echo "$(date +%s.%N) $name" >> {handled}; done'
        others = [other for other in self.net.hosts if other != number][:2]
        command = ["serf", "agent", "-node", host.name, "-bind", f"{host.address}:7946", "-rpc-addr", RPC, "-profile", "lan"]
        command += ["-event-handler", handler, "-retry-interval", "2s"]
        command += [f"-retry-join={self.net.address(other)}:7946" for other in others]
        self.logs.setdefault(number, _Log(host.folder / "serf.log"))
        self.processes[number] = host.spawn(self.net.init(number), command, host.folder / "serf.log")

    def _handled(self, number: int) -> Path:
        return self.net.host(number).folder / "serf-events"

    def _read(self) -> None:
        while not self.stopping.wait(_READ_S):
            now = time.time()
            for number, log in self.logs.items():
                for subject in _FAILED.findall(_new_lines(log)):
                    self.failed.append(Failed(now, number, int(subject)))

    def handled_utc(self, number: int, subject: int, *, since_utc: float) -> float | None:
        """When an agent's event handler was first told of a failure, after a moment."""
        try:
            lines = self._handled(number).read_text().splitlines()
        except FileNotFoundError:
            return None
        told = [float(line.split()[0]) for line in lines if line.endswith(f" h{subject}")]
        return min((utc for utc in told if utc >= since_utc), default=None)

    def wait_failed(self, subject: int, observers: list[int], *, since_utc: float, timeout_s: float) -> dict[int, float]:
        """Observer -> when its agent called the subject failed, once all did and their handlers were told."""
        found: dict[int, float] = {}

        def all_did() -> bool:
            for each in list(self.failed):
                if each.subject == subject and each.at_utc >= since_utc:
                    found.setdefault(each.observer, each.at_utc)
            return set(observers) <= set(found) and all(
                self.handled_utc(number, subject, since_utc=since_utc) is not None for number in observers
            )

        wait_until(all_did, timeout_s=timeout_s, what=f"all agents of Serf to call h{subject} failed", interval_s=0.05)
        return {observer: found[observer] for observer in observers}

    def wait_whole(self, *, timeout_s: float = 60.0) -> None:
        """Wait until every agent calls every other alive."""
        waiting = list(self.net.hosts)

        def whole() -> bool:
            while waiting and self._alive(waiting[-1]) == len(self.net.hosts):
                waiting.pop()
            return not waiting

        wait_until(whole, timeout_s=timeout_s, what="Serf's agents to see each other", interval_s=0.2)

    def _alive(self, number: int) -> int:
        done = self.net.run(number, "serf", "members", "-rpc-addr", RPC, "-status", "alive", "-format", "json", timeout_s=10)
        return len(json.loads(done.stdout)["members"]) if done.returncode == 0 else 0

    def version(self) -> str:
        """What Debian's package calls it."""
        done = self.net.run(self.net.hosts[0], "dpkg-query", "-W", "-f", "${Version}", "serf")
        if done.returncode:
            raise TestnetError(f"dpkg does not know serf: {done.stderr.strip()}")
        return done.stdout


def _new_lines(log: _Log) -> str:
    """Whole lines that were written since the last call."""
    try:
        with log.path.open("rb") as opened:
            opened.seek(log.offset)
            data = opened.read()
    except FileNotFoundError:
        return ""
    log.offset += len(data)
    lines, newline, rest = (log.rest + data.decode(errors="replace")).rpartition("\n")
    log.rest = rest
    return lines + newline
