"""Every number of consensus, with its unit, its reason, and what gets worse in each direction."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ConsensusConfig:
    """Times in seconds. All members of a cluster must use the same `promise_s` and `lease_fraction`."""

    promise_s: float = 0.8
    """D: how long a voter that heard its leader gives no vote. Shorter: a loaded loop (200 ms of lag) loses its leader.
    Longer: fail-over takes longer."""
    election_spread: float = 1.5
    """Election timeouts are drawn from [D, election_spread * D). Narrower: split votes. Wider: slower fail-over."""
    lease_fraction: float = 0.85
    """A leader's lease is this part of D, from the send time of a round that a majority answered."""
    drift_max: float = 0.05
    """How far the rate of any clock may be off. Invariant: lease_fraction / (1 - drift_max) <= 1 / (1 + drift_max)."""
    start_wait_fraction: float = 1.1
    """After a start a voter has forgotten its promise: it neither votes nor campaigns for this part of D."""
    heartbeat_s: float = 0.1
    """To voters. Shorter: more traffic. Longer: fewer chances to renew within one lease."""
    learner_heartbeat_s: float = 1.0
    """To learners, which are many and hold no lease up. Below three voters they get the voters' rhythm (see README)."""
    disk_stall_s: float = 3.0
    """A leader whose disk completed nothing for this long gives up its lease. A healthy loaded disk is late by up to 0.8 s."""
    append_entries_max: int = 256
    append_bytes_max: int = 1024 * 1024
    """One append carries at most this much, but always one entry. A frame holds 4 MiB."""
    window_entries: int = 2048
    """Entries sent to one follower and not yet acknowledged. Smaller: idle links. Larger: more memory in queues."""
    proposals_max: int = 8192
    proposals_bytes_max: int = 64 * 1024 * 1024
    """Entries of the leader's log, and bytes in them, that are not applied yet; beyond either proposals are refused, not queued,
    and new tasks at half. Smaller: floods are refused earlier. Larger: more memory, and longer until the newest is applied."""
    learner_ack_within_s: float = 1.0
    learner_ack_count: int = 2
    learner_lag_max: int = 250
    """Below three voters, commit waits for at most `learner_ack_count` learners heard within `learner_ack_within_s`, once they
    have caught up to within `learner_lag_max` entries."""
    stream_learners_min: int = 4
    """With so many learners that know how, the leader sends learners to peers for their entries. Fewer cost it little."""
    stream_fanout: int = 8
    """How many take from one node. More: a shallower tree, and more work for each of its nodes."""
    stream_ask_again_s: float = 0.25
    stream_patience_s: float = 1.0
    """Behind the leader, a learner asks its source again after the one and goes back to the leader after the other, both without
    progress. Shorter: a source that stands still for a moment costs the leader a learner. Longer: the learner is late."""
    stream_pause_s: float = 10.0
    """The leader feeds a learner that came back, or that is named very often, itself for so long; for twice as long each time
    when it comes back again and again."""
    stream_avoid_s: float = 300.0
    """A learner that came back is not sent to the same source for so long afterwards, and is never fed by the leader for longer.
    Shorter: a broken path between two hosts makes a learner late more often. Longer: a tree that is less even."""
    stream_named_s: float = 1.0
    """A learner that assignments name twice within this is named very often."""
    stream_report_entries: int = 100
    """A learner acknowledges to the leader each second, and after so many entries. Invariant: below `learner_lag_max`, else a
    learner that takes from a peer never seems to have caught up while much is written."""
    snapshot_retry_s: float = 10.0
    """A snapshot whose transfer neither succeeded nor failed is offered again after this long."""
    snapshot_every: int = 8192
    """Entries applied between two snapshots. Smaller: more writing. Larger: a longer log in memory and a slower start."""
    trailing: int = 1024
    """Entries kept in memory behind a snapshot, for followers that are a little behind."""

    def __post_init__(self) -> None:
        if self.lease_fraction / (1 - self.drift_max) > 1 / (1 + self.drift_max):
            raise ValueError(f"a lease of {self.lease_fraction} D outlives promises when clocks drift by {self.drift_max}")
        if self.start_wait_fraction < 1:
            raise ValueError("a restarted voter must wait at least as long as it may have promised")
        if self.stream_report_entries >= self.learner_lag_max:
            raise ValueError("a learner that reports less often than its lag may grow never seems to have caught up")

    @property
    def lease_s(self) -> float:
        """How long a lease holds from the send time of its round."""
        return self.promise_s * self.lease_fraction

    @property
    def quorum_lost_s(self) -> float:
        """A leader that no majority answered for this long steps down (check-quorum)."""
        return self.promise_s * self.election_spread
