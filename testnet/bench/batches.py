"""Tasks a second by batch: one client, and one at each node, each of which sends the next batch when the last was answered."""

from __future__ import annotations

import asyncio
import json
import time

from testnet.bench.api import task_document, wait_settled
from testnet.bench.askers import SubmitAsker
from testnet.bench.figures import Aim, Figures, Section
from testnet.bench.idle import cpu_s
from testnet.bench.membership_net import membership_net
from testnet.bench.raw import fresh_name
from testnet.bench.throughput import HOSTS, daemons_of
from testnet.layout import TestnetError

BATCH = 1_000
BATCHES = 5
"""By each client in each run."""
RATE_MIN = 5_000.0


def batch_of(count: int) -> bytes:
    """A batch of tasks that fit no node, under names of their own."""
    constraints = ["node.hostname==nowhere"]
    tasks = [{"task": task_document(fresh_name("batch"), "host", constraints=constraints)} for _ in range(count)]
    return json.dumps({"tasks": tasks}).encode()


class BatchAsker(SubmitAsker):
    """Sends ready batches; accepted is one whose answer says 200: each task decided, and all were new."""

    def __init__(self, socket_path: str, batches: list[bytes]) -> None:
        super().__init__(socket_path, "/v1/tasks/batch", lambda _: batches.pop())


def send_all(askers: list[BatchAsker], each: int) -> float:
    """Every client sends so many; seconds until the last answer. Raises TestnetError when a batch was not taken."""

    async def send(asker: BatchAsker) -> None:
        for _ in range(each):
            if not await asker.ask(""):
                raise TestnetError("a batch was not taken")

    async def whole() -> float:
        began = time.monotonic()
        try:
            async with asyncio.TaskGroup() as group:
                for asker in askers:
                    group.create_task(send(asker))
        finally:
            for asker in askers:
                asker.close()
        return time.monotonic() - began

    try:
        return asyncio.run(whole())
    except ExceptionGroup as problems:
        raise TestnetError(str(problems.exceptions[0])) from problems


def measure(runs: int) -> Section:
    rates = {count: Figures(_told(count), "tasks/s") for count in (1, HOSTS)}
    cpu = {count: Figures(f"{_told(count)}: processor, all three nodes", "ms per task") for count in rates}
    for turn in range(runs):
        with membership_net(HOSTS) as (net, _):
            daemons = daemons_of(net)
            for count in rates:
                wait_settled(net)
                askers = [
                    BatchAsker(net.daemon_socket(number), [batch_of(BATCH) for _ in range(BATCHES)])
                    for number in net.hosts[:count]
                ]
                before = sum(map(cpu_s, daemons))
                took_s = send_all(askers, BATCHES)
                tasks = count * BATCHES * BATCH
                rates[count].add(tasks / took_s)
                cpu[count].add(1000 * (sum(map(cpu_s, daemons)) - before) / tasks)
        print(f"round {turn + 1} of {runs}:", *(each.row() for each in rates.values()), sep="\n  ", flush=True)
    return Section(
        title="Tasks a second by batch",
        how=(
            f"{HOSTS} emulated hosts, a fresh cluster for each round. A client sends {BATCHES} batches of {BATCH:,} tasks that "
            "fit no node, one after another on a standing connection to a daemon's Unix socket; then three clients do, one at "
            "each node. A batch is answered when all of its tasks are on the disks of a majority and applied at the node that "
            "was asked. The bodies are made beforehand. etcd has nothing like it: its transactions hold 128 operations."
        ),
        figures=list(rates.values()),
        aims=[Aim("tasks a second, the better of both, median", max(each.median for each in rates.values()), RATE_MIN,
                  "tasks/s", at_least=True)],
        where=list(cpu.values()),
    )  # fmt: skip


def _told(clients: int) -> str:
    return "batches of one client" if clients == 1 else f"batches of {clients} clients, one at each node"
