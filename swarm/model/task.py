"""A task: one container to run. Its identity and history outlive any placement.

`TaskSpec` is what the user asked for; `Task` is the replicated record. A service (later) is a template and a count of tasks
in numbered slots; `Task.service` and `Task.slot` are where its tasks will say so.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from swarm.model.ids import NodeId, TaskId
from swarm.model.phase import Desired, Phase
from swarm.model.resources import Resources


class RestartKind(StrEnum):
    """When the runner restarts an ended container. `NO` makes the task a job: it ends as succeeded or failed."""

    ALWAYS = "always"
    ON_FAILURE = "on-failure"
    NO = "no"


class NodeLossKind(StrEnum):
    """What happens when the task's node is confirmed dead: run elsewhere (`REPLACE`) or wait for the node (`WAIT`)."""

    REPLACE = "replace"
    WAIT = "wait"


class Port(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One published port. `host_port` is reserved on the node; with network `host` both are equal."""

    host_port: int
    container_port: int
    protocol: str = "tcp"
    host_ip: str = ""


class MountKind(StrEnum):
    BIND = "bind"
    VOLUME = "volume"
    TMPFS = "tmpfs"


class Mount(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One mount. `source` is a host path (bind) or a volume's name (volume; empty for an anonymous one)."""

    kind: MountKind
    source: str
    target: str
    read_only: bool = False


class Restart(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Restart policy with exponential back-off: delay_s, doubled up to delay_max_s, reset after reset_after_s of running.

    `attempts_max` 0 means without limit.
    """

    kind: RestartKind = RestartKind.ALWAYS
    attempts_max: int = 0
    delay_s: float = 0.5
    delay_max_s: float = 30.0
    reset_after_s: float = 30.0


class TaskSpec(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Everything the user asked for. Amounts are integers; `env` is a tuple of `NAME=value`; maps are sorted tuples."""

    name: str
    image: str
    command: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    env: tuple[str, ...] = ()
    user: str = ""
    workdir: str = ""
    network: str = "bridge"
    ports: tuple[Port, ...] = ()
    mounts: tuple[Mount, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    constraints: tuple[str, ...] = ()
    resources: Resources = Resources()
    pids_limit: int = 0
    restart: Restart = Restart()
    on_node_loss: NodeLossKind = NodeLossKind.REPLACE
    volume_elsewhere: bool = False
    stop_signal: str = ""
    stop_grace_s: float = 10.0
    policy: str = ""
    preferences: tuple[str, ...] = ()
    registry_auth: bytes = b""
    init: bool = False

    def asks_same(self, other: TaskSpec) -> bool:
        """Whether both ask for the same. Credentials are sealed anew each time and are not compared."""
        return msgspec.structs.replace(self, registry_auth=b"") == msgspec.structs.replace(other, registry_auth=b"")

    @property
    def pins(self) -> bool:
        """Whether the data lives on the first node: a named volume or a writable bind mount, unless told otherwise."""
        return not self.volume_elsewhere and any(
            (m.kind is MountKind.VOLUME and m.source != "") or (m.kind is MountKind.BIND and not m.read_only)
            for m in self.mounts
        )


class Move(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One step in a task's history."""

    index: int
    time_utc: float
    attempt: int
    phase: Phase
    node_id: NodeId
    reason: str = ""


class Task(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The replicated record of one task. Never holds more than `MOVES_KEPT` moves; `moves_total` counts all."""

    id: TaskId
    spec: TaskSpec
    desired: Desired
    created_index: int
    created_utc: float
    revision: int = 1
    attempts: int = 0
    """How many assignments were ever made; the newest has this number. Numbers are never reused."""
    assignment: str = ""
    """Id of the current assignment, the newest one; empty before the first."""
    previous: str = ""
    """Id of an older assignment that is still to end (a node that was lost and came back, a drain in progress); or empty."""
    pinned_node: NodeId = NodeId("")
    ended: bool = False
    """Nothing will run again: stopped by the user and gone, or a job that has ended."""
    ended_utc: float = 0.0
    removed: bool = False
    reason: str = ""
    moves: tuple[Move, ...] = ()
    moves_total: int = 0
    service: str = ""
    slot: int = 0


MOVES_KEPT = 32
