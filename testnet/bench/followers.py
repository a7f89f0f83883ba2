"""What a leader costs by the number of its followers: bytes on its link and processor time, idle and under a steady load.

Every follower is a real daemon on an emulated host of its own. All share the engine of the first host and run no container,
so that fifty of them leave this machine room for what is measured. Bytes are those of the host's link, gossip and headers
included; what of them is gossip the daemon counts.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from testnet.bench.api import voters_of, wait_settled
from testnet.bench.askers import SubmitAsker
from testnet.bench.figures import Figures, Section
from testnet.bench.idle import cpu_s, processes_of
from testnet.bench.membership_net import FOUNDED_S_MAX, counters, membership_net
from testnet.bench.pulse import beating
from testnet.cluster import Testnet
from testnet.state import DAEMON

RATE = 100
WATCHED_S = 20.0
REST_S = 20.0
"""After the founding: what is new has been told often enough by then."""
SPREAD_OVER = 3
"""Nodes that the submits go through, in turn: a client's list of nodes, the leader not among them."""


@dataclass(frozen=True, slots=True)
class _Reading:
    """A host's counters at one moment."""

    at: float
    cpu_s: float
    out_bytes: int
    in_bytes: int
    gossip_bytes: int


@dataclass(slots=True)
class _Cost:
    """The figures of one state of the cluster."""

    cpu: Figures
    out: Figures
    came: Figures
    gossip: Figures
    followers: Figures

    @classmethod
    def named(cls, state: str) -> _Cost:
        unit = "kB/s"
        return cls(
            Figures(f"{state}: processor, the leader", "% of a core"), Figures(f"{state}: sent by the leader", unit),
            Figures(f"{state}: received by the leader", unit), Figures(f"{state}: gossip, of what it sent", unit),
            Figures(f"{state}: processor, a follower", "% of a core"),
        )  # fmt: skip

    def add(self, before: _Reading, after: _Reading) -> None:
        spent_s = after.at - before.at
        self.cpu.add(100 * (after.cpu_s - before.cpu_s) / spent_s)
        self.out.add((after.out_bytes - before.out_bytes) / spent_s / 1000)
        self.came.add((after.in_bytes - before.in_bytes) / spent_s / 1000)
        self.gossip.add((after.gossip_bytes - before.gossip_bytes) / spent_s / 1000)

    @property
    def figures(self) -> list[Figures]:
        return [self.cpu, self.out, self.came, self.gossip, self.followers]


def _read(net: Testnet, number: int) -> _Reading:
    link = Path(f"/sys/class/net/{net.layout.namespace(number)}/statistics")
    gossip = counters(net, number)["bytes_sent"]
    used_s = sum(map(cpu_s, processes_of(net, number, DAEMON)))
    came, out = int((link / "tx_bytes").read_text()), int((link / "rx_bytes").read_text())  # of the far end of its cable
    return _Reading(time.monotonic(), used_s, out, came, gossip)


def _watch(net: Testnet, leader: int, cost: _Cost) -> None:
    """Take all readings over some seconds."""
    others = {number: processes_of(net, number, DAEMON) for number in net.hosts if number != leader}
    used = {number: sum(map(cpu_s, pids)) for number, pids in others.items()}
    before, began = _read(net, leader), time.monotonic()
    time.sleep(WATCHED_S)
    cost.add(before, _read(net, leader))
    spent_s = time.monotonic() - began
    for number, pids in others.items():
        cost.followers.add(100 * (sum(map(cpu_s, pids)) - used[number]) / spent_s)


def _next_asker(turns: Iterator[str]) -> SubmitAsker:
    return SubmitAsker(next(turns))


def measured(followers: int) -> Callable[[int], Section]:
    """The measurement for so many followers."""

    def measure(runs: int) -> Section:
        idle, loaded = _Cost.named("idle"), _Cost.named(f"{RATE} submits/s")
        accepted, latency = Figures("submits accepted", "per second"), Figures("submits: median answer", "ms")
        with membership_net(followers + 1, one_engine=True) as (net, founded_s):
            time.sleep(REST_S)
            for _ in range(runs):
                leader = wait_settled(net, timeout_s=FOUNDED_S_MAX)
                _watch(net, leader, idle)
                paths = [net.daemon_socket(number) for number in net.hosts if number != leader][:SPREAD_OVER]
                turns = itertools.cycle(paths)
                with beating(partial(_next_asker, turns), 1 / RATE) as pulse:
                    began = time.monotonic()
                    _watch(net, leader, loaded)
                    seen = [each for each in pulse.accepted if each.accepted >= began]
                    accepted.add(len(seen) / (time.monotonic() - began))
                    answers_s = sorted(each.accepted - each.sent for each in seen)
                    if answers_s:
                        latency.add(1000 * answers_s[len(answers_s) // 2])
        return Section(
            title=f"A leader with {followers} followers",
            how=(
                f"{followers + 1} daemons on emulated hosts that share one engine and run no container, "
                f"{voters_of(followers + 1)} of them voters; idle for {WATCHED_S:.0f} s, then {RATE} submits a second through "
                f"{min(SPREAD_OVER, followers)} followers for as long, of tasks that fit no node. Processor time is that of all "
                "threads of a daemon; bytes are those on the host's link, headers and gossip included, but for `gossip`, which "
                "is the payload of its packets. A follower has one sample for each daemon and run."
            ),
            figures=[*idle.figures, *loaded.figures, accepted, latency],
            notes=[f"Founded by the same line on all {followers + 1} at once: {founded_s:.1f} s to a cluster at rest."],
        )

    return measure
