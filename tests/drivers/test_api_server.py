"""The API over a real Unix socket: every route, the errors, the limits, and that no request ends the process."""

from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from msgspec.structs import replace as replace_struct

from swarm.api.calls import BODY_BYTES_MAX, Api
from swarm.api.face import ApiListeners, LogChunk
from swarm.api.server import Server
from swarm.catalog import Catalog
from swarm.client.client import Client, task_path
from swarm.drivers.replica_disk import lack_text
from swarm.errors import Conflict, NotFound, OperatorError, StartRefused, Unavailable, Unreachable, UsageError
from swarm.model.ids import NodeId, TaskId
from swarm.model.liveness import EngineState, MemberStatus
from swarm.model.node import VerdictKind
from swarm.model.phase import Desired, Phase
from swarm.ports import DiskRoom
from tests.fakes.node_face import MemoryFace


@asynccontextmanager
async def served(path: Path, face: MemoryFace | None = None) -> AsyncIterator[tuple[MemoryFace, Api, Client]]:
    """A face with its API, and a client for threads."""
    face = face or MemoryFace()
    api = Api(face)
    async with trio.open_nursery() as nursery:
        await nursery.start(Server(api, ApiListeners(str(path))).run)
        with Client(socket_path=str(path)) as client:
            yield face, api, client
        with trio.fail_after(5):
            api.stop.set()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "swarm.sock"


async def asked(function: Any, *arguments: Any, **named: Any) -> Any:
    return await trio.to_thread.run_sync(lambda: function(*arguments, **named))


def submit(client: Client, **fields: Any) -> Any:
    return client.write("POST", "/v1/tasks", {"task": {"image": "testnet/redis:1", **fields}}).content


async def test_a_task_is_submitted_listed_got_stopped_and_removed(path: Path) -> None:
    async with served(path) as (face, _, client):
        made = await asked(submit, client, name="cache", cpus=0.5, memory="128M", ports=["6379:6379"])
        assert (made["name"], made["phase"], made["node"], made["attempt"]) == ("cache", "pending", None, 0)
        face.run_task(TaskId(made["id"]))
        (row,) = (await asked(client.get, "/v1/tasks")).content
        assert row.keys() >= {"id", "name", "image", "desired", "phase", "node", "attempt", "reason"}
        assert (row["phase"], row["node"], row["attempt"], row["desired"]) == ("running", "n2", 1, "running")
        detail = (await asked(client.get, task_path(made["id"][:8]))).content
        assert detail["spec"]["memory"] == 128 * 2**20
        with pytest.raises(Conflict, match="has not ended"):
            await asked(client.write, "DELETE", task_path("cache"))
        await asked(client.write, "POST", task_path("cache", "stop"))
        face.run_task(TaskId(made["id"]), phase="stopped")
        await asked(client.write, "DELETE", task_path("cache"))
        assert (await asked(client.get, "/v1/tasks")).content == []


async def test_a_repeated_request_id_submits_once(path: Path) -> None:
    async with served(path) as (face, _, client):
        body = {"task": {"image": "testnet/redis:1"}, "registry_auth": {"username": "u", "password": "p"}}
        first = await asked(client.write, "POST", "/v1/tasks", body, request_id="r" * 32)
        again = await asked(client.write, "POST", "/v1/tasks", body, request_id="r" * 32)
        assert (first.status, again.status) == (201, 200)
        assert first.content["id"] == again.content["id"]
        assert len(face.submitted) == 1
        assert face.submitted[0][0].spec.registry_auth != b"p" and face.submitted[0][0].spec.registry_auth
        with pytest.raises(Conflict, match="another task"):
            await asked(client.write, "POST", "/v1/tasks", {"task": {"image": "other"}}, request_id="r" * 32)


async def test_a_name_in_use_is_refused_and_the_first_task_is_shown(path: Path) -> None:
    async with served(path) as (_, _, client):
        first = await asked(submit, client, name="cache")
        with pytest.raises(Conflict) as caught:
            await asked(submit, client, name="cache", image="testnet/nginx:1")
        assert caught.value.existing["id"] == first["id"]


async def test_a_get_waits_for_a_change_and_no_longer(path: Path) -> None:
    async with served(path) as (face, _, client):
        made = await asked(submit, client, name="cache")
        first = await asked(client.get, task_path(made["id"]))
        assert "3 lack cpu" in first.content["reason"]
        tag = {"If-None-Match": first.headers["etag"]}
        assert (await asked(client.get, task_path(made["id"]), {"wait_s": 0.05}, headers=tag)).status == 304

        async with trio.open_nursery() as nursery:
            seen: list[Any] = []

            async def wait() -> None:
                seen.append(await asked(client.get, task_path(made["id"]), {"wait_s": 20}, headers=tag))

            nursery.start_soon(wait)
            face.run_task(TaskId(made["id"]))
        assert seen[0].content["phase"] == "running"


async def test_writes_fail_at_once_without_a_quorum_and_reads_are_marked_stale(path: Path) -> None:
    async with served(path) as (face, _, client):
        face.down, face.age_s = True, 12.5
        with pytest.raises(Unavailable, match="cannot write") as caught:
            await asked(submit, client, name="cache")
        assert "2 are needed" in caught.value.cause
        answer = await asked(client.get, "/v1/nodes")
        assert answer.stale_s == "12.5"
        assert not any(node["leader"] for node in answer.content)
        status = (await asked(client.get, "/v1/status")).content
        assert (status["fresh"], status["stale_s"], status["leader"]) == (False, 12.5, None)


async def test_nodes_are_listed_labelled_drained_confirmed_dead_and_removed(path: Path) -> None:
    async with served(path) as (face, _, client):
        rows = (await asked(client.get, "/v1/nodes")).content
        assert [(row["name"], row["status"], row["role"], row["leader"], row["engine"]) for row in rows] == [
            ("n1", "alive", "voter", True, "up"),
            ("n2", "alive", "learner", False, "unknown"),
            ("n3", "alive", "learner", False, "unknown"),
        ]
        labelled = await asked(client.write, "PATCH", "/v1/nodes/n2", {"labels": {"disk": "ssd", "rack": None}})
        assert labelled.content["labels"] == {"disk": "ssd"}
        drained = await asked(client.write, "POST", "/v1/nodes/id-n2/drain")
        assert drained.content["availability"] == "drain"
        with pytest.raises(Conflict, match="not dead"):
            await asked(client.write, "POST", "/v1/nodes/n3/confirm-dead")
        face.statuses[next(n for n in face.statuses if n == "id-n3")] = MemberStatus.DEAD
        dead = await asked(client.write, "POST", "/v1/nodes/n3/confirm-dead")
        assert (dead.content["verdict"], dead.content["status"]) == ("confirmed", "dead")
        await asked(client.write, "DELETE", "/v1/nodes/n3")
        with pytest.raises(NotFound, match="no node 'n3'"):
            await asked(client.get, "/v1/nodes/n3")


async def test_a_node_that_answers_is_removed_when_it_was_drained_or_with_force_the_leader_with_force_only(path: Path) -> None:
    async with served(path) as (face, _, client):
        face.status["voters"] = (NodeId("id-n1"), NodeId("id-n2"))
        for name, words in (("n2", "answers"), ("n1", "leads the cluster")):
            with pytest.raises(Conflict, match=words) as caught:
                await asked(client.write, "DELETE", f"/v1/nodes/{name}")
            assert f"swarm node rm -f {name}" in caught.value.hint
            await asked(client.write, "POST", f"/v1/nodes/{name}/drain")
        with pytest.raises(Conflict, match="leads the cluster"):
            await asked(client.write, "DELETE", "/v1/nodes/n1")
        await asked(client.write, "DELETE", "/v1/nodes/n2")
        await asked(client.write, "DELETE", "/v1/nodes/n3?force=1")
        assert [row["name"] for row in (await asked(client.get, "/v1/nodes")).content] == ["n1"]


class RunnersObey(MemoryFace):
    """What is told to stop is reported stopped when somebody waits for news."""

    async def wait_applied(self, index: int) -> None:
        await trio.lowlevel.checkpoint()
        for assignment in list(self.catalog.assignments.values()):
            if assignment.desired is Desired.STOPPED and not assignment.ended:
                self.log.report(assignment.id, Phase.STOPPED)


async def test_a_node_removed_while_it_runs_tasks_stops_them_before_it_hears_nothing_more(path: Path) -> None:
    async with served(path, RunnersObey()) as (face, _, client):
        made = await asked(submit, client, name="cache")
        face.run_task(TaskId(made["id"]))
        with pytest.raises(Conflict, match="runs 1 tasks"):
            await asked(client.write, "DELETE", "/v1/nodes/n2")
        await asked(client.write, "DELETE", "/v1/nodes/n2?force=1")
        given = [type(command).__name__ for command, _ in face.submitted]
        assert given == ["Submit", "SetNode", "StopAssignment", "RotateSecret"]
        row = (await asked(client.get, "/v1/tasks")).content[0]
        assert (row["phase"], row["desired"], row["ended"]) == ("pending", "running", False)


async def test_status_says_who_may_fail(path: Path) -> None:
    async with served(path) as (_, _, client):
        status = (await asked(client.get, "/v1/status")).content
        assert status["tolerance"] == "two more may fail at once: n2 and n3 together; not n1, the only voter"
        assert status["counters"]["packets_dropped"] == 3


async def test_a_removed_nodes_status_says_that_alone_and_nothing_of_a_cluster_that_is_not_its_own(path: Path) -> None:
    async with served(path) as (face, _, client):
        face.see("n2", MemberStatus.DEAD)
        assert (await asked(client.get, "/v1/status")).content["problems"] == ["node n2 is dead"]
        face.is_removed, face.refused = True, ["this node was removed"]
        assert (await asked(client.get, "/v1/status")).content["problems"] == ["this node was removed"]


async def test_tasks_on_nodes_that_do_not_answer_are_shown_so_also_when_no_leader_can_log_it(path: Path) -> None:
    async with served(path) as (face, _, client):
        for name in ("web", "job"):
            face.run_task(TaskId((await asked(submit, client, name=name))["id"]))
        job = face.catalog.tasks[face.catalog.names["job"]]
        face.log.report(job.assignment, Phase.SUCCEEDED, exit_code=0)
        face.down, face.age_s = True, 9.0
        heard = await asked(client.get, "/v1/tasks/web")
        assert not heard.content["unreachable"] and (await asked(client.get, "/v1/status")).content["tasks_unreachable"] == 0
        face.see("n2", MemberStatus.DEAD)
        rows = {row["name"]: row for row in (await asked(client.get, "/v1/tasks")).content}
        assert (rows["web"]["phase"], rows["web"]["unreachable"]) == ("running", True)
        assert rows["web"]["reason"] == "its node does not answer; the last known phase is shown"
        assert (rows["job"]["phase"], rows["job"]["unreachable"]) == ("succeeded", False), "what has ended has ended"
        changed = await asked(client.get, "/v1/tasks/web")
        assert changed.content["unreachable"] and changed.headers["etag"] != heard.headers["etag"]
        assert (await asked(client.get, "/v1/status")).content["tasks_unreachable"] == 1


async def test_rows_and_status_agree_on_tasks_of_a_node_that_is_back_before_a_leader_takes_the_verdict_back(path: Path) -> None:
    async with served(path) as (face, _, client):
        face.run_task(TaskId((await asked(submit, client, name="web"))["id"]))
        face.log.verdict("n2", VerdictKind.HOST_SILENT)
        for status in (MemberStatus.DEAD, MemberStatus.ALIVE):
            face.see("n2", status)
            assert (await asked(client.get, "/v1/tasks/web")).content["unreachable"]
            assert (await asked(client.get, "/v1/status")).content["tasks_unreachable"] == 1


async def test_a_removed_node_shows_every_task_as_last_known_and_no_join_token(path: Path) -> None:
    async with served(path) as (face, _, client):
        face.run_task(TaskId((await asked(submit, client, name="web"))["id"]), "n1")
        face.is_removed, face.down, face.age_s = True, True, 9.0
        answer = await asked(client.get, "/v1/tasks")
        assert [(row["unreachable"], row["reason"]) for row in answer.content] == [
            (True, "this node was removed from the cluster; the last known phase is shown")
        ]
        assert (await asked(client.get, "/v1/status")).content["tasks_unreachable"] == 1
        assert answer.headers["swarm-stale-why"] == "this node was removed from the cluster, and shows what it knew then"
        with pytest.raises(Conflict, match="no join token to show"):
            await asked(client.get, "/v1/join-token")


async def test_a_dead_node_has_no_tasks_that_others_took_over_and_no_known_engine(path: Path) -> None:
    async with served(path) as (face, _, client):
        face.engines[NodeId("id-n2")] = EngineState.UP
        for name in ("moved", "stays"):
            made = await asked(submit, client, name=name)
            face.run_task(TaskId(made["id"]))
        face.see("n2", MemberStatus.DEAD)
        face.log.verdict("n2", VerdictKind.HOST_SILENT)
        moved = face.catalog.names["moved"]
        face.log.assign(moved, "n3", replaces=face.catalog.tasks[moved].assignment)
        rows = {row["name"]: (row["tasks"], row["engine"]) for row in (await asked(client.get, "/v1/nodes")).content}
        assert (rows["n2"], rows["n3"][0]) == ((1, "unknown"), 1)


async def test_rows_of_nodes_and_status_count_no_tasks_one_by_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with served(path) as (face, _, client):
        for number in range(3):
            face.run_task(TaskId((await asked(submit, client, name=f"t{number}"))["id"]))
        face.see("n2", MemberStatus.DEAD)
        face.log.verdict("n2", VerdictKind.HOST_SILENT)
        before = (await asked(client.get, "/v1/nodes")).content, (await asked(client.get, "/v1/status")).content["problems"]
        assert [row["tasks"] for row in before[0]] == [0, 3, 0]
        monkeypatch.setattr(Catalog, "tasks", property(lambda _: pytest.fail("a task was looked at")))
        monkeypatch.setattr(Catalog, "assignments", property(lambda _: pytest.fail("an assignment was looked at")))
        assert (await asked(client.get, "/v1/nodes")).content == before[0]
        assert (await asked(client.get, "/v1/status")).content["problems"] == before[1]


async def test_a_dead_node_is_not_shown_as_the_leader(path: Path) -> None:
    async with served(path) as (face, _, client):
        face.status = {"role": "follower", "leader_id": NodeId("id-n2"), "leader_contact_age_s": 5.0}
        assert [row["leader"] for row in (await asked(client.get, "/v1/nodes")).content] == [False, True, False]
        face.see("n2", MemberStatus.DEAD)
        assert not any(row["leader"] for row in (await asked(client.get, "/v1/nodes")).content)


async def test_status_says_that_there_is_no_reserve(path: Path) -> None:
    async with served(path) as (face, _, client):
        lack = lack_text(DiskRoom(free_bytes=100 << 20, where="/data", lacks_bytes=64 << 20))
        assert lack == (
            "there is no reserve on the disk of /data: it is made when 128.0 MiB are free, 100.0 MiB are; "
            "full, it would not even take a vote"
        )
        face.status = {"disk_lack": lack}
        assert (await asked(client.get, "/v1/status")).content["problems"] == [f"this node: {lack}"]
        assert lack_text(DiskRoom(free_bytes=1 << 30, reserve=True, where="/data")) == ""


async def test_status_says_what_a_full_disk_costs_a_node_and_its_vote(path: Path) -> None:
    async with served(path) as (face, _, client):
        face.engines = dict.fromkeys(map(NodeId, ("id-n1", "id-n2", "id-n3")), EngineState.FULL)
        face.full = (NodeId("id-n1"), NodeId("id-n2"))
        assert (await asked(client.get, "/v1/status")).content["problems"][:4] == [
            "no quorum: 0 of 1 voters can store entries, 1 are needed: the disk of n1 is full; "
            "containers run on, writes are refused; free space on n1; leave a submit here with --queue",
            "the disk of node n1 is full: it gets no new work, and as a voter it confirms no entries; free space there",
            "the disk of node n2 is full: it gets no new work, and it is made a voter last; free space there",
            "the disk of node n3 is full: it gets no new work; free space there",
        ]


async def test_events_resume_after_an_index_and_go_on(path: Path) -> None:
    async with served(path) as (face, _, client):
        await asked(submit, client, name="one")
        page = (await asked(client.get, "/v1/events")).content
        assert page == sorted(page, key=lambda event: event["index"])
        last = page[-1]["index"]
        assert any("one" in event["text"] for event in page)

        def follow() -> list[tuple[str, str, Any]]:
            found = []
            for event in client.stream("/v1/events", {"follow": 1}, headers={"Last-Event-ID": str(last)}):
                found.append(event)
                if not face.changes:
                    trio.from_thread.run_sync(face.see, "n3", MemberStatus.SUSPECT)
                if {name for _, name, _ in found} == {"log", "member"}:
                    return found
            return found

        async with trio.open_nursery() as nursery:
            seen: list[Any] = []

            async def run() -> None:
                seen.extend(await asked(follow))

            nursery.start_soon(run)
            await asked(submit, client, name="two")
        logged = [(int(event_id), content) for event_id, name, content in seen if name == "log" and event_id]
        assert all(index > last for index, _ in logged)
        assert any("two" in content["text"] for _, content in logged)


async def test_following_events_where_there_are_none_yet_is_no_bug(path: Path) -> None:
    async with served(path) as (face, api, client):

        def first() -> str:
            for _, name, _ in client.stream("/v1/events", {"follow": 1, "since": 10_000}):
                return name
            return "ended"

        async with trio.open_nursery() as nursery:
            seen: list[str] = []

            async def run() -> None:
                seen.append(await asked(first))

            nursery.start_soon(run)
            while not api.counters["api_requests"]:
                await trio.sleep(0.01)
            face.see("n3", MemberStatus.SUSPECT)
        assert seen == ["member"]
        assert api.counters["api_bugs"] == 0


async def test_what_gossip_sees_stands_among_the_events_of_the_log_without_an_index(path: Path) -> None:
    async with served(path) as (face, _, client):
        first = face.catalog.applied_index
        await asked(submit, client, name="one")
        one = face.catalog.applied_index
        face.log.time_utc += 10
        face.see("n3", MemberStatus.DEAD, "n1, n2 lost it 24 ms ago: its kernel refuses the port")
        face.log.time_utc += 10
        await asked(submit, client, name="two")
        page = (await asked(client.get, "/v1/events")).content
        kinds = [event["kind"] for event in page]
        assert [event["time_utc"] for event in page] == sorted(event["time_utc"] for event in page)
        (seen,) = [event for event in page if event["source"] == "gossip"]
        assert kinds[kinds.index("member.dead") + 1] == page[-1]["kind"], "the newest task came after it"
        assert (seen["index"], seen["observer"], seen["node"]) == (None, "n1", "n3")
        assert (seen["old_status"], seen["status"], seen["death_kind"]) == ("alive", "dead", "daemon_gone")
        assert seen["subjects"] == ["id-n3"]
        assert "n1 sees that n3 is dead (daemon gone)" in seen["text"] and "kernel refuses the port" in seen["text"]
        without = (await asked(client.get, "/v1/events", {"members": 0})).content
        assert without == [event for event in page if event["source"] == "log"]
        after = (await asked(client.get, "/v1/events", {"since": one})).content
        assert after[0] == seen, "what is older than the entry resumed from does not come again"
        assert seen in (await asked(client.get, "/v1/events", {"since": first})).content
        of_n3 = (await asked(client.get, "/v1/events", {"node": "id-n3"})).content
        assert seen in of_n3 and seen not in (await asked(client.get, "/v1/events", {"node": "id-n2"})).content
        assert (await asked(client.get, "/v1/events", {"tail": 2})).content == page[-2:]


async def test_a_stream_gives_what_gossip_sees_no_id_so_that_resuming_stays_exact(path: Path) -> None:
    async with served(path) as (face, _, client):
        await asked(submit, client, name="one")
        face.log.time_utc += 10
        face.see("n3", MemberStatus.SUSPECT)
        face.see("n3", MemberStatus.ALIVE)

        def first(count: int, query: dict[str, Any]) -> list[tuple[str, str, Any]]:
            stream = client.stream("/v1/events", {"follow": 1, **query})
            return [next(stream) for _ in range(count)]

        whole = (await asked(client.get, "/v1/events")).content
        told = await asked(first, len(whole), {})
        assert [content for _, _, content in told] == whole
        assert [name for _, name, _ in told[-2:]] == ["member", "member"]
        assert [event_id for event_id, name, _ in told if name == "member"] == ["", ""]
        without = await asked(first, len(whole) - 2, {"members": 0})
        assert {name for _, name, _ in without} == {"log"}


async def test_nodes_say_when_they_answered_how_fast_and_how_well_they_are(path: Path) -> None:
    async with served(path) as (face, _, client):
        face.evidence["id-n3"] = "n1 lost it 2.1 s ago: no SYN-ACK; n2 reached it 12 ms ago"
        rows = (await asked(client.get, "/v1/nodes")).content
        assert [(row["last_contact_ms"], row["rtt_ms"], row["health"]) for row in rows] == [
            (0, None, 1), (12, 0.4, 2), (12, 0.4, 2),
        ]  # fmt: skip
        detail = (await asked(client.get, "/v1/nodes/n3")).content
        assert detail["observed"] == "n1 lost it 2.1 s ago: no SYN-ACK; n2 reached it 12 ms ago"
        assert detail["counted"] == {"suspicions_opened": 1}
        del face.statuses[next(n for n in face.statuses if n == "id-n2")]
        unknown = (await asked(client.get, "/v1/nodes/n2")).content
        assert (unknown["last_contact_ms"], unknown["rtt_ms"], unknown["health"]) == (None, None, None)


async def test_round_trips_are_a_row_for_each_node_and_a_gap_has_its_reason(path: Path) -> None:
    async with served(path) as (face, _, client):
        n1, n2, n3 = face.rows
        one, other = face.rows[n1].measured
        gaps = (replace_struct(one, rtt_s=0.0), replace_struct(other, status=MemberStatus.DEAD))
        face.rows[n1] = replace(face.rows[n1], measured=gaps)
        face.rows[n2] = replace(face.rows[n2], measured=(), reason="n2 was not asked: no answer within 2 s")
        face.rows[n3] = replace(face.rows[n3], measured=face.rows[n3].measured[:1])
        answer = (await asked(client.get, "/v1/rtt")).content
        assert [node["name"] for node in answer["nodes"]] == ["n1", "n2", "n3"]
        of_n1, of_n2, of_n3 = answer["rows"]
        assert of_n1["rtt_ms"] == {n2: None, n3: None}
        assert of_n1["missing"] == {n2: "n2 has not answered n1 yet", n3: "n3 is dead in the eyes of n1"}
        assert of_n2["reason"] == "n2 was not asked: no answer within 2 s"
        assert set(of_n2["missing"].values()) == {of_n2["reason"]}
        assert (of_n3["rtt_ms"][n1], of_n3["missing"]) == (0.4, {n2: "n3 does not know n2"})


async def test_counters_are_answered_in_groups(path: Path) -> None:
    async with served(path) as (_, _, client):
        found = (await asked(client.get, "/v1/counters")).content
        assert found["node"] == {"id": "id-n1", "name": "n1"}
        assert found.keys() >= {"packets", "bytes", "drops", "suspicions", "deaths", "cases", "loop_lag_ms", "other"}
        assert found["other"]["packets_dropped"] == 3 and found["other"]["api_requests"] >= 1


async def test_logs_keep_their_streams_apart_and_end(path: Path) -> None:
    async with served(path) as (face, _, client):
        made = await asked(submit, client, name="talk")
        with pytest.raises(NotFound, match="no output"):
            await asked(lambda: list(client.stream(task_path("talk", "logs"), {})))
        face.run_task(TaskId(made["id"]))
        face.chunks = [LogChunk("stdout", b"out\xff\n"), LogChunk("stderr", b"err\n")]
        events = await asked(lambda: list(client.stream(task_path("talk", "logs"), {"format": "events"})))
        assert [name for _, name, _ in events] == ["stdout", "stderr", "end"]
        plain = await asked(raw, path, b"GET /v1/tasks/talk/logs HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", False)
        assert b"out\xff\n" in plain and b"err\n" in plain


async def test_logs_that_cannot_be_begun_are_an_error_and_a_head_of_a_stream_ends(path: Path) -> None:
    async with served(path) as (face, api, client):
        made = await asked(submit, client, name="talk")
        face.run_task(TaskId(made["id"]))
        face.logs_refusal = Unreachable("n2 does not answer")
        plain = await asked(raw, path, b"GET /v1/tasks/talk/logs HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", False)
        assert plain.startswith(b"HTTP/1.1 503") and b"another node does not answer" in plain and b"n2" in plain
        assert api.counters["api_bugs"] == 0
        head = await asked(raw, path, b"HEAD /v1/events HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", False)
        assert head.startswith(b"HTTP/1.1 200") and head.endswith(b"\r\n\r\n")


async def test_a_stop_ends_streams_at_once_and_removes_the_socket(path: Path) -> None:
    with trio.fail_after(5):
        async with served(path) as (face, api, client):
            made = await asked(submit, client, name="talk")
            face.run_task(TaskId(made["id"]))
            face.chunks, face.logs_go_on = [LogChunk("stdout", b"hello")], True
            stream = client.stream(task_path("talk", "logs"), {"follow": 1, "format": "events"})
            assert (await asked(next, stream))[1] == "stdout"
            api.stop.set()
            assert await asked(lambda: list(stream)) == []
    assert not path.exists()


async def test_tokens_are_made_listed_and_revoked_and_only_their_hash_is_kept(path: Path) -> None:
    async with served(path) as (face, _, client):
        made = (await asked(client.write, "POST", "/v1/tokens", {"note": "ci"})).content
        assert made["token"].startswith("swarm-api1-")
        (row,) = (await asked(client.get, "/v1/tokens")).content
        assert (row["id"], row["note"]) == (made["id"], "ci")
        assert made["token"].removeprefix("swarm-api1-") not in str(face.catalog.api_tokens)
        await asked(client.write, "DELETE", f"/v1/tokens/{made['id']}")
        with pytest.raises(NotFound):
            await asked(client.write, "DELETE", f"/v1/tokens/{made['id']}")


async def test_the_socket_has_its_mode_and_a_living_daemons_is_not_taken(path: Path) -> None:
    async with served(path):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o660
        with pytest.raises(StartRefused, match=str(path)):
            await Server(Api(MemoryFace()), ApiListeners(str(path))).run()
        assert path.exists()


async def test_a_dead_daemons_socket_is_replaced_and_a_file_is_not(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with served(path) as (_, _, client):
        assert (await asked(client.get, "/v1/tasks")).content == []
    path.write_text("mine")
    with pytest.raises(StartRefused, match="listen"):
        await Server(Api(MemoryFace()), ApiListeners(str(path))).run()
    assert path.read_text() == "mine"


async def test_a_bug_ends_the_request_only_and_is_counted(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with served(path) as (face, api, client):
        face.broken = True
        with pytest.raises(OperatorError) as caught:
            await asked(submit, client, name="x")
        assert "bug" in caught.value.cause
        assert api.counters["api_bugs"] == 1
        face.broken = False
        assert (await asked(submit, client, name="x"))["name"] == "x"


async def test_a_body_over_the_limit_is_refused(path: Path) -> None:
    async with served(path) as (face, _, client):
        with pytest.raises(OperatorError, match="too large"):
            await asked(submit, client, name="x", env=["A=" + "x" * BODY_BYTES_MAX])
        assert face.submitted == []
        assert (await asked(client.get, "/v1/tasks")).content == []


async def test_every_documented_path_is_served(path: Path) -> None:
    async with served(path) as (_, _, client):
        document = (await asked(client.get, "/v1/openapi.json")).content
        assert document["openapi"].startswith("3.")
        assert {"/v1/tasks", "/v1/tasks/{ref}/logs", "/v1/nodes/{ref}", "/v1/events", "/v1/status"} <= document["paths"].keys()
        counters = document["paths"]["/v1/counters"]["get"]["responses"]["2XX"]["content"]["application/json"]["schema"]
        assert counters["properties"].keys() == (await asked(client.get, "/v1/counters")).content.keys()
        with pytest.raises(OperatorError, match="there is no GET /v1/nothing"):
            await asked(client.get, "/v1/nothing")


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"",
        b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /%ff%00 HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /v1/tasks/%2e%2e%2f HTTP/1.1\r\nhost: x\r\n\r\n",
        b"POST /v1/tasks HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\n{",
        b"POST /v1/tasks HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        b"POST /v1/tasks HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nZZ\r\n",
        b"GET /v1/tasks HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n"
        b"sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
        b"GET /v1/tasks HTTP/1.1\r\nhost: x\r\nupgrade: h2c\r\nhttp2-settings: AA\r\nconnection: upgrade, http2-settings\r\n\r\n",
        b"GET /v1/events?since=zz HTTP/1.1\r\nhost: x\r\n\r\n",
        b"\x00" * 70_000,
        b"GET /" + b"a" * 70_000,
        b"OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n",
        b"CONNECT x:1 HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /v1/events?follow=1 HTTP/1.1\r\nhost: \xff\r\nlast-event-id: \xff\r\n\r\n",
    ],
)
async def test_an_odd_request_ends_its_connection_only(path: Path, request_bytes: bytes) -> None:
    async with served(path) as (_, api, client):
        await asked(raw, path, request_bytes)
        assert (await asked(client.get, "/v1/tasks")).content == []
        assert api.counters["api_bugs"] == 0


async def test_random_bytes_and_bodies_never_end_the_process(path: Path) -> None:
    import random

    rng = random.Random(7)
    async with served(path) as (_, api, client):
        for _ in range(150):
            body = mutated(rng, json.dumps({"task": {"image": "a:1", "ports": ["1:2"], "env": {"A": 1}, "cpus": 0.5}}).encode())
            head = f"POST /v1/tasks HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n".encode()
            whole = head + body if rng.random() < 0.7 else mutated(rng, head + body)
            await asked(raw, path, whole)
        assert isinstance((await asked(client.get, "/v1/tasks")).content, list)
        assert api.counters["api_bugs"] == 0


def mutated(rng: Any, data: bytes) -> bytes:
    """Some bytes changed, cut out or repeated."""
    found = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(found) + 1)
        match rng.randrange(3):
            case 0 if place < len(found):
                found[place] = rng.randrange(256)
            case 1:
                del found[place : place + rng.randint(1, 8)]
            case _:
                found[place:place] = bytes(rng.randrange(256) for _ in range(rng.randint(1, 8)))
    return bytes(found)


def raw(path: Path, data: bytes, half_close: bool = True) -> bytes:
    """Send bytes, close the sending side, and read what comes."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(path))
        answer = b""
        try:
            connection.sendall(data)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(65536):
                answer += part
        except (BrokenPipeError, ConnectionResetError):
            pass
        return answer


async def test_malformed_bodies_name_what_is_wrong(path: Path) -> None:
    async with served(path) as (_, _, client):
        for body, word in (
            ({"task": {"image": "a", "imagee": 1}}, "imagee"),
            ({"tusk": {}}, "tusk"),
            ({"task": 1}, "task"),
            ({"task": {}}, "image"),
            ({"task": {"image": "a", "cpus": "many"}}, "cpus"),
            ({"task": {"image": "a", "constraints": ["node.x==1"]}}, "node.x"),
        ):
            with pytest.raises(UsageError, match=word):
                await asked(client.write, "POST", "/v1/tasks", body)
        with pytest.raises(UsageError, match="request id"):
            await asked(client.write, "POST", "/v1/tasks", {}, request_id="no")
