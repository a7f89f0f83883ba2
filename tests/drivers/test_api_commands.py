"""The command line against a served API: what people type, what they see, and the exit codes."""

from __future__ import annotations

import fcntl
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
import trio.testing

from swarm.api.calls import Api
from swarm.api.face import ApiListeners, LogChunk
from swarm.api.server import Server
from swarm.cli.main import main
from swarm.model.ids import NodeId, TaskId
from swarm.model.liveness import EngineState, MemberStatus
from swarm.model.outcome import Applied
from swarm.schema.waiting import Waiting, write_note
from tests.fakes.node_face import MemoryFace


@dataclass
class Done:
    """What a command did."""

    code: int
    out: str
    err: str


class Shell:
    """Runs commands in a thread against one socket."""

    def __init__(self, path: Path, face: MemoryFace) -> None:
        self.path = path
        self.face = face

    async def __call__(self, *arguments: str) -> Done:
        return await trio.to_thread.run_sync(self.run, arguments)

    def run(self, arguments: tuple[str, ...]) -> Done:
        out, err = io.TextIOWrapper(io.BytesIO(), write_through=True), io.TextIOWrapper(io.BytesIO(), write_through=True)
        os.environ["SWARM_SOCKET"] = str(self.path)
        try:
            with redirect_stdout(out), redirect_stderr(err):
                code = main(list(arguments))
        finally:
            del os.environ["SWARM_SOCKET"]
        return Done(code, *(stream.buffer.getvalue().decode() for stream in (out, err)))  # type: ignore[attr-defined]

    async def ok(self, *arguments: str) -> str:
        done = await self(*arguments)
        assert done.code == 0, done
        return done.out


class ActingFace(MemoryFace):
    """A face that does with each submitted task what a test says, as leader and runner would."""

    act: Callable[[TaskId], None] = staticmethod(lambda task_id: None)

    def apply(self, command: object, request_id: str = "") -> Applied:
        applied = super().apply(command, request_id)
        if type(command).__name__ == "Submit" and applied.outcome is None and not applied.repeated:
            self.act(TaskId(applied.value))
        return applied


@asynccontextmanager
async def shell(tmp_path: Path) -> AsyncIterator[Shell]:
    face = ActingFace()
    api = Api(face)
    path = tmp_path / "swarm.sock"
    async with trio.open_nursery() as nursery:
        await nursery.start(Server(api, ApiListeners(str(path))).run)
        yield Shell(path, face)
        with trio.fail_after(5):
            api.stop.set()


async def test_submit_waits_until_it_runs_and_says_where(tmp_path: Path) -> None:
    async with shell(tmp_path) as swarm:
        swarm.face.act = lambda task_id: swarm.face.run_task(task_id)
        said = await swarm.ok(
            "task", "submit", "--name", "cache", "--cpus", "0.5", "--memory", "128M", "-p", "6379:6379", "redis:1"
        )
        assert "cache runs on n2" in said and "6379:6379" in said
        table = await swarm.ok("task", "ls")
        assert table.splitlines()[0].split()[:6] == ["ID", "NAME", "IMAGE", "DESIRED", "PHASE", "NODE"]
        assert "cache" in table and "running" in table
        (row,) = json.loads(await swarm.ok("task", "ls", "-o", "json"))
        assert (row["name"], row["node"], row["attempt"]) == ("cache", "n2", 1)


async def test_every_option_reaches_the_spec(tmp_path: Path) -> None:
    async with shell(tmp_path) as swarm:
        (tmp_path / "vars").write_text("# comment\nA=file\nB=2\n")
        options = [
            "--env-file",
            str(tmp_path / "vars"),
            "-e",
            "A=own",
            "--user",
            "1000",
            "--entrypoint",
            "/bin/sh -c",
            "--workdir",
            "/w",
            "--network",
            "none",
            "--volume",
            "data:/data:ro",
            "--mount",
            "type=bind,src=/srv,dst=/srv,ro",
            "--label",
            "team=web",
            "--constraint",
            "node.labels.disk==ssd",
            "--restart",
            "on-failure:3",
            "--on-node-loss",
            "wait",
            "--volume-elsewhere",
            "--stop-signal",
            "SIGINT",
            "--stop-grace",
            "1m30s",
            "--pids-limit",
            "99",
            "--policy",
            "binpack",
            "--init",
        ]
        await swarm.ok("task", "submit", "--detach", "--name", "all", *options, "redis:1", "echo", "--flag", "x y")
        spec = json.loads(await swarm.ok("task", "inspect", "all", "-o", "json"))["spec"]
        assert spec["env"] == ["A=own", "B=2"]
        assert spec["command"] == ["echo", "--flag", "x y"]
        assert spec["entrypoint"] == ["/bin/sh", "-c"]
        assert (spec["user"], spec["workdir"], spec["network"], spec["stop_grace"]) == ("1000", "/w", "none", 90.0)
        assert (spec["restart"], spec["on_node_loss"], spec["policy"], spec["pids_limit"]) == (
            "on-failure:3",
            "wait",
            "binpack",
            99,
        )
        assert [mount["type"] for mount in spec["mounts"]] == ["volume", "bind"]
        assert (spec["volume_elsewhere"], spec["init"], spec["labels"]) == (True, True, {"team": "web"})


async def test_a_file_says_the_same_and_options_win_over_it(tmp_path: Path) -> None:
    async with shell(tmp_path) as swarm:
        file = tmp_path / "task.yml"
        file.write_text(
            "name: filed\nimage: redis:1\nports: [22:22]\nrestart: no\nenv: {A: 1, B: yes}\nmemory: 64M\nstop-grace: 5s\n"
        )
        await swarm.ok("task", "submit", "-d", "--file", str(file), "--memory", "128M", "-e", "B=2")
        spec = json.loads(await swarm.ok("task", "inspect", "filed", "-o", "json"))["spec"]
        assert (spec["ports"], spec["restart"], spec["memory"], spec["env"]) == (["22:22"], "no", 128 * 2**20, ["A=1", "B=2"])


async def test_a_job_that_succeeds_is_fine_and_one_that_fails_is_ten(tmp_path: Path) -> None:
    async with shell(tmp_path) as swarm:
        swarm.face.act = lambda task_id: swarm.face.run_task(task_id, phase="succeeded", exit_code=0)
        assert "succeeded" in await swarm.ok("task", "submit", "--restart", "no", "--name", "good", "redis:1")
        swarm.face.act = lambda task_id: swarm.face.run_task(task_id, phase="failed", exit_code=3, reason="exit code 3")
        failed = await swarm("task", "submit", "--restart", "no", "--name", "bad", "redis:1")
        assert failed.code == 10
        assert "exit code 3" in failed.err and "hint:" in failed.err


async def test_what_waits_says_why_and_is_eleven_after_the_time(tmp_path: Path) -> None:
    async with shell(tmp_path) as swarm:
        waiting = await swarm("task", "submit", "--name", "huge", "--cpus", "64", "--timeout", "0.3", "redis:1")
        assert waiting.code == 11
        assert "3 lack cpu" in waiting.err and "task rm -f huge" in waiting.err
        shown = await swarm.ok("task", "inspect", "huge")
        assert all(name in shown for name in ("n1", "n2", "n3"))


async def test_a_second_submit_of_a_name_is_four_and_shows_the_first(tmp_path: Path) -> None:
    async with shell(tmp_path) as swarm:
        await swarm.ok("task", "submit", "-d", "--name", "twin", "redis:1")
        identity = json.loads(await swarm.ok("task", "ls", "-o", "json"))[0]["id"]
        second = await swarm("task", "submit", "-d", "--name", "twin", "nginx:1")
        assert second.code == 4
        assert identity[:12] in second.err


async def test_stop_waits_and_rm_forgets(tmp_path: Path) -> None:
    async with shell(tmp_path) as swarm:
        swarm.face.act = lambda task_id: swarm.face.run_task(task_id)
        await swarm.ok("task", "submit", "--name", "one", "redis:1")
        task_id = TaskId(json.loads(await swarm.ok("task", "ls", "-o", "json"))[0]["id"])
        stuck = await swarm("task", "stop", "one", "--timeout", "0.1")
        assert stuck.code == 11 and "running on n2" in stuck.err
        assert (await swarm("task", "rm", "one")).code == 4
        swarm.face.run_task(task_id, phase="stopped")
        assert await swarm.ok("task", "stop", "one") == "one\n"
        await swarm.ok("task", "rm", "one")
        assert (await swarm("task", "inspect", "one")).code == 3


async def test_a_task_that_is_removed_is_listed_and_keeps_its_name_until_its_container_is_gone(tmp_path: Path) -> None:
    async with shell(tmp_path) as swarm:
        swarm.face.act = lambda task_id: swarm.face.run_task(task_id)
        await swarm.ok("task", "submit", "--name", "one", "redis:1")
        task_id = TaskId(json.loads(await swarm.ok("task", "ls", "-o", "json"))[0]["id"])
        stuck = await swarm("task", "rm", "--force", "one", "--timeout", "0.1")
        assert stuck.code == 11 and "running on n2" in stuck.err
        (row,) = json.loads(await swarm.ok("task", "ls", "-o", "json"))
        assert row["removing"] and row["desired"] == "stopped" and not row["ended"]
        again = await swarm("task", "submit", "--name", "one", "redis:1")
        assert again.code == 4 and "being removed" in again.err and task_id[:12] in again.err
        assert await swarm.ok("task", "rm", "--force", "--detach", "one") == "one\n"
        swarm.face.run_task(task_id, phase="stopped")
        assert json.loads(await swarm.ok("task", "ls", "-o", "json")) == []
        await swarm.ok("task", "submit", "--detach", "--name", "one", "redis:1")


async def test_nodes_are_shown_drained_and_labelled(tmp_path: Path) -> None:
    async with shell(tmp_path) as swarm:
        table = await swarm.ok("node", "ls")
        assert "n1" in table and "leader" in table and "voter" in table
        assert json.loads(await swarm.ok("node", "ls", "-o", "json"))[0]["leader"] is True
        await swarm.ok("node", "label", "n2", "disk=ssd", "rack-")
        assert json.loads(await swarm.ok("node", "inspect", "n2", "-o", "json"))["labels"] == {"disk": "ssd"}
        assert "drained" in await swarm.ok("node", "drain", "n2")
        assert "active" in await swarm.ok("node", "activate", "n2")
        swarm.face.statuses.update({node: MemberStatus.DEAD for node in swarm.face.statuses if node == "id-n3"})
        assert "confirmed" in await swarm.ok("node", "confirm-dead", "n3")
        said = await swarm.ok("node", "rm", "n3")
        assert "n3 is removed for good" in said and "swarm token show" in said and "swarm reset" in said
        assert (await swarm("node", "inspect", "n3")).code == 3


async def test_status_events_logs_and_tokens_are_printed(tmp_path: Path) -> None:
    async with shell(tmp_path) as swarm:
        swarm.face.act = lambda task_id: swarm.face.run_task(task_id)
        await swarm.ok("task", "submit", "--name", "talk", "redis:1")
        swarm.face.chunks = [LogChunk("stdout", b"to out\n"), LogChunk("stderr", b"to err\n")]
        logs = await swarm("task", "logs", "talk")
        assert (logs.code, logs.out, logs.err) == (0, "to out\n", "to err\n")
        assert "two more may fail at once: n2 and n3 together; not n1, the only voter" in await swarm.ok("status")
        assert json.loads(await swarm.ok("status", "-o", "json"))["cluster_id"] == "c1"
        assert "engine    up 24.0\n" in await swarm.ok("status")
        swarm.face.engines[NodeId("id-n1")] = EngineState.FULL
        assert "engine    full: 24.0\n" in await swarm.ok("status")
        swarm.face.status = {"leader_id": None, "last_leader": (NodeId("id-n3"), 3), "told_commit": 9, "commit_index": 4}
        shown = (await swarm("status")).out
        assert "tasks     1 running\n" in shown
        swarm.face.statuses[NodeId("id-n2")] = MemberStatus.DEAD
        assert "tasks     1 running; 1 of them as last known (swarm task ls says why)\n" in (await swarm("status")).out
        assert " running? " in await swarm.ok("task", "ls")
        assert "leader    none in reach (last: n3, term 3)\n" in shown and "; the leader is at 9\n" in shown
        assert "talk" in await swarm.ok("events")
        assert all(event["index"] for event in json.loads(await swarm.ok("events", "-o", "json")))
        assert await swarm.ok("token", "show") == "swarm1-x\n"
        assert (await swarm.ok("token", "api", "--note", "ci")).startswith("swarm-api1-")
        assert "ci" in await swarm.ok("token", "api", "--list")


async def test_what_a_node_sees_of_the_others_is_printed(tmp_path: Path) -> None:
    async with shell(tmp_path) as swarm:
        swarm.face.evidence["id-n3"] = "n1 lost it 2.1 s ago: no SYN-ACK; n2 reached it 12 ms ago"
        swarm.face.see("n3", MemberStatus.SUSPECT, "n1 lost it 450 ms ago: no SYN-ACK")
        titles, n1, n2, n3 = (await swarm.ok("node", "ls")).splitlines()
        assert titles.split()[3:7] == ["STATUS", "CONTACT", "RTT", "HEALTH"]
        assert "self" in n1 and "poor (1)" in n1
        assert "12 ms ago  0.40 ms  poor (2)" in n2 and "suspect" in n3
        shown = await swarm.ok("node", "inspect", "n3")
        assert "n1 lost it 2.1 s ago: no SYN-ACK; n2 reached it 12 ms ago" in shown
        assert "suspicions_opened=1" in shown and "counters: packets" not in shown
        assert "counters: packets" in await swarm.ok("node", "inspect", "self")
        assert "packets" in json.loads(await swarm.ok("node", "inspect", "self", "-o", "json"))["counters"]
        listed = await swarm.ok("events")
        assert "n1 sees that n3 is suspect, no longer alive: n1 lost it 450 ms ago: no SYN-ACK" in listed
        assert "n1 sees" not in await swarm.ok("events", "--log-only")
        assert "2 n2 0.40    . 0.40" in await swarm.ok("node", "rtt")
        assert json.loads(await swarm.ok("node", "rtt", "-o", "json"))["rows"][0]["name"] == "n1"


async def test_without_a_quorum_reads_warn_and_writes_are_six(tmp_path: Path) -> None:
    async with shell(tmp_path) as swarm:
        swarm.face.down, swarm.face.age_s = True, 7.0
        listed = await swarm("task", "ls", "-o", "json")
        assert (listed.code, json.loads(listed.out)) == (0, [])
        assert "7.0 s old" in listed.err
        refused = await swarm("task", "submit", "-d", "redis:1")
        assert refused.code == 6
        assert "2 are needed" in refused.err and "hint:" in refused.err
        assert (await swarm("status")).code == 6


async def test_down_is_a_pause_unless_drained(tmp_path: Path) -> None:
    async with shell(tmp_path) as swarm:
        waited = trio.Event()

        async def stop_when_asked() -> None:
            while not swarm.face.stopped:
                await trio.sleep(0.01)
            os.unlink(swarm.path)
            waited.set()

        with (tmp_path / "lock").open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            write_note(str(swarm.path), Waiting(str(tmp_path), "the note of a former start, which was killed"))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stop_when_asked)
                done = await swarm("down")
        assert done.code == 0 and "containers run on" in done.out
        assert "n1 was the only voter: until it is back, nobody takes commands" in done.err
        assert swarm.face.stopped == ["pause"]


def test_a_list_command_imports_nothing_heavy(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom swarm.cli.main import main\n"
        f"code = main(['task', 'ls', '--socket', {str(tmp_path / 'none.sock')!r}])\n"
        "print(code, *sorted(name for name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    code, *modules = done.stdout.split()
    assert code == "6"
    heavy = {"trio", "httpx", "docker", "cryptography", "starlette", "hypercorn", "rich", "ruamel", "msgspec", "cbor2", "asyncio"}
    assert heavy & {name.split(".")[0] for name in modules} == set()


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["frobnicate"], 2, "frobnicate"),
        (["taks"], 2, "did you mean: swarm task?"),
        (["leave"], 2, "swarm down --drain"),
        (["run", "redis:1"], 2, "swarm task submit"),
        (["ps"], 2, "swarm task ls"),
        (["submit", "redis:1"], 2, "did you mean: swarm task submit?"),
        (["drain", "n1"], 2, "did you mean: swarm node drain?"),
        (["task", "lst"], 2, "swarm task ls"),
        (["task", "rotate"], 2, "see: swarm task --help"),
        (["task", "ls", "--json"], 2, "-o json"),
        (["task", "ls", "--colour"], 2, "--colour"),
        (["task", "submit"], 2, "image"),
        (["task", "submit", "--memory", "lots", "a:1"], 2, "lots"),
        (["task", "submit", "--file", "/nowhere/task.yml"], 3, "/nowhere/task.yml"),
        (["task", "ls", "--socket", "/nowhere/s.sock"], 6, "/nowhere/s.sock"),
        (["task", "ls", "--addr", "127.0.0.1:1"], 5, "API token"),
        (["node", "label", "n1", "what"], 2, "what"),
        (["up", "--label", "what"], 2, "what"),
        (["up", "--peers", "a:b:c"], 2, "a:b:c"),
        (["up", "--listen", "0.0.0.0:99999"], 2, "99999"),
        (["up", "--name", "Not A Name"], 2, "Not A Name"),
        (["up", "--token-file", "/nowhere/token"], 9, "/nowhere/token"),
        (["up", "--engine", "what"], 2, "what"),
        (["reset", "--data", "/nowhere/data", "--yes"], 3, "/nowhere/data"),
    ],
)
def test_a_mistake_is_one_clear_error_with_its_code(arguments: list[str], code: int, word: str) -> None:
    done = Shell(Path("/nowhere/swarm.sock"), None).run(tuple(arguments))  # type: ignore[arg-type]
    assert done.code == code, done
    assert done.err.startswith("error: ")
    assert word in done.err
    assert "Traceback" not in done.err


def test_a_damaged_token_is_refused_without_being_shown(tmp_path: Path) -> None:
    run = Shell(tmp_path / "none.sock", None).run  # type: ignore[arg-type]
    token = run(("token", "new")).out.strip()
    (tmp_path / "token").write_text(token[:-1] + ("a" if token[-1] != "a" else "b"))
    done = run(("up", "--token-file", str(tmp_path / "token")))
    assert done.code == 2
    assert token[10:20] not in done.err


def test_reset_asks_then_empties_only_a_folder_of_swarm(tmp_path: Path) -> None:
    run = Shell(tmp_path / "none.sock", None).run  # type: ignore[arg-type]
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "photo.jpg").write_text("x")
    refused = run(("reset", "--data", str(mine), "--yes"))
    assert refused.code == 4 and (mine / "photo.jpg").exists()
    data = tmp_path / "data"
    data.mkdir()
    with (data / "log.db").open("w"):
        pass
    (data / "identity.json").write_text("{}")
    (data / "queue").mkdir()
    (data / "queue" / "abc.submit").write_text("never taken")
    done = run(("reset", "--data", str(data), "--yes"))
    assert done.code == 0 and "1 queued submit was never carried out" in done.err
    assert list(data.iterdir()) == []


def test_a_folder_in_use_is_not_reset(tmp_path: Path) -> None:
    program = f"import time; f = open({str(tmp_path / 'log.db')!r}, 'w'); print('open', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "open\n"
        done = Shell(tmp_path / "none.sock", None).run(("reset", "--data", str(tmp_path), "--yes"))  # type: ignore[arg-type]
        holder.kill()
    assert done.code == 4 and str(holder.pid) in done.err
    assert (tmp_path / "log.db").exists()


HOLDS_A_FOLDER = """
import fcntl, sys, time
lock = open(sys.argv[1], 'w')
fcntl.flock(lock, fcntl.LOCK_EX)
print('locked', flush=True)
time.sleep(60)
"""


def test_a_daemon_that_waits_for_a_cluster_is_found_says_what_it_waits_for_and_is_ended(tmp_path: Path) -> None:
    """It serves nobody yet, so `reset` would send people to `down`, and `down` to a daemon that does not answer."""
    shell = Shell(tmp_path / "swarm.sock", None)  # type: ignore[arg-type]
    data = tmp_path / "data"
    data.mkdir()
    write_note(str(shell.path), Waiting(str(data), "waiting for the peer h2"))
    assert "is swarm up running" in shell.run(("status",)).err, "the note of one that has ended says nothing"
    command = [sys.executable, "-c", HOLDS_A_FOLDER, str(data / "lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "locked\n"
        status = shell.run(("status",))
        assert status.code == 6 and "waiting for the peer h2" in status.err and "swarm down" in status.err
        done = shell.run(("down",))
        assert done.code == 0 and "belonged to no cluster yet" in done.out
        assert holder.wait(timeout=10) == -signal.SIGTERM
    assert not list(tmp_path.glob("*.waiting"))


def test_a_locked_folder_is_not_reset(tmp_path: Path) -> None:
    (tmp_path / "log.db").touch()
    with (tmp_path / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = Shell(tmp_path / "none.sock", None).run(("reset", "--data", str(tmp_path), "--yes"))  # type: ignore[arg-type]
    assert done.code == 4 and "locked" in done.err


async def test_without_a_leader_a_task_is_queued_listed_inspected_and_withdrawn(tmp_path: Path) -> None:
    async with shell(tmp_path) as swarm:
        swarm.face.down, swarm.face.age_s = True, 9.0
        refused = await swarm("task", "submit", "--name", "late", "redis:1")
        assert refused.code == 6
        said = await swarm.ok("task", "submit", "--queue", "--name", "late", "redis:1")
        assert "late is queued" in said and "n1" in said
        (row,) = json.loads(await swarm.ok("task", "ls", "-o", "json"))
        assert (row["name"], row["phase"], row["node"]) == ("late", "queued", None)
        assert json.loads(await swarm.ok("task", "inspect", "late", "-o", "json"))["phase"] == "queued"
        assert row["request_id"] in await swarm.ok("task", "queue", "ls")
        await swarm.ok("task", "queue", "rm", "late")
        assert json.loads(await swarm.ok("task", "ls", "-o", "json")) == []
        assert (await swarm("task", "queue", "rm", "late")).code == 3


async def test_a_removed_node_queues_nothing(tmp_path: Path) -> None:
    """It hears no leader again, and a reset takes the queue with it."""
    async with shell(tmp_path) as swarm:
        swarm.face.is_removed, swarm.face.down, swarm.face.age_s = True, True, 9.0
        refused = await swarm("task", "submit", "--queue", "--name", "late", "redis:1")
        assert refused.code == 4 and "was removed from the cluster" in refused.err and "hint: " in refused.err
        assert json.loads(await swarm.ok("task", "queue", "ls", "-o", "json")) == []


async def test_with_a_leader_queue_changes_nothing(tmp_path: Path) -> None:
    async with shell(tmp_path) as swarm:
        swarm.face.act = lambda task_id: swarm.face.run_task(task_id)
        assert "runs on n2" in await swarm.ok("task", "submit", "--queue", "--name", "now", "redis:1")
        assert swarm.face.kept == []


async def test_a_job_whose_command_fails_at_once_gives_exit_code_10_and_its_reason(tmp_path: Path) -> None:
    async with shell(tmp_path) as swarm, trio.open_nursery() as nursery:

        async def fail(task_id: TaskId) -> None:
            await trio.testing.wait_all_tasks_blocked(0.2)
            swarm.face.run_task(task_id, phase="failed", exit_code=3, reason="it ended with exit code 3")

        def act(task_id: TaskId) -> None:
            swarm.face.run_task(task_id)
            nursery.start_soon(fail, task_id)

        swarm.face.act = act
        done = await swarm("task", "submit", "--stay-up", "30", "--name", "job", "--restart", "no", "redis:1", "false")
        assert done.code == 10 and "exit code 3" in done.err and "failed on n2" in done.err


async def test_a_task_that_runs_again_and_again_does_not_stay_up(tmp_path: Path) -> None:
    async with shell(tmp_path) as swarm:
        swarm.face.act = lambda task_id: swarm.face.run_task(task_id)
        assert (await swarm("task", "submit", "--stay-up", "0", "--name", "quick", "redis:1")).code == 0

        def act(task_id: TaskId) -> None:
            swarm.face.run_task(task_id)
            nursery.start_soon(restart, task_id)

        async def restart(task_id: TaskId) -> None:
            for restarts in (1, 2, 3):
                await trio.testing.wait_all_tasks_blocked(0.05)
                swarm.face.run_task(task_id, phase="restarting", restarts=restarts, reason="it ended with exit code 1")
                swarm.face.run_task(task_id, restarts=restarts)

        swarm.face.act = act
        async with trio.open_nursery() as nursery:
            done = await swarm("task", "submit", "--stay-up", "30", "--name", "flaps", "redis:1")
        assert done.code == 10 and "restarted 3 times" in done.err


@pytest.mark.parametrize("command", [("task", "ls"), ("task", "inspect", "web"), ("node", "ls"), ("node", "inspect", "n2"),
                                     ("node", "rtt"), ("status",), ("events",)], ids=" ".join)  # fmt: skip
async def test_every_read_shows_what_is_known_without_a_leader_and_its_age_when_it_is_not_asked(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    async with shell(tmp_path) as swarm:
        swarm.face.log.running("web", "n2")
        swarm.face.age_s = 0.4
        asked = await swarm(*command, "--stale")
        assert asked.code == 0 and "as the node asked knows it, 0.4 s old" in asked.err and asked.out
        swarm.face.down, swarm.face.age_s = True, 12.5
        done = await swarm(*command)
        assert done.code == (6 if command == ("status",) else 0) and done.out
        assert "no leader in reach; what it shows is 12.5 s old" in done.err


async def test_an_option_of_ours_after_the_image_is_warned_of_and_given_to_the_container(tmp_path: Path) -> None:
    async with shell(tmp_path) as swarm:
        for word in ("--name", "--name=foo", "-e"):
            done = await swarm("task", "submit", "-d", "redis:1", word, "foo")
            assert done.code == 0 and f"warning: '{word[:6]}' after the image" in done.err
        done = await swarm("task", "submit", "-d", "redis:1", "--appendonly", "yes", "--name", "x")
        assert done.code == 0 and done.err == ""
        first = {task.spec.command[0] for task in swarm.face.catalog.tasks.values()}
        assert first == {"--name", "--name=foo", "-e", "--appendonly"}


async def test_following_events_begins_with_the_last_ten_unless_it_is_told_where(tmp_path: Path) -> None:
    async with shell(tmp_path) as swarm:
        for number in range(40):
            swarm.face.log.submit(f"web-{number}")

        async def followed(last: str, *options: str) -> list[str]:
            process = subprocess.Popen(
                [sys.executable, "-m", "swarm", "events", "-f", "--log-only", *options], stdout=subprocess.PIPE, text=True,
                env=os.environ | {"SWARM_SOCKET": str(swarm.path)},
            )  # fmt: skip
            assert process.stdout is not None
            lines: list[str] = []
            with trio.fail_after(30):
                while not lines or last not in lines[-1]:
                    lines.append(await trio.to_thread.run_sync(process.stdout.readline))
            process.kill()
            process.communicate()
            return lines

        assert len(await followed("web-39")) == 10
        assert len(await followed("web-39", "--tail", "3")) == 3
        assert len(await followed("web-39", "--since", "0")) >= 40
        assert len(await followed("web-39", "--since", str(swarm.face.catalog.applied_index - 20))) == 20


async def test_one_request_id_is_not_for_several_tasks(tmp_path: Path) -> None:
    async with shell(tmp_path) as swarm:
        swarm.face.log.running("a", "n2")
        swarm.face.log.running("b", "n2")
        for command in ("stop", "rm"):
            done = await swarm("task", command, "--request-id", "r" * 16, "a", "b")
            assert done.code == 2 and "several" in done.err
