"""The way back for a member that was away while the secret was rotated, or the cluster recovered, once or many times.

Its certificate is signed by an authority that is retired, and it knows none of the present one: no stream comes about. On a
protocol of its own a member takes it all the same (`drivers.rejoin_desk`), and hands it the present secrets, sealed to the key
that the log pins for its id. A removed node has no pinned key and gets a refusal.

The one that comes back knows the others by the keys its own log pins. One of them may have been removed meanwhile, and may say
anything; so it believes an answer only when those who give the same one are, with itself, a majority of the members it knows.
That is also what it would take to lead it astray through the log.

A member that is told that it was removed goes by that as `drivers.removal` says; it asks also while it is connected to a majority
of those it knows, if no leader is heard: they may all have been removed with it. Those who say so may be the ones that are
behind: after a recovery a member of the earlier generation comes back with a log that has others removed. So the question names
the asker's generation, a log of one that was superseded has no say, and a node that has a leader learns nothing of its removal
but from those whose generation took the place of that leader's.

It may be the leader that is behind: the old voters come back together, elect one, and cannot hear of the recovery, because the
secret was rotated after it. So a node that has a leader asks those it has no stream with which recovery they follow. One answer
of a later one is enough, as in a hello (`drivers.recovery`), and so is one for the secrets that go with it: a leader has answered
just before, and the log here was read up to that, so whoever it still admits was not removed in this generation, and could
mislead it in other ways as well. A majority may not exist: a recovery is what a minority does. Without a leader to vouch, whoever
speaks of a later generation may be a removed node: an authority of its own making is all that it needs to be asked.

Promises: what one says that the log, read up to a leader's answer, admits no more, that answer takes back; a node that leads, has
heard a leader in the last `LEADER_SILENT_S` or is answered by one learns nothing of its removal from members of that leader's
generation, and never anything from those of an earlier one; no secret changes unless a majority agrees; a round is begun at most
once a second, and only while fewer than a majority are connected or no leader is heard; while one is heard, the others' recovery
is asked for every `GENERATION_EVERY_S`, and before others' word of a removal is taken back.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from enum import Enum
from typing import Protocol, TypeVar

import trio

from swarm.drivers.boot import receive_body, send_body
from swarm.drivers.keys import KeyStore
from swarm.drivers.link import close_now
from swarm.drivers.rejoin_desk import ANSWER_S
from swarm.drivers.removal import OwnRemoval, removal_said
from swarm.drivers.streams import Streams
from swarm.errors import BadMessage, OperatorError, PeerError, Unauthenticated, Unreachable
from swarm.model.generation import supersedes
from swarm.model.ids import ClusterId, NodeId
from swarm.model.node import Node
from swarm.ports import PROTOCOL_REJOIN, Dialer
from swarm.wire import codec
from swarm.wire.boot import Refused
from swarm.wire.rejoin import (
    GENERATION_UNSAID,
    REJOIN_VERSION,
    REMOVED,
    REMOVED_LATER,
    UNKNOWN,
    Follows,
    Handed,
    Recall,
    Recalled,
    decode_recall_reply_untrusted,
)

LOG = logging.getLogger("swarm.keys")
LOOK_S = 1.0
SAY_EVERY_S = 10.0
LEADER_SILENT_S = 5.0
"""Elections take about a second."""
GENERATION_EVERY_S = 10.0
BARRIER_S = 3.0

T = TypeVar("T")


class Leading(Enum):
    """What a node finds that looks for a leader."""

    NOBODY = "nobody answers"
    BEHIND = "one answers, and the log here does not come as far as that: nothing is known either way"
    SUPERSEDED = "one answers, whose recovery another one took the place of"
    PRESENT = "one answers that nobody knows better than"


class SaidRemoved(PeerError):
    """A member's log has this node removed. No state changed; what that means depends on how many say so."""

    reason = "said_removed"


class SaidRemovedLater(SaidRemoved):
    """So says a member of a recovery generation that took the place of this node's: leaders of this one count for nothing."""

    reason = "said_removed_later"


class SaidUnknown(Unauthenticated):
    """A member's log does not admit this node, and may only be behind. No state changed."""

    reason = "said_unknown"


_REFUSALS: dict[str, type[PeerError]] = {REMOVED: SaidRemoved, REMOVED_LATER: SaidRemovedLater, UNKNOWN: SaidUnknown}


class Replacing(Protocol):
    """What is done with the answer of a majority."""

    def __call__(self, handed: Handed) -> Awaitable[None]: ...


class Elsewhere(Protocol):
    """`drivers.recovery`: is told of a member that follows another recovery, with the secrets there if it handed them over."""

    @property
    def is_following(self) -> bool: ...
    def on_generation(self, node_id: NodeId, generation: int, handed: Handed | None = None) -> None: ...


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
        recovery: Elsewhere,
    ) -> None:
        """`removal` is this node's own; `replace` is given what a majority hands over."""
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
        self._recovery = recovery
        self._said_at = self._looked_at = -math.inf
        self._later: set[NodeId] = set()
        """Who said in this life of the daemon that a later recovery took the place of this node's."""

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await trio.sleep(LOOK_S)
            if self._removal.may_be_wrong or self._removal.is_unsaved or self._leader_is_due():
                await self._look_for_a_leader()
            if not self._left_behind():
                self.refused = ""
            elif not self._recovery.is_following:
                await self._round()

    def _leader_is_due(self) -> bool:
        """Whether to ask again if the leader that is heard is one of the present."""
        waited_s = trio.current_time() - self._looked_at
        return waited_s >= GENERATION_EVERY_S and self._hears_a_leader() and bool(self._apart())

    async def _look_for_a_leader(self) -> Leading:
        """One of the present takes back what others say of this node's removal."""
        self._looked_at = trio.current_time()
        try:
            index = await self._leader.read_barrier(BARRIER_S)
        except (OperatorError, PeerError):
            return Leading.NOBODY
        with trio.move_on_after(BARRIER_S) as bound:
            await self._leader.wait_applied(index)
        if bound.cancelled_caught:
            return Leading.BEHIND
        if await self._is_superseded():
            return Leading.SUPERSEDED
        await self._removal.revoke()
        return Leading.PRESENT

    async def _is_superseded(self) -> bool:
        """Whether a member says, or has said, that the cluster was recovered without this node and its leader, who has just
        answered. Whoever says so now is followed."""
        said = await self._ask_all(self._apart(), self._ask_generation)
        admitted = self._members()
        others = {node_id: each for node_id, each in said.items() if isinstance(each, int) and node_id in admitted}
        later = {node_id: each for node_id, each in others.items() if supersedes(each, self._generation)}
        self._later = {node_id for node_id in (*self._later, *later) if node_id in admitted}
        for node_id in sorted(others.keys() - later):
            if others[node_id] not in (GENERATION_UNSAID, self._generation):
                self._recovery.on_generation(node_id, others[node_id])
        if later:
            newest = max(later.values())
            await self._go_over([admitted[node_id] for node_id in sorted(later) if later[node_id] == newest], newest)
        return bool(self._later)

    async def _go_over(self, there: list[Node], generation: int) -> None:
        """With the secrets of one of them, if this node is a member there: they may be fewer than would be believed later. They
        have read their log, or would not say which it is; so one that does not know this node is not merely behind. Where nobody
        hands anything over yet all are asked again."""
        said = await self._ask_all(there, self._ask_secrets)
        admitted = self._members()
        answers = {node.id: said[node.id] for node in there if node.id in admitted}
        for node_id, answer in answers.items():
            if isinstance(answer, Handed):
                self._recovery.on_generation(node_id, generation, answer)
                return
        for node_id, answer in answers.items():
            if isinstance(answer, (SaidRemoved, SaidUnknown)):
                self._recovery.on_generation(node_id, generation)
                return
        reasons = "; ".join(f"{node.name}: {_said(said[node.id])}" for node in there)
        self._say(f"the cluster was recovered without this node, and nobody there hands over the secret yet: {reasons}")

    async def _learn(self, sayers: set[NodeId], later: set[NodeId]) -> None:
        """Those say that this node was removed, some of them that their recovery took the place of its own. A leader, looked for
        after they spoke, knows better than those of its own generation, and who is no member any more."""
        self._later |= later
        leading = await self._look_for_a_leader()
        if leading in (Leading.PRESENT, Leading.BEHIND) or (leading is Leading.NOBODY and self._hears_a_leader()):
            return
        members, counted = self._members(), later if leading is Leading.SUPERSEDED else _most(later, sayers)
        saying_so = sum(node_id in members for node_id in counted)
        if saying_so:
            await self._removal.learn(removal_said(len(members), saying_so))

    def _apart(self) -> list[Node]:
        """Members that answer, and that no stream comes about with."""
        members = self._members()
        found = {node_id for node_id, _ in (*self._streams.estranged(), *self._streams.refusals())}
        return [members[node_id] for node_id in sorted(found) if node_id in members]

    def _left_behind(self) -> bool:
        if not self._streams.estranged():
            return False
        members = self._members()
        connected = sum(1 for node_id in members if node_id == self._me or self._streams.connected(node_id))
        return 2 * connected <= len(members) or not self._hears_a_leader()

    def _hears_a_leader(self) -> bool:
        """Or is the leader."""
        return self._leader.leader_contact_age_s <= LEADER_SILENT_S

    async def _ask_all(self, nodes: Iterable[Node], question: Callable[[Node], Awaitable[T]]) -> dict[NodeId, T | PeerError]:
        """All of them at once."""
        answers = dict[NodeId, T | PeerError]()

        async def ask(node: Node) -> None:
            try:
                answers[node.id] = await question(node)
            except PeerError as error:
                answers[node.id] = error

        async with trio.open_nursery() as nursery:
            for node in nodes:
                nursery.start_soon(ask, node)
        return answers

    async def _round(self) -> None:
        """Ask everybody who is estranged for the present secrets, and go by the answers."""
        members = dict(self._members())
        estranged = [members[node_id] for node_id, _ in self._streams.estranged() if node_id in members]
        answers = await self._ask_all(estranged, self._ask_secrets)
        handed = [answer for answer in answers.values() if isinstance(answer, Handed)]
        sayers = {node_id for node_id, answer in answers.items() if isinstance(answer, SaidRemoved)}
        later = {node_id for node_id in sayers if isinstance(answers[node_id], SaidRemovedLater)}
        if len(_most(later, sayers)) > len(handed):
            await self._learn(sayers, later)
        refusals = [str(answer) for answer in answers.values() if isinstance(answer, (SaidRemoved, Unauthenticated))]
        self.refused = refusals[0] if refusals and not handed and not self._hears_a_leader() else ""
        chosen = believed(handed, known=len(members))
        if self.refused:
            self._say(self.refused)
        elif chosen is None:
            reasons = "; ".join(f"{members[node_id].name}: {_said(answers[node_id])}" for node_id in sorted(answers))
            why = "members do not take this node's secret (rotated while it was away?), or are not where the log has them"
            self._say(f"{why}, and no majority hands over a newer one: {reasons}")
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


def _most(later: set[NodeId], sayers: set[NodeId]) -> set[NodeId]:
    """Those that speak for a later recovery and those that do not are not added up: either may be mistaken about the other."""
    return max(later, sayers - later, key=len)


def _said(answer: Handed | PeerError) -> str:
    return "hands over a secret" if isinstance(answer, Handed) else str(answer)
