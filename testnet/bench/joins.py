"""Real daemons with 100,000 tasks: they make snapshots, a node joins by one, a node restarts on one; time, lateness, memory.

What daemons do is timed from outside: a snapshot by its file, a catalog by the index that the node's answers name, the loop's
worst by the lateness that the daemon itself counts. What single steps cost is in `snapshots.py`, without the machine's part.
"""

from __future__ import annotations

import http.client
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from swarm.adapters.store_file import SNAPSHOTS
from testnet.bench.api import NodeApi, UnixConnection, leader_of
from testnet.bench.askers import SubmitAsker
from testnet.bench.batches import BatchAsker, batch_of, send_all
from testnet.bench.figures import Figures, Section
from testnet.bench.throughput import apply_load
from testnet.cluster import Testnet
from testnet.engine import reserved_instance
from testnet.processes import wait_until
from testnet.state import DAEMON

TASKS, BATCH = 100_000, 1_000
NODES, JOINS = (1, 2, 3), 4
WAIT_S_MAX = 300.0
TO_SNAPSHOT_S = 10.0
"""Submits of one task by 64 clients go on in spells of so long until every node has a snapshot that was begun after the load."""


@dataclass(slots=True)
class _Found:
    loaded: Figures = field(default_factory=lambda: Figures(f"submit {TASKS:,} tasks by batch", "s"))
    made: Figures = field(default_factory=lambda: Figures("make a snapshot, each node", "s"))
    size: Figures = field(default_factory=lambda: Figures("its size", "MB"))
    making_lag: Figures = field(default_factory=lambda: Figures("lateness of the loop meanwhile, each node's worst", "ms"))
    joined: Figures = field(default_factory=lambda: Figures("join: daemon's start to the whole catalog", "s"))
    joining_lag: Figures = field(default_factory=lambda: Figures("lateness of the loop meanwhile: the newcomer", "ms"))
    leader_lag: Figures = field(default_factory=lambda: Figures("lateness of the loop meanwhile: the leader", "ms"))
    joined_memory: Figures = field(default_factory=lambda: Figures("memory after the join, at most so far: the newcomer", "MB"))
    restarted: Figures = field(default_factory=lambda: Figures("restart: daemon's start to the whole catalog", "s"))
    restarted_memory: Figures = field(default_factory=lambda: Figures("memory after the restart, at most so far", "MB"))
    memory: Figures = field(default_factory=lambda: Figures("memory at most so far: the three nodes", "MB"))


def applied_index(net: Testnet, number: int) -> int:
    """What a node's catalog has; 0 while it does not answer. Costs the node little, however many tasks there are."""
    connection = UnixConnection(net.daemon_socket(number), 5.0)
    try:
        connection.request("GET", "/v1/nodes?stale=1")
        answer = connection.getresponse()
        answer.read()
        return int(answer.getheader("swarm-index", "0"))
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def worst_lag_ms(net: Testnet, number: int) -> float:
    """The loop's worst lateness within the last minute, as the daemon counts it."""
    with NodeApi(net, number) as node:
        return float(node.checked("GET", "/v1/counters?stale=1")["loop_lag_ms"]["max_1m"])


def memory_mb_max(net: Testnet, number: int) -> float:
    """The most resident memory the daemon has had."""
    status = Path(f"/proc/{net.required(number, DAEMON).pid}/status").read_text()
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) * 1024 / 1e6 if found else float("nan")


class SnapshotFiles:
    """Watches the nodes' folders: when the spool of a snapshot appeared and when the snapshot had its name."""

    def __init__(self, net: Testnet) -> None:
        self.folders = {number: net.host(number).folder / "swarm" for number in NODES}
        self.old = {number: self._whole(number) for number in NODES}
        self.begun: dict[int, float] = {}
        self.made_s: dict[int, float] = {}
        self.sizes_mb: dict[int, float] = {}
        self.stopping = threading.Event()

    def _whole(self, number: int) -> set[str]:
        return {str(path) for path in self.folders[number].rglob(f"{SNAPSHOTS}/*.snapshot")}

    def watch(self) -> None:
        """Until stopped; looks every 10 ms."""
        while not self.stopping.wait(0.01):
            now = time.monotonic()
            for number, folder in self.folders.items():
                if number not in self.begun and any(folder.rglob(f"{SNAPSHOTS}/*.part")):
                    self.begun[number] = now
                new = self._whole(number) - self.old[number]
                if new and number not in self.made_s:
                    self.made_s[number] = now - self.begun.get(number, now)
                    self.sizes_mb[number] = Path(next(iter(new))).stat().st_size / 1e6

    @property
    def is_complete(self) -> bool:
        return set(self.made_s) == set(NODES)


@contextmanager
def watched(net: Testnet) -> Iterator[SnapshotFiles]:
    files = SnapshotFiles(net)
    thread = threading.Thread(target=files.watch, name="snapshot-files", daemon=True)
    thread.start()
    try:
        yield files
    finally:
        files.stopping.set()
        thread.join(timeout=5.0)


@contextmanager
def three_of_four() -> Iterator[Testnet]:
    """Four hosts, a cluster on three of them."""
    with (
        reserved_instance() as instance,
        Testnet.up(JOINS, instance=instance, daemons=False, with_images=(), one_engine=True) as net,
    ):
        net.new_token()
        peers = ",".join(net.address(number) for number in NODES)
        for number in NODES:
            net.start_daemon(number, ["--token-file", str(net.layout.token), "--peers", peers], wait=False)
        for number in NODES:
            net.wait_for_daemon(number)
        wait_until(lambda: _leader(net) is not None, timeout_s=60.0, what="a leader", interval_s=0.1)
        yield net


def _leader(net: Testnet) -> int | None:
    try:
        with NodeApi(net, NODES[0]) as node:
            return leader_of(node.nodes())
    except OSError:
        return None


def _wait_caught_up(net: Testnet, number: int, index: int) -> None:
    what = f"h{number} to have entry {index}"
    wait_until(lambda: applied_index(net, number) >= index, timeout_s=WAIT_S_MAX, what=what, interval_s=0.02)


def _load(net: Testnet, found: _Found) -> None:
    batches = [batch_of(BATCH) for _ in range(TASKS // BATCH)]
    count = len(batches)
    found.loaded.add(send_all([BatchAsker(net.daemon_socket(NODES[0]), batches)], count))


def _snapshot(net: Testnet, found: _Found) -> None:
    """Small entries until every node has made a snapshot."""
    with watched(net) as files:
        give_up = time.monotonic() + WAIT_S_MAX
        while not files.is_complete and time.monotonic() < give_up:
            paths = [net.daemon_socket(number) for number in NODES]
            apply_load([SubmitAsker(paths[number % len(paths)]) for number in range(64)], lasts_s=TO_SNAPSHOT_S)
    for number in NODES:
        if number in files.made_s:
            found.made.add(files.made_s[number])
            found.size.add(files.sizes_mb[number])
        else:
            found.made.discard("no snapshot was made")
        found.making_lag.add(worst_lag_ms(net, number))
        found.memory.add(memory_mb_max(net, number))


def _join(net: Testnet, found: _Found) -> None:
    leader = _leader(net)
    assert leader is not None, "settled"
    index = applied_index(net, leader)
    began = time.monotonic()
    net.start_daemon(JOINS, ["--token-file", str(net.layout.token), "--peers", net.address(NODES[0])], wait=False)
    _wait_caught_up(net, JOINS, index)
    found.joined.add(time.monotonic() - began)
    found.joining_lag.add(worst_lag_ms(net, JOINS))
    found.leader_lag.add(worst_lag_ms(net, leader))
    found.joined_memory.add(memory_mb_max(net, JOINS))


def _restart(net: Testnet, found: _Found) -> None:
    leader = _leader(net)
    number = next(each for each in NODES if each != leader)
    net.stop_daemon(number)
    assert leader is not None, "settled"
    index = applied_index(net, leader)
    began = time.monotonic()
    net.restart_daemon(number, wait=False)
    _wait_caught_up(net, number, index)
    found.restarted.add(time.monotonic() - began)
    found.restarted_memory.add(memory_mb_max(net, number))


def measure(runs: int) -> Section:
    found = _Found()
    for turn in range(runs):
        with three_of_four() as net:
            for step in (_load, _snapshot, _join, _restart):
                step(net, found)
                print(f"round {turn + 1} of {runs}: {step.__name__.strip('_')} is done", flush=True)
    return Section(
        title=f"Real daemons with {TASKS:,} tasks",
        how=(
            f"Three daemons on emulated hosts that share one engine. {TASKS:,} tasks that fit no node are submitted by batch, "
            "then single ones by 64 clients until every node has made a snapshot. A fourth daemon joins and gets the snapshot "
            "and what follows it; then a follower is stopped and started again. A catalog is whole when the node names the index "
            "that the leader had at the start. Lateness is the loop's worst within a minute, as each daemon counts it, and so "
            "has the machine's part in it."
        ),
        figures=[
            found.loaded, found.made, found.size, found.making_lag, found.joined, found.joining_lag,
            found.leader_lag, found.joined_memory, found.restarted, found.restarted_memory, found.memory,
        ],
    )  # fmt: skip
