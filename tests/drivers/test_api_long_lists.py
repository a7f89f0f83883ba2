"""Long lists are answered in steps: others have their turn while they are sorted, and while they are sent."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from swarm.api.lookup import RUN, by_age, find_task
from swarm.api.parts import PART_BYTES, ListAnswer
from swarm.catalog.requests import Requests
from swarm.catalog.snapshot import slices
from swarm.errors import NotFound
from testnet.bench.snapshots import large_catalog
from tests.drivers.test_api_server import asked, served
from tests.fakes.node_face import MemoryFace

TASKS = 2 * RUN + 500


@pytest.fixture(scope="module")
def whole() -> bytes:
    return b"".join(slices(large_catalog(TASKS, random.Random(1)), Requests()))


@pytest.fixture
def face(whole: bytes) -> MemoryFace:
    face = MemoryFace()
    face.log.catalog.restore(whole)
    return face


class Steps(trio.abc.Instrument):
    """How often a task was resumed: between two steps others have their turn."""

    def __init__(self) -> None:
        self.task = trio.lowlevel.current_task()
        self.count = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += task is self.task


@contextmanager
def steps_counted() -> Iterator[Steps]:
    steps = Steps()
    trio.lowlevel.add_instrument(steps)
    yield steps
    trio.lowlevel.remove_instrument(steps)


async def test_tasks_are_sorted_by_age_with_a_turn_for_others_after_each_run(face: MemoryFace) -> None:
    with steps_counted() as steps:
        ids = await by_age(face)
    assert [face.catalog.tasks[task_id].spec.name for task_id in ids] == [f"task-{number}" for number in range(TASKS)]
    assert steps.count > TASKS // RUN


async def test_a_long_list_is_whole_for_the_client_and_comes_in_parts(face: MemoryFace, tmp_path: Path) -> None:
    async with served(tmp_path / "swarm.sock", face) as (_, _, client):
        rows = await asked(client.get, "/v1/tasks?stale=1")
        assert [row["name"] for row in rows.content] == [f"task-{number}" for number in range(TASKS)]
        status = await asked(client.get, "/v1/status?stale=1")
        assert status.content["tasks"] == {"running": TASKS}


async def test_no_part_of_a_list_is_much_longer_than_a_part() -> None:
    for count in (0, 1, 2, 1_000):
        rows = [json.dumps({"number": number, "text": "x" * 200}).encode() for number in range(count)]
        answer, sent = ListAnswer(), []
        for row in rows:
            answer.add(row)

        async def send(message: dict[str, object], sent: list[dict[str, object]] = sent) -> None:
            await trio.lowlevel.checkpoint()
            sent.append(message)

        await answer({"type": "http"}, None, send)  # type: ignore[arg-type]
        bodies = [message["body"] for message in sent[1:]]
        assert dict(sent[0]["headers"])[b"content-length"] == str(sum(map(len, bodies))).encode()  # type: ignore[arg-type, call-overload]
        assert json.loads(b"".join(bodies)) == [json.loads(row) for row in rows]  # type: ignore[arg-type]
        assert max(map(len, bodies)) < PART_BYTES + 1_000  # type: ignore[arg-type]
        assert [message["more_body"] for message in sent[1:]] == [True] * (len(bodies) - 1) + [False]


async def test_a_name_nobody_has_is_looked_for_in_steps(face: MemoryFace) -> None:
    with steps_counted() as steps, pytest.raises(NotFound, match="nobody"):
        await find_task(face, "nobody")
    assert steps.count > TASKS // RUN


async def test_a_task_is_found_by_id_name_or_the_beginning_of_its_id(face: MemoryFace) -> None:
    task = next(iter(face.catalog.tasks.values()))
    for reference in (task.id, task.spec.name, task.id[:12]):
        assert await find_task(face, reference) is task
    with pytest.raises(NotFound, match="several") as caught:
        await find_task(face, "0")
    assert caught.value.cause.count(",") == 4, "five of them are named"
