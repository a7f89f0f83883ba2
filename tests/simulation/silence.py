"""Silence: when the kernel of each host was last out of somebody's reach, in true time.

A kernel is out of reach while its host is off or frozen as a whole, and while a path between it and any other host is cut, one
way or both: a connect needs both. A daemon that is gone, stalled or slow is no silence, nor is an engine or a disk that hangs.

Promise: looking changes nothing, and what lasts `LOOK_EVERY_S` is seen.
"""

from __future__ import annotations

from swarm.model.ids import NodeId
from swarm.simulation.host import Host
from swarm.simulation.scene import Scene

LOOK_EVERY_S = 0.25
"""Nobody is called silent before a suspicion of twice as long."""


class Silence:
    """What a verdict of silence is held against."""

    def __init__(self) -> None:
        self.due_at = 0.0
        """When to look again."""
        self._last: dict[NodeId, float] = {}

    def look(self, scene: Scene) -> None:
        """Note who is out of reach now."""
        now = scene.world.now
        self.due_at = now + LOOK_EVERY_S
        cut = {number for path in scene.network.cuts for number in path}
        is_anybody_stuck = any(_is_stuck(host) for host in scene.hosts.values())
        for number, host in scene.hosts.items():
            if is_anybody_stuck or number in cut or not host.kernel_answers:
                self._last[host.node_id] = now

    def age_s(self, node_id: NodeId, now: float) -> float:
        """How long ago its kernel was out of reach; infinite when it never was."""
        return now - self._last.get(node_id, float("-inf"))


def _is_stuck(host: Host) -> bool:
    """Its daemon was started while the machine is frozen, as only the simulation can: it runs, and reaches nobody."""
    return host.is_frozen and host.daemon is not None and not host.daemon.is_frozen
