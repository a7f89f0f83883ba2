"""The leader's duties on a simulated daemon: look, decide, propose, as `drivers.controllers` does.

Between deciding and proposing the process may be stopped, as between any two effects; so whether it may act is asked again for
each proposal.
"""

from __future__ import annotations

from typing import Any

from swarm.controllers import Replacing, VerdictController, VoterController, drain_wishes, settle_moves
from swarm.errors import OperatorError
from swarm.model.command import COMMANDS, KIND_OF
from swarm.model.entry import Voter
from swarm.model.ids import RequestId
from swarm.model.view import ClusterView
from swarm.scheduler import Policy, plan
from swarm.simulation.gossip import Gossip
from swarm.simulation.node import Daemon
from swarm.simulation.replica import Replica
from swarm.wire.codec import encode

LOOK_EVERY_S = 1.0
WAKE_S = 0.001
PLACEMENTS_MAX = 512


class _Leadership:
    """What one term's leader remembers."""

    def __init__(self, term: int, since: float) -> None:
        self.term = term
        self.since = since
        self.verdicts = VerdictController()
        self.replacing = Replacing()
        self.voters = VoterController()

    def decide(self, view: ClusterView) -> list[Any]:
        """Commands, in the order in which they should be applied."""
        verdicts = self.verdicts.reconcile(view)
        if verdicts:
            return list(verdicts)
        wishes = self.replacing.reconcile(view, brake_until=self.verdicts.brake_until)
        moves, stops = drain_wishes(view)
        placed = plan(view, replacements=(*wishes.replacements, *moves), policy=Policy.SPREAD, limit=PLACEMENTS_MAX)
        return [*settle_moves(view), *stops, *wishes.reasons, *placed.commands]


class Duties:
    """Runs on every daemon, acts on the leader."""

    def __init__(self, daemon: Daemon, replica: Replica, gossip: Gossip) -> None:
        self.daemon = daemon
        self.replica = replica
        self.gossip = gossip
        self._leadership: _Leadership | None = None
        self._proposed_index = 0
        self._looking = False
        replica.on_applied.append(lambda entries, results, restored: self.wake())
        daemon.later(LOOK_EVERY_S, None, self._every_second)

    def wake(self) -> None:
        """Look in the next turn of the loop."""
        if not self._looking:
            self._looking = True
            self.daemon.later(WAKE_S, None, self._look)

    def _every_second(self) -> None:
        self.daemon.later(LOOK_EVERY_S, None, self._every_second)
        self.wake()

    def _look(self) -> None:
        self._looking = False
        replica = self.replica
        if not replica.may_act:
            self._leadership = None
            return
        leadership = self._leadership
        term = replica.core.term
        if leadership is None or leadership.term != term:
            leadership = self._leadership = _Leadership(term, self.daemon.now())
            self._proposed_index = 0
        if replica.applied_index < self._proposed_index:
            return
        view = self._view(leadership.since)
        for command in leadership.decide(view):
            self.daemon.todo(replica, self._propose, (command, term))
        voters = leadership.voters.reconcile(view)
        if voters is not None:
            self.daemon.todo(replica, self._change_voters, voters)

    def _view(self, since: float) -> ClusterView:
        core = self.replica.core
        return self.replica.catalog.view(
            self.daemon.now(),
            self.daemon.node_id,
            self.gossip.members(),
            last_index=core.last_index,
            is_leader=self.replica.may_act,
            leader_since=since,
            configuration=core.configuration,
            configuration_committed=core.is_configuration_committed,
            followers=core.followers(),
        )

    def _propose(self, planned: tuple[Any, int]) -> None:
        command, term = planned
        if not self.replica.may_act or self.replica.core.term != term:
            return
        kind = KIND_OF[type(command)]
        try:
            proposed = self.replica.propose(kind, COMMANDS[kind][0], encode(command), RequestId(""))
        except OperatorError:
            return
        self._proposed_index = proposed.index
        self.daemon.scene.watch.acted(self.daemon, kind)
        if self.daemon.world.tracing:
            self.daemon.world.trace(self.daemon.host.name, f"decides {command}")

    def _change_voters(self, voters: tuple[Voter, ...]) -> None:
        now = self.daemon.now()
        try:
            self.replica.core.propose_configuration(voters, now, self.daemon.host.clock.utc())
        except OperatorError:
            return
        if self.daemon.world.tracing:
            names = ", ".join(self.daemon.scene.name_of(voter.node_id) for voter in voters)
            self.daemon.world.trace(self.daemon.host.name, f"changes the voters to {names}")
