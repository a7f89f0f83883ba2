"""Recovery: the way of a node into another recovery generation, by an operator's order or because others are there already.

A node can get there in two ways. It *begins* a generation when `swarm recover` says so: the order goes into the data folder, and
the daemon starts anew; before it does anything else it writes what `consensus.recovery` says. It *follows* one when a member says
in its hello that it is in a later one: the log here is set aside, and the daemon starts anew as a learner that has nothing and
takes the log of the others. Containers run on either way, as over any restart.

Promises kept here: the new generation is in the data folder before the daemon acts in it, and is never left for an earlier one;
a rival (another recovery of the same number) is not followed, only told of; a recovery is refused while there is a quorum, a
leader, or (unless the operator insists) a survivor with a newer log. The leader of a rival may begin one, to settle which of them
stays.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple, Protocol

import trio

from swarm.consensus.effects import Role
from swarm.consensus.recovery import Look, Survey
from swarm.drivers.consensus import Replica
from swarm.errors import Conflict, OperatorError, PeerError, UsageError
from swarm.model.generation import generation_text, next_generation, supersedes
from swarm.model.ids import NodeId
from swarm.model.node import Node
from swarm.ports import Peers
from swarm.wire.codec import decode_untrusted, encode
from swarm.wire.rejoin import Handed

LOG = logging.getLogger("swarm.recovery")
CALL = "recovery.look"
ASK_S = 2.0
RETRY_S = 5.0
_LOOK_BYTES_MAX = 4096


class RecoveryStore(Protocol):
    """The data folder, as far as it says which generation this node follows. Each method is durable when it returns, and raises
    `Unavailable` when the disk refuses."""

    async def save_begun(self, generation: int) -> None:
        """The next start begins this generation with the log that is here."""

    async def save_followed(self, generation: int, reason: str, handed: Handed | None) -> None:
        """The next start follows this generation, with those secrets if there are any, and sets the log aside because of
        `reason`. Generation and secrets together or not at all; the log may have been set aside when this raises."""


class _Following(NamedTuple):
    """Where to go."""

    heard_from: NodeId
    generation: int
    handed: Handed | None


class Recovery:
    """Answers who looks, surveys, begins, follows. Make it before the streams start; `restart` has the daemon start anew."""

    def __init__(
        self,
        replica: Replica,
        peers: Peers,
        store: RecoveryStore,
        *,
        generation: int,
        store_generation: int,
        members: Callable[[], Mapping[NodeId, Node]],
        rng: random.Random,
        restart: Callable[[], None],
        keep_state: Callable[[], Awaitable[None]],
        is_leaving: Callable[[], bool] = lambda: False,
        refuse: Callable[[], None] = lambda: None,
    ) -> None:
        """`keep_state` keeps what this node last knew, for people, before its log is set aside; it must not raise. `refuse`
        raises `Conflict` where this node has no business to begin a recovery."""
        self._replica = replica
        self._peers = peers
        self._store = store
        self.generation = generation
        self._store_generation = store_generation
        self._members = members
        self._rng = rng
        self._restart = restart
        self._keep_state = keep_state
        self._is_leaving = is_leaving
        self._refuse = refuse
        self._following: _Following | None = None
        self._is_begun = False
        self._wake = trio.Event()
        self._changing = trio.Lock()
        self._rivals: dict[NodeId, int] = {}
        self._hindrance = ""
        """Why the generation that was heard of cannot be followed yet."""
        peers.on_call(CALL, self._on_look)

    # ---- others are somewhere else

    def on_generation(self, node_id: NodeId, generation: int, handed: Handed | None = None) -> None:
        """A member follows another generation than this node; `handed` are the secrets there, if it said them. Must not wait."""
        if supersedes(generation, self.generation):
            known = self._following
            has_more = known is not None and generation == known.generation and handed not in (None, known.handed)
            if known is None or supersedes(generation, known.generation) or has_more:
                self._following = _Following(node_id, generation, handed)
                self._wake.set()
        elif not supersedes(self.generation, generation) and self._rivals.get(node_id) != generation:
            self._rivals[node_id] = generation
            LOG.error("%s", self._rival_text(node_id))

    @property
    def is_following(self) -> bool:
        """Whether this node is about to give its log up."""
        return self._following is not None

    def complaints(self) -> list[str]:
        """Rivals that were met, and a recovery that cannot be followed yet, one line each."""
        hindered = [f"the cluster was recovered without this node, which cannot follow yet: {self._hindrance}"]
        return [*(hindered if self._hindrance else ()), *(self._rival_text(node_id) for node_id in sorted(self._rivals))]

    def _rival_text(self, node_id: NodeId) -> str:
        theirs, ours = generation_text(self._rivals[node_id]), generation_text(self.generation)
        return (
            f"{self._name(node_id)} follows {theirs} of the cluster, this node {ours}: the cluster was recovered twice. "
            f"Decide which to keep, and run swarm recover once more on its leader; the nodes of the other then give their log up"
        )

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled. Follows a later generation as soon as one is heard of."""
        task_status.started()
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            if self._following is None:
                continue
            try:
                await self._follow()
            except OperatorError as error:
                self._hindrance = f"{error.message}: {error.cause}".rstrip(": ")
                LOG.warning("cannot follow %s yet: %s", generation_text(self._following.generation), self._hindrance)
                await trio.sleep(RETRY_S)
                self._wake.set()

    async def _follow(self) -> None:
        async with self._changing:
            await self._keep_state()
            assert self._following is not None
            to = self._following
            new, old = generation_text(to.generation), generation_text(self.generation)
            reason = f"the cluster was recovered without this node ({new}, heard from {self._name(to.heard_from)}, after {old})"
            await self._store.save_followed(to.generation, reason, to.handed)
        LOG.warning("%s: this node starts anew as a learner of it; containers run on", reason)
        self._restart()

    def _name(self, node_id: NodeId) -> str:
        node = self._members().get(node_id)
        return node.name if node is not None else str(node_id)

    # ---- what is there

    def look(self) -> Look:
        """Where this node stands."""
        replica, core = self._replica, self._replica.core
        age_s = replica.leader_contact_age_s
        return Look(
            replica.node_id,
            self._store_generation,
            replica.term,
            core.last_index,
            core.term_at(core.last_index) or 0,
            core.commit_index,
            replica.applied_index,
            -1.0 if math.isinf(age_s) else age_s,
            replica.role is Role.LEADER and replica.lease_valid,
        )

    async def _on_look(self, source: NodeId, payload: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        return encode(self.look())

    async def survey(self) -> Survey:
        """Ask every member that has a connection. About two seconds at most."""
        found: dict[NodeId, Look] = {}
        async with trio.open_nursery() as nursery:
            for node_id in self._members():
                if node_id != self._replica.node_id and self._peers.connected(node_id):
                    nursery.start_soon(self._ask, node_id, found)
        others = tuple(found[node_id] for node_id in sorted(found))
        return Survey(self.look(), others, self._replica.configuration, bool(self._rivals))

    async def _ask(self, node_id: NodeId, found: dict[NodeId, Look]) -> None:
        try:
            data = await self._peers.call(node_id, CALL, b"", timeout_s=ASK_S)
            look = decode_untrusted(data, Look, bytes_max=_LOOK_BYTES_MAX)
        except (PeerError, OperatorError) as error:
            LOG.info("%s did not say where it stands: %s", self._name(node_id), error)
            return
        if look.node_id == node_id:
            found[node_id] = look

    # ---- the order

    def refuse(self, survey: Survey, *, even_behind: bool = False) -> None:
        """Raise `Conflict` where `begin` would not begin, by what the survey found."""
        self._refuse()
        refuse_needless(survey, self._name, even_behind=even_behind)

    async def begin(self, *, confirm: str, even_behind: bool) -> int:
        """Begin a new generation with this node as its only voter; the daemon then starts anew. Returns the generation. Raises
        `UsageError` or `Conflict`, having done nothing, or `Unavailable` when the data folder cannot be written."""
        name = self._name(self._replica.node_id)
        if confirm != name:
            raise UsageError("cannot recover: not confirmed", cause=f"confirm with the name of this node, {name}")
        if self._is_leaving():
            hint = "run swarm recover on another survivor, or end this daemon (SIGTERM twice) and start it again first"
            raise Conflict("cannot recover here: this node is leaving the cluster", cause="it would begin alone", hint=hint)
        survey = await self.survey()
        self.refuse(survey, even_behind=even_behind)
        async with self._changing:
            if self._following is not None:
                raise Conflict("cannot recover: the cluster was recovered elsewhere", cause="this node is about to follow")
            if self._is_begun:
                raise Conflict("cannot recover: it is under way", cause="this node is about to start anew")
            generation = next_generation(self.generation, self._rng)
            await self._store.save_begun(generation)
            self._is_begun = True
        missing = ", ".join(self._name(NodeId(voter.node_id)) for voter in survey.missing)
        LOG.warning("begins %s with its log up to %d, without %s", generation_text(generation), survey.mine.last_index, missing)
        self._restart()
        return generation


def refuse_needless(survey: Survey, name: Callable[[NodeId], str], *, even_behind: bool) -> None:
    """Raise `Conflict` when a recovery is not needed, or would begin at the wrong node."""
    if survey.mine.last_index == 0:
        raise Conflict("cannot recover: this node has no log yet", hint="recover on another survivor")
    if survey.has_rival and survey.mine.leads:
        return
    leader = survey.leader
    if leader is not None:
        what = "leads" if leader.leads else f"heard a leader {leader.leader_age_s:.1f} s ago"
        raise Conflict("cannot recover: there is a leader", cause=f"{name(leader.node_id)} {what}", hint="see swarm status")
    if survey.has_quorum:
        raise Conflict(
            "cannot recover: a majority of the voters is there", cause="they will elect a leader", hint="see swarm status"
        )
    best = survey.best
    if best.node_id != survey.mine.node_id and not even_behind:
        raise Conflict(
            f"cannot recover here: {name(best.node_id)} has a newer log",
            cause=f"its last entry is {best.last_index} of term {best.last_term}, "
            f"here it is {survey.mine.last_index} of term {survey.mine.last_term}",
            hint=f"run swarm recover on {name(best.node_id)}, or give up what only it has with --even-behind",
        )
