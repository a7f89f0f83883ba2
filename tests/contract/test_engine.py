"""One suite for `ports.Engine`, run on the fake in memory and on a real Docker Engine.

The real one is named by SWARM_TEST_ENGINE (or by what `python -m testnet with-engine` exports); its images are the testnet's.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import pytest
import trio
from msgspec.structs import replace

from swarm.adapters.engine import DockerEngine
from swarm.model.assignment import Assignment
from swarm.model.container import ContainerPlan, ContainerStatus, EngineEvent, EngineTrouble
from swarm.model.ids import ClusterId, NodeId, TaskId
from swarm.model.phase import Desired, Phase
from swarm.model.resources import Resources
from swarm.model.task import Mount, MountKind, Port, TaskSpec
from swarm.ports import EngineError
from swarm.runner import labels
from tests.fakes.container_engine import FakeEngine

NODE = NodeId("a" * 32)
MIB = 1024 * 1024


@dataclass
class Bench:
    """An engine and a cluster of its own."""

    engine: Any
    cluster: ClusterId
    image: str
    real: bool

    def plan(self, spec: TaskSpec | None = None, *, task: str = "1" * 32, attempt: int = 1) -> ContainerPlan:
        spec = replace(spec or TaskSpec(name="web", image=self.image, command=("sleep", "600")))
        assignment = Assignment("", TaskId(task), attempt, NODE, Desired.RUNNING, Phase.ASSIGNED, 1, 1)
        return labels.plan_of(
            cluster_id=self.cluster,
            node_id=NODE,
            node_name="h1",
            node_address="10.0.0.1:4747",
            assignment=assignment,
            spec=spec,
            cgroup_parent="",
        )

    def spec(self, *command: str, **changes: Any) -> TaskSpec:
        return TaskSpec(name="web", image=self.image, command=command, network="none", stop_grace_s=1.0, **changes)

    def die(self, container_id: str, code: int) -> None:
        """The fake's containers end when told to; real ones by their command."""
        if not self.real:
            self.engine.containers.end(container_id, code)

    async def wait_ended(self, container_id: str) -> Any:
        with trio.fail_after(20):
            while (seen := await self.engine.inspect(container_id)).status is ContainerStatus.RUNNING:
                await trio.sleep(0.02)
        return seen


def real_engine() -> str:
    url = os.environ.get("SWARM_TEST_ENGINE") or (
        os.environ.get("DOCKER_HOST", "") if os.environ.get("TESTNET_ENGINE_ADDRESS") else ""
    )
    if not url:
        pytest.fail("no engine for tests: run ./tests/run, or set SWARM_TEST_ENGINE to the URL of one you may fill")
    return url


@pytest.fixture(params=["fake", pytest.param("docker", marks=pytest.mark.docker)])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    cluster = ClusterId(uuid.uuid4().hex)
    if request.param == "fake":
        yield Bench(FakeEngine(time.time, node_id=NODE), cluster, "here:1", real=False)
        return
    engine = DockerEngine(real_engine(), node_id=NODE)
    yield Bench(engine, cluster, "testnet/busybox:1", real=True)
    for seen in await engine.list(cluster):
        await engine.remove(seen.container_id)
    engine.close()


async def test_run_makes_and_starts_and_the_list_shows_it(bench: Bench) -> None:
    plan = bench.plan()
    seen = await bench.engine.run(plan, None)
    assert seen.status is ContainerStatus.RUNNING
    (listed,) = await bench.engine.list(bench.cluster)
    assert (listed.container_id, listed.name, listed.status) == (seen.container_id, plan.name, ContainerStatus.RUNNING)
    assert labels.assignment_of(listed.labels, bench.cluster, NODE) == "1" * 32 + ".1"
    assert abs(listed.started_utc - seen.started_utc) < 2 and listed.exit_code is None


async def test_creating_and_running_twice_finds_the_first(bench: Bench) -> None:
    plan = bench.plan()
    made = await bench.engine.create(plan, None)
    assert (await bench.engine.inspect(made)).status is ContainerStatus.CREATED
    assert await bench.engine.create(plan, None) == made
    first = await bench.engine.run(plan, None)
    again = await bench.engine.run(plan, None)
    assert first.container_id == again.container_id == made
    assert len(await bench.engine.list(bench.cluster)) == 1


async def test_run_does_not_start_again_what_ran_and_ended(bench: Bench) -> None:
    plan = bench.plan(bench.spec("sh", "-c", "exit 3"))
    seen = await bench.engine.run(plan, None)
    bench.die(seen.container_id, 3)
    ended = await bench.wait_ended(seen.container_id)
    assert (ended.status, ended.exit_code) == (ContainerStatus.EXITED, 3)
    again = await bench.engine.run(plan, None)
    assert (again.status, again.exit_code, again.started_utc) == (ContainerStatus.EXITED, 3, ended.started_utc)


async def test_a_name_taken_by_another_is_a_conflict(bench: Bench) -> None:
    plan = bench.plan()
    await bench.engine.create(plan, None)
    with pytest.raises(EngineError) as caught:
        await bench.engine.run(replace(plan, labels=plan.labels | {labels.ATTEMPT: "2"}), None)
    assert caught.value.trouble is EngineTrouble.CONFLICT and plan.name in caught.value.message


async def test_start_stop_and_remove_may_be_repeated(bench: Bench) -> None:
    made = await bench.engine.create(bench.plan(bench.spec("sleep", "600")), None)
    for _ in range(2):
        await bench.engine.start(made)
    for _ in range(2):
        await bench.engine.stop(made, signal="", grace_s=0.1)
    assert (await bench.engine.inspect(made)).status is ContainerStatus.EXITED
    for _ in range(2):
        await bench.engine.remove(made)
    assert await bench.engine.inspect(made) is None
    await bench.engine.stop(made, signal="", grace_s=0.1)
    with pytest.raises(EngineError) as caught:
        await bench.engine.start(made)
    assert caught.value.trouble is EngineTrouble.NOT_FOUND


async def test_an_ended_container_starts_again_as_the_same(bench: Bench) -> None:
    seen = await bench.engine.run(bench.plan(bench.spec("sleep", "600")), None)
    await bench.engine.stop(seen.container_id, signal="", grace_s=0.0)
    await bench.engine.start(seen.container_id)
    after = await bench.engine.inspect(seen.container_id)
    assert after.status is ContainerStatus.RUNNING and after.container_id == seen.container_id


async def test_other_clusters_and_nodes_are_not_listed(bench: Bench) -> None:
    plan = bench.plan()
    foreign = replace(plan, name=plan.name + "x", labels=plan.labels | {labels.NODE: "b" * 32})
    made = await bench.engine.create(foreign, None)
    assert await bench.engine.list(bench.cluster) == []
    assert await bench.engine.list(ClusterId("f" * 32)) == []
    await bench.engine.remove(made)


async def test_a_missing_image_is_said(bench: Bench) -> None:
    with pytest.raises(EngineError) as caught:
        await bench.engine.run(bench.plan(TaskSpec(name="web", image="testnet/nothing:9")), None)
    assert caught.value.trouble is EngineTrouble.NO_IMAGE and "testnet/nothing:9" in caught.value.message


async def test_a_missing_mount_source_is_said_and_no_folder_made(bench: Bench) -> None:
    missing = f"/nowhere-{uuid.uuid4().hex}"
    mounts = (Mount(MountKind.BIND, missing, "/x"),)
    with pytest.raises(EngineError) as caught:
        await bench.engine.run(bench.plan(bench.spec("true", mounts=mounts)), None)
    assert caught.value.trouble is EngineTrouble.NO_MOUNT_SOURCE and missing in caught.value.message
    assert not os.path.exists(missing)


async def test_events_tell_of_a_life(bench: Bench) -> None:
    seen: list[EngineEvent] = []
    async with aclosing(bench.engine.events(bench.cluster)) as events:
        async for event in events:
            seen.append(event)
            if event.action == "connected":
                started = await bench.engine.run(bench.plan(bench.spec("sh", "-c", "exit 4")), None)
                bench.die(started.container_id, 4)
            if event.action == "die":
                break
    assert [event.action for event in seen] == ["connected", "create", "start", "die"]
    assert seen[-1].exit_code == 4
    assert labels.assignment_of(seen[-1].labels, bench.cluster, NODE) is not None
    assert abs(seen[-1].time_utc - time.time()) < 10


async def test_an_engine_that_is_not_there_is_unreachable() -> None:
    engine = DockerEngine("unix:///nonexistent/docker.sock", node_id=NODE)
    plan = Bench(engine, ClusterId("c" * 32), "here:1", real=True).plan()
    for call in (
        lambda: engine.info(),
        lambda: engine.list(ClusterId("c" * 32)),
        lambda: engine.run(plan, None),
        lambda: engine.stop("x", signal="", grace_s=1),
    ):
        with pytest.raises(EngineError) as caught:
            await call()  # type: ignore[no-untyped-call]
        assert caught.value.trouble is EngineTrouble.UNREACHABLE and "/nonexistent/docker.sock" in caught.value.message


@pytest.mark.docker
class TestDocker:
    """What only a real engine can show."""

    @pytest.fixture
    async def bench(self) -> AsyncIterator[Bench]:
        engine = DockerEngine(real_engine(), node_id=NODE)
        bench = Bench(engine, ClusterId(uuid.uuid4().hex), "testnet/busybox:1", real=True)
        yield bench
        for seen in await engine.list(bench.cluster):
            await engine.remove(seen.container_id)
        engine.close()

    async def output(self, bench: Bench, spec: TaskSpec) -> str:
        seen = await bench.engine.run(bench.plan(spec), None)
        await bench.wait_ended(seen.container_id)
        async with aclosing(bench.engine.logs(seen.container_id, follow=False, tail=None, since_utc=0.0)) as chunks:
            return "".join([data.decode() async for _, data in chunks])

    async def test_environment_user_and_folder_reach_the_container(self, bench: Bench) -> None:
        spec = bench.spec("-c", "env; id -u; pwd", entrypoint=("sh",), env=("COLOUR=blue",), user="33:33", workdir="/tmp")
        text = await self.output(bench, spec)
        for line in ("COLOUR=blue", "SWARM_TASK=web", "SWARM_ATTEMPT=1", "SWARM_NODE=h1", "SWARM_NODE_ADDRESS=10.0.0.1"):
            assert line in text.splitlines()
        assert text.splitlines()[-2:] == ["33", "/tmp"]

    async def test_running_out_of_memory_is_seen(self, bench: Bench) -> None:
        spec = replace(
            bench.spec("-c", "x = 'a' * (200 << 20)", resources=Resources(memory_bytes=32 * MIB)),
            image="testnet/python:1",
            entrypoint=("python3",),
        )
        seen = await bench.engine.run(bench.plan(spec), None)
        ended = await bench.wait_ended(seen.container_id)
        assert ended.oom_killed and ended.exit_code == 137

    async def test_limits_are_the_engines(self, bench: Bench) -> None:
        resources = Resources(cpu_millicores=500, memory_bytes=64 * MIB)
        spec = bench.spec("sleep", "60", resources=resources, pids_limit=20, stop_signal="SIGINT", init=True)
        made = await bench.engine.create(bench.plan(spec), None)
        client = bench.engine._client(None)
        details = client.inspect_container(made)
        client.close()
        host = details["HostConfig"]
        assert host["NanoCpus"] == 500_000_000 and host["Memory"] == host["MemorySwap"] == 64 * MIB
        assert host["PidsLimit"] == 20 and host["Init"] is True and host["RestartPolicy"]["Name"] == "no"
        assert details["Config"]["StopSignal"] == "SIGINT"

    async def test_a_taken_port_is_said_and_tried_again(self, bench: Bench) -> None:
        spec = replace(bench.spec("sleep", "600", ports=(Port(18080, 80),)), network="bridge")
        first = await bench.engine.run(bench.plan(spec), None)
        second = bench.plan(spec, attempt=2)
        with pytest.raises(EngineError) as caught:
            await bench.engine.run(second, None)
        assert caught.value.trouble is EngineTrouble.PORT_TAKEN and "18080" in caught.value.message
        await bench.engine.remove(first.container_id)
        assert (await bench.engine.run(second, None)).status is ContainerStatus.RUNNING

    async def test_a_command_that_is_not_there_is_said(self, bench: Bench) -> None:
        with pytest.raises(EngineError) as caught:
            await bench.engine.run(bench.plan(bench.spec("no-such-program")), None)
        assert caught.value.trouble is EngineTrouble.BAD_COMMAND and "no-such-program" in caught.value.message

    async def test_logs_name_their_stream_and_follow_until_the_end(self, bench: Bench) -> None:
        spec = bench.spec("sh", "-c", "echo out; echo err >&2; sleep 0.3; echo late")
        seen = await bench.engine.run(bench.plan(spec), None)
        found: dict[str, bytes] = {}
        async with aclosing(bench.engine.logs(seen.container_id, follow=True, tail=None, since_utc=0.0)) as chunks:
            async for name, data in chunks:
                found[name] = found.get(name, b"") + data
        assert found == {"stdout": b"out\nlate\n", "stderr": b"err\n"}

    async def test_a_follower_that_leaves_leaves_no_thread(self, bench: Bench) -> None:
        seen = await bench.engine.run(bench.plan(bench.spec("sleep", "600")), None)
        with trio.move_on_after(0.3):
            async with aclosing(bench.engine.logs(seen.container_id, follow=True, tail=None, since_utc=0.0)) as chunks:
                async for _ in chunks:
                    pass
        from swarm.adapters.engine_streams import _READERS

        with trio.fail_after(5):
            while _READERS.borrowed_tokens:
                await trio.sleep(0.01)

    async def test_the_engine_describes_itself(self, bench: Bench) -> None:
        info = await bench.engine.info()
        assert info.arch in ("amd64", "arm64") and info.cpus >= 1 and info.memory_bytes > MIB
        assert info.api_version >= "1.41" and info.engine_id and info.cgroup_driver in ("cgroupfs", "systemd")
