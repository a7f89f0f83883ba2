"""What a reset tells of the containers that run on."""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec.structs import replace

from swarm.adapters.identity import CLUSTER, NODE, ClusterFile, NodeFile
from swarm.model.ids import ClusterId, NodeId
from swarm.node.leftovers import leftovers, said_of
from swarm.runner import labels
from tests.fakes.container_engine import FakeEngine
from tests.fakes.loopback_members import node_of

ID = ClusterId("ab" * 16)
ME = NodeId("a" * 32)


def ours(task: str) -> dict[str, str]:
    return {labels.CLUSTER: ID, labels.NODE: ME, labels.TASK: task, labels.ATTEMPT: "1"}


def folder(path: Path, *, witness: bool = False) -> str:
    me = node_of(1)
    (path / NODE).write_bytes(msgspec.json.encode(NodeFile(me.id, me.name)))
    (path / CLUSTER).write_bytes(msgspec.json.encode(ClusterFile(ID, bytes(32), nodes=(replace(me, witness=witness),))))
    return str(path)


async def test_a_reset_names_what_still_runs_and_how_it_is_removed() -> None:
    engine = FakeEngine(lambda: 1_700_000_000.0, node_id=ME)
    assert await said_of(engine, ID, ME) == ""
    for task in ("web", "db"):
        engine.containers.start(engine.containers.add(task, ours(task)).container_id)
    engine.containers.end(engine.containers.add("over", ours("over")).container_id, 0)
    engine.containers.start(engine.containers.add("foreign", ours("x") | {labels.NODE: "b" * 32}).container_id)
    said = await said_of(engine, ID, ME)
    assert said.startswith("2 containers of the former cluster still run here (db, web): docker rm -f ") and ME in said
    engine.crash()
    assert "not known (the engine is down)" in await said_of(engine, ID, ME)


def test_an_engine_that_is_not_there_holds_up_no_reset_and_a_witness_or_a_lone_folder_asks_none(tmp_path: Path) -> None:
    nowhere = f"unix://{tmp_path}/none.sock"
    assert leftovers(str(tmp_path), nowhere) == ""
    assert "not known" in leftovers(folder(tmp_path), nowhere)
    assert leftovers(folder(tmp_path, witness=True), nowhere) == ""
