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
the asker's generation, a log of one that was superseded has no say, and a node that has a leader listens to nobody else but to
members of a generation that took the place of that leader's.

Promises: a node that leads, has heard a leader in the last `LEADER_SILENT_S` or is answered by one learns nothing of its removal
from members of its own generation, and never anything from those of an earlier one; no secret changes unless such a majority
agrees; a round is begun at most once a second, and only while fewer than a majority are connected or no leader is heard; at most
`STRANGERS_MAX` connections of others than members are held at once.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Container, Mapping
from typing import Protocol

import trio

from swarm.drivers.boot import receive_body, send_body, wait_for_end
from swarm.drivers.keys import KeyStore, may_hand
from swarm.drivers.link import close_now
from swarm.drivers.removal import OwnRemoval, removal_said
from swarm.drivers.streams import Streams
from swarm.errors import OperatorError, PeerError, Unauthenticated, Unreachable
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
    REMOVED_LATER,
    Handed,
    Recall,
    Recalled,
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
BARRIER_S = 3.0
UNKNOWN = "unauthorized"
ADMITTED_NOT = "the log admits no node of this id with this key"


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
    ) -> None:
        """`removed` are the ids that the log here has removed."""
        self._removed = removed
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

    def _answer(self, question: Recall, secure: SecureStream) -> Recalled | Refused:
        if question.node_id != secure.node_id or question.version != REJOIN_VERSION:
            raise Unauthenticated("a question in another node's name, or of another version")
        node = self._admitted(secure.node_id)
        if question.cluster_id != self._cluster_id or node is None or node.fingerprint != secure.fingerprint:
            self.counters["rejoin_refused"] += 1
            if self._has_removed(question):
                later = supersedes(self._generation, question.recovery_generation)
                code = REMOVED_LATER if later else REMOVED
                return Refused(code, "this node is no member of the cluster any more", "it was removed")
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


class SaidRemovedLater(SaidRemoved):
    """So says a member of a recovery generation that took the place of this node's: leaders of this one count for nothing."""

    reason = "said_removed_later"


_REFUSALS: dict[str, type[PeerError]] = {
    REMOVED: SaidRemoved,
    REMOVED_LATER: SaidRemovedLater,
    UNKNOWN: Unauthenticated,
}


class Replacing(Protocol):
    """What is done with the answer of a majority."""

    def __call__(self, handed: Handed) -> Awaitable[None]: ...


class Leader(Protocol):
    """Whether there is one for this node."""

    @property
    def leader_contact_age_s(self) -> float: ...
    async def read_barrier(self, timeout_s: float = ...) -> int: ...


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
    ) -> None:
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
        self._said_at = float("-inf")

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await trio.sleep(LOOK_S)
            if self._removal.may_be_wrong or self._removal.is_unsaved:
                await self._look_for_a_leader()
            if self._left_behind():
                await self._round()

    async def _look_for_a_leader(self) -> bool:
        """Whether one answers, which takes back what others say of this node's removal."""
        try:
            await self._leader.read_barrier(BARRIER_S)
        except (OperatorError, PeerError):
            return False
        await self._removal.revoke()
        return True

    async def _learn(self, said: Removal, *, later: bool) -> None:
        """Others say so: a leader, looked for after they spoke, knows better, unless they are of a later generation than it."""
        if later or (not self._hears_a_leader() and not await self._look_for_a_leader()):
            await self._removal.learn(said, is_later=later)

    def _left_behind(self) -> bool:
        if not self._streams.estranged():
            return False
        members = self._members()
        connected = sum(1 for node_id in members if node_id == self._me or self._streams.connected(node_id))
        return 2 * connected <= len(members) or not self._hears_a_leader()

    def _hears_a_leader(self) -> bool:
        """Or is the leader."""
        return self._leader.leader_contact_age_s <= LEADER_SILENT_S

    async def _round(self) -> None:
        """Ask everybody who is estranged, at once."""
        members, answers = self._members(), dict[NodeId, Handed | PeerError]()

        async def ask(node: Node) -> None:
            try:
                answers[node.id] = await self._ask(node)
            except PeerError as error:
                answers[node.id] = error

        async with trio.open_nursery() as nursery:
            for node_id, _ in self._streams.estranged():
                if node_id in members:
                    nursery.start_soon(ask, members[node_id])
        handed = [answer for answer in answers.values() if isinstance(answer, Handed)]
        refusals = [str(answer) for answer in answers.values() if isinstance(answer, (SaidRemoved, Unauthenticated))]
        later = sum(isinstance(answer, SaidRemovedLater) for answer in answers.values())
        self.refused = refusals[0] if refusals and not handed and (later or not self._hears_a_leader()) else ""
        saying_so = later or sum(isinstance(answer, SaidRemoved) for answer in answers.values())
        if saying_so > len(handed):
            await self._learn(removal_said(len(members), saying_so), later=later > 0)
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

    async def _ask(self, node: Node) -> Handed:
        """One member's answer. Raises `PeerError`."""
        with trio.move_on_after(ANSWER_S):
            secure = await self._dialer.dial(node.address, PROTOCOL_REJOIN)
            try:
                if (secure.node_id, secure.fingerprint) != (node.id, node.fingerprint):
                    raise Unreachable(f"what answers at {node.address} is not {node.name}")
                question = Recall(REJOIN_VERSION, self._me, self._cluster_id, self._generation)
                await send_body(secure.stream, codec.encode(question))
                reply = decode_recall_reply_untrusted(await receive_body(secure.stream))
            finally:
                await close_now(secure.stream)
            if isinstance(reply, Refused):
                raise _REFUSALS.get(reply.code, Unreachable)(f"{reply.message}: {reply.cause}".rstrip(": "))
            return self._store.open_handed(reply.sealed)
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
