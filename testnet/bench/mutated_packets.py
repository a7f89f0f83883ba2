"""A million mutated packets in this process, recordings across lives and clusters, and a share of the packets over a real socket.

In this process the receiver is a daemon's gossip whole (`fed_gossip`). Over the socket it is a living daemon of three: another's
daemon is killed, and what was its own to send is sent in its name, with its key and with the counters it would have used next.
"""

from __future__ import annotations

import socket
import time
from collections import Counter
from pathlib import Path

import msgspec

from swarm.adapters.identity import ClusterFile
from swarm.model.ids import NodeId
from swarm.wire.envelope import Sealer
from swarm.wire.keys import Keyring, gossip_key
from testnet.bench.api import NodeApi
from testnet.bench.beliefs import Logs
from testnet.bench.feeding import GROWTH_KIB_MAX, GROWTH_OBJECTS_MAX, KINDS, Fed, Outcome, Replay, feed_mutated, replay_all
from testnet.bench.figures import Aim, Figures, Section
from testnet.bench.membership_net import counters, membership_net, memory_kib, settle
from testnet.bench.mutations import Member, Mutator, recorded
from testnet.bench.submit import FAILED
from testnet.cluster import Testnet
from testnet.layout import PEER_PORT
from testnet.state import DAEMON

PACKETS = 1_000_000
LIVE_SHARE = 50
"""One packet in so many goes over the socket too."""
LIVE_PER_STEP, STEP_S = 20, 0.01
COUNTERS_SKIPPED = 20_000
"""More than a daemon of three sends between its start and its end here: what is sent in its name is newer than all of it."""


class Live:
    """Mutated packets to the daemon of the first host, in the name of the last one's."""

    def __init__(self, net: Testnet) -> None:
        self.net = net
        self.target, self.victim = net.hosts[0], net.hosts[-1]
        with NodeApi(net, self.target) as node:
            rows = {row["name"]: node.checked("GET", f"/v1/nodes/{row['name']}") for row in node.nodes()}
        self.who = [Member(NodeId(row["id"]), name, row["address"]) for name, row in sorted(rows.items())]
        self.counted: Counter[str] = Counter()
        self.sent = 0
        self.memory_kib = (0, 0)
        self.troubles: list[str] = []
        self.whole_again = ""
        self.not_back: list[str] = []
        """Nodes that the target does not call alive, long after the killed daemon was started again."""

    def run(self, count: int) -> None:
        """Send them, look, and bring the killed daemon back."""
        logs, daemon = Logs(self.net), self.net.required(self.target, DAEMON)
        self.net.crash_daemon(self.victim)
        seal, me = self._seal(), next(each for each in self.who if each.name == f"h{self.victim}")
        before, memory = Counter(counters(self.net, self.target)), memory_kib(daemon.pid)
        mutator = Mutator([plain for plain in recorded(self.who) if plain.sender == me.node_id], seed=1)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for make in KINDS.values():
                for number, (packet, _) in enumerate(make(mutator, {me.node_id: seal}, count // 2), start=1):
                    sender.sendto(packet, (self.net.address(self.target), PEER_PORT))
                    self.sent += 1
                    if number % LIVE_PER_STEP == 0:
                        time.sleep(STEP_S)
        time.sleep(1.0)
        self.counted = Counter(counters(self.net, self.target)) - before
        self.memory_kib = (memory, memory_kib(daemon.pid))
        self.troubles = logs.troubles()
        self.net.restart_daemon(self.victim)
        began = time.monotonic()
        try:
            settle(self.net)
        except FAILED:
            with NodeApi(self.net, self.target) as node:
                self.not_back = [f"{row['name']} is {row['status']}" for row in node.nodes() if row["status"] != "alive"]
        spent_s = time.monotonic() - began
        self.whole_again = f"{spent_s:.1f} s after the killed daemon was started again, {self.not_back or 'all were alive'}"

    def _seal(self) -> Sealer:
        """The killed daemon's own, as its data folder has it."""
        folder = Path(self.net.host(self.victim).folder) / "swarm"
        cluster = msgspec.json.decode((folder / "cluster.json").read_bytes(), type=ClusterFile)
        generation = int((folder / "generation").read_text().split()[0])
        me = next(each for each in self.who if each.name == f"h{self.victim}")
        key = gossip_key(cluster.secret, cluster.cluster_id)
        seal = Sealer(cluster.cluster_id, Keyring(key), me.node_id, generation)
        for _ in range(COUNTERS_SKIPPED):
            seal.seal(me.node_id, b"")
        return seal


def measure(runs: int) -> Section:
    """`runs` times a million packets in this process, a fiftieth of them over the socket, every recording once."""
    began = time.monotonic()
    outcomes = [feed_mutated(PACKETS, seed=run) for run in range(1, runs + 1)]
    spent_s = time.monotonic() - began
    print(f"{runs * PACKETS} packets after {spent_s:.0f} s", flush=True)
    replays = replay_all()
    with membership_net(3) as (net, _):
        live = Live(net)
        live.run(PACKETS // LIVE_SHARE)
    return _section(outcomes, replays, live, spent_s=spent_s)


def _section(outcomes: list[Outcome], replays: list[Replay], live: Live, *, spent_s: float) -> Section:
    fed = [each for outcome in outcomes for each in outcome.mutated]
    grown = Figures("objects more, between the first quarter and the end of one life", "objects")
    memory = Figures("memory more, the same", "KiB")
    for outcome in outcomes:
        grown.add(outcome.growth.more_objects)
        memory.add(outcome.growth.more_kib)
    over_socket = Figures("memory of the living daemon more, after all packets over the socket", "KiB")
    over_socket.add(live.memory_kib[1] - live.memory_kib[0])
    lost = live.sent - live.counted["packets_received"]
    return Section(
        title=f"{sum(each.packets for each in fed):,} mutated packets, and recordings replayed",
        how=(
            "In this process: a daemon's gossip whole (its driver, seal, decoder and core), half of the packets mutated before "
            "sealing, half after; four fifths to receivers that live for 1,000 packets, the rest to one. Over a real socket: "
            f"{live.sent:,} more to one of three daemons, in the name of one that was killed, with its key and next counters."
        ),
        figures=[grown, memory, over_socket],
        aims=[
            Aim("packets that nobody counted", sum(each.uncounted for each in fed), 0, "packets"),
            Aim("objects more", grown.percentile(1), GROWTH_OBJECTS_MAX, "objects"),
            Aim("memory more", memory.percentile(1), GROWTH_KIB_MAX, "KiB"),
            Aim("nodes that were not believed alive again", len(live.not_back), 0, "nodes"),
            Aim("errors in the logs of living daemons", len(live.troubles), 0, "lines"),
            Aim("packets of a recording taken in another life or cluster", sum(each.accepted for each in replays), 0, "packets"),
        ],
        notes=[
            _reasons([*fed, Fed(f"over a socket ({live.sent:,})", live.sent, live.counted)]),
            _replayed(replays),
            "An error in a receiver would have ended the measurement. "
            f"Over the socket {max(0, lost)} packets did not arrive or were not counted (the target's own traffic counts too); "
            f"{live.whole_again}. {spent_s / max(1, sum(each.packets for each in fed)) * 1e6:.0f} us for each packet in this "
            "process, its making included.",
            *(f"Logged: {line[:200]}" for line in live.troubles[:10]),
        ],
    )


def _reasons(fed: list[Fed]) -> str:
    """What became of them, as a table."""
    names = sorted({name for each in fed for name in each.counted if not name.startswith(("bytes_", "streams_", "api_"))})
    head = f"| counted as | {' | '.join(each.what for each in fed)} |\n| --- |{' ---: |' * len(fed)}"
    lines = [f"| {name} | {' | '.join(f'{each.counted[name]:,}' for each in fed)} |" for name in names]
    return "\n".join([head, *lines])


def _replayed(replays: list[Replay]) -> str:
    head = "| a recording played again | packets | taken | refused as | not alive afterwards |\n| --- | ---: | ---: | --- | --- |"
    lines = []
    for each in replays:
        refused = {name.removeprefix("dropped_"): n for name, n in sorted(each.counted.items()) if name.startswith("dropped_")}
        said = ", ".join(f"{name} {count:,}" for name, count in refused.items())
        lines.append(f"| {each.what} | {each.packets:,} | {each.accepted:,} | {said} | {', '.join(each.not_alive) or 'nobody'} |")
    return "\n".join([head, *lines])
