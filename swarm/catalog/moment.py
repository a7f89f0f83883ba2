"""The tables of tasks and assignments as they were at one moment, while the state goes on changing.

Records are immutable, so a copy of a table would be shallow; but to copy a dict of 100,000 records takes 10 ms and more (each
record's count is touched, and none is in the cache), three times the longest step the loop may take. So nothing is copied:
whoever changes a record while a moment is kept hands the old one over first, and the moment reads what it was given before what
stands in the state. Ids are read in slices from the state's sorted index, which may change between two of them.

Promise: what is read is what stood there when the moment was begun, each record once, in order of task id.

Pure: no I/O, no clock, no randomness of its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

from sortedcontainers import SortedList

from swarm.model.assignment import Assignment
from swarm.model.ids import TaskId
from swarm.model.task import Task


class Moment:
    """Made by `State.begin_moment`; costs O(1) to begin and O(1) for each change while it is kept."""

    def __init__(self, tasks: Mapping[TaskId, Task], assignments: Mapping[str, Assignment], order: SortedList) -> None:
        self._tasks = tasks
        self._assignments = assignments
        self._order = order
        self._tasks_before: dict[TaskId, Task | None] = {}
        self._assignments_before: dict[str, Assignment | None] = {}
        self._dropped: SortedList = SortedList()

    def task_changes(self, task_id: TaskId, *, dropped: bool = False) -> None:
        """Called before the task's record is replaced, added or dropped."""
        if task_id not in self._tasks_before:
            self._tasks_before[task_id] = self._tasks.get(task_id)
        if dropped and self._tasks_before[task_id] is not None:
            self._dropped.add(task_id)

    def assignment_changes(self, assignment_id: str) -> None:
        """Called before the assignment's record is replaced, added or dropped."""
        if assignment_id not in self._assignments_before:
            self._assignments_before[assignment_id] = self._assignments.get(assignment_id)

    def task_slices(self, count: int) -> Iterator[list[Task]]:
        """Every task, in order of id, some at a time: about `count`, fewer where many are new. O(count) a step."""
        after: TaskId | None = None
        while True:
            ids = list(itertools.islice(self._order.irange(after, None, (False, False)), count))
            last = ids[-1] if len(ids) == count else None
            gone = self._dropped.irange(after, last, (False, True))
            found = [self._task(task_id) for task_id in sorted({*ids, *gone})]
            yield [task for task in found if task is not None]
            if last is None:
                return
            after = last

    def assignment_slices(self, count: int) -> Iterator[list[Assignment]]:
        """Every assignment, in order of its task's id and then its own: each is named by its task."""
        for tasks in self.task_slices(count):
            found = (self._assignment(name) for task in tasks for name in sorted({task.assignment, task.previous}) if name)
            yield [assignment for assignment in found if assignment is not None]

    def _task(self, task_id: TaskId) -> Task | None:
        return self._tasks_before[task_id] if task_id in self._tasks_before else self._tasks.get(task_id)

    def _assignment(self, assignment_id: str) -> Assignment | None:
        if assignment_id in self._assignments_before:
            return self._assignments_before[assignment_id]
        return self._assignments.get(assignment_id)
