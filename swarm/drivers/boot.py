"""The desk at which nodes without a common log meet: one question per connection, under the bootstrap authority.

Whoever reaches the desk holds the token; that lets it ask, and nothing more. Every node has a desk as long as it runs: before it
belongs to a cluster the desk answers who is here and grants one founding; afterwards it names the cluster, hands entry 1 to
founders that missed it, and passes requests to join on to the leader.

Promises: a founding is granted once, and only after entry 1 is on disk byte for byte; a node can ask only in its own name, under
the key that opened the connection; a question has a bounded time and size.
"""

from __future__ import annotations

import hashlib
import struct
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from swarm.drivers.link import close_now
from swarm.drivers.presence import NO_RUN, Run, displaced
from swarm.errors import BadMessage, IdentityTaken, OperatorError, PeerError, Unauthenticated, Unreachable
from swarm.model.command import Found
from swarm.model.entry import KIND_FOUND, Entry, Voter
from swarm.model.ids import ClusterId, NodeId, is_id
from swarm.model.node import Node
from swarm.ports import PROTOCOL_BOOT, ByteStream, Dialer, SecureStream
from swarm.wire import boot
from swarm.wire.boot import (
    BOOT_BYTES_MAX,
    BOOT_VERSION,
    Granted,
    Greet,
    Greeting,
    Join,
    Propose,
    Question,
    Refused,
    Reply,
    Welcome,
)
from swarm.wire.frame import FrameReader

ASK_S = 10.0
"""For an answer that needs no leader. A grant includes a sync of a loaded disk: up to 0.8 s (measured)."""
JOIN_S = 30.0
"""For an admission: it is committed and applied before it is answered, perhaps after an election."""
_LENGTH = struct.Struct(">I")
_NETWORK = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)

PersistFound = Callable[[Entry], Awaitable[None]]
Admit = Callable[[Node], Awaitable[tuple[Node, ...]]]


@dataclass(frozen=True, slots=True)
class Belonging:
    """The cluster a node belongs to, as it came to know it. `found` is the encoded entry 1 on a founder, else empty."""

    cluster_id: ClusterId
    recovery_generation: int
    found: bytes
    nodes: tuple[Node, ...]


def voters_of(nodes: tuple[Node, ...]) -> tuple[Voter, ...]:
    """The first voters: 1 of one or two nodes, 3 of three to six, 5 from seven on; the lowest ids."""
    count = 1 if len(nodes) < 3 else 3 if len(nodes) < 7 else 5
    lowest = sorted(nodes, key=lambda node: node.id)[:count]
    return tuple(Voter(node.id, node.store_generation) for node in lowest)


def belonging_of(found_bytes: bytes) -> Belonging:
    """What an encoded entry 1 says. Raises `BadMessage` unless it is one, in every detail."""
    entry = boot.decode_entry_untrusted(found_bytes)
    if (entry.index, entry.term, entry.kind, entry.version) != (1, 1, KIND_FOUND, 1):
        raise BadMessage("not entry 1 of term 1 of a founding")
    found = boot.decode_payload_untrusted(entry.payload, Found)
    ids = [node.id for node in found.nodes]
    for node in found.nodes:
        boot.check_node(node)
    if not is_id(found.cluster_id) or not ids or ids != sorted(set(ids)) or found.voters != voters_of(found.nodes):
        raise BadMessage("a founding whose id, members or voters are not as the rules want them")
    return Belonging(found.cluster_id, entry.recovery_generation, found_bytes, found.nodes)


class Desk:
    """Answers. `known` and `complete` are set by whoever greets others; `admit` once there is a replica to ask.

    `settled` is set as soon as this node belongs to a cluster; `refusal` when an elder daemon has this node's identity.
    """

    def __init__(
        self,
        me: Node,
        *,
        persist_found: PersistFound,
        belonging: Belonging | None = None,
        run: Run = NO_RUN,
        persist_displaced: Callable[[], bool] = lambda: True,
    ) -> None:
        """`persist_displaced` notes on disk, once, that the log here may lack what the elder acknowledged under this identity."""
        self.me = me
        self.refusal: IdentityTaken | None = None
        self.on_displaced: Callable[[], None] = lambda: None
        self._run = run
        self._persist_displaced = persist_displaced
        self.known: tuple[NodeId, ...] = (me.id,)
        self.complete = False
        self.admit: Admit | None = None
        self.counters: Counter[str] = Counter()
        self.settled = trio.Event()
        self.belonging: Belonging | None = None
        self._persist_found = persist_found
        self._granting = trio.Lock()
        if belonging is not None:
            self.settle(belonging)

    def settle(self, belonging: Belonging) -> None:
        """This node belongs to that cluster, for good."""
        assert self.belonging is None or self.belonging.cluster_id == belonging.cluster_id
        self.belonging = belonging
        self.settled.set()

    def question(self) -> Greet:
        """What this node asks at another's desk."""
        return Greet(BOOT_VERSION, self.me, self.known, self._run.instance, self._run.running_s)

    def is_twin(self, there: Greet | Greeting) -> bool:
        """Whether another daemon speaks with this node's id and key. The caller has checked that they are the speaker's."""
        same = (there.node.id, there.node.fingerprint) == (self.me.id, self.me.fingerprint)
        return same and self._run.is_twin(there.instance)

    def displace(self, refusal: IdentityTaken) -> None:
        """An elder daemon has this node's identity: this one ends."""
        if self.refusal is None:
            self._persist_displaced()
        self.refusal = self.refusal or refusal
        self.on_displaced()

    async def grant(self, found_bytes: bytes) -> Belonging:
        """Make these bytes entry 1 of this node, on disk, or return the founding that was granted before. Raises `BadMessage`."""
        async with self._granting:
            if self.belonging is None:
                belonging = belonging_of(found_bytes)
                if not any(node.id == self.me.id and node.fingerprint == self.me.fingerprint for node in belonging.nodes):
                    raise BadMessage("a founding that does not include this node with its key")
                await self._persist_found(boot.decode_entry_untrusted(found_bytes))
                self.settle(belonging)
            assert self.belonging is not None
            return self.belonging

    async def accept(self, secure: SecureStream) -> None:
        """Answer one question and close. The listener's handler for `PROTOCOL_BOOT`."""
        try:
            with trio.move_on_after(JOIN_S + ASK_S) as bound:
                with trio.fail_after(ASK_S):
                    question = boot.decode_question_untrusted(await receive_body(secure.stream))
                reply = await self._answer(question, secure)
                await send_body(secure.stream, boot.encode_boot(reply))
                await wait_for_end(secure.stream)
            if bound.cancelled_caught:
                self.counters["boot_timeout"] += 1
        except trio.TooSlowError:
            self.counters["boot_timeout"] += 1
        except PeerError as error:
            self.counters[f"boot_{error.reason}"] += 1
        finally:
            await close_now(secure.stream)

    async def _answer(self, question: Question, secure: SecureStream) -> Reply:
        asker = question.node_id if isinstance(question, Propose) else question.node.id
        if asker != secure.node_id:
            raise Unauthenticated("a question in another node's name")
        if not isinstance(question, Propose) and question.node.fingerprint != secure.fingerprint:
            raise Unauthenticated("a question with another node's key")
        if question.version != BOOT_VERSION:
            return self._refused("conflict", f"version {question.version} of the bootstrap protocol is not spoken here")
        match question:
            case Greet():
                return self._greet(question)
            case Propose():
                return await self._answer_proposal(question)
            case Join():
                return await self._answer_join(question)

    def _greet(self, question: Greet) -> Greeting:
        elder = False
        if self.is_twin(question):
            elder = self._run.is_elder(question.instance, question.running_s)
            self.counters["twins_met"] += 1
            if not elder:
                self.displace(displaced(self.me, question.node.address, question.running_s))
        there = self.belonging or Belonging(ClusterId(""), 0, b"", ())
        return Greeting(
            BOOT_VERSION,
            self.me,
            self.known,
            self.complete,
            cluster_id=there.cluster_id,
            recovery_generation=there.recovery_generation,
            found=there.found,
            instance=self._run.instance,
            running_s=self._run.running_s,
            elder=elder,
        )

    async def _answer_proposal(self, question: Propose) -> Granted | Refused:
        proposed = belonging_of(question.found)
        ids = tuple(node.id for node in proposed.nodes)
        if ids[0] != question.node_id:
            return self._refused("conflict", "only the lowest id may propose")
        if self.belonging is None and (ids != self.known or not self.complete):
            return self._refused("conflict", f"{self.me.name} has not met exactly the nodes of this founding")
        granted = await self.grant(question.found)
        if granted.found != question.found:
            return self._refused("conflict", f"{self.me.name} belongs to the cluster {granted.cluster_id}")
        return Granted(hashlib.sha256(granted.found).digest())

    async def _answer_join(self, question: Join) -> Welcome | Refused:
        if self.belonging is None or self.admit is None:
            return self._refused("unavailable", f"{self.me.name} has no cluster yet")
        try:
            nodes = await self.admit(question.node)
        except OperatorError as error:
            return self._refused(error.code, error.message, error.cause, error.hint)
        return Welcome(self.belonging.cluster_id, self.belonging.recovery_generation, nodes)

    def _refused(self, code: str, message: str, cause: str = "", hint: str = "") -> Refused:
        cluster_id = self.belonging.cluster_id if self.belonging else ClusterId("")
        return Refused(code, message, cause, hint, cluster_id)


async def ask(dialer: Dialer, address: str, question: Question, *, timeout_s: float = ASK_S) -> Reply:
    """One question to the desk at `address`. Raises `PeerError` with a message for people."""
    with trio.move_on_after(timeout_s):
        secure = await dialer.dial(address, PROTOCOL_BOOT)
        try:
            await send_body(secure.stream, boot.encode_boot(question))
            reply = boot.decode_reply_untrusted(await receive_body(secure.stream))
        finally:
            await close_now(secure.stream)
        if isinstance(reply, Greeting) and (reply.node.id, reply.node.fingerprint) != (secure.node_id, secure.fingerprint):
            raise Unauthenticated("it speaks in another node's name")
        return reply
    raise Unreachable(f"no answer within {timeout_s:g} s")


async def send_body(stream: ByteStream, body: bytes) -> None:
    """One message of a connection that carries one question and one answer. Raises `Unreachable`."""
    try:
        await stream.send_all(_LENGTH.pack(len(body)) + body)
    except _NETWORK:
        raise Unreachable("it closed the connection") from None


async def receive_body(stream: ByteStream) -> bytes:
    """The other side's message, of at most `BOOT_BYTES_MAX`. Raises `Unreachable`; the caller bounds the time."""
    reader = FrameReader(BOOT_BYTES_MAX)
    while (body := reader.next_body()) is None:
        try:
            data = await stream.receive_some()
        except _NETWORK:
            raise Unreachable("it closed the connection") from None
        if not data:
            raise Unreachable("it closed the connection")
        reader.feed(data)
    return body


async def wait_for_end(stream: ByteStream) -> None:
    """Let the asker close first, so that our answer is not lost to a reset."""
    with trio.move_on_after(1.0):
        try:
            await stream.receive_some()
        except _NETWORK:
            return
