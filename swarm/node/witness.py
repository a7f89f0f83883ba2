"""A node that votes and runs nothing: what stands where other nodes have a runner.

Promise: no engine is asked for anything, ever.
"""

from __future__ import annotations

import trio

from swarm.errors import StartRefused
from swarm.model.ids import NodeId
from swarm.model.liveness import EngineState
from swarm.model.node import Node
from swarm.model.removal import Removal


class NoRunner:
    """Has no engine and no containers."""

    engine_state = (EngineState.UNKNOWN, "")
    containers = 0

    def tell_removal(self, removal: Removal) -> None:
        """Nothing runs here that it could concern."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Nothing is to be done."""
        task_status.started()


def refuse_change_unsaid(nodes: tuple[Node, ...], node_id: NodeId, witness: bool | None) -> None:
    """`nodes` are those of the data folder. Raises `StartRefused` for a witness that is started without a word about it, since it
    would be given work at once; and for a member with an engine that is to be a witness: what the log has assigned to it would
    have nobody that runs or stops it."""
    for node in nodes:
        if node.id == node_id and node.witness and witness is None:
            raise StartRefused(
                f"cannot start node '{node.name}' as one that runs containers",
                cause="this node is a witness",
                hint="start it with --witness; to make it a worker: --no-witness",
            )
        if node.id == node_id and witness and not node.witness:
            raise StartRefused(
                f"cannot start node '{node.name}' as a witness",
                cause="it is a member that runs containers",
                hint="swarm down --drain on it (started without --witness), then swarm reset, then swarm up --witness",
            )
