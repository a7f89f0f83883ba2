"""Daemons that share the machine's one engine, for a laptop: no root, no namespaces, no faults of the network.

Each daemon has a loopback address (127.77.0.11 on) and folders of its own. Every container of a cluster knows its
node's address by SWARM_NODE_ADDRESS, and these addresses are the testnet's alone: that is how its containers are
told from all others on the engine. A host's death is the daemon's death together with its containers.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docker
import docker.errors
from docker.models.containers import Container

from testnet import images, state
from testnet.host import answers
from testnet.layout import HOSTS_MAX, Layout, TestnetError
from testnet.processes import Process, all_stats
from testnet.state import HostRecord, Record

LABEL_TASK_NAME = "swarm.name"  # given by the daemons to every container they start


def machine_engine() -> str:
    """The URL of an engine that answers: DOCKER_HOST or the machine's usual socket."""
    url = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    if url.startswith("unix://") and not answers(url.removeprefix("unix://"), "/_ping"):
        raise TestnetError(f"no Docker Engine answers at {url}: start one, or set DOCKER_HOST to one you may use")
    return url


def prepare(layout: Layout, count: int, with_images: tuple[str, ...]) -> None:
    url = machine_engine()
    images.load_missing(url, with_images)
    hosts = {number: HostRecord(number=number) for number in range(1, count + 1)}
    for number in hosts:
        (layout.folder(number) / "swarm").mkdir(parents=True, exist_ok=True)
    state.save(layout, Record(engine="shared", engine_url=url, hosts=hosts))


def remove(layout: Layout, record: Record | None) -> None:
    """End the daemons and remove their containers from the engine, also when the record is lost."""
    for daemon in daemons(layout):
        daemon.kill()
    try:
        url = machine_engine() if record is None else record.engine_url
    except TestnetError:
        return  # no engine, so no containers
    addresses = {layout.loopback(number) for number in range(1, HOSTS_MAX + 1)}
    with containers_at(url, addresses) as found:
        for container in found:
            ignore_missing(container, "remove")


def kill_containers(layout: Layout, record: Record, number: int) -> None:
    """What a power cut does to the containers of one host."""
    with containers_at(record.engine_url, {layout.loopback(number)}) as found:
        for container in found:
            ignore_missing(container, "kill")


def ignore_missing(container: Container, what: str) -> None:
    try:
        container.remove(force=True) if what == "remove" else container.kill()
    except docker.errors.APIError as problem:
        if problem.status_code not in (404, 409):
            raise  # gone, or ended, in between is as good


@contextmanager
def containers_at(engine_url: str, addresses: set[str]) -> Iterator[list[Container]]:
    """The containers on an engine that daemons with these addresses made."""
    client = docker.DockerClient(base_url=engine_url, timeout=60)
    try:
        listed = client.containers.list(all=True, ignore_removed=True)
        yield [container for container in listed if node_address(container) in addresses]
    finally:
        client.close()


def node_address(container: Container) -> str:
    """The address of the node that made a container, or nothing."""
    for setting in container.attrs["Config"].get("Env") or []:
        name, _, value = setting.partition("=")
        if name == "SWARM_NODE_ADDRESS":
            return str(value.partition(":")[0])
    return ""


def daemons(layout: Layout) -> list[Process]:
    """The processes that keep their data in this testnet's folder."""
    wanted = f"{layout.state}/h".encode()
    found = []
    for stat in all_stats():
        try:
            arguments = Path(f"/proc/{stat.pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"--data" in arguments and any(argument.startswith(wanted) for argument in arguments):
            found.append(Process(pid=stat.pid, start_ticks=stat.start_ticks))
    return found
