"""A member of a cluster: every part built, wired together, and run in one nursery.

    nursery
    ├─ streams           verified connections between members
    ├─ proofs            where each member's packet counter stands
    ├─ replica           consensus, the store's writer, the catalog's applier
    ├─ past              applied entries into the archive
    ├─ gossip            membership
    ├─ runner            this host's containers (a witness has none)
    ├─ sampler           this host's load
    ├─ logs              readers of this host's containers' output
    ├─ duties            the leader's controllers and scheduler
    ├─ declaring         this node's facts into the log
    ├─ queue             submits left here while there was no leader
    ├─ api               Unix socket and HTTPS
    ├─ key_follower      the cluster's secret: follows its rotation
    ├─ rejoining         the way back after a rotation that was missed
    ├─ twins             another daemon with this node's identity
    ├─ whereabouts       members that moved
    ├─ recovery          another recovery of this cluster
    ├─ backups           a snapshot a day
    ├─ save_members      who is admitted, into the data folder
    ├─ learn_engine      an engine that comes late, or was upgraded
    └─ watch_signals     SIGTERM and SIGINT: an announced pause

Whatever ends one of them ends all; containers run on in any case.
"""

from __future__ import annotations

import logging
import random
import signal
from contextlib import suppress

import trio

from swarm.adapters.clock import SystemClock
from swarm.adapters.connects import KernelConnects
from swarm.adapters.identity import ClusterFile
from swarm.adapters.kept_snapshots import KeptSnapshots
from swarm.adapters.memory_file import MemoryFile
from swarm.adapters.queue_folder import QueueFolder
from swarm.api.calls import Api
from swarm.api.face import ApiListeners
from swarm.api.server import Server
from swarm.catalog import Catalog
from swarm.consensus.config import ConsensusConfig
from swarm.consensus.effects import Role, RoleChanged
from swarm.controllers import VotersConfig
from swarm.drivers.boot import Desk
from swarm.drivers.consensus import Replica
from swarm.drivers.controllers import Duties
from swarm.drivers.declare import Admitted, Declaring
from swarm.drivers.departure import Departure
from swarm.drivers.joining import join_again
from swarm.drivers.keys import KeyFollower
from swarm.drivers.leaving import Leaving
from swarm.drivers.link import UPGRADE
from swarm.drivers.logs import LogRelay, LogSource
from swarm.drivers.membership import Gossip
from swarm.drivers.proofs import Proofs
from swarm.drivers.recovery import Recovery
from swarm.drivers.rejoin import Rejoining
from swarm.drivers.rejoin_desk import RejoinDesk
from swarm.drivers.removal import OwnRemoval
from swarm.drivers.round_trips import RoundTrips
from swarm.drivers.runner import RunnerDriver
from swarm.drivers.sampler import Sampler
from swarm.drivers.streams import Streams
from swarm.drivers.submit_queue import SubmitQueue
from swarm.drivers.twins import Twins
from swarm.drivers.view import ViewSource
from swarm.drivers.whereabouts import Whereabouts
from swarm.errors import Conflict, Unavailable
from swarm.membership import Config as MembershipConfig
from swarm.membership import MemberChanged, MemberIdentity, Membership
from swarm.model.command import Admit
from swarm.model.entry import Voter
from swarm.model.ids import NodeId, RequestId, random_id
from swarm.model.node import Node
from swarm.node.backups import Backups
from swarm.node.face import Face, node_state
from swarm.node.keys import Keys
from swarm.node.past import make_past
from swarm.node.registry import RegistryCredentials
from swarm.node.site import Site, keep_engine_learned
from swarm.node.stopping import Stop, Stopping
from swarm.node.told import counted, refusals
from swarm.node.witness import NoRunner
from swarm.ports import PROTOCOL_PEER, PROTOCOL_REJOIN
from swarm.runner.config import RunnerConfig
from swarm.runner.core import Runner
from swarm.wire.address import parse_address
from swarm.wire.frame import PROTOCOL_VERSION, Hello

LOG = logging.getLogger("swarm.node")
HELD_FILE = "held"
API_GOODBYE_S = 0.1
"""For the answer to the request that asked for the stop."""


class Daemon:
    """Everything a member consists of, wired together. Built whole before anything runs."""

    def __init__(self, site: Site, cluster: ClusterFile, desk: Desk) -> None:
        folder = site.folder
        self.site, self.cluster = site, cluster
        self.clock, self.rng = SystemClock(), random.SystemRandom()
        self.stopping = Stopping()
        self.ended: Stop = "pause"
        self.catalog = Catalog()
        self.admitted = Admitted(self.catalog, cluster.nodes, self.tell_admitted)
        hello = Hello(
            cluster.cluster_id, folder.node_id, PROTOCOL_VERSION, site.stored.store_generation, cluster.recovery_generation
        )
        self.streams = Streams(
            hello=hello, dialer=site.port, admitted=self.admitted.find, rng=self.rng, on_stream=self.on_stream,
            on_generation=lambda node_id, generation: self.recovery.on_generation(node_id, generation),
            has_log=lambda: self.replica.last_index > 0,
        )
        self.keys = Keys(site, cluster)
        self.proofs = Proofs(self.streams, self.keys.sealer)
        self.replica = self.make_replica()
        self.past = make_past(site, cluster, self.replica)
        self.backups, self.recovery = self.make_backups(), self.make_recovery()
        self.registry = RegistryCredentials(folder, self.catalog, self.streams, self.admitted.nodes)
        self.key_follower = KeyFollower(
            self.keys, self.replica, self.catalog, self.streams, self.admitted.find, request_id=self.request_id
        )
        self.rejoin_desk = RejoinDesk(
            cluster.cluster_id, cluster.recovery_generation, self.keys, self.admitted.find,
            lambda: self.catalog.secrets, lambda: self.catalog.removed_nodes, lambda: self.replica.has_caught_up)  # fmt: skip
        self.removal = OwnRemoval(folder.removal, self.keys.save_removal, lambda known: self.runner.tell_removal(known))
        self.rejoining = self.make_rejoining()
        self.gossip = self.make_gossip()
        self.runner = NoRunner() if site.config.witness else self.make_runner()
        self.leaving = Leaving(self.replica, self.catalog, self.streams, self.clock)
        self.views = ViewSource(self.replica, self.catalog, self.gossip.members, self.clock, self.leaving.ids)
        voters = VotersConfig(give_up_s=site.config.voter_give_up_s)
        self.duties = Duties(self.replica, self.views, self.clock, voters=voters)
        self.declaring = Declaring(
            self.replica, self.catalog, lambda: site.facts, request_id=self.request_id, rejoin=self.rejoin,
            elder_at=lambda address: self.twins.elder_at(address),
        )
        self.departure = Departure(self.replica, self.catalog, self.gossip, self.leaving, request_id=self.request_id)
        self.sampler = Sampler(
            site.host, self.clock, node_id=folder.node_id, generation=folder.generation,
            engine_state=lambda: node_state(self.runner, self.replica)[0], containers=lambda: self.runner.containers,
            health=lambda: self.gossip.health_score, disk_full=lambda: self.replica.disk.room.full,
            publish=self.gossip.observe_sample, press=self.gossip.observe_pressure,
        )  # fmt: skip
        self.log_source = LogSource(site.engine, self.clock)
        self.queue = SubmitQueue(self.replica, self.catalog, QueueFolder(folder.path), self.clock, cluster_id=cluster.cluster_id)
        self.api, self.twins = Api(self.make_face()), Twins(desk, site.port)
        self.whereabouts = self.make_whereabouts(desk)
        desk.admit = self.admit
        self.replica.disk.on_news = lambda text: self.gossip.history.note(site.folder.name, text, about="disk")
        self.gossip.on_twin = self.twins.suspect
        self.replica.subscribe(self.admitted.on_changes)
        self.gossip.subscribe(self.on_member)
        self.to_save: tuple[Node, ...] | None = None
        self.save_wanted = trio.Event()

    # ---- building -----------------------------------------------------------------------------------------------------------

    def make_replica(self) -> Replica:
        """Consensus, with the catalog as its machine; every admitted node gets the log."""
        site = self.site
        return Replica(
            me=Voter(site.folder.node_id, site.stored.store_generation),
            recovery_generation=self.cluster.recovery_generation,
            config=ConsensusConfig(),
            rng=self.rng,
            stored=site.stored,
            store=site.store,
            catalog=self.catalog,
            peers=self.streams,
            clock=self.clock,
            learners=lambda: tuple(Voter(n.id, n.store_generation) for n in self.admitted.nodes().values()),
            on_role=self.on_role, quorum_in_sight=self.quorum_in_sight,
            held_back=self.admitted.held_back, name_of=self.name_of, is_dead=lambda node_id: self.gossip.is_dead(node_id),
        )

    def make_gossip(self) -> Gossip:
        """Membership over one sealed UDP socket on the peer port."""
        site, folder = self.site, self.site.folder
        core = Membership(
            identity=MemberIdentity(folder.node_id, folder.name, site.facts.address, folder.generation),
            config=MembershipConfig(),
            rng=self.rng,
            now=self.clock.now(),
        )
        return Gossip(core, site.packets, KernelConnects(), self.streams, self.clock, self.keys.sealer)

    def make_runner(self) -> RunnerDriver:
        """This host's containers."""
        site, folder, cluster = self.site, self.site.folder, self.cluster
        memory = MemoryFile(folder.path / HELD_FILE)
        core = Runner(
            node_id=folder.node_id,
            node_name=folder.name,
            node_address=parse_address(site.facts.address)[0],
            cluster_id=cluster.cluster_id,
            config=RunnerConfig(cgroup_parent=site.cgroup_parent),
            rng=self.rng,
            now=self.clock.now(),
            rebooted=site.rebooted,
            remembered=memory.load(),
            removal=folder.removal,
        )
        return RunnerDriver(
            core,
            site.engine,
            self.replica,
            self.catalog,
            self.clock,
            request_id=self.request_id,
            unseal=self.registry.open,
            notice=lambda kind, subject, text: LOG.info("%s %s: %s", kind, subject, text),
            memory=memory,
        )

    def make_backups(self) -> Backups:
        """What it keeps of its catalog for people."""
        folder, generation = self.site.folder, self.cluster.recovery_generation
        place = KeptSnapshots(folder.path)
        return Backups(self.catalog, self.replica, self.clock, place, node_name=folder.name, generation=generation)

    def make_rejoining(self) -> Rejoining:
        """The way back after a rotation or a recovery that it missed."""
        return Rejoining(
            self.site.folder.node_id, self.cluster.cluster_id, self.cluster.recovery_generation, self.keys, self.streams,
            self.site.port, self.admitted.nodes, self.keys.replace, leader=self.replica, removal=self.removal,
            recovery=self.recovery)  # fmt: skip

    def make_whereabouts(self, desk: Desk) -> Whereabouts:
        """Where everybody is."""
        return Whereabouts(
            desk, self.site.port, self.site.config.peers, admitted=self.admitted, streams=self.streams,
            gossip=self.gossip, suspect_twin=self.twins.suspect, on_found=self.tell_streams, rng=self.rng)  # fmt: skip

    def make_recovery(self) -> Recovery:
        """Its way into another recovery generation."""
        return Recovery(
            self.replica, self.streams, self.keys, generation=self.cluster.recovery_generation,
            store_generation=self.site.stored.store_generation, members=self.admitted.nodes, rng=self.rng,
            restart=lambda: self.stopping.request("again"), is_leaving=lambda: self.stopping.is_leaving,
            keep_state=lambda: self.backups.keep_replaced(), refuse=lambda: self.removal.refuse_recovery())  # fmt: skip

    def make_face(self) -> Face:
        """The node as its API sees it."""
        return Face(
            catalog=self.catalog,
            replica=self.replica,
            gossip=self.gossip,
            round_trips=RoundTrips(self.gossip, self.streams, self.site.folder.node_id),
            clock=self.clock,
            logs=LogRelay(self_id=self.site.folder.node_id, source=self.log_source, peers=self.streams),
            engine_state=lambda: node_state(self.runner, self.replica),
            view=self.views.view,
            counters=lambda: counted(self),
            refusals=lambda: refusals(self), removed=lambda: self.removal.certain,
            keys=self.keys,
            registry=self.registry,
            queue=self.queue,
            past=self.past.ask,
            recovery=self.recovery,
            backups=self.backups,
            stop=self.stopping.request,
        )

    def quorum_in_sight(self) -> bool:
        """Whether there may be a leader soon, as far as gossip sees."""
        return self.gossip.most_could_store(NodeId(voter.node_id) for voter in self.replica.configuration.voters)

    def request_id(self) -> RequestId:
        """A fresh one."""
        return RequestId(random_id(self.rng))

    async def admit(self, node: Node) -> tuple[Node, ...]:
        """Somebody at the desk holds the token and asks to be a member: the log decides."""
        self.removal.refuse_admission(self.site.folder.name)
        if reason := self.admitted.too_old(node):
            raise Conflict(f"cannot admit {node.name}", cause=reason, hint=f"{UPGRADE} its host")
        await self.replica.submit(Admit(node), request_id=self.request_id())
        LOG.info("admitted %s at %s", node.name, node.address)
        return tuple(self.catalog.nodes.values())

    async def rejoin(self) -> None:
        """Ask the members to admit this node again: it had left. Bounded; a refusal is said and tried again later."""
        others = [node.address for node in self.cluster.nodes if node.id != self.site.facts.id]
        if others:
            await join_again(self.site.port, others, self.site.facts, self.cluster.cluster_id, rng=self.rng)

    # ---- what one part tells another ----------------------------------------------------------------------------------------

    def tell_admitted(self, nodes: dict[NodeId, Node]) -> None:
        """The log's nodes changed: gossip, streams and the data folder follow."""
        self.gossip.set_admitted({node_id: (node.name, node.address) for node_id, node in nodes.items()})
        self.tell_streams()
        self.to_save = tuple(nodes[node_id] for node_id in sorted(nodes))
        self.save_wanted.set()
        self.declaring.wake()
        self.removal.read_in_log(self.site.folder.node_id in self.catalog.removed_nodes)

    def tell_streams(self) -> None:
        """Whom to dial where. One that moved can tell the log only then."""
        self.streams.set_members(self.whereabouts.addresses())

    def on_stream(self, node_id: NodeId, connected: bool) -> None:
        """A connection is evidence for gossip, and the way to ask where the other's packets stand."""
        self.proofs.on_stream(node_id, connected)
        self.gossip.observe_stream(node_id, connected)

    def on_member(self, change: MemberChanged) -> None:
        """Gossip changed its mind about somebody, or speaks for this node in another way."""
        new = change.new
        if new.generation > self.site.folder.generation and new.node_id == self.site.folder.node_id:
            self.save_wanted.set()
        LOG.info("%s is %s: %s", new.name, new.status.value, change.evidence or new.evidence)
        if change.old is not None and change.old.address != new.address:
            self.tell_streams()
        self.streams.wake(new.node_id)
        self.duties.wake()

    def on_role(self, change: RoleChanged) -> None:
        """Consensus changed role, term or leader."""
        LOG.info("term %d: %s, leader %s", change.term, change.role.value, self.name_of(NodeId(change.leader_id)))
        if change.role is Role.LEADER:
            self.duties.wake()

    def name_of(self, node_id: NodeId) -> str:
        """For logs."""
        node = self.admitted.find(node_id)
        return node.name if node is not None else str(node_id) or "unknown"

    # ---- running ------------------------------------------------------------------------------------------------------------

    async def run(self, nursery: trio.Nursery) -> None:
        """Start every part in order, then wait to be told to stop, and go."""
        site = self.site
        door = await self.keys.open_door()
        site.port.handle(PROTOCOL_REJOIN, self.rejoin_desk.accept)
        site.port.handle(PROTOCOL_PEER, self.streams.accept)
        self.tell_admitted(self.admitted.nodes())
        await nursery.start(self.streams.run)
        await nursery.start(self.proofs.run)
        await nursery.start(self.replica.run)
        await nursery.start(self.past.run)
        await nursery.start(self.gossip.run)
        await self.replica.wait_restored(site.let_go_of_stored())  # until then the catalog is empty, and no answer to anything
        await nursery.start(self.runner.run)
        await nursery.start(self.sampler.run)
        await nursery.start(self.log_source.run)
        await nursery.start(self.duties.run)
        await nursery.start(self.twins.run)
        await nursery.start(self.recovery.run)
        await nursery.start(self.backups.run)
        await nursery.start(self.declaring.run)
        await nursery.start(self.key_follower.run)
        nursery.start_soon(self.rejoining.run)
        nursery.start_soon(self.whereabouts.run)
        await nursery.start(self.queue.run)
        listeners = ApiListeners(site.config.socket, parse_address(site.config.api_listen), door.context)
        await nursery.start(Server(self.api, listeners).run)
        nursery.start_soon(self.save_members)
        nursery.start_soon(keep_engine_learned, site, self.declaring.wake)
        nursery.start_soon(self.watch_signals)
        where = f"node {site.folder.node_id} at {site.facts.address}"
        LOG.info("%s is up: %s, cluster %s", site.folder.name, where, self.cluster.cluster_id)
        await self.stopping.wanted.wait()
        await self.go(nursery)

    async def go(self, nursery: trio.Nursery) -> None:
        """Pause or leave; a signal ends a long leave too."""
        self.ended = await self.stopping.carry_out(self.departure)
        self.api.stop.set()
        await trio.sleep(API_GOODBYE_S)
        nursery.cancel_scope.cancel()

    async def save_members(self) -> None:
        """Keep in the data folder who the members are, so that a cluster whose hosts all rebooted finds itself again."""
        while True:
            await self.save_wanted.wait()
            self.save_wanted = trio.Event()
            me = self.gossip.members()[self.site.folder.node_id]
            nodes = self.to_save
            with suppress(Unavailable):  # said there; the next change writes it again
                await self.keys.save_generation(me.generation)
                if nodes and nodes != (self.site.folder.cluster or self.cluster).nodes:
                    await self.keys.save_nodes(nodes)

    async def watch_signals(self) -> None:
        """The first SIGTERM or SIGINT announces a pause; a second one ends at once."""
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for _ in signals:
                if self.stopping.wanted.is_set():
                    raise KeyboardInterrupt
                self.stopping.request("pause")
