"""What two nodes say to each other before they share a log: under the bootstrap authority, one question per connection.

    Greet    who I am and whom I have met         ->  Greeting   the same of the other side, and its cluster if it has one
    Propose  entry 1 of a cluster to be founded   ->  Granted    it is on disk here, byte for byte
    Join     admit me                             ->  Welcome    the cluster, its generation and its admitted nodes
                                                      Refused    to any of them, in words for the operator

Promise: decoding raises only `BadMessage`; ids, keys and fingerprints have their right length when it returns.
"""

from __future__ import annotations

import hashlib
import math
from typing import TypeVar

import msgspec

from swarm.errors import BadMessage
from swarm.model.entry import Entry
from swarm.model.ids import ClusterId, NodeId, is_id
from swarm.model.node import Node
from swarm.wire import codec
from swarm.wire.address import is_ip_and_port
from swarm.wire.limits import PAYLOAD_BYTES_MAX
from swarm.wire.text import plain_text

BOOT_VERSION = 1
BOOT_BYTES_MAX = PAYLOAD_BYTES_MAX
"""A welcome names every admitted node: some 300 bytes each."""
KNOWN_MAX = 4_096
INSTANCE_CHARACTERS_MAX = 64


class Greet(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """Who asks. `known` is every node id it has met on its own list of addresses, itself included, sorted.

    `instance` names this run of the daemon and `running_s` says how long it lasts: two daemons may hold one id (`drivers.twins`).
    """

    version: int
    node: Node
    known: tuple[NodeId, ...]
    instance: str = ""
    running_s: float = 0.0


class Greeting(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Who answers. `complete` is false while an address of its own list has not answered it.

    `found` is the encoded entry 1 of its cluster, when it has one: a founder that missed the proposal takes it from here.
    `instance` is this run of the daemon. `elder` says, to another run under the same id, that this one was there first.
    """

    version: int
    node: Node
    known: tuple[NodeId, ...]
    complete: bool
    cluster_id: ClusterId = ClusterId("")
    recovery_generation: int = 0
    found: bytes = b""
    instance: str = ""
    running_s: float = 0.0
    elder: bool = False


class Propose(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """The lowest id's proposal: entry 1 of term 1, encoded."""

    version: int
    node_id: NodeId
    found: bytes


class Granted(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """These bytes are entry 1 here, synced to disk, and no other ever will be until a reset."""

    found_sha256: bytes


class Join(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """Admit this node, whose key is the one that opened this connection."""

    version: int
    node: Node


class Welcome(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """The joiner is in the log. `nodes` is everybody admitted, itself included."""

    cluster_id: ClusterId
    recovery_generation: int
    nodes: tuple[Node, ...]


class Refused(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """No, and why. `code` is an `OperatorError`'s; `cluster_id` the cluster the answering node belongs to."""

    code: str
    message: str
    cause: str = ""
    hint: str = ""
    cluster_id: ClusterId = ClusterId("")


Question = Greet | Propose | Join
Reply = Greeting | Granted | Welcome | Refused

_QUESTIONS: dict[int, type[Question]] = {0: Greet, 2: Propose, 4: Join}
_REPLIES: dict[int, type[Reply]] = {1: Greeting, 3: Granted, 5: Welcome, 6: Refused}


def encode_boot(message: Question | Reply) -> bytes:
    """Bytes of a question or a reply, without the frame's length."""
    return codec.encode(message)


def decode_question_untrusted(data: bytes) -> Question:
    """Parse a question. Raises only `BadMessage`."""
    question = codec.decode_tagged_untrusted(data, _QUESTIONS, bytes_max=BOOT_BYTES_MAX)
    match question:
        case Greet(node=node, known=known):
            check_node(node)
            _check_ids(known)
            _check_run(question.instance, question.running_s)
        case Propose(node_id=node_id):
            _check_ids((node_id,))
        case Join(node=node):
            check_node(node)
    return question


def decode_reply_untrusted(data: bytes) -> Reply:
    """Parse a reply. Raises only `BadMessage`."""
    reply = codec.decode_tagged_untrusted(data, _REPLIES, bytes_max=BOOT_BYTES_MAX)
    match reply:
        case Greeting(node=node, known=known, cluster_id=cluster_id):
            check_node(node)
            _check_ids(known)
            _check_run(reply.instance, reply.running_s)
            _check_cluster(cluster_id, optional=True)
        case Welcome(cluster_id=cluster_id, nodes=nodes):
            _check_cluster(cluster_id, optional=False)
            for node in nodes:
                check_node(node)
        case Refused():
            return readable(reply)
        case Granted(found_sha256=digest):
            if len(digest) != 32:
                raise BadMessage("a digest that is not 32 bytes long")
    return reply


def readable(refused: Refused) -> Refused:
    """The same, fit to be shown to people. Raises `BadMessage`."""
    _check_cluster(refused.cluster_id, optional=True)
    message, cause, hint = (plain_text(each) for each in (refused.message, refused.cause, refused.hint))
    return Refused(plain_text(refused.code), message, cause, hint, refused.cluster_id)


def decode_entry_untrusted(data: bytes) -> Entry:
    """Parse an encoded log entry. Raises only `BadMessage`."""
    return codec.decode_untrusted(data, Entry, bytes_max=BOOT_BYTES_MAX)


StructT = TypeVar("StructT", bound=msgspec.Struct)


def decode_payload_untrusted(data: bytes, kind: type[StructT]) -> StructT:
    """Parse an entry's payload as one command. Raises only `BadMessage`."""
    return codec.decode_untrusted(data, kind, bytes_max=BOOT_BYTES_MAX)


def check_node(node: Node) -> None:
    """Raise `BadMessage` unless id, key and fingerprint are what they claim to be, and the address one that can be dialed."""
    _check_ids((node.id,))
    if hashlib.sha256(node.public_key).digest() != node.fingerprint:
        raise BadMessage("a fingerprint that is not the key's")
    if not 0 < len(node.name) <= 255 or not node.name.isprintable():
        raise BadMessage("a node without a usable name")
    if not is_ip_and_port(node.address):
        raise BadMessage("a node without an address of the form ip:port")


def _check_ids(ids: tuple[NodeId, ...]) -> None:
    if len(ids) > KNOWN_MAX or not all(is_id(node_id) for node_id in ids):
        raise BadMessage("not a list of node ids")


def _check_run(instance: str, running_s: float) -> None:
    if len(instance) > INSTANCE_CHARACTERS_MAX or not 0 <= running_s < math.inf:
        raise BadMessage("a run of a daemon without a usable name or age")


def _check_cluster(cluster_id: ClusterId, *, optional: bool) -> None:
    if not (is_id(cluster_id) or (optional and cluster_id == "")):
        raise BadMessage("not a cluster id")
