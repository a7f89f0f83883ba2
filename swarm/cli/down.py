"""`swarm down` and `swarm reset`: the end of this host's daemon, and of its part in a cluster."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import click

from swarm.cli.asking import StillWaiting, connected
from swarm.cli.node import wait_until_empty
from swarm.client.client import SOCKET_DEFAULT, Client, node_path
from swarm.errors import Conflict, NotFound, OperatorError, Unavailable, UsageError
from swarm.schema.node_config import DATA_DEFAULT, ENGINE_DEFAULT
from swarm.schema.waiting import LOCK, Waiting, is_locked, process_using, read_note, remove_note

STOP_S_MAX = 60.0
MARKS = frozenset({"node.json", "log.db", "cluster.json"})
"""A folder without any of these is not the daemon's, and is left alone."""


@click.command()
@click.option("--drain", is_flag=True, help="Move the tasks to other nodes first, and leave for good.")
@click.option("--timeout", "timeout_s", type=float, default=300.0, show_default=True, help="Seconds to wait for the drain.")
@connected
def down(drain: bool, timeout_s: float, socket_path: str, address: str) -> None:
    """End this host's daemon.

    Without --drain this is a pause, announced to the others: containers run on, and nothing is replaced for a minute.
    """
    if address:
        raise UsageError("swarm down ends the daemon of this host", cause="--addr names another", hint="run it on that host")
    waiting = None if answers(socket_path) else read_note(socket_path)
    if waiting is not None:
        end_waiting(waiting, socket_path)
        return
    with Client(socket_path=socket_path) as node:
        warning = "" if drain else what_a_pause_costs(node)
        if drain:
            drain_self(node, timeout_s)
        process = process_at(socket_path) if drain else 0
        node.write("POST", "/v1/shutdown", {"kind": "leave" if drain else "pause"})
    wait_until_gone(socket_path, process)
    print("the daemon has left the cluster" if drain else "the daemon has ended; its containers run on")
    if warning:
        print(f"warning: {warning}", file=sys.stderr)


def what_a_pause_costs(node: Client) -> str:
    """A sentence, when the others can decide nothing without this node; empty otherwise, and when nothing is known."""
    try:
        found = node.get("/v1/status", {"stale": 1}).content
    except OperatorError:
        return ""
    name = found["node"]["name"]
    if not found["quorum"] or name not in found["may_not_fail"] or sum(found["nodes"].values()) < 2:
        return ""
    why = f"{name} was the only voter" if found["voters"] == [name] else f"the voters left are no majority without {name}"
    return f"{why}: until it is back, nobody takes commands; containers run on (swarm up on it ends that)"


def end_waiting(waiting: Waiting, socket_path: str) -> None:
    """End a daemon that belongs to no cluster yet and serves nobody. Raises `Conflict` where we may not, `StillWaiting`."""
    holder = waiting.process
    try:
        if not holder:
            raise PermissionError
        os.kill(holder, signal.SIGTERM)
    except OSError:
        cause = f"it holds {waiting.data}, and this user may not look at it"
        raise Conflict("cannot end the daemon that waits to join a cluster", cause=cause, hint="run it as root") from None
    deadline = time.monotonic() + STOP_S_MAX
    while is_locked(os.path.join(waiting.data, LOCK)):
        if time.monotonic() > deadline:
            raise StillWaiting(f"process {holder} did not end within {STOP_S_MAX:g} s", hint=f"kill -9 {holder}")
        time.sleep(0.1)
    remove_note(socket_path)
    print(f"the daemon has ended; it belonged to no cluster yet: {waiting.text}")


def drain_self(node: Client, timeout_s: float) -> None:
    """Raises `Conflict` when there is nobody to take the work, before anything changes."""
    found: dict[str, Any] = node.get(node_path("self")).content
    others = [
        each for each in node.get("/v1/nodes").content
        if each["id"] != found["id"] and each["status"] == "alive" and each["availability"] == "active"
    ]  # fmt: skip
    if found["tasks"] and not others:
        raise Conflict(
            f"{found['tasks']} tasks run here and no other node can take them", cause="no other node is alive and active",
            hint="stop the tasks first, or use swarm down without --drain (they run on)",
        )  # fmt: skip
    found = node.write("POST", node_path("self", "drain")).content
    wait_until_empty(node, found, timeout_s)


def wait_until_gone(socket_path: str, process: int = 0, *, pause: Callable[[float], None] = time.sleep) -> None:
    """Until nobody answers on the socket, and that process has ended: one that meets a recovery as it leaves closes its socket,
    begins anew and leaves then. 0 for a process that is not known. Raises `StillWaiting`."""
    deadline = time.monotonic() + STOP_S_MAX
    while answers(socket_path) or runs(process):
        if time.monotonic() > deadline:
            raise StillWaiting(f"the daemon did not end within {STOP_S_MAX:g} s", hint="its log says what it waits for")
        pause(0.1)


def process_at(socket_path: str) -> int:
    """Who listens on the socket; 0 where that cannot be seen."""
    import socket
    import struct

    from swarm.client.connection import UnixConnection

    connection = UnixConnection(socket_path, timeout_s=5.0)
    try:
        connection.connect()
        found = connection.sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return int(struct.unpack("3i", found)[0])
    except (Unavailable, OSError):
        return 0
    finally:
        connection.close()


def runs(process: int) -> bool:
    """Whether it is there and has not ended (one that nobody has waited for yet has)."""
    try:
        with open(f"/proc/{process}/stat") as opened:
            return opened.read().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (OSError, IndexError):
        return False


def answers(socket_path: str) -> bool:
    """Whether a daemon accepts on the socket."""
    from swarm.client.connection import UnixConnection

    connection = UnixConnection(socket_path, timeout_s=5.0)
    try:
        connection.connect()
    except Unavailable:
        return False
    finally:
        connection.close()
    return True


@click.command()
@click.option("--data", envvar="SWARM_DATA", default=DATA_DEFAULT, show_envvar=True, show_default=True, help="The data folder.")
@click.option("--socket", "socket_path", envvar="SWARM_SOCKET", default=SOCKET_DEFAULT, show_envvar=True, show_default=True)
@click.option("--engine", envvar=["SWARM_ENGINE", "DOCKER_HOST"], default=ENGINE_DEFAULT, show_envvar=True, show_default=True,
              help="The Docker Engine that is asked for what still runs.")  # fmt: skip
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
def reset(data: str, socket_path: str, engine: str, yes: bool) -> None:
    """Forget this host's cluster: its identity and its copy of the log are removed. Containers are not touched, but named.

    On a member of a living cluster run `swarm down --drain` first; on another node `swarm node rm` forgets this one.
    """
    from swarm.adapters.queue_folder import queued_files
    from swarm.cli.up import checked_engine
    from swarm.node.leftovers import leftovers

    if not os.path.isdir(data):
        raise NotFound(f"there is no data folder {data}", hint="nothing is to be reset; --data names another folder")
    names = sorted(os.listdir(data))
    if not names:
        print(f"{data} is empty already")
        return
    if MARKS.isdisjoint(names):
        cause = f"it holds {', '.join(names[:5])}"
        raise Conflict(f"{data} does not look like a data folder of swarm", cause=cause, hint="check --data")
    refuse_while_running(data, socket_path)
    queued = len(queued_files(data))
    lost = f", with {queued} queued submit{'s' if queued > 1 else ''} that no leader has taken" if queued else ""
    if not yes:
        question = f"Remove this node's identity and cluster state in {data} ({len(names)} files{lost})?"
        click.confirm(question, abort=True, err=True)
    running = leftovers(data, checked_engine(engine))
    remove_contents(data, names)
    if queued:
        print(f"note: {queued} queued submit{'s were' if queued > 1 else ' was'} never carried out, and lost", file=sys.stderr)
    if running:
        print(f"note: {running}", file=sys.stderr)
    print(f"{data} is empty; swarm up founds or joins a cluster anew")


def refuse_while_running(data: str, socket_path: str) -> None:
    """Raises `Conflict` while a daemon answers on the socket or has one of the folder's files open."""
    hint = "end it first: swarm down"
    if answers(socket_path):
        raise Conflict("the daemon is running", cause=f"it answers at {socket_path}", hint=hint)
    holder = process_using(os.path.realpath(data))
    if not holder and is_locked(os.path.join(data, LOCK)):
        raise Conflict("the daemon is running", cause=f"{data} is locked by it", hint=hint)
    if holder:
        raise Conflict("the daemon is running", cause=f"process {holder} has files in {data} open", hint=hint)


def remove_contents(data: str, names: list[str]) -> None:
    """Empty the folder. Raises `UsageError` with what could not be removed; running it again goes on."""
    import shutil

    for name in names:
        path = os.path.join(data, name)
        try:
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path)
            else:
                os.unlink(path)
        except OSError as error:
            raise UsageError(f"cannot remove {path}", cause=error.strerror or str(error), hint="run it as root") from None
