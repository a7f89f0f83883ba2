"""The leader's duties on a simulated daemon: look, decide, propose, as `drivers.controllers` does.

Between deciding and proposing the process may be stopped, as between any two effects; so whether it may act is asked again for
each proposal.
"""

from __future__ import annotations

from typing import Any

from swarm.drivers.controllers import Leadership
from swarm.errors import OperatorError
from swarm.model.command import COMMANDS, KIND_OF
from swarm.model.entry import Entry, Voter
from swarm.model.ids import NodeId, RequestId
from swarm.model.outcome import Applied
from swarm.model.view import ClusterView
from swarm.scheduler import Policy
from swarm.simulation.departures import Departures
from swarm.simulation.gossip import Gossip
from swarm.simulation.node import Daemon
from swarm.simulation.replica import Replica
from swarm.wire.codec import encode

LOOK_EVERY_S = 1.0
WAKE_S = 0.001


class Duties:
    """Runs on every daemon, acts on the leader."""

    def __init__(self, daemon: Daemon, replica: Replica, gossip: Gossip, departures: Departures) -> None:
        self.daemon = daemon
        self.replica = replica
        self.gossip = gossip
        self.departures = departures
        self._leadership: Leadership | None = None
        self._proposed_index = 0
        self._looking = False
        replica.on_applied.append(self._on_applied)
        daemon.later(LOOK_EVERY_S, None, self._every_second)

    def wake(self) -> None:
        """Look in the next turn of the loop."""
        if not self._looking:
            self._looking = True
            self.daemon.later(WAKE_S, None, self._look)

    def _on_applied(self, entries: tuple[Entry, ...], results: tuple[Applied, ...], restored: bool) -> None:
        if self._leadership is not None:
            if restored:
                self._leadership.planner.touch_everything()
            for applied in results:
                self._leadership.planner.touch(NodeId(each) for each in sorted(applied.touched_nodes))
        self.wake()

    def on_gossip(self) -> None:
        """A member changed: what could not be placed may be placeable now."""
        if self._leadership is not None:
            self._leadership.planner.look_again()
        self.wake()

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
            leadership = self._leadership = Leadership(term, self.daemon.now(), Policy.SPREAD)
            self._proposed_index = 0
        if replica.applied_index < self._proposed_index:
            return
        view = self._view(leadership.since)
        leadership.look_back(view)
        for command in leadership.decide(view):
            self.daemon.todo(replica, self._propose, (command, term))
        voters = leadership.voters.reconcile(view)
        if voters is not None:
            self.daemon.todo(replica, self._change_voters, voters)
        heir = leadership.lead.reconcile(view)
        if heir is not None:
            self.daemon.todo(replica, self._hand_over, heir)

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
            leaving=self.departures.leaving(),
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

    def _hand_over(self, heir: NodeId) -> None:
        try:
            self.replica.core.transfer_leadership(heir, self.daemon.now())
        except OperatorError:
            return
        if self.daemon.world.tracing:
            self.daemon.world.trace(self.daemon.host.name, f"hands over to {self.daemon.scene.name_of(heir)}")

    def _change_voters(self, voters: tuple[Voter, ...]) -> None:
        now = self.daemon.now()
        try:
            self.replica.core.propose_configuration(voters, now, self.daemon.host.clock.utc())
        except OperatorError:
            return
        if self.daemon.world.tracing:
            names = ", ".join(self.daemon.scene.name_of(voter.node_id) for voter in voters)
            self.daemon.world.trace(self.daemon.host.name, f"changes the voters to {names}")
