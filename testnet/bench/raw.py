"""The raw engine: create and start one container, no orchestrator, from the request to the engine's own start event.

The clock starts right before the request is sent, as it does for a submit; the end is the engine's stamp (watch.py).
"""

from __future__ import annotations

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import docker

from testnet.bench.watch import EngineWatch

IMAGE = "testnet/busybox:1"
COMMAND = ["sleep", "1000000"]
EVENT_S_MAX = 30.0
NUMBERS = itertools.count(1)


def fresh_name(word: str) -> str:
    """A name that nothing else in this run has."""
    return f"{word}-{next(NUMBERS)}"


@dataclass(frozen=True, slots=True)
class Started:
    """One start, in seconds: from the request to the engine's create event, and to its start event."""

    created_s: float
    running_s: float


def create(client: docker.APIClient, name: str, network: str) -> str:
    made = client.create_container(
        IMAGE, COMMAND, name=name, host_config=client.create_host_config(network_mode=network, restart_policy={"Name": "no"})
    )
    return str(made["Id"])


def start_one(client: docker.APIClient, watch: EngineWatch, network: str) -> Started:
    """Create and start one container, and remove it again. TimeoutError when the engine tells of no start."""
    name = fresh_name("raw")
    sent = time.time()
    container = create(client, name, network)
    try:
        client.start(container)
        running = watch.wait("start", name, timeout_s=EVENT_S_MAX)
        return Started(watch.wait("create", name, timeout_s=EVENT_S_MAX) - sent, running - sent)
    finally:
        client.remove_container(container, force=True)


def start_many(urls: list[str], count: int, *, network: str, parallel: int) -> float:
    """Seconds to start so many containers over several engines, `parallel` at a time on each; removes them again."""
    clients = [docker.APIClient(base_url=url, timeout=120) for url in urls]
    made: list[tuple[docker.APIClient, str]] = []
    lock = threading.Lock()

    def start(client: docker.APIClient) -> None:
        container = create(client, fresh_name("raw"), network)
        with lock:
            made.append((client, container))
        client.start(container)

    pools = [ThreadPoolExecutor(max_workers=parallel) for _ in clients]
    try:
        began = time.monotonic()
        waiting = [pools[number % len(pools)].submit(start, clients[number % len(pools)]) for number in range(count)]
        for each in waiting:
            each.result()
        spent_s = time.monotonic() - began
    finally:
        for pool in pools:
            pool.shutdown()
        with ThreadPoolExecutor(max_workers=4) as remover:
            list(remover.map(lambda pair: pair[0].remove_container(pair[1], force=True), made))
        for client in clients:
            client.close()
    return spent_s
