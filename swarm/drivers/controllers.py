"""The leader's duties: a loop that looks, decides through the controllers and the scheduler, and proposes.

It wakes when the catalog changed, when gossip did, and once a second. It acts only while the replica may (leader, inside its
lease, everything before its term applied), asked again right before proposing. What it proposed must be applied before it looks
again: a view that does not hold one's own last decisions would repeat them. Controllers with a memory begin anew with each term.

Promise: one step is one turn of the loop; what it proposes carries the term in which it was planned.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

import trio

from swarm.controllers import (
    LeadController,
    Replacing,
    RotationController,
    VerdictController,
    VoterController,
    VotersConfig,
    drain_wishes,
    settle_moves,
)
from swarm.drivers.consensus import NO_REQUEST, Replica
from swarm.drivers.replica_apply import Changes
from swarm.drivers.replica_forward import pack_command
from swarm.drivers.view import ViewSource
from swarm.errors import OperatorError
from swarm.model.command import Assign
from swarm.model.ids import NodeId
from swarm.model.placement import Replacement
from swarm.model.view import ClusterView
from swarm.ports import Clock
from swarm.scheduler import Planner, Policy

LOG = logging.getLogger("swarm.duties")
LOOK_EVERY_S = 1.0
PLACEMENTS_MAX = 64
"""In one step: about 2 ms with the proposals under spread, 5 ms under e-pvm (`tests/bench_placement.py`). The next step follows
when these are applied."""


class Leadership:
    """What one term's leader remembers, and how it decides; the simulation uses the same."""

    def __init__(self, term: int, since: float, policy: Policy, voters: VotersConfig | None = None) -> None:
        self.term = term
        self.since = since
        self.planner = Planner(policy)
        self._placed: tuple[Assign, ...] = ()
        self.verdicts = VerdictController()
        self.replacing = Replacing()
        self.voters = VoterController(voters)
        self.lead = LeadController()
        self.rotation = RotationController()

    def decide(self, view: ClusterView) -> list[Any]:
        """Commands in the order in which they should be applied."""
        verdicts = self.verdicts.reconcile(view)
        if verdicts:
            return list(verdicts)  # what follows from them is decided on the view that holds them
        wishes = self.replacing.reconcile(view, brake_until=self.verdicts.brake_until)
        moves, stops = drain_wishes(view)
        replacements: tuple[Replacement, ...] = (*wishes.replacements, *moves)
        placed = self.planner.plan(view, replacements=replacements, limit=PLACEMENTS_MAX)
        self._placed = placed.commands
        step = self.rotation.reconcile(view)
        rotation = [step] if step is not None else []
        return [*settle_moves(view), *stops, *wishes.reasons, *placed.commands, *rotation]

    def look_back(self, view: ClusterView) -> None:
        """What was placed last has been applied: the room of what was refused is free again."""
        for command in self._placed:
            task = view.tasks.get(command.task_id)
            if task is not None and task.attempts < command.attempt:
                self.planner.refused(command.task_id, view.now)
        self._placed = ()


class Duties:
    """Runs on every node, acts on the leader."""

    def __init__(
        self,
        replica: Replica,
        views: ViewSource,
        clock: Clock,
        *,
        policy: Policy = Policy.SPREAD,
        voters: VotersConfig | None = None,
    ) -> None:
        self._voters = voters
        self._replica = replica
        self._views = views
        self._clock = clock
        self._policy = policy
        self._leadership: Leadership | None = None
        self._proposed_index = 0
        self._wake = trio.Event()
        self.counters: Counter[str] = Counter()
        self.step_s_max = 0.0
        replica.subscribe(self._on_changes)

    def wake(self) -> None:
        """Look soon: gossip changed, or something else that a decision may depend on."""
        if self._leadership is not None:
            self._leadership.planner.look_again()
        self._wake.set()

    def _on_changes(self, changes: Changes) -> None:
        if self._leadership is not None:
            if changes.restored:
                self._leadership.planner.touch_everything()
            for applied in changes.applied:
                self._leadership.planner.touch(NodeId(each) for each in sorted(applied.touched_nodes))
        self._wake.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            task_status.started()
            while True:
                with trio.move_on_after(LOOK_EVERY_S):
                    await self._wake.wait()
                self._wake = trio.Event()
                self._step(nursery)

    def _step(self, nursery: trio.Nursery) -> None:
        """Look once and propose what should be decided."""
        replica = self._replica
        if not replica.may_act:
            self._leadership = None
            return
        began = self._clock.now()
        leadership = self._leadership
        if leadership is None or leadership.term != replica.term:
            leadership = self._leadership = Leadership(replica.term, began, self._policy, self._voters)
            self._proposed_index = 0
        if replica.applied_index < self._proposed_index:
            return
        view = self._views.view(leader_since=leadership.since)
        leadership.look_back(view)
        for command in leadership.decide(view):
            if not self._propose(command, leadership.term):
                break
        voters = leadership.voters.reconcile(view)
        if voters is not None:
            LOG.info("changing the voters to %s", ", ".join(voter.node_id[:8] for voter in voters))
            nursery.start_soon(self._change_voters, voters)
        heir = leadership.lead.reconcile(view)
        if heir is not None:
            self._hand_over(heir)
        self.step_s_max = max(self.step_s_max, self._clock.now() - began)

    def _propose(self, command: Any, term: int) -> bool:
        """Append it to the log, right after asking again whether this node may. False when it may not."""
        if not self._replica.may_act or self._replica.term != term:
            return False
        try:
            proposed = self._replica.propose_packed(*pack_command(command), NO_REQUEST)
        except OperatorError as error:
            self.counters["proposals_refused"] += 1
            LOG.warning("could not propose %s: %s", type(command).__name__, error)
            return False
        self._proposed_index = proposed.index
        self.counters[f"proposed_{type(command).__name__}"] += 1
        return True

    def _hand_over(self, heir: NodeId) -> None:
        LOG.info("a witness prefers not to lead: handing over to %s", heir[:8])
        try:
            self._replica.transfer_leadership(heir)
        except OperatorError as error:
            LOG.info("the lead is not handed over: %s", error)

    async def _change_voters(self, voters: tuple[Any, ...]) -> None:
        try:
            await self._replica.propose_configuration(voters)
        except OperatorError as error:
            self.counters["voter_changes_refused"] += 1
            LOG.warning("could not change the voters: %s", error)
