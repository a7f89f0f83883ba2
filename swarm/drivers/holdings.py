"""This node's share of the catalog: its assignments that were not removed, each with its task's specification.

Kept up by what each applied entry touched, so that an entry costs what it changes and not what the catalog holds. A restored
snapshot is read anew by the catalog's index of this node's. Promise: what `held` returns is true at the catalog's applied index.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from swarm.drivers.replica_apply import Changes
from swarm.model.assignment import Assignment
from swarm.model.ids import NodeId, TaskId
from swarm.model.task import Task, TaskSpec


class CatalogView(Protocol):
    """What is read of the catalog."""

    @property
    def applied_index(self) -> int: ...
    @property
    def tasks(self) -> Mapping[TaskId, Task]: ...
    @property
    def assignments(self) -> Mapping[str, Assignment]: ...
    @property
    def placed(self) -> Mapping[NodeId, Mapping[str, None]]: ...


class Holdings:
    """Follows the catalog for one node. `stale` says that something changed since the last `held`."""

    def __init__(self, catalog: CatalogView, node_id: NodeId) -> None:
        self._catalog = catalog
        self._node_id = node_id
        self._held: dict[str, tuple[Assignment, TaskSpec]] = {}
        self._touched: dict[str, None] = {}
        self._all = True
        self.stale = True

    def on_changes(self, changes: Changes) -> None:
        """Remember what to read again; does not read the catalog, so it may be called in the middle of an apply."""
        self.stale = True
        self._all = self._all or changes.restored
        for applied in changes.applied:
            self._touched |= dict.fromkeys(sorted(applied.touched_tasks))

    def held(self) -> tuple[int, dict[str, tuple[Assignment, TaskSpec]]]:
        """(applied index, assignment id -> (record, specification))."""
        if self._all:
            self._held = {}
            for assignment_id in self._catalog.placed.get(self._node_id, ()):
                self._take(self._catalog.assignments[assignment_id])
        elif self._touched:
            self._refresh()
        self._all, self._touched, self.stale = False, {}, False
        return self._catalog.applied_index, dict(self._held)

    def _refresh(self) -> None:
        for assignment_id in [key for key, (record, _) in self._held.items() if record.task_id in self._touched]:
            del self._held[assignment_id]
        for task_id in self._touched:
            task = self._catalog.tasks.get(TaskId(task_id))
            for assignment_id in (task.previous, task.assignment) if task is not None else ():
                found = self._catalog.assignments.get(assignment_id)
                if found is not None:
                    self._take(found)

    def _take(self, assignment: Assignment) -> None:
        task = self._catalog.tasks.get(assignment.task_id)
        if assignment.node_id == self._node_id and task is not None:
            self._held[assignment.id] = (assignment, task.spec)
