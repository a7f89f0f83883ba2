"""What a leader knows of one follower: how far its log is, and how to send to it.

Pure: no I/O, no clock, no randomness of its own. Four ways of sending: PROBE (one append at a time until the logs are known to
meet), REPLICATE (a window of appends in flight), STREAM (it takes entries from a peer, and said so), SNAPSHOT (nothing until
a snapshot is over there). A follower that answers under a new store generation has lost its disk: everything known of it is
forgotten.

Invariant: match < next.
"""

from __future__ import annotations

from enum import StrEnum

from swarm.model.ids import NodeId

NEVER_HEARD = float("-inf")


class Way(StrEnum):
    """How entries are sent to a follower."""

    PROBE = "probe"
    REPLICATE = "replicate"
    STREAM = "stream"
    SNAPSHOT = "snapshot"


class Progress:
    """One follower, voter or learner. Times are this leader's CLOCK_BOOTTIME."""

    __slots__ = (
        "answered_at",
        "appended_at",
        "applied",
        "avoid_until",
        "avoided",
        "caught_up",
        "direct_until",
        "disk_age_s",
        "disk_full",
        "generation",
        "hops",
        "lagged",
        "last_contact",
        "match",
        "named_at",
        "next",
        "node_id",
        "pause_s",
        "probe_pending",
        "seen_match",
        "snapshot_at",
        "snapshot_index",
        "source",
        "streams",
        "told_commit",
        "way",
    )

    def __init__(self, node_id: NodeId, generation: int, last_index: int) -> None:
        self.node_id = node_id
        self.generation = generation
        self.answered_at = NEVER_HEARD
        """Send time of the newest round it answered."""
        self.last_contact = NEVER_HEARD
        self.restart(last_index)

    def restart(self, last_index: int) -> None:
        """Nothing is known of its log."""
        self.match = 0
        """Everything up to here is durable there, under `generation`."""
        self.seen_match = 0
        """`match` when it last answered a round."""
        self.next = last_index + 1
        self.way = Way.PROBE
        self.probe_pending = False
        self.appended_at = NEVER_HEARD
        self.snapshot_at = NEVER_HEARD
        self.snapshot_index = 0
        """Where the snapshot stands that was last offered: the leader may have made a newer one since."""
        self.applied = 0
        self.told_commit = 0
        self.disk_age_s = 0.0
        self.disk_full = False
        """It gets no entries while others with room are a majority."""
        self.caught_up = False
        self.streams = False
        """It said that it can take entries from peers, and serve them."""
        self.source = NodeId("")
        """Whom it may take entries from; empty: from this leader."""
        self.hops = 0
        self.direct_until = NEVER_HEARD
        """Until then it is fed by this leader."""
        self.avoided = NodeId("")
        """The source that served it too little, last; it is not sent there again until `avoid_until`."""
        self.avoid_until = NEVER_HEARD
        self.pause_s = 0.0
        """For how long the leader fed it when that source failed."""
        self.lagged = False
        """It was far behind its source when the last plan was made."""
        self.named_at = NEVER_HEARD
        """When an assignment last named it while it took entries from a peer."""

    def hear(self, generation: int, last_index: int, now: float) -> bool:
        """An answer came under this store generation. False when it is from a store that is gone: ignore it."""
        if generation < self.generation:
            return False
        if generation > self.generation:
            self.generation = generation
            self.answered_at = NEVER_HEARD
            self.restart(last_index)
        self.last_contact = now
        return True

    def acknowledge(self, index: int) -> bool:
        """Durable up to `index`. Returns whether that is news."""
        self.probe_pending = False
        self.next = max(self.next, index + 1)
        if self.way is Way.PROBE or (self.way is Way.SNAPSHOT and index + 1 >= self.next):
            self.way = Way.REPLICATE
        if index <= self.match:
            return False
        self.match = index
        return True

    def forgot(self, theirs: int, last_index: int) -> bool:
        """Whether its log ends before what it acknowledged under this generation: its disk was set back, or a copy of it spoke.
        Nothing is known of its log then; else the two would try to meet above its end for ever. `last_index` is the leader's."""
        if theirs >= self.match:
            return False
        self.restart(last_index)
        return True

    def refuse(self, index: int) -> None:
        """The logs do not meet where it was tried; try from `index` (never below what it acknowledged). One that names an index
        below that is old, or its log has shrunk: the next answered round tells which, and until then nothing is sent (else the
        two would ask and refuse as fast as the network carries it)."""
        if self.way is Way.SNAPSHOT:
            return
        self.way = Way.PROBE
        self.probe_pending = index < self.match
        self.next = max(min(self.next - 1, index + 1), self.match + 1)

    def send_to(self, source: NodeId, hops: int) -> None:
        """It may take entries from there; from an empty source, nowhere but here."""
        self.source, self.hops = source, hops
        if not source and self.way is Way.STREAM:
            self.resend()

    def blame_source(self, now: float, *, pause_s: float, avoid_s: float) -> None:
        """Its source serves it too little: this leader feeds it for a while, and sends it there no more for a longer one. When
        that happens again before that is over, every source may be out of its reach: it is fed for twice as long."""
        self.pause_s = min(2 * self.pause_s, avoid_s) if now < self.avoid_until else pause_s
        self.avoided, self.avoid_until = self.source or self.avoided, now + self.pause_s + avoid_s
        self.feed_until(now + self.pause_s)

    def avoids(self, source: NodeId, now: float) -> bool:
        """Whether it is not to be sent there."""
        return source == self.avoided and now < self.avoid_until

    def feed_until(self, until: float) -> None:
        """It is fed by this leader until then."""
        self.direct_until = until
        self.send_to(NodeId(""), 0)

    def hear_source(self, source: NodeId) -> bool:
        """It says whom it takes entries from. Returns whether the way it is sent to has changed."""
        if self.way is Way.STREAM and not source:
            self.resend()
            return True
        if self.way in (Way.PROBE, Way.REPLICATE) and source and source == self.source:
            if self.way is Way.PROBE:
                self.next = self.match + 1
            self.way = Way.STREAM
            return True
        return False

    def resend(self) -> None:
        """Something sent was lost: go back to what it acknowledged."""
        self.way = Way.PROBE
        self.probe_pending = False
        self.next = self.match + 1 if self.match else self.next
