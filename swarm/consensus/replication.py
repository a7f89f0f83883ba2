"""The leader's half of replication: what to send to whom, and how far everybody is (Raft, section 5.3).

Pure: no I/O, no clock, no randomness of its own. Sending happens in `flush`, once per turn of the loop, so that entries proposed
together travel together. A lost append is noticed by the answer to a later heartbeat, whose last entry then is not
the one that was sent; a lost acknowledgement by an answer that shows entries nobody acknowledged: they are asked for once more,
with an append without entries, which is answered when they are on disk.

Promises kept here: a follower counts only for what it acknowledged under the store generation it has now; entries the log no
longer holds are replaced by a snapshot; nothing is sent without bound to a follower that does not answer; one with a full disk
gets entries only where nothing can be committed without it, and then nothing new is proposed (`starved`).
"""

from __future__ import annotations

from collections.abc import Iterable

from swarm.consensus.effects import SendSnapshot
from swarm.consensus.messages import Append, AppendReply, Heartbeat, HeartbeatReply
from swarm.consensus.progress import NEVER_HEARD, Progress, Way
from swarm.consensus.quorum import has_quorum, voters_of
from swarm.consensus.relays import Relays
from swarm.consensus.state import State
from swarm.model.entry import Voter
from swarm.model.ids import NodeId
from swarm.model.view import FollowerView


class Replication:
    """Progress of every follower, and the appends they need."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.followers: dict[NodeId, Progress] = {}
        self._flushed = (-1, -1)
        """Last and commit index at the last flush, while nothing else changed what anybody lacks."""
        self.starved = False
        """Some voters' disks are full, and those in contact that have room are no majority."""
        self.refresh_followers()

    def refresh_followers(self) -> None:
        """Follow the configuration and the learners: who is new is probed, who is gone is forgotten. Sorted by id."""
        state = self._state
        wanted: dict[NodeId, int] = {}
        for voter in (*state.learners, *voters_of(state.log.configuration)):
            node_id = NodeId(voter.node_id)
            if node_id != state.node_id:
                wanted[node_id] = max(voter.store_generation, wanted.get(node_id, 0))
        self.followers = {
            node_id: self.followers.get(node_id) or Progress(node_id, wanted[node_id], state.log.last_index)
            for node_id in sorted(wanted)
        }
        self._touch()

    def _touch(self) -> None:
        """Some progress changed in a way that `flush` decides by: it has to look again."""
        self._flushed = (-1, -1)

    def match_of(self, voter: Voter) -> int:
        """Up to where this voter, under this very generation, has the log on disk."""
        if voter == self._state.me:
            return self._state.writes.durable_index
        progress = self.followers.get(NodeId(voter.node_id))
        return progress.match if progress and progress.generation == voter.store_generation else 0

    def follow_room(self) -> None:
        """Who has room, and who is in contact, changes with time. O(voters)."""
        voters = voters_of(self._state.log.configuration)
        full = self._state.disk_full or any(progress.disk_full for progress in self.followers.values())
        starved = full and any(map(self._is_full, voters)) and not has_quorum(self._state.log.configuration, self._takes_entries)
        if starved != self.starved:
            self.starved = starved
            self._touch()

    def _is_full(self, voter: Voter) -> bool:
        progress = self.followers.get(NodeId(voter.node_id))
        return self._state.disk_full if voter == self._state.me else progress is not None and progress.disk_full

    def _takes_entries(self, voter: Voter) -> bool:
        state = self._state
        progress = self.followers.get(NodeId(voter.node_id))
        in_contact = progress is not None and state.now - progress.last_contact <= state.config.quorum_lost_s
        return (voter == state.me or in_contact) and not self._is_full(voter)

    # ---- sending

    def flush(self) -> None:
        """Send every follower what it lacks, within its window, and the commit index where nothing else carries it. O(followers),
        but O(1) while neither the log nor what is known of anybody changed: most answers to heartbeats say nothing new."""
        reached = (self._state.log.last_index, self._state.commit_index)
        if reached == self._flushed:
            return
        self._flushed = reached
        for progress in self.followers.values():
            if progress.disk_full and not self.starved:
                self._tell_commit(progress)
            elif progress.way is Way.PROBE:
                if not progress.probe_pending:
                    self._send_append(progress)
            elif progress.way is Way.REPLICATE:
                while self._state.log.last_index >= progress.next and self._has_window(progress):
                    self._send_append(progress)
                    if progress.way is not Way.REPLICATE:
                        break
                self._tell_commit(progress)

    def plan_streams(self) -> None:
        """Decide anew who takes entries from whom; each is told with its next heartbeat."""
        for progress in self.followers.values():
            self._follow_lag(progress)
        planned = Relays(self._state, self.followers).plan()
        for node_id, progress in self.followers.items():
            source, hops = planned.get(node_id, (NodeId(""), 0))
            if (source, hops) != (progress.source, progress.hops):
                progress.send_to(source, hops)
                self._touch()

    def _follow_lag(self, progress: Progress) -> None:
        """One that is far behind its source for two plans gets too little of what that has: the path between them is slow. It
        says nothing, since it gets further all the time."""
        source = self.followers.get(progress.source)
        streams = progress.way is Way.STREAM and source is not None
        lags = streams and source is not None and self._is_far_behind(progress) and not self._is_far_behind(source)
        if lags and progress.lagged:
            self._blame_source(progress)
            lags = False
        progress.lagged = lags

    def _is_far_behind(self, progress: Progress) -> bool:
        return self._state.commit_index - progress.match > self._state.config.learner_lag_max

    def _blame_source(self, progress: Progress) -> None:
        config = self._state.config
        progress.blame_source(self._state.now, pause_s=config.stream_pause_s, avoid_s=config.stream_avoid_s)
        self._touch()

    def deliver(self, nodes: Iterable[NodeId]) -> None:
        """Assignments name these nodes: those who take entries from peers get what they may lack from here, up to the commit
        index. One that is named very often is fed from here for a while, else it would get everything twice."""
        state, config = self._state, self._state.config
        for node_id in nodes:
            progress = self.followers.get(node_id)
            if progress is None or progress.way is not Way.STREAM:
                continue
            if state.now - progress.named_at < config.stream_named_s:
                progress.feed_until(state.now + config.stream_pause_s)
                self._touch()
            elif progress.next > state.log.offset:
                progress.named_at = state.now
                while progress.next <= state.commit_index and self._has_window(progress) and progress.way is Way.STREAM:
                    self._send_append(progress)

    def _has_window(self, progress: Progress) -> bool:
        return progress.next - progress.match <= self._state.config.window_entries

    def _send_append(self, progress: Progress) -> None:
        state = self._state
        previous_term = state.log.term_at(progress.next - 1) if progress.next > state.log.offset else None
        if previous_term is None:
            self._send_snapshot(progress)
            return
        entries = state.log.batch(
            progress.next, entries_max=state.config.append_entries_max, bytes_max=state.config.append_bytes_max
        )
        state.send(progress.node_id, Append(*state.header(), progress.next - 1, previous_term, entries, state.commit_index))
        progress.appended_at = state.now
        progress.told_commit = state.commit_index
        if progress.way is Way.PROBE:
            progress.probe_pending = True
        else:
            progress.next += len(entries)

    def _send_snapshot(self, progress: Progress) -> None:
        """The log does not reach back to what it needs. Only for one that is there to receive it."""
        state = self._state
        meta = state.log.snapshot
        if meta is None or progress.last_contact == NEVER_HEARD:
            progress.probe_pending = True
            return
        progress.way = Way.SNAPSHOT
        progress.snapshot_at = state.now
        progress.snapshot_index = meta.index
        state.outbox.emit(SendSnapshot(progress.node_id, meta))

    def _tell_commit(self, progress: Progress) -> None:
        if min(self._state.commit_index, progress.match) > progress.told_commit:
            self._state.send(progress.node_id, self.heartbeat(progress, 0))

    def heartbeat(self, progress: Progress, number: int) -> Heartbeat:
        """A heartbeat with the commit index as far as this follower can follow it; one that takes entries from a peer is told the
        whole of it, so that it sees whether it falls behind."""
        state = self._state
        reached = min(state.commit_index, progress.match)
        commit = state.commit_index if progress.source else reached
        commit_term = state.log.term_at(commit)
        if commit_term is None:
            commit, commit_term = 0, 0
        progress.told_commit = max(progress.told_commit, min(commit, reached))
        beyond = state.commit_index if state.commit_index > commit else 0
        return Heartbeat(*state.header(), number, commit, commit_term, progress.source, progress.hops, beyond)

    def views(self) -> dict[NodeId, FollowerView]:
        """What is known of every follower, for others."""
        return {
            node_id: FollowerView(node_id, each.match, each.applied, each.last_contact, each.disk_age_s, each.disk_full)
            for node_id, each in self.followers.items()
        }

    # ---- answers

    def on_append_reply(self, source: NodeId, message: AppendReply) -> bool:
        """Returns whether the follower got further."""
        state = self._state
        self._touch()
        progress = self.followers.get(source)
        if progress is None or not progress.hear(message.generation, state.log.last_index, state.now):
            return False
        if not message.accepted:
            if progress.way is Way.STREAM:
                self._blame_source(progress)
            progress.refuse(message.index)
            return False
        news = progress.acknowledge(min(message.index, state.log.last_index))
        if progress.match + state.config.learner_lag_max >= state.commit_index:
            progress.caught_up = True
        return news

    def on_heartbeat_reply(self, source: NodeId, message: HeartbeatReply, round_sent_at: float) -> Progress | None:
        """Notes the contact and sends again what was lost before that round. None when the answer does not count."""
        state = self._state
        progress = self.followers.get(source)
        if progress is None:
            return None
        if progress.generation != message.generation or progress.way not in (Way.REPLICATE, Way.STREAM):
            self._touch()
        if not progress.hear(message.generation, state.log.last_index, state.now):
            return None
        progress.applied = message.applied_index
        progress.disk_age_s = message.disk_age_ms / 1000
        if progress.disk_full != message.disk_full:
            progress.disk_full = message.disk_full
            self._touch()
            self.follow_room()
        progress.streams = message.streams
        if progress.hear_source(NodeId(message.source)):
            self._touch()
        if progress.way is Way.SNAPSHOT:
            self._maybe_retry_snapshot(progress)
        elif progress.appended_at < round_sent_at:
            if progress.forgot(message.last_index, state.log.last_index):
                self._touch()
            elif progress.way is Way.PROBE:
                progress.probe_pending = False
            elif progress.way is Way.STREAM:
                self._maybe_ask(progress, message, waited=progress.seen_match == progress.match)
            elif message.last_index < progress.next - 1 or not state.log.matches(message.last_index, message.last_term):
                progress.resend()
                self._touch()
            else:
                self._maybe_ask(progress, message, waited=True)
            progress.seen_match = progress.match
        return progress

    def _maybe_ask(self, progress: Progress, message: HeartbeatReply, *, waited: bool) -> None:
        """It has more of this log than it acknowledged. Either its disk is not done, or the acknowledgement was lost; it is asked
        once in an answered round. One that takes from a peer acknowledges of its own accord, so it has a round to do so."""
        state, index = self._state, message.last_index
        if not waited or index <= progress.match or progress.disk_age_s > state.config.disk_stall_s:
            return
        if state.log.matches(index, message.last_term):
            state.send(progress.node_id, Append(*state.header(), index, message.last_term, (), state.commit_index))
            progress.appended_at = state.now
            progress.told_commit = max(progress.told_commit, min(state.commit_index, index))

    def _maybe_retry_snapshot(self, progress: Progress) -> None:
        if self._state.now - progress.snapshot_at > self._state.config.snapshot_retry_s:
            progress.way = Way.PROBE
            progress.probe_pending = False

    def on_snapshot_sent(self, to: NodeId, *, arrived: bool) -> None:
        """A transfer ended. One that failed is tried again after the next answered heartbeat."""
        self._touch()
        progress = self.followers.get(to)
        if progress is None or progress.way is not Way.SNAPSHOT:
            return
        progress.way = Way.PROBE
        progress.probe_pending = not arrived
        if arrived:
            progress.next = max(progress.match, progress.snapshot_index) + 1
