"""Submits left with a node that has no leader: on its disk before it says so, applied once, and never lost without a word."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from swarm.adapters.queue_folder import FOLDER, QueueFolder
from swarm.catalog import requests
from swarm.catalog.requests import KEPT_S as REMEMBERED_S
from swarm.drivers import submit_queue
from swarm.drivers.submit_queue import SubmitQueue
from swarm.errors import Conflict, NotFound, Overloaded, Unavailable, UnknownOutcome
from swarm.model.command import RemoveTask, StopTask, Submit, SubmitQueued
from swarm.model.ids import ClusterId, RequestId, TaskId
from swarm.model.outcome import Applied
from swarm.model.queued import KEPT_S, REPEATED_WITHIN_S
from swarm.schema.document import build_spec
from tests.catalog_kit import Log, make_node, make_spec

ONE, TASK = RequestId("request-1"), TaskId("t1")


class Clock:
    def __init__(self) -> None:
        self.wall = 1_000.0

    def now(self) -> float:
        return trio.current_time()

    def utc(self) -> float:
        return self.wall


class Cluster:
    """A log with a leader, or none, or one whose answers are lost; as the replica of every node shows it."""

    def __init__(self) -> None:
        self.log = Log(make_node("n1"))
        self.leads = False
        self.answers = True

    async def submit(self, command: Any, *, request_id: RequestId, timeout_s: float = 10.0) -> Applied:
        await trio.lowlevel.checkpoint()
        if not self.leads:
            raise Unavailable("no leader")
        applied = self.log.apply(command, request_id)
        if not self.answers:
            raise UnknownOutcome("no answer")
        if applied.outcome is not None:
            raise applied.outcome.to_error()
        return applied

    async def read_barrier(self, timeout_s: float = 3.0) -> int:
        await trio.lowlevel.checkpoint()
        if not self.leads:
            raise Unavailable("no leader")
        return self.log.catalog.applied_index

    async def wait_applied(self, index: int) -> None:
        await trio.lowlevel.checkpoint()

    @property
    def names(self) -> list[str]:
        return sorted(task.spec.name for task in self.log.catalog.tasks.values())


def queue_of(cluster: Cluster, folder: Path, clock: Clock) -> SubmitQueue:
    folder.mkdir(exist_ok=True)
    return SubmitQueue(cluster, cluster.log.catalog, QueueFolder(folder), clock, cluster_id=ClusterId("c1"))


@asynccontextmanager
async def running(*queues: SubmitQueue) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        for queue in queues:
            await nursery.start(queue.run)
        yield
        nursery.cancel_scope.cancel()


async def until_empty(*queues: SubmitQueue) -> None:
    with trio.fail_after(20):
        while any(not record.ended for queue in queues for record in queue.records):
            await trio.sleep(0.01)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit_queue, "PAUSE_S", 0.01)


async def test_what_is_queued_survives_a_restart_and_is_applied_once_there_is_a_leader(tmp_path: Path) -> None:
    cluster, clock = Cluster(), Clock()
    first = queue_of(cluster, tmp_path, clock)
    await first.put(ONE, TASK, make_spec("web", registry_auth=b"sealed"), maybe_done=False)
    again = queue_of(cluster, tmp_path, clock)
    assert again.records == first.records
    async with running(again):
        await trio.sleep(0.05)
        assert cluster.names == []
        cluster.leads = True
        await until_empty(again)
    assert cluster.names == ["web"]
    assert queue_of(cluster, tmp_path, clock).records == ()


async def test_a_task_left_with_several_nodes_is_applied_once(tmp_path: Path) -> None:
    cluster, clock = Cluster(), Clock()
    queues = [queue_of(cluster, tmp_path / name, clock) for name in ("n1", "n2", "n3")]
    for number, queue in enumerate(queues):
        clock.wall += 60.0
        await queue.put(ONE, TASK, make_spec("web", registry_auth=b"sealed %d" % number), maybe_done=False)
    cluster.leads = True
    cluster.log.must(Submit(TASK, make_spec("web")), ONE)  # and asked for directly too
    async with running(*queues):
        await until_empty(*queues)
    assert cluster.names == ["web"] and all(queue.records == () for queue in queues)


async def test_an_attempt_without_an_answer_is_made_again_and_applied_once(tmp_path: Path) -> None:
    cluster, clock = Cluster(), Clock()
    queue = queue_of(cluster, tmp_path, clock)
    await queue.put(ONE, TASK, make_spec("web"), maybe_done=False)
    cluster.leads, cluster.answers = True, False
    async with running(queue):
        with trio.fail_after(10):
            while not queue.records[0].maybe_done:
                await trio.sleep(0.01)
        cluster.answers = True
        await until_empty(queue)
    assert cluster.names == ["web"]


async def test_one_that_was_applied_elsewhere_and_removed_since_is_forgotten_and_not_done_again(tmp_path: Path) -> None:
    cluster, clock = Cluster(), Clock()
    queue = queue_of(cluster, tmp_path, clock)
    await queue.put(ONE, TASK, make_spec("web"), maybe_done=False)
    cluster.leads = True
    cluster.log.must(Submit(TASK, make_spec("web")), ONE)
    cluster.log.must(StopTask(TASK))
    cluster.log.must(RemoveTask(TASK))
    async with running(queue):
        await until_empty(queue)
    assert cluster.names == [] and queue.records == () and queue.problems() == []


async def test_one_whose_request_id_was_used_for_another_task_is_told(tmp_path: Path) -> None:
    cluster, clock = Cluster(), Clock()
    queue = queue_of(cluster, tmp_path, clock)
    await queue.put(ONE, TASK, make_spec("web"), maybe_done=False)
    cluster.leads = True
    cluster.log.must(Submit(TASK, make_spec("other")), ONE)
    async with running(queue):
        await until_empty(queue)
    assert cluster.names == ["other"]
    assert "belongs to another request" in queue.records[0].ended and "web" in queue.problems()[0]


RICH = {
    "image": "a/b:1", "name": "web", "env": {"A": "1"}, "cpus": 0.5, "memory": "64M", "stop_grace": "3s",
    "restart": "on-failure:3", "ports": ["127.0.0.1:53:53/udp"], "volumes": ["data:/data"], "constraints": ["node.arch==amd64"],
    "entrypoint": ["sh"], "labels": {"a": "b"}, "generic": {"gpu": 1},
    "command": ["x", "y"], "policy": "binpack", "init": True, "pids_limit": 7,
}  # fmt: skip


@pytest.mark.parametrize("queued_first", [False, True])
def test_a_task_queued_on_one_node_and_given_to_another_directly_is_one_request(queued_first: bool) -> None:
    log = Log(make_node("n1"))
    spec = build_spec(RICH, name_default="")
    both = [Submit(TASK, spec), SubmitQueued(TASK, spec, 900.0), SubmitQueued(TASK, spec, 17.25)]
    first = log.must(both[1] if queued_first else both[0], ONE)
    for again in both:
        applied = log.must(again, ONE)
        assert applied.repeated and applied.value == first.value == TASK
    assert len(log.catalog.tasks) == 1


class Lagging(Cluster):
    """The catalog of the node whose queue it is lags behind the leader's, until it is caught up with."""

    def __init__(self) -> None:
        super().__init__()
        self.here = Log(make_node("n1"))
        self.reachable = False
        self.barriers = 0
        self.sent = 0

    async def submit(self, command: Any, *, request_id: RequestId, timeout_s: float = 10.0) -> Applied:
        self.sent += 1
        return await super().submit(command, request_id=request_id, timeout_s=timeout_s)

    async def read_barrier(self, timeout_s: float = 3.0) -> int:
        self.barriers += 1
        if not self.reachable:
            raise Unavailable("cut off")
        return await super().read_barrier(timeout_s)

    async def wait_applied(self, index: int) -> None:
        await super().wait_applied(index)
        for entry in self.log.entries[len(self.here.entries) : index]:
            self.here.apply_entry(entry)


async def test_a_refusal_counts_only_once_the_catalog_here_shows_that_the_task_is_not_there(tmp_path: Path) -> None:
    cluster, clock = Lagging(), Clock()
    tmp_path.mkdir(exist_ok=True)
    queue = SubmitQueue(cluster, cluster.here.catalog, QueueFolder(tmp_path), clock, cluster_id=ClusterId("c1"))
    await queue.put(ONE, TASK, make_spec("web", registry_auth=b"sealed here"), maybe_done=False)
    await queue.put(RequestId("request-2"), TaskId("t2"), make_spec("web"), maybe_done=False)
    cluster.leads = True
    cluster.log.must(Submit(TASK, make_spec("web", registry_auth=b"sealed elsewhere")), ONE)
    async with running(queue):
        with trio.fail_after(10):
            while cluster.barriers < 5:
                await trio.sleep(0.01)
        assert [record.ended for record in queue.records] == ["", ""] and cluster.sent == 2, "a refused one is not sent again"
        cluster.reachable = True
        await until_empty(queue)
    (record,) = queue.records
    assert record.request_id == "request-2" and "has not ended" in record.ended


async def test_one_that_cannot_be_submitted_stays_with_its_reason_until_it_is_removed(tmp_path: Path) -> None:
    cluster, clock = Cluster(), Clock()
    cluster.log.submit("web")
    queue = queue_of(cluster, tmp_path, clock)
    await queue.put(ONE, TASK, make_spec("web"), maybe_done=False)
    cluster.leads = True
    async with running(queue):
        await until_empty(queue)
    again = queue_of(cluster, tmp_path, clock)
    assert "has not ended" in again.records[0].ended
    with pytest.raises(Conflict, match="was not submitted"):
        await again.put(ONE, TASK, make_spec("web"), maybe_done=False)
    await again.remove("web")
    assert queue_of(cluster, tmp_path, clock).records == ()
    with pytest.raises(NotFound):
        await again.remove("web")


async def test_an_attempt_without_an_answer_is_known_of_after_a_restart_and_not_called_undone(tmp_path: Path) -> None:
    cluster, clock = Cluster(), Clock()
    queue = queue_of(cluster, tmp_path, clock)
    await queue.put(ONE, TASK, make_spec("web"), maybe_done=False)
    cluster.leads, cluster.answers = True, False
    async with running(queue):
        with trio.fail_after(10):
            while not queue.records[0].maybe_done:
                await trio.sleep(0.01)
    assert cluster.names == ["web"], "it was carried out, and nobody heard"
    again = queue_of(cluster, tmp_path, clock)
    assert again.records[0].maybe_done
    clock.wall += KEPT_S
    async with running(again):
        await until_empty(again)
    assert list(again.records) == [], "it expired, and its task is there: nothing is left to be told"


async def test_one_without_a_leader_for_too_long_is_given_up_and_told(tmp_path: Path) -> None:
    cluster, clock = Cluster(), Clock()
    queue = queue_of(cluster, tmp_path, clock)
    await queue.put(ONE, TASK, make_spec("web"), maybe_done=False)
    clock.wall += KEPT_S
    cluster.leads = True
    async with running(queue):
        await until_empty(queue)
    assert cluster.names == [] and "expired" in queue.records[0].ended


def test_the_log_refuses_a_queued_submit_of_which_it_may_have_forgotten() -> None:
    log = Log(make_node("n1"))
    log.must(Submit(TASK, make_spec("web")), ONE)
    log.must(StopTask(TASK))
    log.must(RemoveTask(TASK))
    queued_utc = log.time_utc + REPEATED_WITHIN_S
    log.time_utc += REMEMBERED_S + 1.0
    late = SubmitQueued(TASK, make_spec("web"), queued_utc - REPEATED_WITHIN_S)
    refused = log.apply(late, ONE)
    assert refused.outcome is not None and "may have forgotten" in refused.outcome.cause
    assert log.catalog.tasks == {}


def test_the_log_refuses_a_queued_submit_whose_request_id_it_may_have_forgotten_for_their_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(requests, "KEPT_MAX", 3)
    log = Log(make_node("n1"))
    log.must(Submit(TASK, make_spec("web")), ONE)
    log.must(StopTask(TASK))
    log.must(RemoveTask(TASK))
    asked_utc = log.time_utc
    for number in range(2, 5):
        log.time_utc += 60.0
        log.must(Submit(TaskId(f"t{number}"), make_spec(f"web-{number}")), f"request-{number}")
    refused = log.apply(SubmitQueued(TASK, make_spec("web"), asked_utc), ONE)
    assert refused.outcome is not None and "may have forgotten" in refused.outcome.cause and not refused.repeated
    assert TASK not in log.catalog.tasks, "it was applied, and removed since"
    log.must(SubmitQueued(TASK, make_spec("web"), log.time_utc), "request-5")


def test_a_queued_submit_that_did_not_expire_is_never_too_old_for_the_log() -> None:
    log = Log(make_node("n1"))
    queued_utc = log.time_utc
    log.time_utc += KEPT_S
    log.must(SubmitQueued(TASK, make_spec("web"), queued_utc - REPEATED_WITHIN_S), ONE)


async def test_the_same_request_again_is_the_same_record_and_another_task_under_it_a_conflict(tmp_path: Path) -> None:
    queue = queue_of(Cluster(), tmp_path, Clock())
    first = await queue.put(ONE, TASK, make_spec("web"), maybe_done=False)
    assert await queue.put(ONE, TASK, make_spec("web"), maybe_done=False) is first
    with pytest.raises(Conflict):
        await queue.put(ONE, TASK, make_spec("other"), maybe_done=False)
    assert len(queue.records) == 1


async def test_a_full_queue_refuses_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit_queue, "QUEUED_MAX", 2)
    queue = queue_of(Cluster(), tmp_path, Clock())
    for number in range(2):
        await queue.put(RequestId(f"request-{number}"), TaskId(f"t{number}"), make_spec(f"web-{number}"), maybe_done=False)
    with pytest.raises(Overloaded):
        await queue.put(RequestId("request-9"), TASK, make_spec("web"), maybe_done=False)
    monkeypatch.setattr(submit_queue, "QUEUED_MAX", 1_000)
    monkeypatch.setattr(submit_queue, "QUEUED_BYTES_MAX", 300)
    with pytest.raises(Overloaded):
        await queue.put(RequestId("request-9"), TASK, make_spec("web", env=("A=" + "x" * 300,)), maybe_done=False)
    assert len(queue_of(Cluster(), tmp_path, Clock()).records) == 2


async def test_a_disk_that_refuses_is_told_and_nothing_is_kept(tmp_path: Path) -> None:
    queue = queue_of(Cluster(), tmp_path, Clock())
    (tmp_path / FOLDER).write_text("in the way")
    with pytest.raises(Unavailable, match="was not queued"):
        await queue.put(ONE, TASK, make_spec("web"), maybe_done=False)
    assert queue.records == ()


async def test_a_damaged_file_is_set_aside_counted_and_told_also_after_another_restart(tmp_path: Path) -> None:
    cluster, clock = Cluster(), Clock()
    queue = queue_of(cluster, tmp_path, clock)
    await queue.put(ONE, TASK, make_spec("web"), maybe_done=False)
    await queue.put(RequestId("request-2"), TaskId("t2"), make_spec("db"), maybe_done=False)
    path = tmp_path / FOLDER / f"{ONE}.submit"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    for _ in range(2):
        again = queue_of(cluster, tmp_path, clock)
        assert [record.spec.name for record in again.records] == ["db"]
        assert "1 queued tasks on this node's disk are damaged" in again.problems()[0]


async def test_what_another_cluster_left_in_the_folder_is_not_submitted(tmp_path: Path) -> None:
    cluster, clock = Cluster(), Clock()
    await queue_of(cluster, tmp_path, clock).put(ONE, TASK, make_spec("web"), maybe_done=False)
    other = SubmitQueue(cluster, cluster.log.catalog, QueueFolder(tmp_path), clock, cluster_id=ClusterId("c2"))
    assert other.records == ()
