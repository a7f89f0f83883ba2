"""A voter's promise and a leader's lease: why at most one node may act at any instant.

Pure: no I/O, no clock, no randomness of its own. A voter that heard its leader at local time t promises to give no vote or
pre-vote to anybody, itself included, before t + D. A leader sends numbered rounds; when a majority of every configuration in
force has answered a round, it holds the lease for 0.85 D from the moment it *sent* that round. Every answer was made after the
send, so every promise behind it outlives the lease even when all clocks drift by 5 % in the worst direction; a later leader
needs a majority of votes, one of them from a promiser, hence given after the lease was over.

The complication is a hand-over: TimeoutNow gives the lease up for good in that term, and only a request that names exactly the
leader and term a promise was made to goes past the promise.

Promises kept here: a promise never gets shorter; a restarted voter, who has forgotten to whom it promised, waives nothing.
"""

from __future__ import annotations

from swarm.consensus.config import ConsensusConfig
from swarm.model.ids import NodeId


class Promise:
    """When this node may vote or campaign again, and for whom it may do so earlier."""

    __slots__ = ("_duration_s", "_started_until", "leader_id", "term", "until")

    def __init__(self, config: ConsensusConfig, now: float) -> None:
        self._duration_s = config.promise_s
        self._started_until = now + config.promise_s * config.start_wait_fraction
        """What was promised before the start was to somebody unknown: it is waited out and never waived."""
        self.until = self._started_until
        self.leader_id = NodeId("")
        self.term = 0

    def extend(self, leader_id: NodeId, term: int, now: float) -> None:
        """A message of this leader and term was accepted at `now`. What was promised to earlier leaders matters no more: this
        one was elected by a majority whose promises had ended or were waived by the one they were made to."""
        self.leader_id, self.term = leader_id, term
        self.until = max(self.until, now + self._duration_s)

    def holds(self, now: float) -> bool:
        """Whether this node must not vote or campaign."""
        return now < self.until

    def is_waived_by(self, leader_id: NodeId, term: int, now: float) -> bool:
        """Whether a hand-over by this leader in this term goes past the promise."""
        return now >= self._started_until and leader_id != "" and (self.leader_id, self.term) == (leader_id, term)


class Rounds:
    """The leader's numbered heartbeat rounds and when each was sent."""

    __slots__ = ("_sent", "_window_s", "number", "sent_at")

    def __init__(self, config: ConsensusConfig) -> None:
        self._sent: dict[int, float] = {}
        self._window_s = config.quorum_lost_s
        self.number = 0
        self.sent_at = float("-inf")

    def begin(self, now: float) -> int:
        """Start a round; forget those too old to renew anything."""
        self.number += 1
        self.sent_at = now
        self._sent[self.number] = now
        for number in [number for number, sent_at in self._sent.items() if sent_at < now - self._window_s]:
            del self._sent[number]
        return self.number

    def sent(self, number: int) -> float | None:
        """When a round was sent; None for one that is unknown or too old to matter."""
        return self._sent.get(number)
