"""A simulated cluster: hosts, their daemons, and the founding, from a seed.

    cluster = Cluster(seed=7, hosts=3)
    cluster.run(20.0)

Everything a run is made of hangs on the cluster: `world`, `scene.network`, `hosts`. Some hosts found it together; the others are
admitted later, through the log, as joining does.

Promise: a cluster that is left alone elects a leader and stays well; whatever goes wrong was asked for (`faults`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from swarm.model.command import Admit, Declare, Found
from swarm.model.entry import KIND_FOUND, Entry, HardState, Voter
from swarm.model.ids import ClusterId, NodeId, RequestId, random_id
from swarm.model.node import Node
from swarm.model.resources import Resources
from swarm.ports import Batch
from swarm.simulation.containers import Containers, NoContainers
from swarm.simulation.departures import Departures
from swarm.simulation.duties import Duties
from swarm.simulation.gossip import Gossip
from swarm.simulation.host import Host
from swarm.simulation.keys import Keys
from swarm.simulation.network import FAIR, Network, Weather
from swarm.simulation.node import Daemon
from swarm.simulation.replica import Outcome, Replica
from swarm.simulation.scene import Scene, Settings, Watch
from swarm.simulation.streams import Streams
from swarm.simulation.submit import Forwarding
from swarm.simulation.world import UTC_AT_ZERO, TraceSink, World
from swarm.wire.codec import encode

DECLARE_TIMEOUT_S = 10.0
DRIFT = 0.049
"""Just inside the 5 % that the lease allows for."""
CPU_TOTAL_MILLICORES = 13_000
"""Of all hosts together, at most 4,000 each from three hosts on: room for the workload once all of them are well, not before."""

NOTHING = Resources(cpu_millicores=0, memory_bytes=0, tasks=0)


class Member(Daemon):
    """A daemon with all its parts."""

    replica: Replica
    forwarding: Forwarding
    gossip: Gossip
    departures: Departures
    duties: Duties
    keys: Keys


class Cluster:
    """See the module. `founders` of the `hosts` found it; 0 means all of them. `witnesses` are numbers of hosts."""

    def __init__(
        self,
        seed: int,
        hosts: int,
        *,
        founders: int = 0,
        witnesses: Collection[int] = (),
        settings: Settings | None = None,
        weather: Weather = FAIR,
        watch: Watch | None = None,
        trace_sink: TraceSink | None = None,
    ) -> None:
        self.world = World(seed, trace_sink)
        self.rng = self.world.random("cluster")
        network = Network(self.world, weather)
        cluster_id = ClusterId(random_id(self.rng))
        self.scene = Scene(self.world, network, Streams(self.world, network), cluster_id, settings or Settings())
        if watch is not None:
            self.scene.watch = watch
        runners = hosts - len(witnesses)
        each = CPU_TOTAL_MILLICORES // runners if runners < 3 else 4_000
        self._capacity = Resources(cpu_millicores=each, memory_bytes=4 << 30, tasks=64)
        made = [Host(number, NodeId(random_id(self.rng)), self.scene, self._build, drift=DRIFT) for number in range(1, hosts + 1)]
        for host in made:
            host.is_witness = host.number in witnesses
            self.scene.add(host)
        founding = made[: founders or hosts]
        entry = self._founding_entry(founding)
        for host in founding:
            self._write_founding(host, entry)
        for host in made:
            self.world.after(self.rng.random() * 0.5, host.start_daemon)
        self._joining = made[len(founding) :]
        for host in self._joining:
            self.world.after(3.0 + self.rng.random() * 5, self._admit, host)

    @property
    def hosts(self) -> list[Host]:
        return list(self.scene.hosts.values())

    def daemons(self) -> Iterator[Member]:
        """Every daemon that runs, by host."""
        for host in self.scene.hosts.values():
            if isinstance(host.daemon, Member):
                yield host.daemon

    def leader(self) -> Member | None:
        """The daemon that may act now, if one may."""
        for daemon in self.daemons():
            if daemon.is_running and daemon.replica.may_act:
                return daemon
        return None

    def run(self, seconds: float) -> None:
        """Let so much true time pass."""
        self.world.run_until(self.world.now + seconds)

    # ---- founding and joining

    def _node(self, host: Host) -> Node:
        api = host.address.replace(":4747", ":4748")
        key = host.node_id.encode()
        return Node(
            id=host.node_id, name=host.name, address=host.address, api_address=api, fingerprint=key, public_key=key,
            store_generation=host.disk.store_generation, arch="amd64", capacity=NOTHING if host.is_witness else self._capacity,
            labels=(("zone", "ab"[host.number % 2]),), schema_known=host.schema_known, witness=host.is_witness,
        )

    def _founding_entry(self, hosts: list[Host]) -> Entry:
        members = sorted(hosts, key=lambda host: host.node_id)
        size = 1 if len(members) < 3 else 3 if len(members) < 7 else 5
        voters = tuple(Voter(host.node_id, 1) for host in members[:size])
        found = Found(self.scene.cluster_id, tuple(self._node(host) for host in members), voters)
        generation = self.scene.settings.recovery_generation
        return Entry(1, 1, KIND_FOUND, 1, encode(found), generation, UTC_AT_ZERO)

    def _write_founding(self, host: Host, entry: Entry) -> None:
        host.disk.install(Batch(0, entries=(entry,), hard_state=HardState(entry.recovery_generation, 1, "")))

    def _admit(self, host: Host) -> None:
        """Ask any member to admit a host, until one has."""

        def done(outcome: Outcome) -> None:
            if isinstance(outcome, Exception):
                self.world.after(1.0, self._admit, host)

        members = [d for d in self.daemons() if d.is_running and d.replica.core.last_index and d.host is not host]
        if not members:
            self.world.after(1.0, self._admit, host)
            return
        member = self.rng.choice(members)
        asked_of = member.life

        def lost() -> None:
            if member.host.life != asked_of:
                self._admit(host)

        self.world.after(DECLARE_TIMEOUT_S + 5, lost)
        request_id = RequestId(f"admit-{host.number}")
        member.feed(
            None, member.forwarding.submit, Admit(self._node(host)), request_id, DECLARE_TIMEOUT_S, done
        )

    # ---- building a daemon

    def _build(self, host: Host, scene: Scene, life: int, rebooted: bool) -> Daemon:
        daemon = Member(host, scene, life)
        daemon.replica = Replica(daemon)
        daemon.forwarding = Forwarding(daemon, daemon.replica)
        daemon.gossip = Gossip(daemon, daemon.replica, host.disk.boots)
        daemon.packet_part = daemon.gossip
        daemon.departures = Departures(daemon, daemon.replica, daemon.gossip)
        daemon.parts = [daemon.replica, daemon.gossip]
        if host.is_witness:
            NoContainers(daemon, daemon.gossip)
        else:
            daemon.parts.append(Containers(daemon, daemon.replica, daemon.forwarding, daemon.gossip, rebooted=rebooted))
        daemon.duties = Duties(daemon, daemon.replica, daemon.gossip, daemon.departures)
        daemon.keys = Keys(daemon, daemon.replica, daemon.forwarding, lambda: host.secrets, host.keep_secrets)
        daemon.gossip.on_change.append(daemon.duties.on_gossip)
        daemon.later(0.2 + self.rng.random(), None, self._declare, daemon)
        return daemon

    def _declare(self, daemon: Member) -> None:
        """Say where this node is and what it has, until the log knows."""
        node = self._node(daemon.host)
        command = Declare(
            node.id, node.name, node.address, node.api_address, node.store_generation, node.labels, node.arch, node.os,
            node.capacity, node.engine_version, node.schema_known, node.witness,
        )

        def done(outcome: Outcome) -> None:
            if isinstance(outcome, Exception):
                daemon.later(1.0, None, self._declare, daemon)

        request_id = RequestId(f"declare-{daemon.host_number}-{daemon.life}")
        daemon.forwarding.submit(command, request_id, DECLARE_TIMEOUT_S, done)
