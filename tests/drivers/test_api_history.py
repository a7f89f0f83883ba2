"""The past over the API and on the command line: what people type, and what they see."""

from __future__ import annotations

import json
import time
from pathlib import Path

from swarm.cli.history import day_note
from swarm.model.command import Admit, RemoveNode, RemoveTask, StopTask
from swarm.model.ids import NodeId, TaskId
from swarm.model.node import VerdictKind
from swarm.model.resources import Resources
from tests.catalog_kit import make_node
from tests.drivers.test_api_commands import shell
from tests.fakes.node_face import MemoryFace


def lived(face: MemoryFace) -> TaskId:
    """A task that is assigned to n2, and another one that waits: entries 2 to 4, a second apart."""
    log = face.log
    log.time_utc += 1
    task_id = log.submit("web")
    log.time_utc += 1
    log.assign(task_id, "n2")
    log.time_utc += 1
    log.submit("db")
    return task_id


async def test_history_shows_who_did_what_when_and_goes_back_page_by_page(tmp_path: Path) -> None:
    async with shell(tmp_path) as swarm:
        task_id = lived(swarm.face)
        swarm.face.log.time_utc += 1
        swarm.face.apply(StopTask(task_id, "enough"), "request-12345678")
        said = await swarm.ok("history")
        lines = said.splitlines()
        assert lines[0].split() == ["INDEX", "TIME", "KIND", "BY", "WHAT", "REQUEST"]
        assert "request-1234" in lines[-1] and "task web is to stop: enough" in said
        found = json.loads(await swarm.ok("history", "web", "-o", "json"))
        assert [row["kind"] for row in found["rows"]][:2] == ["task.submitted", "assignment.assigned"]
        assert all("db" not in row["text"] for row in found["rows"])
        page = await swarm("history", "--limit", "1")
        assert "there is more: --before 5" in page.err
        assert json.loads(await swarm.ok("history", "--before", "3", "-o", "json"))["rows"][-1]["index"] == 2


async def test_state_shows_tasks_and_nodes_as_they_were(tmp_path: Path) -> None:
    async with shell(tmp_path) as swarm:
        lived(swarm.face)
        before = await swarm.ok("state", "--index", "2")
        assert "web" in before and "pending" in before and "db" not in before
        at = json.loads(await swarm.ok("state", "--at", "1970-01-01T00:16:42.5Z", "-o", "json"))
        assert (at["index"], at["tasks"][0]["node"], at["tasks_total"]) == (3, "n2", 1)
        assert [node["name"] for node in at["nodes"]] == ["n1", "n2", "n3"]
        one = json.loads(await swarm.ok("state", "--index", "4", "--task", "db", "-o", "json"))
        assert ([task["name"] for task in one["tasks"]], one["nodes"]) == (["db"], [])
        web = json.loads(await swarm.ok("state", "--index", "4", "--task", "web", "-o", "json"))
        assert [node["name"] for node in web["nodes"]] == ["n2"]
        assert "ADDRESS" not in await swarm.ok("state", "--index", "4", "--task", "web")


async def test_a_state_that_cannot_be_shown_is_an_error_that_says_what_can(tmp_path: Path) -> None:
    async with shell(tmp_path) as swarm:
        lived(swarm.face)
        for arguments, code, words in (
            (("--index", "99"), 3, "no index 99"),
            (("--at", "1970-01-01T00:00:01Z"), 3, "nothing from 1970-01-01 00:00:01 UTC is kept"),
            (("--at", "soon"), 2, "cannot read the time"),
            ((), 2, "which state"),
            (("--at", "10:30", "--index", "3"), 2, "both --at and --index are given"),
            (("--index", "3", "--task", "db"), 3, "there was no task 'db' then"),
        ):
            done = await swarm("state", *arguments)
            assert (done.code, words in done.err) == (code, True), done
        assert "oldest state that this node can show is index 1" in (await swarm("state", "--index", "99")).err


async def test_diff_tells_added_moved_changed_and_removed_apart(tmp_path: Path) -> None:
    async with shell(tmp_path) as swarm:
        task_id = lived(swarm.face)
        log, catalog = swarm.face.log, swarm.face.catalog
        moved = log.assign(task_id, "n3", replaces=catalog.tasks[task_id].assignment)
        assert moved
        said = await swarm.ok("diff", "3", "now")
        assert "+ task db (pending)" in said and "> task web: n2 -> n3: " in said
        back = await swarm.ok("diff", "now", "3")
        assert "- task db" in back and "> task web: n3 -> n2" in back
        assert "nothing changed" in await swarm.ok("diff", "3", "3")
        swarm.face.log.must(StopTask(catalog.find_task("db").id))
        assert "~ task db: desired running -> stopped" in await swarm.ok("diff", "5")


async def test_what_never_was_is_an_error_and_what_is_gone_is_not(tmp_path: Path) -> None:
    async with shell(tmp_path) as swarm:
        task_id = lived(swarm.face)
        swarm.face.log.must(StopTask(swarm.face.catalog.find_task("db").id))
        swarm.face.log.must(RemoveTask(swarm.face.catalog.find_task("db").id))
        for name in ("nope", "id-nope"):
            done = await swarm("history", name)
            assert (done.code, f"there is no task '{name}'" in done.err) == (3, True), done
        for name in ("db", "web", task_id, "n2", "self"):
            assert len((await swarm.ok("history", name)).splitlines()) > 1, name
        assert (await swarm.ok("history", "db", "--before", "2")).splitlines()[1:] == [], "nothing of it as early as that"
        assert (await swarm("history", "nope", "--since", "2")).code == 3


def test_a_time_of_day_that_is_not_todays_is_said_with_its_date() -> None:
    noon = time.mktime((2026, 3, 2, 12, 0, 0, 0, 0, -1))
    assert day_note("13:05", now_utc=noon) == "note: 13:05 has not been today yet: read as 2026-03-01 13:05:00"
    for text in ("11:05", "12:00:00", "2h", "30h", "now", "77", "2026-02-01 13:05", "2026-02-01T13:05Z"):
        assert day_note(text, now_utc=noon) == "", text


async def test_differences_are_shown_in_the_units_of_the_other_commands(tmp_path: Path) -> None:
    async with shell(tmp_path) as swarm:
        log = swarm.face.log
        sizes = Resources(cpu_millicores=500, memory_bytes=128 * 2**20)
        before = log.catalog.applied_index
        log.running("web", "n2", resources=sizes)
        said = await swarm.ok("diff", str(before))
        assert "~ node n2: tasks 0 -> 1, cpus_reserved 0 -> 0.5, memory_reserved 0B -> 128MiB" in said


async def test_a_dead_nodes_tasks_are_counted_where_they_were_replaced(tmp_path: Path) -> None:
    async with shell(tmp_path) as swarm:
        log = swarm.face.log
        task_id, assignment = log.running("web", "n2")
        before = log.catalog.applied_index
        log.verdict("n2", VerdictKind.HOST_SILENT)
        dead = log.catalog.applied_index
        log.assign(task_id, "n3", replaces=assignment)
        assert "tasks" not in await swarm.ok("diff", str(before), str(dead)), "it may be running there"
        said = await swarm.ok("diff", str(dead), "now")
        assert "~ node n2: tasks 1 -> 0" in said and "~ node n3: tasks 0 -> 1" in said


async def test_who_brought_something_is_named_also_when_that_node_is_gone(tmp_path: Path) -> None:
    async with shell(tmp_path) as swarm:
        log = swarm.face.log
        log.must(Admit(make_node("n4")))
        log.must(RemoveNode(NodeId("id-n4")))
        admitted = (await swarm.ok("history")).splitlines()[-2]
        assert "node.admitted" in admitted and admitted.split()[4] == "n4" and "id-n4" not in admitted
