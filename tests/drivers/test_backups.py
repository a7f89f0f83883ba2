"""Real daemons, without an engine: a cluster is saved into a file, and a new one made of it."""

from __future__ import annotations

import fcntl
import io
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from swarm import __version__
from swarm.adapters.kept_snapshots import write_whole
from swarm.cli.main import main
from swarm.client.client import Client
from swarm.errors import OperatorError
from swarm.model.entry import Configuration, SnapshotMeta
from swarm.model.task import Mount, MountKind
from swarm.wire.checksum import crc32c
from swarm.wire.kept import KeptHeader, pack_head, parse_untrusted
from tests.catalog_kit import Log, make_node


def swarm(*arguments: str, code: int = 0) -> str:
    """Run a command; its output. A failure must be one clear error."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        found = main(arguments)
    assert found == code, f"{arguments}: {found}\n{out.getvalue()}{err.getvalue()}"
    assert not code or err.getvalue().count("error:") == 1, err.getvalue()
    return out.getvalue() + err.getvalue()


def leads(path: str) -> bool:
    try:
        with Client(socket_path=path) as node:
            return bool(node.get("/v1/status").content["fresh"])
    except OperatorError:
        return False


@contextmanager
def daemon(data: Path, folder: Path, name: str) -> Iterator[str]:
    """A daemon on this data folder; yields its socket once it leads."""
    taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    ports = [each.getsockname()[1] for each in taken]
    for each in taken:
        each.close()
    path = str(folder / "s")
    command = [
        sys.executable, "-m", "swarm", "up", "--data", str(data), "--name", name, "--socket", path,
        "--listen", f"127.0.0.1:{ports[0]}", "--api-listen", f"127.0.0.1:{ports[1]}", "--engine", f"unix://{folder}/no-engine",
    ]  # fmt: skip
    with open(folder / "log", "ab") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            deadline = time.monotonic() + 30
            while not leads(path):
                assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
            yield path
        finally:
            process.terminate()
            process.wait(timeout=30)


def old_cluster() -> Log:
    log = Log(*(make_node(name) for name in ("n1", "n2", "n3")))
    log.running("web", "n1", env=("COLOUR=blue",))
    log.submit("waits")
    return log


def write_backup(path: Path, log: Log) -> None:
    data = b"".join(log.catalog.backup_slices())
    meta = SnapshotMeta(log.catalog.applied_index, 5, Configuration(()), 1, 0, log.time_utc, crc32c(data), len(data))
    header = KeptHeader("backup", log.catalog.cluster_id, meta, log.time_utc, "n1", __version__, 3, 2)
    write_whole(path, pack_head(header), data)


def ask(socket_path: str, *arguments: str) -> Any:
    return json.loads(swarm(*arguments, "--socket", socket_path, "-o", "json"))


def test_a_new_cluster_is_made_of_a_backup_and_saved_and_made_of_that_again(tmp_path: Path) -> None:
    first, second, old = tmp_path / "first", tmp_path / "second", tmp_path / "old.backup"
    write_backup(old, old_cluster())
    made = json.loads(swarm("backup", "restore", str(old), "--data", str(first), "-o", "json"))
    assert made["tasks"] == ["waits", "web"] and made["from_cluster_id"] == "c1" != made["cluster_id"]
    saved = tmp_path / "saved.backup"
    with daemon(first, tmp_path, "fresh") as path:
        status = ask(path, "status")
        assert status["cluster_id"] == made["cluster_id"] and status["voters"] == ["fresh"] and status["fresh"]
        assert {task["name"]: (task["desired"], task["phase"]) for task in ask(path, "task", "ls")} == {
            "web": ("running", "pending"), "waits": ("running", "pending"),
        }  # fmt: skip
        assert [node["name"] for node in ask(path, "node", "ls")] == ["fresh"]
        assert ask(path, "task", "inspect", "web")["spec"]["env"] == ["COLOUR=blue"]
        swarm("task", "submit", "--name", "later", "--detach", "--socket", path, "image")
        told = swarm("backup", "save", str(saved), "--socket", path)
        assert made["cluster_id"] in told and "up to entry" in told and told.endswith("No keys, secrets or tokens are in it\n")
        nowhere = swarm("backup", "save", str(tmp_path / "nowhere" / "x"), "--socket", path, code=3)
        assert f"there is no folder {tmp_path / 'nowhere'}" in nowhere and "hint:" in nowhere
        command = [sys.executable, "-m", "swarm", "backup", "save", "-", "--socket", path]
        piped = subprocess.run(command, capture_output=True, check=True, timeout=60)
        assert parse_untrusted(piped.stdout)[0].cluster_id == made["cluster_id"] and b"up to entry" in piped.stderr
        assert not Path("-").exists()
        assert "there already" in swarm("backup", "save", str(saved), "--socket", path, code=4)
        assert swarm("backup", "ls", "--socket", path).split() == ["KIND", "ENTRY", "OF", "TASKS", "SIZE", "FILE"]
    assert saved.stat().st_mode & 0o777 == 0o600
    assert "\nsaved " in (shown := swarm("backup", "inspect", str(saved))) and "\nnewest entry " in shown
    found = json.loads(swarm("backup", "inspect", str(saved), "-o", "json"))
    assert found["task_names"] == ["later", "waits", "web"] and found["node_names"] == ["fresh"]
    again = json.loads(swarm("backup", "restore", str(saved), "--data", str(second), "-o", "json"))
    assert again["tasks"] == ["later", "waits", "web"] and again["from_cluster_id"] == made["cluster_id"]


def test_nothing_is_restored_over_something_or_from_a_damaged_file(tmp_path: Path) -> None:
    backup, data = tmp_path / "backup", tmp_path / "data"
    write_backup(backup, old_cluster())
    data.mkdir()
    (data / "kept").write_text("precious")
    assert "not empty" in swarm("backup", "restore", str(backup), "--data", str(data), code=4)
    assert [each.name for each in data.iterdir()] == ["kept"]
    whole = bytearray(backup.read_bytes())
    whole[-20] ^= 4
    backup.write_bytes(whole)
    for arguments in (("inspect", str(backup)), ("restore", str(backup), "--data", str(tmp_path / "fresh"))):
        assert "checksum" in swarm("backup", *arguments, code=2)
    assert not (tmp_path / "fresh").exists()
    swarm("backup", "inspect", str(tmp_path / "nowhere"), code=3)


def test_a_folder_whose_start_failed_counts_as_empty_and_one_that_is_in_use_or_holds_a_log_does_not(tmp_path: Path) -> None:
    backup, data = tmp_path / "backup", tmp_path / "data"
    write_backup(backup, old_cluster())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "swarm", "up", "--witness", "--data", str(data), "--listen", f"127.0.0.1:{port}"]
        assert subprocess.run(command, capture_output=True, timeout=60).returncode == 9
    assert (data / "node.json").exists(), "an identity is left behind"
    with (data / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "a daemon has it open" in swarm("backup", "restore", str(backup), "--data", str(data), code=4)
    assert (data / "node.json").exists()
    swarm("backup", "restore", str(backup), "--data", str(data))
    assert "not empty" in swarm("backup", "restore", str(backup), "--data", str(data), code=4)
    (data / "cluster.json").rename(tmp_path / "lost")
    assert "not empty" in swarm("backup", "restore", str(backup), "--data", str(data), code=4)
    assert (data / "log.db").exists()


def test_tasks_with_data_on_a_node_are_restored_only_when_that_is_accepted(tmp_path: Path) -> None:
    backup, log = tmp_path / "backup", old_cluster()
    log.running("diary", "n2", mounts=(Mount(MountKind.VOLUME, "diary", "/data"),))
    write_backup(backup, log)
    assert "diary (on n2)" in swarm("backup", "restore", str(backup), "--data", str(tmp_path / "data"), code=4)
    assert not (tmp_path / "data").exists()
    told = swarm("backup", "restore", str(backup), "--data", str(tmp_path / "data"), "--empty-volumes")
    assert "without the data of their old node: diary" in told


pytestmark = pytest.mark.timeout(180)
