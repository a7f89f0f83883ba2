"""The follower's half of replication: appends, heartbeats, snapshots (Raft, sections 5.3 and 7).

Pure: no I/O, no clock, no randomness of its own. Learners do the same as voters; that they do not count is the leader's business.

Promises kept here: an append is acknowledged only when it is on disk; entries are taken only where the logs meet; what is
committed is never overwritten; a heartbeat's commit index is believed only where the entry there has the leader's term.
"""

from __future__ import annotations

from swarm.consensus import streaming
from swarm.consensus.effects import RestoreSnapshot
from swarm.consensus.messages import Append, AppendReply, Heartbeat, HeartbeatReply, Message, Vote, VoteReply
from swarm.consensus.state import State
from swarm.model.entry import SnapshotMeta
from swarm.model.ids import NodeId
from swarm.ports import SnapshotData


def on_append(state: State, source: NodeId, message: Append) -> None:
    """AppendEntries. Configurations in it are in force at once."""
    state.hear_leader(source)
    state.freshness.arrived(message.commit, state.now)
    log = state.log
    last = message.previous_index + len(message.entries)
    if message.previous_index >= log.offset and not log.matches(message.previous_index, message.previous_term):
        hint = log.conflict_hint(message.previous_index - 1, floor=state.commit_index)
        state.send(source, AppendReply(*state.header(), False, hint))
        return
    if last > state.commit_index:
        state.take(message.entries)
        state.commit(max(state.commit_index, min(message.commit, last)))
        state.release(source, AppendReply(*state.header(), True, last))
    else:
        state.release(source, AppendReply(*state.header(), True, state.commit_index))


def on_heartbeat(state: State, source: NodeId, message: Heartbeat) -> None:
    """Promise, take the commit index, follow the leader's word on whom to take entries from, answer at once."""
    state.hear_leader(source)
    state.freshness.arrived(max(message.commit, message.leader_commit), state.now)
    log = state.log
    if message.commit > state.commit_index and log.matches(message.commit, message.commit_term):
        state.commit(message.commit)
    streaming.follow_offer(state, source, message)
    if message.round:
        state.send(source, heartbeat_reply(state, message.round))


def heartbeat_reply(state: State, number: int) -> HeartbeatReply:
    """The answer to a round, or to a leader whose term is over (round 0)."""
    log = state.log
    disk_age_ms = int(state.writes.disk_age_s(state.now) * 1000)
    return HeartbeatReply(
        *state.header(), number, log.last_index, log.last_term, state.applied_index, disk_age_ms, state.disk_full,
        True, state.stream.taking.source if state.stream.taking else NodeId(""),
    )  # fmt: skip


def answer_earlier_term(state: State, source: NodeId, message: Message) -> None:
    """Tell a leader or candidate of an earlier term that its term is over; everything else is dropped."""
    if isinstance(message, Append | Heartbeat):
        state.send(source, heartbeat_reply(state, 0))
    elif isinstance(message, Vote):
        state.send(source, VoteReply(*state.header(), False))


def on_snapshot(state: State, source: NodeId, meta: SnapshotMeta, data: SnapshotData) -> None:
    """A whole snapshot arrived. What it says is committed, whoever sent it; an older one than what is committed is ignored."""
    log = state.log
    if meta.recovery_generation != state.recovery_generation:
        return
    if meta.index > state.commit_index:
        state.commit_index = state.handed_index = state.applied_index = meta.index
        if log.matches(meta.index, meta.term):
            log.compact(meta, data, trailing=0)
            state.writes.save_snapshot(meta, data, discard=False)
        else:
            log.reset(meta, data)
            state.writes.save_snapshot(meta, data, discard=True)
        state.outbox.emit(RestoreSnapshot(meta, data))
    state.release(source, AppendReply(*state.header(), True, state.commit_index))
