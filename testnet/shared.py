"""Daemons that share the machine's one engine, for a laptop: no root, no namespaces, no faults of the
network.

Each daemon has a loopback address (127.77.0.11 on) and folders of its own; their containers are told apart by
the labels that every daemon gives its own. A host's death is the daemon's death together with its containers.
"""

from __future__ import annotations

import os

import docker
import docker.errors

from testnet import images, state
from testnet.host import answers
from testnet.layout import Layout, TestnetError
from testnet.state import DAEMON, HostRecord, Record

LABEL_TASK_NAME = "swarm.task"  # given by the daemons to every container they start
LABEL_CLUSTER = "swarm.cluster"


def machine_engine() -> str:
    """The URL of an engine that answers: DOCKER_HOST or the machine's usual socket."""
    url = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    if url.startswith("unix://") and not answers(url.removeprefix("unix://"), "/_ping"):
        raise TestnetError(
            f"no Docker Engine answers at {url}: start one, or set DOCKER_HOST to one you may use"
        )
    return url


def prepare(layout: Layout, count: int, with_images: tuple[str, ...]) -> None:
    url = machine_engine()
    images.load_missing(url, with_images)
    record = Record(
        engine="shared", engine_url=url, hosts={n: HostRecord(number=n) for n in range(1, count + 1)}
    )
    for number in record.hosts:
        (layout.folder(number) / "swarm").mkdir(parents=True, exist_ok=True)
    state.save(layout, record)


def remove(layout: Layout, record: Record) -> None:
    """End the daemons and remove their containers from the engine."""
    for host in record.hosts.values():
        daemon = host.processes.get(DAEMON)
        if daemon is not None:
            daemon.kill()
    cluster = layout.state / "cluster"
    if cluster.exists():
        remove_containers(record.engine_url, {"label": f"{LABEL_CLUSTER}={cluster.read_text().strip()}"})


def remove_containers(engine_url: str, filters: dict[str, str]) -> None:
    client = docker.DockerClient(base_url=engine_url, timeout=60)
    try:
        for container in client.containers.list(all=True, filters=filters):
            try:
                container.remove(force=True)
            except docker.errors.NotFound:
                continue  # gone in between
    finally:
        client.close()
