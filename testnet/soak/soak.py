"""`./testnet/run soak`: real daemons in trouble for as long as one likes, under a stream of submits, and then the reckoning.

While it lasts, clients write down what they asked and were told. Then everything is mended, and the cluster owes: all nodes alive
and of one mind, every acknowledged task there and no removed one, each container that is wanted running exactly once, room on
every disk, new work accepted, and a history that one single cluster could have given.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from pathlib import Path

from swarm.adapters.ballast import BALLAST_BYTES
from testnet import small_disk
from testnet.bench.api import NodeApi
from testnet.bench.results import write_results
from testnet.cluster import Testnet
from testnet.layout import TestnetError
from testnet.observer import Observer, boottime_s
from testnet.processes import wait_until
from testnet.soak.clients import NOWHERE, Hammer
from testnet.soak.full_disks import DISK_MIB
from testnet.soak.history import History, Read, judge
from testnet.soak.report import Report, longest_without_write_s
from testnet.soak.trouble import Trouble

CONVERGE_S = 120.0
"""The brake holds replacing back for 60 s after a mass death, and a gone daemon has 30 s of grace."""
CLIENTS = 4
PACE_S = 0.4
STEP_S = 0.1


def run(*, hosts: int, minutes: float, seed: int, every_s: float, keep: Path | None = None) -> int:
    """Print the report, and write it to `keep` as results of a measurement; 1 when anything is wrong. The testnet is left up
    then, for whoever looks into it."""
    net = Testnet.up(hosts, disk_mib=DISK_MIB)
    report = soak(net, minutes=minutes, seed=seed, every_s=every_s)
    if keep is not None:
        command = f"./testnet/run soak --hosts {hosts} --minutes {minutes:g} --seed {seed} --every {every_s:g}"
        write_results(keep, report.section(), command)
    if report.wrong:
        print("what was done to it:\n" + "\n".join(report.story))
    print("\n".join(report.lines()))
    if report.wrong:
        return 1
    net.down()
    return 0


def soak(net: Testnet, *, minutes: float, seed: int, every_s: float) -> Report:
    """Trouble, mending, reckoning."""
    report = Report(seed, len(net.hosts), minutes)
    history, stopping = History(), threading.Event()
    hammers = [Hammer(net, number, seed, history, stopping, PACE_S) for number in range(1, CLIENTS + 1)]
    trouble = Trouble(net, seed, every_s=every_s)
    with Observer(net) as observer:
        for hammer in hammers:
            hammer.start()
        until = time.monotonic() + 60 * minutes
        while time.monotonic() < until:
            trouble.step()
            time.sleep(STEP_S)
        trouble.end()
        stopping.set()
        for hammer in hammers:
            hammer.join()
            report.asked += hammer.counts
        mended_at = time.monotonic()
        wanted = set().union(*(hammer.real for hammer in hammers))
        reckoning = Reckoning(net, observer, history, wanted)
        report.wrong += reckoning.settle()
        report.healed_in_s = time.monotonic() - mended_at
        report.wrong += reckoning.judge()
    report.faults, report.disks, report.story = trouble.counts, trouble.disks.counts, trouble.story
    report.longest_without_write_s = longest_without_write_s(history)
    report.longest_of_a_client_s = max(hammer.longest_without_write_s for hammer in hammers)
    ended = [*trouble.ended_by_itself, *trouble.disks.ended]
    report.wrong += [f"a daemon ended that nobody killed: {each}" for each in ended]
    return report


class Reckoning:
    """What is owed once nothing is broken any more."""

    def __init__(self, net: Testnet, observer: Observer, history: History, wanted: set[str]) -> None:
        self._net = net
        self._observer = observer
        self._history = history
        self._wanted = wanted

    def settle(self) -> list[str]:
        """Wait until the cluster is well; why it is not, when it does not become so in time."""
        try:
            for number in self._net.hosts:
                self._net.wait_for_nodes(self._net.hosts, seen_by=number, timeout_s=CONVERGE_S)
            wait_until(lambda: not self._wrong_copies(), timeout_s=CONVERGE_S, what="each container to run once", interval_s=0.5)
            wait_until(self._has_room_everywhere, timeout_s=CONVERGE_S, what="every ballast to be made again", interval_s=0.5)
        except TestnetError as problem:
            return [f"not well after everything was mended: {problem}", *self._wrong_copies()[:10]]
        return []

    def _has_room_everywhere(self) -> bool:
        return all(small_disk.ballast_bytes(self._net.data_folder(number)) >= BALLAST_BYTES for number in self._net.hosts)

    def _wrong_copies(self) -> list[str]:
        copies = Counter(interval.task for interval in self._observer.running())
        return [f"{name} runs {copies[name]} times" for name in sorted(self._wanted) if copies[name] != 1]

    def judge(self) -> list[str]:
        """The last lists, of every node, belong to the history."""
        lists = {}
        for number in self._net.hosts:
            called = boottime_s()
            with NodeApi(self._net, number) as api:
                names = frozenset(str(row["name"]) for row in api.checked("GET", "/v1/tasks") if not row["removing"])
            lists[number] = Read(called, boottime_s(), number, names)
        self._history.reads += lists.values()
        found = judge(self._history)
        if len({read.names for read in lists.values()}) > 1:
            found.append("the nodes are not of one mind about which tasks there are")
        return found + self._new_work()

    def _new_work(self) -> list[str]:
        """Every node accepts a submit."""
        found = []
        for number in self._net.hosts:
            try:
                with NodeApi(self._net, number) as api:
                    api.submit({"name": f"after-{number}", "image": "testnet/busybox:1", "constraints": NOWHERE})
            except (TestnetError, OSError) as problem:
                found.append(f"no new work through h{number}: {problem}")
        return found

