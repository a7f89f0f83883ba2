"""What still runs on this host for a cluster that it is about to forget: for whoever resets it.

Promise: nothing is changed, in the folder or on the engine; an engine that does not answer is waited for as for one list.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import msgspec
import trio

from swarm.adapters.engine import DockerEngine
from swarm.adapters.identity import CLUSTER, NODE, ClusterFile, NodeFile
from swarm.model.ids import ClusterId, NodeId
from swarm.ports import Engine, EngineError
from swarm.runner.copies import ALIVE
from swarm.runner.labels import NODE as NODE_LABEL

NAMED_MAX = 10


@dataclass(frozen=True, slots=True)
class Belonged:
    """Whose the folder is."""

    cluster: ClusterFile
    node: NodeFile

    @property
    def is_witness(self) -> bool:
        """Runs nothing."""
        return any(node.id == self.node.node_id and node.witness for node in self.cluster.nodes)


def belonged(folder: str) -> Belonged | None:
    """None where the folder does not say."""
    try:
        cluster = msgspec.json.decode(Path(folder, CLUSTER).read_bytes(), type=ClusterFile)
        return Belonged(cluster, msgspec.json.decode(Path(folder, NODE).read_bytes(), type=NodeFile))
    except (OSError, ValueError, msgspec.DecodeError):
        return None


def leftovers(folder: str, engine_url: str) -> str:
    """One line for people; empty when nothing runs, or the folder says of no cluster. Blocks while the engine is asked."""
    found = belonged(os.path.abspath(folder))
    if found is None or found.is_witness:
        return ""
    node_id = found.node.node_id
    return trio.run(said_of, DockerEngine(engine_url, node_id=node_id), found.cluster.cluster_id, node_id)


async def said_of(engine: Engine, cluster_id: ClusterId, node_id: NodeId) -> str:
    """The line, as the engine has it."""
    ours = f"docker ps -aq --filter label={NODE_LABEL}={node_id}"
    try:
        names = sorted(seen.name for seen in await engine.list(cluster_id) if seen.status in ALIVE)
    except EngineError as error:
        return f"whether containers of the former cluster still run here is not known ({error.message}): {ours}"
    if not names:
        return ""
    named = ", ".join(names[:NAMED_MAX]) + (", ..." if len(names) > NAMED_MAX else "")
    return f"{len(names)} containers of the former cluster still run here ({named}): docker rm -f $({ours})"
