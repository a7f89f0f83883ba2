"""How an assignment's phase moves, and what that means for its task.

A task holds at most two assignments: the current one, and a previous one that is still to end (a node that was lost and came
back, a drain in progress). An ended current one stays until it is replaced or its task removed, so that its exit code and
logs can be read; an ended previous one is dropped at once, and its runner then removes the container.

What the end of the current one means: succeeded or failed ends the task (the runner reports these only where the restart
policy is through); stopped or lost ends it when the user wanted it stopped, and otherwise the task waits for a new place. But
where the previous copy still runs and was not told to stop, it becomes the current one again: nothing is lost by a failed move.

Pure: no I/O, no clock, no randomness of its own.
"""

from __future__ import annotations

from msgspec.structs import replace

from swarm.catalog.checks import clipped
from swarm.catalog.history import moved
from swarm.catalog.state import State
from swarm.catalog.turn import Turn
from swarm.model.assignment import Assignment
from swarm.model.phase import Desired, Phase
from swarm.model.task import RestartKind, Task


def change_phase(state: State, turn: Turn, old: Assignment, new: Assignment) -> None:
    """Store `new` in place of `old`, write the move down, and carry its consequences through. The move must be legal."""
    assert not old.ended
    new = replace(new, changed_utc=turn.time_utc)
    state.put_assignment(new)
    turn.touch_task(new.task_id)
    if new.ended:
        turn.touch_node(new.node_id)
    task = state.tasks[new.task_id]
    if new.phase is not old.phase:
        task = _written_down(task, turn, new)
        _tell_phase(state, turn, task, new)
    if new.ended:
        task = _after_end(state, turn, task, new)
    elif new.phase is Phase.RUNNING and task.assignment == new.id:
        task = _after_running(state, turn, task)
    if task.id in state.tasks:
        state.put_task(task)
        forget_if_removed(state, turn, task)


def lose(state: State, turn: Turn, assignment: Assignment, reason: str) -> None:
    """An assignment is lost with its node."""
    change_phase(state, turn, assignment, replace(assignment, phase=Phase.LOST, reason=clipped(reason)))


def order_stop(state: State, turn: Turn, assignment: Assignment, reason: str) -> None:
    """Its runner is to stop it; nothing happens when it has ended or was told already."""
    if assignment.ended or assignment.desired is Desired.STOPPED:
        return
    state.put_assignment(replace(assignment, desired=Desired.STOPPED, reason=clipped(reason) or assignment.reason))
    turn.touch_node(assignment.node_id)
    turn.touch_task(assignment.task_id)


def end_task(task: Task, turn: Turn, reason: str = "") -> Task:
    """`task`, ended."""
    turn.tell("task.ended", f"task {task.spec.name} ended{': ' + reason if reason else ''}", task.id, name=task.spec.name)
    return replace(task, ended=True, ended_utc=turn.time_utc, reason=clipped(reason))


def forget_if_removed(state: State, turn: Turn, task: Task) -> None:
    """Drop a removed task once nothing of it runs on a node in reach; what runs out of reach ends when its node returns and
    finds it gone."""
    if not task.removed:
        return
    for assignment_id in (task.assignment, task.previous):
        assignment = state.assignments.get(assignment_id)
        if assignment is not None and not assignment.ended and not assignment.unreachable_since_index:
            return
    for assignment_id in (task.assignment, task.previous):
        if assignment_id in state.assignments:
            turn.touch_node(state.assignments[assignment_id].node_id)
    state.drop_task(task)
    turn.touch_task(task.id)
    turn.tell("task.removed", f"task {task.spec.name} removed", task.id, name=task.spec.name)


def _after_running(state: State, turn: Turn, task: Task) -> Task:
    """The current copy runs: a previous one on a node out of reach is to stop when that node returns."""
    previous = state.assignments.get(task.previous)
    if previous is not None and previous.unreachable_since_index:
        order_stop(state, turn, previous, f"replaced by attempt {task.attempts}")
    return replace(task, reason="") if task.reason else task


def _after_end(state: State, turn: Turn, task: Task, ended: Assignment) -> Task:
    if ended.id == task.previous:
        return _after_previous_end(state, turn, task, ended)
    previous = state.assignments.get(task.previous)
    if previous is not None and _may_fall_back(task, ended, previous):
        state.drop_assignment(ended.id)
        turn.tell("task.kept", f"task {task.spec.name} stays on its former node: {ended.reason}", task.id, previous.id)
        return replace(task, assignment=previous.id, previous="", reason=ended.reason)
    if ended.phase in (Phase.STOPPED, Phase.LOST) and task.desired is Desired.RUNNING:
        return replace(task, reason=ended.reason)
    if previous is not None:
        order_stop(state, turn, previous, f"attempt {ended.attempt} ended")
        if not previous.unreachable_since_index and task.desired is Desired.STOPPED:
            return task
    return end_task(task, turn, ended.reason)


def _may_fall_back(task: Task, ended: Assignment, previous: Assignment) -> bool:
    """A job's result stands; anything else goes on where the previous copy still runs as it should."""
    if task.desired is Desired.STOPPED or previous.desired is Desired.STOPPED:
        return False
    if ended.phase in (Phase.STOPPED, Phase.LOST):
        return True
    return task.spec.restart.kind is RestartKind.ALWAYS and not previous.unreachable_since_index


def _after_previous_end(state: State, turn: Turn, task: Task, ended: Assignment) -> Task:
    """The older copy is gone. Did it finish a job that was only thought lost, its result stands and the newer one stops."""
    current = state.assignments[task.assignment]
    finished = ended.phase is Phase.SUCCEEDED and ended.desired is Desired.RUNNING and task.desired is Desired.RUNNING
    if finished and not current.ended and current.phase is not Phase.RUNNING:
        order_stop(state, turn, current, f"attempt {ended.attempt} had finished")
        return end_task(replace(task, assignment=ended.id, previous=current.id), turn, ended.reason)
    state.drop_assignment(ended.id)
    task = replace(task, previous="")
    if current.ended and task.desired is Desired.STOPPED and not task.ended:
        task = end_task(task, turn, current.reason)
    return task


def _written_down(task: Task, turn: Turn, new: Assignment) -> Task:
    return moved(
        task,
        index=turn.index,
        time_utc=turn.time_utc,
        attempt=new.attempt,
        phase=new.phase,
        node_id=new.node_id,
        reason=new.reason,
    )


def _tell_phase(state: State, turn: Turn, task: Task, new: Assignment) -> None:
    node = state.nodes.get(new.node_id)
    where = node.name if node is not None else new.node_id
    why = f": {new.reason}" if new.reason else ""
    turn.tell(
        f"assignment.{new.phase.value}",
        f"task {task.spec.name} is {new.phase.value} on {where} (attempt {new.attempt}){why}",
        task.id,
        new.id,
        new.node_id,
        name=task.spec.name,
        node=where,
        attempt=new.attempt,
        phase=new.phase.value,
        restarts=new.restarts,
    )
