"""`swarm down --drain` says that the node has left when its daemon has ended, not when it only began anew."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from swarm.cli.down import process_at, runs, wait_until_gone

DAEMON = """
import os, socket, sys
listening = socket.socket(socket.AF_UNIX)
listening.bind(sys.argv[1])
listening.listen()
print("up", flush=True)
sys.stdin.readline()
listening.close()
os.unlink(sys.argv[1])
print("closed", flush=True)
sys.stdin.readline()
"""


def test_a_daemon_that_closed_its_socket_is_waited_for_until_it_has_ended(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    command = [sys.executable, "-c", DAEMON, path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as daemon:
        assert daemon.stdin is not None and daemon.stdout is not None
        assert daemon.stdout.readline() == "up\n"
        process = process_at(path)
        assert process == daemon.pid and runs(process)
        print(file=daemon.stdin, flush=True)
        assert daemon.stdout.readline() == "closed\n"
        waited: list[float] = []

        def pause(seconds: float) -> None:
            waited.append(seconds)
            daemon.communicate("\n")

        wait_until_gone(path, process, pause=pause)
    assert len(waited) == 1 and not runs(process)


def test_without_a_socket_no_process_is_waited_for(tmp_path: Path) -> None:
    assert process_at(str(tmp_path / "none")) == 0
    wait_until_gone(str(tmp_path / "none"), 0, pause=lambda seconds: None)
