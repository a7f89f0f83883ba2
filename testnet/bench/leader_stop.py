"""The leader is stopped by SIGTERM, as for an upgrade: how long no submit is accepted; etcd's leader in turn with it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from testnet.bench import etcd
from testnet.bench.deaths import led_utc
from testnet.bench.figures import Aim, Figures, Section
from testnet.bench.leader_loss import ACCEPTED_S_MAX, HOSTS, PUT_EVERY_S, SUBMIT_EVERY_S, WARM_S, Loss, both, repeat
from testnet.bench.pulse import Pulse

GAP_MS_MAX = 200.0
WATCHED_S = 3.0
"""After SIGTERM: an election of etcd takes 1 to 2 s where its hand-over fails."""


@dataclass(slots=True)
class _Side:
    """One system's gaps."""

    gap: Figures
    calm: Figures

    @classmethod
    def named(cls, who: str, what: str) -> _Side:
        longest = f"{who}: longest time without an accepted {what}"
        return cls(Figures(longest, "ms"), Figures(f"{longest}, nothing stopped", "ms"))

    def watch(self, pulse: Pulse, stop: Callable[[], None]) -> None:
        """The longest gap around `stop`, and in as long a time before it."""
        time.sleep(WARM_S)
        calm = time.monotonic()
        time.sleep(WATCHED_S)
        began = time.monotonic()
        stop()
        pulse.wait_accepted_after(time.monotonic(), timeout_s=ACCEPTED_S_MAX)
        time.sleep(max(0.0, began + WATCHED_S - time.monotonic()))
        self.gap.add(1000 * pulse.longest_gap_s(began, time.monotonic()))
        self.calm.add(1000 * pulse.longest_gap_s(calm, began))


@dataclass(slots=True)
class _Stops:
    loss: Loss
    ours: _Side = field(default_factory=lambda: _Side.named("swarm", "submit"))
    etcd: _Side = field(default_factory=lambda: _Side.named("etcd", "put"))
    elected: Figures = field(default_factory=lambda: Figures("swarm: SIGTERM to a new leader", "ms"))
    ended: Figures = field(default_factory=lambda: Figures("swarm: SIGTERM to the end of the process", "ms"))

    def stop_ours(self, leader: int) -> None:
        net = self.loss.net

        def stop() -> None:
            asked, asked_utc = time.monotonic(), time.time()
            net.stop_daemon(leader)
            self.ended.add(1000 * (time.monotonic() - asked))
            stopped_utc.append(asked_utc)

        stopped_utc: list[float] = []
        try:
            with self.loss.submits(self.loss.another(leader)) as pulse:
                self.ours.watch(pulse, stop)
            others = [number for number in net.hosts if number != leader]
            self.elected.samples += [1000 * (utc - stopped_utc[0]) for utc in led_utc(net, others, since_utc=stopped_utc[0])]
        finally:
            net.restart_daemon(leader)

    def stop_etcd(self, leader: int) -> None:
        members = self.loss.members
        led = members.leader()
        assert led is not None, "settled"
        try:
            with self.loss.puts(self.loss.another(led)) as pulse:
                self.etcd.watch(pulse, lambda: members.stop(led))
        finally:
            members.start(led)


def measure(runs: int) -> Section:
    with both() as loss:
        stops = _Stops(loss)
        for _ in range(runs):
            repeat(loss, stops.stop_ours, (stops.ours.gap,), 1)
            repeat(loss, stops.stop_etcd, (stops.etcd.gap,), 1)
    ours = stops.ours
    return Section(
        title="The leader is stopped",
        how=(
            f"{HOSTS} emulated hosts with a daemon and a member of etcd {etcd.version()} each, default timings. The leading "
            "daemon gets SIGTERM, and in turn with it the leading member of etcd. A client asks another node, a submit every "
            f"{1000 * SUBMIT_EVERY_S:.0f} ms or a put every {1000 * PUT_EVERY_S:.0f} ms, whether or not earlier ones are "
            f"answered. The longest time between two accepting answers is taken, from SIGTERM until {WATCHED_S:.0f} s after it, "
            "and over as long a time before it, where it shows what the pace and the machine alone make."
        ),
        figures=[ours.gap, stops.etcd.gap, ours.calm, stops.etcd.calm],
        aims=[Aim("without an accepted submit, the slowest run", ours.gap.percentile(1), GAP_MS_MAX, "ms")],
        where=[stops.elected, stops.ended],
    )
