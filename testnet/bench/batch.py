"""Sixty tasks at once: how many start per second on three hosts, beside the raw engines' own ceiling.

Up to 16 submits are in flight, spread over all nodes; the clock runs from the first request to the last start event. The raw
engines start as many containers, two and four at a time on each; the faster counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from testnet.bench.api import NodeApi, task_document, wait_settled
from testnet.bench.figures import Figures, Section
from testnet.bench.raw import fresh_name, start_many
from testnet.bench.submit import FAILED
from testnet.bench.watch import EngineWatch
from testnet.cluster import Testnet

TASKS = 60
IN_FLIGHT = 16
RUN_S_MAX = 60.0


class Batch:
    """One batch of tasks on all hosts: submitted, seen running by the engines, removed."""

    def __init__(self, net: Testnet, count: int, network: str) -> None:
        self.net = net
        self.names = [fresh_name("batch") for _ in range(count)]
        self.network = network

    def run(self) -> tuple[float, float, float]:
        """Seconds UTC of the first request, of the last answer, and of the last start event. Removes the tasks again."""
        with ExitStack() as stack:
            watches = [stack.enter_context(EngineWatch(self.net.engine(number))) for number in self.net.hosts]
            stack.callback(self.remove, watches)
            began = time.time()
            self.each(self.submit)
            answered = time.time()
            stamps = [wait_anywhere(watches, "start", name) for name in self.names]
            return began, answered, max(stamps)

    def submit(self, node: NodeApi, name: str) -> None:
        node.submit(task_document(name, self.network))

    def each(self, act: Callable[[NodeApi, str], None]) -> None:
        """Do it for every name, `IN_FLIGHT` at a time, each worker with a connection of its own to a node of its own."""

        def work(worker: int) -> None:
            with NodeApi(self.net, self.net.hosts[worker % len(self.net.hosts)]) as node:
                for name in self.names[worker::IN_FLIGHT]:
                    act(node, name)

        with ThreadPoolExecutor(max_workers=IN_FLIGHT) as pool:
            list(pool.map(work, range(IN_FLIGHT)))

    def remove(self, watches: list[EngineWatch]) -> None:
        self.each(lambda node, name: node.remove_task(name))
        for name in self.names:
            wait_anywhere(watches, "destroy", name)


def wait_anywhere(watches: list[EngineWatch], action: str, name: str) -> float:
    """The stamp of an event on whichever engine tells it; TimeoutError when none does."""
    give_up = time.monotonic() + RUN_S_MAX
    while True:
        for watch in watches:
            stamp = watch.stamp(action, name)
            if stamp is not None:
                return stamp
        if time.monotonic() > give_up:
            raise TimeoutError(f"no {action} event of {name} within {RUN_S_MAX:.0f} s")
        time.sleep(0.005)


def measure(net: Testnet, *, runs: int) -> Section:
    ours = Figures(f"{TASKS} tasks, submitted {IN_FLIGHT} at a time", "per second")
    raw = {parallel: Figures(f"raw engines, {parallel} at a time on each", "per second") for parallel in (2, 4)}
    answered = Figures("submits answered", "per second")
    tail = Figures("last answer to last start event", "s")
    urls = [net.engine(number) for number in net.hosts]
    for _ in range(runs):
        wait_settled(net)
        try:
            began, accepted, running = Batch(net, TASKS, "host").run()
        except FAILED as problem:
            ours.discard(f"{type(problem).__name__}: {problem}"[:120])
        else:
            ours.add(TASKS / (running - began))
            answered.add(TASKS / (accepted - began))
            tail.add(running - accepted)
        for parallel, figures in raw.items():
            figures.add(TASKS / start_many(urls, TASKS, network="host", parallel=parallel))
    best = max(raw.values(), key=lambda each: each.median)
    section = Section(
        title=f"{TASKS} tasks on {len(urls)} hosts",
        how=(
            f"Host network. From the first of {TASKS} requests to the last start event, with up to {IN_FLIGHT} submits in flight "
            "through all nodes; the raw engines start as many containers without any orchestrator, in turn."
        ),
        figures=[ours, *raw.values()],
        where=[answered, tail],
    )
    if ours.samples:
        share = ours.median / best.median
        section.notes.append(
            f"The median is {share:.0%} of the raw engines' best ({best.name}). No aim is set for it here. Daemons and engines "
            "share the same cores in this emulation; on real hosts each engine has its own."
        )
    return section

