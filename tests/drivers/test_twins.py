"""Two daemons with one id and one key, over real TLS on loopback: the younger ends, and only it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import msgspec
import pytest
import trio

from swarm.adapters.certificates import contexts, issue
from swarm.adapters.tcp import PeerPort, listener_port, open_listener
from swarm.drivers.boot import Desk
from swarm.drivers.presence import Run
from swarm.drivers.twins import Twins
from swarm.errors import IdentityTaken
from swarm.model.entry import Entry
from swarm.ports import PROTOCOL_BOOT
from swarm.wire.keys import FOUND_SALT
from tests.fakes.loopback_members import SECRET, key_of, node_id_of, node_of


async def _nothing(entry: Entry) -> None:
    await trio.lowlevel.checkpoint()


class Daemon:
    """Desk and twins of one run of node `number`, which began `running_s` ago."""

    def __init__(self, name: str, *, running_s: float, number: int = 1, key_number: int | None = None) -> None:
        self.key_number = number if key_number is None else key_number
        self.port = PeerPort()
        credentials = issue(SECRET, FOUND_SALT, node_id_of(number), key_of(self.key_number))
        self.port.use(PROTOCOL_BOOT, contexts(credentials, PROTOCOL_BOOT))
        self.run = Run(name, 1000.0 - running_s, lambda: 1000.0)
        self.number = number
        self.ended: IdentityTaken | None = None
        self.done = trio.Event()

    async def serve(self, nursery: trio.Nursery) -> str:
        listener = await open_listener("127.0.0.1", 0)
        address = f"127.0.0.1:{listener_port(listener)}"
        me = msgspec.structs.replace(node_of(self.number, key_number=self.key_number), address=address)
        self.desk = Desk(me, persist_found=_nothing, run=self.run)
        self.port.handle(PROTOCOL_BOOT, self.desk.accept)
        self.twins = Twins(self.desk, self.port)
        nursery.start_soon(self._serve, listener)
        nursery.start_soon(self._watch)
        return address

    async def _serve(self, listener: trio.SocketListener) -> None:
        try:
            await self.port.serve(listener)
        finally:
            listener.socket.close()

    async def _watch(self) -> None:
        try:
            await self.twins.run()
        except IdentityTaken as refusal:
            self.ended = refusal
            self.done.set()


@asynccontextmanager
async def two(one: Daemon, other: Daemon) -> AsyncIterator[tuple[str, str]]:
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            yield await one.serve(nursery), await other.serve(nursery)
            nursery.cancel_scope.cancel()


async def test_the_younger_that_asks_ends_and_names_the_other() -> None:
    elder, younger = Daemon("a", running_s=7200), Daemon("b", running_s=3)
    async with two(elder, younger) as (where, _):
        younger.twins.suspect(where)
        await younger.done.wait()
        assert younger.ended is not None
        assert "same identity" in younger.ended.message and where in younger.ended.message and "2 h" in younger.ended.message
        assert "swarm reset" in younger.ended.hint
        assert elder.ended is None
        assert elder.desk.counters["twins_met"] == 1


async def test_the_younger_that_is_asked_ends_too() -> None:
    elder, younger = Daemon("a", running_s=500), Daemon("b", running_s=3)
    async with two(elder, younger) as (_, where):
        assert await elder.twins.elder_at(where) is False
        await younger.done.wait()
        assert younger.ended is not None and "for 8 min" in younger.ended.message
        assert elder.ended is None


@pytest.mark.parametrize("asker", ["a", "b"])
async def test_daemons_that_started_together_are_told_apart_by_the_name_of_their_run(asker: str) -> None:
    both = {"a": Daemon("a", running_s=10.0), "b": Daemon("b", running_s=10.5)}
    async with two(both["a"], both["b"]) as addresses:
        where = dict(zip("ab", addresses, strict=True))
        both[asker].twins.suspect(where["b" if asker == "a" else "a"])
        await both["b"].done.wait()
        assert both["a"].ended is None


async def test_a_daemon_is_not_its_own_twin_and_another_node_is_nobodys() -> None:
    one, other = Daemon("a", running_s=5), Daemon("b", running_s=500, number=2)
    async with two(one, other) as (mine, theirs):
        assert not await one.twins.elder_at(mine)
        assert not await one.twins.elder_at(theirs)
        assert one.desk.refusal is None and other.desk.refusal is None


async def test_who_holds_the_token_and_names_this_id_but_not_its_key_displaces_nobody() -> None:
    one, forger = Daemon("a", running_s=5), Daemon("b", running_s=9e9, key_number=7)
    async with two(one, forger) as (mine, theirs):
        assert not await one.twins.elder_at(theirs)
        await forger.twins.elder_at(mine)
        assert one.desk.refusal is None and forger.desk.refusal is None


async def test_nobody_is_displaced_by_a_daemon_that_is_out_of_reach() -> None:
    one, other = Daemon("a", running_s=5), Daemon("b", running_s=500)
    async with two(one, other):
        assert not await one.twins.elder_at("127.0.0.1:1")
        assert one.desk.refusal is None


def test_of_two_runs_each_names_the_same_elder() -> None:
    runs = [Run(name, 1000.0 - age, lambda: 1000.0) for name, age in (("a", 0.0), ("b", 0.4), ("c", 5.0), ("d", 300.0))]
    for mine in runs:
        for other in runs:
            if mine is not other:
                later = replace(other, started_at=other.started_at - 0.001)  # a message's time has passed
                assert mine.is_elder(other.instance, other.running_s) is not later.is_elder(mine.instance, mine.running_s)
