"""Learners that take committed entries from a peer, so that a leader with many of them sends each entry to a few only.

Pure: no I/O, no clock, no randomness of its own. The leader names a source with each heartbeat (`relays`). The learner asks it
for what comes after its own commit index; the source answers when it has committed more, or at once with nothing when it cannot
serve. One pull is on its way at a time, so a slow learner slows nobody, and an idle cluster says nothing. Behind what the leader
says is committed, the learner asks again every 0.25 s, and after 1 s without progress it tells the leader to feed it itself.

Why what a peer sends may be believed. Both are in the same term T, else the message is dropped. What the peer committed by then
was committed in a term up to T, so it is in the log of T's leader and of every later one (Leader Completeness, section 5.4.3),
and of no earlier leader is anything read in T. So the taker may commit it, and may acknowledge it to T's leader once it is on
its own disk, as if it had come from there.

Promises kept here: nothing beyond the sender's commit index is sent or taken; a taker whose disk is slow asks for no more than a
window; entries are taken only where the logs meet; what a
peer sends is no sign of life of the leader, extends no promise and enters no term; a voter takes nothing; nobody serves who is
not nearer to the leader than the taker, at most `HOPS_MAX` hops deep.
"""

from __future__ import annotations

from swarm.consensus.messages import AppendReply, Heartbeat, Pull, Pulled
from swarm.consensus.state import State
from swarm.consensus.stream import HOPS_MAX, PARKED_MAX, Taking
from swarm.errors import BadMessage
from swarm.machine import NEVER
from swarm.model.entry import Entry
from swarm.model.ids import NodeId


def on_message(state: State, source: NodeId, message: Pull | Pulled) -> None:
    """Of this term or a later one; a later one is entered at the word of its leader only. Raises `BadMessage`."""
    if message.term != state.term:
        return
    if isinstance(message, Pull):
        on_pull(state, source, message)
    else:
        on_pulled(state, source, message)


# ---- taking


def follow_offer(state: State, leader_id: NodeId, message: Heartbeat) -> None:
    """Take from whom the leader names, or from nobody; tell it how far this node is. Another source does not make a node that is
    behind wait longer."""
    stream, taking = state.stream, state.stream.taking
    offered = message.source and message.source != state.node_id and 1 < message.hops <= HOPS_MAX
    if not offered or not may_take(state) or state.now < stream.back_until:
        stream.taking = None
        return
    was_behind = is_behind(state)
    stream.wanted_index = max(stream.wanted_index, message.commit)
    if taking is None or taking.source != message.source:
        progress_at = taking.progress_at if taking is not None and was_behind else state.now
        stream.taking = Taking(NodeId(message.source), message.hops, progress_at, state.now, state.commit_index)
        _ask(state, stream.taking)
    else:
        taking.hops = message.hops
        if is_behind(state) and not was_behind:
            taking.progress_at = state.now
    report(state, leader_id)


def may_take(state: State) -> bool:
    """A voter is fed by the leader, and a full disk wants nothing."""
    return not state.is_voter and not state.disk_full


def has_window(state: State) -> bool:
    """Whether no more than a window of entries waits for this node's disk."""
    return state.commit_index - state.writes.durable_index <= state.config.window_entries


def is_behind(state: State) -> bool:
    """Whether the leader has said that more is committed than is known to be here."""
    return state.commit_index < state.stream.wanted_index


def report(state: State, leader_id: NodeId) -> None:
    """Acknowledge to the leader what was committed here since the last time, once it is on disk."""
    taking = state.stream.taking
    if taking is not None and state.commit_index > taking.reported_index:
        taking.reported_index = state.commit_index
        state.release(leader_id, AppendReply(*state.header(), True, state.commit_index))


def _ask(state: State, taking: Taking) -> None:
    """From the commit index on: what comes before is equal everywhere, and what stands here beyond it may be contradicted."""
    index = state.commit_index
    term = state.log.term_at(index)
    assert term is not None, "the log holds what was committed last, or begins there"
    taking.asked_at, taking.asked_index = state.now, index
    state.send(taking.source, Pull(*state.header(), index, term, taking.hops))


def on_pulled(state: State, source: NodeId, message: Pulled) -> None:
    """An answer. Raises `BadMessage` before changing anything."""
    taking = state.stream.taking
    if taking is None or taking.source != source or not may_take(state):
        return
    if not message.entries:
        _back_to_leader(state)
        return
    entries = committed_part(message)
    if not entries:
        raise BadMessage(f"{source} gives entries after {message.previous_index} and has committed {message.commit}")
    last = message.previous_index + len(entries)
    if not meets(state, message):
        return
    if last > state.commit_index:
        state.take(entries)
        state.commit(last)
        taking.progress_at = state.now
        if state.commit_index - taking.reported_index >= state.config.stream_report_entries:
            report(state, state.leader_id)
    if state.commit_index > taking.asked_index and may_take(state) and has_window(state):
        _ask(state, taking)


def committed_part(message: Pulled) -> tuple[Entry, ...]:
    """What of it the sender says it has committed."""
    return message.entries[: max(0, message.commit - message.previous_index)]


def meets(state: State, message: Pulled) -> bool:
    """Whether its entries go on from what is here."""
    previous = message.previous_index
    return previous <= state.commit_index or state.log.matches(previous, message.previous_term)


def tick(state: State) -> None:
    """Behind: ask again, or go back to the leader."""
    taking = state.stream.taking
    if taking is None or not is_behind(state):
        return
    if state.now >= taking.progress_at + state.config.stream_patience_s:
        _back_to_leader(state)
    elif state.now >= taking.asked_at + state.config.stream_ask_again_s:
        taking.asked_at = state.now
        if has_window(state):
            _ask(state, taking)


def next_deadline(state: State) -> float:
    """When `tick` has something to do."""
    taking = state.stream.taking
    if taking is None or not is_behind(state):
        return NEVER
    return min(taking.progress_at + state.config.stream_patience_s, taking.asked_at + state.config.stream_ask_again_s)


def _back_to_leader(state: State) -> None:
    """A refusal says from where on: the leader sends at once, and names no source for a while."""
    state.stream.back_until = state.now + state.config.stream_patience_s
    state.stream.taking = None
    state.send(state.leader_id, AppendReply(*state.header(), False, state.commit_index))


# ---- serving


def on_pull(state: State, source: NodeId, message: Pull) -> None:
    """Somebody wants what comes after an index. Answered by `serve`, when there is something."""
    parked = state.stream.parked
    if source not in parked and len(parked) >= PARKED_MAX:
        _refuse(state, source, message)
        return
    parked[source] = message


def serve(state: State) -> None:
    """Answer the pulls that can be answered now. O(those that wait)."""
    parked = state.stream.parked
    if not parked:
        return
    for node_id, pull in list(parked.items()):
        if not can_serve(state, pull):
            del parked[node_id]
            _refuse(state, node_id, pull)
        elif servable_index(state) > pull.index:
            del parked[node_id]
            _answer(state, node_id, pull)


def can_serve(state: State, pull: Pull) -> bool:
    """Whether this node is nearer to the leader than whoever asks, and its log goes on from there."""
    if not state.stream.hops < pull.hops <= HOPS_MAX:
        return False
    return pull.index > state.commit_index or (pull.index >= state.log.offset and state.log.matches(pull.index, pull.index_term))


def servable_index(state: State) -> int:
    """Up to where entries may be given to others."""
    return state.commit_index


def _answer(state: State, node_id: NodeId, pull: Pull) -> None:
    limit, config = servable_index(state), state.config
    entries_max = min(config.append_entries_max, limit - pull.index)
    entries = state.log.batch(pull.index + 1, entries_max=entries_max, bytes_max=config.append_bytes_max)
    state.send(node_id, Pulled(*state.header(), pull.index, pull.index_term, entries, limit))


def _refuse(state: State, node_id: NodeId, pull: Pull) -> None:
    state.send(node_id, Pulled(*state.header(), pull.index, pull.index_term, (), 0))
