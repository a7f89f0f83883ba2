"""What members say to each other about the log. Array-like CBOR; the first element is the kind.

Every message names its sender's term, recovery generation and store generation. A vote or acknowledgement counts only when the
(node, store generation) that sent it is the one the configuration names.

Promise: `decode_message_untrusted` raises only `BadMessage`, and what it returns is consistent in itself: no negative number,
entries consecutive and of non-decreasing term, a peer's answer with at least one entry that it has committed, or with none.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from swarm.errors import BadMessage
from swarm.model.entry import Entry
from swarm.model.ids import NodeId
from swarm.wire.codec import decode_tagged_untrusted, encode
from swarm.wire.limits import FRAME_BYTES_MAX

Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Term = Count
Index = Count


class Header(msgspec.Struct, frozen=True, array_like=True):
    """The fields that every message begins with."""

    term: Term
    recovery_generation: Count
    generation: Count
    """The sender's store generation."""


class PreVote(Header, frozen=True, array_like=True, tag=1):
    """Would you vote for me in `term` (the sender's own plus one)? Changes nothing at the receiver (thesis, section 9.6)."""

    last_index: Index
    last_term: Term


class PreVoteReply(Header, frozen=True, array_like=True, tag=2):
    """Granted: `term` is the one asked for. Refused: `term` is the refuser's own."""

    granted: bool


class Vote(Header, frozen=True, array_like=True, tag=3):
    """RequestVote (section 5.2). After a TimeoutNow it names the leader that gave its lease up, and in which term."""

    last_index: Index
    last_term: Term
    released_by: NodeId = NodeId("")
    released_term: Term = 0


class VoteReply(Header, frozen=True, array_like=True, tag=4):
    """Sent only when the vote is on disk."""

    granted: bool


class Append(Header, frozen=True, array_like=True, tag=5):
    """AppendEntries (section 5.3). Does not renew a lease: heartbeats do."""

    previous_index: Index
    previous_term: Term
    entries: tuple[Entry, ...]
    commit: Index


class AppendReply(Header, frozen=True, array_like=True, tag=6):
    """Accepted: everything up to `index` is on the sender's disk and equals the leader's log. Refused: try from `index` down."""

    accepted: bool
    index: Index


class Heartbeat(Header, frozen=True, array_like=True, tag=7):
    """Holds the followers. Round 0 wants no answer (it only tells the commit index)."""

    round: Count
    commit: Index
    commit_term: Term
    """The term of the entry at `commit`: the receiver takes the commit index only when its own entry there has this term."""
    source: NodeId = NodeId("")
    """Whom the receiver may take entries from; empty: the sender feeds it. Only for one whose answers say that it `streams`."""
    hops: Count = 0
    """From the sender to the receiver by way of `source`."""
    leader_commit: Index = 0
    """The leader's own, where it is beyond `commit`: tells how far behind the receiver is."""


class HeartbeatReply(Header, frozen=True, array_like=True, tag=8):
    """Sent at once, beside any write. A reply to a lower term has round 0."""

    round: Count
    last_index: Index
    last_term: Term
    applied_index: Index
    disk_age_ms: Count
    """How long ago the sender's disk last completed a write it was given."""
    disk_full: bool = False
    """It wants no entries: what room it has left is for terms and votes."""
    streams: bool = False
    """The sender's program can take entries from peers and serve them. Programs before this field cannot."""
    source: NodeId = NodeId("")
    """Whom it takes entries from now; empty: it waits for the leader's."""


class TimeoutNow(Header, frozen=True, array_like=True, tag=9):
    """The leader of this term has given up its lease for good; campaign now (thesis, section 3.10)."""


class Pull(Header, frozen=True, array_like=True, tag=10):
    """To a peer of the same term: give me what is committed after `index`, as soon as there is something."""

    index: Index
    index_term: Term
    hops: Count
    """How far the sender is from the leader: only a nearer one serves it."""


class Pulled(Header, frozen=True, array_like=True, tag=11):
    """The answer. Without entries: not from this node."""

    previous_index: Index
    previous_term: Term
    entries: tuple[Entry, ...]
    commit: Index
    """The sender's. Entries beyond it are not taken."""


Message = (
    PreVote | PreVoteReply | Vote | VoteReply | Append | AppendReply | Heartbeat | HeartbeatReply | TimeoutNow | Pull | Pulled
)
_MESSAGES: dict[int, type[Message]] = {
    1: PreVote, 2: PreVoteReply, 3: Vote, 4: VoteReply, 5: Append, 6: AppendReply, 7: Heartbeat, 8: HeartbeatReply, 9: TimeoutNow,
    10: Pull, 11: Pulled,
}  # fmt: skip


def encode_message(message: Message) -> bytes:
    """Pack one message."""
    return encode(message)


def decode_message_untrusted(data: bytes) -> Message:
    """Parse one message. Raises only `BadMessage`."""
    message = decode_tagged_untrusted(data, _MESSAGES, bytes_max=FRAME_BYTES_MAX)
    if isinstance(message, Append | Pulled):
        _check_entries(message)
    return message


def _check_entries(message: Append | Pulled) -> None:
    index, term = message.previous_index, message.previous_term
    for entry in message.entries:
        index += 1
        if entry.index != index:
            raise BadMessage(f"a message whose entry {entry.index} stands where {index} should")
        if not term <= entry.term <= message.term:
            raise BadMessage(f"a message of term {message.term} with entry {entry.index} of term {entry.term} after {term}")
        term = entry.term
    if isinstance(message, Pulled) and message.entries and message.commit <= message.previous_index:
        raise BadMessage(f"entries after {message.previous_index} from a peer that has committed {message.commit}")
