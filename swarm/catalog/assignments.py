"""Commands about assignments: the next attempt on a node, stopping one, and what runners report.

An `Assign` was planned on a view that may be older than the entry; everything that must hold is checked again here, by the
same functions (`resources.fits`, `hostport.port_clash`) the scheduler used, so two placements that race are put in order by
the log and the second is refused (PROTOCOLS S27). Reports are idempotent: each carries a sequence per assignment, and what is
old, foreign or not a legal move is dropped and counted, never an error of the whole batch (PROTOCOLS S20).

Pure: no I/O, no clock, no randomness of its own.
"""

from __future__ import annotations

from msgspec.structs import replace

from swarm.catalog import lifecycle
from swarm.catalog.checks import clipped, conflict, finite, not_found
from swarm.catalog.history import moved
from swarm.catalog.state import State
from swarm.catalog.turn import Turn
from swarm.model.assignment import Assignment, assignment_id
from swarm.model.command import Assign, Report, Reports, StopAssignment
from swarm.model.hostport import port_clash
from swarm.model.ids import NodeId
from swarm.model.node import Availability, Node, VerdictKind
from swarm.model.outcome import Rejected
from swarm.model.phase import Desired, Phase, may_move
from swarm.model.resources import fits
from swarm.model.task import Task

Result = Rejected | str


def apply_assign(state: State, command: Assign, turn: Turn) -> Result:
    """The next attempt of a task on a node."""
    task = state.tasks.get(command.task_id)
    if task is None:
        return not_found(f"cannot assign task {command.task_id[:80]!r}: there is none of that id")
    node = state.nodes.get(command.node_id)
    if node is None:
        return not_found(f"cannot assign task {task.spec.name!r} to node {command.node_id[:80]!r}: it is not in the cluster")
    fault = _task_fault(task, command) or _node_fault(state, task, node) or _handover_fault(state, task, command)
    if fault:
        return conflict(f"cannot assign task {task.spec.name!r} to node {node.name!r}", fault)
    task = _make_room(state, turn, task, command)
    new = Assignment(
        assignment_id(task.id, command.attempt),
        task.id,
        command.attempt,
        node.id,
        Desired.RUNNING,
        Phase.ASSIGNED,
        turn.index,
        turn.term,
        task.revision,
        changed_utc=turn.time_utc,
    )
    pinned = node.id if task.spec.pins and not task.pinned_node else task.pinned_node
    task = replace(task, attempts=command.attempt, assignment=new.id, pinned_node=pinned, reason=clipped(command.reason))
    task = moved(
        task,
        index=turn.index,
        time_utc=turn.time_utc,
        attempt=new.attempt,
        phase=Phase.ASSIGNED,
        node_id=node.id,
        reason=command.reason,
    )
    state.put_assignment(new)
    state.put_task(task)
    turn.touch_node(node.id)
    turn.touch_task(task.id)
    why = f": {clipped(command.reason)}" if command.reason else ""
    turn.tell(
        "assignment.assigned",
        f"task {task.spec.name} assigned to {node.name} (attempt {new.attempt}){why}",
        task.id,
        new.id,
        node.id,
        name=task.spec.name,
        node=node.name,
        attempt=new.attempt,
        phase=Phase.ASSIGNED.value,
    )
    return new.id


def _task_fault(task: Task, command: Assign) -> str | None:
    if task.ended or task.removed or task.desired is not Desired.RUNNING:
        return "the task is not to run"
    if command.attempt != task.attempts + 1:
        return f"attempt {command.attempt} is not the next one, {task.attempts + 1}"
    return None


def _node_fault(state: State, task: Task, node: Node) -> str | None:
    if node.availability is not Availability.ACTIVE:
        return f"the node is set to {node.availability.value}"
    if node.verdict.kind is not VerdictKind.ALIVE:
        return f"the node is dead ({node.verdict.kind.value.replace('_', ' ')})"
    if node.witness:
        return "the node is a witness and runs nothing"
    if task.pinned_node not in ("", node.id):
        return f"its data is on node {task.pinned_node}"
    short = fits(task.spec.resources, node.capacity.minus(state.reserved[node.id]))
    if short:
        return f"not enough {short} is free"
    port = port_clash(task.spec.ports, state.ports_taken[node.id])
    return f"host port {port.host_port}/{port.protocol} is taken" if port else None


def _handover_fault(state: State, task: Task, command: Assign) -> str | None:
    current = state.assignments.get(task.assignment)
    if current is None or current.ended:
        return f"assignment {command.replaces[:80]!r} has ended" if command.replaces else None
    if command.replaces != current.id:
        return f"assignment {current.id} has not ended"
    if command.node_id == current.node_id:
        return "it runs there"
    previous = state.assignments.get(task.previous)
    if previous is not None and not previous.unreachable_since_index:
        return f"assignment {previous.id} is still to end"
    return None


def _make_room(state: State, turn: Turn, task: Task, command: Assign) -> Task:
    """The new attempt becomes the current one: drop the one that ended, or keep the one it replaces as the previous one."""
    current = state.assignments.get(task.assignment)
    if current is None:
        return task
    if not command.replaces:
        state.drop_assignment(current.id)
        turn.touch_node(current.node_id)
        return task
    previous = state.assignments.get(task.previous)
    if previous is not None:
        lifecycle.lose(state, turn, previous, "lost with its node, and replaced twice since")
        task = state.tasks[task.id]
    if current.unreachable_since_index:
        task = moved(
            task,
            index=turn.index,
            time_utc=turn.time_utc,
            attempt=current.attempt,
            phase=Phase.LOST,
            node_id=current.node_id,
            reason=command.reason,
        )
    return replace(task, previous=current.id)


def apply_stop_assignment(state: State, command: StopAssignment, turn: Turn) -> Result:
    """Stop one assignment while its task goes on."""
    assignment = state.assignments.get(command.assignment_id)
    what = f"cannot stop assignment {command.assignment_id[:80]!r}"
    if assignment is None:
        return not_found(f"{what}: there is none of that id")
    if assignment.ended:
        return ""
    if command.keep:
        fault = _keep_fault(state, assignment, command.keep)
        if fault:
            return conflict(what, fault)
        task = state.tasks[assignment.task_id]
        kept = state.assignments[command.keep]
        task = replace(task, assignment=command.keep, previous=assignment.id, reason="")
        state.put_task(
            moved(
                task,
                index=turn.index,
                time_utc=turn.time_utc,
                attempt=kept.attempt,
                phase=kept.phase,
                node_id=kept.node_id,
                reason=command.reason,
            )
        )
        turn.tell("task.kept", f"task {task.spec.name} keeps its former place: {clipped(command.reason)}", task.id, kept.id)
    lifecycle.order_stop(state, turn, assignment, command.reason)
    turn.touch_task(assignment.task_id)
    return ""


def _keep_fault(state: State, stopped: Assignment, keep: str) -> str | None:
    task = state.tasks[stopped.task_id]
    kept = state.assignments.get(keep)
    if task.assignment != stopped.id or task.previous != keep or kept is None:
        return f"{keep[:80]!r} is not the copy before it"
    if kept.desired is Desired.STOPPED:
        return f"{keep} was told to stop"
    if stopped.phase is Phase.RUNNING and not stopped.unreachable_since_index:
        return "it runs by now"
    return None


def apply_reports(state: State, command: Reports, turn: Turn) -> Result:
    """What a node's runner saw. Each report stands for itself."""
    if command.node_id not in state.nodes:
        return not_found(f"cannot take reports of node {command.node_id[:80]!r}: it is not in the cluster")
    for report in command.reports:
        _apply_report(state, command.node_id, report, turn)
    return ""


def _apply_report(state: State, node_id: NodeId, report: Report, turn: Turn) -> None:
    old = state.assignments.get(report.assignment_id)
    reason = _ignored_because(old, node_id, report)
    if reason is not None:
        turn.count(reason)
        return
    assert old is not None
    new = replace(
        old,
        phase=report.phase,
        report_sequence=report.sequence,
        container_id=clipped(report.container_id),
        exit_code=report.exit_code,
        reason=clipped(report.reason),
        restarts=report.restarts,
        started_utc=finite(report.started_utc),
    )
    lifecycle.change_phase(state, turn, old, new)


def _ignored_because(old: Assignment | None, node_id: NodeId, report: Report) -> str | None:
    if old is None:
        return "report_of_unknown_assignment"
    if old.node_id != node_id:
        return "report_by_another_node"
    if report.sequence <= old.report_sequence:
        return "report_repeated"
    if old.ended:
        return "report_after_end"
    if report.phase is Phase.LOST or (report.phase is not old.phase and not may_move(old.phase, report.phase)):
        return "report_of_illegal_move"
    return None
