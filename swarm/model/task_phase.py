"""The phase of a task as people see it: that of its current assignment, or that it waits for one."""

from __future__ import annotations

from swarm.model.assignment import Assignment
from swarm.model.phase import Desired, Phase
from swarm.model.task import Task

PENDING = "pending"
"""Shown as the phase of a task that should run and has no assignment that could."""


def task_phase(task: Task, assignment: Assignment | None) -> str:
    """The phase of the current assignment; `pending` while a task that should run waits for its next one."""
    if assignment is None:
        return Phase.STOPPED.value if task.ended or task.desired is Desired.STOPPED else PENDING
    if assignment.ended and not task.ended and task.desired is Desired.RUNNING:
        return PENDING
    return assignment.phase.value
