"""The planner: waiting tasks in, assignments out, in batches.

For each task, in order of submission (those to be replaced first): walk the index from the best node on, keep the first
feasible ones, at most 16, score them, take the best, and count it as placed before the next task is looked at. A family of
equal tasks for which nothing was found is not searched for again until some node gains room, or a second has passed (gossip
may have changed its mind); until then its tasks are passed over by their ids, so that a long queue of them costs little. What was
proposed and is not yet applied stays reserved, so that the next plan, made a moment later, neither places it twice nor fills its
room.

Promises: no plan overfills a node; planning twice proposes nothing twice.

Pure: no I/O, no clock, no randomness of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from swarm.model.command import Assign
from swarm.model.constraint import attribute_of, parse_preference
from swarm.model.ids import NodeId, TaskId
from swarm.model.placement import Replacement
from swarm.model.task import TaskSpec
from swarm.model.view import ClusterView
from swarm.scheduler.feasible import Fault, Wish, log_fault, presence_fault, room_fault, wish_of
from swarm.scheduler.index import SMALL_SET, NodeIndex, Slot
from swarm.scheduler.rank import Key, Policy, room_bounds, score

CANDIDATES = 16
"""Feasible nodes scored for one placement. At 1,000 nodes this packs as tightly as scoring all."""
MISFITS_MAX = 64
"""Nodes too small in one dimension that a tight fit looks at before it goes on to those that surely fit."""
EXAMINED_MAX = 2_000
"""Waiting tasks looked at in one plan; the next goes on from there."""
HOPELESS_S = 1.0
REFUSED_REST_S = 1.0
SAMPLES_REFRESHED = 128
"""Nodes whose sample is looked at again in each plan under least-loaded, in turn."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to propose. `unfinished` when there was more to look at than one plan may."""

    commands: tuple[Assign, ...]
    waiting: tuple[TaskId, ...]
    """Looked at and found no place for; `explain` says why."""
    unfinished: bool = False


@dataclass(slots=True)
class _Proposed:
    attempt: int
    node_id: NodeId
    spec: TaskSpec


class Planner:
    """A leader's planner. Feed it every node that changed (`touch`), or nothing at all and it looks at everything once."""

    def __init__(self, policy: Policy = Policy.SPREAD) -> None:
        self._index = NodeIndex(policy)
        self._touched: dict[NodeId, None] = {}
        self._everything = True
        self._proposed: dict[TaskId, _Proposed] = {}
        self._hopeless: dict[tuple[object, ...], float] = {}
        self._passed_over: set[TaskId] = set()
        """Tasks of hopeless families. Never iterated."""
        self._refused_until: dict[TaskId, float] = {}
        self._resume = 0
        self._last_node = NodeId("")
        self._sample_turn = 0
        self._presence: dict[NodeId, Fault | None] = {}
        self._siblings: dict[tuple[str, str], Counter[str]] = {}

    def touch(self, node_ids: Iterable[NodeId]) -> None:
        """These nodes, or what is reserved there, changed."""
        self._touched.update(dict.fromkeys(node_ids))

    def look_again(self) -> None:
        """Observations changed: what found no place may find one now."""
        self._hopeless.clear()
        self._passed_over.clear()

    def touch_everything(self) -> None:
        """Begin anew: after a snapshot, or at the start of a leadership."""
        self._everything = True

    def settled(self, task_id: TaskId) -> None:
        """What was proposed for this task is applied, or lost: only what the view says is reserved."""
        proposed = self._proposed.pop(task_id, None)
        if proposed is not None:
            self._touched[proposed.node_id] = None

    def refused(self, task_id: TaskId, now: float) -> None:
        """The catalog refused it, for a reason this plan did not see: its room is free again, and the task rests a while, so that
        the same proposal is not made and refused without end."""
        self.settled(task_id)
        self._refused_until[task_id] = now + REFUSED_REST_S

    def plan(self, view: ClusterView, *, limit: int = 256, replacements: Sequence[Replacement] = ()) -> Plan:
        """At most `limit` assignments. O(limit log nodes + nodes touched), and O(nodes) for each new family without a place."""
        self._refresh(view)
        self._presence, self._siblings = {}, {}
        commands: list[Assign] = []
        waiting: list[TaskId] = []
        for replacement in replacements:
            if len(commands) >= limit:
                return Plan(tuple(commands), tuple(waiting), True)
            task = view.tasks.get(replacement.task_id)
            if task is not None and task.id not in self._proposed:
                self._try(view, wish_of(task, replacement), commands, waiting)
        pending = view.pending
        start = self._resume if self._resume < len(pending) else 0
        self._resume = 0
        for position in range(start, len(pending)):
            if len(commands) >= limit or position - start >= EXAMINED_MAX:
                self._resume = position
                break
            task_id = pending[position]
            if task_id in self._passed_over:
                waiting.append(task_id)
            elif task_id not in self._proposed:
                self._try(view, wish_of(view.tasks[task_id]), commands, waiting)
        return Plan(tuple(commands), tuple(waiting), self._resume > 0 or start > 0)

    def _try(self, view: ClusterView, wish: Wish, commands: list[Assign], waiting: list[TaskId]) -> None:
        if self._refused_until.get(wish.task_id, 0.0) > view.now:
            waiting.append(wish.task_id)
            return
        slot = None
        family = wish.family
        if self._hopeless.get(family, 0.0) <= view.now:
            slot = self._choose(view, wish)
            if slot is None:
                self._hopeless[family] = view.now + HOPELESS_S
        if slot is None:
            waiting.append(wish.task_id)
            if not wish.replaces:
                self._passed_over.add(wish.task_id)
            return
        self._index.place(slot, wish.spec)
        self._last_node = slot.node.id
        self._proposed[wish.task_id] = _Proposed(wish.attempt, slot.node.id, wish.spec)
        self._count_sibling(wish.spec, slot)
        commands.append(Assign(wish.task_id, wish.attempt, slot.node.id, wish.replaces, wish.reason))

    # ---- keeping up with the view -------------------------------------------------------------------------------------------

    def _refresh(self, view: ClusterView) -> None:
        for task_id in list(self._proposed):
            task, proposed = view.tasks.get(task_id), self._proposed[task_id]
            if task is None or task.attempts >= proposed.attempt:
                self.settled(task_id)
        node_ids: Iterable[NodeId] = self._touched
        if self._everything:
            node_ids = sorted({*view.nodes, *self._index.slots})
            self.look_again()
        by_node: dict[NodeId, list[TaskSpec]] = {}
        for proposed in self._proposed.values():
            by_node.setdefault(proposed.node_id, []).append(proposed.spec)
        if self._index.policy is Policy.LEAST_LOADED and not self._everything:
            node_ids = [*node_ids, *self._sampled_in_turn()]
        for node_id in node_ids:
            if self._index.refresh(view, node_id, by_node.get(node_id, ())):
                self.look_again()
        self._touched, self._everything = {}, False
        self._refused_until = {task_id: until for task_id, until in self._refused_until.items() if until > view.now}
        still_hopeless = {family: until for family, until in self._hopeless.items() if until > view.now}
        if len(still_hopeless) < len(self._hopeless):
            self._hopeless = still_hopeless
            self._passed_over.clear()

    def _sampled_in_turn(self) -> list[NodeId]:
        node_ids = list(self._index.slots)
        if not node_ids:
            return []
        start = self._sample_turn % len(node_ids)
        self._sample_turn = start + SAMPLES_REFRESHED
        return sorted(node_ids)[start : start + SAMPLES_REFRESHED]

    # ---- choosing ---------------------------------------------------------------------------------------------------------

    def _choose(self, view: ClusterView, wish: Wish) -> Slot | None:
        if wish.spec.preferences:
            return self._choose_preferred(view, wish)
        candidates: list[Slot] = []
        misfits = 0
        restart_at: Key | None = None
        policy = self._index.policy
        for slot in self._walk(wish):
            if self._is_feasible(view, slot, wish):
                candidates.append(slot)
                if len(candidates) >= CANDIDATES or (policy in (Policy.SPREAD, Policy.ROUND_ROBIN) and slot.sample is not None):
                    break
            elif policy is Policy.BINPACK and not candidates:
                misfits += 1
                if misfits == MISFITS_MAX:
                    restart_at = (room_bounds(wish.spec.resources)[1],)
                    break
        if restart_at is not None:
            candidates = self._first_feasible(view, wish, restart_at)
        return self._best(view, wish, candidates)

    def _first_feasible(self, view: ClusterView, wish: Wish, start: Key) -> list[Slot]:
        """From the nodes that surely have the room on; failing that, anywhere."""
        found: list[Slot] = []
        for begin in (start, (room_bounds(wish.spec.resources)[0],)):
            for slot in self._index.best_first(begin):
                if self._is_feasible(view, slot, wish):
                    found.append(slot)
                    if len(found) >= CANDIDATES:
                        return found
            if found:
                return found
        return found

    def _walk(self, wish: Wish) -> Iterable[Slot]:
        """Nodes worth a look, best first."""
        index = self._index
        if wish.pinned_node:
            return index.among((wish.pinned_node,))
        if wish.spec.constraints:
            matching = index.matching(wish.spec.constraints)
            if len(matching) <= SMALL_SET and index.policy is not Policy.ROUND_ROBIN:
                return index.among(matching)
        match index.policy:
            case Policy.ROUND_ROBIN:
                return index.after(self._last_node)
            case Policy.BINPACK:
                return index.best_first((room_bounds(wish.spec.resources)[0],))
            case _:
                return index.best_first()

    def _is_feasible(self, view: ClusterView, slot: Slot, wish: Wish) -> bool:
        if room_fault(slot.free, slot.ports, wish) is not None or log_fault(slot.node, wish) is not None:
            return False
        node_id = slot.node.id
        if node_id not in self._presence:
            self._presence[node_id] = presence_fault(view, node_id)
        return self._presence[node_id] is None

    def _best(self, view: ClusterView, wish: Wish, candidates: list[Slot]) -> Slot | None:
        if len(candidates) < 2:
            return candidates[0] if candidates else None
        if self._index.policy is Policy.ROUND_ROBIN:
            return next((slot for slot in candidates if slot.sample is not None), candidates[0])
        return min(candidates, key=lambda slot: self._score(view, wish, slot))

    def _score(self, view: ClusterView, wish: Wish, slot: Slot) -> Key:
        member = view.members.get(slot.node.id)
        sample = member.sample if member is not None else None
        wanted = wish.spec.resources
        return score(self._index.policy, slot.node, slot.reserved, wanted, slot.count, sample, nodes=len(view.nodes))

    # ---- preferences --------------------------------------------------------------------------------------------------------

    def _choose_preferred(self, view: ClusterView, wish: Wish) -> Slot | None:
        """Even out the task's siblings over each preferred attribute, in order, then by policy. O(nodes)."""
        feasible = [slot for slot in self._walk(wish) if self._is_feasible(view, slot, wish)]
        if not feasible:
            return None

        def preferred(slot: Slot) -> tuple[tuple[int, ...], Key]:
            counts = tuple(
                self._siblings_by(view, wish.spec, attribute)[attribute_of(slot.node, attribute)]
                for attribute in map(parse_preference, wish.spec.preferences)
            )
            return counts, self._score(view, wish, slot)

        return min(feasible, key=preferred)

    def _siblings_by(self, view: ClusterView, spec: TaskSpec, attribute: str) -> Counter[str]:
        """How many tasks of this image are placed at each value of the attribute. O(tasks) once a plan."""
        key = (spec.image, attribute)
        counts = self._siblings.get(key)
        if counts is None:
            counts = Counter()
            for assignment in view.assignments.values():
                node = view.nodes.get(assignment.node_id)
                if node is not None and not assignment.ended and view.tasks[assignment.task_id].spec.image == spec.image:
                    counts[attribute_of(node, attribute)] += 1
            for proposed in self._proposed.values():
                if proposed.spec.image == spec.image and proposed.node_id in view.nodes:
                    counts[attribute_of(view.nodes[proposed.node_id], attribute)] += 1
            self._siblings[key] = counts
        return counts

    def _count_sibling(self, spec: TaskSpec, slot: Slot) -> None:
        for (image, attribute), counts in self._siblings.items():
            if image == spec.image:
                counts[attribute_of(slot.node, attribute)] += 1


def plan(
    view: ClusterView, *, policy: Policy = Policy.SPREAD, limit: int = 256, replacements: Sequence[Replacement] = ()
) -> Plan:
    """One plan from nothing but the view. O(nodes + limit log nodes)."""
    return Planner(policy).plan(view, limit=limit, replacements=replacements)
