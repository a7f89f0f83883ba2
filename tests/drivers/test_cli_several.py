"""Commands for several things, commands that are interrupted, and commands about what is only queued: what people are told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from swarm.cli import several
from swarm.errors import Overloaded
from swarm.model.command import RemoveTask, StopTask, Submit
from swarm.model.ids import ClusterId, RequestId, TaskId
from swarm.model.outcome import Applied
from swarm.model.queued import QueuedSubmit
from tests.catalog_kit import make_spec
from tests.drivers.test_api_commands import Shell, shell
from tests.fakes.node_face import MemoryFace


async def end_all(swarm: Shell) -> None:
    """What runs and is to stop, ends."""
    while True:
        for task in list(swarm.face.catalog.tasks.values()):
            if task.desired.value == "stopped" and not task.ended:
                swarm.face.run_task(task.id, phase="stopped")
        await trio.sleep(0.01)


@asynccontextmanager
async def with_tasks(tmp_path: Path, count: int) -> AsyncIterator[Shell]:
    """x0, x1, ... that run, and stop when they are told to."""
    async with shell(tmp_path) as swarm, trio.open_nursery() as nursery:
        for number in range(count):
            swarm.face.log.running(f"x{number}", "n2")
        nursery.start_soon(end_all, swarm)
        yield swarm
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("command", [("rm", "-f"), ("stop",)], ids=" ".join)
async def test_when_one_of_several_tasks_is_not_there_nothing_is_changed(tmp_path: Path, command: tuple[str, ...]) -> None:
    async with with_tasks(tmp_path, 3) as swarm:
        done = await swarm("task", *command, "x0", "nope", "x1", "neither", "x2")
        assert done.code == 3 and done.out == ""
        assert "'nope'" in done.err and "'neither'" in done.err and "nothing was changed" in done.err
        assert swarm.face.submitted == []


async def test_when_one_of_several_tasks_has_not_ended_rm_without_force_changes_nothing(tmp_path: Path) -> None:
    async with with_tasks(tmp_path, 2) as swarm:
        await swarm.ok("task", "stop", "x0")
        before = len(swarm.face.submitted)
        done = await swarm("task", "rm", "x0", "x1")
        assert done.code == 4 and "'x1' has not ended" in done.err and "nothing was changed" in done.err
        assert len(swarm.face.submitted) == before


async def test_several_tasks_are_removed_and_each_is_told_once(tmp_path: Path) -> None:
    async with with_tasks(tmp_path, 40) as swarm:
        for number in range(3):  # former ones of a name are not meant
            swarm.face.log.must(Submit(TaskId(f"former-{number}"), make_spec("x40")))
            swarm.face.log.must(StopTask(TaskId(f"former-{number}")))
        absent = await swarm("task", "rm", "-f", *(f"x{number}" for number in range(40)), "absent")
        assert absent.code == 3 and "'absent'" in absent.err and absent.out == ""
        for _ in range(3):
            assert await swarm.ok("task", "rm", "x40") == "x40\n"
        names = [f"x{number}" for number in range(40)]
        some_id = swarm.face.catalog.names["x0"]
        assert (await swarm.ok("task", "rm", "-f", *names, some_id, "x7")).split() == names
        assert swarm.face.catalog.tasks == {}
        removals = [command.task_id for command, _ in swarm.face.submitted if isinstance(command, RemoveTask)]
        assert len(removals) == len(set(removals)) == 43


async def test_where_many_are_named_a_name_means_the_same_task_as_for_a_node(tmp_path: Path) -> None:
    rows = [{"id": f"i{n}", "name": name, "ended": ended, "phase": phase} for n, (name, ended, phase) in enumerate(
        [("a", True, "stopped"), ("a", False, "running"), ("b", True, "stopped"), ("b", True, "failed"), ("a", False, "queued"),
         ("b", False, "queued"), ("c", False, "queued")])]  # fmt: skip
    known = several.by_reference(rows)
    assert [known[name]["id"] for name in ("a", "b", "c", "i0")] == ["i1", "i3", "i6", "i0"]


async def test_an_error_on_the_way_says_what_was_done_and_what_was_not_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(several, "AT_ONCE", 1)
    async with with_tasks(tmp_path, 30) as swarm:
        carry_out = swarm.face.submit

        async def submit(command: Any, **more: Any) -> Applied:
            if isinstance(command, StopTask) and command.task_id == "t-x2":
                raise Overloaded("the leader is busy", hint="try again")
            return await carry_out(command, **more)

        monkeypatch.setattr(swarm.face, "submit", submit)
        done = await swarm("task", "stop", *(f"x{number}" for number in range(30)))
        assert done.code == 8 and "error: x2: the leader is busy" in done.err and "not reached" in done.err
        (line,) = (line for line in done.err.splitlines() if "told to stop" in line)
        assert line.startswith("x0, x1:")
        assert "x3, x4, x5, x6, x7, x8, x9, x10, x11, x12 and 17 more: not reached" in done.err
        told = {task.spec.name for task in swarm.face.catalog.tasks.values() if task.desired.value == "stopped"}
        assert told == {"x0", "x1"}


async def test_every_task_that_does_not_stop_in_time_is_named_and_the_others_are_done(tmp_path: Path) -> None:
    async with shell(tmp_path) as swarm:
        for name in ("a", "b"):
            swarm.face.log.running(name, "n2")
        swarm.face.log.submit("never-placed")
        done = await swarm("task", "stop", "--timeout", "0.2", "a", "never-placed", "b")
        assert done.code == 11 and "2 of 3 tasks did not stop" in done.err and "a, b" in done.err
        assert done.out.split() == ["never-placed"]


async def test_several_nodes_or_queued_tasks_are_all_found_before_one_is_removed(tmp_path: Path) -> None:
    async with shell(tmp_path) as swarm:
        assert (await swarm("node", "rm", "-f", "n2", "n9")).code == 3
        assert swarm.face.submitted == []
        keep(swarm.face, "q1", "q2")
        assert (await swarm("task", "queue", "rm", "q1", "absent")).code == 3
        assert len(swarm.face.kept) == 2
        assert (await swarm.ok("task", "queue", "rm", "q1", "q2")).split() == ["q1", "q2"]
        assert swarm.face.kept == []


def keep(face: MemoryFace, *names: str) -> None:
    for name in names:
        face.kept.append(QueuedSubmit(ClusterId("c1"), RequestId(f"request-{name}"), TaskId(f"t{name}"), make_spec(name), 1e3))


async def test_a_queued_task_is_not_called_absent_and_the_way_to_take_it_out_is_named(tmp_path: Path) -> None:
    async with shell(tmp_path) as swarm:
        keep(swarm.face, "q1", "q2")
        for command in (("stop", "q1"), ("rm", "-f", "q1"), ("rm", "q1", "q2"), ("logs", "q1")):
            done = await swarm("task", *command)
            assert done.code == 3 and "'q1' is queued" in done.err and "swarm task queue rm q1" in done.err


async def test_a_detached_submit_that_is_queued_says_so_beside_the_line_for_scripts(tmp_path: Path) -> None:
    async with shell(tmp_path) as swarm:
        swarm.face.down = True
        done = await swarm("task", "submit", "--queue", "-d", "--name", "q2", "redis:1")
        (record,) = swarm.face.kept
        assert done.code == 0 and done.out == f"q2 {record.task_id}\n"
        assert "q2 is queued: kept on n1" in done.err and record.request_id in done.err


async def interrupted(tmp_path: Path, when: trio.Event, *arguments: str) -> tuple[int, str]:
    """Exit code and standard error of a command that gets SIGINT once the event is set."""
    process = subprocess.Popen(
        [sys.executable, "-m", "swarm", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        env=os.environ | {"SWARM_SOCKET": str(tmp_path / "swarm.sock")}, preexec_fn=heed_interrupts,
    )  # fmt: skip
    try:
        with trio.fail_after(30):
            await when.wait()
            process.send_signal(signal.SIGINT)
            _, said = await trio.to_thread.run_sync(process.communicate, abandon_on_cancel=True)
    finally:
        process.kill()
    return process.returncode, said.decode()


def heed_interrupts() -> None:
    """Where these tests run in the background of a shell without job control, children begin with SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def hold(face: MemoryFace, monkeypatch: pytest.MonkeyPatch, after: int) -> trio.Event:
    """Submits beyond so many get no answer; the event says that there is one."""
    asked = trio.Event()
    carry_out = face.submit

    async def submit(command: Any, **more: Any) -> Applied:
        nonlocal after
        after -= 1
        if after >= 0:
            return await carry_out(command, **more)
        asked.set()
        return await trio.sleep_forever()

    monkeypatch.setattr(face, "submit", submit)
    return asked


async def test_a_submit_interrupted_before_its_answer_names_its_request_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with shell(tmp_path) as swarm:
        asked = hold(swarm.face, monkeypatch, 0)
        code, said = await interrupted(tmp_path, asked, "task", "submit", "--request-id", "my-own-id", "redis:1")
        assert code == 130 and "interrupted: the outcome is unknown; ask again with --request-id my-own-id" in said


async def test_a_submit_interrupted_while_it_waits_says_that_the_task_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with shell(tmp_path) as swarm:
        waits = trio.Event()
        park = swarm.face.wait_applied

        async def wait_applied(index: int) -> None:
            waits.set()
            await park(index)

        monkeypatch.setattr(swarm.face, "wait_applied", wait_applied)
        code, said = await interrupted(tmp_path, waits, "task", "submit", "--name", "cc3", "redis:1")
        assert code == 130 and "interrupted: cc3 stays submitted; to give it up: swarm task rm -f cc3" in said


async def test_a_drain_that_is_interrupted_says_that_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with shell(tmp_path) as swarm:
        swarm.face.log.running("web", "n2")
        asked = trio.Event()
        first = swarm.face.consensus
        reads = 0

        def consensus() -> Any:
            nonlocal reads
            reads += any(node.availability.value == "drain" for node in swarm.face.catalog.nodes.values())
            if reads > 6:  # more than the request itself looks: the command waits
                asked.set()
            return first()

        monkeypatch.setattr(swarm.face, "consensus", consensus)
        code, said = await interrupted(tmp_path, asked, "node", "drain", "n2")
        assert code == 130 and "interrupted: n2 goes on draining; to end that: swarm node activate n2" in said


async def test_a_batch_or_a_removal_that_is_interrupted_says_what_was_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "many.json").write_text(json.dumps([{"image": "redis:1", "name": f"web-{n}"} for n in range(70)]))
    async with with_tasks(tmp_path, 30) as swarm:
        with monkeypatch.context() as patch:
            asked = hold(swarm.face, patch, 0)
            code, said = await interrupted(tmp_path, asked, "task", "submit", "-f", str(tmp_path / "many.json"))
        assert code == 130 and "0 of 70 tasks were submitted" in said and "--request-id " in said
        with monkeypatch.context() as patch:
            asked = hold(swarm.face, patch, 0)
            names = [f"x{number}" for number in range(30)]
            code, said = await interrupted(tmp_path, asked, "task", "rm", "-f", *names)
        assert code == 130 and "x0" in said and "the outcome is unknown" in said and "not reached" in said
