"""A node's own side of a rotation: its data folder, what is in force, the answers it gives, and what it asks of others."""

from __future__ import annotations

import hashlib
import random
import ssl
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
import trio
import trio.testing

from swarm.adapters.certificates import ApiDoor, Contexts, api_context, authority_of, issue
from swarm.adapters.identity import ClusterFile, DataFolder, open_data_folder
from swarm.adapters.tcp import PeerPort
from swarm.controllers import RotationController
from swarm.drivers.consensus import Replica
from swarm.drivers.declare import Admitted
from swarm.drivers.keys import KeyFollower
from swarm.drivers.replica_apply import Changes
from swarm.drivers.replica_forward import pack_command
from swarm.errors import Unauthenticated, Unavailable, Unreachable
from swarm.model.command import Admit, Assign, RotateSecret, SetNode, Submit
from swarm.model.container import ContainerPlan
from swarm.model.entry import Configuration, Voter
from swarm.model.ids import ClusterId, NodeId, RequestId, TaskId
from swarm.model.node import Availability, Node
from swarm.model.resources import Resources
from swarm.model.secret import Secrets
from swarm.model.task import TaskSpec
from swarm.model.view import FollowerView
from swarm.node.daemon import Daemon as WholeDaemon
from swarm.node.keys import Keys
from swarm.node.registry import RegistryCredentials, SealedAuth
from swarm.ports import PROTOCOL_BOOT, PROTOCOL_PEER, PROTOCOL_REJOIN
from swarm.runner.labels import TASK
from swarm.wire.codec import decode_untrusted, encode
from swarm.wire.envelope import UnknownKey
from swarm.wire.keys import cluster_salt
from swarm.wire.rejoin import Handed
from swarm.wire.token import parse_token
from tests.catalog_kit import Log, make_node
from tests.fakes.loopback_members import key_of, node_id_of
from tests.fakes.memory_peers import MemoryNetwork

CLUSTER = ClusterId("ab" * 16)
FIRST = bytes(range(32))
SALT = cluster_salt(CLUSTER)


class Port:
    """Remembers the contexts in force."""

    def __init__(self) -> None:
        self.used: dict[str, Contexts] = {}

    def use(self, protocol: str, contexts: Contexts) -> None:
        self.used[protocol] = contexts


class OneLog:
    """The log that every node of a test sees, at once or when it is told to (`late`)."""

    def __init__(self) -> None:
        self.log = Log()
        self.subscribers: list[Callable[[Changes], None]] = []

    def replica(self, node_id: NodeId) -> Replica:
        return cast(Replica, SimpleNamespace(node_id=node_id, subscribe=self.subscribers.append, submit=self.submit))

    async def submit(self, command: Any, *, request_id: RequestId, timeout_s: float = 1.0) -> None:
        await trio.lowlevel.checkpoint()
        self.apply(command)

    def apply(self, command: Any) -> None:
        applied = self.log.must(command)
        for subscriber in self.subscribers:
            subscriber(cast(Changes, applied))


class Daemon:
    """One node: a data folder of its own, and everything that hangs on the secret."""

    def __init__(self, number: int, path: Path, shared: OneLog, network: MemoryNetwork) -> None:
        self.path, self.shared, self.network = path / f"n{number}", shared, network
        self.number = number
        self.port = Port()
        self.folder = self.opened()
        self.folder.save_cluster(self.folder.cluster or ClusterFile(CLUSTER, FIRST))
        self.start()

    def opened(self) -> DataFolder:
        folder = open_data_folder(self.path, name=f"n{self.number}", rng=random.Random(self.number))
        (self.path / "store.json").touch()
        return folder

    def start(self) -> None:
        facts = SimpleNamespace(address=f"10.0.0.{self.number}:4747")
        site: Any = SimpleNamespace(folder=self.folder, port=cast(PeerPort, self.port), facts=facts)
        assert self.folder.cluster is not None
        self.keys = Keys(site, self.folder.cluster)
        catalog = self.shared.log.catalog
        self.peers = self.network.peers(self.folder.node_id)
        self.registry = RegistryCredentials(self.folder, catalog, self.peers, lambda: catalog.nodes)
        self.follower = KeyFollower(
            self.keys, self.shared.replica(self.folder.node_id), catalog, self.peers, catalog.nodes.get,
            request_id=lambda: RequestId("r" * 32),
        )  # fmt: skip

    def restart(self) -> None:
        self.folder.close()
        self.folder = self.opened()
        self.start()

    @property
    def node(self) -> Node:
        return Node(
            self.folder.node_id, f"n{self.number}", f"10.0.0.{self.number}:4747", "", self.folder.fingerprint,
            self.folder.public_key, 1, capacity=Resources(4000, 2**33, 100), schema_known=2,
        )  # fmt: skip

    async def rotation(self, remove: str = "") -> Any:
        catalog = self.shared.log.catalog
        return await self.keys.new_secret(
            catalog.secrets, catalog.nodes.values(), remove=NodeId(remove), reason="", request_id=RequestId("q" * 32)
        )


class Cluster:
    """Three nodes, and a leader's controller that is asked when a test says so."""

    def __init__(self, path: Path, count: int = 3) -> None:
        self.shared, self.network = OneLog(), MemoryNetwork()
        self.path = path
        self.daemons = [Daemon(number, path, self.shared, self.network) for number in range(1, count + 1)]
        self.shared.log = founded = Log(*sorted((daemon.node for daemon in self.daemons), key=lambda node: node.id))
        for daemon in self.daemons:
            daemon.start()
        self.controller = RotationController()
        self.catalog = founded.catalog

    def decide(self) -> bool:
        """The leader looks once; whether it took a step."""
        ids = sorted(self.catalog.nodes)
        view = self.catalog.view(
            1.0, ids[0], {}, configuration=Configuration(tuple(Voter(each, 1) for each in ids)),
            followers={each: FollowerView(each, 1, 1, 1.0) for each in ids},
        )  # fmt: skip
        step = self.controller.reconcile(view)
        if step is not None:
            self.shared.apply(step)
        return step is not None

    async def until(self, condition: Callable[[], object]) -> None:
        """Let every node and the leader do what there is to do, until it holds."""
        with trio.fail_after(20):
            while not condition():
                await trio.testing.wait_all_tasks_blocked(0.005)
                self.decide()

    def rotated(self) -> bool:
        """Whether the log says so and every node holds one secret again."""
        return self.catalog.secrets.phase == "none" and all(len(daemon.keys.held) == 1 for daemon in self.daemons)

    def secrets(self) -> list[str]:
        return [daemon.keys.join_token()[0] for daemon in self.daemons]


async def test_a_rotation_reaches_the_folder_the_packets_the_port_and_the_token_of_every_node(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    one, two, _ = cluster.daemons
    door = await one.keys.open_door()
    before = dict(one.port.used)
    recorded = one.keys.sealer.seal(one.folder.node_id, b"old")
    async with trio.open_nursery() as nursery:
        for daemon in cluster.daemons:
            await nursery.start(daemon.follower.run)
        command = await one.rotation()
        assert FIRST not in encode(command)
        cluster.shared.apply(command)
        await cluster.until(cluster.rotated)
        nursery.cancel_scope.cancel()
    assert cluster.catalog.secrets.phase == "none" and cluster.catalog.secrets.sending == 1
    assert len(set(cluster.secrets())) == 1
    fresh = parse_token(cluster.secrets()[0])
    assert fresh != FIRST and all(fresh not in entry.payload for entry in cluster.shared.log.entries)
    snapshot = b"".join(cluster.catalog.snapshot_slices())
    assert b"n1" in snapshot and all(each not in snapshot for each in (fresh, FIRST, fresh.hex().encode(), FIRST.hex().encode()))
    for daemon in cluster.daemons:
        file = daemon.folder.cluster
        assert file is not None
        assert (file.secret, file.accepted, file.former) == (fresh, (), (hashlib.sha256(FIRST).digest(),))
    assert all(one.port.used[name] is not before[name] for name in (PROTOCOL_BOOT, PROTOCOL_PEER, PROTOCOL_REJOIN))
    two.keys.sealer.prove(one.folder.node_id, 0)
    with pytest.raises(UnknownKey):
        two.keys.sealer.open_untrusted(recorded)
    assert two.keys.sealer.open_untrusted(one.keys.sealer.seal(one.folder.node_id, b"new"))[1] == b"new"
    assert one.keys.authority()[0] == authority_of(fresh, SALT).fingerprint == one.keys.authority_to_come()
    assert door.context is not None


async def test_what_was_answered_is_on_disk_and_a_restart_goes_on_from_there(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, 1)
    (one,) = cluster.daemons
    async with trio.open_nursery() as nursery:
        await nursery.start(one.follower.run)
        cluster.shared.apply(await one.rotation())
        with trio.fail_after(20):
            while not cluster.catalog.secrets.acks:
                await trio.testing.wait_all_tasks_blocked(0.005)
        nursery.cancel_scope.cancel()
    one.restart()
    assert len(one.keys.held) == 2 and one.keys.sends == authority_of(FIRST, SALT).fingerprint
    async with trio.open_nursery() as nursery:
        await nursery.start(one.follower.run)
        await cluster.until(cluster.rotated)
        nursery.cancel_scope.cancel()
    assert len(one.keys.held) == 1 and one.keys.sends != authority_of(FIRST, SALT).fingerprint
    assert one.folder.cluster is not None and one.folder.cluster.former


async def test_a_node_admitted_during_a_rotation_asks_another_for_the_secret_it_has_no_copy_of(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, 2)
    one = cluster.daemons[0]
    cluster.shared.apply(await one.rotation())
    late = Daemon(9, tmp_path, cluster.shared, cluster.network)
    cluster.daemons.append(late)
    cluster.shared.apply(Admit(late.node))
    async with trio.open_nursery() as nursery:
        for daemon in cluster.daemons:
            await nursery.start(daemon.follower.run)
        await cluster.until(cluster.rotated)
        nursery.cancel_scope.cancel()
    assert cluster.catalog.secrets.phase == "none"
    assert len(set(cluster.secrets())) == 1 and parse_token(late.keys.join_token()[0]) != FIRST


async def test_nobody_but_an_admitted_node_is_handed_anything_and_only_under_its_pinned_key(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, 2)
    one, two = cluster.daemons
    with pytest.raises(Unauthenticated):
        await one.follower._on_hand(NodeId("ff" * 16), b"")
    with pytest.raises(Unreachable, match="not read the log far enough"):
        await one.follower._on_hand(two.folder.node_id, b"")
    cluster.shared.apply(await one.rotation())
    handed = await one.follower._on_hand(two.folder.node_id, b"")
    assert two.keys.open_handed(handed).sending == FIRST
    with pytest.raises(Unauthenticated):
        one.keys.open_handed(handed)
    forged = msgspec.structs.replace(two.node, public_key=one.folder.public_key)
    with pytest.raises(Unauthenticated, match="another key"):
        one.keys.hand_to(forged)


async def test_a_secret_that_came_from_others_is_passed_on_only_when_the_log_here_tells_of_it(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, 2)
    one, two = cluster.daemons
    fresh = bytes([7]) * 32
    await one.keys.replace(Handed(CLUSTER, fresh))
    cluster.shared.apply(await two.rotation())  # an earlier rotation, as far as the log was read here
    with pytest.raises(Unreachable):
        await one.follower._on_hand(two.folder.node_id, b"")
    one.restart()
    with pytest.raises(Unreachable):
        await one.follower._on_hand(two.folder.node_id, b"")


async def test_whoever_was_a_member_when_a_secret_was_taken_is_handed_it_before_the_log_is_read_again(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, 3)
    one, two, three = cluster.daemons
    async with trio.open_nursery() as nursery:
        for daemon in cluster.daemons[:2]:
            await nursery.start(daemon.follower.run)
        cluster.shared.apply(await one.rotation(remove=three.folder.node_id))
        await cluster.until(lambda: len(cluster.catalog.secrets.acks) == 2)
        nursery.cancel_scope.cancel()
    cluster.shared.log = Log(*sorted((daemon.node for daemon in cluster.daemons), key=lambda node: node.id))
    one.restart()
    assert one.keys.pinned == {one.folder.node_id, two.folder.node_id} and len(one.keys.held) == 2
    await one.follower._on_hand(two.folder.node_id, b"")
    with pytest.raises(Unreachable):
        await one.follower._on_hand(three.folder.node_id, b"")


async def test_a_recovery_that_is_followed_with_its_secret_is_on_disk_in_one_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the secret of one side and the generation of the other a node could speak with neither."""
    daemon = Cluster(tmp_path, 1).daemons[0]
    written: list[ClusterFile] = []
    save = DataFolder.save_cluster

    def record(folder: DataFolder, file: ClusterFile) -> None:
        written.append(file)
        save(folder, file)

    with monkeypatch.context() as patch:
        patch.setattr(DataFolder, "save_cluster", record)
        await daemon.keys.save_followed(1 << 40, "it was recovered", Handed(CLUSTER, b"s" * 32, (b"a" * 32,)))
    (file,) = written
    assert (file.recovery_generation, file.secret, file.accepted, file.pinned) == (1 << 40, b"s" * 32, (b"a" * 32,), ())
    for step in (
        daemon.keys.change(add=(b"o" * 32,), members=(NodeId("cd" * 16),)),
        daemon.keys.replace(Handed(CLUSTER, b"o" * 32)),
        daemon.keys.learn(Secrets((), 0), ()),
    ):
        with pytest.raises(Unavailable, match="not changed any more"):  # the other side's rotation, which was on its way
            await step
    daemon.restart()
    assert daemon.folder.cluster == file
    assert daemon.keys.sends == authority_of(b"s" * 32, SALT).fingerprint
    await daemon.keys.save_followed(2 << 40, "it was recovered again", None)
    again = daemon.folder.cluster
    assert again is not None and (again.recovery_generation, again.secret) == (2 << 40, b"s" * 32)


async def test_a_switch_to_a_secret_that_was_replaced_meanwhile_is_refused(tmp_path: Path) -> None:
    daemon = Cluster(tmp_path, 1).daemons[0]
    await daemon.keys.replace(Handed(CLUSTER, b"s" * 32))
    with pytest.raises(Unavailable, match="not held"):
        await daemon.keys.change(send=authority_of(FIRST, SALT).fingerprint)


async def test_a_folder_that_cannot_be_written_ends_nothing_and_nothing_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = Cluster(tmp_path, 1)
    (one,) = cluster.daemons

    def full(self: DataFolder, cluster: ClusterFile) -> None:
        raise OSError(28, "No space left on device")

    async with trio.open_nursery() as nursery:
        with monkeypatch.context() as patch:
            patch.setattr(DataFolder, "save_cluster", full)
            await nursery.start(one.follower.run)
            cluster.shared.apply(await one.rotation())
            with pytest.raises(Unavailable, match="cannot write"):
                await one.keys.save_nodes(())
            assert cluster.catalog.secrets.acks == ()
        await cluster.until(cluster.rotated)
        nursery.cancel_scope.cancel()


async def test_a_count_of_starts_that_cannot_be_written_is_what_the_daemon_expects_of_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever claims a later start of this node makes it write: that must not end it."""
    (one,) = Cluster(tmp_path, 1).daemons

    def full(self: DataFolder, generation: int) -> None:
        raise OSError(28, "No space left on device")

    daemon = SimpleNamespace(
        save_wanted=trio.Event(),
        keys=one.keys,
        site=SimpleNamespace(folder=one.folder),
        gossip=SimpleNamespace(members=lambda: {one.folder.node_id: SimpleNamespace(generation=one.folder.generation + 7)}),
        to_save=None,
    )
    before = one.folder.generation
    async with trio.open_nursery() as nursery:
        with monkeypatch.context() as patch:
            patch.setattr(DataFolder, "raise_generation", full)
            nursery.start_soon(WholeDaemon.save_members, cast(WholeDaemon, daemon))
            daemon.save_wanted.set()
            await trio.testing.wait_all_tasks_blocked(0.01)
        daemon.save_wanted.set()
        with trio.fail_after(10):
            while one.folder.generation == before:
                await trio.testing.wait_all_tasks_blocked(0.01)
        nursery.cancel_scope.cancel()
    assert one.folder.generation == before + 7


async def test_a_copy_that_is_another_secret_than_the_log_names_is_not_taken(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, 2)
    one, two = cluster.daemons
    first, second = await one.rotation(), await one.rotation()
    cluster.shared.apply(msgspec.structs.replace(first, sealed=second.sealed))
    async with trio.open_nursery() as nursery:
        await nursery.start(two.follower.run)
        await cluster.until(lambda: cluster.catalog.secrets.acks)
        nursery.cancel_scope.cancel()
    assert two.keys.held == {authority_of(FIRST, SALT).fingerprint}
    assert cluster.catalog.secrets.acks[0].holds == 0


async def test_a_removed_node_gets_no_copy_of_the_secret_that_is_brought_in_with_its_removal(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    one, _, three = cluster.daemons
    command = await one.rotation(remove=three.folder.node_id)
    assert {copy.node_id for copy in command.sealed} == {each.folder.node_id for each in cluster.daemons[:2]}
    cluster.shared.apply(command)
    assert three.folder.node_id not in cluster.catalog.nodes
    with pytest.raises(Unauthenticated):
        await one.follower._on_hand(three.folder.node_id, b"")


def test_the_apis_certificate_changes_for_the_next_handshake_with_and_without_a_server_name() -> None:
    old, new = (issue(bytes([number]) * 32, SALT, node_id_of(1), key_of(1)) for number in (1, 2))
    door = ApiDoor(old)
    for present in (old, new, old):
        door.replace(api_context(present))
        for name in (None, "h1"):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.load_verify_locations(cadata=present.authority.decode())
            shake(context, door.context, name)


def shake(client: ssl.SSLContext, server: ssl.SSLContext, name: str | None) -> None:
    """A handshake in memory, to its end."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = client.wrap_bio(to_client, to_server, server_hostname=name), server.wrap_bio(to_server, to_client, server_side=True)
    done: set[int] = set()
    while len(done) < 2:
        for number, end in enumerate(ends):
            try:
                end.do_handshake()
                done.add(number)
            except ssl.SSLWantReadError:
                pass


AUTH = b'{"username": "ann", "password": "hunter2hunter2"}'


def plan_of(task_id: str, sealed: bytes) -> ContainerPlan:
    return ContainerPlan("c", {TASK: task_id}, TaskSpec(name="web", image="x", registry_auth=sealed), ())


async def test_registry_credentials_open_on_members_of_the_moment_and_nowhere_else(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, 2)
    one, two = cluster.daemons
    sealed = await one.registry.seal(AUTH)
    assert b"hunter2" not in sealed and len(decode_untrusted(sealed, SealedAuth, bytes_max=10_000).keys) == 2
    assert (await two.registry.open(plan_of("t1", sealed)))["username"] == "ann"
    stranger = Daemon(7, tmp_path, cluster.shared, cluster.network)
    cluster.network.isolate(stranger.folder.node_id)
    with pytest.raises(Unauthenticated, match="before this node was a member"):
        await stranger.registry.open(plan_of("t1", sealed))


async def test_credentials_outlive_a_rotation_and_a_later_member_gets_the_key_of_a_task_that_it_was_assigned(
    tmp_path: Path,
) -> None:
    cluster = Cluster(tmp_path, 2)
    one, two = cluster.daemons
    sealed = await one.registry.seal(AUTH)
    late = Daemon(9, tmp_path, cluster.shared, cluster.network)
    cluster.shared.apply(Admit(late.node))
    task_id = TaskId("t1")
    cluster.shared.apply(Submit(task_id, TaskSpec(name="web", image="x", registry_auth=sealed)))
    with pytest.raises(Unauthenticated, match="not assigned"):
        await late.registry.open(plan_of(task_id, sealed))
    cluster.shared.apply(Assign(task_id, 1, late.folder.node_id))
    assert (await late.registry.open(plan_of(task_id, sealed)))["password"] == "hunter2hunter2"
    with pytest.raises(Unauthenticated, match="not assigned"):
        await one.registry._on_ask(two.folder.node_id, task_id.encode())


def test_a_leader_holds_a_rotation_back_until_every_member_has_declared_that_it_knows_the_entry(tmp_path: Path) -> None:
    old = make_node("n2", schema_known=1)
    log = Log(make_node("n1", schema_known=2), old, make_node("n3", schema_known=2))
    admitted = Admitted(log.catalog, (), lambda nodes: None)

    def held_back(remove: str = "") -> str:
        authority = authority_of(FIRST, SALT)
        packed = pack_command(RotateSecret(1, authority, authority, (), NodeId(remove)))
        return admitted.held_back(*packed)

    assert "schema 2, which n2 did not declare" in held_back()
    assert held_back(remove=old.id) == "", "the one that goes is not asked"
    assert "n2" in held_back(remove="id-n3")
    assert admitted.held_back(*pack_command(SetNode(old.id, Availability.LEFT))) == ""
    log.must(SetNode(old.id, Availability.LEFT))
    assert held_back() == ""
