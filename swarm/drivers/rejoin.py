"""The way back for a member that was away while the secret was rotated, once or many times.

Its certificate is signed by an authority that is retired, and it knows none of the present one: no stream comes about. On a
protocol of its own a member takes it all the same, if the log pins its very key for its id, and hands it the present secrets,
sealed to that key, and nothing else. A removed node has no pinned key and gets a refusal.

The one that comes back knows the others by the keys its own log pins. One of them may have been removed meanwhile, and may say
anything; so it believes an answer only when those who give the same one are, with itself, a majority of the members it knows.
That is also what it would take to lead it astray through the log.

Whoever ever held the secret can open such a connection. So those whom the log does not admit get few places, apart from the
members', and cannot use up this process's file descriptors.

A member that is told that it was removed goes by that as `drivers.removal` says; it asks also while it is connected to a majority
of those it knows, if no leader is heard: they may all have been removed with it. Those who say so may be the ones that are
behind: after a recovery a member of the earlier generation comes back with a log that has others removed. So the question names
the asker's generation, a log of one that was superseded has no say, and a node that has a leader learns nothing of its removal.

It may be the leader that is behind: the old voters come back together, elect one, and cannot hear of the recovery, because the
secret was rotated after it. So a node that has a leader asks the estranged ones now and then which recovery they follow. One
answer of a later one is enough, as in the hello of a stream (`drivers.recovery`): a leader has answered just before, and the log
here was read up to that, so whoever it admits was not removed in this generation, and could mislead it in other ways as well.

Promises: a node that leads, has heard a leader in the last `LEADER_SILENT_S` or is answered by one learns nothing of its removal,
unless a member says that a later recovery took that leader's place; no secret changes unless such a majority agrees; a round is
begun at most once a second, and only while fewer than a majority are connected or no leader is heard; the estranged are asked
for their recovery every `GENERATION_EVERY_S`, and before others' word of a removal is taken back; at most `STRANGERS_MAX`
connections of others than members are held at once.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Container, Mapping
from typing import Protocol, TypeVar

import trio

from swarm.drivers.boot import receive_body, send_body, wait_for_end
from swarm.drivers.keys import KeyStore, may_hand
from swarm.drivers.link import close_now
from swarm.drivers.outgoing import GenerationWatcher
from swarm.drivers.removal import OwnRemoval, removal_said
from swarm.drivers.streams import Streams
from swarm.errors import BadMessage, OperatorError, PeerError, Unauthenticated, Unreachable
from swarm.model.generation import has_say, supersedes
from swarm.model.ids import ClusterId, NodeId
from swarm.model.node import Node
from swarm.model.removal import Removal
from swarm.model.secret import Secrets
from swarm.ports import PROTOCOL_REJOIN, Dialer, SecureStream
from swarm.wire import codec
from swarm.wire.boot import Refused
from swarm.wire.rejoin import (
    GENERATION_UNSAID,
    REJOIN_VERSION,
    REMOVED,
    Follows,
    Handed,
    Recall,
    Recalled,
    Reply,
    decode_recall_reply_untrusted,
    decode_recall_untrusted,
)

LOG = logging.getLogger("swarm.keys")
ANSWER_S = 5.0
STRANGERS_MAX = 32
"""Removed nodes that are being told so; one more is dropped, and asks again in a second. More would hold more descriptors."""
LOOK_S = 1.0
SAY_EVERY_S = 10.0
LEADER_SILENT_S = 5.0
"""Elections take about a second."""
GENERATION_EVERY_S = 10.0
BARRIER_S = 3.0
UNKNOWN = "unauthorized"
ADMITTED_NOT = "the log admits no node of this id with this key"

T = TypeVar("T")


class RejoinDesk:
    """Answers those who come back."""

    def __init__(
        self,
        cluster_id: ClusterId,
        recovery_generation: int,
        store: KeyStore,
        admitted: Callable[[NodeId], Node | None],
        secrets: Callable[[], Secrets],
        removed: Callable[[], Container[NodeId]],
        has_log: Callable[[], bool] = lambda: True,
    ) -> None:
        """`removed` are the ids that the log here has removed; `has_log`: whether there is any."""
        self._removed = removed
        self._has_log = has_log
        self.counters: Counter[str] = Counter()
        self._cluster_id = cluster_id
        self._generation = recovery_generation
        self._store = store
        self._admitted = admitted
        self._secrets = secrets
        self._strangers = 0

    async def accept(self, secure: SecureStream) -> None:
        """Answer one question and close. The listener's handler for `PROTOCOL_REJOIN`."""
        stranger = not self._is_member(secure)
        if stranger and self._strangers >= STRANGERS_MAX:
            self.counters["rejoin_strangers_full"] += 1
            await close_now(secure.stream)
            return
        self._strangers += stranger
        try:
            with trio.move_on_after(ANSWER_S):
                question = decode_recall_untrusted(await receive_body(secure.stream))
                await send_body(secure.stream, codec.encode(self._answer(question, secure)))
                await wait_for_end(secure.stream)
        except PeerError as error:
            self.counters[f"rejoin_{error.reason}"] += 1
        finally:
            self._strangers -= stranger
            await close_now(secure.stream)

    def _is_member(self, secure: SecureStream) -> bool:
        node = self._admitted(secure.node_id)
        return node is not None and node.fingerprint == secure.fingerprint

    def _has_removed(self, question: Recall) -> bool:
        """And the log here has a say in that."""
        theirs = question.recovery_generation
        if question.cluster_id != self._cluster_id or theirs == GENERATION_UNSAID or not has_say(self._generation, theirs):
            return False
        return question.node_id in self._removed()

    def _answer(self, question: Recall, secure: SecureStream) -> Reply:
        if question.node_id != secure.node_id or question.version != REJOIN_VERSION:
            raise Unauthenticated("a question in another node's name, or of another version")
        if question.generation_only and question.cluster_id == self._cluster_id:
            return Follows(self._generation if self._has_log() else GENERATION_UNSAID)
        node = self._admitted(secure.node_id)
        if question.cluster_id != self._cluster_id or node is None or node.fingerprint != secure.fingerprint:
            self.counters["rejoin_refused"] += 1
            if self._has_removed(question):
                return Refused(REMOVED, "this node is no member of the cluster any more", "it was removed")
            return Refused(UNKNOWN, "this node is not known as a member of the cluster", ADMITTED_NOT)
        if not may_hand(self._store, self._secrets(), secure.node_id):
            self.counters["rejoin_not_yet"] += 1
            return Refused("unavailable", "this member has not read the log far enough to hand over a secret")
        self.counters["rejoin_handed"] += 1
        LOG.info("%s was away while the secret was rotated, and is handed the present one", node.name)
        return Recalled(self._store.hand_to(node))


class SaidRemoved(PeerError):
    """A member's log has this node removed. No state changed; what that means depends on how many say so."""

    reason = "said_removed"


_REFUSALS: dict[str, type[PeerError]] = {REMOVED: SaidRemoved, UNKNOWN: Unauthenticated}


class Replacing(Protocol):
    """What is done with the answer of a majority."""

    def __call__(self, handed: Handed) -> Awaitable[None]: ...


class Leader(Protocol):
    """Whether there is one for this node."""

    @property
    def leader_contact_age_s(self) -> float: ...
    async def read_barrier(self, timeout_s: float = ...) -> int: ...
    async def wait_applied(self, index: int) -> None: ...


class Rejoining:
    """Asks, when this node finds itself left behind. `refused` says, for people, that it is not known or was removed."""

    def __init__(
        self,
        me: NodeId,
        cluster_id: ClusterId,
        recovery_generation: int,
        store: KeyStore,
        streams: Streams,
        dialer: Dialer,
        members: Callable[[], Mapping[NodeId, Node]],
        replace: Replacing,
        *,
        leader: Leader,
        removal: OwnRemoval,
        on_generation: GenerationWatcher,
    ) -> None:
        """`on_generation` is told of a member that follows another recovery than this node; it may not wait."""
        self._leader = leader
        self._removal = removal
        self.refused = ""
        self._me = me
        self._cluster_id = cluster_id
        self._generation = recovery_generation
        self._store = store
        self._streams = streams
        self._dialer = dialer
        self._members = members
        self._replace = replace
        self._on_generation = on_generation
        self._said_at = self._looked_at = -math.inf

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await trio.sleep(LOOK_S)
            if self._removal.may_be_wrong or self._removal.is_unsaved or self._leader_is_due():
                await self._look_for_a_leader()
            if self._left_behind():
                await self._round()

    def _leader_is_due(self) -> bool:
        """Whether to ask again if the leader that is heard is one of the present."""
        waited_s = trio.current_time() - self._looked_at
        return waited_s >= GENERATION_EVERY_S and self._hears_a_leader() and bool(self._streams.estranged())

    async def _look_for_a_leader(self) -> bool:
        """Whether one answers that no later recovery has taken the place of; it takes back what others say of a removal."""
        self._looked_at = trio.current_time()
        if not await self._read_up_to_a_leader() or await self._is_superseded():
            return False
        await self._removal.revoke()
        return True

    async def _read_up_to_a_leader(self) -> bool:
        """Whether one answers, and the log here was applied as far as it was committed then."""
        with trio.move_on_after(BARRIER_S):
            try:
                await self._leader.wait_applied(await self._leader.read_barrier(BARRIER_S))
            except (OperatorError, PeerError):
                return False
            return True
        return False

    async def _is_superseded(self) -> bool:
        """Whether a member says that the cluster was recovered without this node and its leader, who has just answered."""
        said = await self._ask_estranged(self._ask_generation)
        admitted = self._members()
        followed = {node_id: each for node_id, each in said.items() if isinstance(each, int) and node_id in admitted}
        for node_id in sorted(followed):
            if followed[node_id] not in (GENERATION_UNSAID, self._generation):
                self._on_generation(node_id, followed[node_id])
        return any(supersedes(generation, self._generation) for generation in followed.values())

    async def _learn(self, said: Removal) -> None:
        """Others say so: a leader that answers after they spoke knows better."""
        if not self._hears_a_leader() and not await self._look_for_a_leader():
            await self._removal.learn(said)

    def _left_behind(self) -> bool:
        if not self._streams.estranged():
            return False
        members = self._members()
        connected = sum(1 for node_id in members if node_id == self._me or self._streams.connected(node_id))
        return 2 * connected <= len(members) or not self._hears_a_leader()

    def _hears_a_leader(self) -> bool:
        """Or is the leader."""
        return self._leader.leader_contact_age_s <= LEADER_SILENT_S

    async def _ask_estranged(self, question: Callable[[Node], Awaitable[T]]) -> dict[NodeId, T | PeerError]:
        """Ask everybody who is estranged, at once."""
        members, answers = self._members(), dict[NodeId, T | PeerError]()

        async def ask(node: Node) -> None:
            try:
                answers[node.id] = await question(node)
            except PeerError as error:
                answers[node.id] = error

        async with trio.open_nursery() as nursery:
            for node_id, _ in self._streams.estranged():
                if node_id in members:
                    nursery.start_soon(ask, members[node_id])
        return answers

    async def _round(self) -> None:
        """Ask for the present secrets, and go by the answers."""
        members, answers = self._members(), await self._ask_estranged(self._ask_secrets)
        handed = [answer for answer in answers.values() if isinstance(answer, Handed)]
        refusals = [str(answer) for answer in answers.values() if isinstance(answer, (SaidRemoved, Unauthenticated))]
        self.refused = refusals[0] if refusals and not handed and not self._hears_a_leader() else ""
        saying_so = sum(isinstance(answer, SaidRemoved) for answer in answers.values())
        if saying_so > len(handed):
            await self._learn(removal_said(len(members), saying_so))
        chosen = believed(handed, known=len(members))
        if self.refused:
            self._say(self.refused)
        elif chosen is None:
            reasons = "; ".join(f"{members[node_id].name}: {_said(answers[node_id])}" for node_id in sorted(answers))
            self._say(f"the secret was rotated while this node was away, and no majority hands over the present one: {reasons}")
        elif self._store.fingerprint_of(chosen.sending) != self._store.sends:
            try:
                await self._replace(chosen)
            except OperatorError as error:
                self._say(f"{error.message}: {error.cause}")
                return
            LOG.info("back: %d members handed over the secret that was brought in while this node was away", len(handed))
            self._streams.wake_all()

    async def _ask_secrets(self, node: Node) -> Handed:
        """One member's answer. Raises `PeerError`."""
        reply = await self._ask(node, Recall(REJOIN_VERSION, self._me, self._cluster_id, self._generation))
        if not isinstance(reply, Recalled):
            raise BadMessage(f"{node.name} answers another question")
        return self._store.open_handed(reply.sealed)

    async def _ask_generation(self, node: Node) -> int:
        """Which recovery that member follows. Raises `PeerError`."""
        question = Recall(REJOIN_VERSION, self._me, self._cluster_id, self._generation, generation_only=True)
        reply = await self._ask(node, question)
        return reply.recovery_generation if isinstance(reply, Follows) else GENERATION_UNSAID

    async def _ask(self, node: Node, question: Recall) -> Recalled | Follows:
        """One question, one answer. Raises `PeerError`, for a refusal too."""
        with trio.move_on_after(ANSWER_S):
            secure = await self._dialer.dial(node.address, PROTOCOL_REJOIN)
            try:
                if (secure.node_id, secure.fingerprint) != (node.id, node.fingerprint):
                    raise Unreachable(f"what answers at {node.address} is not {node.name}")
                await send_body(secure.stream, codec.encode(question))
                reply = decode_recall_reply_untrusted(await receive_body(secure.stream))
            finally:
                await close_now(secure.stream)
            if isinstance(reply, Refused):
                raise _REFUSALS.get(reply.code, Unreachable)(f"{reply.message}: {reply.cause}".rstrip(": "))
            return reply
        raise Unreachable(f"no answer within {ANSWER_S:g} s")

    def _say(self, text: str) -> None:
        if trio.current_time() - self._said_at >= SAY_EVERY_S:
            self._said_at = trio.current_time()
            LOG.warning("%s", text)


def believed(handed: list[Handed], *, known: int) -> Handed | None:
    """The answer whose givers are, with the one who asks, a majority of the `known` members (the asker among them). None when
    there is none, or two: in a small cluster a removed node and a present one can weigh the same."""
    by_secret = {answer.sending: answer for answer in handed}
    givers = Counter(answer.sending for answer in handed)
    majorities = [answer for secret, answer in by_secret.items() if 2 * (givers[secret] + 1) > known]
    return majorities[0] if len(majorities) == 1 else None


def _said(answer: Handed | PeerError) -> str:
    return "hands over a secret" if isinstance(answer, Handed) else str(answer)
