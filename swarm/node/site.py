"""What a daemon opens before it belongs to a cluster: its data folder, its store, its engine, its peer port, and its own facts.

Everything here is refused with one clear error, before anything is changed in a cluster: a folder that cannot be used, a port
that is taken, an address that cannot be found out, and, on a node that belongs to no cluster yet, an engine that does not
answer. A node that does belong to one starts without its engine: the host may be booting, and the others should see it. A
witness has none.
"""

from __future__ import annotations

import ipaddress
import logging
import random
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import trio
from msgspec.structs import replace

from swarm.adapters.ballast import BALLAST_BYTES, make_room_to_start
from swarm.adapters.cgroup import prepare_parent
from swarm.adapters.engine import DockerEngine
from swarm.adapters.host import ProcHost
from swarm.adapters.identity import DataFolder, open_data_folder
from swarm.adapters.store import SqliteStore, open_store
from swarm.adapters.tcp import PeerPort, open_listener
from swarm.adapters.udp import UdpSocket
from swarm.api.server import open_tcp_socket
from swarm.errors import StartRefused, StoreFull
from swarm.model.command import SCHEMA_KNOWN
from swarm.model.container import EngineInfo
from swarm.model.node import Node
from swarm.model.resources import Resources
from swarm.node.witness import refuse_change_unsaid
from swarm.ports import Batch, EngineError, Stored
from swarm.schema.node_config import PEER_PORT, NodeConfig
from swarm.wire.address import format_address, parse_address

LOG = logging.getLogger("swarm.node")
TASKS_MAX = 500
"""Containers on one host: beyond this the engine's own lists and the kernel's bridges become slow."""
BOOT_FILE = "boot"
ENGINE_LOOK_S = 15.0


@dataclass(slots=True)
class Site:
    """Everything opened, and what is true of this node."""

    config: NodeConfig
    folder: DataFolder
    store: SqliteStore
    stored: Stored
    engine: DockerEngine
    host: ProcHost
    port: PeerPort
    listener: trio.SocketListener
    packets: UdpSocket
    facts: Node
    cgroup_parent: str
    rebooted: bool
    """The host started anew since this data folder was last used."""

    def let_go_of_stored(self) -> int:
        """The replica has taken over what the store held: let go of its entries, and of the file of its snapshot, which would
        stay on the disk as long as it is held. Returns where that snapshot stood; 0 without one."""
        stored = self.stored
        self.stored = Stored(stored.store_generation, stored.hard_state, (), None, None)
        return stored.snapshot.index if stored.snapshot is not None else 0

    def learn_engine(self, info: EngineInfo) -> bool:
        """The engine answered: whether that changed the facts."""
        before = self.facts
        self.facts = replace(
            before,
            engine_version=info.version,
            arch=info.arch or before.arch,
            capacity=Resources(info.cpus * 1000, info.memory_bytes, TASKS_MAX),
        )
        return self.facts != before


async def write_at_start(store: SqliteStore, batches: Sequence[Batch]) -> None:
    """Before the replica has taken the store over. Raises `StartRefused` when the disk is full, `StoreFailure`."""
    try:
        await store.write(batches)
    except StoreFull as error:
        raise StartRefused("cannot write the log", cause=str(error), hint="free space on that disk") from None


async def open_site(config: NodeConfig) -> Site:
    """Open all of it, or raise `StartRefused` with nothing left open that matters: the process ends."""
    make_room_to_start(Path(config.data))
    folder = open_data_folder(config.data, name=config.name, rng=random.SystemRandom())
    engine = DockerEngine(config.engine, node_id=folder.node_id)
    host = ProcHost(folder.path)
    refuse_change_unsaid(folder.cluster.nodes if folder.cluster is not None else (), folder.node_id, config.witness)
    info = None if config.witness else await _ask_engine(engine, config, must_answer=folder.cluster is None)
    listener = await open_listener(*parse_address(config.listen))
    packets = UdpSocket(*parse_address(config.listen))
    open_tcp_socket(*parse_address(config.api_listen)).close()  # served later; a taken one must not cost an admission first
    if folder.displaced:
        LOG.warning("%s: its log is set aside, and it begins anew as a learner", folder.displaced)
    store, stored = open_store(folder.path, trusted=not folder.displaced, ballast_bytes=BALLAST_BYTES)
    folder.clear_displaced()
    parent, complaint = prepare_parent(info.cgroup_driver if info is not None else "")
    if complaint and info is not None:
        LOG.warning("%s", complaint)
    site = Site(
        config=config,
        folder=folder,
        store=store,
        stored=stored,
        engine=engine,
        host=host,
        port=PeerPort(),
        listener=listener,
        packets=packets,
        facts=_facts(config, folder, host, stored.store_generation),
        cgroup_parent=parent if info is not None else "",
        rebooted=_note_boot(folder.path, host.boot_id()),
    )
    if info is not None:
        site.learn_engine(info)
    return site


async def keep_engine_learned(site: Site, on_change: Callable[[], None]) -> None:
    """An engine that was down at the start, or was upgraded, is declared when it answers. Runs for ever; not on a witness."""
    while not site.config.witness:
        await trio.sleep(ENGINE_LOOK_S)
        try:
            info = await site.engine.info()
        except EngineError:
            continue
        if site.learn_engine(info):
            on_change()


async def _ask_engine(engine: DockerEngine, config: NodeConfig, *, must_answer: bool) -> EngineInfo | None:
    try:
        return await engine.info()
    except EngineError as error:
        if not must_answer:
            LOG.warning("the engine at %s does not answer: %s", config.engine, error.message)
            return None
        raise StartRefused(
            f"cannot start: no Docker Engine answers at {config.engine}",
            cause=error.message,
            hint="start it (systemctl start docker), or name another one with --engine",
        ) from None


def _facts(config: NodeConfig, folder: DataFolder, host: ProcHost, store_generation: int) -> Node:
    address = config.advertise or _own_address(config)
    ip, _ = parse_address(address)
    if not _is_ip(ip):
        raise StartRefused(
            f"cannot advertise {address}", cause="an IP address is needed", hint="give the host's address with --advertise"
        )
    cpu_millicores, memory_bytes = (0, 0) if config.witness else host.capacity()
    return Node(
        id=folder.node_id,
        name=folder.name,
        address=address,
        api_address=format_address(ip, parse_address(config.api_listen)[1]),
        fingerprint=folder.fingerprint,
        public_key=folder.public_key,
        store_generation=store_generation,
        labels=tuple(sorted(config.labels)),
        arch=host.architecture(),
        capacity=Resources(cpu_millicores, memory_bytes, 0 if config.witness else TASKS_MAX),
        witness=bool(config.witness),
        schema_known=SCHEMA_KNOWN,
    )


def _own_address(config: NodeConfig) -> str:
    """The listen address if it is one; else the source address of the route to the first peer, or of the default route."""
    listen_ip, port = parse_address(config.listen)
    if listen_ip not in ("0.0.0.0", "::"):
        return config.listen
    target = parse_address(config.peers[0])[0] if config.peers else "192.0.2.1"  # TEST-NET-1: routed, never sent to
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((target, PEER_PORT))  # UDP: chooses a route, sends nothing
            return format_address(str(probe.getsockname()[0]), port)
    except OSError as error:
        missing = f"no route to the peer {target}" if config.peers else "this host has no default route"
        raise StartRefused(
            "cannot find out which address the other nodes should use for this one",
            cause=f"{missing}: {error.strerror or error}",
            hint="give the host's address: --advertise ADDRESS, or --listen ADDRESS",
        ) from None


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _note_boot(folder: Path, boot_id: str) -> bool:
    """Whether the host booted since the last start; remembers this boot."""
    path = folder / BOOT_FILE
    try:
        before = path.read_text().strip()
    except OSError:
        before = ""
    if before != boot_id:
        path.write_text(boot_id + "\n")
    return before not in ("", boot_id)
