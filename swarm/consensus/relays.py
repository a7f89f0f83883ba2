"""Who takes entries from whom: the leader's plan, made anew with each round to the learners.

Pure: no I/O, no clock, no randomness of its own. A tree below the leader: it feeds the voters and some learners itself, each
node serves at most `stream_fanout` others, and nobody is more than `HOPS_MAX` hops away. Who has a source that still serves keeps
it; others get the nearest with room that has not failed them lately, or are fed by the leader and serve in their turn. Hops grow
along each edge: no cycles.

Promises kept here: below three voters, whose learners vouch for what is acknowledged, nobody is sent to a peer, nor is a voter of
any set in force; only nodes that said that they know how are named or sent.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping

from swarm.consensus.progress import Progress, Way
from swarm.consensus.quorum import is_small, voters_of
from swarm.consensus.state import State
from swarm.consensus.stream import HOPS_MAX
from swarm.model.ids import NodeId

_SILENT_ROUNDS_MAX = 2.5
"""Who answered none of the last two rounds to learners neither takes nor serves."""


class Relays:
    """One plan in the making."""

    def __init__(self, state: State, followers: Mapping[NodeId, Progress]) -> None:
        self._state = state
        self._followers = followers
        self._hops: dict[NodeId, int] = {}
        """Of every node that has its place in the plan."""
        self._serves: dict[NodeId, int] = {}
        """How many every node serves that can; at most `stream_fanout`."""
        self._open: list[tuple[int, int, NodeId]] = []
        """A heap of (hops, served then, source) of those that may be given one more; some have been given more since."""

    def plan(self) -> dict[NodeId, tuple[NodeId, int]]:
        """Taker -> its source and how many hops it is from the leader. O(followers * log followers)."""
        takers = self._takers()
        for node_id, progress in self._followers.items():
            if node_id not in takers:
                self._place(progress, 1)
        planned: dict[NodeId, tuple[NodeId, int]] = {}
        for hops in range(2, HOPS_MAX + 1):
            for node_id, progress in takers.items():
                if node_id not in planned and self._keeps(progress, hops):
                    planned[node_id] = self._take(progress, progress.source)
        for node_id, progress in takers.items():
            if node_id not in planned:
                source = self._nearest(progress)
                if source is None:
                    self._place(progress, 1)
                else:
                    planned[node_id] = self._take(progress, source)
        return planned

    def _takers(self) -> dict[NodeId, Progress]:
        """The learners that may be sent to a peer; nobody when they are few. Sorted by id."""
        configuration = self._state.log.configuration
        if is_small(configuration):
            return {}
        voters = {voter.node_id for voter in voters_of(configuration)}
        takers = {
            node_id: progress
            for node_id, progress in self._followers.items()
            if node_id not in voters and self._may_take(progress)
        }
        return takers if len(takers) >= self._state.config.stream_learners_min else {}

    def _is_there(self, progress: Progress) -> bool:
        config = self._state.config
        silent_s = self._state.now - progress.last_contact
        works = progress.streams and not progress.disk_full and progress.disk_age_s <= config.disk_stall_s
        return works and progress.way is not Way.SNAPSHOT and silent_s <= _SILENT_ROUNDS_MAX * config.learner_heartbeat_s

    def _may_take(self, progress: Progress) -> bool:
        """What the leader's log no longer reaches back to is a snapshot's business."""
        state = self._state
        return self._is_there(progress) and progress.match >= state.log.offset and state.now >= progress.direct_until

    def _place(self, progress: Progress, hops: int) -> None:
        """It is so far from the leader; it serves others if it can, new ones only when it has caught up."""
        node_id = progress.node_id
        self._hops[node_id] = hops
        if hops < HOPS_MAX and self._is_there(progress):
            self._serves[node_id] = 0
            if self._lag(node_id) <= self._state.config.learner_lag_max:
                heapq.heappush(self._open, (hops, 0, node_id))

    def _lag(self, node_id: NodeId) -> int:
        return self._state.commit_index - self._followers[node_id].match

    def _keeps(self, progress: Progress, hops: int) -> bool:
        """Whether its source has a place one hop nearer, and still serves."""
        source, config = progress.source, self._state.config
        serves = self._serves.get(source)
        if serves is None or self._hops[source] != hops - 1 or progress.avoids(source, self._state.now):
            return False
        return serves < config.stream_fanout and self._lag(source) <= config.window_entries

    def _nearest(self, taker: Progress) -> NodeId | None:
        """The source nearest to the leader that has room and that this one does not avoid; of those, one that serves fewest."""
        avoided: list[tuple[int, int, NodeId]] = []
        found: NodeId | None = None
        while self._open and found is None:
            hops, served, source = heapq.heappop(self._open)
            serves = self._serves[source]
            if serves >= self._state.config.stream_fanout:
                continue
            if taker.avoids(source, self._state.now):
                avoided.append((hops, served, source))
                continue
            heapq.heappush(self._open, (hops, serves + (serves == served), source))
            if serves == served:
                found = source
        for place in avoided:
            heapq.heappush(self._open, place)
        return found

    def _take(self, progress: Progress, source: NodeId) -> tuple[NodeId, int]:
        """One more for that source."""
        hops = self._hops[source] + 1
        self._serves[source] += 1
        self._place(progress, hops)
        return source, hops
