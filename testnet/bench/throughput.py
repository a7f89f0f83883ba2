"""Durable submits per second on three nodes, through any of them, by 1, 8 and 64 clients; puts into etcd in turn with them.

The clients are connections of one asyncio loop in this process (askers.py), spread over the nodes; each asks again as soon as it
was answered. Processor time is that of all threads of the three daemons, or of etcd's members, over the same seconds; the
client's own is told apart, since it shares the machine's cores with them.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from testnet.bench import etcd
from testnet.bench.api import wait_settled
from testnet.bench.askers import Asker, PutAsker, SubmitAsker, document_of
from testnet.bench.etcd import EtcdMembers
from testnet.bench.figures import Aim, Figures, Section
from testnet.bench.idle import cpu_s, processes_of
from testnet.bench.membership_net import membership_net
from testnet.bench.raw import fresh_name
from testnet.cluster import Testnet
from testnet.state import DAEMON

HOSTS = 3
CLIENTS = (1, 8, 64)
RATES_MIN = {8: 400.0, 64: 1000.0}
"""The aims: with one client the rate is no more than what a second has of round trips."""
LASTS_S, WARM_S = 5.0, 0.5
REQUESTS_MAX = 50_000


@dataclass(frozen=True, slots=True)
class Load:
    """What one load of some seconds came to. `latencies_s` are those of the accepted requests."""

    lasted_s: float
    latencies_s: Sequence[float]
    refused: int
    client_cpu_s: float

    @property
    def rate(self) -> float:
        return len(self.latencies_s) / self.lasted_s

    def percentile_ms(self, share: float) -> float:
        ordered = sorted(self.latencies_s)
        return 1000 * ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan


def apply_load(askers: Sequence[Asker], *, lasts_s: float = LASTS_S) -> Load:
    """Have every asker ask without pause, so long."""
    return asyncio.run(_apply_load(askers, lasts_s))


async def _apply_load(askers: Sequence[Asker], lasts_s: float) -> Load:
    latencies_s: list[float] = []
    sent_in_all = 0
    began, cpu_began_s = time.monotonic(), time.process_time()

    async def ask_on(asker: Asker) -> None:
        nonlocal sent_in_all
        while (sent := time.monotonic()) < began + lasts_s and sent_in_all < REQUESTS_MAX:
            sent_in_all += 1
            if await asker.ask(fresh_name("load")):
                latencies_s.append(time.monotonic() - sent)

    async with asyncio.TaskGroup() as group:
        for asker in askers:
            group.create_task(ask_on(asker))
    load = Load(time.monotonic() - began, latencies_s, sent_in_all - len(latencies_s), time.process_time() - cpu_began_s)
    for asker in askers:
        asker.close()
    return load


@dataclass(slots=True)
class Side:
    """One system under one number of clients; every figure has a sample for each run."""

    name: str
    unit: str
    rate: Figures = field(init=False)
    p50: Figures = field(init=False)
    p99: Figures = field(init=False)
    servers: Figures = field(init=False)
    client: Figures = field(init=False)

    def __post_init__(self) -> None:
        self.rate = Figures(self.name, f"{self.unit}s/s")
        self.p50, self.p99 = Figures(f"{self.name}: p50", "ms"), Figures(f"{self.name}: p99", "ms")
        self.servers = Figures(f"{self.name}: processor, all three nodes", f"ms per {self.unit}")
        self.client = Figures(f"{self.name}: processor, the client", f"ms per {self.unit}")

    def add(self, load: Load, servers_cpu_s: float) -> None:
        done = len(load.latencies_s)
        if load.refused:
            self.rate.discard(f"{load.refused} requests were refused")
        if done:
            self.rate.add(load.rate)
            self.p50.add(load.percentile_ms(0.5))
            self.p99.add(load.percentile_ms(0.99))
            self.servers.add(1000 * servers_cpu_s / done)
            self.client.add(1000 * load.client_cpu_s / done)

    @property
    def figures(self) -> list[Figures]:
        return [self.rate, self.p50, self.p99, self.servers, self.client]


def daemons_of(net: Testnet) -> list[int]:
    """The processes of all daemons."""
    return [pid for number in net.hosts for pid in processes_of(net, number, DAEMON)]


def measured_load(askers: Sequence[Asker], pids: Sequence[int], *, lasts_s: float = LASTS_S) -> tuple[Load, float]:
    """A load, and the processor time of some processes meanwhile; a short load before it warms both sides."""
    apply_load(askers, lasts_s=WARM_S)
    before = sum(map(cpu_s, pids))
    load = apply_load(askers, lasts_s=lasts_s)
    return load, sum(map(cpu_s, pids)) - before


def _submitters(net: Testnet, count: int) -> list[Asker]:
    paths = [net.daemon_socket(number) for number in net.hosts]
    return [SubmitAsker(paths[number % len(paths)]) for number in range(count)]


def _putters(members: EtcdMembers, count: int) -> list[Asker]:
    ends = [members.endpoint(number) for number in members.net.hosts]
    return [PutAsker(*ends[number % len(ends)]) for number in range(count)]


def measure(runs: int) -> Section:
    ours = {clients: Side(f"swarm, {_told(clients)}", "submit") for clients in CLIENTS}
    theirs = {clients: Side(f"etcd, {_told(clients)}", "put") for clients in CLIENTS}
    for turn in range(runs):
        with membership_net(HOSTS) as (net, _), EtcdMembers(net) as members:
            daemons = daemons_of(net)
            member_pids = [process.pid for process in members.processes.values()]
            for clients in CLIENTS:
                wait_settled(net)
                ours[clients].add(*measured_load(_submitters(net, clients), daemons))
                theirs[clients].add(*measured_load(_putters(members, clients), member_pids))
            rows = [side.rate.row() for sides in (ours, theirs) for side in sides.values()]
            print(f"round {turn + 1} of {runs}:", *rows, sep="\n  ", flush=True)
    return Section(
        title="Durable submits per second",
        how=(
            f"{HOSTS} emulated hosts; a fresh cluster for each round, then {LASTS_S:.0f} s of each load in turn with etcd "
            f"{etcd.version()} on the same hosts and disk. Clients hold one connection each, spread over the three nodes (HTTP "
            "on the daemon's Unix socket; gRPC to etcd), and ask again as soon as they are answered. A submit is a task that "
            f"fits no node, {len(document_of('load-1'))} bytes of JSON; a put is the same bytes under its name. An accepted "
            "submit is on the disks of a majority and applied at the node that was asked. Daemons speak TLS among themselves, "
            "etcd does not."
        ),
        figures=[side.rate for sides in zip(ours.values(), theirs.values(), strict=True) for side in sides],
        aims=[
            Aim(f"submits per second, {_told(clients)}, median", ours[clients].rate.median, least, "submits/s", at_least=True)
            for clients, least in RATES_MIN.items()
        ],
        where=[figure for side in (*ours.values(), *theirs.values()) for figure in side.figures[1:]],
        notes=["All nodes and the client share this machine's cores: on hosts of their own each node has its own."],
    )


def _told(clients: int) -> str:
    return f"{clients} client{'s' if clients > 1 else ''}"
