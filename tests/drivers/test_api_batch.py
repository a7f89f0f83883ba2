"""Batches: thousands of tasks in one request, each by itself, none twice; and what a node refuses when it has too much to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from swarm.api.batch import BATCHES_MAX, ITEMS_MAX, PART_ITEMS_MAX
from swarm.api.calls import WRITES_MAX
from swarm.cli import submit_many
from swarm.client.client import Client
from swarm.errors import Conflict, OperatorError, Overloaded, Unauthorized, Unavailable, UnknownOutcome, UsageError
from swarm.model.ids import RequestId
from swarm.model.outcome import Applied
from tests.drivers.test_api_commands import shell
from tests.drivers.test_api_server import asked, served
from tests.fakes.node_face import MemoryFace


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "swarm.sock"


def documents(count: int) -> list[dict[str, Any]]:
    return [{"task": {"image": "testnet/redis:1", "name": f"web-{number}"}} for number in range(count)]


def send(client: Client, tasks: list[dict[str, Any]], request_id: str = "b" * 32) -> Any:
    return client.write("POST", "/v1/tasks/batch", {"tasks": tasks}, request_id=request_id)


async def test_a_batch_is_a_few_entries_and_the_same_one_again_takes_nothing_twice(path: Path) -> None:
    async with served(path) as (face, _, client):
        first = await asked(send, client, documents(3 * PART_ITEMS_MAX))
        assert first.content["counts"] == {"submitted": 3 * PART_ITEMS_MAX}
        assert [row["name"] for row in first.content["tasks"]] == [each["task"]["name"] for each in documents(3 * PART_ITEMS_MAX)]
        assert len(face.submitted) == 3
        assert {row["id"] for row in first.content["tasks"]} == set(face.catalog.tasks)
        again = await asked(send, client, documents(3 * PART_ITEMS_MAX))
        assert again.content["counts"] == {"repeated": 3 * PART_ITEMS_MAX}
        assert len(face.catalog.tasks) == 3 * PART_ITEMS_MAX


async def test_the_most_tasks_that_one_batch_may_have_are_all_taken(path: Path) -> None:
    async with served(path) as (face, _, client):
        answer = await asked(send, client, documents(ITEMS_MAX))
        assert answer.content["counts"] == {"submitted": ITEMS_MAX}
        assert len(answer.content["tasks"]) == len(face.catalog.tasks) == ITEMS_MAX


async def test_each_task_of_a_batch_is_taken_or_refused_by_itself(path: Path) -> None:
    async with served(path) as (face, _, client):
        await asked(client.write, "POST", "/v1/tasks", {"task": {"image": "a", "name": "web-1"}})
        for _ in range(2):
            answer = await asked(send, client, documents(3))
            outcomes = {row["name"]: row["outcome"] for row in answer.content["tasks"]}
            assert outcomes["web-1"] == "refused" and answer.content["counts"]["refused"] == 1
            refused = answer.content["tasks"][1]
            assert refused["code"] == "conflict" and "web-1" in refused["error"]
        assert len(face.catalog.tasks) == 3


async def test_credentials_sealed_anew_do_not_make_a_repetition_another_batch(path: Path) -> None:
    class Sealing(MemoryFace):
        seals = 0

        async def seal_registry_auth(self, auth: bytes) -> bytes:
            self.seals += 1
            return b"sealed %d" % self.seals

    tasks = [{**each, "registry_auth": {"username": "u", "password": "p"}} for each in documents(3)]
    async with served(path, Sealing()) as (face, _, client):
        await asked(send, client, tasks)
        again = await asked(send, client, tasks)
        assert again.content["counts"] == {"repeated": 3}
        assert isinstance(face, Sealing) and face.seals == 2, "equal credentials are sealed once in a batch"
        other = await asked(send, client, [*documents(2), {"task": {"image": "other", "name": "web-2"}}])
        assert [row["outcome"] for row in other.content["tasks"]] == ["repeated", "repeated", "refused"]


@pytest.mark.parametrize(
    ("tasks", "said"),
    [
        ([{"task": {"image": "a"}}, {"task": {"imagee": "a"}}], "task 1: unknown field 'imagee'"),
        ([{"task": {"image": "a", "name": "x"}}, {"task": {"image": "a", "name": "x"}}], "task 1: the name 'x'"),
        ([{"task": {"image": "a"}, "more": 1}], "task 0: unknown field 'more'"),
        ([], "0 tasks"),
        ([{}] * (ITEMS_MAX + 1), f"{ITEMS_MAX + 1} tasks"),
        (["x"], "task 0"),
    ],
)
async def test_a_malformed_task_is_named_and_nothing_of_the_batch_is_sent(path: Path, tasks: Any, said: str) -> None:
    async with served(path) as (face, _, client):
        with pytest.raises(UsageError) as refused:
            await asked(send, client, tasks)
        assert said in refused.value.message
        assert face.submitted == []


class Failing(MemoryFace):
    """Fails the submits whose number is named, before or after they are carried out."""

    unavailable: frozenset[int] = frozenset()
    unanswered: frozenset[int] = frozenset()
    count = 0

    async def submit(self, command: Any, *, request_id: RequestId, timeout_s: float) -> Applied:
        number, self.count = self.count, self.count + 1
        if number in self.unavailable:
            raise Unavailable("no leader")
        applied = await super().submit(command, request_id=request_id, timeout_s=timeout_s)
        if number in self.unanswered:
            raise UnknownOutcome("nobody knows")
        return applied


async def test_a_batch_that_went_through_in_part_has_an_unknown_outcome_and_is_completed_by_its_repetition(path: Path) -> None:
    face = Failing()
    face.unavailable, face.unanswered = frozenset({1}), frozenset({2})
    async with served(path, face) as (_, _, client):
        answer = await asked(send, client, documents(3 * PART_ITEMS_MAX))
        assert face.count == 6, "the client repeats what it does not know"
        assert answer.status == 200 and answer.content["counts"] == {"repeated": 128, "submitted": 64}
        assert len(face.catalog.tasks) == 3 * PART_ITEMS_MAX


async def test_a_batch_of_which_nothing_was_carried_out_is_unavailable(path: Path) -> None:
    face = Failing()
    face.unavailable = frozenset(range(100))
    async with served(path, face) as (_, _, client):
        with pytest.raises(Unavailable):
            await asked(send, client, documents(2 * PART_ITEMS_MAX))
        assert face.count == 2


async def test_more_batches_or_writes_than_a_node_takes_are_refused_and_not_queued(path: Path) -> None:
    async with served(path) as (face, api, client):
        api.batches = BATCHES_MAX
        with pytest.raises(Overloaded):
            await asked(send, client, documents(1))
        api.batches, api.writes = 0, WRITES_MAX
        with pytest.raises(Overloaded):
            await asked(client.write, "POST", "/v1/tasks", documents(1)[0])
        assert (await asked(client.get, "/v1/tasks")).content == [], "reads go on"
        assert face.submitted == []
        api.writes = 0
        await asked(send, client, documents(1))
        assert (api.batches, api.writes) == (0, 0)


async def test_a_file_of_many_tasks_is_submitted_and_waited_for(tmp_path: Path) -> None:
    (tmp_path / "many.yml").write_text("".join(f"---\nimage: redis:1\nname: web-{n}\n" for n in range(70)))
    async with shell(tmp_path) as swarm:

        async def run_all() -> None:
            with trio.fail_after(20):
                while len(swarm.face.catalog.tasks) < 70:
                    await trio.sleep(0.01)
            for task_id in list(swarm.face.catalog.tasks):
                swarm.face.run_task(task_id)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_all)
            said = await swarm.ok("task", "submit", "--label", "run=7", "--file", str(tmp_path / "many.yml"))
        assert "70 tasks: 70 running" in said
        assert {task.spec.labels for task in swarm.face.catalog.tasks.values()} == {(("run", "7"),)}
        listed = await swarm("task", "submit", "-d", "--file", str(tmp_path / "many.yml"))
        assert listed.code == 4 and "refused: web-0" in listed.err and "swarm task stop web-0" in listed.err
        assert "70 of 70 tasks were refused; none is submitted" in listed.err and "and 60 more" in listed.err


async def test_a_file_of_more_tasks_than_one_request_takes_goes_in_several_and_its_repetition_makes_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submit_many, "BATCH_ITEMS", 25)
    (tmp_path / "many.yml").write_text("".join(f"---\nimage: redis:1\nname: web-{n}\n" for n in range(70)))
    many = ("task", "submit", "-d", "-o", "json", "--request-id", "goodkey-0001", "--file", str(tmp_path / "many.yml"))
    async with shell(tmp_path) as swarm:
        first = json.loads(await swarm.ok(*many))
        assert [row["name"] for row in first] == [f"web-{n}" for n in range(70)]
        assert {row["outcome"] for row in first} == {"submitted"}
        sent = [(request_id, len(command.submits)) for command, request_id in swarm.face.submitted]
        assert sent == [("goodkey-0001-0/0", 25), ("goodkey-0001-1/0", 25), ("goodkey-0001-2/0", 20)]
        again = json.loads(await swarm.ok(*many))
        assert again == [{**row, "outcome": "repeated"} for row in first]
        assert len({row["id"] for row in first}) == len(swarm.face.catalog.tasks) == 70


@pytest.mark.parametrize("error", [Unauthorized("no token of ours", hint="use another"), Conflict("no", hint="use another")])
async def test_an_error_after_some_were_taken_says_how_many_and_how_to_go_on_where_that_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OperatorError
) -> None:
    monkeypatch.setattr(submit_many, "BATCH_ITEMS", 2)
    write, asked = Client.write, list[str]()

    def refuse_the_second(self: Client, method: str, path: str, *rest: Any, **named: Any) -> Any:
        asked.append(path)
        if len(asked) == 2:
            raise error
        return write(self, method, path, *rest, **named)

    monkeypatch.setattr(Client, "write", refuse_the_second)
    (tmp_path / "many.yml").write_text("".join(f"---\nimage: redis:1\nname: web-{n}\n" for n in range(5)))
    many = ("task", "submit", "-d", "--request-id", "goodkey-0001", "--file", str(tmp_path / "many.yml"))
    async with shell(tmp_path) as swarm:
        swarm.face.log.submit("web-1")
        done = await swarm(*many)
        go_on = "; go on with the same file and the same id, nothing is taken twice: --request-id goodkey-0001"
        assert done.code == error.exit_code
        assert f"hint: use another; 1 of 5 tasks were submitted{go_on if error.exit_code == 5 else ''}\n" in done.err
        assert "refused: web-1: " in done.err, "which would be told with the others, had all gone well"
        assert (await swarm(*many)).code == 4 and set(swarm.face.catalog.names) == {f"web-{n}" for n in range(5)}


async def test_those_that_were_refused_and_the_number_of_the_others_are_told(tmp_path: Path) -> None:
    (tmp_path / "many.yml").write_text("".join(f"---\nimage: redis:1\nname: web-{n}\n" for n in range(3)))
    async with shell(tmp_path) as swarm:
        swarm.face.log.submit("web-1")
        done = await swarm("task", "submit", "-d", "--file", str(tmp_path / "many.yml"))
        assert done.code == 4 and "1 of 3 tasks was refused; the other 2 are submitted" in done.err


async def test_a_request_id_that_was_used_is_told_with_its_task_and_without_names_that_nobody_typed(tmp_path: Path) -> None:
    path = tmp_path / "many.yml"
    path.write_text("".join(f"---\nimage: redis:1\nname: web-{n}\n" for n in range(3)))
    many = ("task", "submit", "-d", "--request-id", "goodkey-0001", "--file", str(path))
    async with shell(tmp_path) as swarm:
        await swarm.ok(*many)
        path.write_text(path.read_text().replace("redis:1", "redis:2", 1))
        done = await swarm(*many)
        assert done.code == 4 and "goodkey-0001-0" not in done.err
        assert "refused: web-0: this request id was used for another task: 'web-0' (redis:1, id " in done.err
        one = ("task", "submit", "-d", "--request-id", "goodkey-0002")
        await swarm.ok(*one, "--name", "first", "redis:1")
        done = await swarm(*one, "--name", "second", "redis:1")
        assert done.code == 4 and "another task: 'first' (redis:1, id " in done.err and "Request-Id" not in done.err


@pytest.mark.parametrize("given", ["abc", "x" * 65, "with space"])
async def test_a_malformed_request_id_is_named_as_it_was_typed_with_the_format(tmp_path: Path, given: str) -> None:
    (tmp_path / "many.json").write_text(json.dumps([{"image": "redis:1"}] * 2))
    async with shell(tmp_path) as swarm:
        for more in (["redis:1"], ["-f", str(tmp_path / "many.json")]):
            done = await swarm("task", "submit", "--request-id", given, *more)
            assert done.code == 2 and f"'{given}'"[:40] in done.err and "8 to 64 letters" in done.err
        assert swarm.face.submitted == []


async def test_a_bad_document_is_named_before_anything_is_sent(tmp_path: Path) -> None:
    many = [{"image": "redis:1"}, {"image": "redis:1", "cpus": "lots"}]
    (tmp_path / "many.json").write_text(json.dumps(many))
    async with shell(tmp_path) as swarm:
        done = await swarm("task", "submit", "-d", "--file", str(tmp_path / "many.json"))
        assert done.code == 2 and "document 2" in done.err and "cpus" in done.err
        assert swarm.face.submitted == []


async def test_a_flood_of_writes_is_answered_up_to_the_bound_and_refused_with_a_time_beyond(path: Path) -> None:
    class Slow(MemoryFace):
        waiting = 0
        go_on = trio.Event()

        async def submit(self, command: Any, *, request_id: RequestId, timeout_s: float) -> Applied:
            self.waiting += 1
            await self.go_on.wait()
            return await super().submit(command, request_id=request_id, timeout_s=timeout_s)

    async def post(number: int, stream: trio.SocketStream) -> None:
        body = json.dumps({"task": {"image": "testnet/redis:1", "name": f"web-{number}"}}).encode()
        async with stream:
            head = f"POST /v1/tasks HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            await stream.send_all(head.encode() + body)
            answer = b"".join([part async for part in stream])
        answers.append(answer.decode().lower())
        if len(answers) == 40:
            face.go_on.set()

    face, answers = Slow(), list[str]()
    async with served(path, face):
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for number in range(WRITES_MAX + 40):
                    nursery.start_soon(post, number, await trio.open_unix_socket(str(path)))
                    await trio.testing.wait_all_tasks_blocked()
    refused = [answer for answer in answers if answer.startswith("http/1.1 429")]
    assert len(refused) == 40 and all("retry-after: 1" in answer for answer in refused)
    assert face.waiting == WRITES_MAX == len(face.catalog.tasks)
