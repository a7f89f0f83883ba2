"""Commands about tasks: submit (one or many), stop, remove, and the reason shown while one waits.

Pure: no I/O, no clock, no randomness of its own.
"""

from __future__ import annotations

from msgspec.structs import replace

from swarm.catalog import lifecycle
from swarm.catalog.checks import clipped, conflict, invalid, is_plain_id, not_found, spec_fault
from swarm.catalog.state import State
from swarm.catalog.turn import Turn
from swarm.model.command import RemoveTask, SetReason, StopTask, Submit, SubmitMany, SubmitQueued
from swarm.model.outcome import Rejected, refused_text
from swarm.model.phase import Desired
from swarm.model.task import Task

Result = Rejected | str


def apply_submit(state: State, command: Submit, turn: Turn) -> Result:
    """A new task, which waits for its first assignment."""
    spec = command.spec
    what = f"cannot submit task {spec.name[:80]!r}"
    fault = spec_fault(spec)
    if fault:
        return invalid(what, fault)
    if not is_plain_id(command.task_id):
        return invalid(what, f"{command.task_id[:80]!r} cannot be a task's id")
    if command.task_id in state.tasks:
        return conflict(what, f"a task of id {command.task_id} exists", "make a new id for each task")
    namesake = state.names.get(spec.name)
    if namesake is not None:
        other = state.tasks[namesake]
        if other.removed:
            return conflict(
                what,
                f"a task named {spec.name!r} is being removed, and its container is not gone yet (id {other.id})",
                f"submit it again once that is gone: swarm task inspect {spec.name}",
            )
        return conflict(
            what,
            f"a task named {spec.name!r} has not ended (id {other.id}, image {other.spec.image})",
            f"choose another name, or stop that one first: swarm task stop {spec.name}",
        )
    state.put_task(Task(command.task_id, spec, Desired.RUNNING, turn.index, turn.time_utc))
    turn.touch_task(command.task_id)
    turn.tell("task.submitted", f"task {spec.name} submitted ({spec.image})", command.task_id, name=spec.name, image=spec.image)
    return command.task_id


def apply_submit_queued(state: State, command: SubmitQueued, turn: Turn) -> Result:
    """As a submit, while it is sure that its request id was not applied and forgotten."""
    if not command.known_since_utc >= turn.known_since_utc:
        return conflict(
            f"cannot submit task {command.spec.name[:80]!r}",
            "it waited for so long that the log may have forgotten whether its request was applied before",
            "swarm task ls shows whether it is there; if not, submit it under a new request id",
        )
    return apply_submit(state, Submit(command.task_id, command.spec), turn)


def apply_submit_many(state: State, command: SubmitMany, turn: Turn) -> Result:
    """Each by itself. The value names the refused ones (see `model.outcome.refused_text`): it is kept with the request id, so
    it is short, and a repetition says the same."""
    for number, submit in enumerate(command.submits):
        result = apply_submit(state, submit, turn)
        if isinstance(result, Rejected):
            turn.refused.append((number, result))
    return refused_text(turn.refused)


def apply_stop(state: State, command: StopTask, turn: Turn) -> Result:
    """The user wants it stopped. Stopping one that has ended changes nothing."""
    task = state.tasks.get(command.task_id)
    if task is None:
        return not_found(f"cannot stop task {command.task_id[:80]!r}: there is none of that id")
    if not task.ended and task.desired is Desired.RUNNING:
        _stop(state, turn, task, command.reason or "stopped by the user")
    return task.id


def apply_remove(state: State, command: RemoveTask, turn: Turn) -> Result:
    """Forget an ended task; with force, stop it and forget it once its container is gone."""
    task = state.tasks.get(command.task_id)
    if task is None:
        return not_found(f"cannot remove task {command.task_id[:80]!r}: there is none of that id")
    if not task.ended and not command.force:
        return conflict(
            f"cannot remove task {task.spec.name!r}",
            "it has not ended",
            f"stop it first (swarm task stop {task.spec.name}), or use --force",
        )
    if not task.ended and task.desired is Desired.RUNNING:
        _stop(state, turn, task, "removed by the user")
    task = replace(state.tasks[task.id], removed=True)
    state.put_task(task)
    turn.touch_task(task.id)
    lifecycle.forget_if_removed(state, turn, task)
    return task.id


def apply_reason(state: State, command: SetReason, turn: Turn) -> Result:
    """Why it waits, for people."""
    task = state.tasks.get(command.task_id)
    if task is None:
        return not_found(f"cannot note a reason on task {command.task_id[:80]!r}: there is none of that id")
    reason = clipped(command.reason)
    if not task.ended and task.reason != reason:
        state.put_task(replace(task, reason=reason))
        turn.touch_task(task.id)
        if reason:
            turn.tell("task.reason", f"task {task.spec.name}: {reason}", task.id, name=task.spec.name, reason=reason)
    return ""


def _stop(state: State, turn: Turn, task: Task, reason: str) -> None:
    """Tell whatever is left of it to stop; with nothing left that could run, the task ends here."""
    turn.touch_task(task.id)
    turn.tell("task.stopping", f"task {task.spec.name} is to stop: {clipped(reason)}", task.id, name=task.spec.name)
    task = replace(task, desired=Desired.STOPPED, reason=clipped(reason))
    waits_for_one = False
    for assignment_id in (task.assignment, task.previous):
        assignment = state.assignments.get(assignment_id)
        if assignment is None or assignment.ended:
            continue
        lifecycle.order_stop(state, turn, assignment, reason)
        current = assignment_id == task.assignment
        waits_for_one = waits_for_one or current or not assignment.unreachable_since_index
    state.put_task(task if waits_for_one else lifecycle.end_task(task, turn, reason))
