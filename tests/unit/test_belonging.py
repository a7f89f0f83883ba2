"""What a data folder must hold together before its node founds, joins or comes back."""

from __future__ import annotations

import errno
import socket
from pathlib import Path

import pytest
from msgspec.structs import replace

from swarm.adapters.listeners import is_daemon
from swarm.errors import StartRefused
from swarm.model.entry import Configuration, Entry, HardState, SnapshotMeta, Voter
from swarm.model.node import Node
from swarm.node.belong import check_log
from swarm.node.site import _own_address
from swarm.node.witness import refuse_change_unsaid
from swarm.ports import Stored
from swarm.schema.node_config import NodeConfig
from tests.fakes.loopback_members import node_of

ROW = Entry(1, 1, "found", 1, b"", 0, 1.0)
SNAPSHOT = SnapshotMeta(7, 2, Configuration((Voter("n", 1),)), 1, 0, 1.0, 0, 0)


@pytest.mark.parametrize("stored", [Stored(1, HardState(), (ROW,), None, None), Stored(1, HardState(), (), SNAPSHOT, b"")])
def test_a_log_without_its_cluster_is_carried_into_no_other_cluster(stored: Stored) -> None:
    with pytest.raises(StartRefused) as caught:
        check_log(Path("/data"), stored, has_cluster=False)
    assert "/data" in caught.value.message and "cluster.json" in caught.value.cause and "swarm reset" in caught.value.hint
    check_log(Path("/data"), stored, has_cluster=True)


def kinds(*, witness: bool) -> tuple[Node, ...]:
    return (node_of(1), replace(node_of(2), witness=witness))


def test_a_witness_is_given_work_only_when_that_was_said() -> None:
    me = node_of(2).id
    with pytest.raises(StartRefused) as caught:
        refuse_change_unsaid(kinds(witness=True), me, None)
    assert caught.value.cause == "this node is a witness" and "--no-witness" in caught.value.hint
    for said in (True, False):
        refuse_change_unsaid(kinds(witness=True), me, said)


def test_a_member_with_an_engine_is_made_no_witness_and_needs_no_word_to_stay_what_it_is() -> None:
    me = node_of(2).id
    with pytest.raises(StartRefused, match="as a witness"):
        refuse_change_unsaid(kinds(witness=False), me, True)
    for said in (None, False):
        refuse_change_unsaid(kinds(witness=False), me, said)
    refuse_change_unsaid((), me, True)


def test_a_host_without_a_default_route_is_told_which_options_say_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoRoute(socket.socket):
        def connect(self, address: object) -> None:
            raise OSError(errno.ENETUNREACH, "Network is unreachable")

    monkeypatch.setattr(socket, "socket", NoRoute)
    with pytest.raises(StartRefused) as caught:
        _own_address(NodeConfig("n1"))
    assert "this host has no default route" in caught.value.cause
    assert "--advertise ADDRESS" in caught.value.hint
    with pytest.raises(StartRefused) as caught:
        _own_address(NodeConfig("n1", peers=("10.0.0.9:4747",)))
    assert "no route to the peer 10.0.0.9" in caught.value.cause


def test_an_empty_store_founds_and_joins() -> None:
    check_log(Path("/data"), Stored(1, HardState(), (), None, None), has_cluster=False)


@pytest.mark.parametrize(
    ("line", "is_one"),
    [
        ("/usr/bin/python3 /usr/local/bin/swarm up --name h1", True),
        ("python -m swarm up", True),
        ("python /lib/swarm/__main__.py up", True),
        ("swarm status", False),
        ("nginx -c up", False),
    ],
)
def test_a_swarm_daemon_is_told_apart_by_its_command_line(line: str, is_one: bool) -> None:
    assert is_daemon(line.split()) is is_one
