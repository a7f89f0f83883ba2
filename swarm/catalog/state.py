"""The catalog's tables and the indexes derived from them.

Records are immutable and replaced whole. Every change goes through `put_*` and `drop_*`, which keep the indexes: names of tasks
that have not ended, assignments and reservations and host ports by node, tasks that wait, tasks on the move. Only the tables
are in a snapshot; the indexes are built again from them.

Promise: the indexes always equal what the tables imply (`check`).

Pure: no I/O, no clock, no randomness of its own.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from sortedcontainers import SortedDict, SortedList

from swarm.catalog.moment import Moment
from swarm.model.apitoken import ApiToken
from swarm.model.assignment import Assignment
from swarm.model.entry import Configuration
from swarm.model.hostport import release_ports, take_ports
from swarm.model.ids import ClusterId, NodeId, TaskId
from swarm.model.node import Node
from swarm.model.phase import Desired
from swarm.model.resources import Resources
from swarm.model.secret import Secrets
from swarm.model.task import Task
from swarm.model.task_phase import task_phase

NOTHING = Resources()
REBUILD_STEP = 200
CLEAR_STEP = 1000


class State:
    """Tables: plain dicts of immutable records. Read them freely, change them through the methods only."""

    def __init__(self) -> None:
        self.cluster_id = ClusterId("")
        self.last_index = 0
        self.last_time_utc = 0.0
        self.schema = 1
        """The newest schema among the entries applied."""
        self.configuration = Configuration(())
        self.configuration_index = 0
        self.nodes: dict[NodeId, Node] = {}
        self.removed_nodes: dict[NodeId, int] = {}
        self.tasks: dict[TaskId, Task] = {}
        self.assignments: dict[str, Assignment] = {}
        self.api_tokens: dict[str, ApiToken] = {}
        self.secrets = Secrets()
        self.names: dict[str, TaskId] = {}
        self.by_node: dict[NodeId, dict[str, None]] = {}
        """Assignments that have not ended, of each node in the table."""
        self.placed: dict[NodeId, dict[str, None]] = {}
        """Those that have ended, too; also of nodes that are removed. Without an entry for nodes that have none."""
        self.reserved: dict[NodeId, Resources] = {}
        self.ports_taken: dict[NodeId, dict[tuple[str, int], tuple[str, ...]]] = {}
        self.moving: dict[TaskId, None] = {}
        self.phases: Counter[str] = Counter()
        """How many tasks are in each phase as people see it (`task_phase`)."""
        self.at_home: Counter[NodeId] = Counter()
        """How many tasks have their current assignment on each node, those not counted whose assignment has ended."""
        self._pending: SortedDict = SortedDict()
        self._pending_ids: list[TaskId] | None = []
        self._order: SortedList = SortedList()
        """The ids of all tasks."""
        self._moments: list[Moment] = []

    @property
    def pending(self) -> Sequence[TaskId]:
        """Tasks that should run and have no assignment that could, in order of submission. O(waiting) after a change that is no
        submit. Good until the next entry."""
        if self._pending_ids is None:
            self._pending_ids = list(self._pending.values())
        return self._pending_ids

    def node_named(self, name: str) -> Node | None:
        """The present node of that name. O(nodes)."""
        for node in self.nodes.values():
            if node.name == name:
                return node
        return None

    # ---- nodes ------------------------------------------------------------------------------------------------------------

    def put_node(self, node: Node) -> None:
        """Add or replace a node."""
        self.nodes[node.id] = node
        self.by_node.setdefault(node.id, {})
        self.reserved.setdefault(node.id, NOTHING)
        self.ports_taken.setdefault(node.id, {})

    def drop_node(self, node_id: NodeId) -> None:
        """Forget a node whose assignments have all ended."""
        assert not self.by_node[node_id], node_id
        del self.nodes[node_id], self.by_node[node_id], self.reserved[node_id], self.ports_taken[node_id]
        self.at_home.pop(node_id, None)

    # ---- tasks ------------------------------------------------------------------------------------------------------------

    def put_task(self, task: Task) -> None:
        """Add or replace a task. Its assignments, where it names any, must be in place."""
        for moment in self._moments:
            moment.task_changes(task.id)
        old = self.tasks.get(task.id)
        if old is None:
            self._order.add(task.id)
        else:
            self._count(old, -1)
        self.tasks[task.id] = task
        self._index_task(task)

    def _count(self, task: Task, change: int) -> None:
        """Count a task in or out as it and its current assignment stand now."""
        current = self.assignments.get(task.assignment)
        self.phases[task_phase(task, current)] += change
        if current is not None and not current.ended:
            self.at_home[current.node_id] += change

    def _index_task(self, task: Task) -> None:
        self._count(task, 1)
        if not task.ended:
            self.names[task.spec.name] = task.id
        elif self.names.get(task.spec.name) == task.id:
            del self.names[task.spec.name]
        if task.previous:
            self.moving[task.id] = None
        else:
            self.moving.pop(task.id, None)
        self._index_pending(task)

    def drop_task(self, task: Task) -> None:
        """Forget a task and whatever is left of its assignments."""
        for assignment_id in (task.assignment, task.previous):
            if assignment_id:
                self.drop_assignment(assignment_id)
        if self.names.get(task.spec.name) == task.id:
            del self.names[task.spec.name]
        self.moving.pop(task.id, None)
        self._set_pending(task, False)
        for moment in self._moments:
            moment.task_changes(task.id, dropped=True)
        self._order.remove(task.id)
        self._count(self.tasks.pop(task.id), -1)

    def task_ids(self, after: TaskId | None, count: int) -> list[TaskId]:
        """Some of the ids of all tasks, in order: the first ones, or those after one. O(count)."""
        return list(itertools.islice(self._order.irange(after, None, (False, False)), count))

    def _index_pending(self, task: Task) -> None:
        current = self.assignments.get(task.assignment)
        wants = task.desired is Desired.RUNNING and not task.ended and not task.removed
        self._set_pending(task, wants and (current is None or current.ended))

    def _set_pending(self, task: Task, waits: bool) -> None:
        key = (task.created_index, task.id)
        if waits is (key in self._pending):
            return
        if waits:
            self._pending[key] = task.id
            is_last = self._pending.peekitem()[0] == key
        else:
            del self._pending[key]
            is_last = False
        if self._pending_ids is not None and is_last:
            self._pending_ids.append(task.id)
        else:
            self._pending_ids = None

    # ---- assignments ------------------------------------------------------------------------------------------------------

    def put_assignment(self, assignment: Assignment) -> None:
        """Add or replace an assignment of a known task; its task must be put again when it begins or ends."""
        for moment in self._moments:
            moment.assignment_changes(assignment.id)
        old = self.assignments.get(assignment.id)
        self._set_assignment(assignment.id, assignment)
        if old is None:
            self._place(assignment)
            if not assignment.ended:
                self._reserve(assignment)
        elif assignment.ended and not old.ended:
            self._release(old)

    def drop_assignment(self, assignment_id: str) -> None:
        """Forget an assignment; nothing happens when it is gone already."""
        for moment in self._moments:
            moment.assignment_changes(assignment_id)
        old = self.assignments.get(assignment_id)
        self._set_assignment(assignment_id, None)
        if old is not None:
            self._displace(old)
            if not old.ended:
                self._release(old)

    def _set_assignment(self, assignment_id: str, assignment: Assignment | None) -> None:
        """Put or drop the record; where it is its task's current one, that is counted anew."""
        old = self.assignments.get(assignment_id)
        known = assignment or old
        task = self.tasks.get(known.task_id) if known is not None else None
        shown = task if task is not None and task.assignment == assignment_id else None
        if shown is not None:
            self._count(shown, -1)
        if assignment is not None:
            self.assignments[assignment_id] = assignment
        else:
            self.assignments.pop(assignment_id, None)
        if shown is not None:
            self._count(shown, 1)

    def _place(self, assignment: Assignment) -> None:
        self.placed.setdefault(assignment.node_id, {})[assignment.id] = None

    def _displace(self, assignment: Assignment) -> None:
        placed = self.placed[assignment.node_id]
        del placed[assignment.id]
        if not placed:
            del self.placed[assignment.node_id]

    def _reserve(self, assignment: Assignment) -> None:
        spec = self.tasks[assignment.task_id].spec
        node_id = assignment.node_id
        self.by_node[node_id][assignment.id] = None
        self.reserved[node_id] = self.reserved[node_id].plus(spec.resources)
        take_ports(self.ports_taken[node_id], spec.ports)

    def _release(self, assignment: Assignment) -> None:
        spec = self.tasks[assignment.task_id].spec
        node_id = assignment.node_id
        del self.by_node[node_id][assignment.id]
        self.reserved[node_id] = self.reserved[node_id].minus(spec.resources)
        release_ports(self.ports_taken[node_id], spec.ports)

    # ---- moments ----------------------------------------------------------------------------------------------------------

    def begin_moment(self) -> Moment:
        """Keep what tasks and assignments are now, until `end_moment`. O(1)."""
        moment = Moment(self.tasks, self.assignments, self._order)
        self._moments.append(moment)
        return moment

    def end_moment(self, moment: Moment) -> None:
        """It is read no more."""
        self._moments.remove(moment)

    # ---- from tables ------------------------------------------------------------------------------------------------------

    def rebuild(self) -> None:
        """Build every index from the tables, which must name only each other's records."""
        for _ in self.rebuild_steps():
            pass

    def rebuild_steps(self) -> Iterator[None]:
        """The same in steps of some hundred records. Nothing else may touch the state in between."""
        self.names, self.by_node, self.placed, self.reserved, self.ports_taken, self.moving = {}, {}, {}, {}, {}, {}
        self._pending, self._pending_ids = SortedDict(), None
        self.phases, self.at_home = Counter(), Counter()
        self._order = SortedList()
        for node in list(self.nodes.values()):
            self.put_node(node)
        for number, assignment in enumerate(self.assignments.values()):
            self._place(assignment)
            if not assignment.ended:
                self._reserve(assignment)
            if number % REBUILD_STEP == 0:
                yield
        for number, task in enumerate(self.tasks.values()):
            self._order.add(task.id)
            self._index_task(task)
            if number % REBUILD_STEP == 0:
                yield

    def clear_steps(self) -> Iterator[None]:
        """Let go of everything, some hundred records a step: to free 100,000 tasks in one go takes 80 ms. Nobody may need this
        state any more; a moment of it that is still read stops it, and its reader frees the rest."""
        order = self._order
        tables: list[dict[Any, Any]] = [self.assignments, self.tasks, self.names, self.moving, self._pending]
        for table in (*tables, *self.by_node.values(), *self.placed.values()):
            while table and not self._moments:
                for _ in range(min(CLEAR_STEP, len(table))):
                    table.popitem()
                yield
        while order and not self._moments:
            del order[-CLEAR_STEP:]
            yield

    def check(self) -> None:
        """Assert every invariant. O(state)."""
        other = State()
        other.nodes, other.tasks, other.assignments = dict(self.nodes), dict(self.tasks), dict(self.assignments)
        other.rebuild()
        assert list(self._order) == sorted(self.tasks)
        assert other.names == self.names
        assert other.by_node == self.by_node
        assert other.placed == self.placed
        assert {k: _without_zeros(v) for k, v in other.reserved.items()} == {
            k: _without_zeros(v) for k, v in self.reserved.items()
        }
        assert {k: _ports(v) for k, v in other.ports_taken.items()} == {k: _ports(v) for k, v in self.ports_taken.items()}
        assert set(other.moving) == set(self.moving)
        assert +other.phases == +self.phases and min(self.phases.values(), default=0) >= 0
        assert +other.at_home == +self.at_home and min(self.at_home.values(), default=0) >= 0
        assert list(other.pending) == list(self.pending)
        for task in self.tasks.values():
            assert task.assignment == "" or task.assignment in self.assignments, task
            assert task.previous == "" or not self.assignments[task.previous].ended, task
        for assignment in self.assignments.values():
            task = self.tasks[assignment.task_id]
            assert assignment.id in (task.assignment, task.previous), assignment
            assert assignment.attempt <= task.attempts
        for node_id in self.nodes:
            assert node_id not in self.removed_nodes
        self._check_secrets()

    def _check_secrets(self) -> None:
        secrets = self.secrets
        numbers = [record.number for record in secrets.records]
        assert numbers == sorted(set(numbers)) and (not numbers or secrets.sending in numbers), numbers
        names = [authority.fingerprint for authority in (*secrets.retired, *(each.authority for each in secrets.records))]
        assert len(set(names)) == len(names), "a secret was brought in twice"
        ids = [ack.node_id for ack in secrets.acks]
        assert ids == sorted(set(ids)) and all(node_id in self.nodes for node_id in ids), ids
        assert secrets.rotating or not ids, "answers are kept while a rotation lasts"


def _without_zeros(amount: Resources) -> Resources:
    generic = tuple((name, count) for name, count in amount.generic if count)
    return Resources(amount.cpu_millicores, amount.memory_bytes, amount.tasks, generic)


def _ports(taken: dict[tuple[str, int], tuple[str, ...]]) -> dict[tuple[str, int], list[str]]:
    return {key: sorted(addresses) for key, addresses in taken.items()}
