"""The leader's host dies: how long until a submit is accepted again, and a put by etcd.

etcd's leadership is moved to the host of our leader first, so that one cut is the same event for both. A client
asks another node in a steady pulse (`pulse.py`), a submit every 20 ms of a daemon there and a put every 10 ms of the member of
etcd beside it, so neither waits for the luck of one request: a daemon keeps a submit until there is a leader, etcd loses a put
for 7 s that came before. Requests sent while the cut was being made count for nobody.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from testnet.bench import etcd
from testnet.bench.api import NodeApi, task_document, wait_settled
from testnet.bench.askers import PutAsker, SubmitAsker
from testnet.bench.deaths import led_utc
from testnet.bench.etcd import EtcdMembers
from testnet.bench.figures import Aim, Figures, Section
from testnet.bench.membership_net import membership_net
from testnet.bench.pulse import Pulse, beating
from testnet.bench.raw import IMAGE, fresh_name
from testnet.bench.submit import FAILED
from testnet.cluster import Testnet
from testnet.processes import wait_until

HOSTS = 3
MEDIAN_S_MAX, P95_S_MAX = 1.2, 2.0
SUBMIT_EVERY_S, PUT_EVERY_S = 0.02, 0.01
WARM_S = 0.3
"""Pulses beat for so long before anything happens to the leader."""
ACCEPTED_S_MAX = 60.0
STARTING = 24
"""Containers that are to be started when the leader's host dies; the engines of this machine start some ten a second."""
GONE_S_MAX = 90.0


@dataclass(slots=True)
class Loss:
    """Both systems on one testnet."""

    net: Testnet
    members: EtcdMembers
    turn: int = 0
    ours: Figures = field(default_factory=lambda: Figures("swarm: host dead to next accepted submit", "s"))
    etcd: Figures = field(default_factory=lambda: Figures("etcd: host dead to next accepted put", "s"))
    elected: Figures = field(default_factory=lambda: Figures("swarm: host dead to a new leader", "s"))
    told: Figures = field(default_factory=lambda: Figures("swarm: a new leader to the accepted submit", "s"))
    running: Figures = field(default_factory=lambda: Figures(f"containers of {STARTING} that ran at the cut", "containers"))

    def settle(self) -> int:
        """Both at rest; our leader's host."""
        leader = wait_settled(self.net, timeout_s=120.0)
        self.members.wait_whole()
        return leader

    def another(self, leader: int) -> int:
        """A host that does not lead, in turn."""
        self.turn += 1
        others = [number for number in self.net.hosts if number != leader]
        return others[self.turn % len(others)]

    @contextmanager
    def submits(self, number: int) -> Iterator[Pulse]:
        """A pulse of submits; what it made is removed afterwards."""
        path = self.net.daemon_socket(number)
        with beating(lambda: SubmitAsker(path), SUBMIT_EVERY_S) as pulse:
            yield pulse
        with NodeApi(self.net, number) as node:
            for name in pulse.names:
                node.ask("DELETE", f"/v1/tasks/{name}?force=1")

    @contextmanager
    def puts(self, number: int) -> Iterator[Pulse]:
        host, port = self.members.endpoint(number)
        with beating(lambda: PutAsker(host, port), PUT_EVERY_S) as pulse:
            yield pulse

    def cut(self, leader: int) -> None:
        """One power cut, and the return."""
        asked = self.another(leader)
        self.members.move_leader(leader)
        try:
            with self.submits(asked) as submits, self.puts(asked) as puts:
                time.sleep(WARM_S)
                cut, cut_utc = time.monotonic(), time.time()
                self.net.kill(leader)
                dead = time.monotonic()
                accepted_s = submits.wait_accepted_after(dead, timeout_s=ACCEPTED_S_MAX) - cut
                put_s = puts.wait_accepted_after(dead, timeout_s=ACCEPTED_S_MAX) - cut
            self.ours.add(accepted_s)
            self.etcd.add(put_s)
            others = [number for number in self.net.hosts if number != leader]
            for elected_utc in led_utc(self.net, others, since_utc=cut_utc):
                self.elected.add(elected_utc - cut_utc)
                self.told.add(accepted_s - (elected_utc - cut_utc))
        finally:
            self.net.revive(leader)
            self.members.start(leader)

    def cut_while_starting(self, leader: int) -> None:
        """The same, while the engines start containers."""
        names = [fresh_name("busy") for _ in range(STARTING)]
        asked = next(number for number in self.net.hosts if number != leader)
        try:
            with NodeApi(self.net, asked) as node:
                for name in names:
                    node.submit(task_document(name, "host"))
                wait_until(lambda: _running(node, names) >= 2, timeout_s=GONE_S_MAX, what="the first containers", interval_s=0.05)
                self.running.add(_running(node, names))
            self.cut(leader)
        finally:
            with NodeApi(self.net, asked) as node:
                for name in names:
                    node.ask("DELETE", f"/v1/tasks/{name}?force=1")
                wait_until(lambda: not node.checked("GET", "/v1/tasks"), timeout_s=GONE_S_MAX, what="no tasks", interval_s=0.2)


def _running(node: NodeApi, names: list[str]) -> int:
    wanted = set(names)
    return sum(row["phase"] == "running" for row in node.checked("GET", "/v1/tasks") if row["name"] in wanted)


@contextmanager
def both(*, images: tuple[str, ...] = ()) -> Iterator[Loss]:
    """Three hosts with a daemon and a member of etcd each."""
    with membership_net(HOSTS, images=images) as (net, _), EtcdMembers(net) as members:
        yield Loss(net, members)


def repeat(loss: Loss, run: Callable[[int], None], figures: tuple[Figures, ...], runs: int) -> None:
    for turn in range(runs):
        leader = loss.settle()
        try:
            run(leader)
        except FAILED as problem:
            figures[0].discard(f"{type(problem).__name__}: {problem}"[:120])
        print(f"run {turn + 1} of {runs}:", *(each.row() for each in figures), sep="\n  ", flush=True)


def measure_power_cut(runs: int) -> Section:
    with both() as loss:
        repeat(loss, loss.cut, (loss.ours, loss.etcd), runs)
    return _cut_section(loss, "The leader's host dies", "Nothing else happens on the hosts.")


def measure_busy_cut(runs: int) -> Section:
    with both(images=(IMAGE,)) as loss:
        repeat(loss, loss.cut_while_starting, (loss.ours, loss.etcd), runs)
    section = _cut_section(
        loss, "The leader's host dies while containers are starting",
        f"{STARTING} tasks were submitted right before, and the cut came when the first two ran.",
    )  # fmt: skip
    section.where.append(loss.running)
    return section


def _cut_section(loss: Loss, title: str, meanwhile: str) -> Section:
    ours = loss.ours
    return Section(
        title=title,
        how=(
            f"{HOSTS} emulated hosts, each with a daemon and a member of etcd {etcd.version()} in the same namespaces and on the "
            f"same disk; etcd has its default timings, 100 and 1,000 ms, and leads from our leader's host. {meanwhile} The power "
            "of that host is cut: its link goes down and all its processes are killed. The clock starts right before, and ends "
            f"with the first answer that accepts a request sent afterwards to another node: a submit every "
            f"{1000 * SUBMIT_EVERY_S:.0f} ms to a daemon, a put every {1000 * PUT_EVERY_S:.0f} ms to the member beside it, "
            "whether or not earlier ones are answered."
        ),
        figures=[ours, loss.etcd],
        aims=[
            Aim("next accepted submit, median", ours.median, MEDIAN_S_MAX, "s"),
            Aim("next accepted submit, 95th percentile", ours.percentile(0.95), P95_S_MAX, "s"),
        ],
        where=[loss.elected, loss.told],
        notes=[
            "The floor: the leader's followers promised it to vote for nobody for 800 ms after its last heartbeat, and stand for "
            "election up to 400 ms after that, at random. etcd's stand 1,000 to 2,000 ms after the last heartbeat."
        ],
    )
