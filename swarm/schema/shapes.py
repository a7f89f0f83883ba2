"""The JSON shapes that the API gives and the CLI prints: records in, plain maps out.

Promise: stable. A field is never renamed, removed or given another meaning; new ones may appear. docs/api.md lists them.
Times are UTC seconds since the epoch with `_utc` in the name, null when there is none yet. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from swarm.model.assignment import Assignment
from swarm.model.ids import NodeId
from swarm.model.liveness import EngineState, MemberStatus, MemberView, StatusChange
from swarm.model.node import Availability, Node, VerdictKind
from swarm.model.outcome import Event
from swarm.model.resources import Resources
from swarm.model.task import Mount, Port, Restart, RestartKind, Task, TaskSpec
from swarm.model.task_phase import PENDING, task_phase

Shape = dict[str, Any]
UNREACHABLE = "its node does not answer; the last known phase is shown"


def task_reason(task: Task, assignment: Assignment | None, explained: str, *, silent: str = "") -> str:
    """One line: why it waits, or what the runner said last. `silent`: why its phase is only the last known one, if so."""
    if task_phase(task, assignment) == PENDING:
        last = assignment.reason if assignment is not None else ""
        why = explained or task.reason
        return f"{why} (attempt {task.attempts}: {last})" if why and last else why or last
    if assignment is not None and assignment.unreachable_since_index:
        return task.reason or UNREACHABLE
    if _is_unreachable(assignment, silent):
        return silent
    return (assignment.reason if assignment is not None else "") or task.reason


def _is_unreachable(assignment: Assignment | None, silent: str) -> bool:
    return assignment is not None and not assignment.ended and bool(silent or assignment.unreachable_since_index)


def task_object(
    task: Task, assignment: Assignment | None, node: Node | None, explained: str = "", *, silent: str = ""
) -> Shape:
    """One row of `task ls`. `silent`: why the phase is only the last known one, where the log does not say so."""
    return {
        "id": task.id,
        "name": task.spec.name,
        "image": task.spec.image,
        "desired": task.desired.value,
        "phase": task_phase(task, assignment),
        "node": node.name if node is not None else None,
        "node_id": assignment.node_id if assignment is not None else None,
        "attempt": task.attempts,
        "reason": task_reason(task, assignment, explained, silent=silent),
        "ended": task.ended,
        "removing": task.removed,
        "restarts": assignment.restarts if assignment is not None else 0,
        "exit_code": assignment.exit_code if assignment is not None else None,
        "unreachable": _is_unreachable(assignment, silent),
        "ports": [port_text(port) for port in task.spec.ports],
        "created_utc": task.created_utc,
        "started_utc": (assignment.started_utc or None) if assignment is not None else None,
    }


def task_detail(
    task: Task, assignment: Assignment | None, nodes: Mapping[NodeId, Node], explained: str, *, silent: str = ""
) -> Shape:
    """What `task inspect` shows: the row, the spec and the kept history."""
    node = nodes.get(assignment.node_id) if assignment is not None else None

    def name_of(node_id: NodeId) -> str:
        return nodes[node_id].name if node_id in nodes else node_id

    return task_object(task, assignment, node, explained, silent=silent) | {
        "revision": task.revision,
        "assignment": task.assignment or None,
        "replaces": task.previous or None,
        "container_id": (assignment.container_id or None) if assignment is not None else None,
        "pinned_node": name_of(task.pinned_node) if task.pinned_node else None,
        "ended_utc": task.ended_utc or None,
        "spec": spec_object(task.spec),
        "history": [
            {
                "index": move.index, "time_utc": move.time_utc, "attempt": move.attempt, "phase": move.phase.value,
                "node": name_of(move.node_id) if move.node_id else None, "reason": move.reason,
            }
            for move in task.moves
        ],
        "history_total": task.moves_total,
    }  # fmt: skip


def spec_object(spec: TaskSpec) -> Shape:
    """The spec as a task document that would make it again. Registry credentials are never shown."""
    whole: Shape = {
        "name": spec.name,
        "image": spec.image,
        "command": list(spec.command),
        "entrypoint": None if spec.entrypoint is None else list(spec.entrypoint),
        "env": list(spec.env),
        "user": spec.user,
        "workdir": spec.workdir,
        "network": spec.network,
        "ports": [port_text(port) for port in spec.ports],
        "mounts": [mount_object(mount) for mount in spec.mounts],
        "labels": dict(spec.labels),
        "constraints": list(spec.constraints),
        "preferences": list(spec.preferences),
        "policy": spec.policy or None,
        "cpus": spec.resources.cpu_millicores / 1000,
        "memory": spec.resources.memory_bytes,
        "generic": dict(spec.resources.generic),
        "pids_limit": spec.pids_limit,
        "restart": restart_text(spec.restart),
        "on_node_loss": spec.on_node_loss.value,
        "volume_elsewhere": spec.volume_elsewhere,
        "stop_signal": spec.stop_signal,
        "stop_grace": spec.stop_grace_s,
        "init": spec.init,
    }
    return whole


def port_text(port: Port) -> str:
    """As it is written: `127.0.0.1:8080:80/udp`."""
    address = f"[{port.host_ip}]:" if ":" in port.host_ip else f"{port.host_ip}:" if port.host_ip else ""
    suffix = "" if port.protocol == "tcp" else f"/{port.protocol}"
    return f"{address}{port.host_port}:{port.container_port}{suffix}"


def mount_object(mount: Mount) -> Shape:
    return {"type": mount.kind.value, "source": mount.source, "target": mount.target, "read_only": mount.read_only}


def restart_text(restart: Restart) -> str:
    if restart.kind is RestartKind.ON_FAILURE and restart.attempts_max:
        return f"{restart.kind.value}:{restart.attempts_max}"
    return restart.kind.value


def node_status(node: Node, member: MemberView | None, *, is_self: bool) -> str:
    """Gossip's belief, with the log's decisions over it: left is final, and a verdict stands until it is taken back."""
    if node.availability is Availability.LEFT:
        return MemberStatus.LEFT.value
    if is_self:
        return MemberStatus.ALIVE.value
    if member is None:
        return MemberStatus.SUSPECT.value if node.verdict.kind is VerdictKind.ALIVE else MemberStatus.DEAD.value
    return member.status.value


def node_object(
    node: Node, member: MemberView | None, *, self_id: NodeId, leader_id: NodeId | None, voters: tuple[NodeId, ...],
    engine: str, reserved: Resources, tasks: int, now: float, own_health: int,
) -> Shape:  # fmt: skip
    """One row of `node ls`. `now` is the clock that the member's times are in; `own_health` is of the node asked."""
    status = node_status(node, member, is_self=node.id == self_id)
    gone = status in (MemberStatus.DEAD.value, MemberStatus.LEFT.value)
    return {
        "id": node.id,
        "name": node.name,
        "address": node.address,
        "status": status,
        "role": "witness" if node.witness else "voter" if node.id in voters else "learner",
        "votes": node.id in voters,
        "leader": node.id == leader_id,
        "engine": EngineState.UNKNOWN.value if gone and engine != NO_ENGINE else engine,
        "availability": node.availability.value,
        "labels": dict(node.labels),
        "arch": node.arch,
        "os": node.os,
        "engine_version": node.engine_version,
        "tasks": tasks,
        "cpus": node.capacity.cpu_millicores / 1000,
        "cpus_reserved": reserved.cpu_millicores / 1000,
        "memory": node.capacity.memory_bytes,
        "memory_reserved": reserved.memory_bytes,
        "verdict": node.verdict.kind.value,
        "evidence": _evidence(node, member),
        **_contact(member, now, own_health=own_health if node.id == self_id else None),
    }


def _contact(member: MemberView | None, now: float, *, own_health: int | None) -> Shape:
    """Age of the last direct answer (0 of oneself), round trip, and what the member says of its own health; null when unknown."""
    if own_health is not None:
        return {"last_contact_ms": 0, "rtt_ms": None, "health": own_health}
    if member is None:
        return {"last_contact_ms": None, "rtt_ms": None, "health": None}
    return {
        "last_contact_ms": round(1000 * max(0.0, now - member.last_contact)) if member.last_contact else None,
        "rtt_ms": milliseconds(member.rtt_s) if member.rtt_s else None,
        "health": member.sample.health if member.sample is not None else None,
    }


def milliseconds(seconds: float) -> float:
    """To the microsecond."""
    return round(seconds * 1000, 3)


def _evidence(node: Node, member: MemberView | None) -> str:
    """What its status rests on: the log's verdict while it is dead by it, else what gossip knows now."""
    decided = node.verdict.evidence
    if node.verdict.kind is VerdictKind.ALIVE and member is not None and member.evidence:
        return member.evidence
    return decided


def node_detail(row: Shape, node: Node, member: MemberView | None, extra: Shape) -> Shape:
    """What `node inspect` shows beside the row. `observed` is what gossip says now, whatever the log has decided."""
    sample = member.sample if member is not None else None
    return row | {
        "api_address": node.api_address,
        "fingerprint": node.fingerprint.hex(),
        "store_generation": node.store_generation,
        "joined_index": node.joined_index,
        "schema_known": node.schema_known,
        "witness": node.witness,
        "verdict_index": node.verdict.index or None,
        "observed": member.evidence if member is not None else "",
        "incarnation": member.incarnation if member is not None else None,
        "sample": None
        if sample is None
        else {
            "cpu_used": sample.cpu_used_permille / 1000,
            "memory_used": sample.memory_used_permille / 1000,
            "disk_used": sample.disk_used_permille / 1000,
            "load_per_core": sample.load_permille / 1000,
            "containers": sample.containers,
            "loop_lag_ms": sample.loop_lag_ms,
        },
        **extra,
    }


NO_ENGINE = "none"
"""A witness runs no containers."""


def engine_of(node: Node, member: MemberView | None) -> str:
    """A node's engine by gossip; a witness has none, but its disk may be full."""
    if node.witness and (member is None or member.sample is None or member.sample.engine is not EngineState.FULL):
        return NO_ENGINE
    if member is None or member.sample is None:
        return EngineState.UNKNOWN.value
    return member.sample.engine.value


def event_object(event: Event) -> Shape:
    """One event of the log. `index` orders them; a stream resumes after one."""
    return {
        "source": "log",
        "index": event.index,
        "time_utc": event.time_utc,
        "kind": event.kind,
        "text": event.text,
        "subjects": list(event.subjects),
        "fields": dict(event.fields),
    }


def change_object(change: StatusChange, observer: str) -> Shape:
    """One change of a member's status as the asked node sees it. It has no place in the log: `index` is null."""
    kind = f" ({change.death_kind.value.replace('_', ' ')})" if change.death_kind is not None else ""
    told = f": {change.evidence}" if change.evidence else ""
    text = f"{observer} sees that {change.name} is {change.status.value}{kind}, no longer {change.old_status.value}{told}"
    if change.about:
        text = f"{change.name}{told}"
    return {
        "source": "gossip",
        "index": None,
        "time_utc": change.time_utc,
        "kind": f"node.{change.about}" if change.about else f"member.{change.status.value}",
        "text": text,
        "subjects": [change.subject],
        "fields": {},
        "node_id": change.subject,
        "node": change.name,
        "observer_id": change.observer,
        "observer": observer,
        "old_status": change.old_status.value,
        "status": change.status.value,
        "death_kind": change.death_kind.value if change.death_kind is not None else None,
        "evidence": change.evidence,
        "number": change.number,
    }
