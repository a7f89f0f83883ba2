"""The replica: feeds the consensus core, carries out its effects, and is where the rest of the node proposes and asks.

One loop drains messages, ticks, and carries effects out in order; a second task writes queued batches to the store, all that wait
in one sync; a third applies committed entries. Inputs of other tasks (a proposal, a finished write) go to the core at once and
wake the loop, so that what was proposed in one turn is written and sent together. Heartbeats and their answers, most of what an
idle cluster says, are fed and answered where they arrive, unless others wait before them: that saves a turn of the loop each.

Promises kept here: a process that stood still for more than 500 ms beyond its sleep tells the core before anything else; a failed
write ends the task (and with it the node), never goes on; a proposal ends as a result, as `Unavailable` when it was certainly not
carried out, or as `UnknownOutcome`; a request forwarded twice carries the same request id.
"""

from __future__ import annotations

import math
import random
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Any, assert_never

import trio

from swarm.consensus.config import ConsensusConfig
from swarm.consensus.core import Consensus, Proposed
from swarm.consensus.effects import (
    Apply,
    Effect,
    Persist,
    ProposalLost,
    RestoreSnapshot,
    Role,
    RoleChanged,
    Send,
    SendSnapshot,
)
from swarm.consensus.messages import Heartbeat, HeartbeatReply, Message, decode_message_untrusted, encode_message
from swarm.drivers.named import named_nodes
from swarm.drivers.replica_apply import Applier, Changes
from swarm.drivers.replica_disk import ReplicaDisk, full_text
from swarm.drivers.replica_forward import Forwarding, pack_command, unless_rejected
from swarm.drivers.replica_making import Machine, SnapshotMaker
from swarm.drivers.replica_snapshots import CALL as SNAPSHOT_CALL
from swarm.drivers.replica_snapshots import SnapshotReceiver, SnapshotSender
from swarm.errors import BadMessage, DiskFull, HeldBack, Unavailable
from swarm.model.entry import Configuration, SnapshotMeta, Voter
from swarm.model.ids import NodeId, RequestId
from swarm.model.outcome import Applied
from swarm.model.view import FollowerView
from swarm.ports import Clock, Peers, SnapshotData, Store, Stored

KIND = "consensus"
SLEEP_MAX_S = 1.0
STALL_S = 0.5
DRAIN_MAX = 256
INBOX_MAX = 8192
NO_REQUEST = RequestId("")


class Replica:
    """One node's replica of the log. `run` is its life; everything else may be called while it runs."""

    def __init__(
        self,
        *,
        me: Voter,
        recovery_generation: int,
        config: ConsensusConfig,
        rng: random.Random,
        stored: Stored,
        store: Store,
        catalog: Machine,
        peers: Peers,
        clock: Clock,
        learners: Callable[[], tuple[Voter, ...]] = tuple,
        on_role: Callable[[RoleChanged], None] | None = None,
        quorum_in_sight: Callable[[], bool] = lambda: False,
        held_back: Callable[[str, int, bytes], str] = lambda kind, version, payload: "",
        name_of: Callable[[NodeId], str] = str,
        is_dead: Callable[[NodeId], bool] = lambda node_id: False,
    ) -> None:
        """`held_back` says why a packed command may not be written yet (members that do not know its kind). `learners` gives
        every admitted node (voters may be among them) from the catalog; it is asked after entries about nodes. `on_role`
        is told of every change of role, term or known leader. `quorum_in_sight`: whether so many voters are there, as far as
        gossip sees, that a leader may soon be elected. `name_of` gives a node's name for people. `is_dead`: in gossip's eyes;
        nothing is asked of such a node, since nobody could say what became of it."""
        self._clock, self._peers, self._learners = clock, peers, learners
        self._on_role, self._held_back = on_role, held_back
        self._core = Consensus(
            me=me, recovery_generation=recovery_generation, config=config, rng=rng, stored=stored, now=clock.now()
        )
        self._maker = SnapshotMaker(self._core, catalog, clock, store, every=config.snapshot_every, wake=self._wake_up)
        self._applier = Applier(self._core, catalog, clock, store, self._maker, self._wake_up)
        self._applier.subscribe(self._maybe_set_learners)
        self._applier.subscribe(self._deliver_assignments)
        self.disk = ReplicaDisk(self._core, store, clock, self.now, self._wake_up)
        self._forwarding = Forwarding(
            self, peers, clock, quorum_in_sight,
            others=lambda: [NodeId(each.node_id) for each in learners()], name_of=name_of,
            is_full=lambda: self.disk.room.full, is_dead=is_dead,
        )  # fmt: skip
        self._inbox: deque[tuple[NodeId, Message]] = deque()
        self._wake = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._due = clock.now()
        """When the loop should be awake again at the latest; beyond it by STALL_S the process stood still."""
        self.counters: Counter[str] = Counter()
        self.last_leader: tuple[NodeId, int] | None = None
        """Who was last known to lead, and in which term."""
        self._snapshots_out = SnapshotSender(peers, store, self._on_snapshot_sent)
        snapshots_in = SnapshotReceiver(
            store, wanted=self._core.wants_snapshot, arrived=self._on_snapshot, make_sure_of_room=self.disk.make_sure_of_room
        )
        peers.on_message(KIND, self._on_message)
        peers.on_call(SNAPSHOT_CALL, snapshots_in.on_chunk)
        self._forwarding.register()

    # ---- what it knows

    @property
    def core(self) -> Consensus:
        """For reading only."""
        return self._core

    @property
    def node_id(self) -> NodeId:
        return NodeId(self._core.me.node_id)

    @property
    def role(self) -> Role:
        return self._core.role

    @property
    def term(self) -> int:
        return self._core.term

    @property
    def leader_id(self) -> NodeId:
        """A hint; empty when none is known."""
        return self._core.leader_id

    @property
    def leader_contact_age_s(self) -> float:
        """Seconds since a leader was heard; infinite when never."""
        return max(0.0, self._clock.now() - self._core.leader_contact)

    @property
    def current_at(self) -> float:
        """When the catalog last had all that leaders had named as committed (`consensus.freshness`); -inf when never."""
        return self._core.freshness.at

    @property
    def commit_index(self) -> int:
        return self._core.commit_index

    @property
    def last_index(self) -> int:
        return self._core.last_index

    @property
    def applied_index(self) -> int:
        """What the catalog has."""
        return self._applier.applied_index

    @property
    def has_caught_up(self) -> bool:
        """Whether the catalog has had, at some moment of this life of the daemon, all that its leader knew to be committed."""
        return self.applied_index > 0 and math.isfinite(self.current_at)

    @property
    def configuration(self) -> Configuration:
        return self._core.configuration

    @property
    def is_making_snapshot(self) -> bool:
        """Whether a snapshot of the catalog is in the making here."""
        return self._maker.is_making

    @property
    def halted(self) -> str:
        """Why applying stopped (an entry of a newer program); empty while it goes on."""
        return self._applier.halted

    @property
    def may_act(self) -> bool:
        """Leader, inside its lease, everything before its term applied. Ask right before each side effect."""
        return self._core.may_act(self.now())

    @property
    def lease_valid(self) -> bool:
        return self._core.lease_valid(self.now())

    def followers(self) -> Mapping[NodeId, FollowerView]:
        """A leader's knowledge of the others."""
        return self._core.followers()

    def unheard_voters(self, longer_than_s: float) -> tuple[NodeId, ...]:
        """Voters that the leader has not heard for so long; of others than itself only a leader knows."""
        voters = [NodeId(voter.node_id) for voter in self.configuration.voters]
        if self.role is not Role.LEADER:
            return (self.node_id,) if self.node_id in voters and self.leader_contact_age_s > longer_than_s else ()
        heard = {node_id: view.last_contact for node_id, view in self.followers().items()}
        known = [voter for voter in voters if voter != self.node_id]
        return tuple(voter for voter in known if self.now() - heard.get(voter, -math.inf) > longer_than_s)

    def subscribe(self, callback: Callable[[Changes], None]) -> None:
        """Call back with results after every slice of applied entries. Synchronous; must not raise."""
        self._applier.subscribe(callback)

    async def wait_applied(self, index: int) -> None:
        """Return when the catalog here has everything up to `index`. May wait for ever: callers bound it."""
        await self._applier.wait_applied(index)

    async def wait_restored(self, index: int) -> None:
        """Return when the catalog has become the snapshot at `index` that the store held, or applying has stopped for good."""
        await self._applier.wait_restored(index)

    # ---- asking for something

    async def propose(
        self, command: Any, *, request_id: RequestId = NO_REQUEST, timeout_s: float = 10.0, term: int | None = None
    ) -> Applied:
        """Have a command committed and applied, if this node leads (in `term`, when given: a plan made as leader of one term is
        not proposed in another). Raises the rejection's error, `Unavailable` or `Overloaded` (both: not carried out), or
        `UnknownOutcome`."""
        if term is not None and term != self._core.term:
            raise Unavailable(f"cannot propose: what was planned in term {term} is not proposed in term {self._core.term}")
        proposed = self.propose_packed(*pack_command(command), request_id)
        return unless_rejected(await self._applier.result_of(proposed, timeout_s))

    def propose_packed(self, kind: str, version: int, payload: bytes, request_id: RequestId) -> Proposed:
        """Append a packed command to the log, if this node leads. Raises `Unavailable`, `Overloaded` or `HeldBack`."""
        if self.halted:
            raise Unavailable(f"cannot propose: {self.halted}", hint="upgrade this node")
        self.check_known(kind, version, payload)
        now = self.now()
        try:
            proposed = self._core.propose(kind, version, payload, request_id, now, self._clock.utc())
        except DiskFull as error:
            error.cause = error.cause or full_text(self.disk.room)
            raise
        self._wake_up()
        return proposed

    def check_known(self, kind: str, version: int, payload: bytes) -> None:
        """Raises `HeldBack` while a member does not know such an entry. Also asked before it is sent to a leader: one of an older
        program would write what it cannot apply."""
        if reason := self._held_back(kind, version, payload):
            raise HeldBack(f"cannot write {kind} into the log", cause=reason, hint="upgrade swarm on them first")

    async def result_of(self, proposed: Proposed, timeout_s: float) -> Applied:
        """Wait until that entry is applied here. Raises the rejection's error, `Unavailable` (overwritten), `UnknownOutcome`."""
        return unless_rejected(await self.applied_by(proposed, timeout_s))

    async def applied_by(self, proposed: Proposed, timeout_s: float) -> Applied:
        """As `result_of`, but a rejection is a result like another."""
        return await self._applier.result_of(proposed, timeout_s)

    async def submit(self, command: Any, *, request_id: RequestId, timeout_s: float = 10.0) -> Applied:
        """Have a command committed, and applied here, whoever leads; retried under the same request id. Raises as `propose`."""
        return await self._forwarding.submit(command, request_id, timeout_s)

    async def read_barrier(self, timeout_s: float = 3.0) -> int:
        """The commit index that a leader inside its lease named after this call began. Raises `Unavailable`."""
        return await self._forwarding.read_barrier(timeout_s)

    async def propose_configuration(self, voters: tuple[Voter, ...], timeout_s: float = 10.0) -> None:
        """Begin a change of the voters and wait for its first step. Raises `Unavailable`, `UnknownOutcome`."""
        proposed = self._core.propose_configuration(voters, self.now(), self._clock.utc())
        self._wake_up()
        await self._applier.result_of(proposed, timeout_s)

    def transfer_leadership(self, to: NodeId) -> None:
        """Hand over to a voter. Raises `Unavailable`."""
        self._core.transfer_leadership(to, self.now())
        self._wake_up()

    def step_down(self) -> None:
        """Stop leading."""
        self._core.step_down(self.now())
        self._wake_up()

    # ---- running

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled. Raises `StoreFailure` when the disk refuses, `Bug` (or what else it was) when the core's
        invariants broke, whichever input met it."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._applier.run)
            nursery.start_soon(self._maker.run)
            nursery.start_soon(self.disk.run)
            task_status.started()
            self._nursery = nursery
            try:
                await self._loop()
            finally:
                self._nursery = None

    def now(self) -> float:
        """The time, after telling the core of a stall if there was one."""
        now = self._clock.now()
        gap_s = now - self._due
        if gap_s > STALL_S:
            self._due = now
            self.counters["stalls"] += 1
            self._core.on_stall(gap_s, now)
        return now

    def _wake_up(self) -> None:
        self._wake.set()

    async def _loop(self) -> None:
        self._due = self._clock.now()
        while True:
            now = self.now()
            self._core.tick(now)
            for _ in range(min(DRAIN_MAX, len(self._inbox))):
                source, message = self._inbox.popleft()
                self._feed(source, message, now)
            self._carry_out_all()
            now = self._clock.now()
            self._due = now if self._inbox else min(now + SLEEP_MAX_S, max(now, self._core.next_deadline))
            with trio.move_on_after(self._due - now):
                await self._wake.wait()
            self._wake = trio.Event()

    def _feed(self, source: NodeId, message: Message, now: float) -> None:
        try:
            self._core.on_message(source, message, now)
        except BadMessage:
            self.counters["bad_message"] += 1

    def _carry_out_all(self) -> None:
        assert self._nursery is not None
        for effect in self._core.take_effects():
            self._carry_out(effect, self._nursery)

    def _carry_out(self, effect: Effect, nursery: trio.Nursery) -> None:
        match effect:
            case Send():
                if not self._peers.send(effect.to, KIND, encode_message(effect.message)):
                    self.counters["sends_dropped"] += 1
            case Persist():
                self.disk.queue(effect.batch)
            case Apply() | RestoreSnapshot():
                self._applier.give(effect)
            case SendSnapshot():
                snapshot = self._core.snapshot
                if snapshot is not None:
                    nursery.start_soon(self._snapshots_out.send, effect.to, *snapshot)
            case RoleChanged():
                self._forwarding.on_role()
                self.last_leader = (effect.leader_id, effect.term) if effect.leader_id else self.last_leader
                if effect.role is Role.LEADER:
                    self._core.set_learners(self._learners(), self._clock.now())
                if self._on_role is not None:
                    self._on_role(effect)
            case ProposalLost():
                self._applier.lost(effect.index, effect.term)
            case _:
                assert_never(effect)

    # ---- inputs from peers and the catalog

    def _on_message(self, source: NodeId, payload: bytes) -> None:
        """Raises `BadMessage`. With a full inbox the message is dropped: consensus takes losses."""
        message = decode_message_untrusted(payload)
        if isinstance(message, HeartbeatReply):
            self._snapshots_out.heard(source, full=message.disk_full)
        if isinstance(message, Heartbeat | HeartbeatReply) and not self._inbox and self._nursery is not None:
            self._feed(source, message, self.now())
            self._carry_out_all()
            if self._core.next_deadline < self._due:
                self._wake_up()
            return
        if len(self._inbox) >= INBOX_MAX:
            self.counters["inbox_full"] += 1
            return
        self._inbox.append((source, message))
        self._wake_up()

    def _on_snapshot(self, source: NodeId, meta: SnapshotMeta, data: SnapshotData) -> None:
        self._core.on_snapshot(source, meta, data, self.now())
        self._wake_up()

    def _on_snapshot_sent(self, to: NodeId, arrived: bool) -> None:
        self._core.on_snapshot_sent(to, arrived=arrived, now=self._clock.now())
        self._wake_up()

    def _maybe_set_learners(self, changes: Changes) -> None:
        if changes.restored or any(entry.kind == "found" or entry.kind.startswith("node.") for entry in changes.entries):
            self._core.set_learners(self._learners(), self._clock.now())

    def _deliver_assignments(self, changes: Changes) -> None:
        if self.role is Role.LEADER and (named := named_nodes(changes.entries, changes.applied)):
            self._core.deliver(named, self._clock.now())
            self._wake_up()


__all__ = ["Changes", "Machine", "Replica"]
