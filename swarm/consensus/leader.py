"""One term of leadership: the no-op, proposals, rounds and lease, commit, hand-over (Raft, sections 5.4.2, 6, 8).

Pure: no I/O, no clock, no randomness of its own. Made when an election is won and thrown away when the term is over, so nothing
of one term leaks into the next.

Promises kept here:
- Only entries of this term are counted; those before follow (figure 8). The leader counts itself only for what is on its disk.
- The lease runs from the send time of the newest round that a majority of every configuration in force answered. It is given up
  for good by a hand-over, a step-down, or a disk that stalls.
- With a full disk nothing is proposed, and somebody whose disk has room is made leader.
- Below three voters commit waits for the learners that are there.
- One configuration change at a time, none before this term has committed.
"""

from __future__ import annotations

from swarm.consensus.backlog import Backlog
from swarm.consensus.lease import Rounds
from swarm.consensus.messages import AppendReply, HeartbeatReply, TimeoutNow
from swarm.consensus.progress import Progress
from swarm.consensus.quorum import is_small, is_voter, quorum_value, voters_of
from swarm.consensus.replication import Replication
from swarm.consensus.state import State
from swarm.errors import DiskFull, Overloaded, Unavailable, UsageError
from swarm.machine import NEVER
from swarm.model.command import Noop
from swarm.model.entry import KIND_CONFIGURATION, KIND_FOUND, KIND_NOOP, Configuration, Entry, Voter
from swarm.model.ids import NodeId, RequestId
from swarm.wire.codec import encode
from swarm.wire.limits import PAYLOAD_BYTES_MAX

FREE_SPACE = "free space there: entries are taken again as soon as there is room"


class Leadership:
    """What a leader has that nobody else has. `over` becomes true when it must step down."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.since = state.now
        self.over = ""
        """Why this leadership must end; empty while it may go on."""
        self.is_given_up = False
        """The lease was given up for good; nothing renews it."""
        self.replication = Replication(state)
        self.backlog = Backlog(state.config)
        self._rounds = Rounds(state.config)
        self._voters_due = state.now
        self._learners_due = state.now
        self._quorum_base = state.now
        """Check-quorum counts from here while no round was answered."""
        self._transfer: tuple[NodeId, float] | None = None
        self.noop_index = state.log.last_index + 1
        self.append(KIND_NOOP, 1, encode(Noop()), RequestId(""), state.log.last_time_utc)

    # ---- the log

    def propose(self, kind: str, version: int, payload: bytes, request_id: RequestId, now_utc: float) -> Entry:
        """Append what somebody asked for. Configurations are written by consensus alone: it checks that they follow each other.
        Raises `UsageError`, `Overloaded` or as `append`, having done nothing."""
        if kind in (KIND_FOUND, KIND_CONFIGURATION):
            raise UsageError(f"cannot propose {kind}: only consensus itself writes it")
        if len(payload) > PAYLOAD_BYTES_MAX:
            raise UsageError(f"cannot propose {kind}: {len(payload)} bytes, at most {PAYLOAD_BYTES_MAX} fit into an entry")
        state = self._state
        if full := self.backlog.refusal(kind, applied_index=state.applied_index, last_index=state.log.last_index):
            raise Overloaded(f"cannot propose {kind}: {full}", hint="try again in a second")
        return self.append(kind, version, payload, request_id, now_utc)

    def append(self, kind: str, version: int, payload: bytes, request_id: RequestId, now_utc: float) -> Entry:
        """Add one entry of this term. Its wall time is never below that of the entry before. Raises `DiskFull` or `Unavailable`,
        having done nothing, but for what consensus itself needs: that goes into the reserve."""
        state = self._state
        if kind not in (KIND_NOOP, KIND_CONFIGURATION):
            self._check_room(kind)
        time_utc = max(now_utc, state.log.last_time_utc)
        index = state.log.last_index + 1
        entry = Entry(index, state.term, kind, version, payload, state.recovery_generation, time_utc, request_id)
        state.log.append((entry,))
        self.backlog.add(index, len(payload))
        if kind == KIND_CONFIGURATION:
            self.refresh_followers()
        return entry

    def _check_room(self, kind: str) -> None:
        """Refuse early what could not be kept. Raises `Unavailable` while somebody with room is about to take over."""
        state = self._state
        if state.disk_full and self._relief() is not None:
            raise Unavailable(f"cannot propose {kind}: the leader's disk is full; it hands over", hint="try again in a second")
        self.replication.follow_room()
        if state.disk_full:
            raise DiskFull(f"cannot propose {kind}: the disk of the leader, {state.node_id}, is full", hint=FREE_SPACE)
        if self.replication.starved:
            full = [node_id for node_id, progress in self.replication.followers.items() if progress.disk_full]
            cause = f"the disk is full on {', '.join(full)}"
            raise DiskFull(f"cannot propose {kind}: no majority of the voters has room on its disk", cause=cause, hint=FREE_SPACE)

    def _relief(self) -> NodeId | None:
        """Whom a leader with a full disk hands over to: the voter in contact that is furthest of those with room."""
        state, config = self._state, self._state.config
        fit = [
            progress
            for progress in self.replication.followers.values()
            if is_voter(state.log.configuration, Voter(progress.node_id, progress.generation))
            and not progress.disk_full
            and progress.disk_age_s <= config.disk_stall_s
            and state.now - progress.last_contact <= config.quorum_lost_s
        ]
        return max(fit, key=lambda progress: progress.match).node_id if fit else None

    def refresh_followers(self) -> None:
        """Configuration or learners changed: greet the new ones at once, since a lease may now need their answers."""
        self.replication.refresh_followers()
        self._voters_due = self._learners_due = self._state.now

    def maybe_commit(self) -> bool:
        """Commit what a majority of every set has on disk (and the learners that are there, below three voters)."""
        state = self._state
        index = int(max(0, quorum_value(state.log.configuration, self.replication.match_of)))
        if is_small(state.log.configuration):
            index = min([index, *(progress.match for progress in self._witnessing_learners())])
        if state.log.term_at(index) != state.term or not state.commit(index):
            return False
        self._maybe_finish_change()
        return True

    def _witnessing_learners(self) -> list[Progress]:
        """The learners whose disk a small cluster waits for: the most advanced few that answered lately and have caught up."""
        config, now = self._state.config, self._state.now
        voters = {voter.node_id for voter in voters_of(self._state.log.configuration)}
        there = [
            progress
            for progress in self.replication.followers.values()
            if progress.node_id not in voters
            and progress.caught_up
            and now - progress.last_contact <= config.learner_ack_within_s
            and progress.disk_age_s <= config.disk_stall_s
            and not progress.disk_full
        ]
        return sorted(there, key=lambda progress: (-progress.match, progress.node_id))[: config.learner_ack_count]

    # ---- configuration

    def is_change_pending(self) -> bool:
        """Whether the configuration in force is joint or not committed yet."""
        log = self._state.log
        return bool(log.configuration.outgoing) or log.configuration_index > self._state.commit_index

    def propose_configuration(self, voters: tuple[Voter, ...], now_utc: float) -> Entry:
        """Start a joint change (section 6). Raises `Unavailable`, changing nothing, when one is pending, when this term has not
        committed, or when no majority of the new set is in contact and has some of the log: who has none votes for nobody."""
        state = self._state
        if self.is_change_pending() or state.commit_index < self.noop_index:
            raise Unavailable("cannot change the voters: an earlier change or this leader's own term is not committed yet")
        target = Configuration(tuple(sorted(voters, key=lambda voter: voter.node_id)))
        if not voters or len({voter.node_id for voter in voters}) != len(voters):
            raise Unavailable("cannot change the voters: the new set is empty or names a node twice")
        reached = quorum_value(target, self._contact_of)
        if state.now - reached > state.config.quorum_lost_s + state.config.learner_heartbeat_s:
            raise Unavailable("cannot change the voters: no majority of the new set is in contact and has some of the log")
        joint = Configuration(target.voters, state.log.configuration.voters)
        return self.append(KIND_CONFIGURATION, 1, encode(joint), RequestId(""), now_utc)

    def _contact_of(self, voter: Voter) -> float:
        if voter == self._state.me:
            return self._state.now
        progress = self.replication.followers.get(NodeId(voter.node_id))
        if progress is None or progress.generation != voter.store_generation:
            return float("-inf")
        has_log = progress.match > 0 or is_voter(self._state.log.configuration, voter)
        return progress.last_contact if has_log else float("-inf")

    def _maybe_finish_change(self) -> None:
        """A committed joint configuration is followed by the new one alone; a leader outside of a committed one goes."""
        state = self._state
        log = state.log
        if log.configuration_index > state.commit_index:
            return
        if log.configuration.outgoing:
            final = Configuration(log.configuration.voters)
            self.append(KIND_CONFIGURATION, 1, encode(final), RequestId(""), log.last_time_utc)
        elif not is_voter(log.configuration, state.me):
            self._leave_to_heir(log.configuration)

    def _leave_to_heir(self, configuration: Configuration) -> None:
        """Voted out: the voter with most of the log is told to campaign at once, so that nobody waits for a silent leader."""
        voters = [self.replication.followers.get(NodeId(voter.node_id)) for voter in configuration.voters]
        heirs = [each for each in voters if each is not None and is_voter(configuration, Voter(each.node_id, each.generation))]
        if heirs and not self.is_given_up:
            heir = max(heirs, key=lambda progress: (progress.match, progress.last_contact, progress.node_id))
            self.is_given_up = True
            self._state.send(heir.node_id, TimeoutNow(*self._state.header()))
        self.over = "this node is no voter any more"

    # ---- rounds and lease

    def _note_freshness(self) -> None:
        """What is committed in this term was everything when the newest round went out that a majority has answered."""
        if self._state.commit_index >= self.noop_index and self.lease_from() > float("-inf"):
            self._state.freshness.hear(self._state.commit_index, self.lease_from())

    def _answered_at(self, voter: Voter) -> float:
        if voter == self._state.me:
            return self._rounds.sent_at
        progress = self.replication.followers.get(NodeId(voter.node_id))
        return progress.answered_at if progress and progress.generation == voter.store_generation else float("-inf")

    def lease_from(self) -> float:
        """Send time of the newest round that a majority of every set answered; -inf before the first."""
        return quorum_value(self._state.log.configuration, self._answered_at)

    def is_lease_valid(self, now: float) -> bool:
        """Whether nobody else can act as leader at `now`."""
        state = self._state
        stalled = state.writes.disk_age_s(now) > state.config.disk_stall_s
        return not self.is_given_up and not self.over and not stalled and now < self.lease_from() + state.config.lease_s

    def on_stall(self) -> None:
        """The process stood still: ask whether this is still the leader before believing the clock."""
        self._quorum_base = self._state.now
        self._voters_due = self._state.now

    @property
    def next_deadline(self) -> float:
        transfer = self._transfer[1] if self._transfer else NEVER
        return min(self._voters_due, self._learners_due, transfer)

    def tick(self) -> None:
        """Rounds that are due; reasons to step down; what time alone changes about commit."""
        state = self._state
        if state.is_disk_stalled:
            self.over = f"the disk has completed no write for {state.writes.disk_age_s(state.now):.1f} s"
        elif state.now - max(self.lease_from(), self._quorum_base) > state.config.quorum_lost_s:
            self.over = "no majority answers"
        if self._transfer and state.now >= self._transfer[1]:
            self._transfer = None
        if self.over:
            return
        if state.disk_full and self._transfer is None and (relief := self._relief()) is not None:
            self.transfer(relief)
        if state.now >= min(self._voters_due, self._learners_due):
            self._begin_round()
        self.maybe_commit()

    def _begin_round(self) -> None:
        """One round to all voters, and to the learners whose second is over. The leader answers itself, and so promises."""
        state = self._state
        config = state.config
        self.replication.follow_room()
        self._note_freshness()
        number = self._rounds.begin(state.now)
        state.promise.extend(state.node_id, state.term, state.now)
        state.leader_contact = state.now
        with_learners = state.now >= self._learners_due or is_small(state.log.configuration)
        if with_learners:
            self.replication.plan_streams()
        voters = {voter.node_id for voter in voters_of(state.log.configuration)}
        for progress in self.replication.followers.values():
            if with_learners or progress.node_id in voters:
                state.send(progress.node_id, self.replication.heartbeat(progress, number))
        self._voters_due = state.now + config.heartbeat_s
        if with_learners:
            self._learners_due = state.now + config.learner_heartbeat_s

    # ---- answers

    def on_append_reply(self, source: NodeId, message: AppendReply) -> None:
        if self.replication.on_append_reply(source, message):
            self.maybe_commit()
        self._maybe_hand_over()

    def on_heartbeat_reply(self, source: NodeId, message: HeartbeatReply) -> None:
        """A voter whose disk stalls does not hold a lease up: nothing could be committed with it."""
        sent_at = self._rounds.sent(message.round)
        if sent_at is None:
            return
        progress = self.replication.on_heartbeat_reply(source, message, sent_at)
        if progress and progress.disk_age_s <= self._state.config.disk_stall_s:
            progress.answered_at = max(progress.answered_at, sent_at)

    # ---- hand-over

    @property
    def is_transferring(self) -> bool:
        return self._transfer is not None

    def transfer(self, to: NodeId) -> None:
        """Hand over to a voter once it has everything. Proposals are refused meanwhile, for at most D. Raises `Unavailable`."""
        state = self._state
        progress = self.replication.followers.get(to)
        if progress is None or not is_voter(state.log.configuration, Voter(to, progress.generation)):
            raise Unavailable(f"cannot hand over to {to}: it is no voter")
        self._transfer = (to, state.now + state.config.promise_s)
        self._maybe_hand_over()

    def _maybe_hand_over(self) -> None:
        if self._transfer is None or self.over:
            return
        to = self._transfer[0]
        progress = self.replication.followers.get(to)
        if progress is not None and progress.match == self._state.log.last_index:
            self.is_given_up = True
            self._state.send(to, TimeoutNow(*self._state.header()))
            self.over = f"handed over to {to}"
