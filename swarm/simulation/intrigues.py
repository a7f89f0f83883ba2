"""Faults that need somebody's hand or a moment: ambushes in the middle of a step, hand-overs, voter changes, odd networks.

An ambush waits for one kind of effect (a write, a message, an entry given to the catalog, an operation of the engine, a plan that
is to be proposed) and strikes right before it is carried out: the process stands still for ten leases, dies, or loses its host.
So every step of every part is interrupted in its middle sooner or later, and what was decided inside a lease is done long after.

Promise: nothing here does what an operator, an operating system or a network could not.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from swarm.consensus.quorum import majority
from swarm.errors import OperatorError, Unavailable
from swarm.model.entry import Voter
from swarm.model.ids import NodeId
from swarm.simulation.cluster import Cluster, Member
from swarm.simulation.host import Host
from swarm.simulation.node import Daemon

STEPS = (
    "Persist", "Send", "Apply", "RestoreSnapshot", "SendSnapshot", "RoleChanged", "ProposalLost", "StartOperation", "SendReports",
    "NeedBarrier", "tuple",
)  # fmt: skip
"""Effects by name; a tuple is a plan, or a new set of voters, that a leader is about to propose."""
TEN_LEASES_S = 6.8
AMBUSH_S = 8.0
"""An ambush that nobody walked into is lifted after so long."""


class Intrigues:
    """Of one cluster. `is_over` is asked before what happens later."""

    def __init__(self, cluster: Cluster, rng: random.Random, is_over: Callable[[], bool]) -> None:
        self._cluster = cluster
        self._rng = rng
        self._is_over = is_over

    def ambush(self, _: Host) -> None:
        """Whoever is about to carry out an effect of one kind is struck, up to three times."""
        step, strikes = self._rng.choice(STEPS), self._rng.randint(1, 3)
        self._cluster.world.trace("net", f"ambush on {step}")

        def is_struck(daemon: Daemon, effect: object) -> bool:
            nonlocal strikes
            if type(effect).__name__ != step or self._rng.random() < 0.3 or self._is_over():
                return False
            strikes -= 1
            if strikes <= 0:
                self._lift()
            self._strike(daemon)
            return True

        for host in self._cluster.hosts:
            host.ambush = is_struck
        self._cluster.world.after(AMBUSH_S, self._lift_if, is_struck)

    def _strike(self, daemon: Daemon) -> None:
        host = daemon.host
        what = self._rng.random()
        if what < 0.5:
            daemon.freeze(TEN_LEASES_S * (1.0 + 0.3 * self._rng.random()))
        elif what < 0.85:
            host.crash_daemon()
        else:
            host.lose_power()
            self._cluster.world.after(0.1 + 8.0 * self._rng.random() ** 2, host.restore_power)

    def _lift(self) -> None:
        for host in self._cluster.hosts:
            host.ambush = None

    def _lift_if(self, ambush: Callable[[Daemon, object], bool]) -> None:
        for host in self._cluster.hosts:
            if host.ambush is ambush:
                host.ambush = None

    def hand_over(self, _: Host) -> None:
        """The leader is asked to hand over to some voter, be it there or not."""
        leader = self._cluster.leader()
        if leader is None:
            return
        to = self._rng.choice(leader.replica.core.configuration.voters)
        self._intend(leader, lambda: leader.replica.core.transfer_leadership(NodeId(to.node_id), leader.now()))

    def voters(self, _: Host) -> None:
        """Somebody would have other voters; the leader's own rules change them back after a while. Not such that most have lost
        the store that the leader knows them by, or all that was in it: only an operator could go on from there."""
        leader = self._cluster.leader()
        if leader is None:
            return
        learners = leader.replica.learners()
        count = self._rng.choice([size for size in (1, 3, 5) if size <= len(learners)] or [0])
        chosen: list[Voter] = self._rng.sample(learners, count)
        core = leader.replica.core
        utc = leader.host.clock.utc

        def propose() -> None:
            if sum(map(self._is_kept, chosen)) < majority(len(chosen)):
                raise Unavailable("most of them have lost their logs")
            core.propose_configuration(tuple(chosen), leader.now(), utc())

        self._intend(leader, propose)

    def _is_kept(self, voter: Voter) -> bool:
        disk = self._cluster.scene.by_id[NodeId(voter.node_id)].disk
        return not disk.is_damaged and disk.store_generation == voter.store_generation and disk.durable_index > 0

    def _intend(self, member: Member, intent: Callable[[], object]) -> None:
        def try_it() -> None:
            try:
                intent()
            except OperatorError:
                return
            self._cluster.world.trace(member.host.name, "does what it was asked to")

        member.feed(member.replica, try_it)

    def ring(self, _: Host) -> None:
        """Each host reaches only its two neighbours: who is reachable is no transitive matter."""
        numbers = [host.number for host in self._cluster.hosts]
        if len(numbers) < 4:
            return
        self._rng.shuffle(numbers)
        self._cluster.world.trace("net", f"a RING of {numbers}")
        for place, one in enumerate(numbers):
            for far, other in enumerate(numbers):
                if (place - far) % len(numbers) not in (0, 1, len(numbers) - 1):
                    self._cluster.scene.network.cut(one, other)
