"""Containers that should be left in peace: tasks on every host, and what became of their containers by the engines' own word."""

from __future__ import annotations

import time
from dataclasses import dataclass

from testnet.bench.api import NodeApi, task_document
from testnet.bench.raw import fresh_name
from testnet.cluster import Testnet
from testnet.observer import Interval, Observer, boottime_s

PLACED_S_MAX = 60.0


@dataclass(frozen=True, slots=True)
class Touched:
    """What happened to containers: started or ended. Times are seconds since the moment asked about."""

    started: list[tuple[float, Interval]]
    ended: list[tuple[float, Interval]]

    @property
    def count(self) -> int:
        return len(self.started) + len(self.ended)

    def told(self) -> list[str]:
        """For people, in order of time."""
        moves = [(at_s, f"{each.task} started on h{each.host} at {at_s:.1f} s") for at_s, each in self.started]
        moves += [(at_s, f"{each.task} ended on h{each.host} at {at_s:.1f} s") for at_s, each in self.ended]
        return [text for _, text in sorted(moves)]


class Work:
    """`each` tasks on every host of a cluster at rest. Nothing binds them there: they would move if anybody made them."""

    def __init__(self, net: Testnet, observer: Observer, *, each: int) -> None:
        self.net, self.observer = net, observer
        self.names: list[str] = []
        with NodeApi(net, net.hosts[0]) as node:
            for target in net.hosts:
                self._place(node, target, each)

    def _place(self, node: NodeApi, target: int, count: int) -> None:
        """Ask for a label that this host alone has; then all hosts get it, so that nothing binds the tasks here any more."""
        label = f"work-{target}"
        node.checked("PATCH", f"/v1/nodes/h{target}", {"labels": {label: "yes"}})
        names = [fresh_name("work") for _ in range(count)]
        self.names += names
        for name in names:
            node.submit(task_document(name, "host", constraints=[f"node.labels.{label}==yes"]))
        self.observer.wait_for(
            lambda seen: set(names) <= {each.task for each in seen.running() if each.host == target},
            timeout_s=PLACED_S_MAX, what=f"{count} tasks to run on h{target}",
        )  # fmt: skip
        for number in self.net.hosts:
            node.checked("PATCH", f"/v1/nodes/h{number}", {"labels": {label: "yes"}})

    def touched_since(self, since_s: float) -> Touched:
        """Every start and end of these tasks' containers since a moment (CLOCK_BOOTTIME)."""
        mine = [each for each in self.observer.intervals() if each.task in self.names]
        started = [(each.start_s - since_s, each) for each in mine if each.start_s >= since_s]
        ended = [(each.end_s - since_s, each) for each in mine if each.end_s is not None and each.end_s >= since_s]
        return Touched(started, ended)

    def on(self, host: int) -> list[str]:
        """The tasks that run on a host now."""
        return sorted(each.task for each in self.observer.running() if each.host == host and each.task in self.names)


def watch_s(seconds: float) -> None:
    """Let a bounded time pass while the observer's threads look on."""
    end = boottime_s() + seconds
    while (left := end - boottime_s()) > 0:
        time.sleep(min(left, 0.5))
