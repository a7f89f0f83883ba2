"""How a member gets the cluster's present secrets from another one: after a rotation that it missed, or a copy it cannot open.

    Recall   I am this member of this cluster   ->  Recalled  the secrets, sealed to the key that the log pins for it
                                                    Refused   in words for its operator
             the same, `generation_only`        ->  Follows   which recovery of the cluster the answering node follows

Over the rejoin handshake this is one question per connection, under any authority that the cluster ever had; between connected
members the sealed bytes are the answer of a call. Either way no secret is said but in `Handed`, and only its reader can open it.

Promise: decoding raises only `BadMessage`; secrets have their length when it returns.
"""

from __future__ import annotations

import msgspec

from swarm.errors import BadMessage
from swarm.model.generation import GENERATION_MAX
from swarm.model.ids import ClusterId, NodeId, is_id
from swarm.wire import codec
from swarm.wire.boot import Refused, readable
from swarm.wire.token import SECRET_BYTES

REJOIN_VERSION = 1
REJOIN_BYTES_MAX = 16 * 1024
HANDED_MAX = 32
GENERATION_UNSAID = -1
REMOVED = "removed"
"""The refusal of a member whose log has the asker removed, and is not of a recovery generation that another has taken the place
of. What an older program says without having looked at that has another code."""
REMOVED_LATER = "removed_later"
"""The same from a log of a recovery generation that took the place of the asker's: no leader of the asker's can know better."""
UNKNOWN = "unauthorized"
"""The refusal of a member whose log does not admit the asker, and may only be behind."""


class Recall(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """Who asks; its key is the one that opened the connection."""

    version: int
    node_id: NodeId
    cluster_id: ClusterId
    recovery_generation: int = GENERATION_UNSAID
    """The one that the asker follows. A log of an earlier one has no say in who belongs to it."""
    generation_only: bool = False
    """A program that does not know this answers as if it were not there."""


class Recalled(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """`Handed`, encoded and sealed to the asker."""

    sealed: bytes


class Follows(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """`GENERATION_UNSAID` comes from a node that has not read its generation's log yet: nobody follows it there."""

    recovery_generation: int


Reply = Recalled | Follows | Refused


class Handed(msgspec.Struct, frozen=True, array_like=True):
    """What a member holds at this moment: the secret it sends with, and the others it accepts."""

    cluster_id: ClusterId
    sending: bytes
    accepted: tuple[bytes, ...] = ()


def copy_purpose(cluster_id: ClusterId) -> bytes:
    """What a secret's copy in the log is sealed for."""
    return b"secret 1 " + cluster_id.encode()


def handed_purpose(cluster_id: ClusterId) -> bytes:
    """What `Handed` is sealed for."""
    return b"handed 1 " + cluster_id.encode()


def decode_recall_untrusted(data: bytes) -> Recall:
    """Parse the question. Raises only `BadMessage`."""
    question = codec.decode_tagged_untrusted(data, {0: Recall}, bytes_max=REJOIN_BYTES_MAX)
    if not is_id(question.node_id) or not is_id(question.cluster_id):
        raise BadMessage("ids that are none")
    return question


def decode_recall_reply_untrusted(data: bytes) -> Reply:
    """Parse the answer. Raises only `BadMessage`."""
    kinds: dict[int, type[Reply]] = {1: Recalled, 2: Follows, 6: Refused}
    reply = codec.decode_tagged_untrusted(data, kinds, bytes_max=REJOIN_BYTES_MAX)
    if isinstance(reply, Follows) and not GENERATION_UNSAID <= reply.recovery_generation <= GENERATION_MAX:
        raise BadMessage(f"no recovery generation: {reply.recovery_generation}")
    return readable(reply) if isinstance(reply, Refused) else reply


def decode_handed_untrusted(data: bytes, cluster_id: ClusterId) -> Handed:
    """Parse what was sealed. Raises only `BadMessage`."""
    handed = codec.decode_untrusted(data, Handed, bytes_max=REJOIN_BYTES_MAX)
    if handed.cluster_id != cluster_id:
        raise BadMessage("secrets of another cluster")
    if len(handed.accepted) > HANDED_MAX or any(len(each) != SECRET_BYTES for each in (handed.sending, *handed.accepted)):
        raise BadMessage("secrets that are none")
    return handed
