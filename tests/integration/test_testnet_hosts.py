"""The testnet's own claims: its hosts behave like hosts, its faults like faults, it leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker.models.containers import Container

from testnet import cgroups, network
from testnet.cluster import Testnet
from testnet.engine import reserved_instance
from testnet.layout import TestnetError
from testnet.observer import Observer, boottime_s
from testnet.processes import wait_until

pytestmark = pytest.mark.testnet
IMAGES = ("testnet/busybox:1",)


@pytest.fixture(scope="module")
def net() -> Iterator[Testnet]:
    with (
        reserved_instance() as instance,
        Testnet.up(hosts=3, instance=instance, daemons=False, with_images=IMAGES) as made,
    ):
        yield made


@pytest.fixture(autouse=True)
def healed(net: Testnet) -> Iterator[None]:
    yield
    net.heal()
    for number in net.hosts:
        if not net.alive(number):
            net.revive(number)
        net.thaw(number)
        net.restart_engine(number)


def test_a_command_on_a_host_runs_in_the_callers_folder(net: Testnet, tmp_path: Path) -> None:
    run = Path(__file__).parents[2] / "testnet/run"
    environment = os.environ | {"TESTNET_INSTANCE": str(net.layout.instance)}
    done = subprocess.run([run, "exec", "2", "pwd"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == f"{tmp_path}\n"


def start(net: Testnet, number: int, name: str, **options: object) -> str:
    """Start a container that answers `pong` on port 7000, and return its id."""
    client = net.docker(number)
    try:
        command = ["nc", "-ll", "-p", "7000", "-e", "echo", "pong"]
        made: Container = client.containers.run(
            "testnet/busybox:1",
            command,
            name=name,
            detach=True,
            ports={"7000/tcp": 7000},
            init=True,
            **options,
        )
        return str(made.id)
    finally:
        client.close()


def status(net: Testnet, number: int, name: str) -> tuple[str, int]:
    """The state of a container and the pid of its first process."""
    client = net.docker(number)
    try:
        state = client.containers.get(name).attrs["State"]
        return state["Status"], state["Pid"]
    finally:
        client.close()


def remove(net: Testnet, number: int, name: str) -> None:
    client = net.docker(number)
    try:
        client.containers.get(name).remove(force=True)
    finally:
        client.close()


def reaches(net: Testnet, source: int, target: int) -> bool:
    """Whether host `source` reaches the port that a container on host `target` publishes."""
    command = ["bash", "-c", f"exec 3<>/dev/tcp/{net.address(target)}/7000 && head -n 1 <&3"]
    try:
        return "pong" in net.run(source, *command, timeout_s=1.0).stdout
    except subprocess.TimeoutExpired:
        return False


def pings(net: Testnet, source: int, target: int) -> bool:
    """Whether a datagram's refusal comes back: the kernel of `target` answers for a closed UDP port."""
    program = (
        "import socket,sys; s=socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(0.5);"
        "s.connect((sys.argv[1], 9)); s.send(b'x')\n"
        "try: s.recv(1)\n"
        "except ConnectionRefusedError: print('answered')\n"
        "except TimeoutError: print('silent')"
    )
    return "answered" in net.run(source, "python3", "-c", program, net.address(target)).stdout


def test_hosts_have_names_engines_and_addresses_of_their_own(net: Testnet) -> None:
    names = {net.run(number, "hostname").stdout.strip() for number in net.hosts}
    identities = set()
    for number in net.hosts:
        client = net.docker(number)
        identities.add(client.info()["ID"])
        client.close()
    assert names == {"h1", "h2", "h3"}
    assert len(identities) == 3
    assert pings(net, 1, 2)
    assert pings(net, 2, 3)


def test_a_second_up_is_refused(net: Testnet) -> None:
    with pytest.raises(TestnetError, match="is up in"):
        Testnet.up(hosts=1, instance=net.layout.instance, daemons=False)


def test_a_published_port_is_reached_from_other_hosts_until_their_cable_is_cut(net: Testnet) -> None:
    start(net, 2, "pong")
    try:
        wait_until(lambda: reaches(net, 1, 2), timeout_s=10, what="the container to answer")
        net.cut(1, 2, one_way=True)
        assert not reaches(net, 1, 2)
        assert reaches(net, 3, 2)
        net.heal()
        assert reaches(net, 1, 2)
    finally:
        remove(net, 2, "pong")


def test_a_one_way_cut_silences_one_direction_only(net: Testnet) -> None:
    datagrams = "import socket, sys; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(1)\n"
    watch = datagrams + (
        "s.bind(('', 7001)); print('bound', flush=True)\ntry: print(s.recv(9))\nexcept TimeoutError: print('silent')"
    )
    shout = datagrams + "s.sendto(b'hello', (sys.argv[1], 7001))"
    net.cut(1, 2, one_way=True)
    heard = {}
    for source, target in ((1, 2), (2, 1)):
        host = net.host(target)
        with subprocess.Popen(
            [*host.enter(net.init(target)), "python3", "-c", watch], stdout=subprocess.PIPE, text=True
        ) as watcher:
            assert watcher.stdout is not None
            assert watcher.stdout.readline() == "bound\n"
            net.run(source, "python3", "-c", shout, net.address(target))
            heard[source] = "hello" in watcher.stdout.read()
    assert heard == {1: False, 2: True}


def test_a_killed_host_is_gone_at_once_and_returns_with_its_containers_stopped(net: Testnet) -> None:
    made = start(net, 3, "kept")
    _, pid = status(net, 3, "kept")
    net.kill(3)
    assert not Path(f"/proc/{pid}").exists()
    assert not pings(net, 1, 3)
    with pytest.raises(TestnetError, match="host 3 is dead"):
        net.run(3, "true")
    net.revive(3)
    client = net.docker(3)
    try:
        found = client.containers.get("kept")
        assert found.id == made
        assert found.status == "exited"
    finally:
        client.close()
        remove(net, 3, "kept")
    assert pings(net, 1, 3)


def test_containers_outlive_a_crash_of_their_engine(net: Testnet) -> None:
    start(net, 1, "survivor")
    _, before = status(net, 1, "survivor")
    try:
        net.crash_engine(1)
        wait_until(lambda: reaches(net, 2, 1), timeout_s=10, what="the container to answer without its engine")
        net.restart_engine(1)
        assert status(net, 1, "survivor") == ("running", before)
    finally:
        net.restart_engine(1)
        remove(net, 1, "survivor")


def test_a_frozen_host_does_nothing_and_goes_on_where_it_stood(net: Testnet) -> None:
    start(net, 2, "frozen")
    try:
        wait_until(lambda: reaches(net, 1, 2), timeout_s=10, what="the container to answer")
        net.freeze(2)
        assert not reaches(net, 1, 2)
        assert pings(net, 1, 2), "the kernel of a frozen host answers"
        net.thaw(2)
        wait_until(lambda: reaches(net, 1, 2), timeout_s=10, what="the container to answer after the thaw")
        net.freeze(2, silent=True)
        assert not pings(net, 1, 2)
        net.thaw(2)
        assert pings(net, 1, 2)
    finally:
        net.thaw(2)
        remove(net, 2, "frozen")


def test_down_leaves_nothing_even_without_its_record_and_with_a_dead_and_a_frozen_host() -> None:
    with reserved_instance() as instance:
        net = Testnet.up(hosts=3, instance=instance, daemons=False, with_images=IMAGES)
        inits = [net.init(number) for number in net.hosts]
        start(net, 1, "left")
        net.kill(2)
        net.freeze(3)
        net.layout.record.unlink()
        Testnet(net.layout).down()
        assert not net.layout.state.exists()
        assert not network.namespace_names(net.layout)
        assert not network.link_names(net.layout)
        assert not network.chain_exists(net.layout)
        assert not any((tree.path / net.layout.cgroup).exists() for tree in cgroups.hierarchies())
        assert not any(init.alive() for init in inits)
        assert str(net.layout.state) not in Path("/proc/self/mountinfo").read_text()


def test_the_observer_sees_what_ran_through_an_engine_crash_and_a_power_cut(net: Testnet) -> None:
    start(net, 1, "early")
    try:
        with Observer(net) as observer:
            start(net, 2, "doomed")
            observer.wait_for(lambda seen: seen.running("doomed"), timeout_s=5, what="the start to be seen")
            assert observer.running("early")
            net.crash_engine(1)
            net.restart_engine(1)
            before = boottime_s()
            net.kill(2)
            observer.wait_for(lambda seen: not seen.running("doomed"), timeout_s=5, what="the end to be seen")
            (doomed,) = observer.intervals("doomed")
            (early,) = observer.intervals("early")
            assert doomed.end_s is not None
            assert before <= doomed.end_s <= boottime_s()
            assert early.end_s is None, "a crash of its engine ended no container"
            assert observer.copies_max("early") == 1
    finally:
        remove(net, 1, "early")


def test_on_a_shared_engine_down_removes_the_containers_of_its_own_nodes_only(
    net: Testnet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", net.engine(3))
    with reserved_instance() as instance:
        laptop = Testnet.up(hosts=2, instance=instance, engine="shared", daemons=False, with_images=IMAGES)
        client = net.docker(3)
        try:
            for name, address in (("ours", laptop.address(2)), ("theirs", "10.0.0.1")):
                client.containers.create("testnet/busybox:1", name=name, environment={"SWARM_NODE_ADDRESS": address})
            laptop.down()
            assert [container.name for container in client.containers.list(all=True)] == ["theirs"]
        finally:
            client.containers.get("theirs").remove()
            client.close()
        assert not laptop.layout.state.exists()
