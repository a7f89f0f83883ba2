"""Containers as the runner plans them and as the engine shows them."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from swarm.model.task import TaskSpec


class ContainerStatus(StrEnum):
    """The engine's word for what a container is doing, reduced to what the runner decides by."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    EXITED = "exited"
    REMOVING = "removing"
    DEAD = "dead"


class ContainerSeen(msgspec.Struct, frozen=True):
    """One container that carries our labels, as last listed or as an event told. Times are engine UTC seconds, 0 if unknown."""

    container_id: str
    name: str
    labels: dict[str, str]
    status: ContainerStatus
    exit_code: int | None = None
    oom_killed: bool = False
    error: str = ""
    started_utc: float = 0.0
    finished_utc: float = 0.0


class ContainerPlan(msgspec.Struct, frozen=True):
    """Everything needed to create one container. `name` and `labels` derive from (cluster, task, attempt): get-or-create."""

    name: str
    labels: dict[str, str]
    spec: TaskSpec
    env_added: tuple[str, ...]
    """SWARM_TASK, SWARM_ATTEMPT, SWARM_NODE, SWARM_NODE_ADDRESS as `NAME=value`."""
    cgroup_parent: str = ""


class EngineInfo(msgspec.Struct, frozen=True):
    """The engine as it describes itself."""

    engine_id: str
    version: str
    api_version: str
    arch: str
    cpus: int
    memory_bytes: int
    root: str = ""
    cgroup_driver: str = ""


class EngineEvent(msgspec.Struct, frozen=True):
    """One event of a container with our labels. `action`: create, start, die, oom, destroy, health_status."""

    action: str
    container_id: str
    labels: dict[str, str]
    time_utc: float
    exit_code: int | None = None


class EngineTrouble(StrEnum):
    """Why an engine operation failed, as far as the runner must decide differently."""

    UNREACHABLE = "unreachable"
    """The engine is down or hung: a state of the node, not of the task; try again later."""
    NO_IMAGE = "no_image"
    NO_MOUNT_SOURCE = "no_mount_source"
    PORT_TAKEN = "port_taken"
    NO_SPACE = "no_space"
    BAD_COMMAND = "bad_command"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    OTHER = "other"
